"""Carry out the tasks of a study: each makes one cell, as soon as the cells it needs are there, on a core of its own.

Finished cells are kept at once, so that ending a study at any time loses only what is being computed.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import Any

import torch

from pddm_lab.errors import LabError, RunError
from pddm_lab.study.cells import Study


@dataclass(frozen=True)
class Task:
    """One cell to compute."""

    key: str
    work: Callable[..., dict[str, Any]]
    """Called as work(needed cells, **arguments) in any process: what `Study.write` takes beside the key."""
    arguments: dict[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    """Keys of cells that must be finished before."""
    cost: float = 1000.0
    """How long it takes beside others, to tell what is left: about milliseconds."""


@dataclass(frozen=True)
class Outcome:
    """What carrying out tasks came to."""

    computed: int
    found: int
    """Cells that were there before."""
    failures: dict[str, str]
    """Cells that could not be computed, and why; among them those that needed one that failed."""
    seconds: float


def carry_out(
    study: Study, tasks: Sequence[Task], processes: int = 1, say: Callable[[str], None] | None = None
) -> Outcome:  # fmt: skip
    """Compute the cells that are not there yet, in the order given as far as their needs allow.

    Args:
        study: keeps the cells.
        tasks: all of them; what they need is among them or in the study.
        processes: computed at once, each with one thread; 1: in this process.
        say: told what was done and what is left, a line a cell; None: standard error.

    Raises:
        RunError: a process was ended from outside.
    """
    begun = time.monotonic()
    left = {task.key: task for task in tasks if not study.has(task.key)}
    state = _State(study, left, found=len({task.key for task in tasks}) - len(left), say=say or to_stderr)
    state.say(f"{state.found} cells are there, {len(left)} are to be computed.")
    if left:
        (_in_this_process if processes <= 1 else functools.partial(_in_processes, processes=processes))(state)
        assert not left, f"these need cells that nobody computes: {sorted(left)}"
    return Outcome(state.computed, state.found, state.failures, time.monotonic() - begun)


def to_stderr(line: str) -> None:
    """A line on standard error, at once."""
    print(line, file=sys.stderr, flush=True)


@dataclass
class _State:
    study: Study
    left: dict[str, Task]
    found: int
    say: Callable[[str], None]
    computed: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    cost: float = 0.0
    seconds: float = 0.0
    processes: int = 1

    def next(self) -> Task | None:
        """Takes the first task whose needs are there; those whose needs failed fail with them."""
        for task in list(self.left.values()):
            if missing := [key for key in task.needs if key in self.failures]:
                del self.left[task.key]
                self.failures[task.key] = f"needs {missing[0]}, which failed."
            elif all(self.study.has(key) for key in task.needs):
                return self.left.pop(task.key)
        return None

    def needed(self, task: Task) -> list[dict[str, Any]]:
        return [self.study.cell(key) for key in task.needs]

    def finish(self, task: Task, result: dict[str, Any] | LabError, at_work: int) -> None:
        total = self.found + self.computed + len(self.left) + len(self.failures) + at_work + 1
        if isinstance(result, LabError):
            self.failures[task.key] = str(result)
            self.say(f"{task.key} FAILED: {result}")
            return
        self.study.write(task.key, **result)
        self.computed += 1
        self.cost, self.seconds = self.cost + task.cost, self.seconds + result["seconds"]
        remaining = sum(task.cost for task in self.left.values()) * self.seconds / self.cost / self.processes
        done = self.found + self.computed
        self.say(f"{done}/{total} {task.key}: {result['seconds']:.1f} s; about {remaining / 60:.0f} min left")


def _in_this_process(state: _State) -> None:
    threads = torch.get_num_threads()
    try:
        while task := state.next():
            state.finish(task, _attempt(task, state.needed(task)), 0)
    finally:
        torch.set_num_threads(threads)


def _in_processes(state: _State, processes: int) -> None:
    state.processes = processes
    others = set(multiprocessing.active_children())
    threads = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"  # for the processes to come: libraries read it when they are loaded
    pool = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), initializer=_begin_process)
    at_work: dict[Future, Task] = {}
    try:
        while True:
            while len(at_work) < processes and (task := state.next()):
                at_work[pool.submit(_attempt, task, state.needed(task))] = task
            if not at_work:
                break
            done, _ = wait(at_work, return_when=FIRST_COMPLETED)
            for future in done:
                task = at_work.pop(future)
                state.finish(task, future.result(), len(at_work))
        pool.shutdown()
    except BrokenProcessPool as error:
        raise RunError("A process of the study was ended from outside, most often for want of memory.") from error
    finally:
        if at_work:  # nobody waits for what is still computed
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()
        pool.shutdown(cancel_futures=True)
        os.environ.pop("OMP_NUM_THREADS")
        if threads is not None:
            os.environ["OMP_NUM_THREADS"] = threads


def _begin_process() -> None:
    """One thread; Ctrl-C is the parent's to answer, and a process whose parent is gone ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if parent := multiprocessing.parent_process():

        def follow() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=follow, daemon=True).start()


def _attempt(task: Task, needed: list[dict[str, Any]]) -> dict[str, Any] | LabError:
    """A task's cell, with the seconds it took; or the error of the lab's own that kept it from being computed."""
    torch.set_num_threads(1)
    begun = time.perf_counter()
    try:
        result = task.work(needed, **task.arguments)
    except LabError as error:
        return type(error)(str(error))  # one that every process can read
    return {"seconds": time.perf_counter() - begun, **result}
