"""The Catalogue page changes a real run's catalogue, says what that did to the saved queries, and takes it back."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from reading import blocks, texts

from pddm_lab.data.uploads import FOLDER
from pddm_lab.errors import LabError
from pddm_lab.runs.run import CATALOGUE, Run


@pytest.fixture(autouse=True)
def redrawn(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The galleries whose maps were to be drawn anew; no process is started."""
    paths: list[Path] = []
    monkeypatch.setattr("pddm_lab.gallery.redraw.start_redrawing", paths.append)
    return paths


def button(app, label: str):
    """The button whose label begins so."""
    (one,) = [one for one in app.button if one.label.startswith(label)]
    return one


def choose(app, items: list[str]):
    """Choose pictures, as clicks on them would."""
    app.session_state["catalogue_chosen"] = items
    return app.run()


def test_pictures_are_removed_and_brought_back(open_page, with_digits: Path, redrawn: list[Path]) -> None:
    run = Run.open(with_digits / "digits")
    before = run.gallery(CATALOGUE)
    app = open_page("catalogue", run="digits")
    assert f"{len(before):,} items of 10 classes" in texts(app) and "None yet" in texts(app)
    button(app, "Save queries").click().run()
    assert "R@1 of the 500 saved queries" in texts(app)

    name = app.selectbox(key="class").value
    members = before.items["id"][before.items["class_name"] == name].tolist()
    assert all(f'data-pick="{item}"' in blocks(app, "members") for item in members[:5])
    assert button(app, "Remove pictures").disabled
    choose(app, members[:2])
    assert blocks(app, "members").count("pl-chosen") == 2 + 1, "two tiles and the style"
    button(app, "Remove 2 pictures").click().run()
    after = run.gallery(CATALOGUE)
    assert set(before.items["id"]) - set(after.items["id"]) == set(members[:2])
    assert "Removed 2 items." in texts(app) and "→" in texts(app) and "removed 2 items" in texts(app)
    button(app, "Undo the last").click().run()
    assert run.gallery(CATALOGUE).items["id"].tolist() == before.items["id"].tolist()
    assert "Undone: removed 2 items." in texts(app) and "None yet" in texts(app)
    assert redrawn == 2 * [before.path]


def test_a_class_is_merged_with_another_and_removed(open_page, with_digits: Path) -> None:
    from app_pages.catalogue import data

    run = Run.open(with_digits / "digits")
    counts = data.classes(run)
    first, second = map(str, counts.index[:2])
    assert data.rename(run, first, f" {second} ", "the same thing").text == f"{first} is now part of {second}."
    assert data.classes(run)[second] == counts[first] + counts[second]
    assert data.changes(run)[0].reason == "the same thing"
    assert data.rename(run, second, "shelf 10", "").text == f"{second} is now called shelf 10."
    app = open_page("catalogue", run="digits", **{"class": "shelf 10"})
    assert app.selectbox(key="class").value == "shelf 10" and "the same thing" in texts(app)
    button(app, "Remove it").click().run()
    assert "shelf 10" not in data.classes(run).index and len(data.classes(run)) == 8


def test_pictures_are_added_under_a_new_class(with_digits: Path) -> None:
    from app_pages.catalogue import data

    run = Run.open(with_digits / "digits")
    noise = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    made = io.BytesIO()
    Image.fromarray(noise).save(made, "PNG")
    done = data.add(run, "shelf 9", [("a.png", made.getvalue()), ("b.png", b"not a picture")], "")
    assert done.text == "Added 1 picture to shelf 9, a new class."
    assert done.item == "shelf 9/a.png" and "b.png" in done.notes[0]
    gallery = run.gallery(CATALOGUE)
    row = gallery.index_of(done.item)
    assert gallery.search(gallery.features[row][None], 1)[0][0, 0] == row, "it finds itself"
    (kept,) = (run.path / FOLDER).rglob("a.png")
    assert kept.read_bytes() == made.getvalue()
    with pytest.raises(LabError, match=r"None of 1 pictures can be read"):
        data.add(run, "shelf 9", [("c.png", b"not a picture")], "")
    assert not list((run.path / FOLDER).rglob("c.png")), "nothing stays of what failed"
    with pytest.raises(LabError, match="name of a class"):
        data.add(run, "../up", [("d.png", made.getvalue())], "")


def test_a_change_stays_with_its_pictures_if_its_effect_cannot_be_measured(with_digits: Path) -> None:
    from app_pages.catalogue import data
    from shared import catalogue

    run = Run.open(with_digits / "digits")
    before = run.gallery(CATALOGUE)
    (before.path / "queries.parquet").write_bytes(b"damaged")
    made = io.BytesIO()
    Image.new("RGB", (40, 40), "blue").save(made, "PNG")
    done = data.add(run, "shelf 9", [("a.png", made.getvalue())], "")
    assert done.text == "Added 1 picture to shelf 9, a new class." and done.recall == {}
    assert "what it did to the saved queries is not known" in done.notes[-1] and "queries.parquet" in done.notes[-1]
    pictures = run.gallery(CATALOGUE).pictures
    assert pictures is not None
    (picture,) = pictures.dropna()
    assert Path(picture).read_bytes() == made.getvalue()
    undone = catalogue.undo(run)
    assert undone.is_undone and len(run.gallery(CATALOGUE)) == len(before) and "is not known" in undone.notes[-1]


def test_a_run_without_a_catalogue_says_how_to_get_one(open_page, with_digits: Path) -> None:
    (with_digits / "digits" / "gallery" / CATALOGUE / "manifest.json").unlink()
    assert "gallery rebuild digits --protocol catalogue" in texts(open_page("catalogue", run="digits"))


def test_a_damaged_history_is_told_and_the_page_stays(open_page, with_digits: Path) -> None:
    from shared import catalogue

    run = Run.open(with_digits / "digits")
    catalogue.remove(run, [str(run.gallery(CATALOGUE).items["id"].iloc[0])], "")
    (file,) = (run.path / "gallery" / CATALOGUE / "history").glob("*.json")
    file.write_text("{")
    assert "can't be read" in texts(open_page("catalogue", run="digits"))
