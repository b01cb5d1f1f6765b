"""Pairs of a gallery: how many there are, what a threshold does to them, the scale to drag it on, and what is found."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pddm_lab.analysis.thresholds import ByDensity, Share
from pddm_lab.figures import in_order, shown, style_of
from pddm_lab.gallery.gallery import Gallery
from pddm_lab.metrics.intervals import percentile_interval
from pddm_lab.similarities import SIMILARITIES


@dataclass(frozen=True)
class Scale:
    """The ends and the step of a slider, all of them round numbers."""

    low: float
    high: float
    decimals: int

    @staticmethod
    def over(values: np.ndarray) -> Scale:
        """A scale that holds all values, in some 200 to 2000 steps."""
        low, high = float(values.min()), float(values.max())
        decimals = max(0, math.ceil(-math.log10((high - low) / 200)))
        unit = 10.0**-decimals
        ends = (round(math.floor(low / unit) * unit, decimals), round(math.ceil(high / unit) * unit, decimals))
        return Scale(*ends, decimals)

    @property
    def step(self) -> float:
        """The least move."""
        return round(10.0**-self.decimals, self.decimals)

    def nearest(self, value: float) -> float:
        """The value's place on the scale."""
        return min(max(round(value, self.decimals), self.low), self.high)


def with_items(gallery: Gallery, pairs: pd.DataFrame) -> pd.DataFrame:
    """The pairs with item_a, item_b, class_a and class_b in front."""
    named = {
        f"{title}_{end}": gallery.items[column].iloc[pairs[end].to_numpy()].to_numpy()
        for title, column in (("item", "id"), ("class", "class_name"))
        for end in "ab"
    }
    return pd.concat([pd.DataFrame(named, index=pairs.index), pairs], axis=1)


def as_exported(pairs: pd.DataFrame) -> pd.DataFrame:
    """Pairs as they are taken away: items, classes, kind, and every similarity as it is shown, a distance as one."""
    names = in_order(name for name in SIMILARITIES if name in pairs)
    values = {
        f"{name}_distance" if style_of(name).is_distance else name: shown(name, pairs[name].to_numpy())
        for name in names
    }
    kept = ["item_a", "item_b", "class_a", "class_b", "positive", *(name for name in _JUDGED if name in pairs)]
    return pairs[kept].assign(**values).reset_index(drop=True)


def who_is_right_in_words(right: Mapping[bool, Share], x: str, y: str) -> str:
    """One line of Markdown on the pairs that two similarities disagree on."""
    parts = []
    for kind, word in ((True, "positive"), (False, "negative")):
        share = right[kind]
        if share.pairs:
            between = f" ({100 * share.low:.0f} to {100 * share.high:.0f})" if np.isfinite(share.low) else ""
            parts.append(f"**{100 * share.value:.0f} %**{between} of the {share.pairs:,} {word} ones")
    if not parts:
        return "At these thresholds the two agree on every pair."
    return (
        f"Of the pairs they disagree on, {style_of(y).title} is right and {style_of(x).title} wrong for "
        + " and ".join(parts)
        + "."
    )


def density_in_words(results: Mapping[str, ByDensity]) -> list[str]:
    """What one threshold does where items lie densely and where they lie sparsely: a paragraph of Markdown each.

    Args:
        results: of one run and protocol, by similarity.
    """
    said, costs = [], {}
    for name, result in results.items():
        dense, sparse = (result.table.iloc[place] for place in (0, -1))
        title = style_of(name).title
        cost = sparse["own_tpr"] - sparse["tpr"]
        draws = result.draws["own_tpr"][:, -1] - result.draws["tpr"][:, -1]
        low, high = (float(end) for end in percentile_interval(draws))
        if not np.isfinite([dense["tpr"], sparse["tpr"], cost, low, high]).all():
            said.append(f"**{title}:** too few pairs of either kind to tell.")
            continue
        costs[name] = draws
        verdict = (
            f"{title}: the one threshold fails where items lie sparsely."
            if low > 0
            else f"{title}: the one threshold is too loose where items lie sparsely."
            if high < 0
            else f"{title}: where items lie sparsely a threshold of its own would do no better, as far as these "
            "classes can tell."
        )
        said.append(
            f"**{verdict}** It finds {_percent(dense['tpr'])} of the positive pairs in the dense third and "
            f"{_percent(sparse['tpr'])} in the sparse one, and lets {_percent(dense['fpr'], 2)} and "
            f"{_percent(sparse['fpr'], 2)} of the negative pairs pass. A threshold of its own would find "
            f"{_percent(sparse['own_tpr'])} in the sparse third: a change of {_points(cost)} "
            f"(95 % interval {_points(low, '')} to {_points(high)})."
        )
    if len(costs) == 2:
        worse, better = (style_of(name).title for name in costs)
        low, high = (float(end) for end in percentile_interval(np.subtract(*map(np.abs, costs.values()))))
        if high < 0:
            worse, better, low, high = better, worse, -high, -low
        said.append(
            f"**{better} needs less of a change there than {worse}**, by {_points(low, '')} to {_points(high)}."
            if low > 0
            else "Which of the two needs less of a change there can't be told from these classes: the difference lies "
            f"between {_points(low, '')} and {_points(high)}."
        )
    return said


_JUDGED = ("accepted", "quadrant", "density")


def _percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f} %"


def _points(share: float, unit: str = " points") -> str:
    return f"{100 * share:.1f}{unit}".replace("-", "−")
