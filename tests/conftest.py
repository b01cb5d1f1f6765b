"""Fixtures that several files share: digits as data, one real run that was trained on them, and a small study."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from digit_pictures import write_digits
from no_maps import NoMaps, SimpleMaps

from pddm_lab.config import TrainConfig

DIGITS = {
    "preset": "joint",
    "dataset": "digits",
    "image_size": 32,
    "resize": 32,
    "steps": 30,
    "eval_every": 10,
    "classes_per_batch": 4,
}
"""Choices that train on digits in a few seconds."""
LONGEST = ("test_trainer.py", "test_exported_models.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the files that take longest first, so that no process waits for them at the end."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for data sets that the session may write to."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="session")
def digits_runs_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs' root that holds `digits_run`."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="session")
def digits_config(data_root: Path, digits_runs_root: Path) -> TrainConfig:
    """A training on digits of a few seconds."""
    roots = {"data_root": str(data_root), "runs_root": str(digits_runs_root)}
    return TrainConfig.from_parameters({**DIGITS, **roots, "run_name": "digits"})


@pytest.fixture(scope="session")
def digits_run(digits_config: TrainConfig):
    """A finished run with its galleries and simple maps."""
    from pddm_lab.training.trainer import train

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pddm_lab.training.finish.start_map", SimpleMaps)
        return train(digits_config, progress=False)


@pytest.fixture(autouse=True)
def _no_maps_in_the_background(monkeypatch: pytest.MonkeyPatch) -> None:
    """Changes of a gallery start no process; test_redraw.py starts its own."""
    monkeypatch.setattr("pddm_lab.gallery.redraw.start_redrawing", lambda path: False)


@pytest.fixture
def no_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings draw no maps: `digits_run` has real ones."""
    monkeypatch.setattr("pddm_lab.training.finish.start_map", NoMaps)


@pytest.fixture(scope="session")
def local_run(data_root: Path, tmp_path_factory: pytest.TempPathFactory):
    """A finished run of the preset `lab` on 14 digits of each class, with few steps and simple maps."""
    from pddm_lab.gallery import umap_layout
    from pddm_lab.local import episodes, fit
    from pddm_lab.training import finish
    from pddm_lab.training.trainer import train

    pictures = write_digits(tmp_path_factory.mktemp("few") / "digits", 14)
    roots = {"data_root": str(data_root), "run_name": "local"}
    choices = DIGITS | roots | {"preset": "lab", "dataset": f"folder:{pictures}", "steps": 6, "eval_every": 3}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finish, "start_map", NoMaps)
        patch.setattr(fit, "STEPS", 40)
        patch.setattr(episodes, "PAIRS", 3000)
        patch.setattr(umap_layout, "_umap", lambda features, *_: features[:, :2])
        root = str(tmp_path_factory.mktemp("local"))
        run = train(TrainConfig.from_parameters(choices | {"runs_root": root}), progress=False)
        for protocol in run.protocols():
            umap_layout.write_map(run.gallery(protocol).path)
        return run


@pytest.fixture(scope="session")
def milvus_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file of milvus-lite, which serves this process."""
    pytest.importorskip("pymilvus", reason="needs the extra milvus")
    return str(tmp_path_factory.mktemp("milvus") / "tests.db")


@pytest.fixture(scope="session")
def grocery_root() -> Path:
    """The folder that holds the Grocery Store data set, where $PDDM_LAB_DATA names one."""
    root = Path(os.environ.get("PDDM_LAB_DATA", "data"))
    if not (root / "GroceryStoreDataset").is_dir():
        pytest.skip("needs the Grocery Store data set: set PDDM_LAB_DATA to the folder that holds GroceryStoreDataset")
    return root


@pytest.fixture(scope="session")
def small_study(data_root: Path, tmp_path_factory: pytest.TempPathFactory):
    """A study of four methods and two variants of PDDM, two seeds each, judged on some of the digits' pixels."""
    from pixel_study import pixels

    from pddm_lab.analysis import thresholds
    from pddm_lab.study import plan as study_plan
    from pddm_lab.study import search as searching

    material = pixels(data_root)
    of = material.dataset
    assert of.unseen and of.known
    some = of.unseen.query[::16]
    unseen = replace(of.unseen, query=some, gallery=some)
    known = replace(of.known, query=of.known.query[::4], gallery=of.known.gallery[::8])
    material = replace(material, dataset=replace(of, unseen=unseen, known=known))
    plan = study_plan.Plan(
        datasets=("digits",), ablation_datasets=("digits",), variants=("default", "narrow"), configurations=1, seeds=2,
        methods=("pddm", "triplet_hard", "multi_similarity", "pretrained"), ablation_seeds=2, folds=2, steps=4,
        eval_every=2,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(thresholds, "MOST_PAIRS", 1000)
        patch.setattr(searching, "material_of", lambda config, folds: material)
        patch.setattr(study_plan.Material, "load", lambda config, folds, bar: material)
        root = str(tmp_path_factory.mktemp("studies"))
        study, outcome = study_plan.run_study(plan, "small", root, log=lambda line: None, progress=False)
    assert not outcome.failures
    return study
