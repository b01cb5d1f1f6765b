"""The logs of a run: parquet folders that only grow, so that a page can read one while the training adds to it.

<log>.parquet/part-<number>-<last step>.parquet, numbered in the order written. `pandas.read_parquet` reads the folder
as one table. Nothing is written twice but a part that a resumed training has to cut.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pddm_lab.errors import RunError
from pddm_lab.runfiles import replacing

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

PHASES = ("select", "refit", "evaluate", "gallery", "done")
"""In order: choose the best step on validation classes, train again on all of them, measure, build the galleries."""

METRICS = {
    "step": "int64",
    "seconds": "float64",
    **dict.fromkeys(("phase", "protocol", "similarity", "metric"), "string"),
    "value": "float64",
}
QUADRUPLETS = {
    "phase": "string",
    "step": "int64",
    **dict.fromkeys(("i", "j", "k", "l", "class_i", "class_k", "class_l"), "string"),
    **dict.fromkeys(("s_ij", "s_ik", "s_jl", "d_ij", "d_ik", "d_jl", "slack_ik", "slack_jl"), "float32"),
}


class Log:
    """One growing table of fixed columns; every row has a `phase` and a `step`."""

    def __init__(self, path: Path, columns: dict[str, str]) -> None:
        """A log in the folder `path` (made at the first write), with columns name -> arrow type."""
        self.path, self.columns = path, columns
        self._chunks: list[tuple[Mapping[str, Any], int]] = []
        self._last_step = 0
        self._next: int | None = None

    def add(self, values: Mapping[str, Any], count: int, step: int) -> None:
        """Buffer `count` rows: columns of that length, or plain values that all these rows share."""
        if count:
            self._chunks.append(({name: _column(values[name], count) for name in self.columns}, count))
            self._last_step = max(self._last_step, step)

    def write(self) -> None:
        """Write the buffered rows as one new part."""
        if not self._chunks:
            return
        import pyarrow as pa

        columns = {name: np.concatenate([values[name] for values, _ in self._chunks]) for name in self.columns}
        self.path.mkdir(exist_ok=True)
        if self._next is None:
            self._next = 1 + max((int(part.name.split("-")[1]) for part in self._parts()), default=-1)
        part = self.path / f"part-{self._next:06d}-{self._last_step:08d}.parquet"
        _write_part(part, pa.Table.from_pydict(columns, schema=_schema(self.columns)))
        self._next, self._last_step = self._next + 1, 0
        self._chunks.clear()

    def read(self, names: list[str] | None = None) -> pd.DataFrame:
        """What is written, or some columns of it, in the order written; no rows before the first part.

        Raises:
            RunError: a part is torn or foreign.
        """
        import pyarrow as pa

        names = list(self.columns) if names is None else names
        empty = _schema({name: self.columns[name] for name in names}).empty_table()
        return pa.concat_tables([empty, *(table for _, table in self._tables(names))]).to_pandas()

    def truncate_after(self, phase: str, step: int) -> None:
        """Keep the rows up to a step of a phase; a part that straddles it is written again under its name."""
        at = PHASES.index(phase)
        for part, table in self._tables(list(self.columns)):
            order = np.array([PHASES.index(name) for name in table["phase"].to_pylist()])
            keep = (order < at) | ((order == at) & (table["step"].to_numpy() <= step))
            if not keep.any():
                part.unlink()
            elif not keep.all():
                _write_part(part, table.filter(keep))

    def _parts(self) -> list[Path]:
        return sorted(self.path.glob("part-*-*.parquet"))

    def _tables(self, names: list[str]) -> Iterator[tuple[Path, pa.Table]]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        schema = _schema({name: self.columns[name] for name in names})
        for part in self._parts():
            try:
                with pq.ParquetFile(part) as file:
                    table = file.read(columns=names, use_threads=False)
                yield part, table.select(names).cast(schema)
            except FileNotFoundError:
                continue  # dropped by the training that resumed meanwhile
            except (pa.ArrowException, KeyError, OSError) as error:
                reason = str(error).partition("\n")[0].rstrip(".")
                message = f"{part} is torn or foreign: expected parquet with the columns {', '.join(names)}, {reason}."
                raise RunError(f"{message} Delete this part to read the others.") from error


def _schema(columns: Mapping[str, str]) -> pa.Schema:
    import pyarrow as pa

    return pa.schema([(name, getattr(pa, kind)()) for name, kind in columns.items()])


def _write_part(path: Path, table: pa.Table) -> None:
    import pyarrow.parquet as pq

    with replacing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def _column(values: Any, count: int) -> np.ndarray:
    """`count` values: a column as it is, a plain value repeated."""
    if isinstance(values, str):
        return np.full(count, values, dtype=object)
    array = np.asarray(values)
    if array.ndim == 0:
        return np.full(count, array)
    if len(array) != count:
        raise ValueError(f"expected columns of one length, {count}, got one of {len(array)}")
    return array.astype(object) if array.dtype.kind in "UT" else array
