"""List the runs in a folder, compare them, and average them over their seeds. A single run: run.py."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pddm_lab.config import runs_root, typed_path
from pddm_lab.errors import RunError, valid_text
from pddm_lab.runs.run import Run
from pddm_lab.similarities import PRETRAINED

if TYPE_CHECKING:
    import pandas as pd

    from pddm_lab.local.unit import LocalStructure
    from pddm_lab.model.similarity import Similarity

WHERE = ("data_root", "runs_root", "run_name", "notes", "workers")
"""Options about where a run is, its name and its worker processes; they don't change its results."""

_FILES = ("run.json", "model.safetensors", "last.ckpt", "metrics.parquet")


@dataclass(frozen=True)
class BrokenRun:
    """A run's folder that can't be read."""

    path: Path
    reason: str
    """One sentence: what was expected and what was found."""

    @property
    def name(self) -> str:
        """The folder's name."""
        return valid_text(self.path.name)


def list_runs(root: str | Path = "") -> list[Run | BrokenRun]:
    """All runs in a root folder (empty: the default one), newest first; last those that can't be read, as a BrokenRun.

    Folders without any file of a run are left out.
    """
    runs: list[tuple[str, str, Run | BrokenRun]] = []
    folder = runs_root(str(root))
    for path in folder.iterdir() if folder.is_dir() else ():
        try:
            if not path.name.startswith(".") and any((path / name).exists() for name in _FILES):
                run = Run.open(path)
                runs.append((run.info["created"], run.name, run))
        except (RunError, OSError) as error:
            runs.append(("", path.name, BrokenRun(path, str(error))))
    return [run for _, _, run in sorted(runs, key=lambda entry: entry[:2], reverse=True)]


def find_run(name: str, root: str | Path = "") -> Run:
    """The run with this name in a root folder (empty: the default one), or in the folder `name`.

    Raises:
        RunError: it is missing, damaged or not written by this lab.
    """
    path = typed_path(name)
    return Run.open(path if os.path.isfile(path / "run.json") else runs_root(str(root)) / name)


def run_folder(name: str, root: str | Path = "") -> Path:
    """The folder of a run with this name, as for `find_run`, also if the run can't be read.

    Raises:
        RunError: there is no folder with a file of a run.
    """
    path = typed_path(name)
    folder = Path(os.path.abspath(path if os.path.isfile(path / "run.json") else runs_root(str(root)) / name))
    if not any((folder / file).exists() for file in _FILES):
        raise RunError(f"{folder} is not a run: expected {', '.join(_FILES)} in it. `pddm-lab runs` lists all runs.")
    return folder


def final_metrics(run: Run) -> dict[str, dict[str, dict[str, float | None]]]:
    """protocol -> similarity -> metric -> value; the pretrained features are a similarity too, named `PRETRAINED`."""
    before = run.info.get("pretrained", {})
    return {
        protocol: similarities | ({PRETRAINED: before[protocol]} if protocol in before else {})
        for protocol, similarities in run.info["metrics"].items()
    }


def rivals_of(run: Run) -> tuple[str, ...]:
    """What a run can compare with D, its best local similarity first: L if it has one, and its own S."""
    own = [name for name in run.learned if name == run.config.similarity] or run.learned[-1:]
    return (*(["local"] if run.info.get("local") else []), *own)


def load_rivals(run: Run) -> dict[str, Similarity | LocalStructure]:
    """The similarities of `rivals_of` by name. Raises RunError if a file of the run is missing or damaged."""
    from pddm_lab.runs.local import load_local
    from pddm_lab.runs.model import load_similarities

    local, names = load_local(run), rivals_of(run)
    learned = load_similarities(run) if set(names) - {"local"} else {}
    return {name: local.structure if name == "local" and local else learned[name] for name in names}


def lead_over_d(run: Run, protocol: str) -> float | None:
    """How far a run's best local similarity is ahead of D in MAP@R, as a share; None if it wasn't measured."""
    measured = run.info["metrics"].get(protocol, {})
    own, of_d = (measured.get(name, {}).get("map@r") for name in (next(iter(rivals_of(run)), ""), "euclidean"))
    return None if own is None or of_d is None else own - of_d


@dataclass(frozen=True)
class Comparison:
    """Several runs side by side."""

    metrics: pd.DataFrame
    """Final metrics, long: run, protocol, similarity (with `PRETRAINED` where it was measured), metric, value."""
    config: pd.DataFrame
    """The options that differ: one row per field, one column per run."""


def compare_runs(runs: Iterable[Run]) -> Comparison:
    """The final metrics of runs, and the options in which they differ."""
    import pandas as pd

    runs = list(runs)
    rows = [
        (run.name, protocol, similarity, metric, math.nan if value is None else float(value))
        for run in runs
        for protocol, similarities in final_metrics(run).items()
        for similarity, values in similarities.items()
        for metric, value in values.items()
    ]
    choices = pd.DataFrame({run.name: run.config.to_dict() for run in runs}, dtype=object)
    unlike = [len({repr(value) for value in row}) > 1 for row in choices.to_numpy()]
    metrics = pd.DataFrame(rows, columns=["run", "protocol", "similarity", "metric", "value"])
    return Comparison(metrics, choices.loc[unlike])


def before_corrections(run: Run, runs: Iterable[Run]) -> Run | None:
    """The earlier run to compare with one that was trained with corrections: the newest with the same options and none.

    Without such a run it is the newest with other corrections; None if there is none that is finished.
    """
    own, corrections = options_of(run), run.info["dataset"].get("corrections")
    if not corrections:
        return None
    earlier = [
        other
        for other in runs
        if other.status == "finished" and other.created < run.created and options_of(other) == own
        and other.info["dataset"].get("corrections") != corrections
    ]  # fmt: skip
    return max(earlier, key=lambda one: ("corrections" not in one.info["dataset"], one.created), default=None)


def options_of(run: Run) -> dict[str, object]:
    """What a run was trained with, but for corrections."""
    return {name: value for name, value in run.config.to_dict().items() if name not in ("corrections", *WHERE)}


def measured_alike(runs: Iterable[Run]) -> bool:
    """Whether runs were measured on the same items and split, so that their numbers can be compared."""
    return len({_split(run) for run in runs}) == 1


def _split(run: Run) -> tuple[object, ...]:
    return run.info["dataset"]["fingerprint"], run.config.split_seed, run.config.known_query_share


@dataclass(frozen=True)
class Group:
    """Runs on the same data and split with the same options except for their seeds."""

    runs: tuple[Run, ...]

    @property
    def name(self) -> str:
        """The first run's name."""
        return self.runs[0].name

    @property
    def seeds(self) -> list[int]:
        """The distinct seeds, in order."""
        return sorted({run.config.seed for run in self.runs})


def groups(runs: Iterable[Run]) -> list[Group]:
    """Runs grouped so that those of a group differ only in their seeds, in the order of each group's first run."""
    members: dict[str, list[Run]] = {}
    for run in runs:
        options = {name: value for name, value in run.config.to_dict().items() if name not in ("seed", *WHERE)}
        members.setdefault(repr((_split(run), options)), []).append(run)
    return [Group(tuple(of_group)) for of_group in members.values()]


def spread(groups: Iterable[Group]) -> pd.DataFrame:
    """Final metrics of groups: mean and standard deviation over the seeds.

    Returns:
        Long, as `Comparison.metrics`, with the group's name as `run`; `value` is the mean, `std` the sample standard
        deviation (NaN for one seed), `seeds` the number of seeds. Runs with equal seeds are averaged first.
    """
    groups = list(groups)
    metrics = compare_runs(run for group in groups for run in group.runs).metrics
    return _over_seeds(metrics, groups, ["protocol", "similarity", "metric"])


def seed_leads(
    groups: Iterable[Group], metric: str = "map@r"
) -> dict[tuple[str, str, str], tuple[float, float, float]]:
    """How far each similarity is ahead of D in the groups of several seeds, seed by seed.

    Returns:
        (group's name, protocol, similarity) -> mean difference and both ends of its 95 % t interval.
    """
    from pddm_lab.metrics.intervals import mean_interval

    several = [group for group in groups if len(group.seeds) > 1]
    table = compare_runs(run for group in several for run in group.runs).metrics
    table = _by_seed(table[table["metric"] == metric], several, ["protocol", "similarity"])
    leads = {}
    for (name, protocol), rows in table.groupby(["run", "protocol"], sort=False):
        values = rows.pivot(index="seed", columns="similarity", values="value")
        for similarity in values.columns.drop("euclidean") if "euclidean" in values else ():
            mean, half = mean_interval((values[similarity] - values["euclidean"]).dropna().tolist())
            leads[str(name), str(protocol), str(similarity)] = (mean, mean - half, mean + half)
    return leads


def mean_log(groups: Iterable[Group], logs: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Logs of groups, averaged over the seeds step by step.

    Args:
        groups: of runs.
        logs: run's name -> its metrics.

    Returns:
        The columns of a log and `run` (the group's name), `std` and `seeds` as in `spread`; `seconds` is the mean. A
        step that not all seeds reached is the mean of those that did.
    """
    import pandas as pd

    groups = list(groups)
    every = pd.concat([logs[run.name].assign(run=run.name) for group in groups for run in group.runs])
    return _over_seeds(every, groups, ["phase", "protocol", "similarity", "metric", "step"])


def _over_seeds(table: pd.DataFrame, groups: list[Group], keys: list[str]) -> pd.DataFrame:
    """Mean and standard deviation of `value` (and the mean of `seconds`) over seeds for each group and key."""
    by_seed = _by_seed(table, groups, keys)
    means = {name: (name, "mean") for name in ("value", "seconds") if name in by_seed}
    by_group = by_seed.groupby(["run", *keys], sort=False, observed=True)
    return by_group.agg(**means, std=("value", "std"), seeds=("value", "size")).reset_index()


def _by_seed(table: pd.DataFrame, groups: list[Group], keys: list[str]) -> pd.DataFrame:
    """The mean of `value` (and of `seconds`) of each group, key and seed."""
    of_run = {run.name: (group.name, run.config.seed) for group in groups for run in group.runs}
    table = table.assign(
        run=table["run"].map({name: group for name, (group, _) in of_run.items()}),
        seed=table["run"].map({name: seed for name, (_, seed) in of_run.items()}),
    ).dropna(subset="value")
    means = {name: (name, "mean") for name in ("value", "seconds") if name in table}
    return table.groupby(["run", *keys, "seed"], sort=False, observed=True).agg(**means).reset_index()
