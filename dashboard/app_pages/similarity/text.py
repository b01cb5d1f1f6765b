"""A slider's scale, pairs as tables, and results about pairs in words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pddm_lab.analysis.thresholds import ByDensity, Share
from pddm_lab.figures import in_order, shown
from pddm_lab.gallery.gallery import Gallery
from pddm_lab.metrics.intervals import percentile_interval
from pddm_lab.similarities import EVERY


@dataclass(frozen=True)
class Scale:
    """The ends and the step of a slider, all of them round numbers."""

    low: float
    high: float
    decimals: int

    @staticmethod
    def over(values: np.ndarray) -> Scale:
        """A scale that includes all values, in about 200 to 2000 steps."""
        low, high = float(values.min()), float(values.max())
        decimals = max(0, math.ceil(-math.log10((high - low) / 200)))
        unit = 10.0**-decimals
        ends = (round(math.floor(low / unit) * unit, decimals), round(math.ceil(high / unit) * unit, decimals))
        return Scale(*ends, decimals)

    @property
    def step(self) -> float:
        """The smallest change."""
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
    """Pairs for download: items, classes, kind, and every similarity as it is shown (a distance as a distance)."""
    names = in_order(name for name in EVERY if name in pairs)
    values = {
        f"{name}_distance" if EVERY[name].is_distance else name: shown(name, pairs[name].to_numpy()) for name in names
    }
    columns = ["item_a", "item_b", "class_a", "class_b", "positive", *(name for name in _OPTIONAL if name in pairs)]
    return pairs[columns].assign(**values).reset_index(drop=True)


def who_is_right_in_words(right: Mapping[bool, Share], x: str, y: str) -> str:
    """One line of Markdown on the pairs about which two similarities disagree."""
    parts = []
    for kind, word in ((True, "positive"), (False, "negative")):
        share = right[kind]
        if share.pairs:
            between = f" ({100 * share.low:.0f} to {100 * share.high:.0f})" if np.isfinite(share.low) else ""
            parts.append(f"**{100 * share.value:.0f} %**{between} of the {share.pairs:,} {word} pairs")
    if not parts:
        return "At these thresholds the two agree on every pair."
    right_one, wrong_one = (EVERY[name].title for name in (y, x))
    return f"Where they disagree, {right_one} is right and {wrong_one} wrong for {' and '.join(parts)}."


def density_verdict(results: Mapping[str, ByDensity]) -> str:
    """Whether sparse items need a threshold of their own, for each similarity, in one sentence of Markdown.

    Args:
        results: of one run and protocol, by similarity.
    """
    parts = []
    for name, result in results.items():
        title, sparse = EVERY[name].title, result.table.iloc[-1]
        gain, (low, high) = sparse["own_tpr"] - sparse["tpr"], _interval_of_gain(result)
        if not np.isfinite([gain, low, high]).all():
            parts.append(f"of {title} there are too few pairs to tell")
        elif low > 0:
            parts.append(
                f"**{title} needs a looser one**: it then accepts {_points(gain)} more of their positive pairs"
            )
        elif high < 0:
            parts.append(
                f"**{title} needs a stricter one**: it then accepts {_points(-gain)} less of their positive pairs"
            )
        else:
            parts.append(f"of {title} these classes do not show it")
    return f"Do sparse items need a threshold of their own? {_capitalised('; '.join(parts))}."


def _capitalised(text: str) -> str:
    return text[0].upper() + text[1:]


def _interval_of_gain(result: ByDensity) -> tuple[float, float]:
    """The 95 % interval of what a threshold of its own changes in the sparse third."""
    low, high = percentile_interval(result.draws["own_tpr"][:, -1] - result.draws["tpr"][:, -1])
    return float(low), float(high)


def density_in_words(results: Mapping[str, ByDensity]) -> list[str]:
    """How one threshold performs where items lie densely and where they lie sparsely, in paragraphs of Markdown.

    Args:
        results: of one run and protocol, by similarity.
    """
    paragraphs, costs = [], {}
    for name, result in results.items():
        dense, sparse = (result.table.iloc[place] for place in (0, -1))
        title = EVERY[name].title
        cost = sparse["own_tpr"] - sparse["tpr"]
        low, high = _interval_of_gain(result)
        if not np.isfinite([dense["tpr"], sparse["tpr"], cost, low, high]).all():
            paragraphs.append(f"**{title}:** there are too few pairs of one kind to compare.")
            continue
        costs[name] = result.draws["own_tpr"][:, -1] - result.draws["tpr"][:, -1]
        summary = (
            f"{title}: the shared threshold is too strict where items lie sparsely."
            if low > 0
            else f"{title}: the shared threshold is too loose where items lie sparsely."
            if high < 0
            else f"{title}: these classes do not show that sparse items need a separate threshold."
        )
        paragraphs.append(
            f"**{summary}** The shared threshold accepts {_percent(dense['tpr'])} of the positive pairs in the dense "
            f"third and {_percent(sparse['tpr'])} in the sparse third, and {_percent(dense['fpr'], 2)} and "
            f"{_percent(sparse['fpr'], 2)} of the negative pairs. A separate threshold would accept "
            f"{_percent(sparse['own_tpr'])} of the positive pairs in the sparse third: a change of {_points(cost)} "
            f"(95 % interval {_points(low, '')} to {_points(high)})."
        )
    if len(costs) == 2:
        worse, better = (EVERY[name].title for name in costs)
        low, high = (float(end) for end in percentile_interval(np.subtract(*map(np.abs, costs.values()))))
        if high < 0:
            worse, better, low, high = better, worse, -high, -low
        paragraphs.append(
            f"**{better} needs a smaller change there than {worse}**, by {_points(low, '')} to {_points(high)}."
            if low > 0
            else "These classes don't show which of the two needs the smaller change there: the difference lies "
            f"between {_points(low, '')} and {_points(high)}."
        )
    return paragraphs


_OPTIONAL = ("accepted", "quadrant", "density")


def _percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f} %"


def _points(share: float, unit: str = " points") -> str:
    return f"{100 * share:.1f}{unit}".replace("-", "−")
