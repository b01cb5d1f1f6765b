"""From a trained model to a finished run: embed all items, evaluate both protocols, write galleries and maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from pddm_lab.config import TrainConfig
from pddm_lab.data.dataset import Dataset, Protocol
from pddm_lab.data.images import open_image
from pddm_lab.errors import DataError, RunError
from pddm_lab.gallery.files import THUMB_SIDE, thumbnail, write_files
from pddm_lab.gallery.gallery import Gallery
from pddm_lab.gallery.schema import METADATA
from pddm_lab.gallery.umap_layout import MapDrawing, start_map
from pddm_lab.gallery.upkeep import keep_up
from pddm_lab.metrics.retrieval import evaluate
from pddm_lab.metrics.separation import Distribution
from pddm_lab.model.embedding import MetricModel, signed_power
from pddm_lab.model.engine import Engine
from pddm_lab.model.features import file_features, trunk_features
from pddm_lab.model.similarity import Euclidean
from pddm_lab.model.trunks import load_trunk
from pddm_lab.progress import Bar, Progress
from pddm_lab.runs.local import RunLocal, load_local
from pddm_lab.runs.run import Run
from pddm_lab.runs.versions import model_stamp
from pddm_lab.similarities import IN_GALLERY, SIMILARITIES
from pddm_lab.training.local_evaluation import Sides, evaluate_local

MOST_NAMED = 20_000
"""Items without pictures whose thumbnails show their ids."""
MOST_QUERIES = 2_000
"""Imported items that are searched among all the others to measure; of more, a sample."""
MOST_CLUSTERED = 20_000
"""Items that are clustered for NMI."""


class Embedder:
    """Computes unit-length features of a data set's items with a model.

    Args:
        dataset: the items.
        pooled: the frozen trunk's features of all items, on the device; None: run the images through the model's trunk.
        engine: that computed them, or whose choices are used for the model's trunk.
        resize: shorter side before the centred crop, in pixels.
    """

    def __init__(
        self, dataset: Dataset, pooled: Float[Tensor, "items trunk_dim"] | None, engine: Engine, resize: int
    ) -> None:
        self.dataset, self.pooled, self.engine, self.resize = dataset, pooled, engine, resize

    @torch.no_grad()
    def __call__(
        self, model: MetricModel, items: np.ndarray, progress: Progress | None = None
    ) -> Float[Tensor, "items dim"]:
        """Features of the items, in order, on the device; puts the model into evaluation mode."""
        model.eval()
        device = self.engine.device
        if self.pooled is not None:
            return model.embedding.project(self.pooled[torch.from_numpy(items).to(device)])
        self.engine = self.engine.of(model.embedding.trunk)
        paths = [self.dataset.path(item) for item in items]
        pooled = file_features(self.engine, paths, resize=self.resize, progress=progress)
        return model.embedding.project(torch.from_numpy(pooled).to(device))

    def pooled_before_training(
        self, config: TrainConfig, items: np.ndarray, cache: Path, progress: Progress | None = None
    ) -> Float[Tensor, "items trunk_dim"]:
        """Pooled features of the items by the trunk with the weights that the training started from, on the device.

        Args:
            config: names the trunk, its weights, and the seed of random ones.
            items: in order.
            cache: folder for the features of a trunk that was trained.
            progress: called as images are done.
        """
        if self.pooled is not None:
            return self.pooled[torch.from_numpy(items).to(self.engine.device)]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            engine = self.engine.of(load_trunk(config.trunk, config.weights))
        paths = [self.dataset.path(item) for item in items]
        pooled = trunk_features(engine, paths, cache, resize=self.resize, progress=progress)[0]
        return torch.from_numpy(pooled).to(engine.device)


def loading_maps() -> MapDrawing:
    """For `finish`: a process that loads UMAP while a head trains, which keeps one core busy."""
    return start_map()


def finish(
    run: Run, model: MetricModel, embed: Embedder, bar: Bar, maps: MapDrawing | None, measured: Callable[[], None]
) -> None:  # fmt: skip
    """Evaluate a model under each protocol, write the galleries with their maps, and mark the run as finished.

    `measured` is called once the metrics are known.
    """
    protocols = [protocol for protocol in (embed.dataset.unseen, embed.dataset.known) if protocol]
    maps = maps or start_map()
    # A map is drawn while thumbnails are made: an evaluation takes all cores, and waits for the slowest of them.
    local = load_local(run)
    evaluated = [_evaluate_protocol(run, model, embed, protocol, local, bar) for protocol in protocols]
    measured()
    if not run.config.is_imported:
        _evaluate_pretrained(run, embed, protocols, bar)
    written: list[Gallery] = []
    for write_gallery in evaluated:
        written.append(write_gallery(written))
        maps.add(written[-1].path)
    if catalogue := embed.dataset.catalogue:
        embedded = _embedded(model, embed, catalogue, local, bar)
        maps.add(_write_gallery(run, embed, catalogue, embedded, {}, local, bar, written).path)
    if run.config.is_imported:  # its pages are open while the maps of many items are drawn
        run.flush()
        run.update(status="finished", phase="done")
    else:
        run.update(engine=embed.engine.facts)
    with bar("maps") as report:
        count = len(protocols) + (catalogue is not None)
        report(0, count, "maps")
        try:
            maps.wait()
        except RunError as error:  # a run can do without a map
            run.update(warnings=list(dict.fromkeys([*run.info.get("warnings", ()), str(error)])))
        report(count, count, "maps")
    run.flush()
    run.update(status="finished", phase="done")


def _evaluate_protocol(
    run: Run, model: MetricModel, embed: Embedder, protocol: Protocol, local: RunLocal | None, bar: Bar
) -> Callable[[Sequence[Gallery]], Gallery]:
    """Evaluate one protocol; returns what writes its gallery, given those that are written."""
    dataset, name = embed.dataset, protocol.name
    run.update(phase="evaluate")
    items, features, pretrained = embedded = _embedded(model, embed, protocol, local, bar)
    asked, searched = _sampled(run, protocol)
    query, gallery = (torch.from_numpy(np.searchsorted(items, part)) for part in (asked, searched))
    distributions: dict[str, Distribution] = {}
    measured = measured_similarities(run)
    with bar(f"evaluate {name}") as report:
        for number, similarity in enumerate(measured):
            report(number, len(measured), "similarities")
            evaluation = evaluate(
                model.similarity(similarity), features[query], features[gallery], dataset.labels[asked],
                dataset.labels[searched], protocol.leave_one_out,
                nmi=similarity == "euclidean" and len(items) <= MOST_CLUSTERED,
            )  # fmt: skip
            run.set_metrics(name, similarity, evaluation.metrics)
            run.log_metrics(int(run.info["step"]), "evaluate", name, similarity, evaluation.metrics)
            distributions[similarity] = evaluation.distribution
        report(len(measured), len(measured), "similarities")
    if local is not None:
        with bar(f"local structure {name}") as report:
            sides = Sides(
                features.cpu(), pretrained, torch.from_numpy(dataset.labels[items]), query, gallery,
                protocol.leave_one_out,
            )  # fmt: skip
            report(0, len(IN_GALLERY), "similarities")
            for number, (similarity, evaluation) in enumerate(evaluate_local(local, sides), 1):
                run.set_metrics(name, similarity, evaluation.metrics)
                run.log_metrics(int(run.info["step"]), "evaluate", name, similarity, evaluation.metrics)
                distributions[similarity] = evaluation.distribution
                report(number, len(IN_GALLERY), "similarities")

    return lambda written: _write_gallery(run, embed, protocol, embedded, distributions, local, bar, written)


class _Embedded(NamedTuple):
    """The items of a gallery with what it stores of each."""

    items: Int[np.ndarray, " items"]
    features: Float[Tensor, "items dim"]
    pretrained: Float[Tensor, "items pretrained"] | None


def _embedded(model: MetricModel, embed: Embedder, protocol: Protocol, local: RunLocal | None, bar: Bar) -> _Embedded:
    items, pretrained = np.union1d(protocol.query, protocol.gallery), None
    with bar(f"embed {protocol.name}") as report:
        features = embed(model, items, report)
    if local is not None and embed.pooled is not None:
        pretrained = local.pretrained(embed.pooled[torch.from_numpy(items).to(embed.pooled.device)])
    return _Embedded(items, features, pretrained)


def _write_gallery(
    run: Run, embed: Embedder, protocol: Protocol, embedded: _Embedded, distributions: dict[str, Distribution],
    local: RunLocal | None, bar: Bar, written: Sequence[Gallery],
) -> Gallery:  # fmt: skip
    """Write a gallery; thumbnails that another one has are taken from there."""
    dataset = embed.dataset
    rows = {item: (gallery, row) for gallery in written for row, item in enumerate(gallery.items["id"])}

    def thumb(row: int) -> bytes:
        item = embedded.items[row]
        if dataset.ids[item] in rows:
            gallery, other = rows[dataset.ids[item]]
            return gallery.thumb(other)
        try:
            return thumbnail(open_image(dataset.path(item), 2 * THUMB_SIDE))
        except DataError:
            if not run.config.is_imported:
                raise
            # Its feature is all there is. Of very many, drawing the names would take most of an import's time.
            return thumbnail(no_picture(dataset.ids[item] if len(embedded.items) <= MOST_NAMED else ""))

    run.update(phase="gallery")
    path = run.path / "gallery" / protocol.name
    with bar(f"gallery {protocol.name}") as report:
        write_files(
            path, protocol.name, embedded.features.cpu().numpy(), item_table(dataset, protocol), thumb, distributions,
            report, pretrained=None if embedded.pretrained is None else embedded.pretrained.numpy(),
            model=model_stamp(run.path),
        )  # fmt: skip
        gallery = Gallery.open(path)
        return gallery if local is None else keep_up(gallery, local.structure, report)


def _sampled(run: Run, protocol: Protocol) -> tuple[np.ndarray, np.ndarray]:
    """Queries and gallery; of very many imported items a sample is searched, which the gallery then begins with."""
    if not (run.config.is_imported and protocol.leave_one_out and len(protocol.query) > MOST_QUERIES):
        return protocol.query, protocol.gallery
    rng = np.random.default_rng(run.config.seed)
    queries = np.sort(rng.choice(protocol.query, MOST_QUERIES, replace=False))
    if run.is_labelled:
        text = f"R@1 and MAP@R are of {MOST_QUERIES:,} of {len(protocol.query):,} queries, chosen at random."
        run.update(warnings=list(dict.fromkeys([*run.info.get("warnings", ()), text])))
    return queries, np.concatenate([queries, np.setdiff1d(protocol.gallery, queries)])


def measured_similarities(run: Run) -> tuple[str, ...]:
    """The similarities that are worth a measurement: without training S and D_M rank like D."""
    if not run.is_labelled:
        return ()
    return tuple(name for name, spec in SIMILARITIES.items() if name in run.learned or not spec.is_learned)


@lru_cache(maxsize=1)  # many may have no name
def no_picture(item: str) -> Image.Image:
    """What stands for a picture that an item doesn't have: the end of its id."""
    image = Image.new("RGB", (THUMB_SIDE, THUMB_SIDE), "#E3E6EB")
    lines = [item[-48:][start : start + 12] for start in range(0, len(item[-48:]), 12)]
    ImageDraw.Draw(image).multiline_text((6, 40), "\n".join(lines), "#3A4250", ImageFont.load_default(12))
    return image


def _evaluate_pretrained(run: Run, embed: Embedder, protocols: list[Protocol], bar: Bar) -> None:
    """Evaluate the trunk's own features before training, by D under each protocol: what the training is compared with.

    They are the head's inputs, at unit length.
    """
    labels, measured = embed.dataset.labels, {}
    items = np.unique(np.concatenate([part for one in protocols for part in (one.query, one.gallery)]))
    with bar("pretrained features") as report:
        cache = run.path.parent / ".features"
        features = signed_power(embed.pooled_before_training(run.config, items, cache, report), run.config.pool_power)
        features = F.normalize(features, dim=1)
        for number, protocol in enumerate(protocols):
            report(number, len(protocols), "pretrained features")
            query, gallery = (features[np.searchsorted(items, part)] for part in (protocol.query, protocol.gallery))
            measured[protocol.name] = evaluate(
                Euclidean(), query, gallery, labels[protocol.query], labels[protocol.gallery], protocol.leave_one_out
            ).metrics
        report(len(protocols), len(protocols), "pretrained features")
    run.update(pretrained=measured)


def item_table(dataset: Dataset, protocol: Protocol) -> pd.DataFrame:
    """The items of a protocol as a gallery lists them: id, label, class_name, role, metadata."""
    items = np.union1d(protocol.query, protocol.gallery)
    in_query, in_gallery = np.isin(items, protocol.query), np.isin(items, protocol.gallery)
    labels = dataset.labels[items]
    columns = {
        "id": np.array(dataset.ids, dtype=object)[items], "label": labels,
        "class_name": np.array(dataset.class_names, dtype=object)[labels],
        "role": np.where(in_query & in_gallery, "both", np.where(in_query, "query", "gallery")),
    }  # fmt: skip
    metadata = {METADATA + name: np.array(texts, dtype=object)[items] for name, texts in dataset.metadata.items()}
    return pd.DataFrame(columns | metadata)


def paths_of(dataset: Dataset) -> list[Path]:
    """The image files of all items."""
    return [dataset.path(item) for item in range(len(dataset))]
