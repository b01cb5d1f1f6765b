"""Mined logs made up for tests: batches of random scores, mined as the learner mines them, by slow loops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import reference

from pddm_lab.runs.log import EUCLIDEAN, QUADRUPLETS, Log

CLASSES = ["apple", "pear", "plum", "quince"]
ITEMS = [f"{name}/{number}.png" for name in CLASSES for number in range(5)]


def mined_frame(steps: int = 6, phase: str = "refit", seed: int = 0, strategy: str = "anchor") -> pd.DataFrame:
    """A log with the columns of quadruplets.parquet: a batch a step, three items of each of three classes."""
    random, rows = np.random.default_rng(seed), []
    for step in range(1, steps + 1):
        chosen = [c * 5 + n for c in random.permutation(4)[:3] for n in random.permutation(5)[:3]]
        labels = [item // 5 for item in chosen]
        table = random.normal(size=(2, 9, 9)).astype(np.float32)
        scores, nearness = table + table.transpose(0, 2, 1)
        distances = 3 - nearness
        mine = reference.hardest_of_anchors if strategy == "anchor" else lambda *a: [reference.hardest_of_batch(*a)]
        for taken, other in zip(mine(scores, labels), mine(nearness, labels), strict=True):
            row: dict[str, Any] = {"phase": phase, "step": step}
            for prefix, ends in (("", taken), ("e_", other)):
                row |= {f"{prefix}{end}": ITEMS[chosen[at]] for end, at in zip("ijkl", ends, strict=True)}
                row |= {f"{prefix}class_{end}": CLASSES[labels[ends["ijkl".index(end)]]] for end in "ikl"}
                i, j, k, l = ends
                for pair, (a, b) in {"ij": (i, j), "ik": (i, k), "jl": (j, l)}.items():
                    row |= {f"{prefix}s_{pair}": scores[a, b], f"{prefix}d_{pair}": distances[a, b]}
            row |= {f"slack_{pair}": 0.5 + row[f"s_{pair}"] - row["s_ij"] for pair in ("ik", "jl")}
            rows.append(row)
    return pd.DataFrame(rows)[[*QUADRUPLETS, *EUCLIDEAN]]


def write(path: Path, frame: pd.DataFrame, part: int = 20) -> pa.Table:
    """The frame written as a log, in parts, and read back with its texts as codes."""
    log = Log(path, QUADRUPLETS, optional=EUCLIDEAN)
    for start in range(0, len(frame), part):
        rows = frame.iloc[start : start + part]
        columns = {
            name: rows[name].to_numpy(dtype=object if kind == "string" else None) for name, kind in KINDS.items()
        }
        log.add(columns, len(rows), int(rows["step"].max()))
        log.write()
    return log.table(coded=True)


KINDS = QUADRUPLETS | EUCLIDEAN
