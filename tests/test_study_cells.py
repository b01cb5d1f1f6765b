"""A study on disk and its tasks: no cell is computed twice, no file is damaged, and a failure doesn't stop the rest."""

from __future__ import annotations

import json
import multiprocessing
import re
from pathlib import Path
from typing import Any

import pytest
from pixel_study import pixels, work

from pddm_lab import cli
from pddm_lab.config import TrainConfig
from pddm_lab.errors import ConfigError, DataError, LabError, RunError
from pddm_lab.study import plan as study_plan
from pddm_lab.study import search as searching
from pddm_lab.study.cells import Study, key_of, list_studies, table
from pddm_lab.study.fit import Fitting
from pddm_lab.study.material import Material
from pddm_lab.study.methods import METHODS
from pddm_lab.study.plan import Plan, run_study
from pddm_lab.study.search import best_of, chosen_row, mean_row, search_configuration, train_and_measure
from pddm_lab.study.work import Task, compute_cells

SMALL: dict[str, Any] = {
    "datasets": ("digits",), "parts": ("methods",), "methods": ("triplet_hard", "pretrained"), "configurations": 2,
    "seeds": 2, "folds": 2, "steps": 4, "eval_every": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def material(data_root: Path) -> Material:
    return pixels(data_root)


@pytest.fixture
def on_pixels(material: Material, monkeypatch: pytest.MonkeyPatch) -> None:
    """The study's material is there without running a network."""
    monkeypatch.setattr(searching, "material_of", lambda config, folds: material)
    monkeypatch.setattr(study_plan.Material, "load", lambda config, folds, bar: material)


def files(study: Study) -> list[str]:
    return sorted(path.name for path in (study.path / "cells").iterdir())


def test_a_study_resumes_and_computes_nothing_twice(on_pixels: None, tmp_path: Path) -> None:
    lines: list[str] = []
    study, outcome = run_study(Plan(**SMALL), "s", str(tmp_path), log=lines.append, progress=False)
    # two searches a method; two seeds of the one that trains, one of the other
    assert (outcome.computed, outcome.present, outcome.failures) == (7, 0, {})
    assert lines[0].startswith("Planned: about 0 min; cores: 1")
    assert lines[1] == "0 cells are there, 7 are to be computed." and lines[-1].startswith("7/7 ")
    before = {path.name: path.stat().st_mtime_ns for path in (study.path / "cells").iterdir()}
    study, outcome = run_study(Plan(**SMALL), "s", str(tmp_path), log=lines.append, progress=False)
    assert (outcome.computed, outcome.present) == (0, 7)
    assert before == {path.name: path.stat().st_mtime_ns for path in (study.path / "cells").iterdir()}
    _, outcome = run_study(Plan(**SMALL | {"seeds": 3}), "s", str(tmp_path), log=lines.append, progress=False)
    assert (outcome.computed, outcome.present) == (1, 7), "a study grows"
    assert list_studies(str(tmp_path)) == [study.path]

    measurements = table(study.path)
    methods = measurements[measurements["part"] == "methods"]
    assert set(methods["protocol"]) == {"unseen", "known"}
    assert {"recall@1", "recall@32", "r_precision", "map@r", "nmi", "auc", "dprime", "tpr@1%fpr", "tpr_sparse"} <= set(
        methods["metric"]
    )
    nmi = methods[(methods["metric"] == "nmi")]
    assert set(nmi["protocol"]) == {"unseen"} and nmi["value"].between(0, 1).all()

    with pytest.raises(RunError, match=r"other settings: steps was 4 and is 6"):
        run_study(Plan(**SMALL | {"steps": 6}), "s", str(tmp_path), log=lines.append, progress=False)


def test_selection_uses_no_test_item(material: Material, on_pixels: None, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, trained, measured = material.dataset, list[set[int]](), list[set[int]]()
    assert dataset.unseen and dataset.known
    tested = set(dataset.unseen.query) | set(dataset.unseen.gallery) | set(dataset.known.query)
    begin, advance = Fitting.__init__, Fitting.advance

    def beginning(self: Fitting, material: Material, method: Any, settings: Any, items: Any, *rest: Any) -> None:
        trained.append(set(items.tolist()))
        begin(self, material, method, settings, items, *rest)

    def advancing(self: Fitting, to: int, validation: Any = None) -> Any:
        measured.append(set(validation.tolist()))
        return advance(self, to, validation)

    monkeypatch.setattr(Fitting, "__init__", beginning)
    monkeypatch.setattr(Fitting, "advance", advancing)
    config = TrainConfig.from_parameters({"dataset": "digits"})
    for name in ("pddm", "mahalanobis", "proxy_anchor", "pca"):
        trained.clear()
        measured.clear()
        method = METHODS[name]
        settings = method.configurations()[0]
        cell = search_configuration([], config=config, folds=2, method=method, settings=settings, steps=2, eval_every=2)
        assert cell["chosen"]["step"] == (2 if method.trains else 0)
        assert len(trained) == 2 and len(measured) == 2
        for items in (*trained, *measured):
            assert not items & tested
        for fitted, held_out in zip(trained, measured, strict=True):
            assert not set(dataset.labels[[*fitted]]) & set(dataset.labels[[*held_out]])


def row(step: int, value: float, error: float = 0.01) -> dict[str, Any]:
    return {"step": step, "seconds": 0.0, "euclidean": {"map@r": value, "error": error}}


def test_the_latest_step_within_an_error_of_the_best_is_chosen() -> None:
    curve = [row(50, 0.2), row(100, 0.3), row(150, 0.295), row(200, 0.285)]
    assert chosen_row(curve, "euclidean", 1.0)["step"] == 150
    assert chosen_row(curve, "euclidean", 0.0)["step"] == 100
    assert chosen_row(curve, "euclidean", 2.0)["step"] == 200
    mean = mean_row([row(50, 0.2, 0.03), row(50, 0.4, 0.04)], ["euclidean"])
    assert mean["euclidean"]["map@r"] == pytest.approx(0.3) and mean["euclidean"]["error"] == pytest.approx(0.025)
    assert mean["euclidean"]["folds"] == [0.2, 0.4]
    cells = [{"chosen": {"map@r": value}, "n": n} for n, value in enumerate((0.1, 0.3, 0.3))]
    assert best_of(cells)["n"] == 1


def test_a_configuration_that_diverges_counts_as_searched(on_pixels: None) -> None:
    config, method = TrainConfig.from_parameters({"dataset": "digits"}), METHODS["npairs"]
    settings = method.configurations()[0] | {"lr": 1e30, "average": 0.0}
    shared: dict[str, Any] = {"config": config, "folds": 2, "method": method}
    cell = search_configuration([], **shared, settings=settings, steps=4, eval_every=4)
    assert cell["chosen"]["step"] == 0 and cell["chosen"]["map@r"] == 0
    fine = search_configuration([], **shared, settings=method.configurations()[0], steps=4, eval_every=4)
    assert best_of([cell, fine]) is fine
    with pytest.raises(LabError, match="Every configuration of npairs diverged"):
        train_and_measure([cell], **shared, seed=0, part="methods")


def test_a_failure_is_reported_and_the_other_cells_are_computed(tmp_path: Path) -> None:
    study, lines = Study.create("s", str(tmp_path)), list[str]()
    tasks = [
        Task("a", work, {"value": 1.0}),
        Task("b", work, {"fails": True}),
        Task("c", work, {}, needs=("b",)),
        Task("d", work, {"value": 2.0}, needs=("a",)),
    ]
    outcome = compute_cells(study, tasks, log=lines.append)
    assert outcome.failures == {"b": "nothing to train on.", "c": "needs b, which failed."}
    assert files(study) == ["a.json", "d.json"]
    assert study.cell("d")["metrics"]["unseen"]["euclidean"]["map@r"] == 3.0
    assert any("b FAILED: nothing to train on." in line for line in lines)


def test_stopping_a_study_loses_only_unfinished_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = Study.create("s", str(tmp_path))
    tasks = [Task(name, work, {"value": 1.0}) for name in "abc"]

    def write_half(path: Path, *_: Any, **__: Any) -> None:
        with open(path, "wb") as file:
            file.write(b'{"key": "b", "par')
        raise KeyboardInterrupt

    compute_cells(study, tasks[:1], log=lambda line: None)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", write_half)
        with pytest.raises(KeyboardInterrupt):
            compute_cells(study, tasks, log=lambda line: None)
    assert files(study) == ["a.json"], "no damaged and no temporary file"
    assert compute_cells(Study(study.path), tasks, log=lambda line: None).computed == 2


def test_processes_share_the_work_and_end_with_it(tmp_path: Path) -> None:
    study = Study.create("s", str(tmp_path))
    tasks = [Task(name, work, {"value": 1.0}) for name in "abcd"]

    def interrupt(line: str) -> None:
        if line.startswith("2/"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compute_cells(study, tasks, 2, interrupt)
    for process in multiprocessing.active_children():
        process.join(300)
    assert not multiprocessing.active_children()
    assert len(files(study)) == 2
    for name in files(study):
        json.loads((study.path / "cells" / name).read_text())


def test_keys_are_file_names_that_differ() -> None:
    assert key_of("methods", "emoji", "pddm", 0) == "methods-emoji-pddm-0"
    one, other = key_of("m", "folder:/a/b"), key_of("m", "folder:/a_b")
    assert one != other and "/" not in one and ":" not in one


def test_errors_name_the_damaged_file_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="name expects letters"):
        Study.create("../x", str(tmp_path))
    with pytest.raises(RunError, match=r"study\.json is missing"):
        table(tmp_path)
    study = Study.create("s", str(tmp_path))
    (study.path / "cells" / "a.json").write_text('{"key": ')
    with pytest.raises(RunError, match=r"a\.json is damaged.*Delete it"):
        table(study.path)
    (study.path / "cells" / "a.json").write_text('{"key": "a"}')
    with pytest.raises(RunError, match=r"a\.json was not written by this lab"):
        table(study.path)


def test_a_bad_plan_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Unknown method 'pdm'. Did you mean 'pddm'\?"):
        Plan(methods=("pdm",))
    with pytest.raises(ConfigError, match="--configurations expects 1 or more, at most 6, got 7"):
        Plan(configurations=7)
    with pytest.raises(ConfigError, match="--seeds expects 1 or more"):
        Plan(seeds=0)
    with pytest.raises(ConfigError, match="--processes expects 1 or more"):
        run_study(Plan(**SMALL), "s", str(tmp_path), processes=0)
    with pytest.raises(DataError, match="Unknown data set 'emojis'"):
        run_study(Plan(**SMALL | {"datasets": ("emojis",)}), "s", str(tmp_path), progress=False)


def test_every_method_has_the_same_budget() -> None:
    tasks = Plan().tasks()
    searches = [task for task in tasks if task.key.startswith("search-methods-emoji-")]
    by_method: dict[str, list[Task]] = {}
    for task in searches:
        by_method.setdefault(task.arguments["method"].name, []).append(task)
    assert set(by_method) == set(METHODS)
    assert {len(group) for group in by_method.values()} == {6}
    assert {(task.arguments["steps"], task.arguments["folds"]) for task in searches} == {(400, 3)}
    keys = [task.key for task in tasks]
    assert len(keys) == len(set(keys))
    assert all(set(task.needs) <= set(keys) for task in tasks)


def test_the_command_computes_a_study_and_writes_its_tables(
    on_pixels: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["--datasets", "digits", "--methods", "triplet_hard", "pretrained", "--configurations", "1", "--seeds", "2"]
    words = ["compare", "--name", "s", "--part", "methods", *small, "--steps", "4", "--runs-root", str(tmp_path)]
    cli.main([*words, "--processes", "1"])
    printed = capsys.readouterr()
    assert re.match(r"5 cells computed in \d+\.\d min", printed.out)
    assert "5/5 methods-digits-pretrained-0" in printed.err
    tables = tmp_path / "studies" / "s" / "tables"
    assert "Triplet, batch-hard" in (tables / "compare.md").read_text()
    cli.main([*words, "--tables-only", "--out", str(tmp_path / "results")])
    assert (tmp_path / "results" / "compare.md").read_text() == (tables / "compare.md").read_text()
    assert "computed" not in capsys.readouterr().out

    for bad, message in (
        (
            ["--part", "method"],
            "--part expects all, methods, ablation, recipes, sweep, finalists, local, local-folds, end-to-end, "
            "augmentation, augmentation-folds, got 'method'.",
        ),
        (["--steps", "5", "--processes", "1"], "has other settings: steps was 4 and is 5."),
        (["--name", "none", "--tables-only"], "study.json is missing. `pddm-lab compare` creates a study."),
    ):
        with pytest.raises(SystemExit) as ended:
            cli.main([*words, *bad])
        assert ended.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line
