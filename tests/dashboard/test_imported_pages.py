"""Pages with runs of imported features: with labels and pictures, and with neither."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from no_maps import NoMaps

from pddm_lab.training import finish
from pddm_lab.training.imports import import_features

PAGES = ("similarity", "quadruplets", "search", "map", "audit")
COUNT = 60


@pytest.fixture
def imported(runs_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs `bare`, without labels, and `labelled`, both without pictures."""
    monkeypatch.setattr(finish, "start_map", NoMaps)
    rng = np.random.default_rng(0)
    labels = np.arange(COUNT) % 6
    np.save(tmp_path / "f.npy", rng.normal(size=(6, 8))[labels] + 0.3 * rng.normal(size=(COUNT, 8)))
    (tmp_path / "bare.csv").write_text("id\n" + "\n".join(f"item {at}" for at in range(COUNT)))
    lines = [f"item {at},class {label}" for at, label in enumerate(labels)]
    (tmp_path / "labelled.csv").write_text("id,label\n" + "\n".join(lines))
    for name in ("bare", "labelled"):
        import_features(name, tmp_path / "f.npy", tmp_path / f"{name}.csv", runs_root=str(runs_folder), shown=False)


def texts(app) -> str:  # type: ignore[no-untyped-def]
    return "\n".join(str(one.value) for kind in ("markdown", "caption", "html", "error") for one in app.get(kind))


def test_every_page_opens_features_with_labels(imported: None, open_page) -> None:  # type: ignore[no-untyped-def]
    for page in PAGES:
        app = open_page(page, run="labelled")
        assert not app.error and [one.value for one in app.warning] == ["**labelled:** No maps here."], page
    search = texts(open_page("search", run="labelled"))
    assert "**Euclidean**" in search and "9 of 9 right" in search and "**PDDM**" not in search
    assert " **class 0**" in search or "**Not in the range**" in search
    runs = open_page("runs", run="labelled")
    assert "Imported features: their model was trained elsewhere." in texts(runs)


def test_without_labels_items_are_searched_and_not_marked(imported: None, open_page) -> None:  # type: ignore[no-untyped-def]
    search = texts(open_page("search", run="bare"))
    assert "**Euclidean**" in search and " of 12 right" not in search
    for page in ("similarity", "quadruplets", "catalogue"):
        assert "Import them with a column label" in texts(open_page(page, run="bare"))
    audit = open_page("audit", run="bare")
    (views,) = [one for one in audit.segmented_control if one.key == "view"]
    assert views.options == ["Duplicates", "Licences"]
    assert "have no pictures to compare" in texts(audit)
    (colours,) = [one for one in open_page("map", run="bare").segmented_control if one.key == "colour"]
    assert "Class" not in colours.options and "Density" in colours.options
    assert [one.options for one in open_page("search", run="bare").segmented_control if one.key == "protocol"] == [
        ["All items"]
    ]
    runs = texts(open_page("runs", run="bare"))
    assert "so nothing is measured" in runs and "Through training" not in runs
    for page in ("map", "audit", "runs"):
        assert not open_page(page, run="bare").error


def test_a_picture_to_search_with_needs_the_model_that_must_be_named(imported: None, open_page) -> None:  # type: ignore[no-untyped-def]
    shown = texts(open_page("search", run="labelled", query="upload"))
    assert "name the model that made them" in shown and "gallery add labelled FOLDER" in shown
