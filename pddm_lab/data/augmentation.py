"""How the training's random views of a picture differ beyond crop and mirror: in light, in sharpness, in geometry.

    light       brightness, contrast, saturation and the gains of the three channels
    blur-noise  a box blur, coarse grain, or fewer pixels
    geometry    the thing is smaller, turned, or partly hidden by ellipses
    mixed       each of the three above, or not, by chance

None is a function of robustness/corruptions.py, which measures: blur, noise and patches are made in other ways here;
snow, frost, fog, glass, motion, waves and the artefacts of JPEG not at all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageFilter

BRIGHTNESS, CONTRAST, SATURATION, GAINS = 60.0, 0.7, 0.8, 0.12
"""Most that is added to values of 0 to 255; most of the logarithm of the contrast's factor; most that the saturation's
factor is away from 1; deviation of the logarithms of the channels' gains."""
BLUR, GRAIN, PIXELS = (1 / 160, 1 / 40), (5.0, 45.0), (0.25, 0.7)
"""Radius as a share of the side; deviation of the noise, in values of 0 to 255; share of the side's pixels."""
SMALLER, TURNED, AXES = (0.4, 0.9), 90.0, (0.1, 0.3)
"""Share of the side; most degrees to either side; half axes of an ellipse as shares of the side."""
_GREY = np.array([0.299, 0.587, 0.114], np.float32)

_Pixels: TypeAlias = Float[np.ndarray, "side side 3"]
_Augment: TypeAlias = Callable[[_Pixels, np.random.Generator], _Pixels]


def augment(
    pixels: UInt8[np.ndarray, "3 side side"], augmentation: str, rng: np.random.Generator
) -> UInt8[np.ndarray, "3 side side"]:
    """Change a view of a picture.

    Args:
        pixels: the crop; not changed.
        augmentation: of `pddm_lab.config.AUGMENTATIONS`; crops leaves the view as it is, and draws nothing.
        rng: of the view.
    """
    if augmentation == "crops":
        return pixels
    changed = pixels.transpose(1, 2, 0).astype(np.float32)
    for name, change in _AUGMENTATIONS.items():
        if augmentation == name or (augmentation == "mixed" and rng.random() < 0.5):
            changed = change(changed, rng)
    return np.ascontiguousarray(_bytes(changed).transpose(2, 0, 1))


def _geometry(pixels: _Pixels, rng: np.random.Generator) -> _Pixels:
    return _one_of((_smaller, _turned, _hidden), pixels, rng)


def _light(pixels: _Pixels, rng: np.random.Generator) -> _Pixels:
    grey, mean = (pixels @ _GREY)[..., None], pixels.mean()
    pixels = grey + (1 + rng.uniform(-SATURATION, SATURATION)) * (pixels - grey)
    pixels = mean + np.exp(rng.uniform(-CONTRAST, CONTRAST)) * (pixels - mean)
    gains = np.exp(rng.normal(0, GAINS, 3))
    return (pixels * gains + rng.uniform(-BRIGHTNESS, BRIGHTNESS)).clip(0, 255).astype(np.float32)


def _blur_noise(pixels: _Pixels, rng: np.random.Generator) -> _Pixels:
    return _one_of((_blurred, _grainy, _coarse), pixels, rng)


_AUGMENTATIONS: dict[str, _Augment] = {"geometry": _geometry, "light": _light, "blur-noise": _blur_noise}
"""In the order in which a picture comes about: the thing, its light, the camera."""


def _one_of(choices: tuple[_Augment, ...], pixels: _Pixels, rng: np.random.Generator) -> _Pixels:
    return choices[rng.integers(len(choices))](pixels, rng)


def _smaller(pixels: _Pixels, rng: np.random.Generator) -> _Pixels:
    """The picture smaller, somewhere among its own mirror images."""
    side = len(pixels)
    small = max(round(side * rng.uniform(*SMALLER)), 2)
    before = rng.integers(0, side - small + 1, 2)
    shrunk = np.asarray(_image(pixels).resize((small, small), Image.Resampling.BILINEAR, reducing_gap=2.0))
    around = [(int(first), side - small - int(first)) for first in before]
    return np.pad(shrunk, [*around, (0, 0)], mode="reflect").astype(np.float32)


def _turned(pixels: _Pixels, rng: np.random.Generator) -> _Pixels:
    """The picture turned; corners get its mean colour."""
    red, green, blue = pixels.mean(axis=(0, 1)).round().astype(int).tolist()
    angle = rng.uniform(-TURNED, TURNED)
    turned = _image(pixels).rotate(angle, Image.Resampling.BILINEAR, fillcolor=(red, green, blue))
    return np.asarray(turned, np.float32)


def _hidden(pixels: _Pixels, rng: np.random.Generator) -> _Pixels:
    """One to three ellipses, each of a colour, hide parts."""
    side, hidden = len(pixels), pixels.copy()
    y, x = np.mgrid[:side, :side] / side
    for _ in range(rng.integers(1, 4)):
        (top, left), (high, wide) = rng.random(2), rng.uniform(*AXES, 2)
        hidden[((y - top) / high) ** 2 + ((x - left) / wide) ** 2 < 1] = rng.integers(0, 256, 3)
    return hidden


def _blurred(pixels: _Pixels, rng: np.random.Generator) -> _Pixels:
    radius = len(pixels) * rng.uniform(*BLUR)
    return np.asarray(_image(pixels).filter(ImageFilter.BoxBlur(radius)), np.float32)


def _grainy(pixels: _Pixels, rng: np.random.Generator) -> _Pixels:
    """Noise whose grains are squares of one to three pixels."""
    side, grain = len(pixels), int(rng.integers(1, 4))
    noise = rng.normal(0, rng.uniform(*GRAIN), (-(-side // grain), -(-side // grain), 3)).astype(np.float32)
    return pixels + noise.repeat(grain, 0).repeat(grain, 1)[:side, :side]


def _coarse(pixels: _Pixels, rng: np.random.Generator) -> _Pixels:
    side = len(pixels)
    few = max(round(side * rng.uniform(*PIXELS)), 2)
    image = _image(pixels).resize((few, few), Image.Resampling.BOX)
    return np.asarray(image.resize((side, side), Image.Resampling.BICUBIC), np.float32)


def _image(pixels: _Pixels) -> Image.Image:
    return Image.fromarray(_bytes(pixels))


def _bytes(pixels: _Pixels) -> UInt8[np.ndarray, "side side 3"]:
    return pixels.round().clip(0, 255).astype(np.uint8)
