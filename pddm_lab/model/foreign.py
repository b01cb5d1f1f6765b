"""Models from elsewhere that turn pictures into features: a callable, an ONNX file, or a torchvision model.

A callable is code of the user's, so it is only imported where its name is given; a run never names one to be imported
when it is opened. An ONNX file and a torchvision model are no code.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image

from pddm_lab.config import ONNX, TORCHVISION
from pddm_lab.data.imported import check_features
from pddm_lab.data.prepare import prepare
from pddm_lab.errors import ConfigError, DataError
from pddm_lab.model.engine import Engine
from pddm_lab.model.trunks import IMAGENET_MEAN, IMAGENET_STD, load_trunk

Embed = Callable[[list[Image.Image]], Any]
"""RGB pictures -> an array or a tensor, a row each."""
EXPECTED = "package.module:callable, FILE.onnx or torchvision:NAME"
_SIDE = 224
"""Side of a picture in pixels, where the model leaves it open."""


class ForeignModel:
    """A model that embeds pictures.

    Args:
        name: `package.module:callable`, which takes a list of RGB PIL images and returns an array, a row each;
            `FILE.onnx`, whose one input is (n, 3, side, side) float32, normalised as for ImageNet; or
            `torchvision:NAME`, a classification model without its last layer, with its ImageNet weights.

    Raises:
        ConfigError: it can't be loaded.
    """

    def __init__(self, name: str) -> None:
        self.name = str(Path(name).expanduser().resolve()) if name.endswith(ONNX) else name
        self._embed = _load(self.name)

    def __call__(self, pictures: Sequence[Image.Image]) -> Float[np.ndarray, "pictures dim"]:
        """Features of RGB pictures, as the model returns them, float32.

        Raises:
            DataError: it fails, or returns something else than a row of finite numbers a picture.
        """
        try:
            made = self._embed(list(pictures))
        except Exception as error:  # foreign code may raise anything
            raise DataError(
                f"{self.name} failed on {len(pictures)} pictures: {type(error).__name__}: {error}"
            ) from error
        if isinstance(made, torch.Tensor):
            made = made.detach().float().cpu().numpy()
        try:
            values = np.asarray(made)
        except ValueError:
            values = np.empty(0, dtype=object)
        if len(values.shape) != 2 or len(values) != len(pictures):
            shape = " x ".join(map(str, values.shape))
            raise DataError(f"{self.name}: expected {len(pictures)} rows of features, one a picture, got {shape}.")
        return check_features(values, self.name)


def _load(name: str) -> Embed:
    if name.startswith(TORCHVISION):
        return _torchvision(name.removeprefix(TORCHVISION))
    if name.endswith(ONNX):
        return _onnx(Path(name))
    module, colon, path = name.partition(":")
    if not (colon and module and path):
        raise ConfigError(f"--model expects {EXPECTED}, got {name!r}.")
    if (here := os.getcwd()) not in sys.path:  # the user's module may lie here, as for `python -m`
        sys.path.insert(0, here)
    try:
        target: Any = importlib.import_module(module)
        for part in path.split("."):
            target = getattr(target, part)
    except Exception as error:  # importing foreign code may raise anything
        raise ConfigError(f"--model {name} can't be imported: {type(error).__name__}: {error}.") from error
    if not callable(target):
        raise ConfigError(f"--model {name} is a {type(target).__name__}: expected something to call with pictures.")
    return partial(_without_gradients, target)


@torch.inference_mode()
def _without_gradients(embed: Embed, pictures: list[Image.Image]) -> Any:
    return embed(pictures)


def _torchvision(name: str) -> Embed:
    try:
        trunk = load_trunk(name).eval()
    except ConfigError as error:
        if not isinstance(error.__cause__, OSError):
            raise
        raise ConfigError(
            f"The ImageNet weights of {name} could not be downloaded ({error.__cause__}). Without a network, copy "
            f"their file from another machine to {Path(torch.hub.get_dir()) / 'checkpoints'}, or give a callable or an "
            "ONNX file."
        ) from error
    engine = Engine(trunk, size=_SIDE, device=torch.device("cpu"))

    def embed(pictures: list[Image.Image]) -> np.ndarray:
        return engine(np.stack([prepare(one, _SIDE, _SIDE) for one in pictures]))

    return embed


def _onnx(file: Path) -> Embed:
    import onnxruntime

    if not file.is_file():
        raise ConfigError(f"--model: the file {file} does not exist. Expected {EXPECTED}.")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # it prints what it raises, too
    try:
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors are C++ exceptions of many kinds
        raise ConfigError(f"--model {file} is no ONNX model: {' '.join(str(error).split())[:200]}") from error
    inputs = session.get_inputs()
    shape = inputs[0].shape if len(inputs) == 1 else []
    if len(shape) != 4 or shape[1] != 3 or inputs[0].type != "tensor(float)":
        listed = ", ".join(f"{one.name} {one.type} {one.shape}" for one in inputs)
        raise ConfigError(f"--model {file}: expected one input of float32, (n, 3, side, side), got {listed}.")
    side = shape[2] if isinstance(shape[2], int) else _SIDE
    at_once = shape[0] if isinstance(shape[0], int) else 0
    mean, std = (np.array(values, np.float32).reshape(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))

    def embed(pictures: list[Image.Image]) -> np.ndarray:
        batch = np.stack([prepare(one, side, side) for one in pictures])
        batch = (batch.astype(np.float32) / 255 - mean) / std
        count = len(batch)
        if at_once:  # the model takes so many pictures and no other number
            batch = np.concatenate([batch, np.repeat(batch[:1], -count % at_once, axis=0)])
        parts = np.split(batch, range(at_once, len(batch), at_once)) if at_once else [batch]
        made = [session.run(None, {inputs[0].name: part})[0].reshape(len(part), -1) for part in parts]
        return np.concatenate(made)[:count]

    return embed
