"""R@1 against the angle between the query and the nearest view of its thing in the gallery: fruits360's turntable.

Each variety has a turn of views about up to three axes. From each turn one view is the query. The gallery has the views
of the same turn that are at least so many degrees away, of every variety alike, so that a similarity on local structure
sees no nearer view either. Only the varieties that fruits360 keeps for tests are used. A run of another data set is
measured on things that it never met.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float

from pddm_lab.data.sources import fruits360
from pddm_lab.files import replacing, writing
from pddm_lab.progress import Progress
from pddm_lab.robustness.cells import FOLDER, VIEWPOINT
from pddm_lab.robustness.pictures import Pictures
from pddm_lab.robustness.sample import Sample, draw_pairs
from pddm_lab.robustness.scoring import Embedding, Ranking
from pddm_lab.runs.run import Run

ANGLES = (15, 30, 45, 60, 90, 120, 150, 180)
"""Degrees."""
ROUNDS = 4
"""Queries of each turn, evenly spaced."""


def measure_viewpoint(
    run: Run, data_root: Path, rounds: int = ROUNDS, processes: int = 0, progress: Progress | None = None
) -> pd.DataFrame:  # fmt: skip
    """Rank views of things that were turned; the outcomes are kept with the run.

    Args:
        run: finished.
        data_root: folder that holds Fruits-360.
        rounds: queries of each turn.
        processes: as for `Pictures.read`.
        progress: called with (pictures or rankings done, to do, what).

    Returns:
        A row a query, angle and similarity: angle, similarity, query, label, hit.

    Raises:
        DataError: the data set is missing.
        RunError: the run has no model, or its folder can't be written.
    """
    listing = fruits360.list_items(data_root)
    kept = np.flatnonzero(~listing.trains[listing.labels])
    ids, labels = [listing.ids[item] for item in kept], listing.labels[kept]
    turns = [turn.index.to_numpy() for _, turn in pd.Series(ids).groupby([fruits360.turn_of(item) for item in ids])]
    embedding = Embedding(run)
    paths = [listing.root / item for item in ids]
    with Pictures.read(paths, ids, embedding.network, processes, progress) as pictures:
        every = embedding.of(pictures, np.arange(len(ids)), "clean", 0, progress)
    ranking, rows = Ranking.of(run), []
    groups = list(_groups(turns, labels, rounds))
    for done, (angle, query, searched) in enumerate(groups):
        pairs = draw_pairs(labels[query], labels[searched], np.random.default_rng(done))
        sample = Sample(ids, paths, labels, query, searched, pairs)
        for name, hits, _, _ in ranking.outcomes(sample, every.of(query), every.of(searched)):
            of_queries = {"query": [ids[row] for row in query], "label": labels[query].astype(np.int32), "hit": hits}
            rows.append(pd.DataFrame({"angle": np.int32(angle), "similarity": name} | of_queries))
        if progress:
            progress(done + 1, len(groups), "ranking views")
    table = pd.concat(rows, ignore_index=True)
    folder = run.path / FOLDER
    with writing(folder):
        folder.mkdir(exist_ok=True)
    with replacing(folder / VIEWPOINT) as temporary:
        table.to_parquet(temporary, index=False)
    return table


def angles_to(place: int, views: int) -> Float[np.ndarray, " views"]:
    """Degrees between one of the views of a closed turn, evenly spaced, and each of them."""
    steps = np.abs(np.arange(views) - place)
    return np.minimum(steps, views - steps) * (360 / views)


def _groups(turns: list[np.ndarray], labels: np.ndarray, rounds: int) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Angle, queries and searched items: in each round and for each axis, a turn of every variety."""
    of_variety: dict[int, list[np.ndarray]] = {}
    for turn in turns:
        of_variety.setdefault(int(labels[turn[0]]), []).append(turn)
    axes = max(map(len, of_variety.values()))
    for angle in ANGLES:
        for number in range(rounds):
            for axis in range(axes):
                chosen = [own[axis % len(own)] for own in of_variety.values()]
                places = [len(turn) * number // rounds for turn in chosen]
                far = [
                    turn[angles_to(place, len(turn)) >= angle - 180 / len(turn)]  # half a step nearer is this angle too
                    for turn, place in zip(chosen, places, strict=True)
                ]
                query = np.array([turn[place] for turn, place in zip(chosen, places, strict=True)])
                order = np.argsort(query)
                yield angle, query[order], np.sort(np.concatenate(far))
