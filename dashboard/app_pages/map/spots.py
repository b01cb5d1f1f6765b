"""Where names are written on a map: those of classes where their items lie densest, else those of groups.

A class that lies in several places gets up to three spots. The canvas writes the names of the largest groups that
don't collide (layers.js), so that zooming in brings more of them.

Items without labels are grouped by their places. A group is named after what most of its items share and others mostly
don't, a folder or a value of their metadata; where there is nothing of the kind, after the item in its middle.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int, UInt16, UInt32

if TYPE_CHECKING:
    import pandas as pd

CELL = 1024
"""Grid steps of a cell; a group is what lies in three by three cells."""
MOST = 3
"""Spots of a class."""
SHARE = 0.2
"""Of a class's items, in every spot but its first."""
GROUP, GROUPS = 16, (4, 400)
"""Items of a group on average, and the least and the most groups."""
SHARED, RARER = 0.5, 2.0
"""Share of a group's items that have the value it is named after, and how much rarer the value is among all."""

_COLUMNS = 65536 // CELL + 4  # two more on each side: cells of one row never touch those of the next


def spots(places: UInt16[np.ndarray, "items 2"], labels: Int[np.ndarray, " items"]) -> UInt32[np.ndarray, "spots 3"]:
    """The middle of each class's largest groups, the largest group of all classes first.

    Args:
        places: on the grid of lasso.py.
        labels: class of each item.

    Returns:
        x, y and label of each spot.
    """
    if not len(labels):
        return np.empty((0, 3), np.uint32)
    column, row = (places.astype(np.int64) // CELL + 2).T
    cell_of = labels.astype(np.int64) * _COLUMNS**2 + row * _COLUMNS + column
    cells, cell = np.unique(cell_of, return_inverse=True)
    sums = np.stack([np.bincount(cell, weights) for weights in (None, *places.T.astype(float))], axis=1)
    around = sum((_at(cells, sums, cells + step) for step in _steps(1)), np.zeros_like(sums))
    label, size = cells // _COLUMNS**2, np.bincount(labels)
    result, remain = [], np.ones(len(cells), bool)
    for turn in range(MOST):
        left = np.flatnonzero(remain)
        left = left[np.lexsort((-around[left, 0], label[left]))]
        peaks = left[np.unique(label[left], return_index=True)[1]]
        if turn:
            peaks = peaks[around[peaks, 0] >= np.maximum(SHARE * size[label[peaks]], 2)]
        count, x, y = around[peaks].T
        result.append(np.column_stack([count, x / count, y / count, label[peaks]]))
        remain &= ~np.isin(cells, (cells[peaks][:, None] + _steps(2)).ravel())
    groups = np.concatenate(result)
    return groups[np.argsort(-groups[:, 0], kind="stable"), 1:].round().astype(np.uint32)


def named_groups(
    places: UInt16[np.ndarray, "items 2"], ids: Sequence[str], metadata: pd.DataFrame
) -> tuple[UInt32[np.ndarray, "spots 3"], list[str]]:
    """Groups of items that lie together, and their names.

    Args:
        places: on the grid of lasso.py.
        ids: of the items; what comes before the last slash is a folder.
        metadata: further texts of the items, a column of each name.

    Returns:
        x, y and the number of its name of each group, the largest first; and the names.
    """
    import pandas as pd

    count = min(max(len(places) // GROUP, GROUPS[0]), GROUPS[1], len(places))
    if not count:
        return np.empty((0, 3), np.uint32), []
    group, centres = _grouped(places.astype(np.float32), count)
    parts = pd.Series(list(ids)).str.rpartition("/")
    folders, own = parts[0].str.rpartition("/")[2], parts[2].str.replace(r"\.\w{2,5}$", "", regex=True)
    has_folders = folders.nunique() > 1
    texts = {"": folders} if has_folders else {}
    texts |= {str(name): metadata[name].astype(str).reset_index(drop=True) for name in metadata}
    size, best = np.bincount(group, minlength=count), np.zeros(count)
    away = ((places - centres[group]) ** 2).sum(1)
    nearest = pd.Series(away).groupby(group).idxmin().reindex(range(count), fill_value=0)
    names = (folders if has_folders else own).iloc[nearest].tolist()
    for column, values in texts.items():
        codes, known = pd.factorize(values)
        overall = np.bincount(codes) / len(codes)
        for (of, code), here in pd.Series(codes).groupby([group, codes]).size().items():
            share, ahead = here / size[of], here / size[of] - overall[code]
            if known[code] and share >= SHARED and share >= RARER * overall[code] and ahead > best[of]:
                best[of], named = ahead, str(known[code])
                names[of] = f"{column} {named}" if column and named.replace(".", "", 1).isdecimal() else named
    order = np.argsort(-size, kind="stable")[: int((size > 0).sum())]
    return np.column_stack([centres[order].round(), order]).astype(np.uint32), names


def _grouped(places: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The group of each item, and the groups' middles, by k-means."""
    import faiss

    means = faiss.Kmeans(2, count, niter=20, nredo=3, seed=0, min_points_per_centroid=1)
    means.train(places)
    group = means.index.search(places, 1)[1].ravel()
    centres = np.stack([np.bincount(group, axis, count) for axis in places.T], axis=1)
    return group, centres / np.maximum(np.bincount(group, minlength=count), 1)[:, None]


def _steps(reach: int) -> np.ndarray:
    """From a cell to those within a reach in both directions, and to itself."""
    along = np.arange(-reach, reach + 1)
    return (along[:, None] * _COLUMNS + along).ravel()


def _at(cells: np.ndarray, sums: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The sums of other cells, 0 for one without items."""
    place = np.searchsorted(cells, wanted).clip(max=len(cells) - 1)
    return np.where((cells[place] == wanted)[:, None], sums[place], 0)
