"""PDDM Lab: train a local similarity, compare it with a global distance, find out why an image was retrieved.

The names below are the public surface; each is imported when it is first used, so that `import pddm_lab` is cheap.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pddm_lab.config import PRESETS, TrainConfig
    from pddm_lab.data.dataset import read_dataset
    from pddm_lab.gallery.gallery import Gallery
    from pddm_lab.local.fit import fit_local_structure
    from pddm_lab.local.neighbourhoods import Neighbourhoods
    from pddm_lab.local.reciprocal import KReciprocal
    from pddm_lab.local.similarity import CSLS, Expansion
    from pddm_lab.local.unit import LocalStructure
    from pddm_lab.metrics.retrieval import evaluate
    from pddm_lab.model.pddm import PDDM
    from pddm_lab.model.similarity import Cosine, Euclidean, Mahalanobis, PDDMSimilarity, Similarity, make_similarity
    from pddm_lab.runs.compare import list_runs
    from pddm_lab.runs.run import Run
    from pddm_lab.training.losses import (
        distance_hinge,
        double_header_hinge,
        embedding_hinge,
        joint_objective,
        score_hinge,
    )
    from pddm_lab.training.miner import Quadruplets, mine
    from pddm_lab.training.trainer import resume, train

# Before torch is imported: its idle threads then sleep instead of spinning. With more busy processes than cores (a page
# beside a training, a neighbour on the machine) spinning was measured to make scoring ten times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"

_PUBLIC = {
    "config": "PRESETS TrainConfig",
    "data.dataset": "read_dataset",
    "gallery.gallery": "Gallery",
    "local.fit": "fit_local_structure",
    "local.neighbourhoods": "Neighbourhoods",
    "local.reciprocal": "KReciprocal",
    "local.similarity": "CSLS Expansion",
    "local.unit": "LocalStructure",
    "metrics.retrieval": "evaluate",
    "model.pddm": "PDDM",
    "model.similarity": "Cosine Euclidean Mahalanobis PDDMSimilarity Similarity make_similarity",
    "runs.compare": "list_runs",
    "runs.run": "Run",
    "training.losses": "distance_hinge double_header_hinge embedding_hinge joint_objective score_hinge",
    "training.miner": "Quadruplets mine",
    "training.trainer": "resume train",
}
_HOME = {name: module for module, names in _PUBLIC.items() for name in names.split()}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'pddm_lab' has no attribute {name!r}")
    return getattr(importlib.import_module(f"pddm_lab.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *_HOME]
