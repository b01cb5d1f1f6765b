"""The tables of local against global metrics (local.py), in points."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from pddm_lab.metrics.intervals import mean_intervals, percentile_interval
from pddm_lab.similarities import IN_GALLERY
from pddm_lab.study.cells import Study
from pddm_lab.study.statistics import holm, paired_test

if TYPE_CHECKING:
    import pandas as pd

GLOBAL = ("euclidean", "whitened", "joined", "linear", "cosines", "pddm")
"""Ways that look at no neighbourhood."""
OWN = "local"
UNTRAINED = tuple(name for name in IN_GALLERY if name != OWN)
"""Local ways without training."""
DRAWS = 4000
"""Of the classes, for their intervals."""
TPR = "tpr@1%fpr"
_SUMS = {"recall@1": "hits", "map@r": "precisions"}
_KEYS = ["dataset", "embedding", "protocol", "way", "metric"]


def local_table(study: Study, part: str) -> pd.DataFrame:
    """A row per data set, embedding, gallery, way and metric: the mean over seeds with its 95 % t interval."""
    rows = _measurements(study, part)
    return mean_intervals(rows, _KEYS, "value").rename(columns={"mean": "value", "half": "±", "count": "seeds"})


def differences_table(study: Study, part: str) -> pd.DataFrame:
    """How far local structure is ahead of D, of the best global way and of the best rival without training.

    The best is that with the largest mean in the row's own cell. Two 95 % intervals: over seeds (t), and over classes
    (bootstrap of the mean over seeds). p: paired t test over seeds, after Holm's correction over the headline tests of
    an embedding, its R@1 and MAP@R on full galleries; other rows have neither p nor an interval over classes.
    """
    import pandas as pd

    measured = _measurements(study, part)
    measured = measured[measured.metric.isin([*_SUMS, TPR])]
    of_classes = {(cell["dataset"], cell["method"], cell["seed"]): cell["classes"] for cell in study.cells(part)}
    rows: list[dict[str, Any]] = []
    for (dataset, embedding, protocol, metric), group in measured.groupby(
        ["dataset", "embedding", "protocol", "metric"], sort=False
    ):
        values = group.pivot(index="seed", columns="way", values="value")
        for against, ways in {"D": GLOBAL[:1], "global": GLOBAL, "local without training": UNTRAINED}.items():
            rival = values[[way for way in ways if way in values]].mean().idxmax()
            mean, half, p = paired_test(values[OWN].to_list(), values[rival].to_list())
            low, high = np.nan, np.nan
            is_headline = metric in _SUMS and "," not in protocol  # full galleries alone keep their classes
            if is_headline:
                kept = [of_classes[dataset, embedding, seed][protocol] for seed in values.index]
                low, high = _over_classes(kept, rival, _SUMS[metric])
            rows.append({
                "dataset": dataset, "embedding": embedding, "protocol": protocol, "metric": metric, "against": against,
                "rival": rival, "rival's": values[rival].mean(), "difference": mean, "±": half, "low": low,
                "high": high, "p": p if is_headline else np.nan,
            })  # fmt: skip
    table = pd.DataFrame(rows)
    return table.assign(p=table.groupby("embedding").p.transform(lambda p: holm(p.to_list()))) if len(table) else table


def _over_classes(kept: list[dict[str, Any]], rival: str, sums: str) -> tuple[float, float]:
    """The bootstrap interval over classes of the difference, in points; seeds are averaged within each class."""
    queries = np.array([one[OWN]["queries"] for one in kept], dtype=float)
    differences = np.array([np.subtract(one[OWN][sums], one[rival][sums]) for one in kept])
    share = (differences / queries).mean(0)
    weight = queries.mean(0)
    drawn = np.random.default_rng(0).multinomial(len(share), np.full(len(share), 1 / len(share)), size=DRAWS)
    low, high = percentile_interval(100 * (drawn @ (weight * share)) / (drawn @ weight))
    return float(low), float(high)


def _measurements(study: Study, part: str) -> pd.DataFrame:
    """A row per training, gallery, way and metric."""
    import pandas as pd

    def rows() -> Iterator[tuple[Any, ...]]:
        for cell in study.cells(part):
            for protocol, ways in cell["metrics"].items():
                for way, values in ways.items():
                    for metric, value in values.items():
                        yield cell["dataset"], cell["method"], protocol, way, metric, cell["seed"], 100 * value

    return pd.DataFrame(rows(), columns=[*_KEYS, "seed", "value"])
