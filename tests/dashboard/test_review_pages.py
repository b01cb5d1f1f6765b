"""Correct, tag and filter on the pages, and what Audit shows of corrections and slices."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest
from app_pages.audit import corrections as corrections_view
from conftest import link
from reading import rows_of, texts
from shared import launches

from pddm_lab.data import corrections
from pddm_lab.data.corrections import corrections_file, read_corrections
from pddm_lab.errors import RunError
from pddm_lab.gallery import changes
from pddm_lab.review import tags
from pddm_lab.runs.run import Run


def files(run: Run) -> tuple[Path, Path]:
    root, dataset = run.path.parent, run.config.dataset
    return corrections_file(root, dataset), tags.tags_file(root, dataset)


def tables(app) -> list[str]:
    return [block.value for block in app.html if "pl-audit" in block.value.rpartition("</style>")[2]]


def test_the_query_is_relabelled_tagged_and_undone_on_search(open_page, with_local: Path) -> None:
    run = Run.open(with_local / "local")
    file, tag_file = files(run)
    item = str(run.gallery("unseen").items["id"].iloc[3])
    tags.tag(tag_file, "first ones", ["another"])
    app = open_page("search", run="local", protocol="unseen", item=item)
    assert app.button(key="relabel_search").disabled
    app.selectbox(key="class_search").select("9").run()
    app.text_input(key="reason_search").set_value("a nine").run()
    app.button(key="relabel_search").click().run()
    assert not app.exception and [one.value for one in app.success] == ["1 item relabelled as 9."]
    (line,) = read_corrections(file).lines
    assert (line.id, line.new_class, line.reason) == (item, "9", "a nine")
    app.button(key="undo_search").click().run()
    assert not read_corrections(file).lines
    app.button(key="exclude_search").click().run()
    assert read_corrections(file).by_item[item].action == "exclude"
    app.selectbox(key="corrected_part").select("local").run()
    app.selectbox(key="tag_search").select("first ones").run()
    app.button(key="tagging_search").click().run()
    assert len(tags.read_tags(tag_file)["first ones"]) == 1 + 12
    app.button(key="untagging_search").click().run()
    assert tags.read_tags(tag_file) == {"first ones": ["another"]} and not app.exception


def test_a_cell_works_as_shown(open_page, with_local: Path) -> None:
    run = Run.open(with_local / "local")
    items = run.gallery("unseen").items
    item = str(items["id"].iloc[0])
    app = open_page("search", run="local", protocol="unseen", item=item)
    (code,) = [block.value for block in app.code]
    tags.tag(files(run)[1], "it's odd", items["id"].iloc[5:8])
    app = open_page("audit", run="local", view="slices", slices="tag")
    (tagged,) = [block.value for block in app.code]
    for cell, expected in ((code, items.iloc[:1]), (tagged, items.iloc[5:8])):
        *lines, last = cell.split("\nitems[")
        scope: dict[str, object] = {}
        exec("\n".join(lines), scope)
        pd.testing.assert_frame_equal(eval("items[" + last, scope), expected)


def test_pages_filter_by_a_tag(open_page, with_local: Path) -> None:
    run = Run.open(with_local / "local")
    items = run.gallery("unseen").items
    tags.tag(files(run)[1], "three", items["id"].iloc[[10, 30, 50]])
    tags.tag(files(run)[1], "elsewhere", ["no item"])
    app = open_page("search", run="local", protocol="unseen", tag="three")
    for row in (30, 50, 10):
        app.button(key="next").click().run()
        assert app.query_params["item"] in (str(items["id"].iloc[row]), [str(items["id"].iloc[row])])
    app = open_page("search", run="local", protocol="unseen", tag="elsewhere")
    assert "No query of this gallery has this tag" in texts(app)
    whole, some = (open_page("overview", run="local", protocol="unseen", **of) for of in ({}, {"tag": "three"}))
    assert not some.exception and some.selectbox(key="tag").value == "three"
    assert whole.header[0].value == some.header[0].value  # the answer is that of all queries


def test_slices_are_shown_with_their_counts_and_tags_are_managed(open_page, with_local: Path) -> None:
    run = Run.open(with_local / "local")
    tag_file = files(run)[1]
    ids = run.gallery("unseen").items["id"]
    tags.tag(tag_file, "odd", ids.iloc[:9])
    app = open_page("audit", run="local", view="slices", protocol="unseen", slices="tag")
    rows = rows_of(tables(app)[0])
    assert [row[:2] for row in rows] == [
        ["all queries", str(len(ids))], ["odd", "9"], ["no tag", str(len(ids) - 9)],
    ]  # fmt: skip
    recall = run.info["metrics"]["unseen"]["euclidean"]["recall@1"]
    assert rows[0][3].startswith(f"{100 * recall:.1f}")
    app.text_input(key="rename_odd").set_value("strange").run()
    app.button(key="rename_tag").click().run()
    assert list(tags.read_tags(tag_file)) == ["strange"]
    app.button(key="remove_tag").click().run()
    assert tags.read_tags(tag_file) == {} and not app.exception
    assert "None yet" in texts(app)


def test_corrections_are_listed_undone_and_damaged_ones_named(open_page, with_local: Path) -> None:
    run = Run.open(with_local / "local")
    file = files(run)[0]
    app = open_page("audit", run="local", view="corrections")
    assert "No corrections yet" in texts(app)
    ids = [str(item) for item in run.gallery("unseen").items["id"].iloc[:3]]
    corrections.relabel(file, ids[:1], "9", "it is")
    corrections.exclude(file, ids[1:])
    app = open_page("audit", run="local", view="corrections")
    table = app.dataframe[0].value
    assert set(table["id"]) == set(ids) and list(table["decision"]) == ["left out", "left out", "9"]
    assert table["picture"].str.startswith("data:image/jpeg;base64,").all()
    assert "1 relabelled, 2 excluded" in texts(app).replace("\n", " ") and str(file) in texts(app)
    app.button(key="undo_last").click().run()
    assert list(read_corrections(file).by_item) == ids[:1]
    file.write_text("nonsense")
    assert "move the file away" in texts(open_page("audit", run="local", view="corrections"))
    app = open_page("search", run="local", protocol="unseen")
    assert any("line 1" in error.value for error in app.error) and not app.exception


def test_retraining_starts_the_same_settings_with_the_corrections(open_page, with_local: Path, monkeypatch) -> None:
    run = Run.open(with_local / "local")
    corrections.exclude(files(run)[0], [str(run.gallery("unseen").items["id"].iloc[0])])
    started: list[list[str]] = []

    def launch(root: Path, name: str, words: list[str]) -> launches.Launch:
        started.append(words)
        return launches.Launch(name, 2**22 - 1, 0.0, root / ".launches")

    monkeypatch.setattr(launches, "_launch", launch)
    app = open_page("audit", run="local", view="corrections")
    (button,) = [one for one in app.button if one.label == "Retrain with them"]
    button.click().run()
    assert not app.exception
    (words,) = started
    flags = dict(pairwise(words))
    assert words[:2] == ["train", "lab"] and "--corrections" in words
    assert (flags["--run-name"], flags["--steps"], flags["--dataset"]) == ("local-corrected", "6", run.config.dataset)
    assert flags["--data-root"] == run.config.data_root and "--runs-root" not in words
    (with_local / "demo-2").mkdir()
    (with_local / "demo-2" / "run.json").touch()
    assert launches.free_name("demo-2") == "demo-3" and launches.free_name("other") == "other"
    monkeypatch.setattr(type(run.config), "is_imported", True)
    with pytest.raises(RunError, match="was imported"):
        launches.retrain(run, "x")


def test_the_gain_is_shown_from_either_run(open_page, with_local: Path) -> None:
    run = Run.open(with_local / "local")
    shutil.copytree(run.path, with_local / "later", copy_function=link)
    file = with_local / "later" / "run.json"
    info = json.loads(file.read_text())
    file.unlink()
    info["created"] = info["created"].replace("20", "21", 1)
    info["config"] |= {"corrections": True, "run_name": "later"}
    info["dataset"] |= {"corrections": {"sha256": "ab", "items": 3}, "fingerprint": "other"}
    file.write_text(json.dumps(info | {"name": "later"}))
    pairs = [corrections_view._pair(Run.open(with_local / name)) for name in ("local", "later")]
    assert [[one.name for one in pair if one] for pair in pairs] == [["local", "later"]] * 2
    app = open_page("audit", run="local", view="corrections")
    assert "the difference with the corrections may be chance: +0.0 points" in app.header[0].value
    assert "later, trained with 3 corrected items, against local" in texts(app)
    rows = rows_of(tables(app)[0])
    assert len(rows) == 6 and all(row[4].startswith("+0.0") for row in rows)
    assert rows[0][2] == rows[0][3] == f"{100 * run.info['metrics']['unseen']['euclidean']['recall@1']:.1f}"
    gallery = run.gallery("unseen")
    changes.remove(gallery, gallery.items["id"].iloc[gallery.rows("query")[::2]].tolist())
    left = len(Run.open(run.path).gallery("unseen").rows("query"))
    app = open_page("audit", run="local", view="corrections")
    assert rows_of(tables(app)[0])[0][0].startswith(f"Unseen classes{left} of"), "the earlier run's items have changed"


def test_a_map_shows_the_items_of_a_tag(open_page, with_local: Path) -> None:
    run = Run.open(with_local / "local")
    ids = run.gallery("unseen").items["id"]
    tags.tag(files(run)[1], "five", ids.iloc[[2, 3, 5, 7, 11]])
    app = open_page("map", run="local", protocol="unseen", tag="five", lasso="0.0_65535.0_65535.65535_0.65535")
    assert not app.exception and "tag five" in texts(app)
    assert any("5 of" in one.value and "inside the lasso" in one.value for one in app.header)
