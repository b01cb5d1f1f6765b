"""The Search page against exact searches of a real run."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from reading import blocks, texts, tiles


def test_search_finds_the_nearest_and_orders_them_anew(open_page, with_digits: Path, digits_run) -> None:
    import torch

    from pddm_lab.measure import load_model

    gallery = digits_run.gallery("known")
    row = int(gallery.rows("query")[5])
    item, label = gallery.items.loc[row, ["id", "class_name"]]
    searched = gallery.rows("gallery")
    distances = np.linalg.norm(np.array(gallery.features[searched]) - np.array(gallery.features[row]), axis=1)
    nearest = searched[np.argsort(distances)[:20]]

    app = open_page("search", run="digits", protocol="known", item=item, shortlist="20", by="pddm")
    left = tiles(blocks(app, "found_euclidean"))
    assert [name for name, *_ in left] == list(gallery.items.loc[nearest[:12], "id"])
    np.testing.assert_allclose([value for _, _, value, _ in left], np.sort(distances)[:12], atol=0.006)
    assert [right for *_, right in left] == [name == label for _, name, _, _ in left]

    scores = (
        load_model(digits_run)
        .similarity("pddm")
        .matrix(torch.tensor(gallery.features[row])[None], torch.tensor(gallery.features[nearest]))[0]
    )
    right = tiles(blocks(app, "found_pddm"))
    assert [name for name, *_ in right] == list(
        gallery.items.loc[nearest[scores.argsort(descending=True).numpy()[:12]], "id"]
    )
    hits = sum(right for *_, right in left)
    assert f"{hits} of the first 12 right" in texts(app)


def test_search_steps_through_queries_and_finds_by_name(open_page, with_digits: Path, digits_run) -> None:
    gallery = digits_run.gallery("known")
    queries = gallery.items.loc[gallery.rows("query"), "id"].tolist()
    app = open_page("search", run="digits", protocol="known")
    app.button(key="next").click().run()
    assert app.query_params["item"] == queries[1]
    app.button(key="back").click().run()
    assert app.query_params["item"] == queries[0]
    app.text_input(key="find").set_value(queries[7]).run()
    assert re.findall('data-pick="([^"]+)"', blocks(app, "matches")) == [queries[7]]
    app.text_input(key="find").set_value("nothing has this name").run()
    assert "No query has “nothing has this name”" in texts(app)


def test_search_tells_of_an_item_that_is_not_here(open_page, with_digits: Path) -> None:
    assert "which isn't in this gallery" in texts(open_page("search", run="digits", item="9/none.png"))


def test_search_finds_an_uploaded_picture(open_page, with_digits: Path, digits_run) -> None:
    gallery = digits_run.gallery("known")
    item = str(gallery.items.loc[gallery.rows("gallery")[3], "id"])
    app = open_page("search", run="digits", protocol="known", query="upload")
    app.file_uploader(key="upload").upload(
        "mine.png", (Path(digits_run.info["dataset"]["root"]) / item).read_bytes()
    ).run()
    assert not app.exception
    name, _, distance, _ = tiles(blocks(app, "found_euclidean"))[0]
    assert (name, distance) == (item, 0.0)
    assert "✓" not in blocks(app, "found_euclidean").split("</style>")[1]
    assert re.search(r"embed [\d.]+ ms", texts(app))


@pytest.mark.parametrize("content", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_a_bad_upload_is_one_clear_sentence(open_page, with_digits: Path, content: bytes) -> None:
    app = open_page("search", run="digits", query="upload")
    app.file_uploader(key="upload").upload("mine.png", content).run()
    assert not app.exception
    assert len(app.error) == 1
    assert app.error[0].value.startswith("The uploaded file")


def test_a_turned_photo_is_shown_upright(open_page, with_digits: Path) -> None:
    photo, buffer = Image.new("RGB", (60, 30), "red"), io.BytesIO()
    exif = photo.getexif()
    exif[0x0112] = 6
    photo.save(buffer, "JPEG", exif=exif)
    app = open_page("search", run="digits", query="upload")
    app.file_uploader(key="upload").upload("turned.jpg", buffer.getvalue()).run()
    assert not app.exception
    assert not app.error
