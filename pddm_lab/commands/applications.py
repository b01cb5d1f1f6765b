"""The commands `recognise`, `transfer` and `class-scaling`: what a finished run is good for beyond retrieval."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from annotated_types import Interval

from pddm_lab import config
from pddm_lab.commands.terminal import AnyRun, DataRoot, RunName, RunsRoot, print_table, progress_bar, write_csv
from pddm_lab.config import Count, CountOrNone
from pddm_lab.errors import ConfigError
from pddm_lab.similarities import EVERY

if TYPE_CHECKING:
    import pandas as pd

    from pddm_lab.applications.transfer import Target

Share = Annotated[float, Interval(gt=0, le=0.5)]
_METRICS = ("recall@1", "map@r", "r_precision", "nmi", "auc")
_ICONIC_METRICS = ("recall@1", "recall@2", "recall@4", "auc")


def recognise(
    run: RunName, protocol: str = "", shots: tuple[Count, ...] = (1, 2, 5, 10), ways: CountOrNone = 20,
    episodes: Count = 50, new_class: bool = False, seed: CountOrNone = 0, csv: str = "", runs_root: RunsRoot = "",
) -> None:  # fmt: skip
    """Recognise classes from a few pictures of each: plain methods on a run's features, without a classifier layer.

    Args:
        protocol: unseen or known; empty: both.
        shots: Pictures of each class to learn from.
        ways: Classes to choose among in an episode; 0: all.
        episodes: Episodes per protocol.
        new_class: Let each class be new instead, once an episode, of which 5 will do: its first pictures join all
            items of the other classes, by D, S and local structure. Without --protocol: unseen; --ways isn't used.
        seed: Seed of the episodes.
        csv: File to write the accuracies of every episode to.
    """
    if new_class:
        _new_class(run, protocol or "unseen", shots, episodes, seed, csv, runs_root)
        return
    from pddm_lab.applications.few_shot import METHODS, recognise_run, summary
    from pddm_lab.training.notebook import run_named

    tested = run_named(run, runs_root)
    protocols = (protocol,) if protocol else ()
    with progress_bar() as report:
        table = recognise_run(tested, episodes, protocols=protocols, shots=shots, ways=ways, seed=seed, progress=report)
    for name, part in summary(table).groupby("protocol", sort=False):
        ways_here, count = part["ways"].iloc[0], part["episodes"].iloc[0]
        print(f"\n{name}: accuracy in % among {ways_here} classes, mean of {count} episodes ± half the 95 % interval")
        cells = [(100 * row.accuracy, 100 * (row.high - row.accuracy)) for row in part.itertuples()]
        part = part.assign(
            method=part["method"].map(METHODS), text=[f"{mean:.1f} ± {half:.1f}" for mean, half in cells]
        )
        wide = part.pivot(index=["space", "method"], columns="shots", values="text")
        head = ["features", "method", *(f"{k} {'shot' if k == 1 else 'shots'}" for k in wide)]
        print_table(head, [[*row[0], *row[1:]] for row in wide.itertuples()])
    write_csv(table, csv)


def _new_class(
    run: str, protocol: str, shots: tuple[int, ...], draws: int, seed: int, csv: str, runs_root: str
) -> None:  # fmt: skip
    from pddm_lab.applications.new_class import METRICS, new_classes, summary
    from pddm_lab.training.notebook import run_named

    tested = run_named(run, runs_root)
    with progress_bar() as report:
        table = new_classes(tested, draws, protocol=protocol, shots=shots, seed=seed, progress=report)
    means = summary(table)
    print(
        f"\n{protocol}: a new class of {means['classes'].iloc[0]} in turn beside all others, mean over classes in % ± "
        f"deviation over {draws} draws; in brackets: ahead of D, with the 95 % interval over classes"
    )
    for metric, title in METRICS.items():
        rows = [
            [EVERY[str(by)].title, *(_with_lead(row, metric, by != "euclidean") for _, row in of.iterrows())]
            for by, of in means.groupby("similarity", sort=False)
        ]
        print()
        print_table([title, *(f"{k} {'picture' if k == 1 else 'pictures'}" for k in means["shots"].unique())], rows)
    write_csv(table, csv)


def _with_lead(row: pd.Series, metric: str, is_rival: bool) -> str:
    value = f"{100 * row[metric]:.1f} ± {100 * row[f'{metric} deviation']:.1f}"
    ahead = [100 * row[f"{metric} ahead{end}"] for end in ("", " low", " high")]
    return value + " ({:+.1f} [{:.1f}, {:.1f}])".format(*ahead) * is_rival


def open_set(
    run: RunName, protocol: str = "", draws: Count = 5, false_accepts: Share = 0.05, seed: CountOrNone = 0,
    csv: str = "", runs_root: RunsRoot = "",
) -> None:  # fmt: skip
    """Tell queries that are in the range from those that are not: half of the classes are left out of the range.

    Args:
        protocol: unseen or known; empty: both.
        draws: How often the classes are divided.
        false_accepts: Share of the queries outside the range that may be taken for a class of it, 0 to 0.5.
        seed: Seed of the draws.
        csv: File to write the values of every draw to.
    """
    from pddm_lab.applications.open_set import METRICS
    from pddm_lab.applications.open_set import open_set as measure
    from pddm_lab.training.notebook import run_named

    tested = run_named(run, runs_root)
    with progress_bar() as report:
        table = measure(tested, draws, false_accepts, (protocol,) if protocol else (), seed, report)
    for name, part in table.groupby("protocol", sort=False):
        print(
            f"\n{name}: {part['classes'].iloc[0]} classes in the range; in %, mean of {draws} draws ± their deviation"
        )
        rows = [
            [
                EVERY[str(by)].title,
                *(f"{100 * of[one].mean():.1f} ± {100 * of[one].std(ddof=0):.1f}" for one in METRICS),
            ]
            for by, of in part.groupby("similarity", sort=False)
        ]
        print_table(["ranked by", *METRICS.values()], rows)
    write_csv(table, csv)


def transfer(
    run: RunName, to: str, reference: str = "", iconic: bool = False, split_seed: CountOrNone = 0, csv: str = "",
    data_root: DataRoot = "", runs_root: RunsRoot = "",
) -> None:  # fmt: skip
    """Use a run's model on another data set without training, compared with the pretrained features.

    Args:
        to: Data set: a name that pddm-lab data list shows, folder:PATH, manifest:FILE.csv or imagenet:zero-shot.
        reference: A run that was trained on that data set, as the upper reference.
        iconic: Search one iconic picture of each class instead of photos. Only grocery has them.
        split_seed: Seed of that data set's split by classes.
        csv: File to write all metrics to.
    """
    from pddm_lab.applications.transfer import transfer_run
    from pddm_lab.training.notebook import run_named

    used = run_named(run, runs_root)
    upper = run_named(reference, runs_root) if reference else None
    target = _target(to, iconic, split_seed, data_root, runs_root)
    with progress_bar() as report:
        table = transfer_run(used, target, upper, progress=report)
    for protocol, part in table.groupby("protocol", sort=False):
        print(f"\n{target.name}, {protocol} classes of its own split; all in % except AUC")
        wide = part.pivot_table(index=["trained_on", "similarity"], columns="metric", values="value", sort=False)
        chosen = [metric for metric in (_ICONIC_METRICS if iconic else _METRICS) if metric in wide]
        rows = [[*names, *(_text(values[metric], metric) for metric in chosen)] for names, values in wide.iterrows()]  # type: ignore[misc]
        print_table(["trained on", "ranked by", *chosen], rows)
    write_csv(table, csv)


def class_scaling(
    run: AnyRun = "", most: Count = 100_000, images: Count = 5, csv: str = "", runs_root: RunsRoot = ""
) -> None:
    """Compare what classes cost in a gallery of features and in a softmax classifier: bytes, and seconds to add one.

    Args:
        run: Run whose model to measure; empty: the newest finished one.
        most: Largest number of classes. It measures 10, 100, ... up to this.
        images: Images of each class.
        csv: File to write all measurements to.
    """
    from pddm_lab.applications.class_scaling import CLASSES, class_costs, embedding_seconds
    from pddm_lab.runs.model import load_model
    from pddm_lab.training.notebook import run_named

    if most < CLASSES[0]:
        raise ConfigError(f"--most expects {CLASSES[0]} classes or more, got {most}.")
    measured = run_named(run, runs_root)
    model = load_model(measured)
    with progress_bar() as report:
        table = class_costs(model, [count for count in CLASSES if count <= most], images=images, progress=report)
    rows = [
        [
            f"{row.classes:,}",
            *(f"{size / 1e6:,.1f} MB" for size in (row.lab_bytes, row.gallery_bytes, row.classifier_bytes)),
            _duration(row.add_gallery_seconds), _duration(row.enlarge_seconds),
            _duration(row.pass_seconds) + ("" if row.pass_measured else " *"),
        ]
        for row in table.itertuples()
    ]  # fmt: skip
    head = ["classes", "lab's model", "its gallery", "classifier", "add to gallery", "enlarge layer", "train one pass"]
    print_table(head, rows)
    picture = _duration(embedding_seconds(model, measured.config))
    print(f"\nA new class also needs {images} pictures embedded by the network: {picture} each on this machine.")
    if not table["pass_measured"].all():
        print("* estimated: the number of steps times the measured seconds of one")
    write_csv(table, csv)


def _target(to: str, iconic: bool, split_seed: int, data_root: str, runs_root: str) -> Target:
    from pddm_lab.applications.transfer import Target
    from pddm_lab.data.dataset import read_dataset
    from pddm_lab.data.sources import grocery

    if iconic and to != "grocery":
        raise ConfigError(f"--iconic expects --to grocery, whose classes have iconic pictures, got {to!r}.")
    root = config.data_root(data_root)
    dataset = read_dataset(to, root, split_seed=split_seed, check_cache=config.runs_root(runs_root) / ".checked")
    return Target.iconic(dataset, grocery.iconic_images(root)) if iconic else Target.of(dataset)


def _text(value: float, metric: str) -> str:
    if value != value:
        return "-"
    return f"{value:.3f}" if metric == "auc" else f"{100 * value:.1f}"


def _duration(seconds: float) -> str:
    if seconds >= 1000:
        return f"{seconds / 60:,.0f} min"
    unit, scale = ("s", 1.0) if seconds >= 1 else ("ms", 1e-3) if seconds >= 1e-3 else ("µs", 1e-6)
    return f"{seconds / scale:,.3g} {unit}"
