"""The Runs page's view of local against global metrics, on cells whose differences are known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from reading import texts

from pddm_lab.panel.local_tables import differences_table
from pddm_lab.study.cells import Study

VALUES = {"euclidean": 0.40, "joined": 0.44, "cosines": 0.43, "k_reciprocal": 0.50, "csls": 0.46}
"""MAP@R of the rivals under each protocol; local structure has 0.52 on unseen classes and 0.48 on known ones."""
CLASSES = 6


def cell_metrics(seed: int) -> tuple[dict, dict]:
    metrics, classes = {}, {}
    random = np.random.default_rng(seed)
    for protocol, own in (("unseen", 0.52), ("known", 0.48)):
        noise = random.normal(0, 0.002, len(VALUES) + 1)
        values = dict(zip([*VALUES, "local"], [*VALUES.values(), own], strict=True))
        metrics[protocol] = {
            way: {"map@r": value + shift, "recall@1": value + shift}
            for (way, value), shift in zip(values.items(), noise, strict=True)
        }
        metrics[f"{protocol}, 2 a class"] = metrics[protocol]
        classes[protocol] = {
            way: {"queries": [10] * CLASSES, "hits": [10 * one["recall@1"]] * CLASSES,
                  "precisions": [10 * one["map@r"]] * CLASSES}
            for way, one in metrics[protocol].items()
        }  # fmt: skip
    return metrics, classes


@pytest.fixture
def study(runs_folder: Path) -> Study:
    made = Study.create("local", str(runs_folder))
    for dataset in ("emoji", "digits"):
        for seed in range(3):
            metrics, classes = cell_metrics(seed)
            made.write(f"local-{dataset}-quick-test-{seed}", part="local", dataset=dataset, method="quick", seed=seed,
                       settings={}, metrics=metrics, classes=classes)  # fmt: skip
    return made


def test_the_answer_comes_first_and_the_table_is_that_of_the_study(open_page, study: Study) -> None:
    app = open_page("runs", view="study")
    answer = (
        "Local structure is surely ahead of D in 4 of 4, of the best global metric in 4 of 4 and of the best local "
        "metric without training in 2 of 4 comparisons"
    )
    assert answer in texts(app)
    assert "No cell is finished yet" not in texts(app)
    table = next(one.value for one in app.dataframe if "Over classes" not in one.value and "rival's" in one.value)
    expected = differences_table(study, "local")
    expected = expected[(expected["metric"] == "map@r") & ~expected["protocol"].str.contains(",")]
    np.testing.assert_allclose(table["difference"], expected["difference"])
    np.testing.assert_allclose(table["own"], expected["rival's"] + expected["difference"])
    assert list(table["against"][:3]) == [
        "D", "best global: D with pretrained features", "best local: k-reciprocal re-ranking",
    ]  # fmt: skip
    chart = json.loads(next(one for one in app.get("plotly_chart") if one.key == "study_local_leads").proto.spec)
    drawn = [trace for trace in chart["data"] if trace.get("name")]
    assert [trace["name"] for trace in drawn] == [
        "against D", "against the best global metric", "against the best local metric without training",
    ]  # fmt: skip
    assert chart["layout"]["yaxis"]["ticktext"] == [
        f"{dataset}, {classes} classes" for dataset in ("digits", "emoji") for classes in ("unseen", "known")
    ]


def test_a_cell_without_its_classes_is_one_sentence(open_page, study: Study) -> None:
    file = study.path / "cells" / "local-emoji-quick-test-0.json"
    content = json.loads(file.read_text())
    del content["classes"]
    file.write_text(json.dumps(content))
    assert "lacks what its table needs" in texts(open_page("runs", view="study"))
