"""Update a run: train its model on with what has arrived, and let the new one serve if it is better.

The result is a run of its own, in a folder of its own; the run that serves stays as it is and serves meanwhile. The new
folder has a hidden name until it is whole. Whatever is killed before leaves nothing but that folder, which the next
training or update deletes, and the cached features of pictures that were embedded.
"""

from __future__ import annotations

import copy
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from pddm_lab.analysis import saved_queries
from pddm_lab.errors import RunError
from pddm_lab.files import plain, temporary_beside, writing
from pddm_lab.model.embedding import signed_power
from pddm_lab.progress import Bar, Progress
from pddm_lab.runs.local import RunLocal, load_local
from pddm_lab.runs.model import load_model
from pddm_lab.runs.process import sweep_folders
from pddm_lab.runs.run import Run
from pddm_lab.runs.schema import FORMAT
from pddm_lab.runs.versions import versions
from pddm_lab.training.loop import view_inputs
from pddm_lab.update.arrivals import Arrivals
from pddm_lab.update.carry import carry, write_served
from pddm_lab.update.continued import Choices, structure_on, train_on
from pddm_lab.update.material import Material, gather_material
from pddm_lab.update.replay import replay_items
from pddm_lab.update.serving import first_of, handover, next_path, one_update, read_serving, serving, write_serving
from pddm_lab.update.verdict import Side, Verdict, judge
from pddm_lab.update.writing import Learned, write_run
from pddm_lab.wording import counted

SAVED = 500
"""Saved queries, if the run has none yet."""


@dataclass(frozen=True, eq=False)
class Updated:
    """What an update did."""

    run: Run
    """The new one."""
    source: Run
    """That it went on from, and that still serves if the new one isn't better."""
    verdict: Verdict
    notes: list[str]
    """What was passed over, a sentence each."""


def update_run(
    run: Run, read: Callable[[Progress], Arrivals], choices: Choices, bar: Bar, tried: int | None = None
) -> Updated:  # fmt: skip
    """Update the model of a run that serves, and let the new one serve if it finds more.

    Args:
        run: or one of its updates.
        read: reads what has arrived.
        choices: of the training.
        bar: opens a progress bar.
        tried: pictures that a watched folder has now, kept if the update isn't better; None: none is watched, and what
            a watch has kept stays.

    Raises:
        RunError: the run can't be updated, nothing is new, or another update is under way.
        DataError: pictures can't be read, or too few classes train.
    """
    first = first_of(run)
    with one_update(first):
        source = serving(first)
        _check(source)
        sweep_folders(first.path.parent)
        begun = time.monotonic()
        with bar("checking pictures") as report:
            arrivals = read(report).without(source.gallery(source.galleries()[0]).items["id"].tolist())
        model, local = load_model(source), load_local(source)
        with bar("trunk features") as report:
            material = gather_material(source, model, arrivals, report)
        before = Learned(model, local)
        with bar("training") as report:
            after, items = _trained(source, before, material, choices, report)
        with bar("saved queries") as report:
            report(0, 1, "saved queries")
            verdict = _judged(material, before, after)
            report(1, 1, "saved queries")
        content = read_serving(first)
        number, path = next_path(first)
        folder = temporary_beside(path)
        trained = set(_ids(material)[np.union1d(np.flatnonzero(material.trained), material.train_new)])
        info = _info(source, first, number, path.name, material, items, choices, verdict)
        try:
            written = write_run(folder, source, info, after, material, trained, bar)
            written.update(seconds=time.monotonic() - begun)
            if not verdict.better:
                if tried is not None:
                    write_serving(first, content.model_copy(update={"tried": tried}))
                _publish(folder, path)
            else:
                items = _carried(source, material.catalogue.items, written, path)  # most of it, while all goes on
                with handover(first, source):
                    _carried(source, items, written, path)
                    write_served(written)
                    changed = {"updates": [*content.updates, path.name], "tried": 0}
                    write_serving(first, content.model_copy(update=changed))
                    _publish(folder, path)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return Updated(Run.open(path), source, verdict, arrivals.notes)


def _carried(source: Run, before: pd.DataFrame, written: Run, path: Path) -> pd.DataFrame:
    """Carry changes of the catalogue over to the new run; returns its items now. See `carry`."""
    items, left = carry(source, before, written, path)
    if left:
        raise RunError(
            f"{counted(len(left), 'picture')} that came while the update trained can't be embedded by its model, so "
            f"{source.name} still serves. The first is {left[0]} Restore it, or remove the item: `pddm-lab gallery "
            f"remove {source.name} ID`."
        )
    return items


def _publish(folder: Path, path: Path) -> None:
    with writing(path):
        os.rename(folder, path)


def _check(run: Run) -> None:
    if run.status != "finished":
        raise RunError(f"{run.name} is {run.status}: only a finished run can be updated. {run.hint()}")
    config = run.config
    if config.is_imported or not config.freeze_trunk or config.familiarity:
        why = "was imported" if config.is_imported else "uses familiarity" if config.familiarity else "trains its trunk"
        raise RunError(
            f"{run.name} {why}, and an update trains a head on a frozen trunk. Train such a run: `pddm-lab train lab`."
        )


def _trained(
    run: Run, before: Learned, material: Material, choices: Choices, progress: Progress
) -> tuple[Learned, np.ndarray]:
    """The new model, and the items that trained it."""
    labels, old = material.labels, np.flatnonzero(material.trained)
    old = np.intersect1d(old, material.trainable)
    if not len(material.train_new):
        raise RunError("No new class has two pictures that can train: add more, or add them without training with "
                       f"`pddm-lab gallery add {run.name} FOLDER`.")  # fmt: skip
    power = run.config.pool_power
    replayed = replay_items(signed_power(material.inputs, power), labels, old, choices.replay)
    items = np.union1d(replayed, material.train_new)
    new_classes = np.setdiff1d(labels[material.train_new], labels[old])
    inputs = view_inputs(material.views, material.trainable, run.config.seed)
    config = replace(run.config, seed=run.config.seed + _number(run) + 1)
    model = train_on(before.model, config, choices, labels, items, inputs, new_classes, progress)
    local = None
    if before.local is not None:
        features = model.embedding.project(material.inputs[torch.from_numpy(items)]).detach()
        structure = structure_on(before.local.structure, features, labels[items])
        local = RunLocal(structure, copy.deepcopy(before.local.part), before.local.power)
    return Learned(model, local), items


def _number(run: Run) -> int:
    return int((run.info.get("updated") or {}).get("number", 0))


def _judged(material: Material, before: Learned, after: Learned) -> Verdict:
    gallery = material.catalogue.gallery
    kept = saved_queries.read(gallery) or saved_queries.save(gallery, SAVED)
    role = material.catalogue.items["role"].tolist() + material.new["role"].tolist()
    searched = np.flatnonzero(np.isin(role, ["gallery", "both"]))
    saved = np.flatnonzero(np.isin(_ids(material), kept.items["id"].tolist()))
    old, new = (
        Side(*learned.embed(material.inputs), None if learned.local is None else learned.local.structure)
        for learned in (before, after)
    )
    return judge(old, new, material.labels, searched, {"saved": saved, "new": material.held})


def _ids(material: Material) -> np.ndarray:
    return np.array(material.catalogue.items["id"].tolist() + material.new["id"].tolist(), dtype=object)


def _info(
    source: Run, first: Run, number: int, name: str, material: Material, items: np.ndarray, choices: Choices,
    verdict: Verdict,
) -> dict[str, Any]:  # fmt: skip
    """run.json of the new run."""
    replayed = np.setdiff1d(items, material.train_new)
    labels, comparable = material.labels, source.models() if choices.near else []
    updated = {
        "source": source.name, "first": first.name, "number": number, "new_items": len(material.new),
        "new_classes": len(np.setdiff1d(material.new["label"], material.catalogue.items["label"])),
        "replay": len(replayed), "replay_classes": len(np.unique(labels[replayed])), "steps": choices.steps,
        "near": choices.near, "comparable": comparable, "recall": verdict.recall, "better": verdict.better,
    }  # fmt: skip
    return plain({
        **source.info, "format": FORMAT, "name": name, "created": datetime.now(UTC).isoformat(),
        "config": {**source.info["config"], "run_name": name}, "versions": versions(), "updated": updated,
        "engine": material.engine.facts, "warnings": _warnings(source, material),
    })  # fmt: skip


def _warnings(source: Run, material: Material) -> list[str]:
    """What of the source's warnings holds, and whether classes that measure are no longer unseen."""
    warnings = [one for one in source.info.get("warnings", []) if "have trained since" not in one]
    if "unseen" not in source.protocols():
        return warnings
    trained = material.labels[np.union1d(np.flatnonzero(material.trained), material.train_new)]
    unseen = material.stored["unseen"].items["label"]
    if met := len(np.intersect1d(unseen, trained)):
        of = f"{counted(met, 'class', 'classes')} of the unseen protocol have trained since, in an update"
        warnings.append(f"{of}: its metrics are no longer of unseen classes alone.")
    return warnings
