"""The command line. A command imports what it needs when it runs, so that `pddm-lab --help` answers at once."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Sequence

import tyro

from pddm_lab.commands.applications import class_scaling, open_set, recognise, transfer
from pddm_lab.commands.bench import bench
from pddm_lab.commands.bulk import embed
from pddm_lab.commands.cache import cache
from pddm_lab.commands.change import drift, sessions, update
from pddm_lab.commands.dashboard import dashboard, lesson, screenshots
from pddm_lab.commands.data import data
from pddm_lab.commands.export import export, search_exported
from pddm_lab.commands.gallery import gallery
from pddm_lab.commands.imports import import_run
from pddm_lab.commands.robustness import robustness, viewpoint
from pddm_lab.commands.runs import runs
from pddm_lab.commands.search import search, serve
from pddm_lab.commands.study import compare
from pddm_lab.commands.training import demo, resume, train
from pddm_lab.errors import LabError, OptionError, valid_text
from pddm_lab.validation import checked

_COMMANDS: tuple[Callable[..., None], ...] = (
    train, resume, dashboard, screenshots, lesson, demo, recognise, open_set, robustness, viewpoint, transfer,
    class_scaling, compare, drift, export, search_exported, embed, search, serve, update, sessions,
)  # fmt: skip

_EXTRAS = {
    "openvino": "openvino", "onnx": "export", "onnxscript": "export", "executorch": "executorch",
    "streamlit": "dashboard", "ray": "bulk", "fastapi": "service", "uvicorn": "service",
    "prometheus_client": "service",
}  # fmt: skip
"""Module -> extra of the package that brings it. All others that may lack come with `train`."""

app = tyro.extras.SubcommandApp()
for command in _COMMANDS:
    app.command(checked(command))
app.command(name="import")(checked(import_run))
app.command(runs, name="runs", help="List the runs; remove, pack or unpack some; measure parts of their queries.")
app.command(cache, name="cache", help="List or prune what the lab keeps only to be faster.")
app.command(data, name="data", help="List or fetch data sets; correct their items.")
app.command(gallery, name="gallery", help="Change the items of a run's gallery, undo changes, list, map or rebuild it.")
app.command(bench, name="bench", help="Measure how fast the lab is on this machine.")


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command; an error of the lab's own is one line on standard error and exit code 2."""
    try:
        app.cli(
            prog="pddm-lab", description="PDDM Lab: explore deep metric learning.", args=argv,
            config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes),
        )  # fmt: skip
    except OptionError as error:
        typed = shlex.join([*(sys.argv[1:] if argv is None else argv), *shlex.split(error.option)])
        print(f"pddm-lab: {error.message}: `pddm-lab {valid_text(typed)}`.", file=sys.stderr)
        sys.exit(2)
    except LabError as error:
        print(f"pddm-lab: {error}", file=sys.stderr)
        sys.exit(2)
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module in ("", "pddm_lab"):
            raise
        extra = _EXTRAS.get(module, "train")
        print(
            f"pddm-lab: This needs {module}, which isn't installed: pip install 'pddm-lab[{extra}]'.", file=sys.stderr
        )
        sys.exit(2)
    except KeyboardInterrupt:
        print("pddm-lab: interrupted.", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output, such as `head`, has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        print(f"pddm-lab: {error.filename or 'A file'} can't be read or written: {reason}.", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
