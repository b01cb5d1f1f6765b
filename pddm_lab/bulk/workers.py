"""Who embeds the shards of a job: this process, or workers of Ray Data on one machine or many.

A worker needs nothing but a number: it reads the shard's pictures and writes its features itself, so hardly anything
passes between processes, and Ray may repeat a shard whose worker is lost. All machines must see the same folders. The
features are those of an upload or of `gallery add`: one function makes them (`embed_each` of runs/new_items.py).
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pddm_lab.bulk.job import Job
from pddm_lab.errors import DataError, LabError, RunError
from pddm_lab.runs.model import Embeds, embedder
from pddm_lab.runs.new_items import embed_each
from pddm_lab.runs.run import Run

_SECONDS = 10.0
"""For a cluster to answer."""
_OBJECT_STORE = 100 * 2**20
"""Bytes that Ray keeps for what passes between processes here: numbers of shards."""


@dataclass(frozen=True)
class Workers:
    """Processes of Ray that embed."""

    count: int
    cores: int = 1
    """Processor cores of each."""
    cluster: str = ""
    """Address of a Ray cluster; empty: one that is started on this machine, and ended."""


def embed_shard(job: Job, embed: Embeds, shard: int) -> Iterator[int]:
    """Embed a shard; yields 1 as each picture is done, and has stored the shard at the end.

    Raises:
        DataError: the pictures' folder is gone.
        RunError: the shard can't be written.
    """
    files = [job.root / path for path in job.pictures(shard)["path"]]
    features, skipped = [], {}
    for place, made in enumerate(embed_each(embed, files, thumbs=False)):
        if isinstance(made, str):
            skipped[place] = made
        elif not np.isfinite(made.feature).all():
            skipped[place] = f"{files[place]} has features that are not finite."
        else:
            features.append(made.feature)
        yield 1
    if skipped and not job.root.is_dir():  # a disk that went away, not pictures that can't be read
        raise DataError(f"{job.root} is gone: expected the pictures there. The same command goes on where it stopped.")
    job.write(shard, np.stack(features) if features else np.empty((0, job.content["dim"])), skipped)


def in_this_process(job: Job, todo: Sequence[int], run: Run, model: str) -> Iterator[int]:
    """Embed shards; yields how many pictures are done, as they are. Raises as `embed_shard` and `embedder` do."""
    if todo:
        embed = embedder(run, model)
        for shard in todo:
            yield from embed_shard(job, embed, shard)


class _Worker:
    """A process of Ray: it loads the model once, and embeds one shard after another."""

    def __init__(self, out: str, run: str, model: str) -> None:
        self._paths, self._model = (Path(out), Path(run)), model
        self._loaded: tuple[Job, Embeds] | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        try:
            if self._loaded is None:
                self._loaded = Job.open(self._paths[0]), embedder(Run.open(self._paths[1]), self._model)
            return {"pictures": [sum(embed_shard(*self._loaded, int(shard))) for shard in batch["item"]], "error": [""]}
        except LabError as error:  # as text, since Ray would wrap it into its own
            return {"pictures": [0], "error": [str(error)]}


def in_ray(job: Job, todo: Sequence[int], run: Run, model: str, workers: Workers) -> Iterator[int]:
    """As `in_this_process`, with workers of Ray, a shard at a time.

    Raises:
        DataError: what a worker couldn't do.
        RunError: Ray doesn't start, its cluster doesn't answer, or a worker was lost again and again.
    """
    if not todo:
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # the lab sends nothing out
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    import ray
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    own: dict[str, Any] = {"address": "local", "num_cpus": workers.count * workers.cores, "include_dashboard": False,
                           "object_store_memory": _OBJECT_STORE}  # fmt: skip
    chosen = {"address": workers.cluster} if workers.cluster else own
    try:
        _reach(workers.cluster)
        ray.init(**chosen, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError, SystemExit) as error:
        where = f"The Ray cluster at {workers.cluster} doesn't answer" if workers.cluster else "Ray doesn't start here"
        reason = str(error).strip().partition("\n")[0][:300]
        raise RunError(f"{where} ({reason}). Without --workers this process embeds alone.") from error
    try:
        ray.data.DataContext.get_current().enable_progress_bars = False
        results = ray.data.from_items(list(todo), override_num_blocks=len(todo)).map_batches(
            _Worker, fn_constructor_args=(str(job.path.resolve()), str(run.path.resolve()), model), batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=min(workers.count, len(todo))), num_cpus=workers.cores,
            # so many threads does an engine start, see `Engine.threads`
            runtime_env={"env_vars": {"LOKY_MAX_CPU_COUNT": str(workers.cores)}},
        )  # fmt: skip
        for row in results.iter_rows():
            if row["error"]:
                raise DataError(row["error"])
            yield row["pictures"]
    except ray.exceptions.RayError as error:
        reason = str(error).strip().rpartition("\n")[2][:300]
        raise RunError(f"A worker of Ray failed ({reason}). The same command goes on with what is left.") from error
    finally:
        with contextlib.suppress(Exception):
            ray.shutdown()


def _reach(cluster: str) -> None:
    """Raise OSError if nothing listens at HOST:PORT: Ray itself looks for two minutes and then ends the process."""
    host, _, port = cluster.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_SECONDS).close()
