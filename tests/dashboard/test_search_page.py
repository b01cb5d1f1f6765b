"""The Search page against exact searches of a real run."""

from __future__ import annotations

import io
import json
import re
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import link
from PIL import Image
from reading import blocks, numbers, texts, tiles
from shared.export import packed

from pddm_lab.figures import shown as shown_as

RANKED_BY = ("euclidean", "mahalanobis", "pddm")


@pytest.fixture(scope="module")
def scored(digits_run):
    """A query, the rows of its 20 nearest, and their values by each similarity, from the run's files."""
    import torch

    from pddm_lab.runs.model import load_model

    gallery, model = digits_run.gallery("known"), load_model(digits_run)
    row = int(gallery.rows("query")[5])
    searched = gallery.rows("gallery")
    distances = np.linalg.norm(np.array(gallery.features[searched]) - np.array(gallery.features[row]), axis=1)
    nearest = searched[np.argsort(distances)[:20]]
    values = {"euclidean": -np.sort(distances)[:20]}
    for name in RANKED_BY[1:]:
        a, b = (torch.tensor(np.array(gallery.features[rows])) for rows in ([row], nearest))
        values[name] = model.similarity(name).matrix(a, b)[0].numpy()
    return gallery, row, nearest, values


def own_picture(app, data: bytes, name: str = "mine.png"):
    """Upload a picture to the page, as its component would."""
    from app_pages.search.own_picture import Own

    app.session_state["own"] = Own(name, data)
    return app.run()


def shown(app, key: str) -> str:
    return blocks(app, key).rpartition("</style>")[2]


def charts(app, key: str) -> dict:
    (chart,) = [one for one in app.get("plotly_chart") if one.key == key]
    return json.loads(chart.proto.spec)


def test_search_ranks_the_shortlist_by_three_similarities(open_page, with_digits: Path, scored) -> None:
    gallery, row, nearest, values = scored
    item, label = gallery.items.loc[row, ["id", "class_name"]]
    app = open_page("search", run="digits", protocol="known", item=item, shortlist="20")
    ranks, searched = {}, gallery.items.loc[gallery.rows("gallery")]
    possible = int(((searched["class_name"] == label) & (searched["id"] != item)).sum())
    for name in RANKED_BY:
        order = np.argsort(-values[name], kind="stable")
        ranks[name] = order.argsort() + 1
        results = tiles(blocks(app, f"results_{name}"))
        assert [one for one, *_ in results] == list(gallery.items.loc[nearest[order[:12]], "id"])
        sign = 1 if name == "pddm" else -1
        np.testing.assert_allclose([value for _, _, value, _ in results], sign * values[name][order[:12]], atol=0.006)
        assert [right for *_, right in results] == [one == label for _, one, _, _ in results]
        assert f"{sum(right for *_, right in results)} of {min(12, possible)} right" in texts(app)
    changes = ranks["euclidean"] - ranks["pddm"]
    best = np.argsort(-values["pddm"], kind="stable")[:12]
    marks = re.findall(r'class="pl-change"[^>]*>(\D)(\d*)<', shown(app, "results_pddm"))
    assert [{"▲": 1, "▼": -1, "=": 0}[mark] * int(places or 0) for mark, places in marks] == changes[best].tolist()
    assert "pl-change" not in shown(app, "results_euclidean")
    rank = ranks["mahalanobis"][best[0]]
    assert (
        f"Euclidean {ranks['euclidean'][best[0]]}, Mahalanobis {rank}"
        in shown(app, "results_pddm").split("pl-frame")[0]
    )
    facts = "".join(one.proto.body for one in app.get("html"))
    right = int((gallery.items.loc[nearest, "class_name"] == label).sum())
    assert f"of its class, {right} of them in the shortlist" in facts
    assert re.search(r"search by D [\d.]+ ms · Mahalanobis [\d.]+ ms · PDDM [\d.]+ ms", texts(app))

    flow = charts(app, "flow_digits")
    drawn = {trace["customdata"][0]: numbers(trace["y"]) for trace in flow["data"]}
    union = np.flatnonzero(np.min([ranks[name] for name in RANKED_BY], axis=0) <= 12)
    assert set(drawn) == set(gallery.items.loc[nearest[union], "id"])
    for at in union:
        places = np.array([ranks[name][at] for name in RANKED_BY])
        y = drawn[gallery.items.loc[nearest[at], "id"]]
        np.testing.assert_array_equal(y[places <= 12], places[places <= 12])
        assert (y[places > 12] > 12).all()


def test_search_steps_through_queries_and_looks_them_up_by_name(open_page, with_digits: Path, digits_run) -> None:
    gallery = digits_run.gallery("known")
    queries = gallery.items.loc[gallery.rows("query"), "id"].tolist()
    crop = "0.1,0.1,0.9,0.9"
    app = open_page("search", run="digits", protocol="known", item=queries[0], crop=crop, why=queries[3])
    app.button(key="next").click().run()
    assert app.query_params["item"] == queries[1]
    assert "crop" not in app.query_params
    assert "why" not in app.query_params
    app.button(key="back").click().run()
    assert app.query_params["item"] == queries[0]
    app.text_input(key="find").set_value(queries[7]).run()
    assert re.findall('data-pick="([^"]+)"', blocks(app, "matches")) == [queries[7]]
    app.text_input(key="find").set_value("nothing has this name").run()
    assert "No query has “nothing has this name”" in texts(app)


def test_search_warns_of_an_item_or_a_crop_that_is_invalid(open_page, with_digits: Path) -> None:
    app = open_page("search", run="digits", item="9/none.png", crop="1,2", why="9/none.png", view="why")
    assert "in this link isn't in this gallery" in texts(app)
    assert "The crop in this link is invalid; searching with the whole picture." in texts(app)
    assert "The item “9/none.png” to explain isn't in this gallery" in texts(app)


def test_search_explains_a_pair(open_page, with_digits: Path, digits_run, scored) -> None:
    from pddm_lab.analysis.explain import explain
    from pddm_lab.runs.model import load_similarities

    gallery, row, nearest, values = scored
    item, other = gallery.items["id"].iloc[row], gallery.items["id"].iloc[nearest[4]]
    app = open_page("search", run="digits", protocol="known", item=item, shortlist="20", view="why", why=other)
    unit = load_similarities(digits_run)["pddm"].unit  # type: ignore[attr-defined]
    why = explain(gallery.features[row], gallery.features[nearest[4]], unit)  # type: ignore[arg-type]
    text = texts(app).replace("−", "-")
    assert f"D is {-values['euclidean'][4]:.2f};" in text
    assert f"S is {values['pddm'][4]:.2f}. An identical pair in this place would have {why.score_of_equals:.2f}" in text
    rows = re.findall(r'<tr><th scope="row">(\d+)</th>.*?</tr>', shown(app, "dimensions"))
    assert [int(one) for one in rows] == why.strongest(10).tolist()
    cells = re.findall(r"</i>([−+\d.]+)( %)?</div>", shown(app, "dimensions"))
    shares = [float(value) for value, unit_ in cells if unit_]
    parts = [float(value.replace("−", "-")) for value, unit_ in cells if not unit_]
    np.testing.assert_allclose(shares, 100 * why.distance_shares[why.strongest(10)], atol=0.06)
    np.testing.assert_allclose(parts, why.score_parts[why.strongest(10)], atol=0.006)
    first = rows[0]
    ends = re.findall('data-pick="([^"]+)"', shown(app, "dimensions").split("<tr>")[2])
    order = np.argsort(gallery.features[:, int(first)], kind="stable")
    assert ends == gallery.items["id"].iloc[[*order[:3], *order[::-1][:3]]].tolist()
    assert blocks(app, "results_pddm").count(" data-highlighted") == 1
    app.button(key="next_result").click().run()
    assert app.query_params["why"] != other


def test_search_measures_the_shortlists_ceiling(open_page, with_digits: Path, digits_run) -> None:
    from pddm_lab.analysis.shortlist import ceiling

    app = open_page("search", run="digits", protocol="known", view="ceiling", shortlist="50")
    measured = ceiling(digits_run.gallery("known"))
    held, reached = measured.at(50)
    assert f"**{100 * held:.1f} %** of these" in texts(app)
    assert f"**{100 * reached:.1f} %** of the queries" in texts(app)
    assert f"{measured.total:,} queries that have right items" in texts(app)
    marked = [trace for trace in charts(app, "ceiling_digits")["data"] if trace["mode"] == "markers"]
    assert sorted(float(numbers(trace["y"])[0]) for trace in marked) == pytest.approx([100 * held, 100 * reached])


def test_two_runs_search_with_one_item(open_page, with_digits: Path, digits_run) -> None:
    shutil.copytree(digits_run.path, with_digits / "other", copy_function=link)
    info = json.loads((with_digits / "other" / "run.json").read_text())
    (with_digits / "other" / "run.json").unlink()
    (with_digits / "other" / "run.json").write_text(json.dumps(info | {"name": "other"}))
    item = str(digits_run.gallery("known").items["id"].iloc[digits_run.gallery("known").rows("query")[9]])
    link_ = {"run": "digits", "protocol": "known", "item": item, "with": "other"}
    app = open_page("search", **link_)
    for name in RANKED_BY:
        assert tiles(blocks(app, f"results_{name}")) == tiles(blocks(app, f"results_{name}_other"))
    app = open_page("search", **link_, view="why", of="other")
    assert app.get_by_key("of").value == "other"


def test_an_uploaded_picture_finds_its_own_item_first(open_page, with_digits: Path, digits_run) -> None:
    gallery = digits_run.gallery("known")
    item = str(gallery.items.loc[gallery.rows("gallery")[3], "id"])
    data = (Path(digits_run.info["dataset"]["root"]) / item).read_bytes()
    app = own_picture(open_page("search", run="digits", protocol="known", query="upload"), data)
    assert not app.exception
    name, _, distance, _ = tiles(blocks(app, "results_euclidean"))[0]
    assert (name, distance) == (item, 0.0)
    assert "✓" not in shown(app, "results_euclidean")
    assert re.search(r"read [\d.]+ ms · embed [\d.]+ ms", texts(app))
    app.query_params["crop"] = "0.2,0.1,0.9,0.8"
    cropped = tiles(blocks(app.run(), "results_euclidean"))
    assert cropped[0][2] > 0


def test_a_crop_of_an_item_is_embedded_again(open_page, with_digits: Path, digits_run) -> None:
    from pddm_lab.runs.model import ImageEmbedder, load_model

    gallery = digits_run.gallery("known")
    row = int(gallery.rows("query")[2])
    item, label = gallery.items.loc[row, ["id", "class_name"]]
    app = open_page("search", run="digits", protocol="known", item=item, crop="0.25,0,1,0.75")
    with Image.open(Path(digits_run.info["dataset"]["root"]) / item) as image:
        part = image.convert("RGB").crop((round(0.25 * image.width), 0, image.width, round(0.75 * image.height)))
    feature = ImageEmbedder(digits_run, load_model(digits_run))(part)
    rows, distances = gallery.search(feature[None], 12, exclude=row)
    result = tiles(blocks(app, "results_euclidean"))
    assert [name for name, *_ in result] == gallery.items["id"].iloc[rows[0]].tolist()
    np.testing.assert_allclose([value for _, _, value, _ in result], distances[0], atol=0.006)
    assert [right for *_, right in result] == [one == label for _, one, _, _ in result]


@pytest.mark.parametrize("content", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_a_bad_picture_is_one_clear_sentence(open_page, with_digits: Path, content: bytes) -> None:
    app = own_picture(open_page("search", run="digits", query="upload"), content)
    assert not app.exception
    assert len(app.error) == 1
    assert app.error[0].value.startswith("The uploaded file")


def test_a_turned_photo_is_shown_upright(open_page, with_digits: Path) -> None:
    photo, buffer = Image.new("RGB", (60, 30), "red"), io.BytesIO()
    exif = photo.getexif()
    exif[0x0112] = 6
    photo.save(buffer, "JPEG", exif=exif)
    app = own_picture(open_page("search", run="digits", query="upload"), buffer.getvalue())
    assert not app.exception
    assert not app.error


def test_results_are_exported_as_they_are_shown(open_page, with_digits: Path, digits_run, scored) -> None:
    from app_pages.search import views

    gallery, row, nearest, values = scored
    query = views.Query.of_item(digits_run, gallery, row, None)
    table = views.results_table([views.search(digits_run, "known", query, 20)])
    assert table["id"].tolist() == gallery.items["id"].iloc[nearest].tolist()
    assert set(table["query"]) == {gallery.items["id"].iloc[row]}
    for name in RANKED_BY:
        np.testing.assert_allclose(table[name], shown_as(name, values[name]), atol=1e-4)
        assert table[f"{name}_rank"].tolist() == ((-values[name]).argsort(kind="stable").argsort() + 1).tolist()
    settings = {"protocol": "known", "crop": (0.1, 0.2, 0.3, 0.4)}
    with zipfile.ZipFile(io.BytesIO(packed("results", table, "json", digits_run, settings))) as pack:
        assert pd.DataFrame(json.loads(pack.read("results.json")))["id"].tolist() == table["id"].tolist()
        assert json.loads(pack.read("manifest.json"))["settings"]["crop"] == [0.1, 0.2, 0.3, 0.4]
    assert table["right"].tolist() == (gallery.items["class_name"].iloc[nearest] == query.class_name).tolist()


def test_without_a_model_the_page_says_so_in_one_sentence(open_page, with_digits: Path) -> None:
    (with_digits / "digits" / "model.safetensors").unlink()
    app = open_page("search", run="digits")
    assert not app.exception
    assert len(app.error) == 1
    assert "model" in app.error[0].value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.1,0.2,0.5,1", (0.1, 0.2, 0.5, 1.0)),
        ("0,0,1,1", (0, 0, 1, 1)),
        ("0.5,0,0.4,1", None),
        ("0,0,0.001,1", None),
        ("-0.1,0,1,1", None),
        ("0,0,nan,1", None),
        ("0,0,1", None),
        ("a,b,c,d", None),
        ("", None),
    ],
)
def test_crops_from_links(text: str, expected) -> None:
    from app_pages.search.own_picture import read_crop, write_crop

    assert read_crop(text) == expected
    if expected:
        assert read_crop(write_crop(expected)) == expected
