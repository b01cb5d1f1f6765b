"""Corruptions of pictures in five strengths: 19 of ImageNet-C, as imagecorruptions has them, and those of products.

Every picture is cut to the centred square that a network sees and scaled to `SIDE`, for which the strengths of
ImageNet-C were chosen. So a strength means the same for every data set and every run. What is random is seeded by the
item, the corruption and the strength: the same three give the same picture, in any order and in any process.

Source: Hendrycks and Dietterich, ICLR 2019; Michaelis et al., 2019.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from pddm_lab.errors import ConfigError, unknown_name
from pddm_lab.robustness import products

SIDE = 224
"""Side of the square that is corrupted, in pixels."""
STRENGTHS = (1, 2, 3, 4, 5)
Square = UInt8[np.ndarray, "side side 3"]

_SEEDED_BY_ARGUMENT = ("glass_blur", "impulse_noise")
"""They ignore numpy's seed, and take one of their own."""
_SEEDING = threading.Lock()


@dataclass(frozen=True)
class Corruption:
    """A way to corrupt a picture."""

    title: str
    kind: str
    """noise, blur, weather, digital, further (not among the 15 of the benchmark) or product."""
    apply: Callable[[Square, int, int], Square]
    """Called with a picture, a strength and a seed."""


def corrupt(square: Square, item: str, name: str, strength: int) -> Square:
    """Corrupt the picture of an item.

    Args:
        square: as `square_of` makes it; not changed.
        item: id of the item, which is part of the seed.
        name: of `CORRUPTIONS`.
        strength: 1 to 5; 0 leaves the picture as it is.

    Raises:
        ConfigError: unknown corruption or strength.
    """
    if strength == 0:
        return square
    if name not in CORRUPTIONS:
        raise ConfigError(unknown_name("corruption", name, CORRUPTIONS))
    if strength not in STRENGTHS:
        raise ConfigError(f"Expected a strength from {STRENGTHS[0]} to {STRENGTHS[-1]}, got {strength}.")
    return CORRUPTIONS[name].apply(square, strength, seed_of(item, name, strength))


def seed_of(item: str, name: str, strength: int) -> int:
    """The seed of a corrupted picture, 32 bits."""
    digest = hashlib.sha256(f"{item}\0{name}\0{strength}".encode(errors="surrogateescape")).digest()
    return int.from_bytes(digest[:4], "big")


def square_of(image: Image.Image) -> Square:
    """The centred square of an RGB picture, `SIDE` pixels wide."""
    shorter = min(image.size)
    left, top = ((side - shorter) // 2 for side in image.size)
    box = (left, top, left + shorter, top + shorter)
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR, box, reducing_gap=2.0))


def _of_package(name: str, square: Square, strength: int, seed: int) -> Square:
    try:
        from imagecorruptions import corrupt as corrupt_by_package
    except ModuleNotFoundError as error:
        raise ConfigError(f"Corruptions need {error.name}: pip install 'pddm-lab[robustness]'.") from None
    options: dict[str, Any] = {"seed": seed} if name in _SEEDED_BY_ARGUMENT else {}
    # Where nothing is spattered, the package divides by a largest value of 0.
    with _numpy_seeded(seed), np.errstate(invalid="ignore", divide="ignore"):
        return corrupt_by_package(square, strength, name, **options)


@contextmanager
def _numpy_seeded(seed: int) -> Iterator[None]:
    """numpy's global generator, from which the package draws, with a seed; afterwards it goes on as if nothing was."""
    with _SEEDING:
        before = np.random.get_state()  # noqa: NPY002
        np.random.seed(seed)  # noqa: NPY002
        try:
            yield
        finally:
            np.random.set_state(before)  # noqa: NPY002


def _of_product(apply: products.Apply, square: Square, strength: int, seed: int) -> Square:
    return apply(square, strength, np.random.default_rng(seed))


_PACKAGE = {
    "noise": {"gaussian_noise": "Gaussian noise", "shot_noise": "Shot noise", "impulse_noise": "Impulse noise"},
    "blur": {
        "defocus_blur": "Defocus blur", "glass_blur": "Frosted glass", "motion_blur": "Motion blur",
        "zoom_blur": "Zoom blur",
    },
    "weather": {"snow": "Snow", "frost": "Frost", "fog": "Fog", "brightness": "Brightness"},
    "digital": {
        "contrast": "Low contrast", "elastic_transform": "Elastic", "pixelate": "Pixelate", "jpeg_compression": "JPEG",
    },
    "further": {
        "speckle_noise": "Speckle noise", "gaussian_blur": "Gaussian blur", "spatter": "Spatter",
        "saturate": "Saturation",
    },
}  # fmt: skip
CORRUPTIONS: dict[str, Corruption] = {
    **{
        name: Corruption(title, kind, partial(_of_package, name))
        for kind, titles in _PACKAGE.items()
        for name, title in titles.items()
    },
    **{
        name: Corruption(title, "product", partial(_of_product, apply))
        for name, (title, apply) in products.PRODUCTS.items()
    },
}
"""Name -> corruption, in the order of every table and figure."""
BENCHMARK = tuple(name for kind in ("noise", "blur", "weather", "digital") for name in _PACKAGE[kind])
"""The 15 over which the corruption error is usually averaged."""
