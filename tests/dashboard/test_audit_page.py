"""The Audit page against a recomputation from the files of a real run."""

from __future__ import annotations

import html
import io
import json
import os
import re
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from reading import blocks, rows_of, texts

from pddm_lab.gallery.gallery import Gallery
from pddm_lab.runs.run import Run


def tables(app) -> list[list[list[str]]]:
    """The rows of each table, without marks."""
    return [rows_of(one.proto.body) for one in app.get("html") if "pl-audit" in one.proto.body]


def marks(app, table: int, row: int) -> list[str]:
    """The marks of one row."""
    body = [one.proto.body for one in app.get("html") if "pl-audit" in one.proto.body][table]
    return re.findall(r"pl-sign pl-(\w+)", body.split("<tr>")[row + 2])


def cards_of(app, key: str) -> list[list[str]]:
    """The item ids of each card."""
    parts = blocks(app, key).split('class="pl-set')[2:]
    return [[html.unescape(name) for name in re.findall(r'data-pick="([^"]+)"', part)] for part in parts]


@pytest.mark.parametrize("protocol", ["unseen", "known"])
def test_self_similarity_is_that_of_the_files(open_page, with_digits: Path, protocol: str) -> None:
    import torch

    from pddm_lab.runs.model import load_similarities

    app = open_page("audit", run="digits", protocol=protocol, compared="100")
    run = Run.open(with_digits / "digits")
    gallery, similarities = run.gallery(protocol), load_similarities(run)
    features = torch.from_numpy(np.array(gallery.features)).double()
    rows = {row[0]: row for row in tables(app)[0]}
    drawn = np.sort(np.random.default_rng(0).permutation(len(gallery))[:100])
    off = drawn[:, None] != np.arange(len(gallery))
    assert list(rows) == ["Euclidean", "Cosine", "Mahalanobis", "PDDM"]
    for name, title in (("pddm", "PDDM"), ("euclidean", "Euclidean")):
        similarity = similarities[name].double()
        with torch.no_grad():
            scores = np.stack([similarity(features[row], features).numpy() for row in drawn])
            own = similarity(features, features).numpy()
        spread = scores[off].std()
        beaten = (np.where(off, scores, -np.inf).max(1) > own[drawn] + 1e-3 * spread).mean()
        assert float(rows[title][3].removesuffix(" %").lstrip("✓✕ ")) == pytest.approx(100 * beaten, abs=0.06)
        if name == "pddm":
            ranged = float(rows[title][2].lstrip("✓✕ ").removesuffix(" spreads"))
            assert ranged == pytest.approx(np.ptp(own) / spread, abs=0.02)
    assert marks(app, 0, 0)[:5] == ["holds"] * 5  # Euclidean
    assert f"100 of {len(gallery):,} items against all others" in texts(app)


def test_each_question_shows_its_examples(open_page, with_digits: Path) -> None:
    gallery = Run.open(with_digits / "digits").gallery("unseen")
    names = set(gallery.items["id"])
    for look, key, size in (("closest", "examples_closer", 2), ("triangle", "examples_triangles", 3),
                            ("chains", "examples_chains", 3)):  # fmt: skip
        app = open_page("audit", run="digits", look=look, by="pddm", compared="100")
        if any(one.key == key for one in app.get("bidi_component")):
            shown = cards_of(app, key)
            assert shown and all(len(card) == size and set(card) <= names for card in shown)
            if look == "chains":  # a link that names one of the pictures shows it large
                link = open_page("audit", run="digits", look=look, by="pddm", compared="100", item=shown[0][1])
                assert any(shown[0][1] in one.proto.body for one in link.get("html") if "pl-facts" in one.proto.body)
        else:
            assert "By PDDM, no" in texts(app)
    app = open_page("audit", run="digits", look="triangle", by="euclidean")
    assert "By Euclidean, none of" in texts(app)
    app = open_page("audit", run="digits", look="symmetric")
    table = tables(app)[1]
    assert [row[0] for row in table] == ["Euclidean", "Cosine", "Mahalanobis", "PDDM"]
    assert all(float(row[1]) < 1e-4 and float(row[3]) < 1e-4 for row in table)


def test_calibration_is_that_of_the_pairs_drawn(open_page, with_digits: Path) -> None:
    from pddm_lab.analysis.calibration import calibrate
    from pddm_lab.analysis.pairs import sample_pairs, score_pairs
    from pddm_lab.metrics.density import density_of, local_radius
    from pddm_lab.runs.model import load_similarities

    app = open_page("audit", run="digits", view="calibration", protocol="known", map="isotonic", by="cosine")
    run = Run.open(with_digits / "digits")
    gallery, similarities = run.gallery("known"), load_similarities(run)
    pairs = score_pairs(gallery.features, sample_pairs(gallery, 150_000), similarities)
    radius, labels = local_radius(gallery.features), gallery.items["label"].to_numpy()
    a, b = pairs["a"].to_numpy(), pairs["b"].to_numpy()
    pairs = pairs.assign(label_a=labels[a], label_b=labels[b], density=density_of((radius[a] + radius[b]) / 2))
    for row in tables(app)[0]:
        fit = calibrate(pairs, row[0].lower())
        assert fit is not None
        assert float(row[1].lstrip("✓✕ ")) == pytest.approx(100 * fit.maps["isotonic"].error, abs=0.051)
        assert float(row[2]) == pytest.approx(fit.maps["isotonic"].brier, abs=1e-4)
        predicted = [f"{100 * value:.0f}" for value in fit.predicted_at_even.values()]
        assert row[6].lstrip("✓✕ ") == " · ".join(predicted)
        assert f"Fitted on {fit.fitted:,} pairs of {fit.classes[0]} classes" in texts(app)
    gallery_share = open_page("audit", run="digits", view="calibration", prior="gallery", protocol="known")
    assert "separately in each third" in texts(app) and "separately in each third" not in texts(gallery_share)


@pytest.fixture
def with_duplicates(with_digits: Path) -> Path:
    """The run, with pictures of known queries planted among the unseen: one identical, one mirrored."""
    run = Run.open(with_digits / "digits")
    known, unseen = run.gallery("known"), run.gallery("unseen")
    queries = known.rows("query")
    thumbs = [Image.open(io.BytesIO(unseen.thumb(row))).convert("RGB") for row in range(len(unseen))]
    thumbs[3] = picture = _picture()
    thumbs[5] = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    planted = [Image.open(io.BytesIO(known.thumb(row))).convert("RGB") for row in range(len(known))]
    planted[queries[0]] = picture
    for gallery, images in ((unseen, thumbs), (known, planted)):
        for file in gallery.path.iterdir():  # shared with the run that other tests use
            text = file.read_bytes()
            os.unlink(file)
            file.write_bytes(text)
        Gallery.write(gallery.path, gallery.protocol, np.array(gallery.features), gallery.items, images.__getitem__,
                      gallery.distributions)  # fmt: skip
    return with_digits


def _picture() -> Image.Image:
    coarse = np.random.default_rng(0).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((64, 64), Image.Resampling.BICUBIC)


def test_planted_duplicates_are_shown_and_counted(open_page, with_duplicates: Path) -> None:
    app = open_page("audit", run="digits", view="duplicates", alike="0.98", between="known.unseen")
    run = Run.open(with_duplicates / "digits")
    query = str(run.gallery("known").items["id"].iloc[run.gallery("known").rows("query")[0]])
    unseen = run.gallery("unseen").items["id"]
    shown = cards_of(app, "examples_duplicates")
    assert set(shown[0]) == {query, str(unseen.iloc[3])}
    assert {query, str(unseen.iloc[5])} not in [set(card) for card in shown]
    assert re.search(r"\d+ mirrored pairs are not counted", texts(app))
    assert "Identical: same thumbnail only" in blocks(app, "examples_duplicates")  # the files still differ
    counted = {row[0]: row[1:] for row in tables(app)[0]}
    assert int(counted["known queries and unseen items"][1]) == 1
    for kind in ("mirrored", "all"):
        app = open_page("audit", run="digits", view="duplicates", alike="0.98", between="known.unseen", kind=kind)
        assert {query, str(unseen.iloc[5])} in [set(card) for card in cards_of(app, "examples_duplicates")]
        assert "not counted" not in texts(app)


def test_recall_of_all_queries_is_what_the_run_measured(open_page, with_digits: Path) -> None:
    app = open_page("audit", run="digits", view="duplicates", protocol="known", every="true", alike="1.0")
    measured = json.loads((with_digits / "digits" / "run.json").read_text())["metrics"]["known"]
    for row in tables(app)[-1]:
        assert float(row[3]) == pytest.approx(100 * measured[row[0].lower()]["recall@1"], abs=0.3)
        assert row[3] == row[6] or int(row[2]) > 0


def test_licences_are_counted_by_split_and_exported(open_page, with_digits: Path) -> None:
    app = open_page("audit", run="digits", view="licences")
    run = Run.open(with_digits / "digits")
    (row,) = tables(app)[0]
    known, unseen = run.gallery("known"), run.gallery("unseen")
    counts = [len(known.rows("gallery")), len(known.rows("query")), len(unseen)]
    assert row[2] == "CC-BY-4.0" and [int(cell.replace(",", "")) for cell in row[7:]] == [sum(counts), *counts][:4]
    assert f"All {sum(counts):,} items may be used commercially" in texts(app)
    assert "Licence: CC-BY-4.0" in app.code[0].value


def test_findings_export_with_a_manifest(with_digits: Path) -> None:
    from shared.export import packed

    from pddm_lab.analysis.metric_axioms import checks_table, examine
    from pddm_lab.model.similarity import Euclidean

    run = Run.open(with_digits / "digits")
    checks = examine(Euclidean(), run.gallery("known").features, -0.5, rows=50).checks()
    archive = zipfile.ZipFile(io.BytesIO(packed("findings", checks_table(checks, "known"), "parquet", run, {})))
    table = pd.read_parquet(io.BytesIO(archive.read("findings.parquet")))
    assert table["property"].tolist() == [check.name for check in checks]
    assert json.loads(archive.read("manifest.json"))["rows"] == len(checks)


def test_a_damaged_gallery_names_the_file_in_every_view(open_page, with_digits: Path) -> None:
    manifest = with_digits / "digits" / "gallery" / "unseen" / "manifest.json"
    text = manifest.read_text()
    os.unlink(manifest)
    manifest.write_text(text[: len(text) // 2])
    for view in ("axioms", "calibration", "duplicates", "licences"):
        assert "manifest.json is damaged" in texts(open_page("audit", run="digits", view=view))


def test_without_a_model_the_pictures_can_still_be_audited(open_page, with_digits: Path) -> None:
    os.unlink(with_digits / "digits" / "model.safetensors")
    assert "model.safetensors is missing" in texts(open_page("audit", run="digits"))
    app = open_page("audit", run="digits", view="licences")
    assert "may be used commercially" in texts(app)


def test_stopped_work_can_be_started_again(open_page, with_digits: Path) -> None:
    from shared.work import work_of

    app = open_page("audit", run="digits", view="licences")
    work = work_of("axioms", Run.open(with_digits / "digits"), "unseen", 200)
    app.session_state["stopped_work"] = work  # as the button leaves it
    app.query_params["view"] = "axioms"
    app.run()
    assert "Nothing was kept" in texts(app)
    assert not tables(app)
    next(button for button in app.button if button.label == "Start again").click().run()
    assert len(tables(app)[0]) == 4


def test_stop_ends_the_work_while_it_runs(open_page, with_digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import streamlit as st
    from shared.work import Work

    from pddm_lab.analysis import metric_axioms

    button, clicks, calls = st.button, {}, []

    def noted(label: str, **options):
        clicks[label] = options
        return button(label, **options)

    whole = metric_axioms.examine

    def examine(similarity, features, threshold, *, rows, progress):
        calls.append(similarity.name)
        if similarity.name == "euclidean":
            return whole(similarity, features, threshold, rows=rows, progress=progress)
        progress(16, rows, "items compared with all")
        clicks["Stop"]["on_click"](*clicks["Stop"]["args"])
        st.rerun()  # a click raises the same in the script's next call of Streamlit

    with monkeypatch.context() as patch:
        patch.setattr(st, "button", noted)
        patch.setattr(metric_axioms, "examine", examine)
        app = open_page("audit", run="digits", compared="100")
    assert calls == ["euclidean", "cosine"]  # the other similarities were not begun
    assert "What was finished is kept" in texts(app) and not tables(app)
    (work,) = clicks["Stop"]["args"]
    assert isinstance(work, Work) and not work.ready and not work.lock.locked()
    first = work.parts["euclidean"]
    other = open_page("audit", run="digits", compared="100")  # another session isn't stopped, and continues there
    assert len(tables(other)[0]) == 4 and work.result["euclidean"] is first
    next(one for one in app.button if one.label == "Start again").click().run()
    assert len(tables(app)[0]) == 4
