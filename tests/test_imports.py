"""Runs of features and models from elsewhere: what they hold, and that they run no code by themselves."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from digit_pictures import write_digits
from no_maps import NoMaps
from PIL import Image

from pddm_lab import cli
from pddm_lab.errors import ConfigError, DataError, LabError, RunError
from pddm_lab.gallery import changes
from pddm_lab.local import episodes, fit
from pddm_lab.model.foreign import ForeignModel
from pddm_lab.runs.local import load_local
from pddm_lab.runs.model import embedder, load_similarities
from pddm_lab.runs.new_items import to_add
from pddm_lab.runs.run import Run
from pddm_lab.training import finish, imports
from pddm_lab.training.imports import import_features, import_model
from pddm_lab.training.loop import dataset_of
from pddm_lab.training.rebuild import rebuild

PER_CLASS = 14


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some pictures of digits, a folder per class."""
    return write_digits(tmp_path_factory.mktemp("few") / "digits", PER_CLASS)


@pytest.fixture(scope="module")
def files(pictures: Path) -> tuple[Path, Path]:
    """The pictures' pixels as features, and the table of the items."""
    paths = sorted(pictures.glob("*/*.png"))
    values = np.stack([by_pixels([Image.open(path)])[0] for path in paths])
    np.save(pictures.parent / "f.npy", 3 * values)
    lines = [f"{path.relative_to(pictures).as_posix()},{path.parent.name},{at}" for at, path in enumerate(paths)]
    (pictures.parent / "items.csv").write_text("path,label,number\n" + "\n".join(lines))
    return pictures.parent / "f.npy", pictures.parent / "items.csv"


def by_pixels(images: list[Image.Image]) -> np.ndarray:
    return np.stack([np.asarray(one.convert("L").resize((8, 8)), np.float32).ravel() + 1 for one in images])


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Few steps, no maps; the runs' root."""
    monkeypatch.setattr(finish, "start_map", NoMaps)
    monkeypatch.setattr(imports, "TRAINED_STEPS", 6)
    monkeypatch.setattr(imports, "MINED_STEPS", 2)
    monkeypatch.setattr(fit, "STEPS", 20)
    monkeypatch.setattr(episodes, "PAIRS", 2000)
    return str(tmp_path / "runs")


def made(files: tuple[Path, Path], pictures: Path, root: str, train: bool = False, local: bool = False) -> Run:
    return import_features("one", *files, pictures, runs_root=root, shown=False, train=train, local=local)


def test_features_become_a_run(files: tuple[Path, Path], pictures: Path, quick: str) -> None:
    run = made(files, pictures, quick)
    assert (run.status, run.protocols(), run.is_labelled) == ("finished", ["unseen"], True)
    gallery, values = run.gallery("unseen"), np.load(files[0])
    assert np.allclose(gallery.features, values / np.linalg.norm(values, axis=1, keepdims=True), atol=1e-6)
    assert gallery.metadata()["number"].tolist() == [str(at) for at in range(len(values))]
    assert Image.open(io.BytesIO(gallery.thumb(0))).getextrema() != ((138, 138), (143, 143), (152, 152))
    metrics = run.info["metrics"]["unseen"]
    assert set(metrics) == {"euclidean", "cosine"}, "what isn't trained isn't measured"
    quadruplets = run.quadruplets()
    assert len(quadruplets) and set(quadruplets["i"]) <= set(gallery.items["id"])
    assert run.info["warnings"] == ["No maps here."] and not run.learned
    similarities = load_similarities(run)
    features = torch.from_numpy(np.array(gallery.features[:20]))
    for name in ("pddm", "mahalanobis"):
        order = similarities[name].matrix(features[:1], features).argsort(descending=True)
        assert torch.equal(order, similarities["euclidean"].matrix(features[:1], features).argsort(descending=True))
    with pytest.raises(RunError, match="exists already"):
        made(files, pictures, quick)


def test_on_request_the_similarities_learn(files: tuple[Path, Path], pictures: Path, quick: str) -> None:
    run = made(files, pictures, quick, train=True, local=True)
    assert run.protocols() == ["unseen", "known"]
    assert {"euclidean", "mahalanobis", "pddm", "local", "k_reciprocal"} <= set(run.info["metrics"]["unseen"])
    local = load_local(run)
    assert local is not None and local.part is None
    gallery = run.gallery("unseen")
    found = gallery.search_by(np.array(gallery.features[0]), [], exclude=0, local=local.structure)
    assert found.table["local"].notna().all()
    assert any("imported" in one and "learned from one embedding" in one for one in run.info["warnings"])
    weights = load_similarities(run)["mahalanobis"].state_dict()
    assert any(not torch.equal(value, value.round()) for value in weights.values()), "it has moved from the identity"


def test_a_stopped_import_resumes(
    files: tuple[Path, Path], pictures: Path, quick: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(finish, "write_files", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            made(files, pictures, quick, train=True)
    assert Run.open(Path(quick) / "one").status == "failed"
    cli.main(["resume", "one", "--runs-root", quick])
    assert Run.open(Path(quick) / "one").status == "finished"


def test_items_without_labels_or_pictures_can_be_searched(files: tuple[Path, Path], quick: str, tmp_path: Path) -> None:
    count = len(np.load(files[0]))
    (tmp_path / "items.csv").write_text("id\n" + "\n".join(f"item {at}" for at in range(count)))
    run = import_features("bare", files[0], tmp_path / "items.csv", runs_root=quick, shown=False)
    assert (run.status, run.is_labelled, run.info["metrics"]) == ("finished", False, {})
    gallery = run.gallery("unseen")
    assert gallery.search(gallery.features[3:4], 1)[0][0, 0] == 3
    assert not len(run.quadruplets())
    with pytest.raises(RunError, match=r"--model package\.module:callable"):
        embedder(run)


def test_of_many_items_a_sample_is_measured(
    files: tuple[Path, Path], pictures: Path, quick: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = made(files, pictures, quick).info["metrics"]["unseen"]["euclidean"]
    monkeypatch.setattr(finish, "MOST_QUERIES", 100)
    run = import_features("two", *files, pictures, runs_root=quick, shown=False)
    some = run.info["metrics"]["unseen"]["euclidean"]
    assert some["map@r"] != whole["map@r"] and abs(some["map@r"] - whole["map@r"]) < 0.1
    assert any("of 100 of 140 queries" in one for one in run.info["warnings"])


def test_a_damaged_gallery_is_written_again(files: tuple[Path, Path], pictures: Path, quick: str) -> None:
    run = made(files, pictures, quick)
    before = np.array(run.gallery("unseen").features)
    (run.path / "gallery" / "unseen" / "features.npy").unlink()
    dataset = dataset_of(run.config, run.path.parent)
    assert dataset.unseen
    rebuilt = rebuild(run, dataset, dataset.unseen)
    assert not rebuilt.lost
    assert np.allclose(run.gallery("unseen").features, before, atol=1e-6)


MODULE = """
import numpy as np
print("imported")
class Models:
    @staticmethod
    def pixels(images):
        return np.stack([np.asarray(one.convert("L").resize((8, 8)), np.float32).ravel() + 1 for one in images])
def narrow(images): return np.ones((len(images), 3))
def fewer(images): return np.ones((len(images) - 1, 3))
def fails(images): raise ValueError("no pictures today")
def ragged(images): return [[1.0], [1.0, 2.0]]
number = 3
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "their_model.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "their_model", raising=False)
    return "their_model:Models.pixels"


def test_a_callable_makes_a_run_that_never_imports_it(
    module: str, pictures: Path, quick: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run = import_model("mine", module, f"folder:{pictures}", tmp_path, runs_root=quick, shown=False)
    assert "imported" in capsys.readouterr().out
    assert (run.config.dim, run.protocols()) == (64, ["unseen", "known"])
    del sys.modules["their_model"]
    again = Run.open(run.path)
    gallery = again.gallery("unseen")
    with pytest.raises(RunError, match=f"with `--model {module}`"):
        embedder(again)
    assert "their_model" not in sys.modules and "imported" not in capsys.readouterr().out
    new = tmp_path / "new" / "nine"
    new.mkdir(parents=True)
    Image.open(sorted(pictures.glob("*/*.png"))[-1]).save(new / "a.png")
    with pytest.raises(RunError, match="--model"):
        to_add(again, gallery, tmp_path / "new")
    added = to_add(again, gallery, tmp_path / "new", model=module)
    after = changes.add(gallery, added.new)
    assert after.items["id"].iloc[-1] == "nine/a.png"
    assert np.isclose(np.linalg.norm(after.features[-1]), 1)
    with pytest.raises(DataError, match="made features of 3 values: expected 64, as mine has"):
        to_add(again, gallery, tmp_path / "new", model="their_model:narrow")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("their_model:nothing", "can't be imported: AttributeError"), ("no_such_module:f", "can't be imported: Module"),
        ("their_model:number", "is a int: expected something to call"), ("their_model", "--model expects package"),
        ("missing.onnx", "does not exist"), ("torchvision:no_net", "Unknown trunk"),
    ],
)  # fmt: skip
def test_a_model_that_cannot_be_loaded(module: str, name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ForeignModel(name)


def test_a_torchvision_model_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ConfigError("no weights") from OSError("no network")

    monkeypatch.setattr("pddm_lab.model.foreign.load_trunk", refuse)
    with pytest.raises(
        ConfigError, match=r"\(no network\).*copy their file .*checkpoints, or give a callable or an ONNX"
    ):
        ForeignModel("torchvision:resnet18")


@pytest.mark.parametrize(
    ("name", "message"),
    [("fewer", "expected 2 rows"), ("fails", "ValueError: no pictures today"), ("ragged", "expected 2 rows")],
)
def test_a_model_that_answers_wrong(module: str, name: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        ForeignModel(f"their_model:{name}")([Image.new("RGB", (9, 9))] * 2)


@pytest.mark.parametrize("batch", ["batch", 2])
def test_an_onnx_file_embeds_at_any_number_of_pictures(tmp_path: Path, batch: str | int) -> None:
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper

    shape, pooled = [batch, 3, 16, 16], [batch, 3, 1, 1]
    graph = helper.make_graph(
        [helper.make_node("GlobalAveragePool", ["x"], ["y"])], "mean",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, pooled)],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, tmp_path / "mean.onnx")
    embed = ForeignModel(str(tmp_path / "mean.onnx"))
    colours = [(255, 0, 0), (0, 255, 0), (10, 20, 30)]
    values = embed([Image.new("RGB", (40, 20), colour) for colour in colours])
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    assert np.allclose(values, (np.array(colours) / 255 - mean) / std, atol=1e-4)


def test_a_file_that_is_no_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(LabError, match="is no ONNX model"):
        ForeignModel(str(tmp_path / "text.onnx"))


def test_the_table_may_be_parquet_and_lie_elsewhere(files: tuple[Path, Path], pictures: Path, quick: str) -> None:
    parquet = pictures.parent / "items.parquet"
    pd.read_csv(files[1]).to_parquet(parquet)
    run = import_features("three", files[0], parquet, pictures, runs_root=quick, shown=False)
    assert run.info["dataset"]["root"] == str(pictures.resolve())
