"""The store behind a gallery's search: it holds the features of the items that are searched, and returns the nearest.

The gallery's files stay the truth, and a store is filled from them. It answers for one state of the gallery; when items
change, `changed` makes the store of the next state from it. Re-ranking happens elsewhere, on the features in the files.

FAISS in this process is the default (index.py). Milvus is for what outgrows one machine (milvus.py).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float, Int

from pddm_lab.errors import ConfigError

FLAT_ITEMS = 50_000
"""Up to this many items the query is compared with all; beyond, with those that an approximate index leads to."""
VARIABLE = "PDDM_LAB_INDEX"
_URI = re.compile(r"(https?|tcp)://.+|unix:.+|.+\.db")


@dataclass(frozen=True)
class IndexChoice:
    """Which store and which index to use."""

    kind: str = "auto"
    """flat, ivf, or auto: by the number of items."""
    cells: int = 0
    """Cells that an inverted file searches; 0: as many as `RECALL` (index.py) takes."""
    uri: str = ""
    """Of Milvus: http://HOST:PORT, or a file of milvus-lite, FILE.db; empty: FAISS."""

    @staticmethod
    def of(text: str = "") -> IndexChoice:
        """From auto, flat, ivf, ivf:CELLS or milvus:URI; empty: $PDDM_LAB_INDEX, else auto.

        Raises:
            ConfigError: anything else.
        """
        text = text or os.environ.get(VARIABLE, "") or "auto"
        kind, _, rest = text.partition(":")
        if kind == "milvus" and _URI.fullmatch(rest):
            return IndexChoice(uri=str(Path(rest).absolute()) if rest.endswith(".db") else rest)
        valid = text == kind or (kind == "ivf" and rest.isdecimal() and int(rest) > 0)
        if kind not in ("auto", "flat", "ivf") or not valid:
            raise ConfigError(
                f"The index ({VARIABLE}) expects auto, flat, ivf, ivf:CELLS, milvus:http://HOST:PORT or "
                f"milvus:FILE.db, got {without_password(text)!r}."
            )
        return IndexChoice(kind, int(rest or 0))

    def flat(self, items: int) -> bool:
        """Whether the query is compared with all of this many items."""
        return self.kind == "flat" or (self.kind == "auto" and items <= FLAT_ITEMS)


@dataclass(frozen=True, eq=False)
class Contents:
    """What a store is filled from: a gallery in one state."""

    path: Path
    """The gallery's folder."""
    manifest: Mapping[str, Any]
    features: Float[np.ndarray, "places dim"]
    """Of all places, memory-mapped. A place keeps its feature until the gallery is written again."""
    places: Int[np.ndarray, " items"]
    """Of the searched items, ascending, at least one."""


class Store(Protocol):
    """The searched items of a gallery in one state."""

    places: Int[np.ndarray, " items"]

    def search(
        self, queries: Float[np.ndarray, "queries dim"], k: int
    ) -> tuple[Float[np.ndarray, "queries k"], Int[np.ndarray, "queries k"]]:
        """Euclidean distances and places of the k nearest, nearest first; k is at most the number of items."""

    def changed(self, contents: Contents) -> Store | None:
        """The store of the same gallery in a later state; None if it must be made anew."""


def without_password(text: str) -> str:
    """A text that may hold a URI, without user and password."""
    return re.sub(r"//[^/@]*@", "//***@", text)
