"""Charts of recognition, class scaling and transfer hold the numbers that they are given."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from pddm_lab.figures import applications


def test_few_shot_curves_have_intervals_and_a_dash_per_space() -> None:
    rows = [
        {"protocol": "unseen", "space": space, "shots": k, "method": method, "accuracy": 0.5 + k / 20,
         "low": 0.4, "high": 0.6 + k / 20}
        for space in ("pretrained", "demo") for k in (1, 5) for method in ("knn", "pddm")
        if (space, method) != ("pretrained", "pddm")
    ]  # fmt: skip
    figure = applications.few_shot(pd.DataFrame(rows), "unseen", {"knn": "k-NN", "pddm": "k-NN by S"}, title="Unseen")
    curves = [trace for trace in figure.data if trace.x[0] is not None]
    assert [(trace.name, trace.line.dash) for trace in curves] == [
        ("k-NN", "solid"),
        ("k-NN", "dot"),
        ("k-NN by S", "solid"),
    ]
    assert list(curves[0].y) == pytest.approx([55, 75]) and list(curves[0].x) == ["1", "5"]
    assert list(curves[0].error_y.array) == pytest.approx([10, 10])
    assert {trace.name for trace in figure.data if trace.x[0] is None} == {"demo", "pretrained"}


def test_class_scaling_shows_sizes_and_seconds() -> None:
    seconds = ("add_gallery_seconds", "enlarge_seconds", "pass_seconds")
    table = pd.DataFrame(
        {"classes": [10, 100], "lab_bytes": 100, "gallery_bytes": [1, 10], "classifier_bytes": [50, 500]}
    )
    figure = applications.class_scaling(table.assign(**{name: [n + 1.0, n + 2.0] for n, name in enumerate(seconds)}))
    of = {trace.name: list(trace.y) for trace in figure.data}
    assert of["lab: model and gallery"] == [101, 110]
    assert of["classifier: and a pass of training"] == [5, 7]
    assert figure.layout.xaxis.type == figure.layout.yaxis2.type == "log"


def test_transfer_is_a_row_per_model() -> None:
    shared = {"target": "grocery", "metric": "recall@1", "seeds": 2}
    rows = [
        {**shared, "protocol": protocol, "trained_on": model, "similarity": "euclidean",
         "value": value, "low": value - 0.1, "high": high}
        for protocol in ("known", "unseen") for model, value, high in (("pretrained", 0.5, np.nan), ("emoji", 0.4, 0.5))
    ]  # fmt: skip
    figure = applications.transferred(pd.DataFrame(rows), title="To grocery")
    assert [note.text for note in figure.layout.annotations] == ["Unseen classes", "Known classes"]
    assert list(figure.data[0].y) == ["pretrained", "emoji"]
    assert list(figure.data[0].x) == [50, 40]
    assert list(figure.data[0].error_x.array) == pytest.approx([0, 10])
