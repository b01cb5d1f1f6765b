"""The Runs page's study against a small study on digits that the study's own functions made."""

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
from reading import numbers, texts
from shared.export import packed

from pddm_lab.errors import RunError
from pddm_lab.metrics.intervals import mean_interval
from pddm_lab.study import findings
from pddm_lab.study.cells import Study, table
from pddm_lab.study.statistics import best_baseline, paired_test, search_results


@pytest.fixture
def with_study(runs_folder: Path, small_study: Study) -> Path:
    """A runs' root that holds the study, and no run."""
    shutil.copytree(small_study.path, runs_folder / "studies" / "small")
    return runs_folder / "studies" / "small"


def frame(app, column: str) -> pd.DataFrame:
    return next(one.value for one in app.dataframe if column in one.value)


def figure(app, key: str) -> dict:
    return json.loads(next(chart for chart in app.get("plotly_chart") if chart.key == key).proto.spec)


def values(
    study: Study, method: str, similarity: str, protocol: str, metric: str, part: str = "methods"
) -> list[float]:
    cells = table(study.path)
    wanted = {"part": part, "method": method, "similarity": similarity, "protocol": protocol, "metric": metric}
    return cells[(cells[list(wanted)] == pd.Series(wanted)).all(axis=1)].sort_values("seed")["value"].tolist()


def test_a_study_is_offered_where_there_is_one(open_page, runs_folder: Path) -> None:
    app = open_page("runs")
    assert "Train your first run" in texts(app)
    Study.create("new", str(runs_folder))
    app = open_page("runs")
    assert "Train your first run" in texts(app)
    app.segmented_control(key="view").set_value("study").run()
    assert app.query_params["view"] == "study"
    assert "No cell is finished yet" in texts(app) and "pddm-lab compare --name new" in texts(app)


def test_methods_are_shown_with_intervals_and_seeds(open_page, with_study: Path, small_study: Study) -> None:
    app = open_page("runs", view="study", protocol="known", metric="recall@1")
    assert app.segmented_control(key="protocol").value == "known"
    best = best_baseline(search_results(small_study), "digits")
    rows = frame(app, "difference").set_index(["name", "similarity"])
    own = values(small_study, "pddm", "pddm", "known", "recall@1")
    mean, half = mean_interval(own)
    row = rows.loc[("PDDM+Quadruplet", "PDDM")]
    assert row[["value", "half"]].tolist() == pytest.approx([100 * mean, 100 * half])
    assert (row["seeds"], row["settings"]) == (2, "lr 0.0005, embedding_weight 0.5, steps 8")
    other = values(small_study, best["method"], "euclidean", "known", "recall@1")
    difference, width, _ = paired_test(own, np.resize(other, 2).tolist())
    assert row[["difference", "difference_half"]].tolist() == pytest.approx([100 * difference, 100 * width])
    assert rows["value"].is_monotonic_decreasing
    starred = [name for name, _ in rows.index if "★" in name]
    assert starred == [f"{findings.title_of(best['method'])} ★"]

    drawn = figure(app, "study_methods")
    faint = next(
        trace for trace in drawn["data"] if trace.get("legendgroup") == "pddm" and len(numbers(trace["x"])) == 2
    )
    np.testing.assert_allclose(sorted(numbers(faint["x"])), sorted(100 * np.array(own)))
    assert drawn["layout"]["yaxis"]["ticktext"].count(f"<b>{findings.title_of(best['method'])}</b>") == 1
    names = [trace["name"] for trace in drawn["data"] if trace.get("name")]
    assert names == ["Euclidean", "Mahalanobis", "PDDM"]


def test_curves_of_the_ticked_methods_are_in_colour(open_page, with_study: Path, small_study: Study) -> None:
    app = open_page("runs", view="study", methods=["pddm", "gone"], along="seconds")
    assert app.multiselect(key="study_ticked").value == ["pddm"]
    drawn = figure(app, "study_learning")
    named = [trace for trace in drawn["data"] if trace["showlegend"]]
    assert [trace["name"] for trace in named] == ["PDDM+Quadruplet"]
    curve = small_study.cell("search-methods-digits-pddm-0")["curve"]
    drawn_values = numbers([y for y in numbers(named[0]["y"]) if np.isfinite(y)])
    np.testing.assert_allclose(drawn_values, [100 * row["euclidean"]["map@r"] for row in curve])
    target = best_baseline(search_results(small_study), "digits")["value"]
    assert drawn["layout"]["shapes"][0]["y0"] == pytest.approx(100 * target)
    app.multiselect(key="study_ticked").set_value(["pddm", "triplet_hard"]).run()
    assert app.query_params["methods"] == ["pddm", "triplet_hard"]
    assert frame(app, "target_step")["method"].tolist() == ["PDDM+Quadruplet", "Triplet, batch-hard"]
    app.multiselect(key="study_ticked").set_value([]).run()
    assert not any(trace["showlegend"] for trace in figure(app, "study_learning")["data"])


def test_the_ablation_is_shown_as_differences(open_page, with_study: Path, small_study: Study) -> None:
    app = open_page("runs", view="study")
    default, narrow = (
        values(small_study, name, "pddm", "unseen", "map@r", "ablation") for name in ("default", "narrow")
    )
    mean, half, _ = paired_test(narrow, default)
    drawn = figure(app, "study_ablation")
    trace = next(one for one in drawn["data"] if one["legendgroup"] == "pddm" and "customdata" in one)
    assert numbers(trace["x"]).tolist() == pytest.approx([100 * mean])
    assert numbers(trace["error_x"]["array"]).tolist() == pytest.approx([100 * half])
    assert drawn["layout"]["yaxis"]["ticktext"] == ["width: 64"]
    assert f"{100 * np.mean(default):.1f} by PDDM" in texts(app)


def test_an_unfinished_study_shows_its_progress(open_page, with_study: Path) -> None:
    assert not open_page("runs", view="study").get("progress")
    cells = with_study / "cells"
    (cells / "methods-digits-pddm-1.json").unlink()
    (cells / "methods-digits-triplet_hard-0.json").write_text('{"key": ')
    for file in cells.glob("*ablation*"):
        file.unlink()
    app = open_page("runs", view="study")
    assert "**9 of 11 cells** of the parts started are finished" in app.get("progress")[0].text
    shown = texts(app)
    assert "digits, methods: 4 of 4 searches, 5 of 7 trainings · ablation: not started" in shown
    assert "probably failed: PDDM+Quadruplet on digits." in shown
    assert re.search(r"methods-digits-triplet_hard-0.json is damaged", shown)
    assert "Ablation" not in shown
    assert frame(app, "difference").loc[0, "seeds"] in (1, 2)


def test_a_method_that_diverged_is_named(open_page, with_study: Path) -> None:
    file = with_study / "cells" / "search-methods-digits-pddm-0.json"
    cell = json.loads(file.read_text())
    cell["chosen"] |= {"step": 0, "map@r": 0.0, "error": 0.0}
    file.write_text(json.dumps(cell | {"curve": []}))
    for one in (with_study / "cells").glob("methods-digits-pddm-*"):
        one.unlink()
    app = open_page("runs", view="study", methods="pddm")
    assert "PDDM+Quadruplet on digits (every configuration diverged)" in texts(app)
    assert "PDDM+Quadruplet" not in frame(app, "difference")["name"].tolist()


def test_a_study_with_only_a_search_shows_no_method(open_page, with_study: Path) -> None:
    for file in [*(with_study / "cells").glob("methods-*"), *(with_study / "cells").glob("*ablation*")]:
        file.unlink()
    for file in (with_study / "cells").glob("search-*-[mt]*"):
        file.unlink()
    (with_study / "cells" / "search-methods-digits-pretrained-0.json").unlink()
    assert "No method is measured yet" in texts(open_page("runs", view="study"))


def test_a_file_that_cannot_be_read_is_named(open_page, with_study: Path) -> None:
    cell = json.loads((with_study / "cells" / "search-methods-digits-pddm-0.json").read_text())
    (with_study / "cells" / "search-methods-digits-pddm-0.json").write_text(json.dumps(cell | {"chosen": {}}))
    assert "was not written by this lab" in texts(open_page("runs", view="study"))
    (with_study / "study.json").write_text("{")
    app = open_page("runs", view="study", study="small")
    assert re.search("study.json is damaged", texts(app))
    with pytest.raises(RunError):
        findings.Reading(with_study)
    assert "The link names the study gone" in texts(open_page("runs", view="study", study="gone"))


def test_published_numbers_stand_beside_those_of_a_benchmark(open_page, with_study: Path) -> None:
    for file in (with_study / "cells").glob("*.json"):
        cell = json.loads(file.read_text())
        cell |= {"dataset": "cub200", "key": cell["key"].replace("digits", "cub200").replace("pddm", "pddm_batch")}
        cell["method"] = "pddm_batch" if cell["method"] == "pddm" else cell["method"]
        (file.parent / f"{cell['key']}.json").write_text(json.dumps(cell))
        file.unlink()
    app = open_page("runs", view="study")
    row = frame(app, "R@1 published").set_index("method").loc["PDDM+Quadruplet"]
    assert row["R@1 published"] == "58.3" and row["R@1 here"].count("±") == 1
    assert "frozen trunk" in texts(app)


def test_an_export_holds_the_table_and_the_study_it_comes_from(open_page, with_study: Path) -> None:
    app = open_page("runs", view="study")
    offered = {one.key for one in app.get("download_button")}
    assert {
        f"export_study_{what}_{kind}" for what in ("methods", "curves", "ablation") for kind in ("csv", "json")
    } <= offered
    results = findings.Findings.of(findings.Reading(with_study))
    rows = results.results("digits", "unseen", "map@r")
    info = {"name": "small", "settings": dict(results.study.settings)}
    archive = zipfile.ZipFile(io.BytesIO(packed("methods", rows, "csv", info, {"protocol": "unseen"})))
    assert len(pd.read_csv(archive.open("methods.csv"))) == len(rows)
    manifest = json.loads(archive.read("manifest.json"))
    assert manifest["study"]["settings"]["methods"]["steps"] == 4 and manifest["settings"] == {"protocol": "unseen"}


def test_a_study_is_read_once_and_then_only_its_new_cells(with_study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cells_read: findings.Cells = {}
    first = findings.Reading(with_study, cells_read)
    monkeypatch.setattr(Study, "cell", lambda self, key: pytest.fail(f"{key} is read again"))
    again = findings.Reading(with_study, cells_read)
    assert [cell["key"] for cell in again.cells()] == [cell["key"] for cell in first.cells()]
    progress = findings.progress(again)
    assert progress.complete and progress.done == progress.planned == 4 + 7 + 2 + 4
