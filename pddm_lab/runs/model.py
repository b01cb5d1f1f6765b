"""Load a run's trained model and similarities, and embed pictures with it."""

from __future__ import annotations

import copy

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from pddm_lab.data.prepare import prepare
from pddm_lab.errors import RunError
from pddm_lab.model.embedding import MetricModel, learned_similarities
from pddm_lab.model.features import AUTOCAST
from pddm_lab.model.similarity import Similarity, make_similarity
from pddm_lab.model.trunks import fuse_batch_norms
from pddm_lab.runs.run import Run
from pddm_lab.similarities import LEARNED, SIMILARITIES


def load_model(run: Run) -> MetricModel:
    """A run's trained model, on the CPU, in evaluation mode.

    Raises:
        RunError: no model yet, or a model with other shapes than its configuration.
    """
    state = _similarities(run)[1]
    model = MetricModel(run.config, weights="none")
    _load_state(model, state, run)
    return model.eval()


def load_similarities(run: Run) -> dict[str, Similarity]:
    """A run's similarities by name, to score stored features, without its trunk and head; as `load_model` otherwise."""
    learned = _similarities(run)[0].eval().requires_grad_(False)
    return {
        name: learned[name] if name in LEARNED else make_similarity(name, run.config.dim)  # type: ignore[misc]
        for name in SIMILARITIES
    }


def _similarities(run: Run) -> tuple[nn.ModuleDict, dict[str, Tensor]]:
    """A run's learned similarities, and all saved tensors.

    Shapes are compared before anything is allocated: the configuration of a foreign run could ask for any memory.
    """
    state, prefix = run.model_state(), "learned."
    own = {name.removeprefix(prefix): tensor.float() for name, tensor in state.items() if name.startswith(prefix)}
    with torch.device("meta"):
        learned = learned_similarities(run.config)
    _load_state(learned, own, run, assign=True)
    return learned, state


def _load_state(module: nn.Module, state: dict[str, Tensor], run: Run, assign: bool = False) -> None:
    try:
        module.load_state_dict(state, assign=assign)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise RunError(f"{run.path / 'model.safetensors'} doesn't match its configuration: {reason}") from error


class ImageEmbedder:
    """Embeds a picture as the run's galleries were embedded, so that an item's own picture gets the item's feature.

    Args:
        run: defines the size of the pictures and the precision.
        model: of the run, on the CPU, in evaluation mode; not changed.
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
        with torch.autocast("cpu", self._precision, enabled=self._precision is not None):
            return self._network(torch.from_numpy(prepare(image, self._resize, self._size))[None])[0].float().numpy()
