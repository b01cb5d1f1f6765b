"""Exported models agree with torch, rank as the lab does, need no torch; foreign ones are checked."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from unittest.mock import MagicMock

import jaxtyping
import numpy as np
import onnxruntime
import pandas as pd
import pytest
import torch

from pddm_lab import cli
from pddm_lab.data.images import open_image
from pddm_lab.errors import ConfigError, LabError, RunError
from pddm_lab.export import schema, write
from pddm_lab.export.engines import load_graph
from pddm_lab.export.folder import Exported
from pddm_lab.export.graphs import Graphs, to_onnx
from pddm_lab.export.schema import ENDINGS
from pddm_lab.export.search import Match, search
from pddm_lab.export.write import export_run
from pddm_lab.model.similarity import make_similarity
from pddm_lab.runs.local import load_local
from pddm_lab.runs.model import ImageEmbedder, load_model, load_similarities
from pddm_lab.similarities import SIMILARITIES

EVERY_KIND = "test_graphs_agree_with_torch_at_any_batch"
SLOW = [("onnx", "fp16"), ("openvino", "fp16"), ("openvino", "int8")]
"""Each is written like one that make test writes: by the same code as its format in 32 bits, or its bits in ONNX."""
KINDS = [
    pytest.param(kind, marks=[pytest.mark.slow] * (kind in SLOW), id="-".join(kind))
    for kind in schema.KINDS
    if kind[0] != "executorch"
]


@pytest.fixture(autouse=True, scope="module")
def plain_signatures():
    """The test run's checks of shapes look at sizes, which fixes them in a trace."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="module")
def familiar_run(digits_config):
    """A run of the preset `lab`, whose features are joined; without maps, which would take longer than the training."""
    from pddm_lab.training import finish
    from pddm_lab.training.trainer import train

    choices = {"preset": "lab", "unit_global": 1.0, "unit_detached": True, "familiarity": 0.55, "precision": "32"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finish, "start_map", MagicMock)
        return train(replace(digits_config, run_name="familiar", **choices), progress=False)


@pytest.fixture(scope="module")
def folder(familiar_run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_run(familiar_run, tmp_path_factory.mktemp("exports") / "onnx-32")


@pytest.fixture(scope="module")
def monkeypatch_module():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def graphs(digits_run) -> Graphs:
    return Graphs(load_model(digits_run), "pddm", 32)


@pytest.fixture(scope="module")
def made(
    request: pytest.FixtureRequest, digits_run, graphs: Graphs, tmp_path_factory: pytest.TempPathFactory,
    monkeypatch_module,
) -> dict[tuple[str, str], Path]:  # fmt: skip
    """Folders of the graphs of each kind that a test needs, all from one trace."""
    folder = tmp_path_factory.mktemp("made")
    monkeypatch_module.setattr(write, "CALIBRATION", 48)
    tests = [item for item in request.session.items if getattr(item, "originalname", "") == EVERY_KIND]
    kinds = [item.callspec.params["kind"] for item in tests]  # type: ignore[attr-defined]
    return {kind: one.folder for kind, one in write.make(digits_run, graphs, kinds, folder, lambda _: None)}


@pytest.mark.parametrize("kind", KINDS)
def test_graphs_agree_with_torch_at_any_batch(digits_run, graphs: Graphs, made, kind: tuple[str, str]) -> None:
    engine, precision = kind
    embedding, score = (load_graph(made[kind] / f"{name}{ENDINGS[engine][0]}") for name in ("embedding", "score"))
    images = write.run_pictures(digits_run, 64)[31:]
    with torch.inference_mode():
        expected = graphs.embedding(torch.from_numpy(images)).numpy()
        wanted = graphs.score(torch.from_numpy(expected[1:]), torch.from_numpy(expected[:-1])).numpy()
    for count in (1, 2, 7, 32):
        features = embedding(images[:count])
        np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=1e-4)
        if precision == "int8":
            assert (features * expected[:count]).sum(1).mean() > 0.9
        else:
            np.testing.assert_allclose(features, expected[:count], atol=1e-5 if precision == "32" else 1e-2)
        scores = score(expected[1 : count + 1], expected[:count])
        np.testing.assert_allclose(scores, wanted[:count], atol=1e-4 if precision == "32" else 1e-2)
    size = sum(file.stat().st_size for file in made[kind].iterdir())
    least, most = {"32": (4, 4.2), "fp16": (2, 2.2), "int8": (1, 1.2 if engine == "onnx" else 1.45)}[precision]
    assert least <= size / graphs.parameters_count <= most


def test_programs_of_executorch_agree_with_torch(digits_run, graphs: Graphs, tmp_path: Path) -> None:
    pytest.importorskip("executorch", reason="ExecuTorch is an extra: pip install 'pddm-lab[executorch]'")
    exported = Exported(export_run(digits_run, tmp_path / "out", "executorch", protocol=""))
    images = np.resize(write.run_pictures(digits_run, 64), (schema.MOST_AT_ONCE + 9, 3, 32, 32))
    with torch.inference_mode():
        expected = graphs.embedding(torch.from_numpy(images)).numpy()
        wanted = graphs.score(torch.from_numpy(expected), torch.from_numpy(expected[::-1].copy())).numpy()
    np.testing.assert_allclose(exported.embed(images), expected, atol=1e-5)
    np.testing.assert_allclose(exported.scores(expected, expected[::-1]), wanted, atol=1e-4)
    assert exported.content["model_bytes"] / graphs.parameters_count < 4.3


def test_executorch_is_written_in_32_bits(digits_run, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="executorch is written in 32 bits only, got --precision int8"):
        export_run(digits_run, tmp_path / "out", "executorch", "int8")


@pytest.mark.parametrize("name", SIMILARITIES)
def test_every_similarity_is_exported(name: str) -> None:
    similarity = make_similarity(name, 16).eval().requires_grad_(False)
    a, b = torch.nn.functional.normalize(torch.randn(2, 7, 16), dim=-1)
    model = to_onnx(similarity, (a[:2], b[:2]), ["a", "b"], "scores")
    assert not any(node.metadata_props for node in model.graph.node), "they hold paths of this machine"
    session = onnxruntime.InferenceSession(model.SerializeToString())
    for count in (1, 7):
        (scores,) = session.run(None, {"a": a[:count].numpy(), "b": b[:count].numpy()})
        np.testing.assert_allclose(scores, similarity(a[:count], b[:count]).numpy(), atol=1e-5)


@pytest.mark.slow
def test_joined_features_and_a_fading_score_are_exported(familiar_run, folder: Path) -> None:
    exported, model = Exported(folder), load_model(familiar_run)
    assert exported.content["dim"] == 256
    assert exported.content["similarity"] == "pddm"
    features = familiar_run.gallery("unseen").features
    a, b = features[:200], features[200:400]
    wanted = model.similarity("pddm").pairs(torch.from_numpy(a.copy()), torch.from_numpy(b.copy())).numpy()
    np.testing.assert_allclose(exported.scores(a, b), wanted, atol=1e-4)


def test_the_size_does_not_depend_on_the_classes(familiar_run) -> None:
    few, many = load_model(familiar_run), load_model(familiar_run)
    many.learned["pddm"].used.fill_(900)  # type: ignore[union-attr, operator]
    assert Graphs(few, "pddm", 32).parameters_count == Graphs(many, "pddm", 32).parameters_count


def test_a_model_that_knows_no_class_yet_scores_by_its_unit(familiar_run) -> None:
    model = load_model(familiar_run)
    similarity = model.similarity("pddm")
    similarity.used.fill_(0)  # type: ignore[union-attr, operator]
    a, b = (torch.from_numpy(familiar_run.gallery("unseen").features[rows].copy()) for rows in (slice(9), slice(9, 18)))
    score = Graphs(model, "pddm", 32).score
    torch.testing.assert_close(score(a, b), similarity.pairs(a, b))


def assert_ranked_alike(found: list[Match], lab: pd.DataFrame, tolerance: float) -> None:
    """The lab's first items in its order, in which those may change places whose scores differ by rounding alone."""
    value = dict(zip(lab["id"], lab["value"], strict=True))
    assert [one.rank for one in found] == list(range(1, len({one.id for one in found}) + 1))
    for values in ([one.score for one in found], [value[one.id] for one in found]):
        np.testing.assert_allclose(values, lab["value"].iloc[: len(found)], atol=tolerance)


def test_it_ranks_as_the_lab_does(familiar_run, folder: Path) -> None:
    gallery, exported = familiar_run.gallery("unseen"), Exported(folder)
    items, root = exported.gallery(), Path(familiar_run.info["dataset"]["root"])
    embed = ImageEmbedder(familiar_run, load_model(familiar_run))
    for row in gallery.rows("query")[:5]:
        picture = open_image(root / gallery.items["id"].iloc[row])
        (query,) = exported.embed(exported.prepared(picture)[None])
        np.testing.assert_allclose(query, embed(picture), atol=1e-5)
        lab = gallery.search_by(query, [load_similarities(familiar_run)["pddm"]], shortlist=50).ranked("pddm")
        found = search(exported, query, items, k=10, shortlist=50)
        assert_ranked_alike(found, lab, 1e-4)
        of_lab = lab.set_index("id").loc[[one.id for one in found]]
        assert [one.class_name for one in found] == of_lab["class_name"].tolist()
        assert [one.distance_rank for one in found] == (of_lab["rank"] + of_lab["rank_change"]).tolist()


@pytest.mark.parametrize(
    "kind", [KINDS[0], *(pytest.param(*kind.values, marks=pytest.mark.slow, id=kind.id) for kind in KINDS[1:])]
)
def test_it_ranks_by_local_structure_as_the_lab_does(local_run, kind: tuple[str, str], tmp_path: Path, capsys) -> None:
    """The pictures are in another gallery, since the item of a picture would tie with it in all neighbourhoods."""
    gallery, others, own = local_run.gallery("unseen"), local_run.gallery("known"), load_local(local_run)
    exported = Exported(export_run(local_run, tmp_path / "export", *kind))
    items, root = exported.gallery(), Path(local_run.info["dataset"]["root"])
    assert own is not None and exported.local is not None and len(exported.local) == len(items.ids)
    embed = ImageEmbedder(local_run, load_model(local_run))
    files = [str(root / others.items["id"].iloc[row]) for row in others.rows("query")[:5]]
    for file in files:
        picture = open_image(file)
        ((query,), pretrained) = exported.embed_both(exported.prepared(picture)[None])
        wanted = embed.embed_all([embed.prepare(picture)])[1]
        assert (pretrained is None) == (wanted is None) == (own.part is None)
        if pretrained is not None and wanted is not None and kind[1] == "32":
            np.testing.assert_allclose(pretrained, wanted, atol=1e-4)
        further = None if pretrained is None else pretrained[0]
        lab = gallery.search_by(query, [], 50, local=own.structure, pretrained=further).ranked("local")
        assert_ranked_alike(search(exported, query, items, 20, 50, exported.local, further), lab, 1e-3)
    heads = []
    for more in ([], ["--by", "score"]):
        cli.main(["search-exported", str(exported.path), files[0], *more])
        heads.append(capsys.readouterr().out.splitlines()[0].split()[3:5])
    assert heads == [["D", "L"], ["D", "S"]]
    with pytest.raises(SystemExit):
        cli.main(["search-exported", str(exported.path), files[0], "--by", "local", "--gallery", str(gallery.path)])
    assert "can't rank by local structure" in capsys.readouterr().err


@pytest.mark.slow
def test_an_export_that_disagrees_is_not_written(digits_run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(write.TOLERANCE, "32", 0.0)
    with pytest.raises(LabError, match=r"differ from torch's by .*, expected at most 0: nothing was written"):
        export_run(digits_run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_of_something_else_is_kept(digits_run, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(RunError, match="exists and is no export"):
        export_run(digits_run, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]
    (tmp_path / "mine.txt").rename(tmp_path / "features.npy")  # as an export has, but no graph
    with pytest.raises(RunError, match="exists and is no export"):
        export_run(digits_run, tmp_path)


def test_an_export_that_was_killed_is_written_again(digits_run, tmp_path: Path, monkeypatch) -> None:
    def killed(self, target: Path) -> None:
        self.rename(target)
        (tmp_path / ".score.onnx.4194305-1.tmp").touch()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pddm_lab.files.os.replace", killed)
        with pytest.raises(KeyboardInterrupt):
            export_run(digits_run, tmp_path)
    assert {file.suffix for file in tmp_path.iterdir()} == {".onnx", ".tmp"}
    (tmp_path / ".DS_Store").touch()  # a file manager's
    with pytest.raises(RunError, match="exists and is no export"):
        export_run(digits_run, tmp_path)
    (tmp_path / ".DS_Store").unlink()
    export_run(digits_run, tmp_path)
    (tmp_path / ".DS_Store").touch()
    export_run(digits_run, tmp_path)
    assert Exported(tmp_path).content["model_bytes"] == sum(file.stat().st_size for file in tmp_path.glob("*.onnx"))
    assert not list(tmp_path.glob(".*.tmp"))


@pytest.mark.slow
def test_int8_needs_the_pictures_themselves(digits_run, tmp_path: Path) -> None:
    moved = type(digits_run)(
        digits_run.path, digits_run.info | {"dataset": {**digits_run.info["dataset"], "root": str(tmp_path)}}
    )
    with pytest.raises(RunError, match="no pictures to calibrate with: expected its data set in"):
        export_run(moved, tmp_path / "out", precision="int8", protocol="")
    assert Exported(export_run(moved, tmp_path / "out", protocol="")).content["precision"] == "32"  # thumbnails will do


def _without(folder: Path, target: Path, **changes: object) -> Path:
    shutil.copytree(folder, target)
    content = json.loads((target / "export.json").read_text())
    (target / "export.json").write_text(json.dumps(content | changes))
    return target


def test_a_foreign_folder_is_checked(folder: Path, tmp_path: Path) -> None:
    files = json.loads((folder / "export.json").read_text())["files"]
    with pytest.raises(RunError, match=r"is no export: expected export.json"):
        Exported(tmp_path)
    with pytest.raises(RunError, match=r"similarity: expected"):
        Exported(_without(folder, tmp_path / "a", similarity="other"))
    with pytest.raises(RunError, match=r"files\.\.\./secret"):
        Exported(_without(folder, tmp_path / "b", files=files | {"../secret": files["score.onnx"]}))
    with pytest.raises(RunError, match=r"expected score.onnx in its files"):
        Exported(_without(folder, tmp_path / "c", files={k: v for k, v in files.items() if k != "score.onnx"}))
    changed = _without(folder, tmp_path / "d")
    with open(changed / "embedding.onnx", "r+b") as file:
        file.seek(1000)
        file.write(b"\xff")
    with pytest.raises(RunError, match=r"embedding.onnx has changed: expected the size and SHA-256"):
        Exported(changed)
    linked = _without(folder, tmp_path / "e")
    (linked / "score.onnx").unlink()
    (linked / "score.onnx").symlink_to(folder / "score.onnx")
    with pytest.raises(RunError, match=r"score.onnx is missing: expected a file in the folder"):
        Exported(linked)


def test_a_damaged_graph_is_one_sentence(folder: Path, tmp_path: Path) -> None:
    from pddm_lab.files import fingerprint

    (tmp_path / "bad").write_bytes(b"no graph")
    files = json.loads((folder / "export.json").read_text())["files"] | {"score.onnx": fingerprint(tmp_path / "bad")}
    foreign = _without(folder, tmp_path / "out", files=files)
    shutil.copy(tmp_path / "bad", foreign / "score.onnx")
    with pytest.raises(RunError, match=r"score.onnx is damaged, or is no graph"):
        Exported(foreign).scores(np.zeros((1, 256), np.float32), np.zeros((1, 256), np.float32))


def test_a_gallery_that_does_not_match_is_refused(folder: Path, tmp_path: Path) -> None:
    exported = Exported(folder)
    shutil.copy(folder / "items.parquet", tmp_path)
    np.save(tmp_path / "features.npy", np.zeros((3, 256), np.float32))
    with pytest.raises(RunError, match="doesn't match the items or the model: expected"):
        exported.gallery(tmp_path)
    np.save(tmp_path / "features.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(RunError, match="can't be read: expected an array of features"):
        exported.gallery(tmp_path)


def test_only_searched_items_of_a_runs_gallery_are_searched(familiar_run, folder: Path) -> None:
    known = familiar_run.gallery("known")
    items = Exported(folder).gallery(known.path)
    assert items.ids == known.items["id"].iloc[known.rows("gallery")].tolist()
    np.testing.assert_array_equal(items.features, known.features[known.rows("gallery")])


BLOCKED = """
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "torchvision", "pandas", "sklearn", "faiss", "onnx", "numba"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Block())
from pddm_lab.cli import main
main(sys.argv[1:])
"""


def _lab_without_torch(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", BLOCKED, *words], capture_output=True, text=True, env={**os.environ})


def test_a_search_needs_no_torch(familiar_run, folder: Path, tmp_path: Path) -> None:
    gallery, root = familiar_run.gallery("unseen"), Path(familiar_run.info["dataset"]["root"])
    item = gallery.items["id"].iloc[gallery.rows("gallery")[0]]
    out = tmp_path / "found.json"
    done = _lab_without_torch(
        "search-exported", str(folder), str(root / item), "--k", "50", "--shortlist", "20", "--json", str(out)
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert len(found) == 50
    (nearest,) = (one for one in found if one["id"] == item)
    assert nearest["distance"] < 1e-3 and nearest["distance_rank"] == 1
    lines = done.stdout.splitlines()
    letter = "L" if Exported(folder).local else "S"
    assert lines[0].split() == ["rank", "id", "class", "D", letter, "rank", "by", "D"]
    assert [line.split()[1] for line in lines[1:51]] == [one["id"] for one in found]
    assert "among the 50 nearest by D" in done.stdout


def test_a_command_that_needs_torch_says_which_extra_brings_it(digits_run) -> None:
    done = _lab_without_torch("export", str(digits_run.path))
    assert done.returncode == 2
    assert done.stderr.strip() == "pddm-lab: This needs torch, which isn't installed: pip install 'pddm-lab[train]'."
