"""The Robustness page: a corrupted query against a recomputation, and measured cells as they are in the files."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from reading import blocks, texts, tiles

from pddm_lab.data.images import open_image
from pddm_lab.robustness.cells import CLEAN, METRICS, Measurement
from pddm_lab.robustness.corruptions import corrupt, square_of
from pddm_lab.robustness.sample import draw_sample
from pddm_lab.runs.local import load_local
from pddm_lab.runs.model import embedder
from pddm_lab.runs.run import Run

VALUES = {("fog", 1): 0.75, ("fog", 5): 0.25, ("crop", 5): 0.5}
"""R@1 by D, written into the cells; by L it is 0.1 better."""


@pytest.fixture
def with_cells(with_local: Path) -> Run:
    """A run with four cells of the query's side."""
    run = Run.open(with_local / "local")
    sample = draw_sample(run, "unseen", 8, 40, 0)
    kept = Measurement.create(run, "unseen", sample, (8, 40, 0), {})
    for key, value in {CLEAN: 0.875, **{("query", *cell): value for cell, value in VALUES.items()}}.items():
        by = {"euclidean": value, "local": value + 0.1}
        hits = [pd.DataFrame({"similarity": name, "query": np.arange(8, dtype=np.int32), "hit": np.arange(8) < 8 * of,
                              "precision": np.float32(of)}) for name, of in by.items()]  # fmt: skip
        kept.write(key, pd.concat(hits), {name: dict.fromkeys(METRICS, of) for name, of in by.items()}, 1.0)
    return run


def figure(app, key: str) -> dict:
    """The figure of a chart."""
    (chart,) = [one for one in app.get("plotly_chart") if key in one.proto.id]
    return json.loads(chart.proto.spec)


def test_without_a_measurement_it_names_the_command(open_page, with_local: Path) -> None:
    app = open_page("robustness", run="local", protocol="known")
    assert "**local** is not measured yet" in texts(app)
    assert "`pddm-lab robustness local --protocol known`" in texts(app)
    shown = tiles(blocks(app, "corrupted_euclidean_local"))
    assert len(shown) == 6 and "First right: rank" in texts(app)


def test_a_corrupted_query_finds_what_a_recomputation_finds(open_page, with_local: Path) -> None:
    run = Run.open(with_local / "local")
    gallery, embed = run.gallery("unseen"), embedder(run)
    item = str(gallery.items["id"].iloc[3])
    app = open_page("robustness", run="local", item=item, corruption="occlusion", strength="5")
    square = square_of(open_image(Path(run.info["dataset"]["root"]) / item))
    query = embed.embed_all([embed.prepare(Image.fromarray(corrupt(square, item, "occlusion", 5)))])[0][0]
    distances = np.linalg.norm(gallery.features - query, axis=1)
    distances[3] = np.inf
    nearest = distances.argsort()
    shown = tiles(blocks(app, "corrupted_euclidean_local"))
    assert [name for name, *_ in shown] == gallery.items["id"].iloc[nearest[:6]].tolist()
    assert [value for *_, value, _ in shown] == pytest.approx(distances[nearest[:6]], abs=0.006)
    labels = gallery.items["label"].to_numpy()
    first = 1 + int(np.flatnonzero(labels[nearest] == labels[3])[0])
    clean = np.linalg.norm(gallery.features - gallery.features[3], axis=1)
    clean[3] = np.inf
    before = 1 + int(np.flatnonzero(labels[clean.argsort()] == labels[3])[0])
    assert f"First right: rank {first}; as it is: rank {before}" in texts(app)

    # By local structure, as in a gallery that never had the picture as it is.
    local = load_local(run)
    assert local is not None and gallery.pretrained is not None
    others = np.arange(len(gallery)) != 3
    rebuilt = local.structure.reference(gallery.features[others], gallery.pretrained[others])
    both = embed.embed_all([embed.prepare(Image.fromarray(corrupt(square, item, "occlusion", 5)))])
    by_local = local.structure.matrix(rebuilt, local.structure.space(both[0], both[1]))[0].numpy()
    values = [value for *_, value, _ in tiles(blocks(app, "corrupted_local_local"))]
    assert values == pytest.approx(np.sort(by_local)[::-1][:6], abs=0.02)


def test_it_opens_with_a_query_that_loses_by_a_corruption(open_page, with_local: Path) -> None:
    run = Run.open(with_local / "local")
    gallery, embed = run.gallery("unseen"), embedder(run)
    labels, root = gallery.items["label"].to_numpy(), Path(run.info["dataset"]["root"])

    def lost(row: int) -> int:
        item = str(gallery.items["id"].iloc[row])
        square = corrupt(square_of(open_image(root / item)), item, "occlusion", 3)
        queries = gallery.features[row], embed.embed_all([embed.prepare(Image.fromarray(square))])[0][0]
        found_right = []
        for query in queries:
            distances = np.linalg.norm(gallery.features - query, axis=1)
            distances[row] = np.inf
            found_right.append(labels[distances.argsort()[:6]] == labels[row])
        before, after = found_right
        return int(before.sum() - after.sum()) if before[0] else 0

    app = open_page("robustness", run="local")
    (strength,) = [one for one in app.select_slider if one.key == "strength"]
    assert strength.value == 3
    (facts,) = [one.proto.body for one in app.get("html") if ">Item<" in one.proto.body and ">Class<" in one.proto.body]
    shown = gallery.index_of(re.findall(r"<dd[^>]*>(.*?)</dd>", facts)[1])
    queries = gallery.rows("query")
    tried = queries[np.linspace(0, len(queries) - 1, min(12, len(queries))).astype(int)]
    losses = sorted(loss for loss in map(lost, tried) if loss > 0)
    assert shown in tried and losses and lost(shown) == losses[len(losses) // 2]


def test_the_map_and_the_table_show_the_cells(open_page, with_cells: Run) -> None:
    app = open_page("robustness", run="local", corruption="fog")
    drawn = figure(app, "corruptions_local")["data"][0]
    assert drawn["y"] == ["Fog", "Crop"] and drawn["x"] == ["1", "5"]
    assert drawn["text"] == [["−12.5", "−62.5"], ["", "−37.5"]]
    app = open_page("robustness", run="local", corruption="fog", cells="value", ranked="local")
    assert figure(app, "corruptions_local")["data"][0]["text"] == [["85.0", "35.0"], ["", "60.0"]]
    lines = figure(app, "strengths_local")["data"]
    assert [line["name"] for line in lines] == ["Euclidean", "Local structure"]
    table = next(one.value for one in app.dataframe if "mce" in one.value)
    row = table.set_index("by").loc["Euclidean"]
    assert row["clean"] == pytest.approx(87.5) and row["corrupted"] == pytest.approx(100 * np.mean([0.75, 0.25, 0.5]))
    assert "8 queries among" in texts(app) and pd.isna(row["mce"])
    app = open_page("robustness", run="local", corruption="snow")
    assert "Snow isn't measured on this side" in texts(app)


def test_a_background_is_offered_only_on_white(open_page, with_local: Path) -> None:
    app = open_page("robustness", run="local", corruption="background")
    (box,) = [box for box in app.selectbox if box.key == "corruption"]
    assert "Background" not in box.options and "Fog" in box.options and box.value == "occlusion"


def test_without_pictures_it_says_so(open_page, with_local: Path) -> None:
    file = with_local / "local" / "run.json"
    content = file.read_text()
    file.unlink()  # a hard link of the run that other tests use
    file.write_text(re.sub(r'"root": "[^"]*"', '"root": "/nowhere"', content))
    app = open_page("robustness", run="local")
    assert "The data set isn't on this machine" in html.unescape(texts(app))
    assert "**local** is not measured yet" in texts(app)
