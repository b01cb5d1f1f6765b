"""The logs of a run: parquet folders that only grow, so that a page can read them during the training.

<log>.parquet/part-<number>-<last step>.parquet, numbered in the order written. `pandas.read_parquet` reads the folder
as one table. A part is only written again if a resumed training has to cut it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pddm_lab.errors import RunError
from pddm_lab.files import arrow_schema, read_table, replacing, writing

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

PHASES = ("select", "refit", "local", "evaluate", "gallery", "done")
"""In order: choose the best step on validation classes, train again on all classes, fit the similarity on local
structure, measure, build the galleries."""

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
EUCLIDEAN = {
    **dict.fromkeys(("e_i", "e_j", "e_k", "e_l", "e_class_i", "e_class_k", "e_class_l"), "string"),
    **dict.fromkeys(("e_s_ij", "e_s_ik", "e_s_jl", "e_d_ij", "e_d_ik", "e_d_jl"), "float32"),
}
"""The quadruplet that Euclidean mining would have chosen; optional, since older logs lack it."""


def quadruplet_columns(
    ids: np.ndarray, classes: np.ndarray, mined: tuple[np.ndarray, np.ndarray],
    euclidean: tuple[np.ndarray, np.ndarray] | None = None,
) -> dict[str, np.ndarray]:  # fmt: skip
    """The quadruplets of a batch as columns of the log, without phase and step.

    Args:
        ids: of the batch's items, (items,).
        classes: names of their classes, (items,).
        mined: i, j, k, l as positions in the batch, (4, quads), and their S, D and slacks, (8, quads).
        euclidean: the choice of Euclidean mining, (4, quads), and its S and D, (6, quads).
    """
    columns: dict[str, np.ndarray] = {}
    for prefix, kinds, part in (("", QUADRUPLETS, mined), ("e_", EUCLIDEAN, euclidean)):
        if part is not None:
            ends, values = dict(zip("ijkl", part[0], strict=True)), part[1]
            columns |= {f"{prefix}{end}": ids[chosen] for end, chosen in ends.items()}
            columns |= {f"{prefix}class_{end}": classes[ends[end]] for end in "ikl"}
            names = [name for name, kind in kinds.items() if kind == "float32"]
            columns |= dict(zip(names, values, strict=True))
    return columns


def coded_table(parts: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Quadruplets in memory as the table that `Log.table` reads, texts as dictionaries.

    Args:
        parts: columns of each batch; phase and step may be plain values.
    """
    import pyarrow as pa

    columns = QUADRUPLETS | EUCLIDEAN
    rows = [{name: _column(part.get(name), len(part["i"])) for name in columns} for part in parts]
    whole = {name: np.concatenate([part[name] for part in rows]) for name in columns}
    return pa.Table.from_pydict(whole, schema=arrow_schema(columns, coded=True))


class Log:
    """One growing table of fixed columns; every row has a `phase` and a `step`."""

    def __init__(self, path: Path, columns: dict[str, str], optional: dict[str, str] | None = None) -> None:
        """A log in the folder `path` (created at the first write), with columns name -> arrow type.

        Older logs lack the optional columns; they are read as nulls.
        """
        self.path, self.optional = path, optional or {}
        self.columns = columns | self.optional
        self._chunks: list[tuple[Mapping[str, Any], int]] = []
        self._last_step = 0
        self._next: int | None = None

    def add(self, values: Mapping[str, Any], count: int, step: int) -> None:
        """Buffer `count` rows: columns of that length or plain values; optional columns may be missing."""
        if count:
            values = dict.fromkeys(self.optional) | dict(values)
            self._chunks.append(({name: _column(values[name], count) for name in self.columns}, count))
            self._last_step = max(self._last_step, step)

    def write(self) -> None:
        """Write the buffered rows as a new part."""
        if not self._chunks:
            return
        import pyarrow as pa

        columns = {name: np.concatenate([values[name] for values, _ in self._chunks]) for name in self.columns}
        with writing(self.path):
            self.path.mkdir(exist_ok=True)
        if self._next is None:
            self._next = 1 + max((int(part.name.split("-")[1]) for part in self._parts()), default=-1)
        part = self.path / f"part-{self._next:06d}-{self._last_step:08d}.parquet"
        _write_part(part, pa.Table.from_pydict(columns, schema=arrow_schema(self.columns)))
        self._next, self._last_step = self._next + 1, 0
        self._chunks.clear()

    def read(self, names: list[str] | None = None) -> pd.DataFrame:
        """All written rows, or some columns of them, in the order written.

        Raises:
            RunError: a part is damaged or was not written by this lab.
        """
        return self.table(names).to_pandas()

    def table(self, names: list[str] | None = None, coded: bool = False) -> pa.Table:
        """The same as `read`, as an arrow table.

        Args:
            names: columns; all of them by default.
            coded: texts as dictionaries, one for all parts: a million rows then take a tenth of the time and memory.
        """
        import pyarrow as pa

        names = list(self.columns) if names is None else names
        empty = arrow_schema({name: self.columns[name] for name in names}, coded).empty_table()
        whole = pa.concat_tables([empty, *(table for _, table in self._tables(names, coded))])
        return whole.unify_dictionaries() if coded else whole

    def truncate_after(self, phase: str, step: int) -> None:
        """Keep the rows up to a step of a phase; a part across this step is written again under its name."""
        at = PHASES.index(phase)
        for part, table in self._tables(list(self.columns)):
            order = np.array([PHASES.index(name) for name in table["phase"].to_pylist()])
            keep = (order < at) | ((order == at) & (table["step"].to_numpy() <= step))
            if not keep.any():
                with writing(part):
                    part.unlink()
            elif not keep.all():
                _write_part(part, table.filter(keep))

    def _parts(self) -> list[Path]:
        return sorted(part for part in self.path.glob("part-*.parquet") if re.fullmatch(r"part-\d+-\d+", part.stem))

    def _tables(self, names: list[str], coded: bool = False) -> Iterator[tuple[Path, pa.Table]]:
        columns, hint = {name: self.columns[name] for name in names}, "Delete this part to read the others."
        for part in self._parts():
            try:
                table = read_table(part, columns, hint, optional=self.optional, coded=coded, among={"phase": PHASES})
            except RunError:
                if part.exists():
                    raise
                continue  # deleted by a training that was resumed meanwhile
            yield part, table


def _write_part(path: Path, table: pa.Table) -> None:
    import pyarrow.parquet as pq

    with replacing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def _column(values: Any, count: int) -> np.ndarray:
    """`count` values: a column unchanged, or a plain value repeated."""
    if values is None or isinstance(values, str):
        return np.full(count, values, dtype=object)
    array = np.asarray(values)
    if array.ndim == 0:
        return np.full(count, array)
    if len(array) != count:
        raise ValueError(f"expected columns of one length, {count}, got one of {len(array)}")
    return array.astype(object) if array.dtype.kind in "UT" else array
