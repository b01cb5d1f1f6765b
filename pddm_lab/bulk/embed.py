"""Embed pictures into a folder: list them once, embed the shards that are not done, and put all together."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout

from pddm_lab.bulk.job import Job
from pddm_lab.bulk.merge import Merged, merge
from pddm_lab.bulk.pictures import list_pictures
from pddm_lab.bulk.workers import Workers, in_ray, in_this_process
from pddm_lab.data.corrections import name_of
from pddm_lab.errors import LabError, RunError
from pddm_lab.files import TEMPORARY
from pddm_lab.progress import Progress
from pddm_lab.runs.run import Run

SHARD = 10_000


def embed_pictures(
    run: Run, dataset: str, out: Path, *, data_root: Path, model: str = "", workers: Workers | None = None,
    shard_size: int = SHARD, progress: Progress | None = None, log: Callable[[str], None] = lambda line: None,
) -> Merged:  # fmt: skip
    """Embed pictures with a run's model into a folder; the same call resumes what was stopped.

    A resumed job embeds the pictures that it listed when it began: those that came since need another folder.

    Args:
        run: finished.
        dataset: as for `list_pictures`.
        out: folder of the job, new or empty, or of an earlier call with the same run and data set.
        data_root: folder that holds the data sets.
        model: as for `embedder`.
        workers: None: this process, in as many threads as it has cores.
        shard_size: pictures in a shard of a new job.
        progress: called as pictures are done.
        log: called with what a user should know.

    Raises:
        RunError: the run can't embed, the folder is of another job, another process works on it, or it can't be
            written.
        DataError: no pictures, or none that can be read.
    """
    if out.exists() and not out.is_dir():
        raise RunError(f"{out} is a file: expected a new or an empty folder for --out.")
    try:
        out.mkdir(parents=True, exist_ok=True)
        with FileLock(out / ".lock", blocking=False):
            job = _job(run, dataset, out, data_root, model, shard_size, log)
            todo = _todo(job, progress, log)
            done = job.content["pictures"] - sum(map(job.size, todo))
            work = in_ray(job, todo, run, model, workers) if workers else in_this_process(job, todo, run, model)
            for pictures in work:
                done += pictures
                if progress:
                    progress(done, job.content["pictures"], "pictures")
            return merge(job, progress)
    except Timeout:
        raise RunError(f"Another process works on {out}: try again when it has finished.") from None


def _job(
    run: Run, dataset: str, out: Path, data_root: Path, model: str, shard_size: int, log: Callable[[str], None]
) -> Job:  # fmt: skip
    """The job in the folder, or a new one."""
    for stale in [*out.glob(".*.tmp"), *out.glob("shards/.*.tmp")]:  # of a process that was killed: we hold the lock
        if TEMPORARY.fullmatch(stale.name):
            stale.unlink(missing_ok=True)
    facts = {"run": run.name, "model": _model_key(run, model), "dataset": dataset, "dim": run.config.dim}
    if (out / "job.json").exists():
        job = Job.open(out)
        is_other = name_of(job.content["dataset"]) != name_of(dataset)  # a folder may be written in several ways
        if is_other or job.content["model"] != facts["model"]:
            raise RunError(
                f"{out} has features of another {'dataset' if is_other else 'model'} (run {job.content['run']}, "
                f"{job.content['dataset']}): name another folder with --out."
            )
        return job
    log(f"Looking for the pictures of {dataset}.")
    listed = list_pictures(dataset, data_root)
    for note in listed.notes:
        log(note)
    return Job.begin(out, listed, shard_size, facts)


def _model_key(run: Run, model: str) -> str:
    """What stands for the model that embeds."""
    digest = hashlib.sha256(f"{model} {run.config.image_size} {run.config.resize} {run.info.get('engine')}".encode())
    if not run.config.is_imported:
        run.model_metadata()  # raises: there is none yet, or it is damaged
        with open(run.path / "model.safetensors", "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _todo(job: Job, progress: Progress | None, log: Callable[[str], None]) -> list[int]:
    """The shards that are not done, or not any more."""
    todo = []
    for shard in range(job.shards):
        try:
            done = job.is_done(shard)
        except (LabError, ValueError, OSError) as error:
            log(f"Shard {shard} is computed again: {error}")
            done = False
        todo += [] if done else [shard]
        if progress:
            progress(shard + 1, job.shards, "shards checked")
    return todo
