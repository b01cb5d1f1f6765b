"""The Runs page against the files of real runs: metrics, curves, comparisons, trainings in progress."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import psutil
import pytest
from reading import DATA, OF_A_RUN, numbers, rows_of, texts
from shared import launches

from pddm_lab.config import TrainConfig
from pddm_lab.export.table import write_formats
from pddm_lab.figures import METRICS
from pddm_lab.runs.run import Run


def test_runs_shows_the_metrics_of_run_json(open_page, with_digits: Path) -> None:
    app = open_page("runs", run="digits", recalls="true")
    info = json.loads((with_digits / "digits" / "run.json").read_text())
    measured = {name: of | {"pretrained features": info["pretrained"][name]} for name, of in info["metrics"].items()}
    tables = [block.value for block in app.html if "pl-table" in block.value.rpartition("</style>")[2]]
    folded = [f"recall@{k}" for k in (2, 4, 8, 16, 32)]
    first = [metric for metric in METRICS if metric not in folded]
    assert len(tables) == 4
    shown = [(protocol, metrics) for metrics in (first, folded) for protocol in ("unseen", "known")]
    for body, (protocol, metrics) in zip(tables, shown, strict=True):
        of = {name: values for name, values in measured[protocol].items() if name != "cosine"}
        for row, (name, values) in zip(rows_of(body), of.items(), strict=True):
            assert row[0].lower() == name
            assert row[1 : 1 + len(metrics)] == [
                METRICS[metric].format(values.get(metric, np.nan)) for metric in metrics
            ]
            if metrics == first and name != "euclidean":
                lead = 100 * (values["map@r"] - measured[protocol]["euclidean"]["map@r"])
                assert float(row[-1].replace("−", "-")) == pytest.approx(lead, abs=0.051)
    row = app.dataframe[0].value.iloc[0]
    of = info["metrics"]["unseen"]
    assert row["unseen lead"] == pytest.approx(100 * (of["pddm"]["map@r"] - of["euclidean"]["map@r"]))
    assert (row["run"], row["status"]) == ("digits", ["finished"])
    assert row["unseen D"] == pytest.approx(100 * measured["unseen"]["euclidean"]["recall@1"])
    assert row["known S"] == pytest.approx(100 * measured["known"]["pddm"]["recall@1"])
    assert row["unseen pretrained"] == pytest.approx(100 * info["pretrained"]["unseen"]["recall@1"])
    assert "CC-BY-4.0" in texts(app)


def test_runs_without_pretrained_features_have_no_column_of_them(open_page, with_digits: Path) -> None:
    Run.open(with_digits / "digits").update(pretrained={})
    app = open_page("runs", run="digits")
    assert "unseen S" in app.dataframe[0].proto.column_order
    assert not {"unseen pretrained", "known pretrained"} & set(app.dataframe[0].proto.column_order)
    assert all("Pretrained features" not in block.value for block in app.html)


def test_runs_shows_the_table_of_formats_once_it_is_measured(open_page, with_digits: Path) -> None:
    run = with_digits / "digits"
    assert "`pddm-lab bench formats digits`" in texts(open_page("runs", run="digits"))
    values = {"recall@1": 0.512, "map@r": 0.3, "score_recall@1": 0.5, "score_map@r": 0.2, "unchanged@10": 0.9}
    row = {
        "engine": "onnx",
        "precision": "int8",
        "model_bytes": 3_000_000,
        "milliseconds": 4.5,
        "protocols": {"unseen": values},
    }
    content = {
        "format": 1,
        "measured": "2026-01-01",
        "processor": "a chip",
        "similarity": "pddm",
        "parameters": 2_500_000,
    }
    write_formats(run, content | {"rows": [row]})
    app = open_page("runs", run="digits")
    (shown,) = table(app, "format").to_dict("records")
    assert shown["bytes a parameter"] == "1.20"
    assert (shown["unseen R@1 by D"], shown["unseen same top 10"]) == ("51.2", "90.0")
    assert "`pddm-lab export digits --format onnx --precision int8`" in texts(app)
    (run / "formats.json").write_text("{}")
    assert "formats.json" in open_page("runs", run="digits").error[0].value


@pytest.mark.parametrize("page", OF_A_RUN)
def test_every_page_of_a_run_shows_its_warnings(open_page, with_digits: Path, page: str) -> None:
    Run.open(with_digits / "digits").update(warnings=["The features *collapsed*: lower the rate."])
    app = open_page(page, run="digits")
    (shown,) = [one.value for one in app.warning]
    assert shown == r"**digits:** The features \*collapsed\*\: lower the rate."
    if page == "runs":
        finished_like(with_digits / "digits", with_digits / "other").update(warnings=["Few classes."])
        app = open_page(page, run="digits", beside="other")
        assert len(app.warning) == 2 and app.warning[1].value == "**other:** Few classes."
        assert app.dataframe[0].value["warnings"].tolist() == [
            "Few classes.",
            "The features *collapsed*: lower the rate.",
        ]
        assert "warnings" in app.dataframe[0].proto.column_order


def test_what_is_folded_is_computed_and_sent_once_it_is_open(open_page, with_digits: Path) -> None:
    def counts(page: str, kind: str, **opened: str) -> int:
        return len(open_page(page, run="digits", **opened).get(kind))

    frames = [len(open_page("runs", run="digits", **opened).dataframe) for opened in ({}, {"settings": "true"})]
    assert frames[1] == frames[0] + 2
    assert counts("runs", "html", recalls="true") == counts("runs", "html") + 2
    assert counts("similarity", "plotly_chart", roc="true") == counts("similarity", "plotly_chart") + 2
    by_density = counts("similarity", "plotly_chart", view="density")
    assert counts("similarity", "plotly_chart", view="density", by_density="true") == by_density + 4


def test_several_warnings_are_folded_into_one_line(open_page, with_digits: Path) -> None:
    Run.open(with_digits / "digits").update(warnings=["It collapsed.", "Few classes."])
    app = open_page("audit", run="digits")
    (folded,) = [one for one in app.expander if "2 warnings" in one.label]
    assert folded.markdown[0].value == "* It collapsed.\n* Few classes." and not folded.proto.expanded
    assert not app.warning


def test_the_similarity_page_shows_what_the_pretrained_features_separate(open_page, with_digits: Path) -> None:
    before = Run.open(with_digits / "digits").info["pretrained"]
    captions = [one.value for one in open_page("similarity", run="digits").caption]
    lines = [text for text in captions if text.startswith("Pretrained features, before training")]
    for line, protocol in zip(lines, ("unseen", "known"), strict=True):
        assert f"ROC AUC **{before[protocol]['auc']:.4f}**" in line


def test_runs_draws_the_logged_curves(open_page, with_digits: Path) -> None:
    app = open_page("runs", run="digits", metric="recall@1", along="seconds", phase="refit")
    log = Run.open(with_digits / "digits").metrics()
    expected = log[(log["protocol"] == "validation") & (log["metric"] == "recall@1") & (log["similarity"] == "pddm")]
    figure = json.loads(next(chart for chart in app.get("plotly_chart") if chart.key == "curves").proto.spec)
    line = next(trace for trace in figure["data"] if trace["name"] == "PDDM")
    np.testing.assert_allclose(numbers(line["y"]), 100 * expected["value"])
    start = log.loc[log["phase"] == "select", "seconds"].min()
    np.testing.assert_allclose(numbers(line["x"]), expected["seconds"] - start)
    fast = table(app, "best_step").set_index("similarity")
    best = expected["value"].max()
    assert fast.loc["PDDM", "best"] == pytest.approx(100 * best)
    first = expected[expected["value"] >= 0.99 * best].iloc[0]
    assert fast.loc["PDDM", ["share_step", "share_seconds"]].tolist() == pytest.approx(
        [first["step"], first["seconds"] - start]
    )
    assert app.get_by_key("phase").value == "refit"


def test_runs_compares_runs_from_a_link(open_page, with_digits: Path) -> None:
    finished_like(with_digits / "digits", with_digits / "other", score_margin=0.7)
    shutil.copytree(with_digits / "digits" / "gallery", with_digits / "other" / "gallery")
    shutil.copy(with_digits / "digits" / "model.safetensors", with_digits / "other")
    app = open_page("runs", run="digits", beside="other")
    assert table(app, "setting").to_dict("records") == [{"setting": "score_margin", "digits": "0.5", "other": "0.7"}]
    assert "Final metrics of 2 runs" in texts(app)
    body = next(block.value for block in app.html if "pl-opens" in block.value.rpartition("</style>")[2])
    assert [row[0] for row in rows_of(body)] == ["digits", "", "", "", "other", "", ""]
    assert "surely ahead" not in texts(app)
    after = texts(app.button(key="rank_runs").click().run())
    assert after.count("no run is surely ahead. ") == 2 and "+0.0 points (+0.0 to +0.0) of MAP@R" in after


def table(app, column: str):
    return next(one.value for one in app.dataframe if column in one.value)


def test_ticked_rows_are_compared_and_in_the_url(open_page, with_digits: Path) -> None:
    for name in ("second", "third"):
        finished_like(with_digits / "digits", with_digits / name, lr=0.1)
    app = open_page("runs", run="digits", beside=["second", "gone"])
    names = app.dataframe[0].value["run"].tolist()
    assert names == ["third", "second", "digits"]
    assert app.session_state["runs_table"]["selection"]["rows"] == [names.index("digits"), names.index("second")]
    assert "The link also names gone" in texts(app)


def test_runs_of_several_seeds_are_averaged(open_page, with_digits: Path) -> None:
    source = Run.open(with_digits / "digits")
    other = finished_like(source.path, with_digits / "other", seed=1)
    measured = source.info["metrics"]["unseen"]["pddm"]
    other.set_metrics("unseen", "pddm", {name: value * 0.9 for name, value in measured.items()})
    app = open_page("runs", run="digits")
    app.button(key="add_seeds").click().run()
    assert app.query_params == {"run": "digits", "beside": "other", "seeds": "mean"}
    body = next(block.value for block in app.html if "mean of 2 seeds" in block.value)
    row = next(row for row in rows_of(body) if row[1] == "PDDM")
    pair = [measured["recall@1"], 0.9 * measured["recall@1"]]
    assert row[2] == f"{100 * np.mean(pair):.1f}± {100 * np.std(pair, ddof=1):.1f}"
    assert "over seeds" in texts(app)
    app = open_page("runs", run="digits", seeds="mean")
    assert "±" not in "".join(block.value for block in app.html)


def test_notes_are_kept_and_none_are_lost(open_page, with_digits: Path) -> None:
    run = Run.open(with_digits / "digits")
    app = open_page("runs", run="digits")
    app.text_area[0].set_value("margins are too small").run()
    assert run.notes == "margins are too small"
    assert app.text_area[0].value == "margins are too small"
    assert table(app, "unseen D")["notes"].tolist() == ["margins are too small"]
    run.write_notes("from another page")
    app.text_area[0].set_value("mine").run()
    assert run.notes == "from another page\n\nmine"
    assert app.text_area[0].value == run.notes


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


def test_an_interrupted_run_says_how_to_resume_it(open_page, runs_folder: Path) -> None:
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
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "touch", Mock(side_effect=PermissionError(13, "Permission denied")))
        app.button(key="stop_now").click().run()
    assert not app.exception and "can't be written: Permission denied" in app.error[0].value
    app.button(key="stop_now").click().run()
    assert run.stop_requested()
    assert app.button(key="stop_now").label == "Stopping"
    assert "Still training" in texts(open_page("similarity"))


def test_a_stopped_run_is_resumed_from_the_page(open_page, runs_folder: Path, monkeypatch) -> None:
    config = TrainConfig.from_parameters({"dataset": "digits", "run_name": "halt", "runs_root": str(runs_folder)})
    run = Run.create(config, DATA, "cpu", "32")
    run.update(status="stopped", reason="Stopped on request.")
    started: list[list[str]] = []

    def launch(root: Path, name: str, words: list[str]) -> launches.Launch:
        started.append(words)
        folder = root / ".launches"
        folder.mkdir()
        one = launches.Launch(name, os.getpid(), psutil.Process().create_time(), folder)
        (folder / f"{name}.json").write_text(
            json.dumps({"name": name, "pid": one.pid, "process_started": one.process_started})
        )
        return one

    monkeypatch.setattr(launches, "_launch", launch)
    run.update(process_started=0.0)
    app = open_page("runs", run="halt")
    assert "Stopped on request." in texts(app)
    app.button(key="resume_halt").click().run()
    assert started == [["resume", "halt"]]
    assert "is starting" in texts(app)
    run.claim()  # what the process does once it has read the data
    app.run()
    assert "is starting" not in texts(app) and app.progress[0].value == 0
