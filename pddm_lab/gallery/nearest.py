"""What finds the nearest items of a large gallery in the space of local structure.

Comparing all of a million items with each other would take hours. An inverted file (index.py) returns nearly all of the
nearest in a small part of it. Their cosines are computed anew, since it keeps features in half precision, and lists
compare cosines of items with those of queries.
"""

from __future__ import annotations

from pathlib import Path
from threading import Lock

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pddm_lab.gallery.index import Index
from pddm_lab.gallery.store import Contents, IndexChoice
from pddm_lab.local.neighbourhoods import Search

_AT_ONCE = 1 << 22  # values at a time: 16 MB


def searching(z: Float[Tensor, "items dim"], choice: IndexChoice | None = None) -> Search | None:
    """What finds nearest items, with an index that is built at the first search.

    Args:
        z: of all items, of unit length; may be memory-mapped.
        choice: of the index; None: as $PDDM_LAB_INDEX says, or by the number of items.

    Returns:
        None where each query is compared with all.
    """
    choice = choice or IndexChoice.of()
    if choice.flat(len(z)):
        return None
    lock, built = Lock(), list[Index]()

    def search(queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        with lock:
            if not built:
                built.append(Index.of(Contents(Path(), {}, z.numpy(), np.arange(len(z))), choice))
        rows = torch.from_numpy(built[0].search(np.ascontiguousarray(queries.numpy()), k)[1])
        step = max(_AT_ONCE // (k * z.shape[1]), 1)
        cosines = torch.cat([
            torch.einsum("qd,qkd->qk", part, z[near])
            for part, near in zip(queries.split(step), rows.split(step), strict=True)
        ])  # fmt: skip
        cosines, order = cosines.sort(dim=1, descending=True, stable=True)
        return cosines, rows.gather(1, order)

    return search
