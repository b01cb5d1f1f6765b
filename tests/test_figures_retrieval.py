"""Charts and cards of a search, read back."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest
import reference
import torch
from PIL import Image

from pddm_lab import cards, figures
from pddm_lab.analysis.explain import Explanation, explain, extremes
from pddm_lab.analysis.shortlist import Ceiling
from pddm_lab.model.pddm import PDDM
from pddm_lab.model.similarity import Mahalanobis

NAMES = ("euclidean", "mahalanobis", "pddm")


def jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(buffer, "JPEG")
    return buffer.getvalue()


def shortlist(count: int = 40) -> pd.DataFrame:
    random = np.random.default_rng(0)
    frame = pd.DataFrame({"id": [f"i{n}" for n in range(count)], "class_name": random.choice(list("xyz"), count)})
    for name in NAMES:
        frame[f"{name}_rank"] = random.permutation(count) + 1 if name != "euclidean" else np.arange(count) + 1
    return frame


@pytest.fixture
def why() -> Explanation:
    torch.manual_seed(0)
    a, b, *places = reference.unit_features(42, 6).numpy()
    return explain(a, b, PDDM(6), Mahalanobis(6), np.array(places))


def test_rank_flow_draws_what_any_similarity_has_among_its_first() -> None:
    table, picture = shortlist(), jpeg()
    figure = figures.rank_flow(table, NAMES, right_class="x", images=dict.fromkeys(table["id"], picture), top=5)
    first = table[(table[[f"{name}_rank" for name in NAMES]] <= 5).any(axis=1)]
    assert [line.customdata[0] for line in figure.data] == first["id"].tolist()
    for line, row in zip(figure.data, first.to_dict("records"), strict=True):
        ranks = [row[f"{name}_rank"] for name in NAMES]
        for height, rank in zip(line.y, ranks, strict=True):
            assert height == rank if rank <= 5 else height > 5.4
        order = np.argsort(ranks)
        assert (np.diff(np.array(line.y)[order]) >= 0).all(), "a later rank is never drawn higher"
        right = row["class_name"] == "x"
        assert (line.name, line.line.dash) == (("right class", "solid") if right else ("another class", "dot"))
        assert f"PDDM {ranks[2]}" in line.hovertemplate
    assert len(figure.layout.images) == 15
    assert sum(line.showlegend for line in figure.data) == 2
    assert figure.layout.yaxis.range[0] > figure.layout.yaxis.range[1]


def test_rank_flow_of_an_unknown_class_marks_nothing_wrong() -> None:
    figure = figures.rank_flow(shortlist(8), NAMES, highlighted="i2")
    assert {line.name for line in figure.data} == {"class of the query unknown"}
    assert [line.line.width for line in figure.data] == [4 if item == "i2" else 2 for item in shortlist(8)["id"]]
    assert len(figures.rank_flow(shortlist(0), NAMES).data) == 0


def test_hover_labels_and_tiles_take_a_name_as_text() -> None:
    evil = "<b>x</b>"
    figure = figures.rank_flow(shortlist(1).assign(class_name=evil), NAMES)
    assert "<b>x" not in figure.data[0].hovertemplate
    row = cards.Dimension(0, -1, 1, 0.2, 0.4, [(evil, evil)], [(evil, evil)])
    unit = PDDM(6)
    explained = explain(np.eye(6)[0], np.eye(6)[1], unit)
    for block in (cards.dimension_rows(explained, [row], {}), cards.explained_pair((evil, evil), (evil, evil), {})):
        assert evil not in block.body


def test_ceiling_marks_the_chosen_size() -> None:
    measured = Ceiling(np.linspace(0.1, 0.9, 300), np.linspace(0.3, 1, 300), 10, 10)
    figure = figures.ceiling(measured, 50)
    lines, marks = [line for line in figure.data if line.mode == "lines"], figure.data[1::2]
    assert [mark.y[0] for mark in marks] == pytest.approx([100 * measured.reached[49], 100 * measured.recall[49]])
    for line, values in zip(lines, (measured.reached, measured.recall), strict=True):
        np.testing.assert_allclose(line.y, 100 * values[np.array(line.x) - 1], atol=1e-3)
        assert {1, 300} <= set(line.x)
    assert figures.ceiling(measured, 1000).data[1].x[0] == 300
    assert len(figures.ceiling(Ceiling(np.empty(0), np.empty(0), 0, 0), 50).data[0].x) == 0


def test_elsewhere_counts_every_place(why: Explanation) -> None:
    figure = figures.elsewhere(why)
    assert sum(figure.data[0].y) == len(why.elsewhere) == 40
    assert set(figure.data[1].x) == {why.score}


def test_dimension_rows_say_what_each_adds(why: Explanation) -> None:
    rows = [cards.Dimension(d, -0.5, 0.5, 0.1, -0.2, [("l", "least")], [("m", "most")]) for d in (3, 1)]
    body = cards.dimension_rows(why, rows, {"l": jpeg()}).body
    assert why.mahalanobis_shares is not None
    for d in (3, 1):
        assert f'<th scope="row">{d}</th>' in body
        assert f"{100 * why.distance_shares[d]:.1f} %" in body
        assert f"<td>{100 * why.mahalanobis_shares[d]:.1f} %</td>" in body
        assert f"<td>{why.u[d]:.2f}</td>" in body
    assert body.count("left:60.0%") == body.count("left:30.0%") // 2 == 2  # the marks, and the gap between them
    assert body.count("<img") == 2 and body.count("no picture") == 2


def test_retrieval_tiles_can_be_asked_why() -> None:
    results = pd.DataFrame({"id": ["a", "b"], "class_name": ["x", "y"], "rank": [1, 2], "value": [-0.5, -0.6]})
    body = cards.retrieval_grid(results.assign(note="PDDM 7"), {}, "euclidean", why=True, highlighted="b").body
    assert body.count('data-why="a"') == body.count('data-why="b"') == 1
    assert body.count(" data-highlighted") == 1
    assert body.count("PDDM 7") == 4  # in each tile's title, and in its picture's words
    assert "data-why" not in cards.retrieval_grid(results, {}, "euclidean").body


def test_extremes_are_the_ends_of_a_sorted_column() -> None:
    features = np.random.default_rng(1).normal(size=(50, 4))
    least, most = extremes(features, 2, 3)
    order = np.argsort(features[:, 2])
    assert least.tolist() == order[:3].tolist()
    assert most.tolist() == order[::-1][:3].tolist()
    assert len(extremes(features[:2], 0, 3)[0]) == 2


def test_an_explanation_becomes_sentences(why: Explanation) -> None:
    first, second, third = why.sentences()
    largest = np.sort(why.distance_shares)[::-1].cumsum()
    assert first == f"D is {why.distance:.2f}; {int((largest < 0.5).sum()) + 1} of 6 dimensions make up half of D²."
    taken = f"{'subtract' if why.score < why.score_of_equals else 'add'} {abs(why.score - why.score_of_equals):.2f}"
    assert taken in second
    assert f"{abs(why.gain):.2f} {'higher' if why.gain >= 0 else 'lower'} than that" in third
    same = explain(np.eye(6)[0], np.eye(6)[0], PDDM(6))
    assert same.sentences() == ["Both have the same features, so D is 0."]
