"""The tables of the panel (recipes.py): values in points, differences to the pretrained features."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pddm_lab.metrics.intervals import mean_intervals
from pddm_lab.panel.local_tables import differences_table, local_table
from pddm_lab.study.cells import Study

if TYPE_CHECKING:
    import pandas as pd

METRICS = ("recall@1", "map@r")
LOST, LENGTH = -2.0, 0.95
"""An embedding collapsed if it loses more points of R@1 on held-out classes, or if its mean feature is longer."""
_CELL = ["dataset", "protocol", "metric"]


def write_panel(study: Study, part: str, folder: Path) -> Iterator[Path]:
    """Write the tables of a part as CSV; yields their files."""
    folder.mkdir(parents=True, exist_ok=True)
    if part in ("local", "local-folds"):
        tables = {part: local_table(study, part), f"{part}-differences": differences_table(study, part)}
    else:
        of_part = {"recipes": recipes_table, "sweep": sweep_table}
        tables = {part: of_part[part](study) if part in of_part else finalists_table(study, part)}
    for name, table in tables.items():
        path = folder / f"{name}.csv"
        table.round({"p": 4} | dict.fromkeys(table.columns.difference(["p"]), 2)).to_csv(path, index=False)
        yield path


def recipes_table(study: Study) -> pd.DataFrame:
    """A row per recipe and similarity: mean rank of its D by MAP@R, worst difference, and its mean in each cell."""
    rows = _measurements(study, "recipes")
    table = rows.groupby(["recipe", "similarity", *_CELL], sort=False)[["value", "difference"]].mean().reset_index()
    of_d = table[(table.similarity == "euclidean") & (table.metric == "map@r")]
    ranks = of_d.groupby(["dataset", "protocol"]).value.rank(ascending=False)
    mean_rank = ranks.groupby(of_d.recipe).mean()
    table["cell"] = table[_CELL].agg(" ".join, axis=1)
    wide = table.pivot(index=["recipe", "similarity"], columns="cell", values="value")
    wide.insert(0, "worst difference", table.groupby(["recipe", "similarity"]).difference.min())
    wide.insert(0, "mean rank", [mean_rank[recipe] if way == "euclidean" else None for recipe, way in wide.index])
    wide.columns.name = None
    return wide.sort_values(["mean rank", "worst difference"], ascending=[True, False]).reset_index()


def sweep_table(study: Study) -> pd.DataFrame:
    """A row per material and recipe: trainings, how many collapsed, and the worst of each sign of it."""
    rows = _measurements(study, "sweep")
    rows = rows[(rows.similarity == "euclidean") & (rows.protocol == "unseen") & (rows.metric == "recall@1")]
    rows = rows.assign(collapsed=(rows.difference < LOST) | (rows["mean length"] > LENGTH))
    return rows.groupby(["recipe", "dataset"], sort=False).agg(
        trainings=("seed", "count"), collapsed=("collapsed", "sum"),
        **{"worst difference of R@1": ("difference", "min"), "mean difference of R@1": ("difference", "mean"),
           "longest mean feature": ("mean length", "max")},
    ).reset_index()  # fmt: skip


def finalists_table(study: Study, part: str = "finalists") -> pd.DataFrame:
    """A row per recipe, similarity, material, protocol and metric: means over seeds, with 95 % t intervals."""
    rows = _measurements(study, part)
    keys = ["recipe", "similarity", *_CELL]
    value = mean_intervals(rows, keys, "value").rename(columns={"mean": "value", "half": "±", "count": "seeds"})
    gain = mean_intervals(rows, keys, "difference").rename(columns={"mean": "difference", "half": "± difference"})
    before = rows.groupby(keys, sort=False).pretrained.first().reset_index()
    return before.merge(value, on=keys).merge(gain.drop(columns="count"), on=keys)


def _measurements(study: Study, part: str) -> pd.DataFrame:
    """A row per training, similarity, protocol and metric."""
    import pandas as pd

    rows = []
    for cell in study.cells(part):
        for protocol, ways in cell["metrics"].items():
            for metric in METRICS:
                before = 100 * ways["pretrained"][metric]
                for way in (way for way in ways if way != "pretrained"):
                    value = 100 * ways[way][metric]
                    rows.append((
                        cell["method"], way, cell["dataset"], protocol, metric, cell["seed"], before, value,
                        value - before, cell["settings"].get("mean_length"),
                    ))  # fmt: skip
    columns = ["pretrained", "value", "difference", "mean length"]
    return pd.DataFrame(rows, columns=["recipe", "similarity", *_CELL, "seed", *columns])
