"""The command line's `recognise`, `transfer` and `growth`: what a finished run is good for beyond retrieval."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tyro.conf import Positional

from pddm_lab.config import data_root as data_folder
from pddm_lab.config import runs_root as runs_folder
from pddm_lab.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd

    from pddm_lab.applications.transfer import Target

_METRICS = ("recall@1", "map@r", "r_precision", "nmi", "auc")
_ICONIC_METRICS = ("recall@1", "recall@2", "recall@4", "auc")


def recognise(
    run: Positional[str],
    protocol: str = "",
    shots: tuple[int, ...] = (1, 2, 5, 10),
    ways: int = 20,
    episodes: int = 50,
    seed: int = 0,
    csv: str = "",
    runs_root: str = "",
) -> None:
    """Recognise classes from a few pictures of each by plain methods on a run's features, without a classifier layer.

    Args:
        run: name of the run, or path of its folder.
        protocol: unseen or known; empty: both.
        shots: pictures of each class to learn from.
        ways: classes to tell apart in an episode; 0: all.
        episodes: of each protocol.
        seed: of the episodes.
        csv: file that every episode's accuracies go to as well.
        runs_root: folder that holds the runs; empty: $PDDM_LAB_RUNS, else ./runs.
    """
    from pddm_lab.applications.few_shot import METHODS, of_run, summary
    from pddm_lab.progress import progress_bars
    from pddm_lab.training.notebook import run_named

    of = run_named(run, runs_root)
    with progress_bars(True)("episodes") as report:
        table = of_run(
            of, episodes, protocols=(protocol,) if protocol else (), shots=shots, ways=ways, seed=seed, progress=report
        )
    _keep(table, csv)
    found = summary(table)
    for name, part in found.groupby("protocol", sort=False):
        ways_here, count = part["ways"].iloc[0], part["episodes"].iloc[0]
        print(f"\n{name}: accuracy in %, {ways_here} classes an episode, mean of {count} episodes ± half of 95 %")
        cells = [(100 * row.accuracy, 100 * (row.high - row.accuracy)) for row in part.itertuples()]
        part = part.assign(
            method=part["method"].map(METHODS), text=[f"{mean:.1f} ± {half:.1f}" for mean, half in cells]
        )
        wide = part.pivot(index=["space", "method"], columns="shots", values="text")
        rows = [[*row[0], *row[1:]] for row in wide.itertuples()]
        _print(["features", "method", *(f"{k} {'shot' if k == 1 else 'shots'}" for k in wide)], rows)


def transfer(
    run: Positional[str],
    to: str,
    reference: str = "",
    iconic: bool = False,
    split_seed: int = 0,
    csv: str = "",
    data_root: str = "",
    runs_root: str = "",
) -> None:
    """Use a run's model on another data set without training, beside the pretrained features.

    Args:
        run: name of the run, or path of its folder.
        to: the data set: emoji, grocery, cub200, cars196, products, digits, folder:PATH, imagenet:zero-shot.
        reference: a run that was trained on that data set, as the upper reference.
        iconic: search one iconic picture of each class instead of photos; grocery has them.
        split_seed: of that data set's split by classes.
        csv: file that all metrics go to as well.
        data_root: folder that holds the data sets; empty: $PDDM_LAB_DATA, else ./data.
        runs_root: folder that holds the runs; empty: $PDDM_LAB_RUNS, else ./runs.
    """
    from pddm_lab.applications.transfer import transfer_run
    from pddm_lab.progress import progress_bars
    from pddm_lab.training.notebook import run_named

    of = run_named(run, runs_root)
    other = run_named(reference, runs_root) if reference else None
    target = _target(to, iconic, split_seed, data_root, runs_root)
    with progress_bars(True)("pictures") as report:
        table = transfer_run(of, target, other, progress=report)
    _keep(table, csv)
    for protocol, part in table.groupby("protocol", sort=False):
        print(f"\n{target.name}, {protocol} classes of its own split; in %, AUC aside")
        wide = part.pivot_table(index=["trained_on", "similarity"], columns="metric", values="value", sort=False)
        chosen = [metric for metric in (_ICONIC_METRICS if iconic else _METRICS) if metric in wide]
        rows = [[*names, *(_text(values[metric], metric) for metric in chosen)] for names, values in wide.iterrows()]  # type: ignore[misc]
        _print(["trained on", "ranked by", *chosen], rows)


def growth(run: Positional[str] = "", most: int = 100_000, images: int = 5, csv: str = "", runs_root: str = "") -> None:
    """What classes cost: a gallery of features beside a softmax classifier, in bytes and in seconds to add a class.

    Args:
        run: its model is the lab's; empty: the newest finished one.
        most: classes; measured at 10, 100, ... up to that.
        images: of each class.
        csv: file that all measures go to as well.
        runs_root: folder that holds the runs; empty: $PDDM_LAB_RUNS, else ./runs.
    """
    from pddm_lab.applications.class_scaling import CLASSES, embedding_seconds
    from pddm_lab.applications.class_scaling import growth as measured
    from pddm_lab.progress import progress_bars
    from pddm_lab.runs.model import load_model
    from pddm_lab.training.notebook import run_named

    if most < CLASSES[0]:
        raise ConfigError(f"--most expects {CLASSES[0]} classes or more, got {most}.")
    of = run_named(run, runs_root)
    model = load_model(of)
    with progress_bars(True)("numbers of classes") as report:
        table = measured(model, [count for count in CLASSES if count <= most], images=images, progress=report)
    _keep(table, csv)
    rows = [
        [
            f"{row.classes:,}", *(_bytes(value) for value in (row.lab_bytes, row.gallery_bytes, row.classifier_bytes)),
            _seconds(row.add_gallery_seconds), _seconds(row.enlarge_seconds),
            _seconds(row.pass_seconds) + ("" if row.pass_measured else " *"),
        ]
        for row in table.itertuples()
    ]  # fmt: skip
    head = ["classes", "lab's model", "its gallery", "classifier", "add to gallery", "enlarge layer", "and a pass"]
    _print(head, rows)
    picture = _seconds(embedding_seconds(model, of.config))
    print(f"\nA new class also costs {images} pictures through the network: {picture} each on this machine.")
    if not table["pass_measured"].all():
        print("* as many steps as that takes, times the measured seconds of one")


def _target(to: str, iconic: bool, split_seed: int, data_root: str, runs_root: str) -> Target:
    from pddm_lab.applications.transfer import Target
    from pddm_lab.data.dataset import read_dataset
    from pddm_lab.data.sources import grocery

    if iconic and to != "grocery":
        raise ConfigError(f"--iconic expects --to grocery, whose classes have iconic pictures, got {to!r}.")
    root = data_folder(data_root)
    dataset = read_dataset(to, root, split_seed=split_seed, check_cache=runs_folder(runs_root) / ".checked")
    return Target.iconic(dataset, grocery.iconic_images(root)) if iconic else Target.of(dataset)


def _keep(table: pd.DataFrame, csv: str) -> None:
    if csv:
        table.to_csv(Path(csv).expanduser(), index=False)


def _print(head: list[str], rows: list[list[Any]]) -> None:
    widths = [max(len(str(cell)) for cell in column) for column in zip(head, *rows, strict=True)]
    for row in (head, *rows):
        print("  ".join(str(cell).ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _text(value: float, metric: str) -> str:
    if value != value:
        return "-"
    return f"{value:.3f}" if metric == "auc" else f"{100 * value:.1f}"


def _bytes(value: float) -> str:
    return f"{value / 1e6:,.1f} MB"


def _seconds(value: float) -> str:
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= scale:
            return f"{value / scale:,.3g} {unit}" if value < 1000 else f"{value / 60:,.0f} min"
    return f"{value / 1e-6:.2g} µs"
