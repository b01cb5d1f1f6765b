"""Runs as rows: what the pages list and compare, without a page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from pddm_lab.config import PRESETS, TrainConfig
from pddm_lab.figures import style_of
from pddm_lab.runs.compare import WHERE
from pddm_lab.runs.run import PROTOCOLS, Run


def overview(runs: Sequence[Run]) -> pd.DataFrame:
    """One row per run: its state, and its first metrics by D and by the similarity it trained, in %."""
    rows = []
    for run in runs:
        row: dict[str, Any] = {
            "run": run.name,
            "status": [run.status],
            "data": run.info["dataset"]["name"],
            "training": f"{run.config.preset}, {style_of(run.config.similarity).title}",
        }
        for protocol in PROTOCOLS:
            for letter, similarity in (("D", "euclidean"), ("S", run.config.similarity)):
                value = run.info["metrics"].get(protocol, {}).get(similarity, {}).get("recall@1")
                row[f"{protocol} {letter}"] = None if value is None else 100 * value
        row |= {
            "seed": run.config.seed,
            "seconds": run.seconds,
            "notes": " ".join(run.notes.split())[:200],
            "created": run.created.astimezone().replace(tzinfo=None),
        }
        rows.append(row)
    return pd.DataFrame(rows)


def changed_from_preset(config: TrainConfig) -> pd.DataFrame:
    """The choices that differ from the run's preset: field, preset's value, this run's value."""
    preset = PRESETS.get(config.preset, TrainConfig()).to_dict()
    rows = [
        (name, str(preset[name]), str(value))
        for name, value in config.to_dict().items()
        if name not in WHERE and value != preset[name]
    ]
    return pd.DataFrame(rows, columns=["choice", f"preset {config.preset}", "this run"])


def last_step(run: Run, metrics: pd.DataFrame) -> int:
    """The latest step of the run's phase: the log is ahead of run.json between two measurements."""
    logged = metrics.loc[(metrics["phase"] == run.info["phase"]) & (metrics["protocol"] == "train"), "step"]
    return max(int(run.info.get("step") or 0), int(logged.max()) if len(logged) else 0)


def latest(metrics: pd.DataFrame, protocol: str, metric: str) -> dict[str, float]:
    """The newest value of a metric by similarity."""
    rows = metrics[(metrics["protocol"] == protocol) & (metrics["metric"] == metric)]
    return {str(row.similarity): float(row.value) for row in rows.groupby("similarity").tail(1).itertuples()}
