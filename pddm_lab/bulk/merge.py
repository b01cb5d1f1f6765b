"""All shards of a job together: features.npy and items.parquet, a row an item, and skipped.csv."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pddm_lab.bulk.job import Job
from pddm_lab.errors import DataError
from pddm_lab.files import replacing
from pddm_lab.progress import Progress


@dataclass(frozen=True)
class Merged:
    """What a job has made."""

    features: Path
    items: Path
    skipped: Path
    """path, reason of each picture that can't be read."""
    root: Path
    """The folder that the items' paths are relative to."""
    embedded: int
    left_out: int
    """Pictures that can't be read."""


def merge(job: Job, progress: Progress | None = None) -> Merged:
    """Write the files of a job whose shards are all done, in little memory.

    Raises:
        DataError: none of the pictures can be read.
        RunError: a file can't be written, or a shard was damaged since.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    features, items, skipped = (job.path / name for name in ("features.npy", "items.parquet", "skipped.csv"))
    left_out = [job.skipped(shard) for shard in range(job.shards)]
    count = job.content["pictures"] - sum(map(len, left_out))
    if not count:
        first = left_out[0][0]
        raise DataError(f"None of {job.content['pictures']} pictures can be read. The first error: {first}")
    with replacing(features) as file, replacing(items) as table_file, replacing(skipped) as skipped_file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (count, job.content["dim"])}
        with (
            open(file, "wb") as made,  # not memory-mapped: a full disk would end the process without a word
            open(skipped_file, "w", newline="", encoding="utf-8") as opened,
            pq.ParquetWriter(table_file, pq.read_schema(job.path / "pictures.parquet")) as table,
        ):
            lines = csv.writer(opened)
            np.lib.format.write_array_header_1_0(made, header)
            lines.writerow(["path", "reason"])
            for shard, reasons in enumerate(left_out):
                pictures = job.pictures(shard)
                made.write(np.ascontiguousarray(job.features(shard), "<f4").data)
                lines.writerows((pictures["path"][place], reason) for place, reason in sorted(reasons.items()))
                kept = pictures.drop(index=list(reasons))
                table.write_table(pa.Table.from_pandas(kept, table.schema, preserve_index=False))
                if progress:
                    progress(shard + 1, job.shards, "shards put together")
    return Merged(features, items, skipped, job.root, count, sum(map(len, left_out)))
