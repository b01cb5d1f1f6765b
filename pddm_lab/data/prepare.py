"""What a network sees of a picture: its shorter side is scaled and a square is cut out, for training and for search."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8
from PIL import Image

LONGEST_SHAPE = 50
"""Of a picture that is longer than this many times its width, only the middle is used: all of it, scaled to the
network's size, would fill the memory."""


VIEW_ZOOM = 9 / 8
"""Factor that an image is scaled up by before a random crop, for views of a frozen trunk."""
READ_SIDE = 360
"""Pixels that the shorter side of a JPEG keeps when it is read for a network: enough to show it, too."""


def side_to_read(resize: int) -> int:
    """Pixels that the shorter side of a picture needs, whatever its view; see `pddm_lab.data.images.open_image`."""
    return max(READ_SIDE, round(resize * VIEW_ZOOM))


def prepare(
    image: Image.Image, resize: int, size: int, rng: np.random.Generator | None = None
) -> UInt8[np.ndarray, "3 size size"]:
    """Scale an image's shorter side and cut a square; arguments as for `scale` and `cut`."""
    return cut(scale(image, resize, size), size, rng)


def scale(image: Image.Image, resize: int, size: int) -> Image.Image:
    """Scale an image's shorter side.

    Args:
        image: RGB.
        resize: shorter side after scaling, in pixels.
        size: side of the square that will be cut out, in pixels; no side gets shorter.
    """
    longest = LONGEST_SHAPE * min(image.size)
    if max(image.size) > longest:
        left, top = (max(0, side - longest) // 2 for side in image.size)
        image = image.crop((left, top, image.width - left, image.height - top))
    factor = resize / min(image.size)
    if factor == 1:
        return image
    scaled = (max(size, round(image.width * factor)), max(size, round(image.height * factor)))
    return image.resize(scaled, Image.Resampling.BILINEAR, reducing_gap=2.0)


def cut(image: Image.Image, size: int, rng: np.random.Generator | None = None) -> UInt8[np.ndarray, "3 size size"]:
    """Cut a square out of a scaled image.

    Args:
        image: RGB, each side at least as long as the square's.
        size: side of the square, in pixels.
        rng: for a random crop and mirror in training; None for the centre.
    """
    spare = (image.width - size, image.height - size)
    left, top = (s // 2 for s in spare) if rng is None else (int(rng.integers(s + 1)) for s in spare)
    pixels = np.asarray(image.crop((left, top, left + size, top + size)))
    if rng is not None and rng.random() < 0.5:
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))
