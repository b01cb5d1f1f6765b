"""A gallery as a similarity on local structure sees it: its searched items, each with its neighbourhood.

It is computed from the stored features, in a second or two for 6,000 items, and never stored: so it is never behind a
change of the gallery.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from pddm_lab.local.neighbourhoods import Neighbourhoods
from pddm_lab.local.unit import LocalStructure


@dataclass(frozen=True, eq=False)
class Reference:
    """The neighbourhoods of a gallery's searched items."""

    structure: LocalStructure
    neighbourhoods: Neighbourhoods
    rows: Int[np.ndarray, " searched"]
    """Rows of the searched items in the gallery, ascending."""

    @classmethod
    def of(
        cls, structure: LocalStructure, features: Float[np.ndarray, "searched dim"],
        pretrained: Float[np.ndarray, "searched pretrained"] | None, rows: Int[np.ndarray, " searched"],
    ) -> Reference:  # fmt: skip
        """Look at the searched items of a gallery with a run's similarity."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="This gallery has")  # who searches reads `note`
            return cls(structure, structure.reference(features, pretrained), rows)

    @property
    def note(self) -> str:
        """Why this gallery is ranked by the cosine instead; empty if it isn't."""
        return self.neighbourhoods.note

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
            exclude: the query's own row, out of which it is taken where it is searched too; None: it is not in it.
        """
        query = self.structure.space(feature[None], None if pretrained is None else pretrained[None])
        own = None
        if exclude is not None and len(at := np.flatnonzero(self.rows == exclude)):
            own = torch.from_numpy(at)
        return self.structure.candidates(self.neighbourhoods, query, self.places(rows)[None], own)[0].numpy()
