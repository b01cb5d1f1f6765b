"""Computes a trunk's features without gradients, by the fastest library that computes it right on this machine.

OpenVINO runs trunks on processors, two to four times as fast as torch. torch runs them on a GPU, and where OpenVINO
is missing, can't convert a network, or returns other features than torch on random images.
"""

from __future__ import annotations

import importlib.metadata
import logging
import threading
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import joblib
import numpy as np
import torch
from jaxtyping import Float, UInt8

from pddm_lab.errors import ConfigError
from pddm_lab.model.openvino_core import openvino_core
from pddm_lab.model.trunks import Trunk, fuse_batch_norms

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
TOLERANCE = {"32": 1e-4, "bf16": 0.25}
"""Largest difference of OpenVINO's features from torch's in 32 bits, as a share of the largest feature."""
_HINT = {"32": "f32", "bf16": "bf16"}
_BATCH = 16
"""Images that OpenVINO takes at once: with more, what lies between two layers no longer fits the processor's cache."""

Run = Callable[[UInt8[np.ndarray, "n 3 side side"]], Float[np.ndarray, "n dim"]]


class Engine:
    """A trunk ready to compute features. It starts at the first call, and may be called from several threads.

    Args:
        trunk: in evaluation mode; not changed.
        size: side of the images, in pixels.
        device: where to compute.
        precision: 32, bf16 or fp16.
        name: openvino or torch; auto for the first of them that can.
        fallback: take torch if OpenVINO fails; else the error is raised.
    """

    def __init__(
        self, trunk: Trunk, *, size: int, device: torch.device, precision: str = "32", name: str = "auto",
        fallback: bool = True,
    ) -> None:  # fmt: skip
        self.trunk, self.size, self.device, self.precision = trunk, size, device, precision
        if name == "auto":
            fits = device.type == "cpu" and precision in _HINT and find_spec("openvino") is not None
            name = "openvino" if fits else "torch"
        self.name = name
        """openvino or torch; changes from openvino to torch at the start if OpenVINO fails."""
        self._fallback, self._starting = fallback, threading.Lock()
        self._run: Run | None = None

    @property
    def facts(self) -> dict[str, str]:
        """What a run notes of how its features are computed: the library, its version and the precision."""
        return {"name": self.name, "version": importlib.metadata.version(self.name), "precision": self.precision}

    @property
    def threads(self) -> int:
        """Threads that prepare images and call the engine; more would wait for a core."""
        return joblib.cpu_count() + (self.name == "torch")

    def of(self, trunk: Trunk) -> Engine:
        """An engine of another trunk, with the same choices."""
        options: dict[str, Any] = {"size": self.size, "device": self.device, "precision": self.precision}
        return Engine(trunk, **options, name=self.name, fallback=self._fallback)

    def start(self) -> None:
        """Convert and compile the network, if that isn't done yet."""
        with self._starting:
            if self._run is not None:
                return
            if self.name == "openvino":
                try:
                    self._run = _openvino(self.trunk, self.size, self.precision)
                    return
                except Exception as error:  # a converter raises nearly anything on a network that it doesn't know
                    if not self._fallback:
                        raise
                    reason = " ".join(str(error).split())[:200]
                    logging.getLogger(__name__).warning("torch computes the features: OpenVINO fails (%s).", reason)
                    self.name = "torch"
            self._run = _Torch(fuse_batch_norms(self.trunk, self.size), self.device, self.precision)

    def __call__(self, images: UInt8[np.ndarray, "n 3 side side"]) -> Float[np.ndarray, "n dim"]:
        """Features of images."""
        if self._run is None:
            self.start()
        assert self._run is not None
        return self._run(images)


class _Torch:
    """torch as an engine: one call at a time, which uses all cores or the GPU."""

    def __init__(self, trunk: Trunk, device: torch.device, precision: str) -> None:
        self._trunk, self._device, self._calling = trunk.to(device), device, threading.Lock()
        self._autocast: dict[str, Any] = {"dtype": AUTOCAST.get(precision), "enabled": precision in AUTOCAST}

    @torch.inference_mode()
    def __call__(self, images: np.ndarray) -> np.ndarray:
        with self._calling, torch.autocast(self._device.type, **self._autocast):
            return self._trunk(torch.from_numpy(images).to(self._device)).float().cpu().numpy()


class _OpenVINO:
    """A network compiled by OpenVINO, with one stream per core: each thread that calls it keeps one core busy."""

    def __init__(self, compiled: Any) -> None:
        self._compiled, self._own = compiled, threading.local()

    @property
    def _request(self) -> Any:
        if not hasattr(self._own, "request"):
            self._own.request = self._compiled.create_infer_request()
        return self._own.request

    def __call__(self, images: np.ndarray) -> np.ndarray:
        parts = [images[start : start + _BATCH] for start in range(0, len(images), _BATCH)]
        return np.concatenate([self._request.infer([np.ascontiguousarray(part)])[0] for part in parts])


def _openvino(trunk: Trunk, size: int, precision: str) -> _OpenVINO:
    """Convert a trunk, and compare its features with torch's.

    Raises:
        ConfigError: the features differ, or OpenVINO has no such precision.
    """
    import openvino

    if precision not in _HINT:
        raise ConfigError(f"OpenVINO expects the precision {' or '.join(_HINT)}, got {precision}.")
    fused = fuse_batch_norms(trunk, size).cpu().requires_grad_(False)
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 3, size, size), dtype=np.uint8))
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the converter takes traced networks only, and torch warns of tracing
        traced = torch.jit.trace(fused, images[:2], check_trace=False)  # the check below is for another batch
        expected = fused(images).numpy()
    model = openvino.convert_model(traced, input=[openvino.PartialShape([-1, 3, size, size])])
    cores = joblib.cpu_count()
    engine = _OpenVINO(
        openvino_core().compile_model(model, "CPU", {
            "INFERENCE_PRECISION_HINT": _HINT[precision], "NUM_STREAMS": cores, "INFERENCE_NUM_THREADS": cores,
            "ENABLE_CPU_PINNING": False,  # other processes share the cores
        })
    )  # fmt: skip
    difference = np.abs(engine(images.numpy()) - expected).max() / max(np.abs(expected).max(), 1e-12)
    if not difference <= TOLERANCE[precision]:
        raise ConfigError(f"features differ from torch's by {difference:.1g} of the largest")
    return engine
