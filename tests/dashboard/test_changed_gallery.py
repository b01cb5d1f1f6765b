"""Every page on a gallery whose items have changed since its run was evaluated."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image
from reading import OF_A_RUN, blocks, texts

from pddm_lab.gallery import changes
from pddm_lab.gallery.gallery import Gallery
from pddm_lab.gallery.umap_layout import write_map


@pytest.fixture
def changed(with_digits: Path) -> Gallery:
    """The gallery of unseen items with some removed and others added; one of these repeats an item under a new id."""
    gallery = Gallery.open(with_digits / "digits" / "gallery" / "unseen")
    some = gallery.items.iloc[[2, 3]].assign(id=["new/a.png", "new/b.png"])
    thumbs = [gallery.thumb(2), gallery.thumb(3)]
    added = changes.add(gallery, changes.NewItems(some, np.array(gallery.features[[2, 3]]), thumbs))
    return changes.remove(added, gallery.items["id"].iloc[[0, 2, 500]].tolist())


@pytest.mark.parametrize("page", OF_A_RUN)
def test_a_page_opens(page: str, changed: Gallery, open_page) -> None:
    app = open_page(page, run="digits", protocol="unseen")
    redraw = (
        "Since then 2 items came, each in a square, put between its nearest neighbours: redraw the map with "
        "`pddm-lab gallery map"
    )
    assert (redraw in texts(app)) == (page == "map")


def test_the_map_marks_what_is_new_and_says_that_a_new_one_is_drawn(changed: Gallery, open_page) -> None:
    from app_pages.map import canvas

    drawn: list[canvas.Panel] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(canvas, "draw", lambda panels, *_, **__: drawn.extend(panels))
        with FileLock(changed.path.with_name(f".{changed.path.name}.map.lock")):
            text = texts(open_page("map", run="digits", protocol="unseen"))
            assert "A new map is being drawn." in text and "redraw the map with" not in text
        assert "being drawn" not in texts(open_page("map", run="digits", protocol="unseen"))
    rows = [changed.index_of(item) for item in ("new/a.png", "new/b.png")]
    assert [ring.rows for ring in drawn[0].rings] == [rows]


def test_added_items_are_searched_and_removed_ones_are_not(changed: Gallery, digits_run, open_page) -> None:
    query, removed = digits_run.gallery("unseen").items["id"].iloc[[3, 2]]
    app = open_page("search", run="digits", protocol="unseen", item=query)
    results = re.findall('data-pick="([^"]+)"', blocks(app, "results_euclidean"))
    assert results[0] == "new/b.png", "the same picture under a new id"
    app = open_page("search", run="digits", protocol="unseen", item="new/a.png")
    results = re.findall('data-pick="([^"]+)"', blocks(app, "results_euclidean"))
    assert results
    assert removed not in results
    text = texts(open_page("search", run="digits", protocol="unseen", item=removed))
    assert "isn't in this gallery" in text


def test_an_open_dashboard_sees_the_change(with_digits: Path, open_page) -> None:
    from shared import loaders

    from pddm_lab.runs.run import Run

    run = Run.open(with_digits / "digits")
    before = loaders.gallery(run, "unseen")
    before.search(before.features[:1], 1)
    changes.remove(before, before.items["id"].iloc[:1].tolist())
    after = loaders.gallery(run, "unseen")
    assert len(after) == len(before) - 1
    assert after._index is not None
    assert loaders.gallery(run, "unseen") is after


def test_a_replaced_or_added_picture_is_shown_and_not_that_of_the_data_set(with_digits: Path, tmp_path: Path) -> None:
    from app_pages.search.views import Query
    from shared import loaders

    from pddm_lab.runs.run import Run

    run = Run.open(with_digits / "digits")
    gallery = loaders.gallery(run, "unseen")
    ids, features = gallery.items["id"].tolist(), np.array(gallery.features)
    files = [tmp_path / "replaced.png", tmp_path / "added.png"]
    for file in files:
        Image.new("RGB", (20, 20), "red").save(file)
    replaced = changes.NewItems(gallery.items.iloc[[4]], features[[5]], [gallery.thumb(5)], files[:1])
    after = changes.update(gallery, replaced)
    new = gallery.items.iloc[[6]].assign(id="new/a.png")
    after = changes.add(after, changes.NewItems(new, features[[6]], [gallery.thumb(6)], files[1:]))
    assert loaders.file_of(run, ids[4], after) == files[0] and loaders.file_of(run, "new/a.png", after) == files[1]
    assert (
        loaders.file_of(run, ids[5], after)
        == loaders.file_of(run, ids[5])
        == Path(run.info["dataset"]["root"]) / ids[5]
    )
    assert loaders.picture(run, ids[4], after) != loaders.picture(run, ids[4])
    cropped = Query.of_item(run, after, after.index_of(ids[4]), (0, 0, 10, 10))
    assert cropped.file == files[0] and cropped.crop


@pytest.mark.parametrize("page", ["map", "search"])
def test_a_gallery_without_queries_says_so(page: str, with_digits: Path, open_page) -> None:
    before = Gallery.open(with_digits / "digits" / "gallery" / "unseen")
    items, features = before.items.assign(role="gallery"), np.array(before.features)
    gallery = Gallery.write(before.path, "unseen", features, items, lambda row: Image.new("RGB", (9, 9)), {})
    write_map(gallery.path)
    assert "has no queries" in texts(open_page(page, run="digits", protocol="unseen"))
