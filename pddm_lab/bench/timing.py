"""Timing for comparisons within one process: the compared works take turns, so that other load slows all of them."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import psutil
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pddm_lab.model.similarity import Similarity, make_similarity
from pddm_lab.training.losses import double_header_hinge
from pddm_lab.training.miner import mine

DIM = 128


def fastest(works: Mapping[str, Callable[[], object]], rounds: int = 7) -> dict[str, float]:
    """Shortest seconds of each work, after one call to warm up; the works take turns, and a GPU's are waited for."""
    for work in works.values():
        work()
    wait()
    seconds = dict.fromkeys(works, float("inf"))
    for _ in range(rounds):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            wait()
            seconds[name] = min(seconds[name], time.perf_counter() - start)
    return seconds


def wait() -> None:
    """Wait for the GPU's work, if there is any: its calls return at once."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def extra_memory(work: Callable[[], object], device: str = "cpu") -> float:
    """Peak memory of a work, in MB, in addition to what was held before: the process's resident memory, or a GPU's."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
        work()
        return (torch.cuda.max_memory_allocated() - held) / 2**20
    process, ended = psutil.Process(), threading.Event()
    before = peak = process.memory_info().rss

    def watch() -> None:
        nonlocal peak
        while not ended.is_set():
            peak = max(peak, process.memory_info().rss)
            time.sleep(0.001)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    work()
    ended.set()
    watcher.join()
    return (peak - before) / 2**20


def tensor_memory(work: Callable[[], object]) -> float:
    """Peak memory, in MB, of the tensors that a work creates; exact, while a process keeps freed memory."""
    with _TensorBytes() as tensors, torch.no_grad():
        work()
    return tensors.peak / 2**20


class _TensorBytes(TorchDispatchMode):
    """Counts the bytes of the tensors that exist."""

    def __init__(self) -> None:
        super().__init__()
        self._now = self.peak = 0
        self._held: set[int] = set()

    def __torch_dispatch__(self, operation: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = operation(*args, **(kwargs or {}))
        for tensor in tree_leaves(output):
            if isinstance(tensor, Tensor):
                self._hold(tensor.untyped_storage())
        return output

    def _hold(self, storage: torch.UntypedStorage) -> None:
        address = storage.data_ptr()
        if address and address not in self._held:
            self._held.add(address)
            self._now += storage.nbytes()
            self.peak = max(self.peak, self._now)
            weakref.finalize(storage, self._release, address, storage.nbytes())

    def _release(self, address: int, size: int) -> None:
        self._held.discard(address)
        self._now -= size


def clustered(items: int, per_class: int, spread: float, seed: int = 0) -> tuple[Float[Tensor, "items dim"], Tensor]:
    """Unit-length features around a centre per class, (items, 128), and their labels."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.arange(items) // per_class
    centres = F.normalize(torch.randn(int(labels.max()) + 1, DIM, generator=random), dim=1)
    noise = torch.randn(items, DIM, generator=random) / DIM**0.5
    return F.normalize(centres[labels] + spread * noise, dim=1), labels


def trained_unit(steps: int = 150, spread: float = 1.5) -> Similarity:
    """PDDM trained on clusters for a few seconds, because the rankings of a random unit mean nothing."""
    torch.manual_seed(0)
    similarity = make_similarity("pddm", DIM)
    optimizer = torch.optim.Adam(similarity.parameters(), lr=1e-3)
    features, labels = clustered(4096, 4, spread, seed=1)
    for step in range(steps):
        classes = torch.randperm(int(labels.max()) + 1, generator=torch.Generator().manual_seed(step))[:32]
        part = torch.isin(labels, classes).nonzero().squeeze(1)
        quads = mine(features[part], labels[part], similarity, "anchor")
        a = features[part]
        i, j, k, l = (a[ends] for ends in (quads.i, quads.j, quads.k, quads.l))
        s_ij, s_ik, s_jl = similarity(i, j), similarity(i, k), similarity(j, l)
        double_header_hinge(s_ij, s_ik, s_jl, 0.5).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return similarity.eval().requires_grad_(False)
