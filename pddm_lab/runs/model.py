"""Load a run's trained model and similarities, and embed pictures with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor, nn

from pddm_lab.config import typed_path
from pddm_lab.data.images import open_image
from pddm_lab.data.prepare import prepare, side_to_read
from pddm_lab.errors import ConfigError, DataError, RunError
from pddm_lab.files import read_table
from pddm_lab.gallery.gallery import Gallery
from pddm_lab.model.embedding import MetricModel, learned_similarities
from pddm_lab.model.engine import Engine
from pddm_lab.model.foreign import ForeignModel
from pddm_lab.model.similarity import Similarity, make_similarity
from pddm_lab.runs.imported import unnamed_model
from pddm_lab.runs.local import load_local
from pddm_lab.runs.run import Run
from pddm_lab.similarities import LEARNED, SIMILARITIES

TRAINED = "trained.parquet"
"""In the folder of an updated run: id of each item that has trained its model."""


def load_model(run: Run) -> MetricModel:
    """A run's trained model, on the CPU, in evaluation mode.

    Raises:
        RunError: no model yet, or a model with other shapes than its configuration.
    """
    state = _similarities(run)[1]
    model = MetricModel(run.config, weights="none")
    _load_state(model, state, run)
    return model.eval()


def trained_with_updates(run: Run) -> set[str] | None:
    """The ids of all items that have trained the model of an updated run; None: no update made the run.

    Raises:
        RunError: the file is damaged.
    """
    if not (file := run.path / TRAINED).is_file():
        return None
    return set(read_table(file, {"id": "string"}, run.hint()).to_pandas()["id"])


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


class Embeds(Protocol):
    """What turns pictures into what a run's galleries store."""

    shorter: int
    """For `open_image` and `verify`: how large the pictures must be read; 0: as they are."""
    threads: int
    """That may prepare and embed pictures at once."""

    def prepare(self, image: Image.Image) -> Any:
        """What the model sees of an RGB picture."""

    def embed_all(
        self, pictures: Sequence[Any]
    ) -> tuple[Float[np.ndarray, "pictures dim"], Float[np.ndarray, "pictures pretrained"] | None]:
        """The unit-length features of prepared pictures, float32, and pretrained ones where the run uses them."""


def embedder(run: Run, model: str = "") -> Embeds:
    """What embeds pictures as a run's own were embedded.

    Args:
        model: of a run whose features were imported: the one that made them, as for `ForeignModel`. It must be named
            where it is code; else the run knows it.

    Raises:
        RunError: the run has no model, or one that must be named.
        ConfigError: the named model can't be loaded.
    """
    if not run.config.is_imported:
        if model:
            raise ConfigError(f"--model is for imported features: {run.name} has a model of its own.")
        return ImageEmbedder(run, load_model(run))
    known = str(run.info["dataset"].get("model") or "")
    if not model and (error := unnamed_model(run)):
        raise error
    return ForeignEmbedder(run, ForeignModel(model or known))


def query_of(
    run: Run, gallery: Gallery, what: str, model: str = ""
) -> tuple[Float[np.ndarray, " dim"], Float[np.ndarray, " pretrained"] | None, int | None]:  # fmt: skip
    """What to search a run's gallery with.

    Args:
        run: that the gallery is of.
        gallery: that is searched.
        what: the file of a picture, or the id of an item.
        model: as for `embedder`.

    Returns:
        The feature of the picture or item; the pretrained one of a picture where the run uses it; the row of an item.

    Raises:
        RunError: it is neither a file nor an item, or as `embedder`.
        DataError: the picture can't be read.
    """
    file = typed_path(what)
    if not file.is_file():
        if what not in set(gallery.items["id"]):
            raise RunError(f"{what!r} is no file, and no item of the {gallery.protocol} gallery of {run.name}.")
        row = gallery.index_of(what)
        return np.array(gallery.features[row]), None, row
    embed = embedder(run, model)
    features, pretrained = embed.embed_all([embed.prepare(open_image(file, embed.shorter))])
    return features[0], None if pretrained is None else pretrained[0], None


class ForeignEmbedder:
    """Embeds pictures by the model that made a run's imported features."""

    shorter, threads = 0, 1

    def __init__(self, run: Run, model: ForeignModel) -> None:
        self._run, self._model = run, model

    def prepare(self, image: Image.Image) -> Image.Image:
        """The picture as it is."""
        return image

    def embed_all(self, pictures: Sequence[Image.Image]) -> tuple[Float[np.ndarray, "pictures dim"], None]:
        """The unit-length features; raises DataError if the model fails or returns others than the run's."""
        made = self._model(pictures)
        if made.shape[1] != self._run.config.dim:
            raise DataError(
                f"{self._model.name} made features of {made.shape[1]} values: expected {self._run.config.dim}, as "
                f"{self._run.name} has."
            )
        return made / np.linalg.norm(made, axis=1, keepdims=True), None


class ImageEmbedder:
    """Embeds pictures as the run's galleries were embedded, so that an item's own picture gets the item's feature.

    Early runs were computed by torch, from JPEGs decoded at their whole size, and still are.

    Args:
        run: defines the size of the pictures, the precision and the engine.
        model: of the run, on the CPU, in evaluation mode; not changed.
    """

    def __init__(self, run: Run, model: MetricModel) -> None:
        config, noted = run.config, run.info.get("engine")
        on_cpu = run.info["device"] == "cpu"
        self._embedding, self._resize, self._local = model.embedding, config.resize, load_local(run)
        self.shorter = side_to_read(config.resize) if noted else 0
        """For `open_image` and `verify`: how large the pictures must be read."""
        self.engine = Engine(
            model.embedding.trunk, size=config.image_size, device=torch.device("cpu"),
            precision=(noted or run.info)["precision"] if on_cpu else "32",
            name="torch" if noted is None else noted["name"] if on_cpu else "auto",
        )  # fmt: skip
        self.threads = self.engine.threads

    def prepare(self, image: Image.Image) -> UInt8[np.ndarray, "3 size size"]:
        """What the network sees of an RGB picture."""
        return prepare(image, self._resize, self.engine.size)

    @torch.inference_mode()
    def embed_all(
        self, pictures: Sequence[UInt8[np.ndarray, "3 size size"]]
    ) -> tuple[Float[np.ndarray, "pictures dim"], Float[np.ndarray, "pictures pretrained"] | None]:
        """The unit-length features of prepared pictures, float32, and pretrained ones where the run uses them."""
        pooled = torch.from_numpy(self.engine(np.stack(pictures)))
        pretrained = None if self._local is None else self._local.pretrained(pooled)
        return self._embedding.project(pooled).numpy(), None if pretrained is None else pretrained.numpy()

    def embed(self, pictures: Sequence[UInt8[np.ndarray, "3 size size"]]) -> Float[np.ndarray, "pictures dim"]:
        """The features alone."""
        return self.embed_all(pictures)[0]

    def __call__(self, image: Image.Image) -> Float[np.ndarray, " dim"]:
        """The unit-length feature of an RGB picture, (dim,) float32."""
        return self.embed([self.prepare(image)])[0]
