"""How fast S scores all pairs, compared with a matrix product on the same machine, at 8 d^2 operations per pair."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pddm_lab.bench.report import Log, Measure
from pddm_lab.bench.timing import DIM, clustered, extra_memory, fastest, trained_unit
from pddm_lab.config import PRESETS, Device
from pddm_lab.model.all_pairs import all_pairs, has_compiler
from pddm_lab.model.embedding import MetricModel
from pddm_lab.model.pddm import PDDM
from pddm_lab.model.similarity import Euclidean
from pddm_lab.training.loop import resolve_device
from pddm_lab.training.losses import double_header_hinge, embedding_hinge, joint_objective

SIDES = {"cpu": 4096, "cuda": 8192}
"""Side of the large matrix product."""
NAIVE_ITEMS = 512
"""Items whose pairs the naive version scores; it is slow."""
MANY = 50_000
"""Items in the measurement of memory."""
BATCH, PIXELS = 64, 96
"""Images of a training step, and their side."""


def measure(items: int, device: Device, log: Log) -> list[Measure]:
    """Measure on synthetic clusters with a unit trained on other clusters.

    Args:
        items: in each of the two sets.
        device: auto, cpu or cuda.
    """
    log("training a unit on clusters")
    on, _ = resolve_device(replace(PRESETS["quick"], device=device))
    unit = trained_unit().unit.to(on)
    assert isinstance(unit, PDDM)
    queries, gallery = (clustered(items, 4, 1.5, seed)[0].to(on) for seed in (2, 3))
    compiled = has_compiler()
    bf16 = torch.cuda.is_bf16_supported() if on.type == "cuda" else torch.cpu._is_avx512_bf16_supported()
    measures = _speed(unit, queries, gallery, torch.float32, compiled, (0.9, 1.5, 8), log)
    if bf16:
        measures += _speed(unit, queries, gallery, torch.bfloat16, compiled, (0.4, 0.7, 20), log)
        log("rankings in 16 bits")
        measures += _agreement_in_16_bits(unit, min(items, 4000), on)
    else:
        log("this processor has no bfloat16 products; leaving them out")
    a, b = queries[:256], gallery[:256]
    exact = copy.deepcopy(unit).double()(a[:, None].double(), b[None].double())
    worst = float((all_pairs(unit, a, b, compiled=compiled and items >= 256) - exact).abs().max())
    measures.append(Measure("largest difference from float64", worst, "", 1e-5, "65 536 pairs"))
    log("memory")
    many = clustered(MANY, 4, 1.5)[0].to(on)
    rows = many[:1024]
    extra = extra_memory(lambda: all_pairs(unit, rows, many), on.type) - len(rows) * MANY * 4 / 2**20
    measures.append(Measure("memory in addition to the result", extra, "MB", 256, f"1024 x {MANY:,} pairs"))
    log("a training step")
    return [*measures, _training_share(on)]


def _speed(
    unit: PDDM, queries: Tensor, gallery: Tensor, products: torch.dtype, compiled: bool,
    targets: tuple[float, float, float], log: Log,
) -> list[Measure]:  # fmt: skip
    name = "32 bits" if products == torch.float32 else "bfloat16"
    log(f"products in {name}")
    side = SIDES[gallery.device.type]
    square = torch.randn(side, side, device=gallery.device).to(products)
    few = gallery[:NAIVE_ITEMS]
    options: dict[str, Any] = {"products": products, "compiled": compiled}
    plain: dict[str, Any] = {"products": products, "compiled": False}
    seconds = fastest({
        "matrix product": lambda: square @ square, "naive": lambda: naive(unit, few, few, products),
        "queries x gallery": lambda: all_pairs(unit, queries, gallery, **options),
        "all pairs of one set": lambda: all_pairs(unit, gallery, gallery, **options),
        "queries x gallery, without a compiler": lambda: all_pairs(unit, queries, gallery, **plain),
    }, rounds=5)  # fmt: skip
    pair, pairs = 8 * DIM**2, len(queries) * len(gallery)
    rates = {name: pair * pairs / duration for name, duration in seconds.items()}
    rates |= {
        "matrix product": 2 * side**3 / seconds["matrix product"],
        "naive": pair * NAIVE_ITEMS**2 / seconds["naive"],
    }
    over = f"{len(queries):,} x {len(gallery):,}, best of 5"
    product, slow = rates["matrix product"], rates["naive"]
    whole = rates["all pairs of one set"]
    first, second, third = targets
    return [
        Measure(f"{name}: matrix product", product / 1e9, "GFLOP/s", over=f"{side} x {side}"),
        Measure(f"{name}: naive", slow / 1e9, "GFLOP/s", over=f"{NAIVE_ITEMS} x {NAIVE_ITEMS}"),
        Measure(f"{name}: queries x gallery", rates["queries x gallery"] / 1e9, "GFLOP/s", over=over),
        Measure(
            f"{name}: queries x gallery / matrix product", rates["queries x gallery"] / product, "x", first, over, True
        ),
        Measure(
            f"{name}: the same without a compiler", rates["queries x gallery, without a compiler"] / product, "x",
            over=over,
        ),
        Measure(f"{name}: all pairs of one set / matrix product", whole / product, "x", second, over, True),
        Measure(f"{name}: all pairs of one set / naive", whole / slow, "x", third, over, True),
    ]  # fmt: skip


def naive(unit: PDDM, queries: Tensor, gallery: Tensor, products: torch.dtype) -> Tensor:
    """S by the plain formula, one query at a time: u, v and [u'; v'] are built for every pair."""
    with torch.no_grad(), torch.autocast(queries.device.type, products, enabled=products != torch.float32):
        return torch.stack([unit(query, gallery) for query in queries])


def _agreement_in_16_bits(unit: PDDM, items: int, device: torch.device) -> list[Measure]:
    from scipy.stats import spearmanr

    features, labels = (one.to(device) for one in clustered(items, 4, 1.7, seed=4))
    recalls, rows = [], []
    for products in (torch.float32, torch.bfloat16):
        scores = all_pairs(unit, features, features, products=products)
        rows.append(scores[:64].cpu())
        nearest = scores.fill_diagonal_(-torch.inf).argmax(dim=1)
        recalls.append(100 * float((labels[nearest] == labels).double().mean()))
    ranks = min(float(spearmanr(exact, near).statistic) for exact, near in zip(*rows, strict=True))
    over = f"{items:,} items, R@1 {recalls[0]:.1f} %"
    return [
        Measure("bfloat16: change of R@1", abs(recalls[1] - recalls[0]), "points", 0.1, over),
        Measure("bfloat16: lowest rank correlation", ranks, "", 0.999, "64 queries", True),
    ]


def _training_share(device: torch.device) -> Measure:
    """The forward and backward pass of the quadruplets, as a share of the whole with the trunk's."""
    model = MetricModel(PRESETS["finetune"], weights="none").train().to(device)
    images = torch.randint(0, 256, (BATCH, 3, PIXELS, PIXELS), dtype=torch.uint8, device=device)
    unit, euclidean = model.similarity("pddm"), Euclidean()
    features = F.normalize(torch.randn(BATCH, model.embedding.head.out_features, device=device), dim=1).requires_grad_()
    i = torch.arange(BATCH, device=device)
    left, right = torch.cat([i, i, i]), torch.cat([i.roll(1), i.roll(2), i.roll(3)])

    def trunk() -> None:
        model.embedding(images).sum().backward()

    def quadruplets() -> None:
        a, b = features[left], features[right]
        scores, distances = unit(a, b).view(3, -1), -euclidean(a, b).view(3, -1)
        e_m = double_header_hinge(scores[0], scores[1], scores[2], 0.5)
        e_e = embedding_hinge(distances[0], distances[1], distances[2], 1.0)
        joint_objective(e_m, e_e, 0.5)[0].backward()

    seconds = fastest({"trunk": trunk, "quadruplets": quadruplets}, rounds=3)
    share = 100 * seconds["quadruplets"] / (seconds["trunk"] + seconds["quadruplets"])
    over = f"forward and backward, {BATCH} images of {PIXELS} px, {1000 * seconds['trunk']:.0f} ms of trunk"
    return Measure("quadruplets' share of a training step", share, "%", 5, over)
