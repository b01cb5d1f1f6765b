"""Odd links, and odd runs beside a healthy one: the texts of a link are parsed or passed over, and pages stay whole."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from app_pages.map.lasso import LAST, MOST_CORNERS, Lasso
from app_pages.runs.tables import changed_from_preset, overview
from app_pages.search.own_picture import read_crop, write_crop
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from shared import loaders

from pddm_lab.analysis.pairs import Pairs
from pddm_lab.errors import RunError
from pddm_lab.gallery.gallery import Gallery
from pddm_lab.runs.compare import BrokenRun, list_runs
from pddm_lab.runs.run import Run

INPUTS = int(os.environ.get("PDDM_LAB_FUZZ_INPUTS", "0"))
PLACES = np.random.default_rng(0).integers(0, LAST + 1, (50, 2)).astype(np.uint16)
_TEXTS = st.one_of(
    st.text(max_size=30),
    st.from_regex(r"(2_)?(-?[0-9]{1,7}\.-?[0-9]{1,7}_){2,9}-?[0-9]{1,6}\.[0-9]{1,6}", fullmatch=True),
    st.from_regex(r"[-+]?[0-9.e_]{1,9}(,[-+]?[0-9.e]{1,6}){2,4}", fullmatch=True),
    st.lists(st.floats(0, 1).map(str), min_size=3, max_size=5).map(",".join),
    st.sampled_from(
        ["9" * 5000, "\u0663", "²", "-1", "1_0", "nan,nan,nan,nan", "0,0,inf,1", "\0", "1" * 400 + ".5", "1e999"]
    ),
    st.integers().map(str),
)


@settings(max_examples=math.ceil(INPUTS * 0.3) or 300, deadline=None, derandomize=not INPUTS, database=None)
@given(text=_TEXTS)
def test_any_text_in_a_link_is_parsed_or_passed_over(text: str) -> None:
    if lasso := Lasso.parse(text):
        assert len(lasso.corners) <= MOST_CORNERS and len(lasso.rows(PLACES)) <= len(PLACES)
        assert Lasso.parse(str(lasso)) is not None
    if crop := read_crop(text):
        assert all(0 <= edge <= 1 for edge in crop)
        assert read_crop(write_crop(crop)) or min(crop[2] - crop[0], crop[3] - crop[1]) < 0.1


def odd_infos(info: dict[str, Any]) -> dict[str, Any]:
    """Shapes of run.json that once took down the pages of healthy runs, and more of their kind."""
    metrics, data, config = info["metrics"], info["dataset"], info["config"]
    return {
        "created-number": info | {"created": 5},
        "created-naive": info | {"created": "2026-01-01T00:00:00"},
        "created-early": info | {"created": "0001-01-01T00:00:00+00:00"},
        "metrics-list": info | {"metrics": [1]},
        "metrics-flat": info | {"metrics": {"unseen": 1}},
        "metrics-text": info | {"metrics": metrics | {"unseen": {"euclidean": {"recall@1": "high"}}}},
        "metrics-large": info | {"metrics": metrics | {"unseen": {"euclidean": {"recall@1": 10**400}}}},
        "dataset-list": info | {"dataset": []},
        "dataset-bare": info | {"dataset": {}},
        "dataset-items": info | {"dataset": data | {"items": "many"}},
        "dataset-name": info | {"dataset": data | {"name": {"a": 1}}},
        "skipped": info | {"dataset": data | {"skipped": "x"}},
        "phase": info | {"phase": "lunch"},
        "status": info | {"status": ["running"]},
        "seconds": info | {"seconds": "long"},
        "pid": info | {"status": "running", "pid": 10**30},
        "heartbeat": info | {"status": "running", "host": "elsewhere", "heartbeat": "now"},
        "reason": info | {"status": "failed", "reason": {"a": 1}},
        "versions": info | {"versions": 3},
        "seed": info | {"config": config | {"seed": "zero"}},
        "config-list": info | {"config": []},
        "dim": info | {"config": config | {"dim": 10**12}},
    }


@pytest.fixture
def with_odd_runs(with_digits: Path) -> Path:
    """The runs' root with a healthy run and an odd one of every shape."""
    info = json.loads((with_digits / "digits" / "run.json").read_text())
    for name, odd in odd_infos(info).items():
        (with_digits / name).mkdir()
        (with_digits / name / "run.json").write_text(json.dumps(odd))
    return with_digits


def test_each_odd_run_is_one_row_that_names_the_field(with_odd_runs: Path) -> None:
    rows = list_runs(with_odd_runs)
    broken = {row.name: row.reason for row in rows if isinstance(row, BrokenRun)}
    info = json.loads((with_odd_runs / "digits" / "run.json").read_text())
    assert set(broken) == set(odd_infos(info))
    for name, reason in broken.items():
        assert name.split("-")[0] in reason.split("run.json", 1)[1] and "expect" in reason and "\n" not in reason
    (healthy,) = [row for row in rows if isinstance(row, Run)]
    assert len(overview([healthy])) == 1 and len(changed_from_preset(healthy.config))


@pytest.mark.parametrize("page", ["runs", "search"])
def test_pages_of_a_healthy_run_show_beside_odd_ones(open_page, with_odd_runs: Path, page: str) -> None:
    app = open_page(page, run="digits", page="9" * 5000, beside="pid")
    assert app.session_state["run"] == "digits"


def test_an_item_that_leads_nowhere_has_no_picture(digits_run: Run) -> None:
    for item in ("x" * 5000, "../../etc/passwd", "", "."):
        assert loaders.file_of(digits_run, item) is None


def test_a_gallery_of_another_run_is_an_error(digits_run: Run, with_digits: Path) -> None:
    gallery = digits_run.gallery("unseen")
    other = Gallery.write(
        with_digits / "other" / "gallery" / "unseen", "unseen", np.array(gallery.features)[:, :8], gallery.items,
        lambda row: Image.new("RGB", (4, 4)), {},
    )  # fmt: skip
    (with_digits / "other" / "run.json").write_bytes((digits_run.path / "run.json").read_bytes())
    with pytest.raises(RunError, match="of another run"):
        Run.open(with_digits / "other").gallery("unseen")
    with pytest.raises(RunError, match="lacks euclidean, cosine"):
        Pairs.of(other)
