"""Feature spaces to compare on any images: a trained model's embedding, and the features of its pretrained trunk.

A space is computed once for a list of files. Nothing is trained here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from pddm_lab.config import TrainConfig, runs_root
from pddm_lab.gallery.gallery import Gallery
from pddm_lab.gallery.pictures import file_in
from pddm_lab.model.embedding import MetricModel, signed_power
from pddm_lab.model.engine import Engine
from pddm_lab.model.features import file_features, trunk_features
from pddm_lab.model.similarity import Euclidean, Similarity
from pddm_lab.model.trunks import Trunk, load_trunk
from pddm_lab.progress import Progress
from pddm_lab.runs.model import load_model, load_similarities
from pddm_lab.runs.run import Run
from pddm_lab.similarities import PRETRAINED, SIMILARITIES
from pddm_lab.training.loop import resolve_device


@dataclass(frozen=True, eq=False)
class Space:
    """Features of some items, and the similarities that can rank them."""

    name: str
    features: Float[Tensor, "items dim"]
    """Unit length, on the similarities' device."""
    similarities: Mapping[str, Similarity]


def pooled_features(
    config: TrainConfig, paths: Sequence[Path], progress: Progress | None = None, view: int = 0,
    trunk: Trunk | None = None,
) -> Float[Tensor, "items trunk_dim"]:  # fmt: skip
    """A frozen trunk's features of files, computed once per file content and cached next to the runs.

    Args:
        config: names the trunk, its weights and the size of the pictures.
        progress: called as files are done.
        view: 0 for the centred crop; 1, 2, ... for random crops.
        trunk: to use instead of the one that `config` names.

    Raises:
        DataError: a file can't be read.
        ConfigError: the trunk or its weights are unavailable.
    """
    frozen = dataclasses.replace(config, freeze_trunk=True)
    engine = _engine(trunk or load_trunk(config.trunk, config.weights), frozen)
    folder = runs_root(config.runs_root) / ".features"
    views = {view: range(len(paths))}
    features = trunk_features(engine, paths, folder, resize=config.resize, progress=progress, views=views)[view]
    return torch.from_numpy(features).to(engine.device)


def pretrained_space(config: TrainConfig, paths: Sequence[Path], progress: Progress | None = None) -> Space:
    """The space before any training: the trunk's pooled features after `signed_power`, as the embedding takes them."""
    pooled = pooled_features(config, paths, progress)
    features = F.normalize(signed_power(pooled, config.pool_power), dim=1)
    return Space(PRETRAINED, features, {"euclidean": Euclidean()})


def run_space(run: Run, paths: Sequence[Path], progress: Progress | None = None) -> Space:
    """A run's model applied to any files.

    Raises:
        RunError: the run has no model yet.
        DataError: a file can't be read.
    """
    return model_space(run.name, load_model(run), run.config, paths, progress)


@torch.no_grad()
def model_space(
    name: str, model: MetricModel, config: TrainConfig, paths: Sequence[Path], progress: Progress | None = None
) -> Space:
    """A model applied to any files.

    Args:
        model: moved to this machine's device and left in evaluation mode.
        config: that it was trained with.
        progress: called as files are done.
    """
    model = model.to(_device(config)[0]).eval().requires_grad_(False)
    if config.freeze_trunk:
        pooled = pooled_features(config, paths, progress, trunk=model.embedding.trunk)
    else:
        engine = _engine(model.embedding.trunk, config)
        outputs = file_features(engine, paths, resize=config.resize, progress=progress)
        pooled = torch.from_numpy(outputs).to(engine.device)
    features = model.embedding.project(pooled)
    return Space(name, features, {each: model.similarity(each) for each in SIMILARITIES})


def gallery_spaces(run: Run, gallery: Gallery, progress: Progress | None = None) -> list[Space]:
    """The spaces of a gallery's items: pretrained if all their pictures are on this machine, then the run's own.

    Imported features have no pretrained ones before them.

    Raises:
        RunError: the run has no model.
    """
    similarities = load_similarities(run)
    own = Space(run.name, torch.from_numpy(np.array(gallery.features)), similarities)
    files = [file_in(gallery, row, run.info["dataset"]["root"]) for row in range(len(gallery.items))]
    paths = [file for file in files if file and file.is_file()]
    if len(paths) < len(files) or run.config.is_imported:
        return [own]
    before = pretrained_space(run.config, paths, progress)
    return [dataclasses.replace(before, features=before.features.cpu()), own]


def _engine(trunk: Trunk, config: TrainConfig) -> Engine:
    device, precision = _device(config)
    return Engine(trunk, size=config.image_size, device=device, precision=precision)


def _device(config: TrainConfig) -> tuple[torch.device, str]:
    """Device and precision of this machine, since the run may have been trained on another one."""
    return resolve_device(dataclasses.replace(config, device="auto", precision="auto"))
