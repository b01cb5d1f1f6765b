"""The versions that a run notes."""

from __future__ import annotations

import importlib.metadata
import platform

_VERSIONS = ("pddm-lab", "torch", "torchvision", "lightning-fabric", "numpy", "faiss-cpu", "umap-learn")


def versions() -> dict[str, str]:
    """Of Python and of the packages that a training's result depends on."""
    installed = {"python": platform.python_version()}
    for name in _VERSIONS:
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            installed[name] = "not installed"
    return installed
