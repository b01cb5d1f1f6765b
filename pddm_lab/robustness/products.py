"""What happens to photos of products and isn't in ImageNet-C: scale, rotation, occlusion, crop, light, background.

Each function takes a square picture, a strength from 1 to 5 and a generator, and returns a picture of the same size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image, ImageFilter
from scipy.ndimage import label

Apply: TypeAlias = Callable[[np.ndarray, int, np.random.Generator], np.ndarray]

SCALES = (0.85, 0.7, 0.55, 0.45, 0.35)
"""Side of the picture that is left, as a share; the rest has the colour of the border."""
ANGLES = (10, 20, 45, 90, 180)
"""Degrees, to either side."""
OCCLUDED = (0.1, 0.2, 0.3, 0.4, 0.5)
"""Share of the picture that a patch of one colour hides."""
KEPT = (0.9, 0.8, 0.7, 0.6, 0.5)
"""Side of the part that is cut out, as a share."""
CASTS = (0.15, 0.3, 0.45, 0.6, 0.8)
"""Length of the vector of the logarithms of the three channels' gains, in linear light."""
EXCHANGED = (0.2, 0.4, 0.6, 0.8, 1.0)
"""Share of the new background; the rest is the white one."""
WHITE = 232
"""Least value of each channel that counts as white: JPEG doesn't keep 255."""
WHITE_BORDER = 0.9
"""Least share of a picture's border that is white if the thing lies on white."""
ON_WHITE = 0.75
"""Least share of such pictures in a data set whose backgrounds are exchanged; the others have little to exchange."""

_CELLS = (3, 6, 12, 24, 48)
_Picture = UInt8[np.ndarray, "side side 3"]


def scaled(square: _Picture, strength: int, rng: np.random.Generator) -> _Picture:
    """The picture smaller, somewhere on a ground of its border's colour."""
    side = len(square)
    small = round(side * SCALES[strength - 1])
    left, top = (int(rng.integers(side - small + 1)) for _ in range(2))
    ground = Image.new("RGB", (side, side), _border_colour(square))
    ground.paste(Image.fromarray(square).resize((small, small), Image.Resampling.BOX), (left, top))
    return np.asarray(ground)


def rotated(square: _Picture, strength: int, rng: np.random.Generator) -> _Picture:
    """The picture turned about its centre; corners get the colour of its border."""
    angle = ANGLES[strength - 1] * (1 if rng.random() < 0.5 else -1)
    colour = _border_colour(square)
    return np.asarray(Image.fromarray(square).rotate(angle, Image.Resampling.BILINEAR, fillcolor=colour))


def occluded(square: _Picture, strength: int, rng: np.random.Generator) -> _Picture:
    """A rectangle of one colour hides a part."""
    side, longer = len(square), np.exp(rng.uniform(-0.3, 0.3))  # at half of the area still inside the picture
    width, height = (round(side * np.sqrt(OCCLUDED[strength - 1]) * factor) for factor in (longer, 1 / longer))
    left, top = int(rng.integers(side - width + 1)), int(rng.integers(side - height + 1))
    hidden = square.copy()
    hidden[top : top + height, left : left + width] = rng.integers(0, 256, 3)
    return hidden


def cropped(square: _Picture, strength: int, rng: np.random.Generator) -> _Picture:
    """A part of the picture, as large as the whole was."""
    side = len(square)
    part = side * KEPT[strength - 1]
    left, top = rng.uniform(0, side - part, 2)
    box = (left, top, left + part, top + part)
    return np.asarray(Image.fromarray(square).resize((side, side), Image.Resampling.BILINEAR, box))


def illuminated(square: _Picture, strength: int, rng: np.random.Generator) -> _Picture:
    """Light of another colour: a gain for each channel of linear light, of any hue, whose logarithms add up to 0."""
    direction = rng.normal(size=3)
    direction -= direction.mean()
    gains = np.exp(CASTS[strength - 1] * direction / np.linalg.norm(direction))
    linear = (square / 255.0) ** 2.2 * gains
    return (255 * linear.clip(0, 1) ** (1 / 2.2)).round().astype(np.uint8)


def exchanged(square: _Picture, strength: int, rng: np.random.Generator) -> _Picture:
    """Another background: the white that is connected with the border gets a random coloured texture.

    White parts of a thing that touch the white around it count as background.
    """
    side = len(square)
    texture = np.zeros((side, side, 3))
    for power, cells in enumerate(_CELLS):
        grid = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        texture += np.asarray(grid.resize((side, side), Image.Resampling.BICUBIC), float) / 2**power
    texture /= sum(1 / 2**power for power in range(len(_CELLS)))
    mask = Image.fromarray((255 * background(square)).astype(np.uint8)).filter(ImageFilter.GaussianBlur(1))
    share = EXCHANGED[strength - 1] * np.asarray(mask, float)[..., None] / 255
    return ((1 - share) * square + share * texture).round().clip(0, 255).astype(np.uint8)


def background(square: _Picture) -> Bool[np.ndarray, "side side"]:
    """The white that is connected with the border."""
    parts, _ = label((square >= WHITE).all(-1))
    at_border = np.unique(np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]]))
    return np.isin(parts, at_border[at_border > 0])


def why_no_background(squares: Sequence[_Picture]) -> str:
    """Why the background of these pictures can't be exchanged, in a sentence; empty if it can."""
    on_white = [(_border(square) >= WHITE).all(-1).mean() >= WHITE_BORDER for square in squares]
    if np.mean(on_white) >= ON_WHITE:
        return ""
    return (
        f"The background can be exchanged where pictures lie on white: {sum(on_white)} of {len(on_white)} that were "
        "looked at do."
    )


def _border(square: _Picture) -> UInt8[np.ndarray, "pixels 3"]:
    return np.concatenate([square[0], square[-1], square[:, 0], square[:, -1]])


def _border_colour(square: _Picture) -> tuple[int, int, int]:
    red, green, blue = np.median(_border(square), axis=0).astype(int).tolist()
    return red, green, blue


PRODUCTS: dict[str, tuple[str, Apply]] = {
    "scale": ("Smaller", scaled), "rotation": ("Rotation", rotated), "occlusion": ("Occlusion", occluded),
    "crop": ("Crop", cropped), "illumination": ("Coloured light", illuminated), "background": ("Background", exchanged),
}  # fmt: skip
"""Name -> title and function."""
