"""When a stream drifts: one alarm over all signals and windows, with a stated rate of false alarms for whole streams.

The last queries are a window. After every tenth of its size, each signal of the window is compared with the reference
(two_samples.py). Many looks at many signals would raise many false alarms if each were tested by itself. So streams
without drift are drawn from the run's own held-out queries, and the level is chosen once for the largest of all looks:

    ratio = statistic / (its 99 % quantile without drift, at the window's size) / threshold
    threshold: of the drawn streams, `level` have a larger maximum over signals and windows

A stream raises an alarm where a ratio is above 1. Reference and stream are drawn without an item in common, as new
queries have none with the reference.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from pddm_lab.change.signals import Stream
from pddm_lab.change.two_samples import kernel, ks, mean_of_pairs, median_distance, mix, squared_mmd
from pddm_lab.errors import DataError
from pddm_lab.progress import Progress

WINDOW = 200
"""Queries of a window."""
LENGTH = 1000
"""Queries of a stream that the rate of false alarms is of."""
LEVEL = 0.05
"""Share of streams without drift that raise an alarm."""
STREAMS = 400
"""Streams that are drawn to choose the threshold."""
FEWEST = 40
"""Held-out queries, below which there is nothing to compare with."""
_LOOKS = 10
"""In a window's size."""
_FIRST = 3
"""Looks' worth of queries in the first window; windows grow from there."""
_USUAL = 0.99


def spans_of(queries: int, window: int) -> Int[np.ndarray, "spans 2"]:
    """Start and end of each window of a stream: growing ones, then sliding ones."""
    step = max(window // _LOOKS, 1)
    ends = np.arange(_FIRST * step, queries + 1, step)
    return np.column_stack([np.maximum(ends - window, 0), ends])


def fewest_queries(window: int) -> int:
    """Queries of a stream until the first look."""
    return _FIRST * max(window // _LOOKS, 1)


@dataclass(frozen=True, eq=False)
class Alarm:
    """A reference, and what is usual without drift."""

    reference: Stream
    window: int
    usual: dict[str, Float[np.ndarray, " spans"]]
    """Signal -> 99 % quantile of its statistic without drift, for each window of a stream of `LENGTH` queries."""
    threshold: float
    """Ratio to the usual statistic that `LEVEL` of the streams exceed."""
    bandwidth: float
    inside: float
    """Mean kernel of distinct pairs of the reference."""

    @classmethod
    def fit(
        cls, own: Stream, window: int = WINDOW, seed: int = 0, streams: int = STREAMS, progress: Progress | None = None
    ) -> Alarm:  # fmt: skip
        """Choose the threshold by streams without drift.

        Args:
            own: held-out queries of the run, in random order.
            window: queries of a window.
            seed: of the draws.
            streams: how many are drawn.
            progress: called with (streams, all, "streams without drift").

        Raises:
            DataError: there are too few held-out queries.
        """
        if len(own) < FEWEST:
            raise DataError(
                f"Too few held-out queries to compare with: expected {FEWEST} or more items that were not trained on, "
                f"got {len(own)}. Add pictures to the catalogue: `pddm-lab gallery add`."
            )
        own = _without_constants(own)
        count, bandwidth = max(len(own) - LENGTH, len(own) // 2), median_distance(own.space)
        k, spans = kernel(own.space, own.space, bandwidth), spans_of(LENGTH, window)
        draw = np.random.default_rng(seed)
        drawn: list[dict[str, np.ndarray]] = []
        for number in range(streams):
            order = draw.permutation(len(own))
            others = order[count:]
            rows = others[:LENGTH] if len(others) >= LENGTH else draw.choice(others, LENGTH)
            chosen = np.zeros(len(own), k.dtype)
            chosen[order[:count]] = 1
            toward = k @ chosen
            inside = float(toward[order[:count]].sum(dtype=float) - count) / (count * (count - 1))
            mmd = squared_mmd(k[rows][:, rows], toward[rows] / count, inside, spans)
            drawn.append(_of_signals(own.take(order[:count]), own.take(rows), spans) | {"features": mmd})
            if progress:
                progress(number + 1, streams, "streams without drift")
        values = {name: np.stack([one[name] for one in drawn]) for name in drawn[0]}
        usual = {name: _usual(of, spans) for name, of in values.items()}
        highest = np.sort(np.max([(values[name] / usual[name]).max(1) for name in values], axis=0))
        place = min(math.ceil((streams + 1) * (1 - LEVEL)), streams)
        inside = mean_of_pairs(k[:count, :count])
        return cls(own.take(np.arange(count)), window, usual, float(highest[place - 1]), bandwidth, inside)

    def ratios(self, stream: Stream) -> dict[str, Float[np.ndarray, " spans"]]:
        """Signal -> statistic of each window of a stream over its threshold: above 1 there is an alarm.

        Args:
            stream: at most `LENGTH` queries, which the rate of false alarms is of.
        """
        spans = spans_of(len(stream), self.window)
        toward = kernel(stream.space, self.reference.space, self.bandwidth).mean(1, dtype=float)
        mmd = squared_mmd(kernel(stream.space, stream.space, self.bandwidth), toward, self.inside, spans)
        values = _of_signals(self.reference, stream, spans) | {"features": mmd}
        return {name: of / self.usual[name][: len(spans)] / self.threshold for name, of in values.items()}


def first_alarm(ratios: dict[str, Float[np.ndarray, " spans"]]) -> int | None:
    """The first window in which any signal raises an alarm; None without one."""
    alarms = np.flatnonzero(np.any([of > 1 for of in ratios.values()], axis=0))
    return int(alarms[0]) if len(alarms) else None


def _of_signals(
    reference: Stream, stream: Stream, spans: Int[np.ndarray, "spans 2"]
) -> dict[str, Float[np.ndarray, " spans"]]:
    """The statistics of all windows by each signal and by the classes."""
    values = {name: ks(of, stream.signals[name], spans) for name, of in reference.signals.items()}
    if reference.classes is not None and stream.classes is not None:
        values["classes"] = mix(reference.classes, stream.classes, spans)
    return values


def _usual(values: Float[np.ndarray, "streams spans"], spans: np.ndarray) -> Float[np.ndarray, " spans"]:
    """The quantile for each window, the same for all windows of one size."""
    sizes, usual = spans[:, 1] - spans[:, 0], np.empty(len(spans))
    for size in np.unique(sizes):
        usual[sizes == size] = np.quantile(values[:, sizes == size], _USUAL)
    return np.maximum(usual, np.finfo(float).tiny)


def _without_constants(own: Stream) -> Stream:
    """Without signals that have one value for all queries, or none: nothing can be compared by them."""
    kept = {name: of for name, of in own.signals.items() if np.isfinite(of).all() and np.ptp(of) > 0}
    classes = own.classes if own.classes is not None and len(np.unique(own.classes)) > 1 else None
    return Stream(kept, own.space, classes, own.in_range)
