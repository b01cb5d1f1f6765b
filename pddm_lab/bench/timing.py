"""Timing as ratios inside one run: what is compared takes turns, so that a busy machine slows both alike."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import psutil
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pddm_lab.model.similarity import Similarity, make_similarity
from pddm_lab.training.losses import double_header_hinge
from pddm_lab.training.miner import mine

DIM = 128


def fastest(works: Mapping[str, Callable[[], object]], rounds: int = 7) -> dict[str, float]:
    """Seconds of each work at its best, after one call to warm up; the works take turns."""
    for work in works.values():
        work()
    seconds = dict.fromkeys(works, float("inf"))
    for _ in range(rounds):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            seconds[name] = min(seconds[name], time.perf_counter() - start)
    return seconds


def extra_memory(work: Callable[[], object]) -> float:
    """The most resident memory, in MB, that a work takes beyond what the process held before."""
    process, ended = psutil.Process(), threading.Event()
    before = most = process.memory_info().rss

    def watch() -> None:
        nonlocal most
        while not ended.is_set():
            most = max(most, process.memory_info().rss)
            time.sleep(0.001)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    work()
    ended.set()
    watcher.join()
    return (most - before) / 2**20


def tensor_memory(work: Callable[[], object]) -> float:
    """The most memory, in MB, that tensors made by a work hold at a time: exact where a process's memory is too coarse,
    since the C library keeps what was freed."""
    with _Living() as living, torch.no_grad():
        work()
    return living.most / 2**20


class _Living(TorchDispatchMode):
    """Counts the bytes of the tensors that are made and not yet gone."""

    def __init__(self) -> None:
        super().__init__()
        self._now = self.most = 0
        self._held: set[int] = set()

    def __torch_dispatch__(self, operation: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = operation(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._hold(tensor.untyped_storage())
        return made

    def _hold(self, storage: torch.UntypedStorage) -> None:
        place = storage.data_ptr()
        if place and place not in self._held:
            self._held.add(place)
            self._now += storage.nbytes()
            self.most = max(self.most, self._now)
            weakref.finalize(storage, self._let_go, place, storage.nbytes())

    def _let_go(self, place: int, size: int) -> None:
        self._held.discard(place)
        self._now -= size


def clustered(items: int, per_class: int, spread: float, seed: int = 0) -> tuple[Float[Tensor, "items dim"], Tensor]:
    """Unit-length features that lie around a centre per class, (items, 128), and their labels."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.arange(items) // per_class
    centres = F.normalize(torch.randn(int(labels.max()) + 1, DIM, generator=random), dim=1)
    noise = torch.randn(items, DIM, generator=random) / DIM**0.5
    return F.normalize(centres[labels] + spread * noise, dim=1), labels


def trained_unit(steps: int = 150, spread: float = 1.5) -> Similarity:
    """PDDM trained on clusters for some seconds: its rankings mean something, as those of a random unit don't."""
    torch.manual_seed(0)
    similarity = make_similarity("pddm", DIM)
    optimizer = torch.optim.Adam(similarity.parameters(), lr=1e-3)
    features, labels = clustered(4096, 4, spread, seed=1)
    for step in range(steps):
        part = _some_classes(labels, step)
        quads = mine(features[part], labels[part], similarity, "anchor")
        a = features[part]
        i, j, k, l = (a[ends] for ends in (quads.i, quads.j, quads.k, quads.l))
        s_ij, s_ik, s_jl = similarity(i, j), similarity(i, k), similarity(j, l)
        double_header_hinge(s_ij, s_ik, s_jl, 0.5).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return similarity.eval().requires_grad_(False)


def _some_classes(labels: Int[Tensor, " items"], step: int) -> Int[Tensor, " part"]:
    classes = torch.randperm(int(labels.max()) + 1, generator=torch.Generator().manual_seed(step))[:32]
    return torch.isin(labels, classes).nonzero().squeeze(1)
