"""The command line. A command imports what it needs when it runs, so that `pddm-lab --help` answers at once."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from tyro.conf import Fixed, Positional, Suppress, arg

from pddm_lab import config
from pddm_lab.commands.applications import growth, recognise, transfer
from pddm_lab.commands.bench import bench
from pddm_lab.commands.gallery import gallery
from pddm_lab.commands.study import compare
from pddm_lab.config import PRESET_SUMMARIES, PRESETS, TrainConfig
from pddm_lab.errors import ConfigError, DataError, LabError, RunError, unknown_name

if TYPE_CHECKING:
    from pddm_lab.progress import Progress
    from pddm_lab.runs.run import Run

DEMO_DATASET = "emoji"
DEMO_RUN = "demo"

app = tyro.extras.SubcommandApp()
data = tyro.extras.SubcommandApp()


@dataclasses.dataclass(frozen=True)
class _TrainFlags(TrainConfig):
    preset: Annotated[str, Suppress, Fixed] = "quick"  # the subcommand's name says it


if TYPE_CHECKING:
    _Preset = TrainConfig
else:
    _Preset = tyro.extras.subcommand_type_from_defaults(
        {name: _TrainFlags(**preset.to_dict()) for name, preset in PRESETS.items()}, PRESET_SUMMARIES
    )


@app.command
def train(choices: Annotated[_Preset, arg(name="")]) -> None:
    """Train a run: fetch its data where it is missing, execute the training notebook, keep that in the run's folder."""
    from pddm_lab.runs.folder_name import folder_name
    from pddm_lab.training.notebook import train_in_notebook

    chosen = TrainConfig(**choices.to_dict())
    folder_name(chosen, datetime.now(UTC))  # a bad name is an error before anything is fetched
    _fetch_if_missing(chosen.dataset, chosen.data_root)
    _report(train_in_notebook(chosen))


@app.command
def resume(run: Positional[str], runs_root: str = "") -> None:
    """Go on with a run that stopped, failed or was interrupted; its notebook is executed anew.

    Args:
        run: name of the run, or path of its folder.
        runs_root: folder that holds the runs; empty: $PDDM_LAB_RUNS, else ./runs.
    """
    from pddm_lab.training.notebook import resume_in_notebook

    _report(resume_in_notebook(_find_run(run, runs_root).path))


@app.command(name="runs")
def list_all_runs(runs_root: str = "") -> None:
    """List the runs, newest first, with their final metrics.

    Args:
        runs_root: folder that holds the runs; empty: $PDDM_LAB_RUNS, else ./runs.
    """
    from pddm_lab.runs.compare import BrokenRun, list_runs

    found = list_runs(runs_root)
    rows = [_run_row(run) for run in found if not isinstance(run, BrokenRun)]
    if rows:
        _print_table(("run", "status", "step", "dataset", "preset", "unseen R@1 / MAP@R", "known R@1 / MAP@R"), rows)
        print("\nR@1 and MAP@R in %, Euclidean ranking, then the trained similarity's. All of it: pddm-lab dashboard")
    for run in found:
        if isinstance(run, BrokenRun):
            print(f"{run.name} can't be read: {run.reason}")
            continue
        if run.reason:
            print(f"{run.name} {run.status}: {run.reason}")
        if run.notes.strip():
            print(f"{run.name} notes: {' '.join(run.notes.split())[:200]}")
    if not found:
        print(f"No run in {config.runs_root(runs_root)} yet. Train one: pddm-lab train quick")


@app.command
def dashboard(run: Positional[str] = "", port: int = 8501, runs_root: str = "", data_root: str = "") -> None:
    """Serve the dashboard.

    Args:
        run: name of the run to open; empty: the newest.
        port: port of the web page.
        runs_root: folder that holds the runs; empty: $PDDM_LAB_RUNS, else ./runs.
        data_root: folder that holds the data sets; empty: $PDDM_LAB_DATA, else ./data.
    """
    _serve(_find_run(run, runs_root).name if run else "", port, runs_root, data_root)


@app.command
def screenshots(
    run: Positional[str], out: str = ".", only: str = "", full: bool = False, width: int = 1280, runs_root: str = ""
) -> None:
    """Take pictures of the dashboard's pages with a run open, light and dark; needs Chromium.

    Args:
        run: name of the run, or path of its folder.
        out: folder the PNG files go to.
        only: one page, such as search, in the light theme; empty: each of them in both.
        full: the whole of each page, however long, rather than what a window shows.
        width: of the window, in pixels.
        runs_root: folder that holds the runs; empty: $PDDM_LAB_RUNS, else ./runs.
    """
    from pddm_lab.dashboard_server import PAGES, THEMES, take_screenshots

    if only and only not in PAGES:
        raise ConfigError(f"--only expects one of {', '.join(PAGES)}, got {only!r}.")
    pages, themes = ([only], THEMES[:1]) if only else (PAGES, THEMES)
    for path in take_screenshots(_find_run(run, runs_root), Path(out), pages, themes, width=width, full=full):
        print(path)


@app.command
def demo(serve: bool = False, port: int = 8501, data_root: str = "", runs_root: str = "") -> None:
    """Fetch the demo data and train a first run on it; what is there already is kept.

    Args:
        serve: then serve the dashboard with that run open.
        port: port of the web page.
        data_root: folder that holds the data sets; empty: $PDDM_LAB_DATA, else ./data.
        runs_root: folder that holds the runs; empty: $PDDM_LAB_RUNS, else ./runs.
    """
    fetch(DEMO_DATASET, data_root)
    run = _demo_run(data_root, runs_root)
    _report(run)
    if serve:
        _serve(run.name, port, runs_root, data_root)


def _demo_run(data_root: str, runs_root: str) -> Run:
    """The finished demo run: as it is, gone on with, or trained anew where what is there can't be gone on with."""
    from pddm_lab.runs.run import Run
    from pddm_lab.training.notebook import resume_in_notebook, train_in_notebook

    folder = config.runs_root(runs_root)
    for number in range(1, 100):
        name = DEMO_RUN if number == 1 else f"{DEMO_RUN}-{number}"
        if not (folder / name).exists():
            return train_in_notebook(
                TrainConfig(dataset=DEMO_DATASET, run_name=name, data_root=data_root, runs_root=runs_root)
            )
        try:
            run = Run.open(folder / name)
            if run.status in ("finished", "running"):
                return run
            print(f"Going on with the run {name}, which was {run.status}: {run.reason}", file=sys.stderr)
            return resume_in_notebook(run.path)
        except LabError as error:
            print(f"The run {name} is kept as it is, and another is trained: {error}", file=sys.stderr)
    raise RunError(f"{folder} has 99 demo runs and none is finished: delete some, or name another folder: --runs-root.")


@data.command(name="list")
def list_data(data_root: str = "") -> None:
    """List the data sets the lab knows, and which of them are here.

    Args:
        data_root: folder that holds the data sets; empty: $PDDM_LAB_DATA, else ./data.
    """
    from pddm_lab.data.dataset import SOURCES

    root = config.data_root(data_root)
    rows = [
        (source.name, "yes" if source.is_present(root) else "no", source.title, source.licence, source.size)
        for source in SOURCES.values()
    ]
    _print_table(("name", "here", "what", "licence", "size"), rows)
    print(f"\nFolder: {root}. Any folder of your own, one folder of images per class: --dataset folder:PATH")


@data.command
def fetch(name: Positional[str], data_root: str = "") -> None:
    """Fetch a data set; one that is complete is kept.

    Args:
        name: its name, as `pddm-lab data list` shows it.
        data_root: folder that holds the data sets; empty: $PDDM_LAB_DATA, else ./data.
    """
    from pddm_lab.data.dataset import SOURCES

    if name not in SOURCES:
        raise DataError(unknown_name("data set", name, SOURCES))
    source = SOURCES[name]
    with _progress_bar() as progress:
        folder = source.fetch(config.data_root(data_root), progress)
    print(f"{source.title}: {folder}\nLicence: {source.licence}. {source.attribution}")


app.command(data, name="data", help="List or fetch data sets.")
app.command(gallery, name="gallery", help="Add, remove or update items of a run's gallery.")
for beyond in (recognise, transfer, growth):
    app.command(beyond)
app.command(compare)
app.command(bench, name="bench", help="Measure how fast the lab is on this machine.")


def _fetch_if_missing(dataset: str, data_root: str) -> None:
    if dataset.startswith("folder:"):
        return
    from pddm_lab.data.dataset import SOURCES

    source = SOURCES.get(dataset)
    if source and not source.automatic and not source.is_present(config.data_root(data_root)):
        print(f"{dataset} is not in {config.data_root(data_root)} yet and is fetched first: {source.size}", flush=True)
        fetch(dataset, data_root)


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command; an error of the lab's own is one line on standard error and exit code 2."""
    try:
        app.cli(
            prog="pddm-lab", description="PDDM Lab: deep metric learning to try out and look into.", args=argv,
            config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes),
        )  # fmt: skip
    except LabError as error:
        print(f"pddm-lab: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("pddm-lab: interrupted.", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output, such as `head`, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _serve(run: str, port: int, runs_root: str, data_root: str) -> None:
    """Serve the dashboard until it is ended, with a run open, or the newest where none is named."""
    from pddm_lab.dashboard_server import dashboard_command

    environment = dict(os.environ)
    if runs_root:
        environment["PDDM_LAB_RUNS"] = str(Path(runs_root).expanduser().resolve())
    if data_root:
        environment["PDDM_LAB_DATA"] = str(Path(data_root).expanduser().resolve())
    print(f"\nOpen http://localhost:{port}/{'?run=' * bool(run)}{run}", flush=True)
    with subprocess.Popen(dashboard_command(port), env=environment) as server:
        try:
            sys.exit(server.wait())
        except KeyboardInterrupt:  # the server hears Ctrl-C too, and it is how one ends it
            server.wait()


def _find_run(run: str, runs_root: str) -> Run:
    from pddm_lab.runs.run import Run

    path = Path(run).expanduser()
    return Run.open(path if (path / "run.json").is_file() else config.runs_root(runs_root) / run)


def _report(run: Run) -> None:
    """What a training came to, and what to do next."""
    if run.status != "finished":
        hint = "" if run.status == "running" else f" `pddm-lab resume {run.name}` goes on with it."
        raise RunError(f"{run.name} is {run.status}{': ' * bool(run.reason)}{run.reason or '.'}{hint}")
    rows = [
        (protocol, similarity, *(_number(values.get(name), scale) for name, scale in _COLUMNS.values()))
        for protocol, similarities in run.info["metrics"].items()
        for similarity, values in similarities.items()
    ]
    print(f"\nRun: {run.path}")
    _print_table(("protocol", "similarity", *_COLUMNS), rows)
    print(f"\nLook at it: pddm-lab dashboard {run.name}")


_COLUMNS = {"R@1 %": ("recall@1", 100.0), "MAP@R %": ("map@r", 100.0), "AUC": ("auc", 1.0)}


def _number(value: float | None, scale: float) -> str:
    return "-" if value is None else f"{scale * value:.1f}" if scale > 1 else f"{value:.3f}"


def _run_row(run: Run) -> tuple[str, ...]:
    return (
        run.name, run.status, f"{run.info.get('phase', '')} {run.info.get('step', '')}".strip(), run.config.dataset,
        run.config.preset, _summary(run, "unseen"), _summary(run, "known"),
    )  # fmt: skip


def _summary(run: Run, protocol: str) -> str:
    values: dict[str, Any] = run.info["metrics"].get(protocol, {})
    names = dict.fromkeys(("euclidean", run.config.similarity))
    pairs = [
        f"{_number(values[name].get('recall@1'), 100)} / {_number(values[name].get('map@r'), 100)}"
        for name in names
        if name in values
    ]
    return ", ".join(pairs) or "-"


def _print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in (head, *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@contextmanager
def _progress_bar() -> Iterator[Progress]:
    """A progress bar on standard error, fed by (done, total, what)."""
    from tqdm import tqdm

    with tqdm(leave=False, delay=0.3) as bar:

        def report(done: int, total: int, what: str) -> None:
            bar.total = total
            bar.set_description(what, refresh=False)
            bar.update(done - bar.n)

        yield report


if __name__ == "__main__":
    main()
