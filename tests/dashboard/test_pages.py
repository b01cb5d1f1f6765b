"""All pages: without a run, with broken, failed and half-written runs, and with invalid links."""

from __future__ import annotations

import ast
import os
from pathlib import Path

import pytest
from reading import DATA, OF_A_RUN, PAGES, markdown, texts

from pddm_lab.config import TrainConfig
from pddm_lab.files import shipped
from pddm_lab.runs.run import Run


@pytest.mark.parametrize("page", OF_A_RUN)
def test_without_a_run_each_page_says_what_to_do(open_page, page: str) -> None:
    app = open_page(page)
    if page == "runs":
        assert "Train your first run" in texts(app)
        assert app.button(key="new_start").label == "Start training"
        assert app.radio(key="new_preset").options == ["quick", "lab", "joint", "finetune", "paper"]
    else:
        assert "No runs yet" in texts(app)


def test_a_broken_run_is_listed_with_its_reason(open_page, with_digits: Path) -> None:
    (with_digits / "damaged").mkdir()
    (with_digits / "damaged" / "run.json").write_text('{"format": 1, "na')
    app = open_page("runs")
    assert "run.json" in app.warning[0].value
    for page in PAGES:
        app = open_page(page, run="damaged")
        assert any("Showing digits instead" in warning.value for warning in app.warning)


def test_a_failed_run_shows_its_reason_on_every_page(open_page, runs_folder: Path) -> None:
    config = TrainConfig.from_parameters({"dataset": "digits", "run_name": "bad", "runs_root": str(runs_folder)})
    run = Run.create(config, DATA, "cpu", "32")
    run.update(status="failed", reason="The training diverged: lower --lr.")
    for page in OF_A_RUN:
        app = open_page(page, run="bad")
        assert "The training diverged: lower --lr." in texts(app)


@pytest.mark.parametrize("page", ["similarity", "search"])
def test_a_damaged_gallery_names_the_file(open_page, with_digits: Path, page: str) -> None:
    for protocol in ("catalogue", "unseen", "known"):
        manifest = with_digits / "digits" / "gallery" / protocol / "manifest.json"
        text = manifest.read_text()
        os.unlink(manifest)
        manifest.write_text(text[: len(text) // 2])
    assert "manifest.json is damaged" in texts(open_page(page, run="digits"))


def test_pages_survive_a_run_that_is_still_half_written(open_page, runs_folder: Path) -> None:
    config = TrainConfig.from_parameters({"dataset": "digits", "run_name": "new", "runs_root": str(runs_folder)})
    Run.create(config, DATA, "cpu", "32")
    for page in PAGES:
        open_page(page, run="new")


@pytest.mark.parametrize("nonsense", ["9" * 5000, "nan", "~nosuchuser/\0" + "x" * 300])
@pytest.mark.parametrize("page", PAGES)
def test_a_link_with_nonsense_opens_the_page_as_it_is_by_default(
    open_page, with_digits: Path, page: str, nonsense: str
) -> None:
    names = [
        "left", "right", "left_euclidean", "mined", "order", "show", "steps", "page", "results", "shortlist", "by",
        "crop", "why", "view", "of", "with", "look", "compared", "prior", "map", "alike", "kind", "labels",
        "between", "sheet", "every", "near", "item", "scene", "sees", "seed", "hidden", "margin", "step",
        "anchor_density", "mean", "length_density", "protocol", "query", "classes", "metric", "along", "phase",
        "beside", "find", "linear", "lasso", "pair", "own", "others", "colour", "anchor_even", "study", "methods",
        "class", "corruption", "strength", "side", "ranked", "measure", "cells",
    ]  # fmt: skip
    app = open_page(page, run="digits", **dict.fromkeys(names, nonsense))
    assert not app.error


def test_a_link_cannot_make_a_page_fetch_a_picture(open_page, with_digits: Path) -> None:
    image = "![x](http://example.com/a.png)"
    for page, name in (("runs", "run"), ("search", "item"), ("search", "find")):
        app = open_page(page, **{"run": "digits", name: image})
        assert "example" in texts(app)
        assert image not in markdown(app)


def test_pages_do_not_share_the_name_of_a_widget() -> None:
    named: dict[str, set[str]] = {}
    for file in shipped("dashboard/app.py").parent.rglob("*.py"):
        for call in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            options = {one.arg: one.value for one in call.keywords} if isinstance(call, ast.Call) else {}
            if "bind" in options and isinstance(key := options.get("key"), ast.Constant):
                named.setdefault(str(key.value), set()).add(f"{file.name}: {ast.unparse(call.func)}")  # type: ignore[attr-defined]
    clashes = {key: users for key, users in named.items() if len({user.rpartition(" ")[2] for user in users}) > 1}
    assert not clashes, "a session keeps a value by its name from page to page"
