"""Training speed: steps and seconds until a share of the best value, or a given value, is reached.

Seconds count from the first row of a phase, so that work before the training, such as computing the trunk's features,
is excluded. They depend on the machine that trained.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("run", "similarity", "best", "best_step", "share_step", "share_seconds", "target_step", "target_seconds")


def since_start(log: pd.DataFrame) -> pd.DataFrame:
    """A log of one run, or of several with a column `run`, with `seconds` from the first row of each phase."""
    keys = [name for name in ("run", "phase") if name in log]
    return log.assign(seconds=log["seconds"] - log.groupby(keys, observed=True)["seconds"].transform("min"))


def kept_value(log: pd.DataFrame, metric: str, similarity: str, best_step: int | None) -> float:
    """A run's value on the validation classes at its best step, else at its last step; NaN if there is none.

    Args:
        log: of one run.
        metric: its name, such as "map@r".
        best_step: from run.json.
    """
    rows = _validation(log, metric)
    rows = rows[rows["similarity"] == similarity]
    at_best = rows.loc[rows["step"] == best_step, "value"]
    values = at_best if len(at_best) else rows["value"]
    return float(values.iloc[-1]) if len(values) else float("nan")


def speed(log: pd.DataFrame, metric: str, share: float = 0.99, target: float = float("nan")) -> pd.DataFrame:
    """When each run, with each similarity, first reached a share of its own best value, and a given value.

    Args:
        log: of a run, or of several with a column `run`: step, seconds, phase, protocol, similarity, metric, value.
        metric: one for which larger is better.
        share: of the best value on the validation classes, 0 to 1.
        target: a value to reach; NaN for none.

    Returns:
        One row per run and similarity with `COLUMNS`; step and seconds are NaN if the value wasn't reached.
    """
    import pandas as pd

    rows = _validation(since_start(log), metric)
    table = []
    for (run, similarity), curve in rows.groupby(["run", "similarity"], sort=False, observed=True):
        curve = curve.sort_values("step")
        value = curve["value"].to_numpy()
        if not np.isfinite(value).any():
            continue
        best = float(np.nanmax(value))
        best_step = int(curve["step"].iloc[int(np.nanargmax(value))])
        reached = (*_first(curve, value >= share * best), *_first(curve, value >= target))
        table.append((run, similarity, best, best_step, *reached))
    return pd.DataFrame(table, columns=[*COLUMNS])


def _validation(log: pd.DataFrame, metric: str) -> pd.DataFrame:
    rows = log[(log["protocol"] == "validation") & (log["metric"] == metric)]
    return rows if "run" in rows else rows.assign(run="")


def _first(curve: pd.DataFrame, reached: np.ndarray) -> tuple[float, float]:
    """Step and seconds of the first row that is marked."""
    if not reached.any():
        return float("nan"), float("nan")
    row = curve.iloc[int(np.argmax(reached))]
    return float(row["step"]), float(row["seconds"])
