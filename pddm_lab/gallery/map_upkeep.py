"""The map of a gallery whose items change: what stays keeps its place, what is new is put between its neighbours.

A map drawn anew takes some ten seconds and moves everything; this takes milliseconds and moves nothing. The manifest
counts the items that were put there, so that a page can say so until the map is drawn again. The new map is then turned
and shifted onto the one before.
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


def aligned(
    places: Float[np.ndarray, "items 2"], ids: pd.Series, before: pd.DataFrame | None
) -> Float[np.ndarray, "items 2"]:
    """A new map turned, mirrored and shifted onto the one before, as closely as the items on both allow.

    Args:
        places: of the new map; its distances stay.
        ids: of its items.
        before: id, x and y of the map before; None if there was none.

    Source: orthogonal Procrustes problem, Schoenemann 1966.
    """
    if before is None:
        return places
    from scipy.linalg import orthogonal_procrustes

    rows = pd.Index(before["id"]).get_indexer(pd.Index(ids))
    both = rows >= 0
    old, new = before[["x", "y"]].to_numpy(float)[rows[both]], places[both].astype(float)
    if not len(old) or not np.isfinite(old).all():
        return places
    turn, _ = orthogonal_procrustes(new - new.mean(0), old - old.mean(0))
    return ((places - new.mean(0)) @ turn + old.mean(0)).astype(np.float32)


def note_of(info: Mapping[str, Any], frame: pd.DataFrame, new: int) -> dict[str, Any]:
    """The manifest's entry of a map on which items were put; one of an older version doesn't say which."""
    placed = frame["overlap"].isna().sum() if "overlap" in frame else info.get("placed", 0) + new
    return {**info, "placed": int(placed)}
