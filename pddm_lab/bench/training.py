"""What a training step costs compared with a library's, what loading adds, and how long the lab takes to start."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pddm_lab.bench.report import Log, Measure
from pddm_lab.bench.synthetic import draw_photos
from pddm_lab.bench.timing import clustered, fastest, wait
from pddm_lab.config import PRESETS, Device, TrainConfig
from pddm_lab.data.prepare import prepare
from pddm_lab.model.embedding import MetricModel
from pddm_lab.model.engine import Engine
from pddm_lab.model.features import INFERENCE_BATCH, ImageFiles, file_features, image_loader, in_threads
from pddm_lab.training.loop import resolve_device
from pddm_lab.training.objectives import Objective

BATCH = 64
HEAVY = ("streamlit", "umap", "plotly", "torch", "faiss")
"""Packages that importing the lab must not import."""


def measure(images: int, device: Device, log: Log) -> list[Measure]:
    """Measure on generated pictures.

    Args:
        images: picture files to extract features of.
        device: auto, cpu or cuda.
    """
    quick, finetune = (replace(PRESETS[name], device=device) for name in ("quick", "finetune"))
    log("steps on a frozen trunk's features")
    measures = _steps(quick)
    with tempfile.TemporaryDirectory() as folder:
        log(f"{images:,} pictures")
        paths = draw_photos(Path(folder), images)
        log("extracting features")
        measures.append(_extraction(quick, paths))
        log("fine-tuning")
        measures.append(_loading(finetune, paths))
    log("starting")
    return [*measures, *_start()]


def _steps(config: TrainConfig) -> list[Measure]:
    """A step of PDDM's objective beside triplets mined by distance, on one head each, all with the same optimiser."""
    from pytorch_metric_learning.losses import TripletMarginLoss
    from pytorch_metric_learning.miners import BatchHardMiner

    device, _ = resolve_device(config)
    labels = clustered(BATCH, 4, 1.0)[1].to(device)

    def lab(*companions: str) -> Callable[[], object]:
        model = MetricModel(config, weights="none").to(device)
        objective = Objective(model, config, BATCH // 4, companions)
        pooled = torch.rand(BATCH, model.embedding.trunk.dim, device=device)
        return _step([*model.embedding.head.parameters(), *model.learned.parameters()],
                     lambda: objective(pooled, labels).loss)  # fmt: skip

    def library() -> Callable[[], object]:
        embedding = MetricModel(config, weights="none").embedding.to(device)
        pooled = torch.rand(BATCH, embedding.trunk.dim, device=device)
        hardest, loss = BatchHardMiner(), TripletMarginLoss()

        def triplets() -> Tensor:
            features = embedding.project(pooled)
            return loss(features, labels, hardest(features, labels))

        return _step([*embedding.head.parameters()], triplets)

    seconds = fastest({"PDDM": lab(), "PDDM and Mahalanobis": lab("mahalanobis"), "library": library()}, rounds=50)
    return [
        Measure(
            f"step of {name} / triplet loss with BatchHardMiner", seconds[name] / seconds["library"], "x", target,
            f"batch {BATCH}, {1000 * seconds[name]:.1f} against {1000 * seconds['library']:.1f} ms",
        )
        for name, target in (("PDDM", 1.5), ("PDDM and Mahalanobis", None))
    ]  # fmt: skip


def _step(parameters: list[torch.nn.Parameter], loss: Callable[[], Tensor]) -> Callable[[], object]:
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, fused=True)

    def step() -> None:
        loss().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def _extraction(config: TrainConfig, paths: list[Path]) -> Measure:
    """Images per second from files, compared with the engine on images in memory, called by as many threads."""
    device, precision = resolve_device(config)
    trunk = MetricModel(config, weights="none").embedding.trunk
    engine = Engine(trunk, size=config.image_size, device=device, precision=precision)
    with Image.open(paths[0]) as image:
        pixels = prepare(image.convert("RGB"), config.resize, config.image_size)
    ready, batches = np.stack([pixels] * INFERENCE_BATCH), len(paths) // INFERENCE_BATCH
    engine.start()

    def bare() -> None:
        for _ in in_threads(engine, [ready] * batches, engine.threads):
            pass

    seconds = fastest({"bare": bare, "files": lambda: file_features(engine, paths, resize=config.resize)}, rounds=3)
    rates = {"bare": batches * INFERENCE_BATCH / seconds["bare"], "files": len(paths) / seconds["files"]}
    over = f"{rates['files']:.0f} of {rates['bare']:.0f} images/s, {config.image_size} px, {engine.name}, {precision}"
    return Measure("feature extraction / bare trunk", 100 * rates["files"] / rates["bare"], "%", None, over, True)


def _loading(config: TrainConfig, paths: list[Path], steps: int = 8) -> Measure:
    """How long a step of fine-tuning waits for its images."""
    device, _ = resolve_device(config)
    model = MetricModel(config, weights="none").train().to(device)
    objective = Objective(model, config, BATCH // 4)
    labels = clustered(BATCH, 4, 1.0)[1].to(device)

    def step(images: Tensor) -> None:
        objective(images.to(device), labels).loss.backward()
        model.zero_grad(set_to_none=True)
        wait()

    files = ImageFiles(paths, config.resize, config.image_size)
    keys = [[(number, item, item % len(paths)) for item in range(BATCH)] for number in range(steps + 3)]
    waited = worked = 0.0
    before = time.perf_counter()
    for number, images in enumerate(image_loader(files, keys, config.workers, device)):
        ready = time.perf_counter()
        step(images)
        done = time.perf_counter()
        if number >= 3:  # the first batches wait for the workers to start
            waited, worked = waited + ready - before, worked + done - ready
        before = done
    over = f"batch {BATCH}, {config.image_size} px, {1000 * (waited + worked) / steps:.0f} ms a step"
    return Measure("fine-tuning step: share of waiting for images", 100 * waited / (waited + worked), "%", 5, over)


def _start() -> list[Measure]:
    seconds = fastest(
        {"help": lambda: subprocess.run([sys.executable, "-m", "pddm_lab.cli", "--help"], capture_output=True)}, 5
    )["help"]
    code = f"import sys, pddm_lab; print(sum(name in sys.modules for name in {HEAVY!r}))"
    imported = int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    return [
        Measure("pddm-lab --help", seconds, "s", 0.5, "best of 5"),
        Measure(f"of {', '.join(HEAVY)} imported by import pddm_lab", imported, "", 0),
    ]
