"""Train a preset for some seconds on real pictures: the loss curve, images per second, and a bf16 product beside it.

`finetune` and `paper` train at their full size; `--small` is for rehearsals without a GPU.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import time
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch.utils.flop_counter import FlopCounterMode

from pddm_lab.bench.timing import fastest, wait
from pddm_lab.config import TrainConfig
from pddm_lab.errors import ConfigError
from pddm_lab.model.embedding import MetricModel
from pddm_lab.training.finish import paths_of
from pddm_lab.training.loop import Loop, dataset_of, image_inputs, resolve_device
from pddm_lab.training.phases import FABRIC_PRECISION

SMALL = {"image_size": 32, "resize": 32, "classes_per_batch": 4, "workers": 0}
"""Choices of a rehearsal."""
PARTS = 10
"""Numbers of a printed loss curve."""


def model_of(config: TrainConfig) -> MetricModel:
    """A new model, with random weights where ImageNet's can't be had: a machine without a network."""
    torch.manual_seed(config.seed)
    try:
        return MetricModel(config)
    except ConfigError as reason:
        print(f"Random weights instead: {reason}")
        return MetricModel(config, weights="none")


def main() -> None:
    """Train, print, and write step, seconds and loss as CSV."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("preset")
    parser.add_argument("dataset")
    parser.add_argument("--seconds", type=float, default=75)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--small", action="store_true")
    given = parser.parse_args()
    choices = {"preset": given.preset, "dataset": given.dataset, "device": os.environ.get("PDDM_LAB_DEVICE", "auto")}
    config = TrainConfig.from_parameters(choices | (SMALL if given.small else {}))
    device, precision = resolve_device(config)
    dataset = dataset_of(config, given.out.parent)
    fabric = Fabric(accelerator=device.type, devices=1, precision=FABRIC_PRECISION[precision])  # type: ignore[arg-type]
    inputs = image_inputs(paths_of(dataset), config, device)
    loop = Loop(model_of(config).to(device), config, dataset.labels, dataset.train, inputs, fabric=fabric)
    with FlopCounterMode(display=False) as flops:  # starts the workers, too
        loop.take_step()
    wait()
    rows, start = [], time.perf_counter()
    while loop.step < config.steps and time.perf_counter() - start < given.seconds:
        loss = float(loop.take_step().terms["loss"])
        rows.append((loop.step, time.perf_counter() - start, loss))
    with given.out.open("w", newline="") as file:
        csv.writer(file).writerows([("step", "seconds", "loss"), *rows])
    report(config, rows, precision, flops.get_total_flops(), device)


def report(
    config: TrainConfig, rows: list[tuple[int, float, float]], precision: str, flops: int, device: torch.device
) -> None:
    """Print the curve and the rates; end with an error if it had the steps to fall and didn't."""
    batch, seconds = config.classes_per_batch * config.images_per_class, rows[-1][1] / len(rows)
    losses = [loss for _, _, loss in rows]
    size = max(len(losses) // PARTS, 1)
    curve = [statistics.mean(losses[at : at + size]) for at in range(0, len(losses) - size + 1, size)]
    square = torch.randn((8192, 8192) if device.type == "cuda" else (1024, 1024), device=device, dtype=torch.bfloat16)
    product = 2 * len(square) ** 3 / fastest({"product": lambda: square @ square})["product"]
    print(f"{config.preset}: {len(rows)} steps of {batch} images of {config.image_size} px in {precision}, {device}")
    print("loss:", *(f"{value:.3f}" for value in curve))
    print(f"{batch / seconds:.0f} images/s, {1000 * seconds:.0f} ms a step", end=", ")
    print(f"{flops / seconds / 1e12:.2f} TFLOP/s, {flops / seconds / product:.1%} of a bf16 matrix product")
    if len(rows) < PARTS:
        print("Too few steps to say whether the loss falls.")
    elif not curve[-1] < curve[0]:
        raise SystemExit("The loss did not fall.")


if __name__ == "__main__":
    main()
