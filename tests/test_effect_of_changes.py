"""What a change does to saved queries is measured, and kept with the change until it is undone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_gallery import make
from test_gallery_upkeep import structure, written  # noqa: F401 - a fixture

from pddm_lab.analysis.saved_queries import effect_of, recall_of, save
from pddm_lab.errors import RunError
from pddm_lab.gallery import changes, history
from pddm_lab.gallery.files import HISTORY
from pddm_lab.local.unit import LocalStructure


def test_a_change_keeps_the_recall_before_and_after_it(tmp_path: Path) -> None:
    before = make(tmp_path, 60)
    kept = save(before, 25)
    after = changes.rename_class(before, "class 0", "class 1", reason="a test")
    effect = effect_of(before, after, None)
    by_distance = recall_of(before, kept, None)["euclidean"], recall_of(after, kept, None)["euclidean"]
    assert effect.recall == {"euclidean": by_distance} and by_distance[0] < by_distance[1]
    assert effect.listed_anew == 0
    (entry,) = history.changes(after.path, after.manifest)
    assert entry.recall == {"euclidean": by_distance} and entry.reason == "a test"

    back, _ = changes.undo(after)
    undone = effect_of(after, back, None)
    assert undone.recall == {"euclidean": by_distance[::-1]}
    assert history.changes(back.path, back.manifest) == []


def test_stale_neighbourhoods_are_listed_before_the_queries_are_searched(
    structure: LocalStructure,  # noqa: F811
    tmp_path: Path,
) -> None:
    before = written(tmp_path / "gallery", 120)
    kept = save(before, 40)
    after = changes.remove(before, before.items["id"].iloc[:6].tolist(), structure)
    effect = effect_of(before, after, structure)
    assert not effect.after.reference(structure).stale and effect.recall.keys() == {"euclidean", "local"}
    assert effect.recall["local"][1] == pytest.approx(recall_of(effect.after, kept, structure)["local"])
    (entry,) = history.changes(effect.after.path, effect.after.manifest)
    assert entry.recall == effect.recall


def test_the_recall_is_kept_with_its_own_change(tmp_path: Path) -> None:
    before = make(tmp_path, 60)
    name = str(save(before, 25).items["class_name"].iloc[0])
    after = changes.rename_class(before, name, "another")
    later = changes.remove(after, after.items["id"].iloc[-1:].tolist())  # of another process, at this moment
    effect = effect_of(before, after, None)
    assert [one.recall for one in history.changes(later.path, later.manifest)] == [{}, effect.recall]


def test_a_change_that_was_undone_meanwhile_does_not_come_back(tmp_path: Path) -> None:
    before = make(tmp_path, 60)
    name = str(save(before, 25).items["class_name"].iloc[0])
    after = changes.rename_class(before, name, "another")
    changes.undo(after)
    assert effect_of(before, after, None).recall["euclidean"]
    assert not list((after.path / HISTORY).iterdir())


def test_without_saved_queries_nothing_is_measured(tmp_path: Path) -> None:
    before = make(tmp_path, 20)
    after = changes.remove(before, before.items["id"].iloc[:1].tolist())
    assert effect_of(before, after, None).recall == {}
    (entry,) = history.changes(after.path, after.manifest)
    assert entry.recall == {}


def test_a_damaged_recall_is_named(tmp_path: Path) -> None:
    before = make(tmp_path, 20)
    after = changes.remove(before, before.items["id"].iloc[:1].tolist())
    file = next((after.path / HISTORY).glob("*.json"))
    file.write_text(json.dumps(json.loads(file.read_text()) | {"recall": {"euclidean": [0.5]}}))
    with pytest.raises(RunError, match=file.name):
        history.changes(after.path, after.manifest)
