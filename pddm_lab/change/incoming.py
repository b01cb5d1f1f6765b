"""The queries of a stream: the pictures of a folder, embedded by the run, or a service's log of scores."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from pddm_lab.change.drift_schema import ScoreContent
from pddm_lab.change.signals import Gauge, Stream
from pddm_lab.data.pictures import find_pictures
from pddm_lab.errors import DataError
from pddm_lab.progress import Progress
from pddm_lab.runs.new_items import embed_pictures
from pddm_lab.runs.run import Run
from pddm_lab.wording import counted

LOGGED = ("distance", "margin", "probability")
"""Signals that a log holds."""


@dataclass(frozen=True, eq=False)
class Incoming:
    """A stream of queries from outside."""

    stream: Stream
    source: str
    names: Sequence[str]
    """Of the pictures; empty for a log."""
    thumbs: Sequence[bytes]
    is_ordered: bool
    skipped: int
    notes: list[str]
    """What was passed over, in sentences."""


def from_folder(
    run: Run, gauge: Gauge, folder: Path, most: int, model: str = "", shuffled: bool | None = None, seed: int = 0,
    progress: Progress | None = None,
) -> Incoming:  # fmt: skip
    """The pictures of a folder as queries.

    Args:
        folder: with pictures, in folders or not.
        most: the last so many pictures are read.
        model: as for `embedder`.
        shuffled: put them in random order; False: in the order of their names; None: in random order if they lie in
            several folders, which are no order in time.
        seed: of the random order.
        progress: called as pictures are read and measured.

    Raises:
        DataError: the folder has no readable picture.
        RunError: the run has no model.
    """
    if not folder.is_dir():
        raise DataError(f"The folder {folder} does not exist: expected one with the pictures of queries.")
    pictures = find_pictures(folder)
    ids, notes = list(pictures.ids), list(pictures.notes())
    if not ids:
        raise DataError(" ".join([f"{folder} has no pictures.", *notes]))
    if shuffled is None:
        shuffled = len({item.rpartition("/")[0] for item in ids}) > 1
    if shuffled:
        ids = [ids[place] for place in np.random.default_rng(seed).permutation(len(ids))]
    left_out = max(len(ids) - most, 0)
    ids, names, thumbs, features, unread = ids[left_out:], [], [], [], []
    for item, made in zip(ids, embed_pictures(run, [folder / item for item in ids], model), strict=True):
        if isinstance(made, str):
            unread.append(made)
        else:
            names.append(item)
            thumbs.append(made.thumb)
            features.append(made.feature)
        if progress:
            progress(len(names) + len(unread), len(ids), "pictures")
    if not names:
        raise DataError(f"None of {len(ids)} pictures can be read. The first error: {unread[0]}")
    if unread:
        notes.append(f"Skipped {counted(len(unread), 'picture')} that can't be read. The first error: {unread[0]}")
    if left_out:
        notes.append(
            f"Looked at {'' if not shuffled else 'a random '}{len(ids):,} of {len(ids) + left_out:,} pictures."
        )
    stream = gauge.read(np.stack(features), progress=progress)
    return Incoming(stream, str(folder), names, thumbs, not shuffled, left_out + len(unread), notes)


def from_log(gauge: Gauge, file: Path, most: int, run: str = "") -> Incoming:
    """The lines of a log of scores as queries (`ScoreContent`); they are compared by these scores alone.

    Lines of a service's log that hold no scores are passed over: those of other requests, and those that are no object,
    such as warnings.

    Args:
        most: the last so many lines are used; all of them must be right.
        run: name of the run; lines that name another one are passed over.

    Raises:
        DataError: it is missing or has no scores, or an object of it is not what `ScoreContent` says.
    """
    try:
        lines = list(enumerate(file.read_text(encoding="utf-8").splitlines(), 1))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise DataError(f"{file} can't be read: {reason}. Expected a log of scores, an object a line.") from error
    objects = [(number, line) for number, line in lines if line.lstrip().startswith("{")]
    scores = [_score(file, number, line) for number, line in objects if not _is_other_request(line)]
    if not scores:
        raise DataError(f"{file} has no lines with scores: expected a log of scores, an object a line.")
    others = sorted({score.run for score in scores} - {"", run}) if run else []
    scores = [score for score in scores if score.run not in others]
    if not scores:
        raise DataError(f"{file} has no scores by {run}, but by {', '.join(others)}: compare it with that run.")
    left_out = max(len(scores) - most, 0)
    scores = scores[left_out:]
    signals = {name: np.array([getattr(score, name) for score in scores], dtype=float) for name in LOGGED}
    label_of = {name: label for label, name in gauge.class_names.items()}
    classes = None
    if all(score.class_name for score in scores):  # a class that is not in the catalogue counts as one of its own
        classes = np.array([label_of.get(score.class_name, -1) for score in scores])
    stream = Stream(signals, np.column_stack(list(signals.values())), classes, np.array([s.in_range for s in scores]))
    notes = [f"Looked at the last {len(scores):,} of {len(scores) + left_out:,} queries."] if left_out else []
    return Incoming(stream, str(file), (), (), True, left_out, notes)


def _is_other_request(line: str) -> bool:
    """Whether a line of a service's log (service/observed.py) is of a request that has no scores."""
    try:
        content = json.loads(line)
    except ValueError:
        return False
    return isinstance(content, dict) and "request" in content and not ScoreContent.model_fields.keys() & content.keys()


def _score(file: Path, number: int, line: str) -> ScoreContent:
    try:
        return ScoreContent.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "the line"
        raise DataError(
            f"Line {number} of {file}: {field}: {first['msg'][0].lower()}{first['msg'][1:]}. Expected an object with "
            "distance, margin, probability and in_range, such as "
            '{"distance": 0.61, "margin": 0.12, "probability": 0.93, "in_range": true}.'
        ) from None


def logged(own: Stream) -> Stream:
    """The run's own queries as a log holds them: its signals alone, which are compared as a whole too."""
    signals = {name: own.signals[name] for name in LOGGED if name in own.signals}
    if len(signals) < len(LOGGED):
        raise DataError("A log can't be compared: this run has too few labelled items to decide which class is right.")
    return Stream(signals, np.column_stack(list(signals.values())), own.classes, own.in_range)


def scaled(own: Stream, stream: Stream) -> tuple[Stream, Stream]:
    """Both with points of the same spread in each direction, by the first."""
    centre, spread = own.space.mean(0), np.maximum(own.space.std(0), 1e-9)
    one, other = (
        Stream(of.signals, (of.space - centre) / spread, of.classes, of.in_range) for of in (own, stream)
    )  # fmt: skip
    return one, other
