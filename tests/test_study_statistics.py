"""Statistics of a study against values computed by hand, and its tables."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pddm_lab.errors import RunError
from pddm_lab.figures import study as figures
from pddm_lab.study.cells import Study, key_of, table
from pddm_lab.study.statistics import (
    best_baseline,
    compare_similarities,
    compare_with_baseline,
    convergence,
    curves,
    holm,
    paired_test,
    search_results,
    summary,
)
from pddm_lab.study.tables import format_number, lead_table, markdown, published_table, write_tables


def test_a_paired_test_by_hand() -> None:
    difference, half, p = paired_test([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])
    assert difference == 2.0
    assert half == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    # t = 2 / (1 / sqrt 3) = 3.4641; for 2 degrees of freedom p = 1 - t / sqrt(2 + t^2)
    assert p == pytest.approx(1 - math.sqrt(12) / math.sqrt(14), rel=1e-6)
    assert paired_test([1.0, 1.0], [1.0, 1.0])[2] == 1.0
    assert paired_test([2.0, 3.0], [1.0, 2.0])[2] == 0.0
    assert math.isnan(paired_test([1.0], [2.0])[2])


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    corrected = holm([math.nan, 0.02, 0.01])
    assert math.isnan(corrected[0]) and corrected[1:] == pytest.approx([0.02, 0.02])
    assert holm([]) == []


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Two methods and the pretrained features, with numbers that are easy to follow."""
    study = Study.create("s", str(tmp_path_factory.mktemp("runs")))
    validation = {"pddm": [0.30, 0.40], "triplet_hard": [0.25, 0.35], "contrastive": [0.2, 0.3], "pretrained": [0.1]}
    unseen = {"pddm": [0.5, 0.6, 0.7], "triplet_hard": [0.4, 0.45, 0.5], "contrastive": [0.9, 0.9, 0.8],
              "pretrained": [0.2]}  # fmt: skip
    for method, values in validation.items():
        steps = [0] if method == "pretrained" else [50, 100]
        curve = [
            {"step": step, "seconds": step / 10, "euclidean": {"map@r": value, "error": 0.01, "folds": [value]}}
            for step, value in zip(steps, values, strict=True)
        ]
        study.write(
            key_of("search", "methods", "cub200", method, 0), part="search", dataset="cub200", method=method, seed=0,
            settings={"lr": 1e-3}, metrics={"validation": {"euclidean": {"map@r": values[-1]}}}, curve=curve,
            chosen={"step": steps[-1], "similarity": "euclidean", "map@r": values[-1], "error": 0.01},
        )  # fmt: skip
        for seed, value in enumerate(unseen[method]):
            metrics = {"map@r": value, **{f"recall@{k}": value / 2 for k in (1, 2, 4, 8, 16, 32)}}
            study.write(
                key_of("methods", "cub200", method, seed), part="methods", dataset="cub200", method=method, seed=seed,
                settings={}, metrics={"unseen": {"euclidean": metrics}},
            )  # fmt: skip
    study.write(
        key_of("ablation", "cub200", "default", 0), part="ablation", dataset="cub200", method="default", seed=0,
        settings={}, metrics={"unseen": {"pddm": {"map@r": 0.5}}},
    )  # fmt: skip
    return study


def test_the_best_baseline_is_chosen_by_validation_not_by_test(study: Study) -> None:
    results = search_results(study)
    best = best_baseline(results, "cub200")
    assert best["method"] == "triplet_hard", "contrastive is better on the test classes, PDDM is no baseline"
    assert best["value"] == 0.35
    with pytest.raises(RunError, match="No baseline was searched on emoji"):
        best_baseline(results, "emoji")


def test_a_study_without_a_baseline_has_tables(tmp_path: Path) -> None:
    study = Study.create("s", str(tmp_path))
    row = {"map@r": 0.5, "error": 0.1, "folds": [0.5]}
    study.write(
        key_of("search", "methods", "emoji", "pddm", 0), part="search", dataset="emoji", method="pddm", seed=0,
        settings={"lr": 1e-3}, metrics={"validation": {"euclidean": {"map@r": 0.5}}},
        curve=[{"step": 50, "seconds": 1.0, "euclidean": row}],
        chosen={"step": 50, "similarity": "euclidean", "map@r": 0.5, "error": 0.1},
    )  # fmt: skip
    study.write(
        key_of("methods", "emoji", "pddm", 0), part="methods", dataset="emoji", method="pddm", seed=0, settings={},
        metrics={"unseen": {"euclidean": {"map@r": 0.5, "recall@1": 0.6}}},
    )  # fmt: skip
    write_tables(study, tmp_path / "tables")
    text = (tmp_path / "tables" / "compare.md").read_text()
    assert "| PDDM+Quadruplet | euclidean | 60.0" in text and "No baseline has been measured here yet." in text


def test_methods_are_compared_seed_by_seed(study: Study) -> None:
    rows = compare_with_baseline(table(study.path), search_results(study), ["map@r"]).set_index("method")
    assert set(rows.index) == {"pddm", "contrastive", "pretrained"}
    assert rows.loc["pddm", "difference"] == pytest.approx(0.15)
    assert rows.loc["pddm", "seeds"] == 3
    assert rows.loc["pddm", "p"] == pytest.approx(paired_test([0.5, 0.6, 0.7], [0.4, 0.45, 0.5])[2])
    assert rows.loc["pretrained", "difference"] == pytest.approx(0.2 - 0.45), (
        "a single value is compared with every seed"
    )
    assert rows["holm"].tolist() == pytest.approx(holm(rows["p"].tolist()))


def test_s_is_compared_with_the_distances_of_its_own_training(tmp_path: Path) -> None:
    study = Study.create("s", str(tmp_path))
    for seed, (s, d) in enumerate([(0.5, 0.4), (0.7, 0.5)]):
        for method, metrics in (
            ("lab", {"pddm": {"map@r": s}, "euclidean": {"map@r": d}, "mahalanobis": {"map@r": s}}),
            ("triplet_hard", {"euclidean": {"map@r": 0.9}}),
        ):
            study.write(key_of("methods", "cub200", method, seed), part="methods", dataset="cub200", method=method,
                        seed=seed, settings={}, metrics={"known": metrics})  # fmt: skip
    rows = compare_similarities(table(study.path)).set_index("similarity")
    assert set(rows["method"]) == {"lab"}, "a method without S has nothing to compare"
    assert rows.loc["euclidean", "difference"] == pytest.approx(0.15)
    assert rows.loc["euclidean", "half"] == pytest.approx(paired_test([0.5, 0.7], [0.4, 0.5])[1])
    assert rows.loc["mahalanobis", "difference"] == 0
    leads = lead_table(rows.reset_index(), "cub200")
    assert leads["known classes: S − D"].tolist() == ["15.0 ± 63.5"] and leads["unseen classes: S − D"].tolist() == [""]


def test_means_over_seeds_and_steps_until_the_target(study: Study) -> None:
    means = summary(table(study.path), "methods").set_index(["method", "metric"])
    assert means.loc[("pddm", "map@r"), "value"] == pytest.approx(0.6)
    assert means.loc[("pddm", "map@r"), "seeds"] == 3
    reached = convergence(study, search_results(study)).set_index("method")
    assert (reached["target"] == 0.35).all()
    assert reached.loc["pddm", "target_step"] == 100 and reached.loc["pddm", "target_seconds"] == 10.0
    assert reached.loc["triplet_hard", "target_step"] == 100
    assert math.isnan(reached.loc["contrastive", "target_step"])
    assert reached.loc["pretrained", "best_step"] == 0


def test_the_tables_hold_the_results(study: Study, tmp_path: Path) -> None:
    names = {path.name for path in write_tables(study, tmp_path / "results")}
    assert {"compare.md", "ablate.md", "converge.md", "published.md", "compare.csv", "versus.csv"} <= names
    text = (tmp_path / "results" / "compare.md").read_text()
    assert "| PDDM+Quadruplet | euclidean | 30.0 ± 12.4 |" in text
    assert "compared with Triplet, batch-hard, the best baseline" in text
    assert "| Pretrained features | euclidean | 10.0 |" in text, "one value has no interval"
    numbers = (tmp_path / "results" / "published.md").read_text()
    assert "58.3" in numbers and "71.4" in numbers and "No published numbers available." in numbers
    assert pd.read_csv(tmp_path / "results" / "versus.csv")["baseline"].eq("triplet_hard").all()


def test_published_numbers_come_with_an_empty_column_if_nothing_was_measured(study: Study) -> None:
    means = summary(table(study.path), "methods")
    rows = published_table(means, "cars196").set_index("method")
    assert rows.loc["PDDM+Quadruplet", "R@1 published"] == "57.4"
    assert (rows[[f"R@{k} here" for k in (1, 2, 4, 8)]] == "").all(axis=None)


def test_numbers_as_text() -> None:
    assert format_number(0.1234, 0.01, 100, 1) == "12.3 ± 1.0"
    assert format_number(math.nan) == "–" and format_number(0.5, digits=1) == "0.5"
    assert markdown(pd.DataFrame({"a|b": ["x|y"]})) == "| a\\|b |\n| --- |\n| x\\|y |"


def test_a_study_without_cells_has_no_tables(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no finished cell yet"):
        write_tables(Study.create("s", str(tmp_path)), tmp_path)


def test_the_figure_of_learning_curves(study: Study) -> None:
    log = curves(study, search_results(study))
    figure = figures.learning(log, {"pddm": "PDDM", "triplet_hard": "Triplet"}, target=0.35, x="step")
    named = {trace.name for trace in figure.data if trace.showlegend is not False}
    assert {"PDDM", "Triplet"} <= named
    (line,) = [trace for trace in figure.data if trace.name == "PDDM"]
    assert np.allclose(np.asarray(line.y, float)[1:], [30, 40])
