"""Published Recall@K on CUB-200-2011 and Cars196, for comparison with this lab's measurements.

All rows use GoogLeNet with d = 128, trained on the first half of the classes and tested on the second, as in Huang et
al. (NIPS 2016). Rows of PDDM are ranked by its score S, the others by Euclidean distance. No public reproduction of the
PDDM rows is known.
"""

from __future__ import annotations

from dataclasses import dataclass

RECALLS = (1, 2, 4, 8)


@dataclass(frozen=True)
class Published:
    """One row of a published table."""

    dataset: str
    method: str
    recalls: tuple[float, float, float, float]
    """R@1, 2, 4 and 8, in %."""
    confirmed: bool
    """Whether a second text prints the same numbers; others come from one text and couldn't be checked."""


PUBLISHED = (
    Published("cub200", "Contrastive", (26.4, 37.7, 49.8, 62.3), True),
    Published("cub200", "Triplet", (36.1, 48.6, 59.3, 70.0), True),
    Published("cub200", "LiftedStruct", (47.2, 58.9, 70.2, 80.2), True),
    Published("cub200", "PDDM+Triplet", (50.9, 62.1, 73.2, 82.5), False),
    Published("cub200", "PDDM+Quadruplet", (58.3, 69.2, 79.0, 88.4), True),
    Published("cars196", "Contrastive", (21.7, 32.3, 46.1, 58.9), False),
    Published("cars196", "Triplet", (39.1, 50.4, 63.3, 74.5), False),
    Published("cars196", "LiftedStruct", (49.0, 60.3, 72.1, 81.5), False),
    Published("cars196", "PDDM+Triplet", (46.4, 58.2, 70.3, 80.1), False),
    Published("cars196", "PDDM+Quadruplet", (57.4, 68.6, 80.1, 89.4), True),
)
STRONGER = {
    "cub200": (("Proxy-Anchor, ResNet-50", 69.9), ("HIST, ResNet-50", 71.4), ("Hyp-DINO, ViT-S", 80.9)),
    "cars196": (("Proxy-Anchor, ResNet-50", 87.7), ("Hyp-DINO, ViT-S", 89.2)),
}
"""R@1 in % of later methods on larger networks, on the same splits."""


def published_rows(dataset: str) -> list[Published]:
    """The published rows of a data set, in the paper's order; empty for a data set without published rows."""
    return [row for row in PUBLISHED if row.dataset == dataset]
