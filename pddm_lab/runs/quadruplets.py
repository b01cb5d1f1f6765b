"""Mined quadruplets as arrays of codes, so that a million rows are filtered, sorted and counted in milliseconds.

Mining with every item as an anchor can choose a pair from both ends, (i, j, k, l) and (j, i, l, k): one of the two is
kept and marked.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pddm_lab.errors import ConfigError
from pddm_lab.runs.log import EUCLIDEAN, PHASES, QUADRUPLETS

if TYPE_CHECKING:
    import pyarrow as pa
    from jaxtyping import Float, Int
    from numpy.typing import NDArray

ORDERS = {
    "violation": "most violated first",
    "positive": "least similar positive pair first",
    "latest": "latest first",
    "earliest": "earliest first",
}
"""Sort orders of quadruplets and their names on screen."""
VALUES = tuple(name for name, kind in QUADRUPLETS.items() if kind == "float32")
EUCLIDEAN_VALUES = tuple(name for name, kind in EUCLIDEAN.items() if kind == "float32")


@dataclass(frozen=True, eq=False)
class Mined:
    """The distinct quadruplets of a run, in the order mined. Each text is stored once and referred to by its code."""

    items: NDArray[np.object_]
    """Item ids, sorted; `ends` are indices into it."""
    classes: list[str]
    """Class names, sorted."""
    class_of: Int[np.ndarray, " items"]
    """Class of each item, an index into `classes`."""
    phase: Int[np.ndarray, " quads"]
    """An index into `PHASES`."""
    step: Int[np.ndarray, " quads"]
    ends: dict[str, Int[np.ndarray, " quads"]]
    """i, j, k, l, and e_i, e_j, e_k, e_l that Euclidean mining would have chosen; -1 if that wasn't logged."""
    values: dict[str, Float[np.ndarray, " quads"]]
    """S, D and slacks by their names in the log."""
    both: NDArray[np.bool_]
    """Whether each was mined from both ends, so that j is an anchor too and i its least similar positive."""

    @classmethod
    def of(cls, log: pa.Table) -> Mined:
        """From a log that `Run.mined` reads."""
        import pyarrow as pa
        import pyarrow.compute as pc

        texts = {
            name: log[name].combine_chunks() for name in log.schema.names if pa.types.is_dictionary(log[name].type)
        }
        ends = [name for name in texts if name.removeprefix("e_") in ("i", "j", "k", "l")]

        def sorted_texts(names: Iterable[str]) -> pa.Array:
            distinct = pa.chunked_array([texts[name].dictionary for name in names], pa.string()).unique()
            return distinct.drop_null().sort()

        def codes(name: str, of: pa.Array) -> np.ndarray:
            column = texts[name]
            places = pc.fill_null(pc.index_in(column.dictionary, of), -1).to_numpy(zero_copy_only=False)
            rows = pc.fill_null(column.indices, -1).to_numpy(zero_copy_only=False)
            return np.append(places, -1).astype(np.int32)[rows]  # -1, a null, is the last entry

        items, classes = sorted_texts(ends), sorted_texts(name for name in texts if "class_" in name)
        coded = {name: codes(name, items) for name in ends}
        class_of = np.full(len(items) + 1, -1, dtype=np.int32)  # the last entry is for nulls
        for name, places in coded.items():
            class_of[places] = codes(f"{name[:-1]}class_{'i' if name[-1] == 'j' else name[-1]}", classes)
        mined = cls(
            items.to_numpy(zero_copy_only=False), classes.to_pylist(), class_of[:-1], codes("phase", pa.array(PHASES)),
            log["step"].to_numpy().astype(np.int32), coded,
            {name: log[name].to_numpy() for name in (*VALUES, *EUCLIDEAN_VALUES)}, np.zeros(len(log), dtype=bool),
        )  # fmt: skip
        return mined._distinct()

    def __len__(self) -> int:
        return len(self.step)

    def _distinct(self) -> Mined:
        """Keeps the first of two mirrored rows."""
        i, j, many = self.ends["i"].astype(np.int64), self.ends["j"], len(self.items)
        # Comparing the pairs is enough: in a batch an item has one hardest negative.
        key = pd.Series((self._time * many + np.minimum(i, j)) * many + np.maximum(i, j))
        first, last = ~key.duplicated().to_numpy(), ~key.duplicated(keep="last").to_numpy()
        ends = {name: codes[first] for name, codes in self.ends.items()}
        values = {name: reals[first] for name, reals in self.values.items()}
        return Mined(
            self.items, self.classes, self.class_of, self.phase[first], self.step[first], ends, values, ~last[first]
        )

    @cached_property
    def _time(self) -> Int[np.ndarray, " quads"]:
        """A different number for each step of each phase."""
        return self.phase.astype(np.int64) * (int(self.step.max(initial=0)) + 1) + self.step

    @property
    def phases(self) -> list[str]:
        """Phases with quadruplets, the last first."""
        return [PHASES[code] for code in np.unique(self.phase)[::-1]]

    @cached_property
    def worst_slack(self) -> Float[np.ndarray, " quads"]:
        """The larger slack of each quadruplet: above 0 if a hinge is violated."""
        return np.maximum(self.values["slack_ik"], self.values["slack_jl"])

    @cached_property
    def has_euclidean(self) -> bool:
        """Whether the choices of Euclidean mining were logged."""
        return bool((self.ends["e_i"] >= 0).any())

    @cached_property
    def one_a_batch(self) -> bool:
        """Whether each batch gave one quadruplet, so that the rest of the batch isn't known."""
        return len(np.unique(self._time)) == len(self) and not self.both.any()

    @cached_property
    def _orders(self) -> dict[str, NDArray[np.intp]]:
        """Sorted rows of all quadruplets, by order, computed at first use."""
        return {}

    def _sorted(self, order: str) -> NDArray[np.intp]:
        if order == "violation":
            return np.argsort(-self.worst_slack, kind="stable")
        if order == "positive":
            return np.argsort(self.values["s_ij"], kind="stable")
        by_step = np.argsort(self._time, kind="stable")
        return by_step if order == "earliest" else by_step[::-1]

    def span(self, phase: str) -> tuple[int, int]:
        """First and last step of a phase with quadruplets."""
        steps = self.step[self.phase == PHASES.index(phase)]
        return int(steps.min()), int(steps.max())

    def pick(
        self, phase: str, steps: tuple[int, int] | None = None, *, own: Sequence[str] = (), others: Sequence[str] = (),
        item: str = "", only: str = "",
    ) -> NDArray[np.intp]:  # fmt: skip
        """Quadruplets of a phase, as rows of these arrays, in the order mined.

        Args:
            phase: its name.
            steps: first and last, inclusive; None for all.
            own: classes of i and j; empty for all.
            others: classes of k or l; empty for all.
            item: id of i or j; empty for all.
            only: "violated": those that violate a hinge; "differs": those where Euclidean mining chooses another j or
                k; empty for all.

        Raises:
            ConfigError: unknown `only`.
        """
        if only not in ("", "violated", "differs"):
            raise ConfigError(f"Unknown filter of quadruplets {only!r}. Expected 'violated' or 'differs'.")
        keep = self.phase == PHASES.index(phase)
        if steps is not None:
            keep &= (self.step >= steps[0]) & (self.step <= steps[1])
        if own:
            keep &= self._among("i", own)
        if others:
            keep &= self._among("k", others) | self._among("l", others)
        if item:
            place = int(np.searchsorted(self.items, item))
            known = place < len(self.items) and self.items[place] == item
            keep &= (self.ends["i"] == place) | (self.ends["j"] == place) if known else False
        if only == "violated":
            keep &= self.worst_slack > 0
        elif only == "differs":
            keep &= ~(self.same("j") & self.same("k")) & (self.ends["e_i"] >= 0)
        return keep.nonzero()[0]

    def _among(self, end: str, names: Sequence[str]) -> NDArray[np.bool_]:
        wanted = np.isin(self.classes, list(names))
        return wanted[self.class_of][self.ends[end]]

    def ordered(self, rows: NDArray[np.intp], order: str) -> NDArray[np.intp]:
        """The same rows in one of `ORDERS`."""
        chosen = np.zeros(len(self), dtype=bool)
        chosen[rows] = True
        if order not in self._orders:
            self._orders[order] = self._sorted(order)
        whole = self._orders[order]
        return whole[chosen[whole]]

    def most_violated(self, rows: NDArray[np.intp], count: int) -> pd.DataFrame:
        """The most violated of some rows as a frame, at most `count`; no positive pair occurs twice."""
        rows = self.ordered(rows, "violation")
        pairs = pd.Series(list(map(frozenset, zip(self.ends["i"][rows], self.ends["j"][rows], strict=True))))
        return self.frame(rows[~pairs.duplicated()][:count])

    def same(self, end: str) -> NDArray[np.bool_]:
        """Where Euclidean mining chooses the same j, or the same negative k, for the same i; (quads,)."""
        return (self.ends[end] == self.ends[f"e_{end}"]) & (self.ends["i"] == self.ends["e_i"])

    def positives(self, rows: NDArray[np.intp]) -> Float[np.ndarray, " rows"]:
        """How many positives i had in its batch; NaN if each batch gave only one quadruplet."""
        if self.one_a_batch:
            return np.full(len(rows), np.nan)
        times, counts = self._time, np.empty(len(rows))
        own = self.class_of[self.ends["i"]]
        for at, row in enumerate(rows):
            batch = (times == times[row]) & (own == own[row])
            counts[at] = np.count_nonzero(batch) + np.count_nonzero(self.both[batch]) - 1
        return counts

    def frame(self, rows: NDArray[np.intp]) -> pd.DataFrame:
        """Some rows with the columns of the log, as plain text and numbers."""
        columns: dict[str, object] = {"phase": np.array(PHASES)[self.phase[rows]], "step": self.step[rows]}
        ids, classes = (np.array([*texts, None], dtype=object) for texts in (self.items, self.classes))
        class_of = np.append(self.class_of, -1)
        for prefix in ("", "e_") if self.has_euclidean else ("",):
            ends = {end: self.ends[f"{prefix}{end}"][rows] for end in "ijkl"}
            columns |= {f"{prefix}{end}": ids[places] for end, places in ends.items()}
            columns |= {f"{prefix}class_{end}": classes[class_of[ends[end]]] for end in "ikl"}
            columns |= {name: self.values[name][rows] for name in (EUCLIDEAN_VALUES if prefix else VALUES)}
        return pd.DataFrame(columns)
