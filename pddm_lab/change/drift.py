"""Whether a stream of queries drifts away from a run: one alarm over all signals, and what changed."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from pddm_lab.change.alarm import LENGTH, LEVEL, STREAMS, WINDOW, Alarm, fewest_queries, spans_of
from pddm_lab.change.drift_schema import DriftContent
from pddm_lab.change.incoming import Incoming, from_folder, from_log, logged, scaled
from pddm_lab.change.signals import Gauge, Stream
from pddm_lab.errors import DataError
from pddm_lab.files import plain
from pddm_lab.progress import Progress
from pddm_lab.runs.run import Run

BINS = 24
"""Of a signal's distribution."""
FARTHEST = 24
"""Queries that are kept as pictures."""
MOST_CLASSES = 12
"""That gain, and that lose, which are kept."""
_CLEARLY = 0.05
"""Chance that any class at all is named without a change."""


def drift_of_folder(
    run: Run, folder: Path, window: int = WINDOW, model: str = "", shuffled: bool | None = None, seed: int = 0,
    progress: Progress | None = None,
) -> tuple[DriftContent, list[str]]:  # fmt: skip
    """Compare the pictures of a folder with a run's own queries; returns what was passed over, in sentences, too.

    Args:
        run: finished.
        folder: of the pictures.
        window: queries of a window.
        model: of a run whose features were imported.
        shuffled: as for `from_folder`.
        seed: of all draws.
        progress: called as pictures are embedded, queries measured and streams drawn.

    Raises:
        DataError: too few queries, or too few held-out items.
        RunError: the run has no gallery or no model.
    """
    gauge = Gauge.of(run)
    incoming = from_folder(run, gauge, folder, LENGTH, model, shuffled, seed, progress)
    own = gauge.own(gauge.sample(seed), progress)
    return compare(gauge, own, incoming, window, seed, progress), incoming.notes


def drift_of_log(
    run: Run, file: Path, window: int = WINDOW, seed: int = 0, progress: Progress | None = None
) -> tuple[DriftContent, list[str]]:
    """Compare the scores of a service's log with those of a run's own queries; as `drift_of_folder` otherwise."""
    gauge = Gauge.of(run)
    incoming = from_log(gauge, file, LENGTH, run.name)
    own = gauge.own(gauge.sample(seed), progress)
    return compare(gauge, logged(own), incoming, window, seed, progress), incoming.notes


def compare(
    gauge: Gauge, own: Stream, incoming: Incoming, window: int, seed: int = 0, progress: Progress | None = None
) -> DriftContent:
    """The drift of a stream of queries.

    Args:
        own: the run's own queries, in random order, with the same signals.
        incoming: at most `LENGTH` queries.
        window: queries of a window.
        seed: of the streams without drift.
        progress: called as these are drawn.

    Raises:
        DataError: too few queries, or too few own ones.
    """
    stream, pictures = incoming.stream, bool(incoming.names)
    if len(stream) < (fewest := fewest_queries(window)):
        raise DataError(
            f"Too few queries to compare: expected {fewest} or more for --window {window}, got {len(stream)}. "
            "Collect more of them, or make the window smaller."
        )
    if not pictures:
        own, stream = scaled(own, stream)
    if stream.classes is None:
        own = Stream(own.signals, own.space, None, own.in_range)
    alarm = Alarm.fit(own, window, seed, STREAMS, progress)
    ratios, last = alarm.ratios(stream), stream.take(np.arange(max(len(stream) - window, 0), len(stream)))
    signals = {name: {"ratios": of, **_then_and_now(own, last, name)} for name, of in ratios.items()}
    content = {
        "format": 1, "created": datetime.now(UTC).isoformat(timespec="seconds"), "source": incoming.source,
        "kind": "pictures" if pictures else "log", "is_ordered": incoming.is_ordered, "queries": len(stream),
        "skipped": incoming.skipped, "window": window, "reference": len(own), "level": LEVEL, "length": LENGTH,
        "ends": spans_of(len(stream), window)[:, 1], "signals": signals, "outside_then": _outside(own),
        "outside_now": _outside(last), "classes": _changed_classes(gauge, own, last),
        "farthest": _farthest(gauge, incoming),
    }  # fmt: skip
    return DriftContent.model_validate(plain(content))


def _then_and_now(own: Stream, last: Stream, name: str) -> dict[str, Any]:
    """Medians and distributions of a signal of one query; nothing of a whole window."""
    if name not in own.signals:
        return {}
    then, now = own.signals[name], last.signals[name]
    low, high = np.quantile(np.concatenate([then, now]), [0.001, 0.999])
    edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
    shares = [np.histogram(np.clip(of, edges[0], edges[-1]), edges)[0] / len(of) for of in (then, now)]
    return {"then": np.median(then), "now": np.median(now), "edges": edges, "share_then": shares[0],
            "share_now": shares[1]}  # fmt: skip


def _outside(of: Stream) -> float | None:
    return None if of.in_range is None else 1 - float(of.in_range.mean())


def _changed_classes(gauge: Gauge, own: Stream, last: Stream) -> list[dict[str, Any]]:
    """Classes whose share clearly differs, from the largest gain to the largest loss.

    By Fisher's exact test, corrected for the number of classes.
    """
    if own.classes is None or last.classes is None:
        return []
    from scipy.stats import hypergeom

    names = np.unique(np.concatenate([own.classes, last.classes]))
    then, now = (_counts(of.classes, names) for of in (own, last) if of.classes is not None)
    of_both = hypergeom(len(own) + len(last), then + now, len(last))
    chance = 2 * np.minimum(of_both.sf(now - 1), of_both.cdf(now)) * len(names)
    rows = [
        {"name": gauge.class_names.get(int(names[at]), "not in the catalogue"), "then": then[at] / len(own),
         "now": now[at] / len(last)}
        for at in np.flatnonzero(chance < _CLEARLY)
    ]  # fmt: skip
    rows.sort(key=lambda row: row["then"] - row["now"])
    gains, losses = ([row for row in rows if (row["now"] > row["then"]) == up] for up in (True, False))
    return gains[:MOST_CLASSES] + losses[-MOST_CLASSES:]


def _counts(classes: Int[np.ndarray, " queries"], names: Int[np.ndarray, " names"]) -> Int[np.ndarray, " names"]:
    return np.bincount(np.searchsorted(names, classes), minlength=len(names))


def _farthest(gauge: Gauge, incoming: Incoming) -> list[dict[str, Any]]:
    """The pictures with the largest distance to the range, farthest first."""
    distances, classes = incoming.stream.signals["distance"], incoming.stream.classes
    return [
        {"name": incoming.names[at], "distance": distances[at],
         "class_name": "" if classes is None else gauge.class_names[int(classes[at])],
         "thumb": base64.b64encode(incoming.thumbs[at]).decode()}
        for at in np.argsort(-distances, kind="stable")[: FARTHEST if incoming.names else 0]
    ]  # fmt: skip
