"""A service answers before its decision by local structure is fitted, and says so meanwhile."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from test_gallery import make

from pddm_lab.analysis.decision import Decision
from pddm_lab.gallery import changes
from pddm_lab.gallery.gallery import Gallery
from pddm_lab.model.similarity import make_similarity
from pddm_lab.runs.local import load_local
from pddm_lab.runs.model import load_similarities
from pddm_lab.runs.run import Run
from pddm_lab.service.decisions import Decisions


class Later:
    """An executor that does its work when it is told to."""

    def __init__(self) -> None:
        self.work: list[tuple[Any, ...]] = []

    def submit(self, *work: Any) -> Future[None]:
        self.work.append(work)
        return Future()


def test_the_decision_by_local_structure_follows(local_run: Run) -> None:
    local, later = load_local(local_run), Later()
    assert local is not None
    by = {"euclidean": load_similarities(local_run)["euclidean"], "local": local.structure}
    decisions = Decisions(by, True, later)  # type: ignore[arg-type]
    decisions.start(local_run.gallery("catalogue"))
    at_first, reason = decisions.of("euclidean")
    assert isinstance(at_first, Decision) and reason == ""
    assert decisions.of("local")[0] is None and "still fits this decision" in decisions.of("local")[1]
    ((fit, gallery),) = later.work
    fit(gallery)
    assert decisions.of("euclidean") == (at_first, "")
    fitted, reason = decisions.of("local")
    assert isinstance(fitted, Decision) and reason == "" and fitted != at_first
    assert fitted.items == at_first.items


def test_a_decision_that_cant_be_fitted_is_logged_and_an_earlier_one_holds(
    local_run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gallery, by = local_run.gallery("catalogue"), {"euclidean": load_similarities(local_run)["euclidean"]}
    decisions, failing = (Decisions(by, True, Later()) for _ in range(2))  # type: ignore[arg-type]
    decisions.start(gallery)
    earlier = decisions.of("euclidean")

    def broken(*_: object, **__: object) -> None:
        raise ValueError("singular")

    monkeypatch.setattr(Decision, "fit", broken)
    for one in (decisions, failing):
        one.fit(gallery)
    assert decisions.of("euclidean") == earlier
    nothing, reason = failing.of("euclidean")
    assert nothing is None and reason.startswith("This decision could not be fitted: the log")
    assert "The decision by euclidean could not be fitted." in caplog.text and "singular" in caplog.text


def test_what_changes_the_classes_of_many_items_fits_a_decision_again(tmp_path: Path) -> None:
    gallery, later = make(tmp_path, 300), Later()
    decisions = Decisions({"euclidean": make_similarity("euclidean", gallery.manifest["dim"])}, True, later)  # type: ignore[arg-type]
    decisions.start(gallery)
    first, second = gallery.items["class_name"].unique()[:2]

    def fits(changed: Gallery) -> bool:
        later.work.clear()
        decisions.follow(changed)
        return bool(later.work)

    assert not fits(changes.remove(gallery, gallery.items["id"].iloc[:2].tolist()))
    assert not fits(changes.undo(gallery)[0]), "what is taken back never was"
    assert not fits(changes.rename_class(gallery, first, "another name")), "the same items are together"
    merged = changes.rename_class(gallery, "another name", second)
    assert fits(merged) and later.work == [(decisions.fit, merged)]
