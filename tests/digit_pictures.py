"""Some digits of each class as a folder of pictures: as a data set, `digits` takes most of a short training's time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def write_digits(root: Path, each: int) -> Path:
    """Write the first handwritten digits of each class into a folder a class."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    for label in range(10):
        (root / str(label)).mkdir(parents=True)
        for number in np.flatnonzero(digits.target == label)[:each]:
            picture = Image.fromarray((digits.images[number] * (255 / 16)).round().astype(np.uint8))
            picture.save(root / f"{label}/{number:04d}.png")
    return root
