"""The Quadruplets page against the log of a real run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from reading import texts

from pddm_lab.runs import Run


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
