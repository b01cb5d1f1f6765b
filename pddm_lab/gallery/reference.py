"""A gallery as a similarity on local structure sees it: its searched items, each with its neighbourhood.

The neighbourhoods are stored with the gallery, and a change of the gallery changes them (changes.py). What is stored
belongs to these items, features and weights, or it isn't used: then the neighbourhoods are built from the features, in
a second or two for 6,000 items. Those of a large gallery are built by a command (upkeep.py).
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from pddm_lab.errors import LabError
from pddm_lab.gallery.files import NEIGHBOURHOODS, file_name, items_key, neighbourhoods_command, new_file
from pddm_lab.gallery.nearest import searching
from pddm_lab.gallery.store import IndexChoice
from pddm_lab.local.neighbourhoods import Neighbourhoods
from pddm_lab.local.sizes import SCALES, SECOND_SCALES
from pddm_lab.local.store import load, save
from pddm_lab.local.unit import LocalStructure
from pddm_lab.local.upkeep import change, refresh

_SAME = 1e-5
"""Two features of one item differ by less."""


@dataclass(frozen=True, eq=False)
class Reference:
    """The neighbourhoods of a gallery's searched items."""

    structure: LocalStructure
    neighbourhoods: Neighbourhoods
    rows: Int[np.ndarray, " searched"]
    """Rows of the searched items in the gallery, ascending."""
    is_stored: bool = False
    """Whether they were read from the gallery's files."""

    @classmethod
    def of(
        cls, structure: LocalStructure, features: Float[np.ndarray, "searched dim"],
        pretrained: Float[np.ndarray, "searched pretrained"] | None, rows: Int[np.ndarray, " searched"],
        path: Path | None = None,
    ) -> Reference:  # fmt: skip
        """Look at the searched items of a gallery with a run's similarity.

        Args:
            structure: the run's similarity.
            features: of the items.
            pretrained: likewise, if the similarity uses them.
            rows: of the items in the gallery.
            path: of a stored gallery: a large one is then ranked by the cosine until its neighbourhoods are built, and
                `note` says how (upkeep.py). None: they are built here.
        """
        if path is not None and not IndexChoice.of().flat(len(rows)):
            note = (
                f"The neighbourhoods of these {len(rows):,} items aren't built yet: they are ranked by the cosine. "
                f"Build them with `{neighbourhoods_command(path)}`."
            )
            z = structure.space(features, pretrained)
            return cls(structure, Neighbourhoods.without_lists(z, structure.first_part, note), rows)
        with _quiet():
            return cls(structure, structure.reference(features, pretrained), rows)

    @classmethod
    def read(
        cls, structure: LocalStructure, path: Path, manifest: Mapping[str, Any], rows: Int[np.ndarray, " searched"],
        pretrained_dim: int = 0,
    ) -> Reference | None:  # fmt: skip
        """What is stored in a gallery's folder; None if there is nothing, or nothing that fits.

        Args:
            structure: the run's similarity.
            path: of the gallery.
            manifest: of the gallery.
            rows: of its searched items.
            pretrained_dim: dimensions of the pretrained features, if the similarity uses them.
        """
        name = file_name(manifest, NEIGHBOURHOODS)
        try:
            if not name or (path / name).stat().st_size != manifest["files"][name]["bytes"]:
                return None
            stored = load(path / name, key_of(structure, manifest), searching)
        except (LabError, OSError):
            return None
        second = stored.second
        fits = (
            stored.features.shape == (len(rows), structure.dim + pretrained_dim)
            and (stored.first_part, stored.scales) == (structure.first_part, SCALES)
            and (second is None or (structure.second is not None and second.scales == SECOND_SCALES))
        )
        return cls(structure, stored, rows, is_stored=True) if fits else None

    @property
    def is_built(self) -> bool:
        """Whether there are neighbourhoods."""
        return not self.neighbourhoods.missing

    def write(self, path: Path, manifest: dict[str, Any]) -> None:
        """Store them in a gallery's folder, under a manifest that is then committed and names its other files."""
        if not self.is_built:
            return
        with new_file(path, manifest, NEIGHBOURHOODS) as file:
            save(self.neighbourhoods, file, key_of(self.structure, manifest))

    def changed(
        self, rows: Int[np.ndarray, " searched"], origin: Int[np.ndarray, " searched"],
        features: Float[np.ndarray, "new dim"], pretrained: Float[np.ndarray, "new pretrained"] | None,
    ) -> Reference:  # fmt: skip
        """The neighbourhoods after a change, at the cost of those that it touches; those of the second pass are stale.

        Args:
            rows: of the searched items in the changed gallery, ascending.
            origin: the row that each had in the gallery before; -1: it is new.
            features: of the new ones, in their order.
            pretrained: likewise, if the similarity uses them.
        """
        before, is_new = self.neighbourhoods.features, origin < 0
        at = torch.from_numpy(np.where(is_new, -1, np.searchsorted(self.rows, origin)))
        z = before[at.clamp(min=0)]
        if is_new.any():
            z[at < 0] = self.structure.space(features, pretrained)
        with _quiet():
            return Reference(self.structure, change(self.neighbourhoods, z, at), rows)

    def refreshed(self, at_most: int | None = None) -> Reference:
        """With stale neighbourhoods of the second pass listed anew: all, or so many that the next call goes on."""
        return replace(self, neighbourhoods=refresh(self.structure, self.neighbourhoods, at_most), is_stored=False)

    @property
    def stale(self) -> int:
        """How many neighbourhoods of the second pass a change of the gallery may have overtaken."""
        second = self.neighbourhoods.second
        if second is None:  # it was too small before the change
            return 0 if self.structure.second is None or self.note else len(self.rows)
        return 0 if second.stale is None else int(second.stale.sum())

    @property
    def note(self) -> str:
        """Why this gallery is ranked by the cosine instead; empty if it isn't."""
        return self.neighbourhoods.note

    @property
    def stale_note(self) -> str:
        """That neighbourhoods are stale, in a sentence; empty if none is."""
        if not (stale := self.stale):
            return ""
        return f"{stale:,} of {len(self.rows):,} neighbourhoods are still from before the last change of the gallery."

    def places(self, rows: Int[np.ndarray, " rows"]) -> Int[torch.Tensor, " rows"]:
        """Where searched items are among the neighbourhoods."""
        return torch.from_numpy(np.searchsorted(self.rows, rows))

    def scores(
        self, feature: Float[np.ndarray, " dim"], pretrained: Float[np.ndarray, " pretrained"] | None,
        rows: Int[np.ndarray, " rows"], exclude: int | None = None,
    ) -> Float[np.ndarray, " rows"]:  # fmt: skip
        """Similarities of a query with searched items.

        Args:
            feature: of the query.
            pretrained: of the query, if the similarity uses it.
            rows: of searched items in the gallery.
            exclude: the query's own row, out of which it is taken (`own_place`); None: it is not in it.
        """
        query = self.structure.space(feature[None], None if pretrained is None else pretrained[None])
        own = self.own_place(query, exclude)
        return self.structure.candidates(self.neighbourhoods, query, self.places(rows)[None], own)[0].numpy()

    def own_place(
        self, query: Float[torch.Tensor, "1 space"], exclude: int | None
    ) -> Int[torch.Tensor, " 1"] | None:  # fmt: skip
        """The place out of which a query is taken; None if it isn't searched.

        A part of an item's picture is not that item: with the item's lists of neighbours it would know what the whole
        picture is.

        Args:
            query: in the space of the similarity.
            exclude: the row that the query comes from; None: it comes from outside.
        """
        at = np.flatnonzero(self.rows == exclude) if exclude is not None else np.empty(0, int)
        if not len(at) or not are_same(self.neighbourhoods.features[at], query).all():
            return None
        return torch.from_numpy(at)


def are_same(
    stored: Float[torch.Tensor, "items space"], others: Float[torch.Tensor, "items space"]
) -> Bool[torch.Tensor, " items"]:  # fmt: skip
    """Whether features are those of the same pictures, but for rounding."""
    return torch.isclose(stored, others, atol=_SAME).all(1)


def _quiet() -> warnings.catch_warnings:
    """Without the warning of a small gallery: who searches reads `note`."""
    return warnings.catch_warnings(action="ignore", category=UserWarning)


def key_of(structure: LocalStructure, manifest: Mapping[str, Any]) -> str:
    """What stands for the neighbourhoods: the items of a gallery, and the weights of the similarity."""
    digest = hashlib.sha256(items_key(manifest).encode())
    digest.update(f"{structure.weight}".encode())
    for name, values in structure.state_dict().items():
        digest.update(name.encode() + values.numpy().tobytes())
    return digest.hexdigest()
