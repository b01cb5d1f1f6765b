"""What mined quadruplets show: how hard they were, which classes are confused, and whose label looks wrong."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pddm_lab.metrics.intervals import wilson_lower
from pddm_lab.runs.quadruplets import VALUES, Mined

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEAST_MET = 12
"""Fewest classmates met before an item can be suspected."""


def through_training(mined: Mined, rows: NDArray[np.intp], points: int = 100) -> pd.DataFrame:
    """How hard quadruplets were during training: one row per group of steps.

    Args:
        rows: which, of one phase.
        points: steps are grouped into at most about this many.

    Returns:
        step (the group's first), width (steps of a group), count, violated_ik, violated_jl (shares); for each S, D and
        slack the quantiles <name>_10, _50 and _90; same_j, same_k: shares in which Euclidean mining chooses the same j
        and k, among those where it was logged; NaN if it never was.
    """
    step = mined.step[rows]
    span = int(step.max() - step.min()) + 1 if len(step) else 1
    width = max(1, -(-span // points))
    rows = rows[np.argsort(step // width, kind="stable")]
    groups, starts, count = np.unique(mined.step[rows] // width * width, return_index=True, return_counts=True)
    table: dict[str, object] = {"step": groups, "width": width, "count": count}

    def means(values: NDArray) -> NDArray:
        return np.add.reduceat(values, starts, dtype=np.float64) / count if len(rows) else np.zeros(0)

    for hinge in ("ik", "jl"):
        table[f"violated_{hinge}"] = means(mined.values[f"slack_{hinge}"][rows] > 0)
    for name in VALUES:
        of_groups = np.split(mined.values[name][rows], starts[1:])
        quantiles = [np.quantile(values, (0.1, 0.5, 0.9)) for values in of_groups if len(values)]
        table |= dict(zip((f"{name}_10", f"{name}_50", f"{name}_90"), np.reshape(quantiles, (-1, 3)).T, strict=True))
    known = means(mined.ends["e_i"][rows] >= 0)
    for end in "jk":
        table[f"same_{end}"] = means(mined.same(end)[rows]) / np.where(known > 0, known, np.nan)
    return pd.DataFrame(table)


def agreement(mined: Mined, rows: NDArray[np.intp]) -> dict[str, float]:
    """Shares of quadruplets in which Euclidean mining chooses the same j, and the same k; empty if not logged."""
    known = rows[mined.ends["e_i"][rows] >= 0]
    return {end: float(mined.same(end)[known].mean()) for end in "jk"} if len(known) else {}


def confusions(mined: Mined, rows: NDArray[np.intp]) -> pd.DataFrame:
    """How often a class gave another its hard negatives: one row per pair of classes, the most frequent first.

    Every quadruplet counts twice: k for i, and l for j.

    Returns:
        own (class of i and j), other (of the negative), count, violated (of these, how many violate their hinge),
        share (of all hard negatives of `own`).
    """
    many = max(len(mined.classes), 1)
    own = mined.class_of[mined.ends["i"][rows]].astype(np.int64) * many
    pair = np.concatenate([own + mined.class_of[mined.ends[end][rows]] for end in "kl"])
    violated = np.concatenate([mined.values[f"slack_{hinge}"][rows] > 0 for hinge in ("ik", "jl")])
    pairs, place = np.unique(pair, return_inverse=True)
    count, of_own = np.bincount(place, minlength=len(pairs)), pairs // many
    names = np.array([*mined.classes, ""], dtype=object)
    table = pd.DataFrame({
        "own": names[of_own], "other": names[pairs % many], "count": count,
        "violated": np.bincount(place, violated, len(pairs)).astype(np.int64),
        "share": count / np.bincount(of_own, count, many)[of_own],
    })  # fmt: skip
    return table.sort_values(["count", "own", "other"], ascending=[False, True, True], ignore_index=True)


def mutual(table: pd.DataFrame) -> pd.DataFrame:
    """Confusions in both directions, one row per two classes, the most violated first, then the most frequent.

    Args:
        table: as `confusions` returns it.

    Returns:
        a, b (classes), count, violated, a_to_b, b_to_a (how often b gave a hard negative of a, and a one of b). a is
        the class with more of them.
    """
    one, other = table["own"].to_numpy(dtype=object), table["other"].to_numpy(dtype=object)
    swap = one > other
    both = table.assign(
        a=np.where(swap, other, one), b=np.where(swap, one, other), forth=np.where(swap, 0, table["count"]),
        back=np.where(swap, table["count"], 0),
    ).groupby(["a", "b"], as_index=False)[["count", "violated", "forth", "back"]].sum()  # fmt: skip
    turned = both["back"] > both["forth"]
    both.loc[turned, ["a", "b", "forth", "back"]] = both.loc[turned, ["b", "a", "back", "forth"]].to_numpy()
    both = both.rename(columns={"forth": "a_to_b", "back": "b_to_a"})
    return both.sort_values(["violated", "count", "a", "b"], ascending=[False, False, True, True], ignore_index=True)


def suspects(mined: Mined, rows: NDArray[np.intp], least_met: int = LEAST_MET) -> pd.DataFrame:
    """Items whose label looks wrong: often their classmates' least similar positive, and closer to another class.

    In a batch an item meets its classmates. Each of them picks the least similar of its positives. A pick contradicts
    the item's label if the item's hardest negative is more similar to it than that classmate. The score is the lower
    end of the 95 % interval (Wilson) of the share of classmates met that contradict it: few meetings give a low score.
    An item whose class merely contains a wrong one is rarely picked: the wrong one is picked instead.

    A log with one quadruplet per batch doesn't show who met whom. There every appearance as i or j counts as met, and
    contradicts the label if the item's negative is more similar than its positive.

    Args:
        rows: all those of one phase, or of some of its classes or steps, so that it is known who met whom.
        least_met: items that met fewer classmates are left out.

    Returns:
        id, class_name, met, against, share (against / met), score, named (the class that was closer most often),
        named_share (of `against`); the highest score first.
    """
    many = len(mined.items)
    met, item, named_by = _evidence(mined, rows)
    count = np.bincount(item, minlength=many)
    pairs, times = np.unique(item.astype(np.int64) * len(mined.classes) + named_by, return_counts=True)
    named, named_count = np.full(many, -1), np.zeros(many, dtype=np.int64)
    ascending = np.argsort(times, kind="stable")  # the last value written to a place is the most frequent one
    named[pairs[ascending] // len(mined.classes)] = pairs[ascending] % len(mined.classes)
    named_count[pairs[ascending] // len(mined.classes)] = times[ascending]
    listed = ((met >= least_met) & (count > 0)).nonzero()[0]
    names = np.array(mined.classes, dtype=object)
    table = pd.DataFrame({
        "id": mined.items[listed], "class_name": names[mined.class_of[listed]], "met": met[listed],
        "against": count[listed], "share": count[listed] / met[listed],
        "score": wilson_lower(count[listed], met[listed]), "named": names[named[listed]],
        "named_share": named_count[listed] / count[listed],
    })  # fmt: skip
    return table.sort_values(["score", "id"], ascending=[False, True], ignore_index=True)


def examples(mined: Mined, rows: NDArray[np.intp], classes: Iterable[str], count: int = 3) -> dict[str, list[str]]:
    """The most typical items of each class: those with the smallest share of contradicting classmates."""
    met, item, _ = _evidence(mined, rows)
    share = np.bincount(item, minlength=len(mined.items)) / np.maximum(met, 1)
    typical = {}
    for name in classes:
        places = ((mined.class_of == mined.classes.index(name)) & (met > 0)).nonzero()[0]
        best = places[np.lexsort((-met[places], share[places]))][:count]
        typical[name] = mined.items[best].tolist()
    return typical


def mixed_up(
    mined: Mined, rows: NDArray[np.intp], pairs: Sequence[tuple[str, str]], count: int = 3
) -> dict[tuple[str, str], tuple[list[str], list[str]]]:
    """For each two classes, the items of either that were most often hard negatives of the other."""
    many, ends = len(mined.classes), {name: mined.ends[name][rows] for name in "ijkl"}
    own, other = np.concatenate([ends["i"], ends["j"]]), np.concatenate([ends["k"], ends["l"]])
    pair = mined.class_of[own].astype(np.int64) * many + mined.class_of[other]
    mixed = {}
    for a, b in pairs:
        first, second = mined.classes.index(a), mined.classes.index(b)
        items = [
            np.concatenate([own[pair == one * many + two], other[pair == two * many + one]])
            for one, two in ((first, second), (second, first))
        ]
        mixed[a, b] = tuple(mined.items[pd.Series(of).value_counts().index[:count]].tolist() for of in items)
    return mixed  # type: ignore[return-value]


def _evidence(mined: Mined, rows: NDArray[np.intp]) -> tuple[NDArray, NDArray, NDArray]:
    """How many classmates each item met, (items,), and of each contradiction the item and the closer class."""
    ends, values = ({name: codes[rows] for name, codes in of.items()} for of in (mined.ends, mined.values))
    i, j, k, l = (ends[name] for name in "ijkl")
    closer = {pair: values[f"s_{pair}"] > values["s_ij"] for pair in ("ik", "jl")}
    if mined.one_a_batch:
        met, first = np.bincount(np.concatenate([i, j]), minlength=len(mined.items)), closer["ik"]
    else:
        met, first = _classmates_met(mined, rows), closer["ik"] & mined.both[rows]
    item, negative = np.concatenate([j[closer["jl"]], i[first]]), np.concatenate([l[closer["jl"]], k[first]])
    return met, item, mined.class_of[negative]


def _classmates_met(mined: Mined, rows: NDArray[np.intp]) -> NDArray[np.int64]:
    """How many classmates each item met, summed over batches; (items,)."""
    both = rows[mined.both[rows]]  # there j is an anchor too
    anchor = np.concatenate([mined.ends["i"][rows], mined.ends["j"][both]])
    step = np.concatenate([mined.step[rows], mined.step[both]]).astype(np.int64)
    batch_class = step * len(mined.classes) + mined.class_of[anchor]
    _, place, size = np.unique(batch_class, return_inverse=True, return_counts=True)
    return np.bincount(anchor, size[place] - 1, len(mined.items)).astype(np.int64)
