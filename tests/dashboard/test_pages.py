"""Each page, run without a browser, against the files of a real run: right numbers, links reopened, bad states told."""

from __future__ import annotations

import html
import io
import json
import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pddm_lab.config import TrainConfig
from pddm_lab.figures import METRICS
from pddm_lab.runs import Run

PAGES = ("runs", "similarity", "quadruplets", "search")
DATA = {"name": "digits", "fingerprint": "-", "items": 1797, "classes": 10, "skipped": [], "licence": "CC-BY-4.0",
        "attribution": "E. Alpaydin", "root": ""}  # fmt: skip


def texts(app) -> str:
    """All that the page says in words."""
    kinds = (app.title, app.markdown, app.caption, app.warning, app.error, app.info, app.subheader)
    return "\n".join(str(element.value) for kind in kinds for element in kind)


def rows_of(body: str) -> list[list[str]]:
    """The cells of a table block's rows, without marks."""
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", body.split("<tbody>")[1], re.S)
    return [
        [html.unescape(re.sub(r"<[^>]+>", "", cell)) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)]
        for row in rows
    ]


def blocks(app, key: str) -> str:
    """The HTML of a block of pictures that can be clicked."""
    found = [one for one in app.get("bidi_component") if one.key == key]
    assert len(found) == 1
    return json.loads(found[0].proto.json)["html"]


def tiles(body: str) -> list[tuple[str, str, float, bool]]:
    """(id, class, number shown, marked right) of each result."""
    pattern = (
        r'class="pl-tile pl-(\w+)" data-pick="([^"]+)".*?class="pl-name">(.*?)<'
        r'.*?class="pl-value"><span><i[^>]*>\w</i> (\S+?)<'
    )
    return [
        (html.unescape(name), html.unescape(label), float(value.replace("−", "-")), look == "right")
        for look, name, label, value in re.findall(pattern, body, re.S)
    ]


@pytest.mark.parametrize("page", PAGES)
def test_without_a_run_each_page_says_what_to_do(open_page, page: str) -> None:
    app = open_page(page)
    if page == "runs":
        assert "Train your first run" in texts(app)
        assert app.button(key="new_start").label == "Start training"
        assert app.radio(key="new_preset").options == ["quick", "finetune", "paper"]
    else:
        assert "No run yet" in texts(app)


def test_runs_shows_the_metrics_of_run_json(open_page, with_digits: Path) -> None:
    app = open_page("runs", run="digits")
    measured = json.loads((with_digits / "digits" / "run.json").read_text())["metrics"]
    tables = [block.value for block in app.html if "pl-table" in block.value.split("</style>")[1]]
    assert len(tables) == 2
    for body, protocol in zip(tables, ("unseen", "known"), strict=True):
        for row, name in zip(rows_of(body), ("euclidean", "cosine", "mahalanobis", "pddm"), strict=True):
            assert row[0].lower() == name
            assert row[1:] == [
                METRICS[metric].format(measured[protocol][name].get(metric, np.nan)) for metric in METRICS
            ]
    row = app.dataframe[0].value.iloc[0]
    assert (row["run"], row["status"]) == ("digits", ["finished"])
    assert row["unseen D"] == pytest.approx(100 * measured["unseen"]["euclidean"]["recall@1"])
    assert row["known S"] == pytest.approx(100 * measured["known"]["pddm"]["recall@1"])
    assert "CC-BY-4.0" in texts(app)


def test_runs_draws_the_logged_curves(open_page, with_digits: Path) -> None:
    app = open_page("runs", run="digits", metric="recall@1", along="seconds", phase="refit")
    log = Run.open(with_digits / "digits").metrics()
    expected = log[(log["protocol"] == "validation") & (log["metric"] == "recall@1") & (log["similarity"] == "pddm")]
    figure = json.loads(next(chart for chart in app.get("plotly_chart") if chart.key == "curves").proto.spec)
    line = next(trace for trace in figure["data"] if trace["name"] == "PDDM")
    np.testing.assert_allclose(numbers(line["y"]), 100 * expected["value"])
    np.testing.assert_allclose(numbers(line["x"]), expected["seconds"])
    assert app.get_by_key("phase").value == "refit"


def numbers(values) -> np.ndarray:
    """A trace's values, which plotly sends as a list or as base64."""
    if isinstance(values, dict):
        import base64

        return np.frombuffer(base64.b64decode(values["bdata"]), dtype=values["dtype"])
    return np.array(values, dtype=float)


def test_runs_compares_runs_from_a_link(open_page, with_digits: Path) -> None:
    finished_like(with_digits / "digits", with_digits / "other", score_margin=0.7)
    app = open_page("runs", run="digits", beside="other")
    table = next(one.value for one in app.dataframe if "choice" in one.value)
    assert table.to_dict("records") == [{"choice": "score_margin", "digits": "0.5", "other": "0.7"}]
    assert "Final metrics of 2 runs" in texts(app)
    body = next(block.value for block in app.html if "pl-opens" in block.value.split("</style>")[1])
    assert [row[0] for row in rows_of(body)] == ["digits", "", "", "", "other", "", "", ""]


def finished_like(source: Path, target: Path, **changes: object) -> Run:
    """A finished run of other choices, through the writer's own interface."""
    old = Run.open(source)
    config = TrainConfig(
        **{**old.config.to_dict(), **changes, "run_name": target.name, "runs_root": str(target.parent)}
    )
    run = Run.create(config, old.info["dataset"], "cpu", "32")
    for protocol, similarities in old.info["metrics"].items():
        for similarity, values in similarities.items():
            run.set_metrics(protocol, similarity, values)
    run.update(status="finished", phase="done")
    return run


def test_a_broken_run_is_listed_with_its_reason(open_page, with_digits: Path) -> None:
    (with_digits / "torn").mkdir()
    (with_digits / "torn" / "run.json").write_text('{"format": 1, "na')
    app = open_page("runs")
    assert "run.json" in app.warning[0].value
    for page in PAGES:
        app = open_page(page, run="torn")
        assert any("Showing digits instead" in warning.value for warning in app.warning)


def test_a_failed_run_shows_its_reason_on_every_page(open_page, runs_folder: Path) -> None:
    config = TrainConfig.from_parameters({"dataset": "digits", "run_name": "bad", "runs_root": str(runs_folder)})
    run = Run.create(config, DATA, "cpu", "32")
    run.update(status="failed", reason="The training diverged: lower --lr.")
    for page in PAGES:
        app = open_page(page, run="bad")
        assert "The training diverged: lower --lr." in texts(app)


def test_an_interrupted_run_says_how_to_go_on(open_page, runs_folder: Path) -> None:
    config = TrainConfig.from_parameters({"dataset": "digits", "run_name": "gone", "runs_root": str(runs_folder)})
    Run.create(config, DATA, "cpu", "32").update(pid=2**22 - 1)
    assert "pddm-lab resume gone" in texts(open_page("runs"))


def test_a_run_in_training_shows_its_progress_and_stops_on_request(open_page, runs_folder: Path) -> None:
    config = TrainConfig.from_parameters(
        {"dataset": "digits", "run_name": "now", "runs_root": str(runs_folder), "steps": 50}
    )
    run = Run.create(config, DATA, "cpu", "32")
    run.log_metrics(20, "select", "train", "pddm", {"loss": 1.25})
    run.log_metrics(20, "select", "validation", "euclidean", {"map@r": 0.321})
    run.flush()
    app = open_page("runs")
    assert app.progress[0].value == 40
    assert "step 20 of 50" in app.progress[0].text
    assert "**32.1 %**" in texts(app)
    app.button(key="stop_now").click().run()
    assert run.stop_requested()
    assert app.button(key="stop_now").label == "Stopping"
    assert "Still training" in texts(open_page("similarity"))


def test_similarity_reads_the_rates_off_the_histograms(open_page, with_digits: Path) -> None:
    app = open_page("similarity", run="digits", left_euclidean="0.60", right="mahalanobis")
    assert app.slider(key="left_euclidean").value == 0.6
    assert app.get_by_key("right").value == "mahalanobis"
    shown = [metric.value for metric in app.metric]
    for at, protocol in enumerate(("unseen", "known")):
        folder = with_digits / "digits" / "gallery" / protocol
        bins = pd.read_parquet(folder / "distributions.parquet").query("similarity == 'euclidean'")
        accepted = bins["left"] >= -0.6
        tpr, fpr = (100 * bins.loc[accepted, kind].sum() / bins[kind].sum() for kind in ("positive", "negative"))
        precision = (
            100 * bins.loc[accepted, "positive"].sum() / bins.loc[accepted, ["positive", "negative"]].sum().sum()
        )
        for text, expected in zip(shown[6 * at : 6 * at + 3], (tpr, fpr, precision), strict=True):
            assert float(text.removesuffix(" %")) == pytest.approx(expected, abs=0.6)
    measured = json.loads((with_digits / "digits" / "run.json").read_text())["metrics"]
    assert f"ROC AUC **{measured['known']['mahalanobis']['auc']:.4f}**" in texts(app)
    assert f"EER **{100 * measured['unseen']['euclidean']['eer']:.1f}** %" in texts(app)


def test_similarity_moves_with_the_slider(open_page, with_digits: Path) -> None:
    app = open_page("similarity", run="digits")
    slider = app.slider(key="left_euclidean")
    assert float(app.metric[1].value.removesuffix(" %")) == pytest.approx(1, abs=0.2)
    slider.set_value(slider.max).run()
    assert [metric.value for metric in app.metric[:2]] == ["100.0 %", "100.00 %"]


def test_quadruplets_are_sorted_filtered_and_paged(open_page, with_digits: Path) -> None:
    mined = Run.open(with_digits / "digits").quadruplets()
    worst = mined.loc[mined["phase"] == "refit", ["slack_ik", "slack_jl"]].max(axis=1)
    app = open_page("quadruplets", run="digits")
    body = app.html[0].value
    assert body.count('class="pl-quad"') == 12
    assert body.count("<img") == 48
    first = max(float(value) for value in re.findall(r"by (\d\.\d\d)", body.split("</figure>")[0]))
    assert first == pytest.approx(worst.max(), abs=0.005)

    chosen = sorted(mined.loc[mined["phase"] == "select", "class_i"].unique())[0]
    app = open_page("quadruplets", run="digits", mined="select", order="latest", classes=chosen, page="2")
    assert app.get_by_key("mined").value == "select"
    of_class = mined[(mined["phase"] == "select") & mined[["class_i", "class_k", "class_l"]].eq(chosen).any(axis=1)]
    counted = int(re.findall(r"\*\*([\d,]+)\*\* of", texts(app))[0].replace(",", ""))
    assert counted == len({canonical(row) for row in of_class.itertuples()})
    steps = [int(step) for step in re.findall(r"step (\d+)<", app.html[0].value)]
    assert steps == sorted(steps, reverse=True)


def canonical(row) -> tuple:
    """The same for a quadruplet and its mirror image."""
    one, other = (row.i, row.k), (row.j, row.l)
    return (row.phase, row.step, *min(one, other), *max(one, other))


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


@pytest.mark.parametrize("page", ["similarity", "search"])
def test_a_torn_gallery_says_which_file(open_page, with_digits: Path, page: str) -> None:
    for protocol in ("unseen", "known"):
        manifest = with_digits / "digits" / "gallery" / protocol / "manifest.json"
        text = manifest.read_text()
        os.unlink(manifest)
        manifest.write_text(text[: len(text) // 2])
    assert "manifest.json is torn" in texts(open_page(page, run="digits"))


def test_pages_survive_a_run_that_is_still_half_written(open_page, runs_folder: Path) -> None:
    config = TrainConfig.from_parameters({"dataset": "digits", "run_name": "new", "runs_root": str(runs_folder)})
    Run.create(config, DATA, "cpu", "32")
    for page in PAGES:
        open_page(page, run="new")


@pytest.mark.parametrize("page", PAGES)
def test_a_link_with_nonsense_opens_the_page_as_it_is_by_default(open_page, with_digits: Path, page: str) -> None:
    names = ["left", "right", "left_euclidean", "mined", "order", "show", "steps", "page", "results", "shortlist", "by"]
    names += ["protocol", "query", "classes", "metric", "along", "phase", "beside", "find", "linear"]
    app = open_page(page, run="digits", **dict.fromkeys(names, "99999"))
    assert not app.error


def test_a_link_cannot_make_a_page_fetch_a_picture(open_page, with_digits: Path) -> None:
    image = "![x](http://example.com/a.png)"
    for page, name in (("runs", "run"), ("search", "item"), ("search", "find")):
        app = open_page(page, **{"run": "digits", name: image})
        assert "example" in texts(app)
        assert image not in texts(app)
