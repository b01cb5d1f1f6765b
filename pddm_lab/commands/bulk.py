"""The command `embed`: features of very many pictures, made by a run's model in one process or on many machines."""

from __future__ import annotations

import sys
import time
from typing import Annotated

from annotated_types import Interval

from pddm_lab import config
from pddm_lab.commands.terminal import DataRoot, RunName, RunsRoot, progress_bar
from pddm_lab.config import Count, CountOrNone, typed_path

_Shard = Annotated[int, Interval(ge=1, le=10**7)]


def embed(
    run: RunName, dataset: str, out: str, workers: CountOrNone = 0, cores: Count = 1, cluster: str = "",
    shard: _Shard = 10_000, model: str = "", data_root: DataRoot = "", runs_root: RunsRoot = "",
) -> None:  # fmt: skip
    """Embed a folder or a table of pictures with a run's model, to import the features. The same command resumes.

    Args:
        dataset: folder:PATH, manifest:FILE.csv with a column path, or a name that pddm-lab data list shows.
        out: Folder for the features: new, or of the same job that was stopped.
        workers: Processes of Ray that share the work, with the extra bulk; 0: this process alone, on all its cores.
        cores: Processor cores of each worker.
        cluster: Address of a Ray cluster whose machines see the same folders, such as auto; empty: this machine.
        shard: Pictures that are stored at once; a job keeps its number.
        model: Of a run of imported features, the model that made them, package.module:callable.
    """
    from pddm_lab.bulk.embed import embed_pictures
    from pddm_lab.bulk.workers import Workers
    from pddm_lab.runs.compare import find_run

    used, start = find_run(run, runs_root), time.monotonic()
    with progress_bar() as report:
        made = embed_pictures(
            used, dataset, typed_path(out), data_root=config.data_root(data_root), model=model,
            workers=Workers(workers, cores, cluster) if workers else None, shard_size=shard, progress=report,
            log=lambda line: print(line, file=sys.stderr),
        )  # fmt: skip
    print(f"{made.embedded:,} pictures have features in {made.features} ({time.monotonic() - start:.0f} s).")
    if made.left_out:
        print(f"{made.left_out:,} can't be read: {made.skipped} says which, and why.")
    print(f"To open them: pddm-lab import NAME --features {made.features} --items {made.items} --images {made.root}")
