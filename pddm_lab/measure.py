"""From a trained model to a finished run: features of all items, both protocols measured, galleries and maps kept."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from pddm_lab.config import SIMILARITIES
from pddm_lab.data.dataset import Dataset, Protocol
from pddm_lab.errors import RunError
from pddm_lab.gallery.gallery import Gallery
from pddm_lab.gallery.umap_layout import start_map
from pddm_lab.metrics.retrieval import evaluate
from pddm_lab.metrics.separation import Distribution
from pddm_lab.model.embedding import LEARNED, MetricModel, learned_similarities
from pddm_lab.model.features import AUTOCAST, prepare, run_network
from pddm_lab.model.similarity import Similarity, make_similarity
from pddm_lab.model.trunks import fuse_batch_norms
from pddm_lab.progress import Bar, Progress
from pddm_lab.runs import Run

LONGEST_SHAPE = 50
"""Of a picture that is longer than this many times its width, the middle is looked at: the centred square is all that
the network sees."""


class Embedder:
    """Unit-length features of a data set's items by a model, from the frozen trunk's features where they are given.

    Args:
        dataset: the items.
        pooled: the frozen trunk's features of all items, on the device; None to run the images through the trunk.
        resize: shorter side before the centred crop, in pixels.
        size: side of the crop, in pixels.
        device: where to compute.
        precision: of the trunk; 32, bf16 or fp16.
        workers: processes that load images.
    """

    def __init__(
        self, dataset: Dataset, pooled: Float[Tensor, "items trunk_dim"] | None, *, resize: int, size: int,
        device: torch.device, precision: str, workers: int,
    ) -> None:  # fmt: skip
        self.dataset, self.pooled, self.device = dataset, pooled, device
        self._options = {"resize": resize, "size": size, "device": device, "precision": precision, "workers": workers}

    @torch.no_grad()
    def __call__(
        self, model: MetricModel, items: np.ndarray, progress: Progress | None = None
    ) -> Float[Tensor, "items dim"]:
        """Features of the items, on the device, in their order; leaves the model in evaluation mode."""
        model.eval()
        if self.pooled is not None:
            return model.embedding.project(self.pooled[torch.from_numpy(items).to(self.device)])
        paths = [self.dataset.path(item) for item in items]
        features = run_network(model.embedding, paths, progress=progress, what="embedding", **self._options)  # type: ignore[arg-type]
        return torch.from_numpy(features).to(self.device)


def finish(run: Run, model: MetricModel, embed: Embedder, bar: Bar) -> None:
    """Measure a model under every protocol of its data set, keep the galleries with their maps, and end the run."""
    protocols = [protocol for protocol in (embed.dataset.unseen, embed.dataset.known) if protocol]
    maps = start_map()  # its process loads UMAP while this one measures
    for protocol in protocols:
        maps.add(_measure(run, model, embed, protocol, bar))
    with bar("maps") as report:
        report(0, len(protocols), "maps")
        try:
            maps.wait()
        except RunError as error:  # a run without a map is still a run
            run.update(warnings=[str(error)])
        report(len(protocols), len(protocols), "maps")
    run.flush()
    run.update(status="finished", phase="done")


def _measure(run: Run, model: MetricModel, embed: Embedder, protocol: Protocol, bar: Bar) -> Path:
    """Measure one protocol and keep its gallery; returns the gallery's folder."""
    dataset, name = embed.dataset, protocol.name
    run.update(phase="evaluate")
    items = np.union1d(protocol.query, protocol.gallery)
    with bar(f"embed {name}") as report:
        features = embed(model, items, report)
    query, gallery = (torch.from_numpy(np.searchsorted(items, part)) for part in (protocol.query, protocol.gallery))
    distributions: dict[str, Distribution] = {}
    with bar(f"evaluate {name}") as report:
        for number, similarity in enumerate(SIMILARITIES):
            report(number, len(SIMILARITIES), "similarities")
            evaluation = evaluate(
                model.similarity(similarity), features[query], features[gallery], dataset.labels[protocol.query],
                dataset.labels[protocol.gallery], protocol.leave_one_out, nmi=similarity == "euclidean",
            )  # fmt: skip
            run.set_metrics(name, similarity, evaluation.metrics)
            run.log_metrics(int(run.info["step"]), "evaluate", name, similarity, evaluation.metrics)
            distributions[similarity] = evaluation.distribution
        report(len(SIMILARITIES), len(SIMILARITIES), "similarities")
    run.update(phase="gallery")
    in_query, in_gallery = np.isin(items, protocol.query), np.isin(items, protocol.gallery)
    labels = dataset.labels[items]
    frame = pd.DataFrame(
        {
            "id": np.array(dataset.ids, dtype=object)[items],
            "label": labels,
            "class_name": np.array(dataset.class_names, dtype=object)[labels],
            "role": np.where(in_query & in_gallery, "both", np.where(in_query, "query", "gallery")),
        }
    )
    path = run.path / "gallery" / name
    with bar(f"gallery {name}") as report:
        Gallery.write(
            path, name, features.cpu().numpy(), frame, lambda row: dataset.load(items[row]), distributions, report
        )
    return path


def load_model(run: Run) -> MetricModel:
    """A run's trained model, on the CPU, in evaluation mode.

    Raises:
        RunError: no model yet, or one of other shapes than its configuration says.
    """
    model = MetricModel(run.config, weights="none")
    try:
        model.load_state_dict(run.model_state())
    except RuntimeError as error:
        raise RunError(f"model.safetensors of {run.name} doesn't fit its configuration: {error}") from error
    return model.eval()


def load_similarities(run: Run) -> dict[str, Similarity]:
    """A run's similarities by name, without its trunk and head: all it takes to score stored features.

    On the CPU, in evaluation mode.

    Raises:
        RunError: no model yet, or one of other shapes than its configuration says.
    """
    learned, prefix = learned_similarities(run.config), "learned."
    state = {name.removeprefix(prefix): tensor for name, tensor in run.model_state().items() if name.startswith(prefix)}
    try:
        learned.load_state_dict(state)
    except RuntimeError as error:
        raise RunError(f"model.safetensors of {run.name} doesn't fit its configuration: {error}") from error
    learned.eval().requires_grad_(False)
    return {
        name: learned[name] if name in LEARNED else make_similarity(name, run.config.dim)  # type: ignore[misc]
        for name in SIMILARITIES
    }


class ImageEmbedder:
    """A picture to its feature as the run's galleries were made, so that an item's own picture lies on the item.

    Args:
        run: gives the size of the pictures and the precision they were embedded in.
        model: of the run, on the CPU, in evaluation mode; left as it is.
    """

    def __init__(self, run: Run, model: MetricModel) -> None:
        self._network = copy.copy(model.embedding)
        self._network._modules = dict(self._network._modules)
        if run.config.freeze_trunk:  # a frozen trunk's features are computed with its batch norms fused
            self._network.trunk = fuse_batch_norms(self._network.trunk)
        self._precision = AUTOCAST.get(run.info["precision"] if run.info["device"] == "cpu" else "32")
        self._resize, self._size = run.config.resize, run.config.image_size

    @torch.inference_mode()
    def __call__(self, image: Image.Image) -> Float[np.ndarray, " dim"]:
        """The unit-length feature of an RGB picture, (dim,) float32."""
        longest = LONGEST_SHAPE * min(image.size)
        if max(image.size) > longest:  # scaled up to the network's size, a long strip would fill the memory
            left, top = (max(0, side - longest) // 2 for side in image.size)
            image = image.crop((left, top, image.width - left, image.height - top))
        with torch.autocast("cpu", self._precision, enabled=self._precision is not None):
            return self._network(prepare(image, self._resize, self._size)[None])[0].float().numpy()


def paths_of(dataset: Dataset) -> list[Path]:
    """The files of all items."""
    return [dataset.path(item) for item in range(len(dataset))]
