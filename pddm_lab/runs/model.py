"""A run's trained model and similarities, loaded from its folder, and pictures embedded by it."""

from __future__ import annotations

import copy

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image

from pddm_lab.errors import RunError
from pddm_lab.model.embedding import MetricModel, learned_similarities
from pddm_lab.model.features import AUTOCAST, prepare
from pddm_lab.model.similarity import Similarity, make_similarity
from pddm_lab.model.trunks import fuse_batch_norms
from pddm_lab.runs.run import Run
from pddm_lab.similarities import LEARNED, SIMILARITIES

LONGEST_SHAPE = 50
"""Of a picture that is longer than this many times its width, the middle is looked at: the centred square is all that
the network sees."""


def load_model(run: Run) -> MetricModel:
    """A run's trained model, on the CPU, in evaluation mode.

    Raises:
        RunError: no model yet, or one of other shapes than its configuration says.
    """
    model = MetricModel(run.config, weights="none")
    try:
        model.load_state_dict(run.model_state())
    except RuntimeError as error:
        raise RunError(f"model.safetensors of {run.name} doesn't fit its configuration: {error}") from error
    return model.eval()


def load_similarities(run: Run) -> dict[str, Similarity]:
    """A run's similarities by name, without its trunk and head: all it takes to score stored features.

    On the CPU, in evaluation mode.

    Raises:
        RunError: no model yet, or one of other shapes than its configuration says.
    """
    learned, prefix = learned_similarities(run.config), "learned."
    state = {name.removeprefix(prefix): tensor for name, tensor in run.model_state().items() if name.startswith(prefix)}
    try:
        learned.load_state_dict(state)
    except RuntimeError as error:
        raise RunError(f"model.safetensors of {run.name} doesn't fit its configuration: {error}") from error
    learned.eval().requires_grad_(False)
    return {
        name: learned[name] if name in LEARNED else make_similarity(name, run.config.dim)  # type: ignore[misc]
        for name in SIMILARITIES
    }


class ImageEmbedder:
    """A picture to its feature as the run's galleries were made, so that an item's own picture lies on the item.

    Args:
        run: gives the size of the pictures and the precision they were embedded in.
        model: of the run, on the CPU, in evaluation mode; left as it is.
    """

    def __init__(self, run: Run, model: MetricModel) -> None:
        self._network = copy.copy(model.embedding)
        self._network._modules = dict(self._network._modules)
        if run.config.freeze_trunk:  # a frozen trunk's features are computed with its batch norms fused
            self._network.trunk = fuse_batch_norms(self._network.trunk)
        self._precision = AUTOCAST.get(run.info["precision"] if run.info["device"] == "cpu" else "32")
        self._resize, self._size = run.config.resize, run.config.image_size

    @torch.inference_mode()
    def __call__(self, image: Image.Image) -> Float[np.ndarray, " dim"]:
        """The unit-length feature of an RGB picture, (dim,) float32."""
        longest = LONGEST_SHAPE * min(image.size)
        if max(image.size) > longest:  # scaled up to the network's size, a long strip would fill the memory
            left, top = (max(0, side - longest) // 2 for side in image.size)
            image = image.crop((left, top, image.width - left, image.height - top))
        with torch.autocast("cpu", self._precision, enabled=self._precision is not None):
            return self._network(prepare(image, self._resize, self._size)[None])[0].float().numpy()
