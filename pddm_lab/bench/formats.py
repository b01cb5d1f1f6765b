"""What each format of a run's exported model costs and keeps: size, time, retrieval under the run's own protocols."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pddm_lab.bench.report import Log, processor
from pddm_lab.data.images import open_image
from pddm_lab.data.prepare import prepare, side_to_read
from pddm_lab.errors import DataError, RunError
from pddm_lab.export.engines import Graph, load_graph
from pddm_lab.export.graphs import Graphs
from pddm_lab.export.schema import EMBEDDING, ENDINGS, KINDS, SCORE
from pddm_lab.export.table import TORCH
from pddm_lab.export.write import make, run_pictures
from pddm_lab.gallery.gallery import Gallery
from pddm_lab.metrics.retrieval import rank
from pddm_lab.model.similarity import Similarity
from pddm_lab.runs.model import load_model
from pddm_lab.runs.run import Run

ROUNDS = 30
SHORTLIST = 100
_BATCH = 32
Kind = tuple[str, str]


class _Euclidean:
    name = "euclidean"

    def matrix(self, queries: Tensor, gallery: Tensor) -> Tensor:
        return -torch.cdist(queries, gallery)


class _Score(Similarity):
    """The similarity of an exported score, to rank shortlists."""

    def __init__(self, name: str, score: Graph) -> None:
        super().__init__()
        self.name, self._score = name, score

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        a, b = torch.broadcast_tensors(a, b)
        flat = (x.reshape(-1, x.shape[-1]).numpy() for x in (a, b))
        return torch.from_numpy(self._score(*flat)).view(a.shape[:-1])

    def _matrix(self, queries: Tensor, gallery: Tensor) -> Tensor:
        return self(queries[:, None], gallery)


def measure(run: Run, log: Log, most: int = 0) -> dict[str, Any]:
    """Measure torch in 32 bits and every format on a run's own galleries.

    Args:
        run: finished, with the pictures of its data set on this machine.
        log: called with what is about to be done.
        most: items of each gallery at most, whole classes chosen by a seed; 0: all.

    Returns:
        The content of formats.json.

    Raises:
        RunError: no model, no gallery, or a picture is missing.
    """
    torch.set_num_threads(1)
    config = run.config
    graphs = Graphs(load_model(run), config.similarity, config.image_size)
    kinds = [kind for kind in KINDS if kind[0] != "executorch" or find_spec("executorch")]
    with tempfile.TemporaryDirectory() as folder:
        log("tracing the model and writing each format")
        folders = {kind: made.folder for kind, made in make(run, graphs, kinds, Path(folder), lambda _: None)}
        embeddings, scores = _torch_graphs(graphs)
        for (engine, precision), place in folders.items():
            for name, target in ((EMBEDDING, embeddings), (SCORE, scores)):
                target[engine, precision] = load_graph(place / f"{name}{ENDINGS[engine][0]}", 1)
        sizes = {kind: sum(file.stat().st_size for file in place.iterdir()) for kind, place in folders.items()}
        sizes[TORCH, "32"] = 4 * graphs.parameters_count
        log("timing one picture on one core")
        milliseconds = _milliseconds(embeddings, run_pictures(run, ROUNDS))
        protocols: dict[Kind, dict[str, dict[str, float]]] = {kind: {} for kind in embeddings}
        for protocol in run.protocols():
            log(f"embedding and ranking the {protocol} gallery in {len(embeddings)} formats")
            for kind, values in _retrieval(run, protocol, embeddings, scores, most):
                protocols[kind][protocol] = values
    rows = [
        {"engine": kind[0], "precision": kind[1], "model_bytes": sizes[kind], "milliseconds": milliseconds[kind],
         "protocols": protocols[kind]}
        for kind in embeddings
    ]  # fmt: skip
    return {
        "format": 1, "measured": datetime.now(UTC).isoformat(timespec="seconds"), "processor": processor(),
        "similarity": config.similarity, "parameters": graphs.parameters_count, "rows": rows,
    }  # fmt: skip


def _torch_graphs(graphs: Graphs) -> tuple[dict[Kind, Graph], dict[Kind, Graph]]:
    def of(module: torch.nn.Module) -> Graph:
        def run(*arrays: np.ndarray) -> np.ndarray:
            with torch.inference_mode():
                return module(*(torch.from_numpy(np.ascontiguousarray(array)) for array in arrays)).numpy()

        return run

    return {(TORCH, "32"): of(graphs.embedding)}, {(TORCH, "32"): of(graphs.score)}


def _milliseconds(embeddings: dict[Kind, Graph], images: np.ndarray) -> dict[Kind, float]:
    """Median time of one picture; the formats take turns, so that other load slows all of them."""
    seconds: dict[Kind, list[float]] = {kind: [] for kind in embeddings}
    for image in np.resize(images, (ROUNDS, *images.shape[1:])):
        for kind, embed in embeddings.items():
            start = time.perf_counter()
            embed(image[None])
            seconds[kind].append(time.perf_counter() - start)
    return {kind: 1000 * statistics.median(values) for kind, values in seconds.items()}


def _retrieval(
    run: Run, protocol: str, embeddings: dict[Kind, Graph], scores: dict[Kind, Graph], most: int
) -> Iterator[tuple[Kind, dict[str, float]]]:
    gallery = run.gallery(protocol)
    rows = _whole_classes(gallery.items["label"].to_numpy(), most or len(gallery))
    features = _features(run, gallery, rows, embeddings)
    roles, labels = gallery.items["role"].to_numpy()[rows], gallery.items["label"].to_numpy()[rows]
    queries, searched = np.flatnonzero(roles != "gallery"), np.flatnonzero(roles != "query")
    one_set = bool((roles == "both").all())
    right: np.ndarray | None = None
    for kind, of_items in features.items():
        query, items = torch.from_numpy(of_items[queries]), torch.from_numpy(of_items[searched])
        sets = (query, items, labels[queries], labels[searched], one_set)
        by_distance = rank(_Euclidean(), *sets)
        by_score = rank(_Score(run.config.similarity, scores[kind]), *sets, shortlist=SHORTLIST)
        near = _top_ten(query, items, one_set)
        right = near if right is None else right  # torch comes first
        unchanged = np.mean([np.isin(a, b).mean() for a, b in zip(near, right, strict=True)])
        yield kind, {
            **{name: by_distance[name] for name in ("recall@1", "map@r")},
            **{f"score_{name}": by_score[name] for name in ("recall@1", "map@r")}, "unchanged@10": float(unchanged),
        }  # fmt: skip


def _whole_classes(labels: np.ndarray, most: int) -> np.ndarray:
    """Rows of so many items at most, whole classes chosen by a seed: an item alone of its class has no right answer."""
    classes, counts = np.unique(labels, return_counts=True)
    order = np.random.default_rng(0).permutation(len(classes))
    chosen = classes[order][np.cumsum(counts[order]) <= most]
    return np.flatnonzero(np.isin(labels, chosen))


def _features(
    run: Run, gallery: Gallery, rows: np.ndarray, embeddings: dict[Kind, Graph]
) -> dict[Kind, Float[np.ndarray, "items dim"]]:
    """Features of items in every format; each picture is read once."""
    root, config = Path(run.info["dataset"].get("root") or ".").resolve(), run.config
    parts: dict[Kind, list[np.ndarray]] = {kind: [] for kind in embeddings}
    for start in range(0, len(rows), _BATCH):
        images = []
        for item in gallery.items["id"].iloc[rows[start : start + _BATCH]]:
            file = (root / item).resolve()
            try:
                if not file.is_relative_to(root):
                    raise DataError(f"{item} is outside of the data set's folder.")
                images.append(prepare(open_image(file, side_to_read(config.resize)), config.resize, config.image_size))
            except DataError as error:
                raise RunError(f"The formats are compared on the run's own pictures: {error}") from error
        batch = np.stack(images)
        for kind, embed in embeddings.items():
            parts[kind].append(embed(batch))
    return {kind: np.concatenate(of) for kind, of in parts.items()}


def _top_ten(query: Tensor, items: Tensor, one_set: bool) -> np.ndarray:
    tops = []
    for start in range(0, len(query), 1024):
        distances = torch.cdist(query[start : start + 1024], items)
        if one_set:
            places = torch.arange(len(distances))
            distances[places, places + start] = torch.inf
        tops.append(distances.topk(min(10, len(items) - one_set), largest=False).indices)
    return torch.cat(tops).numpy()
