"""A run to measure on: really trained on generated pictures, with galleries of any size.

The training is the preset `quick` with the pretrained trunk, on a few hundred pictures, so that logs, model and choices
are those of any run. Only the galleries are synthetic: their features are random unit vectors around a centre per
class, and their pictures are training pictures.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from PIL import Image, ImageDraw

from pddm_lab.analysis.pairs import sample_pairs, score_pairs
from pddm_lab.bench.report import Log
from pddm_lab.config import TrainConfig
from pddm_lab.gallery.gallery import Gallery
from pddm_lab.gallery.umap_layout import start_map
from pddm_lab.metrics.separation import Distribution, histogram
from pddm_lab.runs.model import load_similarities
from pddm_lab.runs.run import Run
from pddm_lab.similarities import SIMILARITIES
from pddm_lab.training.trainer import train

CLASSES, EACH = 40, 12
"""Classes of the training pictures, and pictures of each."""
ITEMS_OF_A_CLASS = 8
"""Items of a class in a gallery."""
_SIDE = 128
_SCORED = 200_000


def make_run(folder: Path, log: Log) -> Run:
    """A finished run, `bench`.

    Args:
        folder: for its pictures (pictures/) and the runs' root (runs/).
    """
    log("pictures to train on")
    draw_pictures(folder / "pictures")
    log("a training of the preset quick")
    config = TrainConfig(
        dataset=f"folder:{folder / 'pictures'}", runs_root=str(folder / "runs"), run_name="bench", views=1,
        notes="Made by `pddm-lab bench dashboard`: a real training, with galleries of random features.",
    )  # fmt: skip
    return train(config, progress=False)


def write_galleries(run: Run, folder: Path, items: int, log: Log) -> None:
    """Replace the run's galleries: `items` items of unseen classes, and a fifth as many of known classes."""
    maps = start_map()
    for protocol, count in (("unseen", items), ("known", max(items // 5, 100))):
        log(f"a gallery of {count:,} items ({protocol})")
        maps.add(_write_gallery(run, folder / "pictures", protocol, count))
    log("their maps")
    maps.wait()


def draw_pictures(folder: Path) -> None:
    """JPEG files, <folder>/<class>/<number>.jpg: a class is a shape in a colour, its pictures move and tint it."""
    for label in range(CLASSES):
        rng = np.random.default_rng(label)
        (folder / f"class {label:02d}").mkdir(parents=True, exist_ok=True)
        corners = rng.integers(16, _SIDE - 16, (3 + label % 4, 2))
        colour = rng.integers(0, 256, 3)
        for number in range(EACH):
            image = Image.new("RGB", (_SIDE, _SIDE), tuple(rng.integers(190, 256, 3).tolist()))
            moved = corners + rng.integers(-10, 11, 2)
            tint = np.clip(colour + rng.integers(-30, 31, 3), 0, 255)
            ImageDraw.Draw(image).polygon([tuple(map(int, corner)) for corner in moved], tuple(map(int, tint)))
            image.save(folder / f"class {label:02d}" / f"{number:02d}.jpg", quality=90)


def draw_photos(folder: Path, count: int, width: int = 160, height: int = 160) -> list[Path]:
    """JPEG files that decode like photos: smooth, with some noise."""
    rng = np.random.default_rng(0)
    paths = []
    for number in range(count):
        small = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8))
        pixels = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC)).astype(np.int16)
        noisy = (pixels + rng.integers(-8, 9, pixels.shape, dtype=np.int16)).clip(0, 255).astype(np.uint8)
        paths.append(folder / f"{number}.jpg")
        Image.fromarray(noisy).save(paths[-1], quality=90)
    return paths


def clustered_features(labels: Int[np.ndarray, " items"], dim: int, seed: int) -> Float[np.ndarray, "items dim"]:
    """Unit-length features around a centre per class, denser for some classes than for others."""
    rng = np.random.default_rng(seed)
    classes = int(labels.max()) + 1
    centres = rng.standard_normal((classes, dim), dtype=np.float32)
    width = rng.uniform(0.4, 1.2, classes).astype(np.float32)
    features = centres[labels] + width[labels, None] * rng.standard_normal((len(labels), dim), dtype=np.float32)
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def _write_gallery(run: Run, pictures: Path, protocol: str, count: int) -> Path:
    labels = np.arange(count) // ITEMS_OF_A_CLASS
    features = clustered_features(labels, run.config.dim, seed=len(protocol))
    files = sorted(pictures.glob("class */*.jpg"))
    images = [Image.open(file).convert("RGB") for file in files]
    items = pd.DataFrame({
        "id": [f"{protocol}/{row:07d}.jpg" for row in range(count)], "label": labels,
        "class_name": [f"class {label:05d}" for label in labels],
        "role": np.where(np.arange(count) % 5 == 0, "query", "gallery") if protocol == "known" else "both",
    })  # fmt: skip
    (pictures / protocol).mkdir(exist_ok=True)
    for row, item in enumerate(items["id"]):
        if not (pictures / item).exists():
            (pictures / item).hardlink_to(files[row % len(files)])
    pairs = sample_pairs(cast(Gallery, SimpleNamespace(items=items)), _SCORED)  # it reads only the items
    scores = score_pairs(features, pairs, load_similarities(run))
    positive = scores["positive"].to_numpy()
    total = count * (count - 1) // 2 if protocol == "unseen" else int((items["role"] == "query").sum()) * count
    distributions: dict[str, Distribution] = {
        name: histogram(np.sort(scores[name][positive]), np.sort(scores[name][~positive]), total)
        for name in SIMILARITIES
    }
    path = run.path / "gallery" / protocol
    Gallery.write(path, protocol, features, items, lambda row: images[row % len(images)].copy(), distributions)
    return path
