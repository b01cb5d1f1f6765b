"""Runs and their settings as table rows, without a page."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any, get_args, get_type_hints

import pandas as pd

from pddm_lab.config import LOSSES, PRESETS, TrainConfig
from pddm_lab.runs.compare import WHERE, final_metrics, lead_over_d
from pddm_lab.runs.run import PROTOCOLS, Run
from pddm_lab.similarities import PRETRAINED, SIMILARITIES


def overview(runs: Sequence[Run]) -> pd.DataFrame:
    """One row per run: its status; Recall@1 in % by D and by local structure, and how many points of MAP@R the best of
    its local similarities is ahead of D; then Recall@1 by the trained similarity and of pretrained features."""
    rows = []
    for run in runs:
        measured = final_metrics(run)
        row: dict[str, Any] = {
            "run": run.name,
            "status": [run.status],
            "data": run.info["dataset"]["name"],
            "training": run.config.preset
            if run.config.is_imported
            else f"{run.config.preset}, {run.config.trained_by}",
        }
        similarities = {"D": "euclidean", "L": "local", "S": run.config.similarity, PRETRAINED: PRETRAINED}
        for names in (("D", "L", "lead"), ("S",), (PRETRAINED,)):  # what is compared first, and the rest
            for protocol, name in product(PROTOCOLS, names):
                of = measured.get(protocol, {}).get(similarities.get(name, ""), {})
                share = lead_over_d(run, protocol) if name == "lead" else of.get("recall@1")
                row[f"{protocol} {name}"] = None if share is None else 100 * share
        row |= {
            "seed": run.config.seed,
            "seconds": run.seconds,
            "warnings": " ".join(run.info.get("warnings", ())),
            "notes": " ".join(run.notes.split())[:200],
            "created": run.created.astimezone().replace(tzinfo=None),
        }
        rows.append(row)
    return pd.DataFrame(rows)


def changed_from_preset(config: TrainConfig) -> pd.DataFrame:
    """The settings that differ from the run's preset: field, preset's value, this run's value."""
    preset = PRESETS.get(config.preset, TrainConfig()).to_dict()
    rows = [
        (name, str(preset[name]), str(value))
        for name, value in config.to_dict().items()
        if name not in WHERE and value != preset[name]
    ]
    return pd.DataFrame(rows, columns=["setting", f"preset {config.preset}", "this run"])


def options(field: str) -> list[str]:
    """The values that a field of TrainConfig allows, where it is one of a few."""
    return list(get_args(get_type_hints(TrainConfig)[field]))


def option_title(field: str, value: str) -> str:
    """The title of an allowed value of `loss` or `similarity`."""
    return LOSSES[value].title if field == "loss" else SIMILARITIES[value].title


def last_step(run: Run, metrics: pd.DataFrame) -> int:
    """The latest step of the run's phase, from the log too: run.json is updated only at measurements."""
    logged = metrics.loc[(metrics["phase"] == run.info["phase"]) & (metrics["protocol"] == "train"), "step"]
    return max(int(run.info.get("step") or 0), int(logged.max()) if len(logged) else 0)


def latest(metrics: pd.DataFrame, protocol: str, metric: str) -> dict[str, float]:
    """The newest value of a metric by similarity."""
    rows = metrics[(metrics["protocol"] == protocol) & (metrics["metric"] == metric)]
    return {str(row.similarity): float(row.value) for row in rows.groupby("similarity").tail(1).itertuples()}
