"""The Map page against the files of real runs: points, colours, and the items inside a lasso."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from app_pages.map import canvas, data, links, views
from app_pages.map.lasso import LAST, Grid, Lasso
from app_pages.map.scene import Choice, MapView, open_map, selection_table, settings
from reading import blocks, markdown, texts, tiles

from pddm_lab.figures import class_colour
from pddm_lab.gallery import umap_layout
from pddm_lab.gallery.gallery import Gallery
from pddm_lab.gallery.umap_layout import write_map
from pddm_lab.runs.run import Run


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray | bytes]:
    """The arrays that a page offers to be fetched, by address."""
    kept: dict[str, np.ndarray | bytes] = {}

    def keep(content: np.ndarray | bytes, place: str) -> str:
        kept[f"/{place}"] = content
        return f"/{place}"

    monkeypatch.setattr(canvas, "_address", keep)
    return kept


def drawn(app) -> dict:
    """The data of the canvas."""
    (component,) = [one for one in app.get("bidi_component") if one.key == "map"]
    return json.loads(component.proto.json)


def html(app) -> str:
    """The page's blocks that can't be clicked."""
    return "".join(block.value for block in app.html)


def corners(*share: tuple[float, float]) -> str:
    """A lasso whose corners are given as shares of the grid."""
    return str(Lasso(np.array([[round(x * LAST), round(y * LAST)] for x, y in share])))


HALF = corners((-0.1, -0.1), (0.5, -0.1), (0.6, 1.1), (-0.1, 1.1))


def test_every_item_is_drawn_where_its_map_has_it(open_page, with_digits: Path, digits_run, sent) -> None:
    app = open_page("map", run="digits")
    gallery = digits_run.gallery("unseen")
    frame, content = gallery.map, drawn(app)
    (panel,) = content["panels"]
    spread = max(np.ptp(frame["x"]), np.ptp(frame["y"]))
    on_grid = (frame[["x", "y"]] - frame[["x", "y"]].min()) / spread * LAST
    np.testing.assert_allclose(sent[panel["places"]], on_grid, atol=0.51)
    labels = gallery.items["label"]
    assert [panel["palette"][code] for code in sent[panel["codes"]]] == [class_colour(label) for label in labels]
    names = json.loads(sent[content["names"]])
    assert [names[label] for label in sent[content["labels"]]] == gallery.items["class_name"].tolist()
    assert f"{len(gallery):,} of {len(gallery):,} items drawn" in texts(app)
    assert f"The map keeps **{100 * frame['overlap'].mean():.0f} %** of each item's" in texts(app)
    assert "No item is picked" in texts(app)
    assert "Arrow keys" in panel["alt"]


@pytest.mark.parametrize("by", ["euclidean", "pddm"])
def test_errors_are_those_that_the_run_measured(open_page, with_digits: Path, digits_run, sent, by: str) -> None:
    app = open_page("map", run="digits", protocol="known", colour="error", by=by)
    gallery, measured = digits_run.gallery("known"), digits_run.info["metrics"]["known"]["euclidean"]
    (panel,) = drawn(app)["panels"]
    counts = np.bincount(sent[panel["codes"]], minlength=3)
    assert counts.sum() == len(gallery)
    assert counts[0] == (gallery.items["role"] == "gallery").sum()
    shown = [key["count"] for key in panel["keys"]]
    assert sorted(shown) == sorted(count for count in counts if count)
    if by == "euclidean":
        assert counts[1] / counts[1:].sum() == pytest.approx(measured["recall@1"])
        assert f"right for **{100 * measured['recall@1']:.1f} %**" in texts(app)
        assert f"AP@R is **{100 * measured['map@r']:.1f} %**" in texts(app)
    else:
        assert "re-ranks the 100 nearest by Euclidean D" in texts(app)


def test_trust_and_density_are_those_of_the_map(open_page, with_digits: Path, digits_run, sent) -> None:
    frame = digits_run.gallery("unseen").map
    app = open_page("map", run="digits", colour="trust")
    (panel,) = drawn(app)["panels"]
    np.testing.assert_allclose((sent[panel["codes"]].astype(float) - 1) / 254, frame["overlap"], atol=0.002)
    app = open_page("map", run="digits", colour="density", item=str(digits_run.gallery("unseen").items["id"][3]))
    (panel,) = drawn(app)["panels"]
    assert np.argmin(frame["radius"]) in np.flatnonzero(sent[panel["codes"]] == 1)
    assert f"{frame['radius'][3]:.3f}" in html(app)


def test_an_older_map_is_measured_when_it_is_opened(open_page, with_digits: Path, monkeypatch, sent) -> None:
    file = with_digits / "digits" / "gallery" / "unseen" / "map.parquet"
    frame = pd.read_parquet(file)
    change(file, frame[["id", "x", "y"]])
    app = open_page("map", run="digits", colour="trust")
    assert f"The map keeps **{100 * frame['overlap'].mean():.0f} %** of each item's" in texts(app)
    monkeypatch.setattr(data, "MOST_DISTANCES", 0)
    change(file, frame[["id", "x", "y"]].astype({"x": float}))
    app = open_page("map", run="digits", colour="trust")
    assert f"({data.SMALLEST_SAMPLE} of {len(frame)} items measured)" in texts(app)
    (panel,) = drawn(app)["panels"]
    known = sent[panel["codes"]] > 0
    assert known.sum() == data.SMALLEST_SAMPLE
    np.testing.assert_allclose(
        (sent[panel["codes"]][known].astype(float) - 1) / 254, frame["overlap"][known], atol=0.002
    )


def change(file: Path, frame: pd.DataFrame) -> None:
    """Put another table in a gallery's folder, and into its manifest."""
    file.unlink()
    frame.to_parquet(file, index=False)
    manifest = file.parent / "manifest.json"
    content = json.loads(manifest.read_text())
    content["files"][file.name] = {"bytes": file.stat().st_size, "sha256": "-"}
    manifest.unlink()
    manifest.write_text(json.dumps(content))


def test_an_anchor_has_two_neighbourhoods(open_page, with_digits: Path, digits_run, sent) -> None:
    import torch

    from pddm_lab.runs.model import load_model

    gallery = digits_run.gallery("unseen")
    row, features = 11, torch.tensor(np.array(gallery.features))
    item, label = gallery.items.loc[row, ["id", "class_name"]]
    nearest = []
    for name in ("euclidean", "pddm"):
        values = load_model(digits_run).similarity(name).pairs(features[row].expand_as(features), features)
        values[row] = -torch.inf
        nearest.append(values.argsort(descending=True, stable=True)[:10].tolist())
    app = open_page("map", run="digits", colour="anchor", item=item, near="10")
    content = drawn(app)
    assert (content["anchor"], content["linked"]) == (row, True)
    for panel, expected in zip(content["panels"], nearest, strict=True):
        assert sorted(one for ring in panel["rings"] for one in ring["rows"]) == sorted(expected)
        assert sent[panel["codes"]][expected[0]] == 255
    both = set(nearest[0]) & set(nearest[1])
    small = [set(ring["rows"]) for ring in content["panels"][0]["rings"] if ring["size"] == 6]
    assert set().union(*small) == both
    assert f"**{len(both)} of them are the same**" in texts(app)
    right = [int((gallery.items["class_name"][rows] == label).sum()) for rows in nearest]
    assert f"Of the anchor's class: {right[0]} left, {right[1]} right" in texts(app)
    shown = tiles(blocks(app, "near_By both")) if both else []
    assert {name for name, *_ in shown} == set(gallery.items["id"][sorted(both)])
    assert [right for *_, right in shown] == [name == label for _, name, _, _ in shown]
    assert drawn(open_page("map", run="digits", colour="anchor", scale="rank"))["panels"][1]["ends"][1] == "rank 1"


def test_the_same_similarity_on_both_sides_has_one_neighbourhood(open_page, with_digits: Path) -> None:
    app = open_page("map", run="digits", colour="anchor", left="pddm", right="pddm", near="10")
    assert "**10 of them are the same**" in texts(app)
    assert len(tiles(blocks(app, "near_By both"))) == 10
    assert "Only by" not in texts(app)


def inside(gallery: Gallery, text: str) -> list[int]:
    """Rows inside a lasso, place by place."""
    lasso, frame = Lasso.parse(text), gallery.map
    assert lasso is not None and frame is not None
    places = Grid.over(frame["x"].to_numpy(), frame["y"].to_numpy()).places(
        frame["x"].to_numpy(), frame["y"].to_numpy()
    )
    return [row for row in range(len(places)) if len(lasso.rows(places[row : row + 1]))]


@pytest.mark.parametrize("order", ["centre", "class"])
def test_a_link_with_a_lasso_shows_what_lies_inside(open_page, with_digits: Path, digits_run, order: str) -> None:
    gallery = digits_run.gallery("unseen")
    rows = inside(gallery, HALF)
    assert 48 < len(rows) < len(gallery)
    app = open_page("map", run="digits", lasso=HALF, order=order, page="2")
    classes = gallery.items["class_name"][rows]
    title = f"{len(rows):,} of {len(gallery):,} items inside the lasso, of {classes.nunique()} classes"
    assert title in texts(app)
    middle = gallery.map[["x", "y"]].to_numpy()[rows]
    away = ((middle - middle.mean(0)) ** 2).sum(1)
    shown = re.findall('data-pick="([^"]+)"', blocks(app, "selection"))
    assert len(shown) == min(48, len(rows) - 48)
    assert set(shown) <= set(gallery.items["id"][rows])
    place = {
        name: (away[at], label) for at, (name, label) in enumerate(zip(gallery.items["id"][rows], classes, strict=True))
    }
    keys = [place[name][1 if order == "class" else 0] for name in shown]
    assert keys == pytest.approx(sorted(keys), rel=1e-3) if order == "centre" else keys == sorted(keys)
    counted = re.findall(r"</span>([^<]+)</th><td class=\"pl-count\">(\d+) <small>of (\d+)", html(app))
    there = gallery.items["class_name"].value_counts()
    assert {(name, int(here), int(all_)) for name, here, all_ in counted} == {
        (name, int(here), int(there[name])) for name, here in classes.value_counts().items()
    }
    assert drawn(app)["lasso"] == HALF
    assert set(drawn(app)["shown"]) == set(shown)


def test_a_filter_leaves_the_items_of_its_classes_role_and_results(
    open_page, with_digits: Path, digits_run, sent
) -> None:
    gallery = digits_run.gallery("known")
    items = gallery.items
    right, classes = {}, sorted(set(items["class_name"]))[:2]
    searched = np.flatnonzero(items["role"] != "query")
    for row in np.flatnonzero(items["role"] != "gallery"):
        others = searched[searched != row]
        nearest = others[np.argmin(np.linalg.norm(gallery.features[others] - gallery.features[row], axis=1))]
        right[row] = items["class_name"][nearest] == items["class_name"][row]
    expected = [row for row, is_right in right.items() if is_right and items["class_name"][row] in classes]
    choices = {"run": "digits", "protocol": "known", "classes": [*classes, "no such class"]}
    everything = corners((-0.1, -0.1), (1.1, -0.1), (1.1, 1.1), (-0.1, 1.1))
    app = open_page("map", **choices, role="query", results="right-euclidean", lasso=everything, layers=["names"])
    (panel,) = drawn(app)["panels"]
    assert np.flatnonzero(sent[panel["kept"]]).tolist() == expected
    assert set(sent[panel["spots"]][:, 2]) == {sorted(set(items["class_name"])).index(name) for name in classes}
    assert (
        f"{len(expected)} of {len(items):,} items drawn** ({classes[0]}, {classes[1]}; queries; right by D)"
        in texts(app)
    )
    assert f"{len(expected)} of {len(items):,} items inside the lasso, of 2 classes" in texts(app)
    assert drawn(app)["layers"] == ["names"]
    assert app.multiselect(key="classes").value == classes
    app.multiselect(key="classes").set_value([]).run()
    assert "classes" not in app.query_params
    assert np.flatnonzero(sent[panel["kept"]]).tolist() == [row for row, is_right in right.items() if is_right]


def test_selected_items_are_removed_from_the_catalogue_and_brought_back(
    open_page, with_digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pddm_lab.gallery.redraw.start_redrawing", lambda _: None)
    run = Run.open(with_digits / "digits")
    before = run.gallery("catalogue")
    selected = inside(before, HALF)
    app = open_page("map", run="digits", protocol="catalogue", lasso=HALF)
    app.text_input(key="remove_selected_why").set_value("blurred")
    app.button(key="remove_selected").click().run()
    assert set(before.items["id"]) - set(run.gallery("catalogue").items["id"]) == set(before.items["id"][selected])
    assert f"Removed {len(selected)} items." in texts(app) and "lasso" not in app.query_params
    next(one for one in app.button if one.label == "Undo").click().run()
    assert run.gallery("catalogue").items["id"].tolist() == before.items["id"].tolist()
    assert "Undone: removed" in texts(app) and not [one for one in app.button if one.label == "Undo"]
    assert "select them on the map of the whole range" in texts(open_page("map", run="digits", lasso=HALF))


def test_a_selection_is_exported_with_its_places(with_digits: Path) -> None:
    run = Run.open(with_digits / "digits")
    first = open_map(run, "unseen")
    assert first is not None
    choices = [Choice("anchor", "euclidean"), Choice("anchor", "pddm")]
    scene = MapView([first, first], choices, 5, 5, Lasso.parse(HALF), "centre")
    table = selection_table(scene)
    gallery = run.gallery("unseen")
    assert gallery.map is not None
    assert sorted(table["row"]) == inside(gallery, HALF)
    assert table["id"].tolist() == gallery.items["id"][table["row"]].tolist()
    for column in ("x", "y", "radius", "overlap"):
        np.testing.assert_array_equal(table[column], gallery.map[column][table["row"]])
    distances = np.linalg.norm(gallery.features[table["row"]] - gallery.features[5], axis=1)
    np.testing.assert_allclose(table["euclidean_distance_to_anchor"], distances, atol=1e-5)
    assert "pddm_similarity_to_anchor" in table
    content = settings(scene)
    assert (content["anchor"], content["by"], len(content["lasso"])) == (
        gallery.items["id"][5],
        ["euclidean", "pddm"],
        4,
    )
    json.dumps(content)


@pytest.fixture
def reordered(with_digits: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """A second run of the same items in another order; row of each of the first's."""
    target = with_digits / "other"
    shutil.copytree(with_digits / "digits", target)
    content = json.loads((target / "run.json").read_text())
    (target / "run.json").unlink()
    (target / "run.json").write_text(
        json.dumps(content | {"name": "other", "config": content["config"] | {"run_name": "other"}})
    )
    gallery = Run.open(with_digits / "digits").gallery("unseen")
    order = np.random.default_rng(0).permutation(len(gallery))
    from PIL import Image

    written = Gallery.write(
        target / "gallery" / "unseen", "unseen", np.array(gallery.features)[order][:, ::-1], gallery.items.iloc[order],
        lambda row: Image.new("RGB", (4, 4)), gallery.distributions,
    )  # fmt: skip
    monkeypatch.setattr(umap_layout, "_umap", lambda of, *_: of[:, :2])
    write_map(written.path)
    return np.argsort(order)


def test_two_runs_lie_side_by_side_with_one_selection(
    open_page, with_digits: Path, reordered: np.ndarray, sent
) -> None:
    one, two = (Run.open(with_digits / name).gallery("unseen") for name in ("digits", "other"))
    app = open_page("map", **{"run": "digits", "with": "other", "colour": "trust", "lasso": f"2_{HALF}"})
    content = drawn(app)
    assert [panel["title"].partition(":")[0] for panel in content["panels"]] == ["digits", "other"]
    assert not content["linked"]
    places = sent[content["panels"][1]["places"]]
    assert two.map is not None
    frame = two.map.iloc[reordered]
    np.testing.assert_array_equal(places, Grid.over(frame["x"], frame["y"]).places(frame["x"], frame["y"]))
    np.testing.assert_allclose(
        (sent[content["panels"][1]["codes"]].astype(float) - 1) / 254, frame["overlap"], atol=0.002
    )
    chosen = set(two.items["id"].iloc[inside(two, HALF)])
    assert f"{len(chosen):,} of {len(one):,} items inside the lasso" in texts(app)
    assert set(re.findall('data-pick="([^"]+)"', blocks(app, "selection"))) <= chosen
    app = open_page("map", **{"run": "digits", "with": "other", "colour": "error"})
    assert [key["count"] for panel in drawn(app)["panels"] for key in panel["keys"]]
    assert not app.error


def test_a_link_with_nonsense_opens_the_map_and_says_so(open_page, with_digits: Path) -> None:
    names = ["colour", "measure", "scale", "near", "view", "order", "with", "by", "left", "right", "page", "protocol",
             "classes", "role", "results", "layers"]  # fmt: skip
    image = "![x](http://example.com/a.png)"
    app = open_page("map", run="digits", lasso=image, item=image, **dict.fromkeys(names, image))
    assert not app.error
    assert "The lasso in this link is invalid" in texts(app)
    assert "isn't in this gallery" in texts(app)
    assert image not in markdown(app)
    assert (drawn(app)["lasso"], drawn(app)["anchor"]) == ("", -1)
    assert "belongs to a map that isn't open" in texts(open_page("map", run="digits", lasso=f"2_{HALF}"))
    far = corners((5, 5), (6, 5), (6, 6))
    assert "No item lies inside the lasso." in texts(open_page("map", run="digits", lasso=far))


def test_a_lasso_does_not_outlive_its_map(open_page, with_digits: Path) -> None:
    app = open_page("map", run="digits", lasso=HALF)
    assert "inside the lasso" in texts(app)
    app.segmented_control(key="protocol").set_value("known").run()
    assert not app.exception
    assert "inside the lasso" not in texts(app)
    assert "lasso" not in app.query_params


GOOD: dict[str, object] = {"hovered": 2, "picked": -1, "lasso": "1.2_3.4_5.6", "view": "", "wanted": [0, 2], "at": 5}


def test_messages_from_the_browser_are_checked() -> None:
    assert canvas.State.read(GOOD, 3) == canvas.State(2, -1, "1.2_3.4_5.6", "", (0, 2))
    bad: list[dict[str, object]] = [
        {"hovered": 3}, {"picked": -2}, {"picked": "1"}, {"hovered": True}, {"lasso": None}, {"view": 7},
        {"wanted": [3]}, {"wanted": ["1"]}, {"wanted": 1}, {"wanted": [1] * (canvas.MOST_WANTED + 1)},
    ]  # fmt: skip
    nothing: list[object] = [None, "x", {}, []]
    for sent in nothing + [GOOD | change for change in bad]:
        assert canvas.State.read(sent, 3) is None


def test_choices_on_the_canvas_go_into_the_url(with_digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = open_map(Run.open(with_digits / "digits"), "unseen")
    assert first is not None
    scene = MapView([first], [Choice("class")], 0, None, None, "centre")
    query, state = {"run": "digits", "page": "3", "view": "1.2.3"}, dict[str, object]()
    monkeypatch.setattr(views.st, "query_params", query)
    monkeypatch.setattr(views.st, "session_state", state)
    views._receive(scene, canvas.State(4, -1, "", "7.8.9"))
    assert (query, state) == ({"run": "digits", "page": "3", "view": "7.8.9"}, {"map_hovered": 4, "map_wanted": ()})
    views._receive(scene, canvas.State(4, 6, HALF, "", (7, 9)))
    assert query == {"run": "digits", "item": scene.items["id"][6], "lasso": HALF}
    assert state == {"map_hovered": 4, "map_wanted": (7, 9), "map_moved": True}
    pictures = views._wanted(scene)
    assert pictures is not None
    assert (pictures.rows, pictures.jpegs) == ([7, 9], [first.gallery.thumb(row) for row in (7, 9)])


def test_a_view_and_a_lasso_stay_around_the_same_part_of_a_map_drawn_anew() -> None:
    before, now = [Grid(0.0, 0.0, 1.0), Grid(5.0, 5.0, 1.0)], [Grid(-10.0, 20.0, 2.0), Grid(5.0, 5.0, 1.0)]
    assert links.moved_view("100.60.40", before, now) == "55.20.20"
    assert links.moved_view("100.60.40_7.8.9", before, now) == "55.20.20_7.8.9"
    assert links.moved_view("all_nonsense", before, now) == "all_all"
    lasso = Lasso.parse("0.20_100.20_100.60")
    assert lasso is not None
    assert str(links.moved_lasso(lasso, before, now)) == "5.0_55.0_55.20"
    for corner, moved in zip(lasso.corners, links.moved_lasso(lasso, before, now).corners, strict=True):
        np.testing.assert_array_equal(before[0].corners_on_map(corner), now[0].corners_on_map(moved))


def test_a_gallery_without_its_map_or_with_a_damaged_one_says_so(open_page, with_digits: Path) -> None:
    folder = with_digits / "digits" / "gallery"
    file = folder / "unseen" / "map.parquet"
    change(file, pd.read_parquet(file).iloc[:-3])
    assert "expected the gallery's items" in texts(open_page("map", run="digits"))
    for protocol in ("unseen", "known"):
        (folder / protocol / "map.parquet").unlink()
        content = json.loads((folder / protocol / "manifest.json").read_text())
        del content["files"]["map.parquet"]
        (folder / protocol / "manifest.json").unlink()
        (folder / protocol / "manifest.json").write_text(json.dumps(content))
    assert "No map of this gallery" in texts(open_page("map", run="digits"))


def test_missing_similarities_give_one_clear_sentence(open_page, with_digits: Path) -> None:
    (with_digits / "digits" / "model.safetensors").unlink()
    assert "The map can't be coloured" in texts(open_page("map", run="digits", colour="anchor"))
    assert "items drawn" in texts(open_page("map", run="digits"))
