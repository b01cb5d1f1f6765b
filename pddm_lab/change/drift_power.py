"""How often the alarm of drift is false, and how soon it comes: measured on a run with queries that it never saw.

The run's held-out queries are divided anew for each split: two thirds are the reference and choose the threshold, the
last third are streams. So no query is in both. Streams without drift have 1,000 queries. Streams with drift have 300
own queries, then 200 others: own ones as worse pictures, or pictures of another data set. Their delay is the number of
queries from the change to the first alarm; a stream that raised an alarm before the change is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Int
from PIL import Image

from pddm_lab.change.alarm import LENGTH, STREAMS, WINDOW, Alarm, first_alarm, spans_of
from pddm_lab.change.signals import Gauge, Stream
from pddm_lab.change.worse_pictures import AMOUNTS, WORSE, worsen
from pddm_lab.data.dataset import read_dataset
from pddm_lab.data.images import open_image
from pddm_lab.errors import DataError
from pddm_lab.metrics.intervals import mean_interval
from pddm_lab.progress import Progress
from pddm_lab.runs.model import Embeds, embedder
from pddm_lab.runs.run import Run

BEFORE = 300
"""Own queries of a stream with drift."""
SOON = 200
"""Queries after the change, within which an alarm is wanted."""
PICTURES = 700
"""Held-out pictures that are made worse, and pictures of another data set."""
_NEW = 1 / 3
"""Share of the held-out queries that are streams."""
_FEWER = 5
_AT_ONCE = 64


def measure(
    run: Run, foreign: Sequence[str], data_root: Path, *, window: int = WINDOW, splits: int = 10, streams: int = 50,
    pictures: int = PICTURES, drawn: int = STREAMS, seed: int = 0, progress: Progress | None = None,
) -> pd.DataFrame:  # fmt: skip
    """The rate of false alarms, and the delay of true ones.

    Args:
        run: finished, with its pictures on this machine.
        foreign: names of other data sets, whose pictures are queries.
        data_root: folder that holds them.
        window: queries of a window.
        splits: how often the held-out queries are divided.
        streams: without drift in each split; a fifth as many of each kind with drift.
        pictures: that are embedded of each kind.
        drawn: streams that choose a threshold.
        seed: of all draws.
        progress: called as pictures are embedded and splits are done.

    Returns:
        stream, amount, streams, alarms (share: of streams without drift in 1,000 queries, else within 200 after the
        change), low, high (95 % t interval over the splits), delay (median queries until an alarm, NaN without any or
        without drift), first (the signal that raised most of the alarms first).

    Raises:
        DataError: a data set, or pictures of the run, are missing, or too few items are held out.
        RunError: the run has no gallery or no model.
    """
    gauge = Gauge.of(run)
    places = gauge.sample(seed)
    own = gauge.own(places, progress)
    changes = [
        *_worse_streams(run, gauge, places, pictures, progress),
        *(_foreign_stream(run, gauge, name, data_root, pictures, seed, progress) for name in foreign),
    ]
    rows = []
    for split in range(splits):
        draw = np.random.default_rng([seed, split])
        kept, new = np.split(draw.permutation(len(own)), [len(own) - round(_NEW * len(own))])
        alarm = Alarm.fit(own.take(kept), window, seed + split, drawn, progress)
        for _ in range(streams):
            rows.append({"stream": "own", "amount": "", "split": split, **_without_drift(alarm, own, new, draw)})
        for change in changes:
            for _ in range(max(streams // _FEWER, 1)):
                row = _with_drift(alarm, own, new, change, draw)
                rows.append({"stream": change.name, "amount": change.amount, "split": split, **row})
        if progress:
            progress(split + 1, splits, "splits")
    return summary(pd.DataFrame(rows))


@dataclass(frozen=True, eq=False)
class _Change:
    """Queries that are not the run's own."""

    name: str
    amount: str
    stream: Stream
    rows: Int[np.ndarray, " queries"] | None = None
    """Which of the own queries each is a worse picture of; None: of none."""


def _without_drift(
    alarm: Alarm, own: Stream, new: Int[np.ndarray, " new"], draw: np.random.Generator
) -> dict[str, float | str]:
    ratios = alarm.ratios(own.take(draw.permutation(new)[:LENGTH]))
    first = first_alarm(ratios)
    return {"alarm": float(first is not None), "delay": np.nan, "first": _strongest(ratios, first)}


def _with_drift(
    alarm: Alarm, own: Stream, new: Int[np.ndarray, " new"], change: _Change, draw: np.random.Generator
) -> dict[str, float | str]:
    """Own queries, then others; NaN as the alarm where there was one before the change. No query comes twice."""
    later = np.arange(len(change.stream))
    if change.rows is not None:  # of pictures that the reference hasn't seen
        later = np.flatnonzero(np.isin(change.rows, new))
    later = draw.permutation(later)[:SOON]
    before = draw.permutation(new if change.rows is None else np.setdiff1d(new, change.rows[later]))[:BEFORE]
    ratios = alarm.ratios(own.take(before).then(change.stream.take(later)))
    first = first_alarm(ratios)
    delay = np.inf if first is None else spans_of(len(before) + len(later), alarm.window)[first, 1] - len(before)
    if delay <= 0:
        return {"alarm": np.nan, "delay": np.nan, "first": ""}
    return {"alarm": float(delay < np.inf), "delay": float(delay), "first": _strongest(ratios, first)}


def _strongest(ratios: dict[str, np.ndarray], span: int | None) -> str:
    return "" if span is None else max(ratios, key=lambda name: ratios[name][span])


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """A line for each kind of stream, from a line for each stream: stream, amount, split, alarm, delay, first."""
    lines = []
    for (stream, amount), of in rows.groupby(["stream", "amount"], sort=False):
        of = of[of["alarm"].notna()]
        mean, half = mean_interval(of.groupby("split")["alarm"].mean().tolist()) if len(of) else (np.nan, np.nan)
        named = of.loc[of["first"] != "", "first"]
        delays = of["delay"].dropna()
        lines.append({
            "stream": stream, "amount": amount, "streams": len(of), "alarms": mean, "low": max(mean - half, 0.0),
            "high": min(mean + half, 1.0), "delay": delays.median() if len(delays) else np.nan,
            "first": named.mode().iloc[0] if len(named) else "",
        })  # fmt: skip
    return pd.DataFrame(lines)


def _worse_streams(
    run: Run, gauge: Gauge, places: Int[np.ndarray, " own"], pictures: int, progress: Progress | None
) -> Iterator[_Change]:
    """Own queries as worse pictures, each left out of the catalogue as it is."""
    root = Path(run.info["dataset"].get("root") or ".").resolve()
    files = [(root / gauge.ids[place]).resolve() for place in places]
    # An id comes from a file, so it must not lead out of the data set's folder.
    there = [row for row, file in enumerate(files) if file.is_relative_to(root) and file.is_file()]
    rows = np.array(there[:pictures], dtype=np.int64)
    if not len(rows):
        raise DataError(f"The pictures of {run.name} are missing: expected them in {root}. Restore that folder.")
    embed = embedder(run)
    for name in WORSE:
        for amount in AMOUNTS:

            def load(at: int, name: str = name, amount: str = amount) -> Image.Image:
                row = int(rows[at])
                return worsen(open_image(files[row]), name, amount, gauge.ids[places[row]])

            features = _embedded(embed, load, len(rows), f"pictures, {name}", progress)
            yield _Change(name, amount, gauge.read(features, places[rows], progress), rows)


def _foreign_stream(
    run: Run, gauge: Gauge, name: str, data_root: Path, pictures: int, seed: int, progress: Progress | None
) -> _Change:
    dataset = read_dataset(name, data_root, check_cache=run.path.parent / ".checked", progress=progress)
    items = np.random.default_rng(seed).permutation(len(dataset))[:pictures]
    features = _embedded(
        embedder(run), lambda at: dataset.load(int(items[at])), len(items), f"pictures, {name}", progress
    )
    return _Change(name, "", gauge.read(features, progress=progress))


def _embedded(
    embed: Embeds, load: Callable[[int], Image.Image], count: int, what: str, progress: Progress | None
) -> np.ndarray:
    parts = []
    for start in range(0, count, _AT_ONCE):
        part = range(start, min(start + _AT_ONCE, count))
        parts.append(embed.embed_all([embed.prepare(load(at)) for at in part])[0])
        if progress:
            progress(part.stop, count, what)
    return np.concatenate(parts)
