"""Uploaded pictures: checked, embedded by the run's model, and kept where they become items."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from concurrent.futures import Executor
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from PIL import Image

from pddm_lab.data.images import SUFFIXES, verify
from pddm_lab.data.uploads import FOLDER
from pddm_lab.files import write_file, writing
from pddm_lab.gallery.files import thumbnail
from pddm_lab.runs.imported import why_not_embedded
from pddm_lab.runs.model import Embeds, embedder
from pddm_lab.runs.new_items import Picture
from pddm_lab.runs.run import Run
from pddm_lab.service.batches import Batches

_BATCH = 16


class Feature(NamedTuple):
    """What a search needs of a picture."""

    feature: Float[np.ndarray, " dim"]
    pretrained: Float[np.ndarray, " pretrained"] | None
    """Where a similarity of the run uses it."""


class Upload(NamedTuple):
    """A file that somebody sent."""

    name: str
    data: bytes


class Pictures:
    """Embeds pictures by a run's model, those that come at the same time together.

    Args:
        run: that has the model.
        model: that made imported features, as for `embedder`.
        pool: where pictures are read and embedded.
        threads: that may embed at the same time.

    Raises:
        RunError: the model is missing or damaged.
        ConfigError: the named model can't be loaded.
    """

    def __init__(self, run: Run, model: str, pool: Executor, threads: int) -> None:
        self._run, self._pool = run, pool
        self.reason = ""
        """Why pictures can't be embedded, in a sentence; empty if they can."""
        self._embed: Embeds | None = None
        if not model and why_not_embedded(run):
            self.reason = (
                f"The features of {run.name} were imported, and a run never runs foreign code by itself: to search by "
                f"picture, start the service with `pddm-lab serve {run.name} --model package.module:callable`."
            )
            return
        self._embed = embedder(run, model)
        self._embed.embed_all([self._embed.prepare(Image.new("RGB", (64, 64)))])
        self._batches: Batches[Any, Feature] = Batches(self._embedded, pool, min(threads, self._embed.threads), _BATCH)

    async def feature(self, data: bytes) -> Feature:
        """The feature of a picture.

        Raises:
            DataError: it is no picture, too large, damaged, or the model fails on it.
        """
        prepared = await asyncio.get_running_loop().run_in_executor(self._pool, self._prepared, data)
        return await self._batches(prepared)

    async def stored(self, data: bytes) -> Picture:
        """What the gallery stores of a picture; raises as `feature` does."""
        prepared, thumb = await asyncio.get_running_loop().run_in_executor(self._pool, self._with_thumb, data)
        made = await self._batches(prepared)
        return Picture(made.feature, thumb, made.pretrained)

    def keep(self, upload: Upload) -> Path:
        """Keep a picture in the run's folder, under its content's hash; raises RunError if it can't be written."""
        folder, ending = self._run.path / FOLDER, PurePosixPath(upload.name).suffix.lower()
        with writing(folder):
            folder.mkdir(exist_ok=True)
        file = folder / (hashlib.sha256(upload.data).hexdigest() + (ending if ending in SUFFIXES else ""))
        if not file.exists():
            write_file(file, upload.data)
        return file

    def _prepared(self, data: bytes) -> Any:
        assert self._embed is not None
        return self._embed.prepare(verify(data, shorter=self._embed.shorter))

    def _with_thumb(self, data: bytes) -> tuple[Any, bytes]:
        assert self._embed is not None
        image = verify(data, shorter=self._embed.shorter)
        return self._embed.prepare(image), thumbnail(image)

    def _embedded(self, pictures: Sequence[Any]) -> list[Feature | Exception]:
        assert self._embed is not None
        features, pretrained = self._embed.embed_all(pictures)
        further = [None] * len(features) if pretrained is None else pretrained
        return [Feature(*one) for one in zip(features, further, strict=True)]
