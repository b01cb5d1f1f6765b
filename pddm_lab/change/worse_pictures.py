"""Pictures of worse quality, to see whether an alarm notices: out of focus, noisy, too dark; each little and much.

`robustness/corruptions.py` has more kinds, which need another library; these three are what a camera in a shop suffers
from.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image, ImageFilter

from pddm_lab.errors import ConfigError, unknown_name

AMOUNTS = ("little", "much")
_BLUR = {"little": 0.01, "much": 0.03}
"""Deviation of the Gaussian, relative to the shorter side."""
_NOISE = {"little": 20.0, "much": 60.0}
"""Deviation of the noise, in grey levels of 255, on a picture of `_NOISE_SIDE` pixels."""
_LIGHT = {"little": 0.5, "much": 0.2}
"""Share of the light that is left."""
_NOISE_SIDE = 160


def _blur(image: Image.Image, amount: str, _: np.random.Generator) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(_BLUR[amount] * min(image.size)))


def _noise(image: Image.Image, amount: str, draw: np.random.Generator) -> Image.Image:
    scale = _NOISE_SIDE / min(image.size)
    small = image.resize((max(round(image.width * scale), 1), max(round(image.height * scale), 1)))
    values = np.asarray(small, dtype=np.float32)
    noisy = values + _NOISE[amount] * draw.standard_normal(values.shape, dtype=np.float32)
    return Image.fromarray(noisy.clip(0, 255).round().astype(np.uint8))


def _darkness(image: Image.Image, amount: str, _: np.random.Generator) -> Image.Image:
    return image.point(lambda value: round(value * _LIGHT[amount]))


WORSE: Mapping[str, Callable[[Image.Image, str, np.random.Generator], Image.Image]] = {
    "blur": _blur, "noise": _noise, "darkness": _darkness,
}  # fmt: skip


def worsen(image: Image.Image, name: str, amount: str, item: str) -> Image.Image:
    """A picture of worse quality.

    Args:
        image: RGB; not changed.
        name: of `WORSE`.
        amount: little or much.
        item: id, the seed of what is random.

    Raises:
        ConfigError: unknown name or amount.
    """
    for what, value, known in (("kind", name, WORSE), ("amount", amount, AMOUNTS)):
        if value not in known:
            raise ConfigError(unknown_name(what, value, list(known)))
    return WORSE[name](image, amount, np.random.default_rng(zlib.crc32(f"{item} {name} {amount}".encode())))
