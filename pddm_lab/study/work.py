"""Compute the cells of a study with joblib: each as soon as the cells it needs are there, on a core of its own.

Every finished cell is written immediately, so stopping a study loses only the cells that are being computed.
"""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from joblib import Parallel, delayed, parallel_config
from joblib.externals.loky import get_reusable_executor

from pddm_lab.errors import LabError, RunError
from pddm_lab.runs.process import end_with
from pddm_lab.study.cells import Study


@dataclass(frozen=True)
class Task:
    """One cell to compute."""

    key: str
    work: Callable[..., dict[str, Any]]
    """Called as work(needed cells, **arguments) in any process; returns what `Study.write` takes besides the key."""
    arguments: dict[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    """Keys of cells that must be finished first."""
    cost: float = 1000.0
    """Expected duration relative to other tasks, in about milliseconds; for estimating the time left."""


@dataclass(frozen=True)
class Outcome:
    """The result of `compute_cells`."""

    computed: int
    present: int
    """Cells that were there before."""
    failures: dict[str, str]
    """Key -> reason of each cell that couldn't be computed, including those that needed a failed one."""
    seconds: float


def compute_cells(
    study: Study, tasks: Sequence[Task], processes: int = 1, log: Callable[[str], None] | None = None
) -> Outcome:
    """Compute the missing cells, in the given order as far as their needs allow.

    Args:
        tasks: all tasks; what they need is among them or in the study.
        processes: that compute in parallel, each with one thread; 1: compute in this process.
        log: receives a line about each cell; None: standard error.

    Raises:
        RunError: a process was killed.
    """
    begun, log = time.monotonic(), log or to_stderr
    task_of = {task.key: task for task in tasks}
    left = {key: task for key, task in task_of.items() if not study.has(key)}
    present, computed, cost, seconds = len(task_of) - len(left), 0, 0.0, 0.0
    failures: dict[str, str] = {}
    log(f"{present} cells are there, {len(left)} are to be computed.")

    def ready() -> Iterator[Any]:
        # joblib's own thread asks for the next task when a process is free.
        while task := next((task for task in list(left.values()) if all(map(study.has, task.needs))), None):
            yield delayed(_attempt)(left.pop(task.key), study.path)

    options: dict[str, Any] = {"backend": "sequential"}
    if processes > 1:
        options = {"backend": "loky", "inner_max_num_threads": 1}
        options |= {"initializer": end_with, "initargs": (os.getpid(),)}
    parallel = {"n_jobs": processes, "return_as": "generator_unordered", "batch_size": 1, "pre_dispatch": "n_jobs"}
    try:
        while waiting := len(left):
            with (
                parallel_config(**options),
                warnings.catch_warnings(),
                closing(Parallel(**parallel)(ready())) as results,
            ):
                warnings.filterwarnings("ignore", message=".*still being processed")  # Ctrl-C ends these tasks
                for key, result in results:
                    if isinstance(result, LabError):
                        failures[key] = str(result)
                        log(f"{key} FAILED: {result}")
                        continue
                    study.write(key, **result)
                    computed, cost, seconds = computed + 1, cost + task_of[key].cost, seconds + result["seconds"]
                    minutes = sum(task.cost for task in list(left.values())) * seconds / cost / processes / 60
                    progress = f"{present + computed}/{len(task_of)} {key}"
                    log(f"{progress}: {result['seconds']:.1f} s; about {minutes:.0f} min left")
            if len(left) == waiting:
                break
    except BrokenProcessPool as error:
        raise RunError("A process of the study was killed, most often because memory ran out.") from error
    finally:
        if processes > 1:
            get_reusable_executor(reuse=True).shutdown(kill_workers=True)
    for key, task in left.items():
        failed = next((need for need in task.needs if need in failures), None)
        assert failed, f"{key} needs a cell that no task computes"
        failures[key] = f"needs {failed}, which failed."
    return Outcome(computed, present, failures, time.monotonic() - begun)


def to_stderr(line: str) -> None:
    """Print a line on standard error, unbuffered."""
    print(line, file=sys.stderr, flush=True)


def _attempt(task: Task, study: Path) -> tuple[str, dict[str, Any] | LabError]:
    """The task's key, and its cell with the seconds it took, or the lab's error that prevented it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    begun = time.perf_counter()
    try:
        needed = [Study(study).cell(key) for key in task.needs]
        result = task.work(needed, **task.arguments)
    except LabError as error:
        return task.key, type(error)(str(error))  # without attributes that another process couldn't read
    finally:
        torch.set_num_threads(threads)
    return task.key, {"seconds": time.perf_counter() - begun, **result}
