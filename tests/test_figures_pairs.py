"""Charts and cards of pairs show what they were given: places, thresholds, shares, names."""

from __future__ import annotations

import json
import re

import numpy as np
import pandas as pd
import pytest

from pddm_lab import cards, figures
from pddm_lab.analysis.thresholds import QUADRANTS, by_density
from pddm_lab.metrics.separation import histogram

RNG = np.random.default_rng(0)


def scored(count: int = 900, classes: int = 20) -> pd.DataFrame:
    """Pairs whose D is twice as large where they lie sparsely, and whose S isn't."""
    positive, a = RNG.random(count) < 0.5, RNG.integers(0, classes, count)
    b = np.where(positive, a, (a + 1) % classes)
    density, away = RNG.integers(0, 3, count), np.where(positive, 0.3, 0.6) + 0.05 * RNG.normal(size=count)
    values = {"euclidean": -(away * (1 + density / 2)), "pddm": -3 * away}
    frame = pd.DataFrame({"positive": positive, "label_a": a, "label_b": b, "density": density} | values)
    return frame.astype({"euclidean": np.float32, "pddm": np.float32})


PAIRS = scored()


def test_the_joint_plot_holds_its_shares_and_draws_as_many_of_each_kind() -> None:
    names = PAIRS.assign(class_a="cat", class_b=np.where(PAIRS["positive"], "cat", "dog"))
    figure = figures.joint(
        names, "euclidean", "pddm", at_x=-0.5, at_y=-1.0, names=("class_a", "class_b"), points=100, picked=(-0.7, -1.5)
    )
    outlines, points = ([trace for trace in figure.data if trace.type == kind] for kind in ("contour", "scatter"))
    assert [trace.name for trace in points] == ["negative pairs", "positive pairs", "picked pair"]
    assert [len(trace.x) for trace in points] == [50, 50, 1]
    assert (points[2].x[0], points[2].y[0]) == (0.7, -1.5), "a distance is drawn as the distance"
    for trace, kind, text in ((points[0], False, "cat · dog"), (points[1], True, "cat")):
        rows = PAIRS.iloc[list(trace.customdata)]
        assert (rows["positive"] == kind).all() and set(trace.text) == {text}
        np.testing.assert_allclose(trace.x, -rows["euclidean"], atol=1e-4)
        np.testing.assert_allclose(trace.y, rows["pddm"], atol=1e-4)
    for trace, kind in zip(outlines, (False, True), strict=True):
        of = PAIRS[PAIRS["positive"] == kind]
        x, y, level = np.asarray(trace.x), np.asarray(trace.y), np.asarray(trace.z)
        at = level[
            np.abs(y[:, None] - of["pddm"].to_numpy()).argmin(0),
            np.abs(x[:, None] + of["euclidean"].to_numpy()).argmin(0),
        ]
        for line, share in ((3, 0.5), (2, 0.9), (1, 0.99)):
            assert (at >= line).mean() == pytest.approx(share, abs=0.03)
    assert len(figure.to_json()) < 200_000


@pytest.mark.parametrize("pairs", [PAIRS[:0], PAIRS[:1], PAIRS[PAIRS["positive"]]])
def test_a_joint_plot_of_little_is_drawn(pairs: pd.DataFrame) -> None:
    figure = figures.joint(pairs, "euclidean", "pddm", at_x=-0.5, at_y=-1.0)
    assert figure.layout.xaxis.range[0] > figure.layout.xaxis.range[1]


def test_rates_by_density_and_the_curves_beside_them() -> None:
    results = {name: by_density(PAIRS, name, 0.05) for name in ("euclidean", "pddm")}
    figure = figures.by_density(results, share=0.05)
    shown = {(trace.name, trace.xaxis or "x"): trace for trace in figure.data if trace.mode == "lines+markers"}
    for name, result in results.items():
        for axis, rate in (("x", "tpr"), ("x2", "fpr")):
            trace = shown[figures.style_of(name).title, axis]
            np.testing.assert_allclose(trace.y, 100 * result.table[rate], atol=1e-3)
            low = np.asarray(trace.y) - np.asarray(trace.error_y.arrayminus)
            np.testing.assert_allclose(low, 100 * result.table[f"{rate}_low"], atol=2e-3)
    thirds = {}
    for place, density in enumerate(("dense", "middle", "sparse")):
        of = PAIRS[PAIRS["density"] == place]
        kinds = [np.sort(of.loc[of["positive"] == kind, "euclidean"]) for kind in (True, False)]
        thirds[density] = histogram(kinds[0], kinds[1], len(of))
    at = results["euclidean"].threshold
    curves = figures.roc_by_density(thirds, "euclidean", threshold=at)
    assert [trace.name for trace in curves.data if trace.mode == "lines"] == ["dense", "middle", "sparse"]
    marks = [trace for trace in curves.data if trace.mode == "markers"]
    for mark, row in zip(marks, results["euclidean"].table.itertuples(), strict=True):
        assert (mark.x[0], mark.y[0]) == pytest.approx((100 * row.fpr, 100 * row.tpr), abs=2)
    ridges = figures.distributions_by_density(thirds, "euclidean", threshold=at)
    assert len(ridges.data) == 6 and sum(bool(trace.showlegend) for trace in ridges.data) == 2
    assert all(sum(trace.y) == pytest.approx(100, abs=0.1) for trace in ridges.data)
    assert not figures.distributions_by_density({}, "euclidean").data


def test_a_picked_pair_is_marked_on_a_distribution() -> None:
    kinds = [np.sort(PAIRS.loc[PAIRS["positive"] == kind, "euclidean"]) for kind in (True, False)]
    figure = figures.distributions(histogram(kinds[0], kinds[1], len(PAIRS)), "euclidean", picked=-0.45)
    assert figure.data[-1].name == "picked pair" and figure.data[-1].x == (0.45,)


def carded(evil: str = "dog") -> pd.DataFrame:
    return pd.DataFrame(
        {"item_a": ["a/1.png", "a/1.png"], "item_b": ["a/2.png", f"{evil}/1.png"], "class_a": ["cat", "cat"],
         "class_b": ["cat", evil], "positive": [True, False], "euclidean": [-0.5, -0.75], "pddm": [1.25, -0.5],
         "accepted": [True, False]}
    )  # fmt: skip


def test_pair_cards_name_both_items_and_what_joins_them() -> None:
    body = cards.pair_grid(carded(), {}, ("euclidean", "pddm"), chosen=("a/2.png", "a/1.png")).body
    assert [json.loads(pick.replace("&quot;", '"')) for pick in re.findall(r'data-pick="([^"]+)"', body)] == [
        ["a/1.png", "a/2.png"], ["a/1.png", "dog/1.png"],
    ]  # fmt: skip
    assert "pl-pair pl-positive pl-chosen" in body and 'pl-pair pl-negative"' in body
    for text in ("</i> 0.50", "</i> 0.75", "</i> 1.25", "</i> −0.50", "A negative pair: cat and dog, Euclidean 0.75"):
        assert text in body


def test_a_strip_lies_either_side_of_its_threshold() -> None:
    body = cards.pair_strip(carded(), {}, "euclidean", -0.6).body
    assert body.index("pl-negative") < body.index("D = 0.600") < body.index("pl-positive")
    assert "no such pair in the sample" in cards.pair_strip(carded()[:1], {}, "euclidean", -0.6).body


def test_tables_of_quadrants_and_thirds() -> None:
    counts = pd.DataFrame({"positive": [1, 2, 3, 4], "negative": [40, 0, 10, 50]}, index=QUADRANTS)
    body = cards.quadrant_table(counts, "euclidean", "pddm").body
    assert "<th></th>" not in body
    shown = re.findall(r"<b>([\d,]+)</b> (\w+) <small>([\d.]+) %", body)
    assert shown[0] == ("3", "positive", "30.0") and shown[-1] == ("0", "negative", "0.0")
    assert "–" in cards.quadrant_table(counts * [0, 1], "euclidean", "pddm").body
    result = by_density(PAIRS, "euclidean", 0.05)
    body = cards.density_table({"euclidean": result}).body
    for row in result.table.itertuples():
        assert f"{row.positives:,} + {row.negatives:,}" in body
        assert f"<td>{100 * row.tpr:.1f}<small>{100 * row.tpr_low:.1f} – {100 * row.tpr_high:.1f}</small>" in body
    assert "–</td>" in cards.density_table({"euclidean": by_density(PAIRS[:3], "euclidean", 0.05)}).body


def test_pair_blocks_escape_names() -> None:
    evil = '"><script>alert(1)</script>'
    for block in (
        cards.pair_grid(carded(evil), {}, ("euclidean", "pddm")),
        cards.pair_strip(carded(evil), {}, "euclidean", -0.6),
        cards.quadrant_table(pd.DataFrame({"positive": 1, "negative": 1}, index=QUADRANTS), evil, evil),
    ):
        assert "<script" not in block.body
