"""What a process does that corrupts pictures. It imports no torch: that would take its first seconds and its memory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from pddm_lab.data.prepare import prepare
from pddm_lab.robustness.corruptions import Square, corrupt
from pddm_lab.runs.process import end_with

_NICE = 5


def seen(square: Square, network: tuple[int, int] | None) -> np.ndarray:
    """What a network sees of a square, (3, size, size); the square itself for a network that takes whole pictures."""
    return square if network is None else prepare(Image.fromarray(square), *network)


def corrupted(
    file: Path, rows: np.ndarray, ids: Sequence[str], name: str, strength: int, network: tuple[int, int] | None
) -> np.ndarray:
    """What the network sees of some pictures of a file, corrupted; see `Pictures`."""
    squares = np.load(file, mmap_mode="r")
    made = [corrupt(np.array(squares[row]), item, name, strength) for row, item in zip(rows, ids, strict=True)]
    return np.stack([seen(square, network) for square in made])


def start(parent: int) -> None:
    """Leave Ctrl-C to the parent, give way to it, and end when it is gone."""
    if hasattr(os, "nice"):
        os.nice(_NICE)
    end_with(parent)
