"""Sessions of new classes: their division, what is measured by slow loops, and a whole small comparison."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from pixel_study import BASE, pixels

from pddm_lab import cli
from pddm_lab.config import TrainConfig
from pddm_lab.errors import ConfigError
from pddm_lab.local import episodes, fit
from pddm_lab.study.cells import Study
from pddm_lab.update import sessions as dividing
from pddm_lab.update.compatibility import SHARES, backfill, two_by_two
from pddm_lab.update.sessions import Plan, Sessions, read_sessions
from pddm_lab.update.tables import matrix_of, summary, updates_table
from pddm_lab.update.transfer import stability, transfers
from pddm_lab.update.ways import WAYS, first_training, ranked


@pytest.fixture(scope="module")
def small(data_root: Path):
    """Every sixth digit by its pixels, as the data set of all comparisons here."""
    whole = pixels(data_root)
    kept = np.sort(np.concatenate([np.flatnonzero(whole.dataset.labels == label)[:16] for label in range(10)]))
    dataset = replace(
        whole.dataset, ids=[whole.dataset.ids[item] for item in kept], labels=whole.dataset.labels[kept],
        train=np.flatnonzero(np.isin(kept, whole.dataset.train)), unseen=None, known=None,
    )  # fmt: skip
    inputs = whole.inputs[torch.from_numpy(kept)]

    def load(config: TrainConfig, bar: Any = None, dataset: Any = None) -> Any:
        views = inputs[torch.from_numpy(dataset.train)][None]
        return replace(whole, config=config, dataset=dataset, pooled=inputs, inputs=inputs, views=views)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dividing, "dataset_of", lambda config: dataset)
        patch.setattr(dividing.Material, "load", load)
        patch.setattr(fit, "STEPS", 10)
        patch.setattr(episodes, "PAIRS", 2000)
        dividing.sessions_of.cache_clear()
        first_training.cache_clear()
        yield TrainConfig.from_parameters({**BASE, "views": 1, "dataset": "digits", "data_root": str(data_root)})


def test_transfers_equal_slow_loops_and_known_values() -> None:
    matrix, untrained = np.random.default_rng(0).random((4, 4)), np.array([0.1, 0.2, 0.3, 0.4])
    values = transfers(matrix, untrained)
    assert values["average"] == pytest.approx(sum(matrix[3][j] for j in range(4)) / 4)
    forgotten = [max(matrix[t][j] for t in range(j, 3)) - matrix[3][j] for j in range(3)]
    assert values["forgetting"] == pytest.approx(sum(forgotten) / 3)
    assert values["backward"] == pytest.approx(sum(matrix[3][j] - matrix[j][j] for j in range(3)) / 3)
    assert values["forward"] == pytest.approx(sum(matrix[j - 1][j] - untrained[j] for j in (1, 2, 3)) / 3)
    kept = transfers(np.full((3, 3), 0.5), np.full(3, 0.5))
    assert kept == {"average": 0.5, "forgetting": 0.0, "backward": 0.0, "forward": 0.0}
    assert stability([[0.8, 0.5, 0.9], [0.9, 0.9]]) == {"worst": 0.5, "gap": pytest.approx(0.15)}


def test_old_and_new_vectors_are_mixed_as_slow_loops_mix_them() -> None:
    rng = np.random.default_rng(2)
    old, new = (F.normalize(torch.from_numpy(rng.normal(size=(24, 3))).float(), dim=1) for _ in range(2))
    labels = np.repeat([0, 1, 2], 8)
    queries, searched = np.arange(0, 24, 4), np.setdiff1d(np.arange(24), np.arange(0, 24, 4))
    of_old = searched[labels[searched] < 2]

    def slow(of_query: Any, gallery: dict[int, Any]) -> float:
        values = []
        for query in queries:
            order = sorted(searched, key=lambda item: float((of_query[query] - gallery[item]).norm()))
            relevant = int((labels[searched] == labels[query]).sum())
            hits = [labels[item] == labels[query] for item in order[:relevant]]
            values.append(sum(np.mean(hits[: at + 1]) for at in range(relevant) if hits[at]) / relevant)
        return float(np.mean(values))

    tables = two_by_two(old, new, labels, {"all": queries}, searched, of_old)
    mixed = {item: (old if labels[item] < 2 else new)[item] for item in searched}
    assert tables["old in old"]["all"] == pytest.approx(slow(old, dict(enumerate(old))), abs=1e-5)
    assert tables["new in old"]["all"] == pytest.approx(slow(new, mixed), abs=1e-5)
    assert tables["old in new"]["all"] == pytest.approx(slow(old, dict(enumerate(new))), abs=1e-5)
    curves = backfill(old, new, labels, queries, searched, of_old)
    assert {len(values) for values in curves.values()} == {len(SHARES)}
    farthest = sorted(of_old, key=lambda item: -float((new[item] - old[item]).norm()))
    half = {**mixed, **{item: new[item] for item in farthest[: round(0.5 * len(farthest))]}}
    assert curves["farthest"][SHARES.index(0.5)] == pytest.approx(slow(new, half), abs=1e-5)
    for values in curves.values():
        assert values[0] == pytest.approx(tables["new in old"]["all"], abs=1e-6)
        assert values[-1] == pytest.approx(tables["new in new"]["all"], abs=1e-6)


def test_sessions_share_no_class_and_no_query_is_searched(small: TrainConfig) -> None:
    sessions = read_sessions(Plan(small, 2, 2, seed=1))
    assert [len(sessions.classes(session)) for session in range(3)] == [5, 2, 2]
    items = [*sessions.train, *sessions.queries]
    assert sum(map(len, items)) == len(np.unique(np.concatenate(items))), "no item is in two of them"
    labels = [set(sessions.labels[one].tolist()) for one in (*sessions.train, *sessions.queries)]
    assert labels[:3] == labels[3:] and not (labels[0] & labels[1] or labels[1] & labels[2] or labels[0] & labels[2])
    assert np.array_equal(sessions.until(1), np.union1d(*sessions.train[:2]))
    other = read_sessions(Plan(small, 2, 2, seed=2))
    assert any(not np.array_equal(a, b) for a, b in zip(sessions.train, other.train, strict=True))
    with pytest.raises(ConfigError, match="too few for 9 sessions of 2 new classes"):
        read_sessions(Plan(small, 9, 2))


@pytest.fixture(scope="module")
def study(small: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, str]:
    """A comparison of all ways by the command."""
    root = str(tmp_path_factory.mktemp("sessions"))
    cli.main(command(small, root))
    return Study(Path(root) / "studies" / "sessions"), root


def command(config: TrainConfig, root: str) -> list[str]:
    small = ["--steps", "6", "--update-steps", "12", "--sessions", "2", "--classes", "2", "--seeds", "1"]
    roots = ["--data-root", config.data_root, "--runs-root", root]
    return ["sessions", "--datasets", "digits", *small, *roots, "--csv", f"{root}/updates.csv"]


def test_all_ways_are_compared_and_the_same_command_resumes(
    study: tuple[Study, str], small: TrainConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = {cell["method"]: cell for cell in study[0].cells()}
    assert set(cells) == set(WAYS)
    for name, cell in cells.items():
        matrix = matrix_of(cell["metrics"], "euclidean", 3)
        assert np.isfinite(matrix).all() and np.array_equal(
            matrix[0], matrix_of(cells["none"]["metrics"], "euclidean", 3)[0]
        )
        steps = [len(curve) for curve in cell["settings"]["curves"]]
        assert steps == ([1, 1] if name in ("none", "full") else [3, 3]), "before, and after 10 and 12 steps"
        assert min(cell["settings"]["seconds"]) >= 0
        assert ("backfill" in cell["settings"]) == (name in ("replay", "near", "full"))
    still = matrix_of(cells["none"]["metrics"], "local", 3)
    assert (still == still[0]).all(), "what isn't trained ranks as before"
    unit = matrix_of(cells["unit"]["metrics"], "euclidean", 3)
    assert (unit == unit[0]).all(), "the unit alone leaves D as it is"
    moved = {
        name: np.abs(matrix_of(cells[name]["metrics"], "euclidean", 3, "map@r")[2] - still[2]).sum() for name in WAYS
    }
    assert moved["replay"] != moved["near"]
    cli.main(command(small, study[1]))
    captured = capsys.readouterr()
    assert "6 cells are there, 0 are to be computed" in captured.err and "Replay, kept near" in captured.out


def test_the_table_says_what_the_first_update_cost_and_brought(study: tuple[Study, str]) -> None:
    table = updates_table(study[0])
    cells = {cell["method"]: cell for cell in study[0].cells()}
    values = {name: {after: by["euclidean"] for after, by in cell["metrics"].items()} for name, cell in cells.items()}
    of = table[table["way"].eq("near") & table["similarity"].isin(["euclidean", ""])].set_index("quantity")["value"]
    gained = values["near"]["after 1"]["map@r of 1"] - values["near"]["after 0"]["map@r of 1"]
    whole = values["full"]["after 1"]["map@r of 1"] - values["full"]["after 0"]["map@r of 1"]
    assert of["new gained"] == pytest.approx(gained / whole)
    assert of["old lost"] == pytest.approx(
        values["near"]["after 0"]["map@r of 0"] - values["near"]["after 1"]["map@r of 0"]
    )
    seconds = [cells[name]["settings"]["seconds"][1] for name in ("near", "full")]
    assert of["time"] == pytest.approx(seconds[0] / seconds[1])
    one = summary(table, "digits", "euclidean").set_index("way")
    assert one.loc["near", "average"] == pytest.approx(matrix_of(cells["near"]["metrics"], "euclidean", 3)[2].mean())
    assert pd.isna(one.loc["full", "worst"]), "a training anew is not watched"
    written = pd.read_csv(Path(study[1]) / "updates.csv")
    assert len(written) == len(table) and {"backfill", "two by two", "recall@1"} <= set(written["quantity"])


def test_ranks_equal_a_slow_search(small: TrainConfig) -> None:
    plan = Plan(small, 2, 2)
    sessions: Sessions = dividing.sessions_of(plan)
    trained = first_training(plan, 6)
    queries = sessions.queries[1][:5]
    by = {name: (hits, precisions) for name, hits, precisions in ranked(trained, sessions, queries)}
    features = trained.embed(sessions).double().numpy()
    for row, query in enumerate(queries):
        nearest = min(sessions.searched, key=lambda item: float(np.linalg.norm(features[item] - features[query])))
        assert by["euclidean"][0][row] == (sessions.labels[nearest] == sessions.labels[query])
    without = ranked(replace(trained, structure=None), sessions, queries)
    assert [name for name, *_ in without] == ["euclidean", "pddm"]
    assert set(by) == {"euclidean", "pddm", "local"} and all(len(one[1]) == 5 for one in by.values())


def test_without_a_gain_there_is_no_share_of_it(study: tuple[Study, str], monkeypatch: pytest.MonkeyPatch) -> None:
    cells = list(study[0].cells())
    for cell in cells:
        cell["metrics"]["after 1"] = cell["metrics"]["after 0"]
    monkeypatch.setattr(Study, "cells", lambda *_: iter(cells))
    table = updates_table(study[0])
    assert table["quantity"].eq("old lost").any() and not table["quantity"].eq("new gained").any()
    assert summary(table, "digits", "euclidean")["new gained"].isna().all()
