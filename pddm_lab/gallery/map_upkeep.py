"""The map of a gallery whose items change: what stays keeps its place, what is new is put between its neighbours.

A map drawn anew takes some ten seconds and moves everything; this takes milliseconds and moves nothing. The manifest
counts the items that were put there, so that a page can say so until the map is drawn again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

NEAREST = 5
"""Items between which a new one is put, the nearer the more they count."""
_CHUNK = 128


def carried(
    drawn: pd.DataFrame, features: Float[np.ndarray, "before dim"], origin: Int[np.ndarray, " items"],
    ids: pd.Series, new: Float[np.ndarray, "new dim"],
) -> pd.DataFrame:  # fmt: skip
    """The map after a change.

    Args:
        drawn: the map before: id, x, y, and radius and overlap where it has them.
        features: of the items on it.
        origin: row in it of each item of the changed gallery; -1: it is new.
        ids: of the items.
        new: features of the new ones, in their order.
    """
    frame = drawn.iloc[np.maximum(origin, 0)].reset_index(drop=True)
    frame["id"] = ids.to_numpy()
    at, places = np.flatnonzero(origin < 0), drawn[["x", "y"]].to_numpy()
    for start in range(0, len(at), _CHUNK):
        rows, part = at[start : start + _CHUNK], new[start : start + _CHUNK]
        distances = np.sqrt(np.maximum(
            (part**2).sum(1)[:, None] + (features**2).sum(1) - 2 * part @ features.T, 0.0
        ))  # fmt: skip
        near = np.argsort(distances, axis=1, kind="stable")[:, :NEAREST]
        weights = 1 / (np.take_along_axis(distances, near, 1) + 1e-6)
        weights /= weights.sum(1, keepdims=True)
        frame.loc[rows, ["x", "y"]] = np.einsum("nk,nkd->nd", weights, places[near]).astype(np.float32)
        if "radius" in frame:
            frame.loc[rows, "radius"] = np.take_along_axis(distances, near, 1).mean(1).astype(np.float32)
        if "overlap" in frame:
            frame.loc[rows, "overlap"] = np.nan  # it was not drawn
    return frame


def note_of(info: Mapping[str, Any], placed: int) -> dict[str, Any]:
    """The manifest's entry of a map on which so many more items were put."""
    return {**info, "placed": int(info.get("placed", 0)) + placed}
