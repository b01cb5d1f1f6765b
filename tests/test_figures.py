"""Figures hold the numbers they were given, in the units their axes name; blocks escape what they are given."""

from __future__ import annotations

import io
import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pddm_lab import cards, figures
from pddm_lab.metrics.separation import Distribution, histogram
from pddm_lab.similarities import EVERY


def png(colour: str = "red") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def scores() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {"positive": np.sort(random.normal(-0.7, 0.2, 500)), "negative": np.sort(random.normal(-1.3, 0.2, 9000))}


@pytest.fixture(scope="module")
def distribution(scores: dict[str, np.ndarray]) -> Distribution:
    return histogram(scores["positive"], scores["negative"], 9500)


def luminance(colour: str) -> float:
    channels = np.array([int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)])
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("colour", [*(style.colour for style in EVERY.values()), figures.NEGATIVE])
def test_colours_show_on_a_light_and_a_dark_page(colour: str) -> None:
    for page in ("#FFFFFF", "#11151C"):
        light, dark = sorted((luminance(colour), luminance(page)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 3


def test_similarities_differ_without_colour() -> None:
    looks = {(style.dash, style.symbol) for style in EVERY.values()}
    assert len(looks) == len(EVERY) == len({style.colour for style in EVERY.values()})


def test_distances_are_drawn_as_distances_on_a_reversed_axis(distribution: Distribution) -> None:
    figure = figures.distributions(distribution, "euclidean", threshold=-1.0)
    assert min(figure.data[0].x) > 0
    assert figure.layout.xaxis.range[0] > figure.layout.xaxis.range[1]
    assert figure.layout.shapes[0].x0 == 1.0
    as_score = figures.distributions(distribution, "pddm", threshold=-1.0)
    assert as_score.layout.xaxis.range[0] < as_score.layout.xaxis.range[1]
    assert as_score.layout.shapes[0].x0 == -1.0


def test_distributions_add_bins_up_to_shares_of_each_kind(distribution: Distribution) -> None:
    negative, positive = figures.distributions(distribution, "pddm", bins=50).data
    assert len(positive.x) == 50
    assert sum(positive.y) == pytest.approx(100, abs=0.01)
    assert sum(negative.y) == pytest.approx(100, abs=0.01)
    width = len(distribution.positive) // 50
    assert positive.y[7] == pytest.approx(100 * distribution.positive[7 * width : 8 * width].sum() / 500, abs=1e-4)


def test_roc_holds_the_true_rates(scores: dict[str, np.ndarray], distribution: Distribution) -> None:
    figure = figures.roc({"pddm": distribution}, thresholds={"pddm": -1.0})
    line, mark = figure.data
    assert (line.x[0], line.y[0], line.x[-1], line.y[-1]) == (0, 0, 100, 100)
    assert mark.x[0] == pytest.approx(100 * (scores["negative"] >= -1).mean(), abs=0.2)
    assert mark.y[0] == pytest.approx(100 * (scores["positive"] >= -1).mean(), abs=0.5)


def log_of(run: str = "") -> pd.DataFrame:
    rows = [
        (step, step / 10, "select", "validation", name, "map@r", step / 1000)
        for step in (0, 50, 100)
        for name in ("euclidean", "pddm")
    ]
    rows += [
        (step, step / 10, "select", "train", "pddm", term, step)
        for step in range(1, 401)
        for term in ("loss", "E_m", "E_e")
    ]
    frame = pd.DataFrame(rows, columns=["step", "seconds", "phase", "protocol", "similarity", "metric", "value"])
    return frame.assign(run=run) if run else frame


def test_curves_show_percent_by_step_and_second() -> None:
    by_step, by_second = figures.curves(log_of(), "map@r"), figures.curves(log_of(), "map@r", x="seconds")
    assert [trace.name for trace in by_step.data] == ["Euclidean", "PDDM"]
    assert list(by_step.data[0].x) == [0, 50, 100]
    np.testing.assert_allclose(by_step.data[0].y, [0, 5, 10])
    assert by_step.layout.yaxis.title.text == "MAP@R, % (validation classes)"
    assert list(by_second.data[0].x) == [0, 5, 10]
    assert by_second.layout.xaxis.title.text == "training time, s"


def test_curves_tell_runs_apart_by_dash() -> None:
    figure = figures.curves(pd.concat([log_of("a"), log_of("b")]), "map@r")
    assert [trace.name for trace in figure.data if trace.showlegend is not False] == ["Euclidean", "PDDM", "a", "b"]
    assert figure.data[0].line.color == figure.data[2].line.color
    assert figure.data[0].line.dash != figure.data[2].line.dash


def test_losses_average_neighbouring_steps_and_say_so() -> None:
    figure = figures.losses(log_of(), points=100)
    assert len(figure.data) == 3
    np.testing.assert_allclose(figure.data[0].y[:2], [2.5, 6.5])
    assert figure.layout.yaxis.title.text == "loss, mean of 4 steps"


def final(run: str, shift: float = 0.0) -> pd.DataFrame:
    rows = [
        (run, protocol, name, metric, value + shift)
        for protocol in ("unseen", "known")
        for name, better in (("pddm", 0.02), ("euclidean", 0.0))
        for metric, value in (("recall@1", 0.463 + better), ("map@r", 0.25), ("eer", 0.11 + better), ("dprime", 2.0))
    ]
    return pd.DataFrame(rows, columns=["run", "protocol", "similarity", "metric", "value"])


def test_comparison_has_a_row_per_metric_and_a_marker_per_similarity() -> None:
    figure = figures.comparison(final("a"))
    assert [trace.name for trace in figure.data] == ["Euclidean", "PDDM"] * 2
    np.testing.assert_allclose(figure.data[1].x, [48.3, 25.0])
    assert list(figure.data[0].y) == ["R@1", "MAP@R"]
    assert len(figures.comparison(pd.concat([final("a"), final("b")])).data[0].x) == 4
    of_d = final("a")[final("a")["similarity"] == "euclidean"]
    many = pd.concat([final("a"), *(of_d.assign(similarity=f"other {at}") for at in range(6))])
    wider = figures.comparison(many).layout
    assert wider.margin.t > figure.layout.margin.t, "a second line of the legend has room of its own"
    assert wider.height - wider.margin.t == figure.layout.height - figure.layout.margin.t


def test_metrics_table_shows_units_and_the_difference_to_d() -> None:
    table = final("a")
    is_led = (table["similarity"] == "pddm") & (table["metric"] == "map@r")
    table.loc[is_led, "value"] = 0.27

    def cells(leads: dict | None) -> list[list[str]]:
        body = cards.metrics_table(table, "unseen", leads=leads).body
        assert "R@1<small>%</small>" in body and "MAP@R − D<small>points</small>" in body
        rows = re.findall(r"<tr>(.*?)</tr>", body.split("<tbody>")[1])
        assert ["Euclidean" in rows[0], "PDDM" in rows[1]] == [True, True]
        return [re.findall(r"<td>(.*?)</td>", row) for row in rows]

    assert cells(None) == [["46.3", "25.0", "11.0", "2.00", ""], ["48.3", "27.0", "13.0", "2.00", "+2.0"]]
    key = ("a", "unseen", "pddm")
    assert cells({key: (0.02, 0.004, 0.035)})[1][-1] == "<b>+2.0</b><small>+0.4 to +3.5</small>"
    assert cells({key: (-0.02, -0.035, -0.004)})[1][-1] == "<b>−2.0</b><small>−3.5 to −0.4</small>"
    assert cells({key: (0.02, -0.004, 0.035)})[1][-1] == "+2.0<small>−0.4 to +3.5</small>", "level: not in bold"
    assert cells({key: (0.0, 0.0, 0.0)})[1][-1] == "0.0"
    alone = cards.metrics_table(table[table["similarity"] == "euclidean"], "unseen").body
    assert "− D" not in alone, "D is compared with nothing"


def test_decimals_are_two_or_three() -> None:
    assert [cards.html.digits_of(values) for values in ([1.0, 2.0], [0.1, 0.12], [0.5, 0.50001], [])] == [2, 3, 3, 2]


def test_a_row_of_answers_marks_right_and_wrong_in_two_ways() -> None:
    lines = [cards.Line("euclidean", 0.25, [("x", "cat"), ("y", "dog")]), cards.Line("local", 1.0, [("y", "dog")])]
    body = cards.answer_rows([cards.Answer("q<", "dog", lines)], {"q<": png(), "x": png()}).body
    assert 'data-pick="q&lt;"' in body and 'aria-label="Search with dog. Average precision: Euclidean 25 %, ' in body
    assert re.findall(r'class="pl-(hit|miss)".*?<b>(.)</b>', body) == [("miss", "✕"), ("hit", "✓"), ("hit", "✓")]
    assert body.count("<img") == 2 and body.count("no picture") == 2


def test_metrics_table_names_runs_only_where_there_are_several() -> None:
    assert "pl-run" not in cards.metrics_table(final("a"), "unseen").body
    both = cards.metrics_table(pd.concat([final("a"), final("b", 0.01)]), "unseen").body
    assert not re.search(r"<th[^>]*></th>", both), "a heading without text is none for a screen reader"
    assert re.findall(r'class="pl-run">(\w?)<', both) == ["a", "b"]


def test_a_metric_without_a_value_is_a_dash() -> None:
    assert figures.METRICS["recall@1"].format(float("nan")) == "–"


def quadruplet(**changes: object) -> dict[str, object]:
    values = {"s_ij": 0.4, "s_ik": 0.6, "s_jl": -0.3, "d_ij": 0.91, "d_ik": 0.72, "d_jl": 1.3}
    names = {"i": "a/1.png", "j": "a/2.png", "k": "b/1.png", "l": "c/1.png"}
    classes = {"class_i": "a", "class_k": "b", "class_l": "c"}
    return {"phase": "refit", "step": 120, **names, **classes, **values, "slack_ik": 0.7, "slack_jl": -0.2, **changes}


def test_quadruplet_card_shows_scores_distances_and_violations() -> None:
    body = cards.quadruplet_card(quadruplet(), {"a/1.png": png(), "a/2.png": png("blue")}).body
    for text in ("0.40", "0.60", "−0.30", "0.91", "0.72", "1.30", "✕ i–k by 0.70", "✓ j–l holds", "step 120<"):
        assert text in body
    assert body.count("<img") == 2
    assert body.count("no picture") == 2
    assert body.count("pl-broken") == 1
    assert 'alt="i: a, a/1.png"' in body


def test_blocks_escape_names() -> None:
    evil = '"><script>alert(1)</script>'
    blocks = [
        cards.quadruplet_card(quadruplet(class_k=evil, k=evil), {}),
        cards.image_grid([(evil, evil)], {}),
        cards.facts({evil: evil}),
        cards.stepper([evil], 0),
        cards.metrics_table(final(evil), "unseen"),
        cards.retrieval_grid(
            pd.DataFrame({"id": [evil], "class_name": [evil], "rank": [1], "value": [0.1]}),
            {},
            "pddm",
            right_class=evil,
        ),
    ]
    for block in blocks:
        assert "<script" not in block.body


def test_retrieval_grid_marks_right_wrong_and_places_won() -> None:
    results = pd.DataFrame(
        {"id": ["a", "b", "c"], "class_name": ["x", "y", "x"], "rank": [1, 2, 3], "value": [-0.5, -0.6, -0.7],
         "rank_change": [2.0, 0.0, -2.0]}
    )  # fmt: skip
    body = cards.retrieval_grid(results, {"a": png()}, "euclidean", right_class="x").body
    assert body.count("pl-tile pl-right") == 2
    assert body.count("pl-tile pl-wrong") == 1
    assert "0.50" in body
    assert "−0.50" not in body
    for change in ("▲2", "=", "▼2"):
        assert change in body
    unmarked = cards.retrieval_grid(results, {}, "euclidean").body
    assert "✓" not in unmarked
    assert "pl-tile pl-plain" in unmarked


@pytest.mark.parametrize("empty", [log_of().iloc[:0]])
def test_empty_logs_draw_empty_figures(empty: pd.DataFrame) -> None:
    assert len(figures.curves(empty, "map@r").data) == 0
    assert len(figures.losses(empty).data) == 0
