"""The commands `train`, `resume` and `demo`."""

from __future__ import annotations

import dataclasses
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import tyro
from tyro.conf import Fixed, Suppress, arg

from pddm_lab import config
from pddm_lab.commands.dashboard import serve as serve_dashboard
from pddm_lab.commands.data import fetch, fetch_if_missing
from pddm_lab.commands.terminal import DataRoot, Port, RunName, RunsRoot, print_table
from pddm_lab.config import PRESET_SUMMARIES, PRESETS, TrainConfig
from pddm_lab.errors import LabError, RunError
from pddm_lab.similarities import PRETRAINED, PRETRAINED_FEATURES

if TYPE_CHECKING:
    from pddm_lab.runs.run import Run

DEMO_DATASET = "emoji"
DEMO_RUN = "demo"
DEMO_PRESET = "lab"
"""S of `quick` ranks like D wherever the unit gains nothing on new classes: then `lab` still has local structure."""
_METRICS = {"R@1 %": ("recall@1", 100.0), "MAP@R %": ("map@r", 100.0), "AUC": ("auc", 1.0)}
"""Column -> metric and its scale."""


@dataclasses.dataclass(frozen=True)
class _TrainFlags(TrainConfig):
    preset: Annotated[str, Suppress, Fixed] = "quick"  # the name of the subcommand is the preset
    familiarity: Annotated[float, Suppress, Fixed] = 0.0  # a choice of earlier runs

    def __post_init__(self) -> None:  # `train` makes a TrainConfig, which validates; here it would slow every command
        pass


if TYPE_CHECKING:
    _Preset = TrainConfig
else:
    _Preset = tyro.extras.subcommand_type_from_defaults(
        {name: _TrainFlags(**preset.to_dict()) for name, preset in PRESETS.items()}, PRESET_SUMMARIES
    )


def train(choices: Annotated[_Preset, arg(name="")]) -> None:
    """Train a run: fetch its data if missing, execute the training notebook, and keep the notebook with the run."""
    from pddm_lab.runs.folder_name import folder_name
    from pddm_lab.training.notebook import train_in_notebook

    chosen = TrainConfig(**choices.to_dict())
    folder_name(chosen, datetime.now(UTC))  # reject a bad name before fetching anything
    fetch_if_missing(chosen.dataset, chosen.data_root)
    print_results(train_in_notebook(chosen))


def resume(run: RunName, runs_root: RunsRoot = "") -> None:
    """Resume a run that stopped, failed or was interrupted. Its notebook is executed again."""
    from pddm_lab.runs.compare import find_run
    from pddm_lab.training.notebook import resume_in_notebook
    from pddm_lab.training.trainer import resume as resume_import

    begun = find_run(run, runs_root)
    # The notebook begins with pictures, which an import may not have.
    print_results(resume_import(begun.path) if begun.config.is_imported else resume_in_notebook(begun.path))


def demo(serve: bool = False, port: Port = 8501, data_root: DataRoot = "", runs_root: RunsRoot = "") -> None:
    """Fetch the demo data and train a first run on it. What is already there is kept.

    Args:
        serve: Serve the dashboard afterwards, with that run open.
        port: Port of the web page.
    """
    fetch(DEMO_DATASET, data_root)
    run = _demo_run(data_root, runs_root)
    print_results(run)
    if serve:
        serve_dashboard(run.name, port, runs_root, data_root)


def _demo_run(data_root: str, runs_root: str) -> Run:
    """The demo run: an existing one that is finished, else resumed if possible, retrained otherwise."""
    from pddm_lab.runs.folder_name import is_free
    from pddm_lab.runs.run import Run
    from pddm_lab.training.notebook import resume_in_notebook, train_in_notebook

    folder = config.runs_root(runs_root)
    for number in range(1, 100):
        name = DEMO_RUN if number == 1 else f"{DEMO_RUN}-{number}"
        if is_free(folder / name):
            # Two views a picture are level with four on emoji, and are read in two thirds of the time.
            choices = {"preset": DEMO_PRESET, "dataset": DEMO_DATASET, "run_name": name, "views": 2}
            roots = {"data_root": data_root, "runs_root": runs_root}
            return train_in_notebook(TrainConfig.from_parameters(choices | roots))
        try:
            run = Run.open(folder / name)
            if run.status in ("finished", "running"):
                return run
            print(f"Resuming the run {name}, which is {run.status}: {run.reason}", file=sys.stderr)
            return resume_in_notebook(run.path)
        except LabError as error:
            print(f"Keeping the run {name} as it is and training another: {error}", file=sys.stderr)
    raise RunError(f"{folder} has 99 demo runs and none is finished. Delete some, or choose another --runs-root.")


def print_results(run: Run) -> None:
    """Print the metrics of a run and what to do next.

    Raises:
        RunError: it isn't finished.
    """
    if run.status != "finished":
        hint = "" if run.status == "running" else f" To resume it: `pddm-lab resume {run.name}`."
        raise RunError(f"{run.name} is {run.status}{': ' * bool(run.reason)}{run.reason or '.'}{hint}")
    from pddm_lab.runs.compare import final_metrics

    rows = [
        (
            protocol, PRETRAINED_FEATURES.title if similarity == PRETRAINED else similarity,
            *(in_digits(values.get(name), scale) for name, scale in _METRICS.values()),
        )
        for protocol, similarities in final_metrics(run).items()
        for similarity, values in similarities.items()
    ]  # fmt: skip
    print(f"\nRun: {run.path}")
    if rows:
        print_table(("protocol", "similarity", *_METRICS), rows)
    else:
        print("Nothing was measured, since its items have no labels: they can be searched and mapped.")
    for warning in run.info.get("warnings", ()):
        print(f"\nWarning: {warning}")
    print(f"\nTo look at it: pddm-lab dashboard {run.name}")


def in_digits(value: float | None, scale: float) -> str:
    """A metric as it is printed: in percent with one digit, else with three."""
    return "-" if value is None else f"{scale * value:.1f}" if scale > 1 else f"{value:.3f}"
