"""Charts and cards of mined quadruplets."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mining import mined_frame, write

from pddm_lab import cards, figures
from pddm_lab.analysis import hardness
from pddm_lab.runs.quadruplets import Mined
from pddm_lab.similarities import SIMILARITIES


@pytest.fixture
def mined(tmp_path: Path) -> Mined:
    return Mined.of(write(tmp_path, mined_frame(12)))


def test_hardness_draws_shares_in_percent_and_quantiles_as_bands(mined: Mined) -> None:
    table = hardness.through_training(mined, mined.pick("refit"))
    figure = figures.hardness(table)
    np.testing.assert_allclose(figure.data[0].y, 100 * table["violated_ik"], atol=1e-3)
    assert [trace.name for trace in figures.hardness(table, "same").data] == ["same j", "same k"]
    for what, lines in (("slack", 2), ("s", 3), ("d", 3)):
        bands = figures.hardness(table, what, similarity="pddm").data
        assert len(bands) == 2 * lines
        name = {"slack": "slack_ik", "s": "s_ij", "d": "d_ij"}[what]
        np.testing.assert_allclose(bands[1].y, table[f"{name}_50"], atol=1e-5)
        np.testing.assert_allclose(bands[0].y[: len(table)], table[f"{name}_90"], atol=1e-5)
    assert figures.hardness(table, "s").data[1].line.color == SIMILARITIES["pddm"].colour
    assert len(figures.hardness(hardness.through_training(mined, mined.pick("refit")[:0]), "slack").data) == 4


def test_a_cell_of_the_table_is_how_often_a_class_gave_the_negative(mined: Mined) -> None:
    table = hardness.confusions(mined, mined.pick("refit"))
    figure = figures.confusion(table, chosen=("apple", "pear"))
    cells, points = figure.data
    names = list(figure.layout.xaxis.ticktext)
    for row in table.itertuples():
        assert cells.z[names.index(row.own)][names.index(row.other)] == table["count"][row.Index]
    assert {tuple(point[:2]) for point in points.customdata} == set(zip(table["own"], table["other"], strict=True))
    assert len(figure.layout.shapes) == 2
    assert len(figures.confusion(table, most=2).data[0].z) == 2
    assert len(figures.confusion(table.iloc[:0]).data[0].z) == 0


def test_a_card_says_why_each_picture_is_there() -> None:
    row = mined_frame(2).iloc[0].to_dict() | {"positives": 2}
    body = cards.quadruplet_card(row, {}, margin=0.5).body
    assert "the least similar of 2 positives in the batch, by PDDM" in body
    numbers = [f"{value:.2f}".replace("-", "−") for value in (row["s_ik"], row["s_ij"], row["slack_ik"])]
    terms = [f"({text})" if text.startswith("−") else text for text in numbers[:2]]
    assert f"0.5 + {terms[0]} − {terms[1]} = {numbers[2]}" in body
    assert ("above 0, violated" in body) == (row["slack_ik"] > 0 or row["slack_jl"] > 0)
    assert "Why these four" not in cards.quadruplet_card(row, {}).body
    batch = cards.quadruplet_card(row | {"positives": np.nan}, {}, margin=0.5, mined_by="mahalanobis").body
    assert "the least similar positive pair of the batch, by Mahalanobis" in batch


def test_a_card_shows_what_euclidean_mining_chooses_instead() -> None:
    row = mined_frame(2).iloc[0].to_dict()
    other = row | {"e_i": row["i"], "e_j": row["j"], "e_k": "<other>.png", "e_l": row["l"], "e_d_ik": 0.125}
    body = cards.quadruplet_card(other, {}).body
    assert body.count("the same") == 2 and "k′" in body
    assert "&lt;other&gt;.png; D 0.12 and S" in body and "<other>" not in body
    same = row | {f"e_{end}": row[end] for end in "ijkl"}
    assert "chooses the same four" in cards.quadruplet_card(same, {}).body
    assert "i′" in cards.quadruplet_card(other | {"e_i": "another.png"}, {}).body
    assert "pl-instead" not in cards.quadruplet_card(row | {"e_i": None}, {}).body


def test_confused_classes_are_bars_that_can_be_chosen() -> None:
    pairs = pd.DataFrame(
        {"a": ["<a>", "c"], "b": ["b", "d"], "count": [10, 5], "violated": [5, 0], "a_to_b": [7, 5], "b_to_a": [3, 0]}
    )
    block = cards.confusion_bars(pairs, {"1": b"\x89PNG"}, {("<a>", "b"): (["1"], ["2"])}, chosen=("b", "<a>")).body
    assert 'data-pick="[&quot;&lt;a&gt;&quot;, &quot;b&quot;]"' in block
    assert "width:100.0%" in block and "width:50.0%" in block and "7 of b for &lt;a&gt;" in block
    assert block.count("pl-chosen") == 1 and block.count("<img") == 1 and block.count("pl-none") == 1
    assert cards.confusion_bars(pairs.iloc[:0], {}, {}).body


def test_suspects_stand_beside_both_classes(mined: Mined) -> None:
    table = hardness.suspects(mined, mined.pick("refit"), least_met=2)
    named = {*table["class_name"], *table["named"]}
    body = cards.suspect_grid(table, {}, hardness.examples(mined, mined.pick("refit"), named), first=13).body
    assert body.count('class="pl-suspect') - 1 == len(table)
    assert '"pl-rank">13<' in body
    first = table.iloc[0]
    against = f"{first['against']} of {first['met']} classmates contradict the label"
    assert f"{against}, most often for {first['named']}" in body
    assert ("pl-strong" in body) == (first["score"] >= 0.5)


def test_a_batch_is_a_matrix_with_its_classes_framed_and_its_picks_marked() -> None:
    scores = -np.arange(16.0).reshape(4, 4)
    marks = {"positive": [(0, 1)], "negative": [(0, 2), (3, 1)]}
    figure = figures.batch_matrix(scores, ["a", "a", "b", "b"], [b"png"] * 4, "euclidean", marks=marks)
    cells, positive, negative = figure.data
    assert np.isnan(np.diag(cells.z)).all() and cells.z[1][2] == -6 and cells.text[1][2] == 6
    assert cells.customdata[1][2].tolist() == ["a", "b"]
    assert [(shape.x0, shape.x1) for shape in figure.layout.shapes] == [(-0.5, 1.5), (1.5, 3.5)]
    assert (list(positive.x), list(positive.y)) == ([1], [0])
    assert list(zip(negative.y, negative.x, strict=True)) == marks["negative"]
    assert len(figure.layout.images) == 8
    assert not figures.batch_matrix(scores, list("abcd"), [], "pddm").layout.images
