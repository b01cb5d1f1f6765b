"""The similarity on local structure in a run: fitted, stored, measured, searched with, and in step with changes."""

from __future__ import annotations

import copy
import dataclasses
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pddm_lab.cli import main
from pddm_lab.errors import RunError
from pddm_lab.gallery import changes
from pddm_lab.gallery.files import NEIGHBOURHOODS, commit, file_name, read_manifest
from pddm_lab.gallery.gallery import Gallery
from pddm_lab.local.episodes import folds
from pddm_lab.metrics import retrieval
from pddm_lab.metrics.retrieval import evaluate, evaluate_in_gallery
from pddm_lab.model.embedding import MetricModel
from pddm_lab.model.similarity import make_similarity
from pddm_lab.model.trunks import Trunk
from pddm_lab.runs.local import FILE, RunLocal, load_local
from pddm_lab.runs.new_items import to_add
from pddm_lab.runs.run import Run
from pddm_lab.similarities import EVERY
from pddm_lab.training import local_fit
from pddm_lab.training.local_fit import FIXED, fit_local, fold_embeddings
from pddm_lab.training.loop import dataset_of, view_inputs
from pddm_lab.training.phases import RunTraining
from pddm_lab.training.rebuild import rebuild
from pddm_lab.training.trainer import resume, train


@pytest.fixture
def run(local_run: Run, tmp_path: Path) -> Run:
    """A copy, to be changed."""
    shutil.copytree(local_run.path, tmp_path / "local")
    return Run.open(tmp_path / "local")


@pytest.fixture
def local(local_run: Run) -> RunLocal:
    loaded = load_local(local_run)
    assert loaded is not None
    return loaded


def test_a_run_is_measured_by_it_and_its_rivals(local_run: Run, local: RunLocal) -> None:
    assert local_run.info["local"] == {"weight": local.structure.weight, "passes": 2}
    for protocol in ("unseen", "known"):
        metrics = local_run.info["metrics"][protocol]
        assert list(metrics) == list(EVERY)
        assert all(set(metrics[name]) == set(metrics["pddm"]) for name in EVERY if name != "euclidean")
        assert set(local_run.gallery(protocol).distributions) == set(EVERY)


@pytest.mark.parametrize("protocol", ["unseen", "known"])
def test_a_search_ranks_as_the_run_was_measured(local_run: Run, local: RunLocal, protocol: str) -> None:
    gallery = local_run.gallery(protocol)
    labels, searched = gallery.items["label"].to_numpy(), gallery.rows("gallery")
    values = []
    for row in gallery.rows("query"):
        result = gallery.search_by(gallery.features[row], [], len(gallery), int(row), local.structure)
        relevant = int((labels[searched] == labels[row]).sum()) - int(row in searched)
        hits = labels[result.ranked("local", relevant)["row"]] == labels[row]
        values.append((np.cumsum(hits) / np.arange(1, relevant + 1) * hits).sum() / relevant)
    assert np.mean(values) == pytest.approx(local_run.info["metrics"][protocol]["local"]["map@r"], abs=1e-6)


def test_a_query_of_the_gallery_is_taken_out_of_it(run: Run, local: RunLocal) -> None:
    gallery = run.gallery("unseen")
    feature, further = np.array(gallery.features[3]), pretrained_of(gallery, 3)
    fewer = changes.remove(gallery, [str(gallery.items["id"].iloc[3])])
    first = copy.deepcopy(local.structure)
    first.second = None
    # The lists of the second pass are made in the gallery as it is, so taking out is exact in the first pass only.
    for structure, tolerance in ((first, 1e-3), (local.structure, 0.1)):
        inside = gallery.search_by(feature, [], 50, exclude=3, local=structure)
        outside = fewer.search_by(feature, [], 50, local=structure, pretrained=further)
        assert inside.table["id"].tolist() == outside.table["id"].tolist()
        np.testing.assert_allclose(inside.table["local"], outside.table["local"], atol=tolerance)
    assert inside.similarities == ("euclidean", "local") and "local" in inside.seconds and not inside.note


def test_a_part_of_an_item_has_none_of_its_neighbours(run: Run, local: RunLocal) -> None:
    gallery = run.gallery("unseen")
    part, further = np.array(gallery.features[40]), pretrained_of(gallery, 40)  # as if a crop of item 3 looked like it
    of_item = gallery.search_by(part, [], 20, exclude=3, local=local.structure, pretrained=further)
    foreign = gallery.search_by(part, [], 21, local=local.structure, pretrained=further)
    expected = foreign.table[foreign.table["row"] != 3].head(20)
    assert of_item.table["id"].tolist() == expected["id"].tolist()
    np.testing.assert_allclose(of_item.table["local"], expected["local"], atol=1e-5)


def pretrained_of(gallery: Gallery, row: int) -> np.ndarray | None:
    return None if gallery.pretrained is None else np.array(gallery.pretrained[row])


def test_the_neighbourhoods_are_stored_and_follow_the_commands(run: Run, local: RunLocal, tmp_path, capsys) -> None:
    """What they are after a change: test_gallery_upkeep.py."""
    for protocol in run.protocols():
        gallery = run.gallery(protocol)
        reference = gallery.reference(local.structure)
        assert reference.is_stored and not reference.stale and gallery.reference(local.structure) is reference
    gallery = run.gallery("unseen")
    items, root = gallery.items["id"].tolist(), str(run.path.parent)
    (tmp_path / "new" / "class").mkdir(parents=True)
    shutil.copy(Path(run.info["dataset"]["root"]) / items[0], tmp_path / "new" / "class" / "a.png")
    for command, count in (
        (["add", "local", str(tmp_path / "new")], 1), (["update", "local", str(tmp_path / "new")], 1),
        (["remove", "local", items[5], items[9]], -1),
    ):  # fmt: skip
        main(["gallery", *command, "--protocol", "unseen", "--runs-root", root])
        assert re.search(r"Listed \d+ neighbourhoods? near the change anew\.", capsys.readouterr().out)
        seen = run.gallery("unseen").reference(local.structure)
        assert seen.is_stored and not seen.stale and len(seen.rows) == len(gallery) + count


def test_a_gallery_written_again_has_its_neighbourhoods(run: Run, local: RunLocal) -> None:
    of, (unseen, *_) = dataset_and_protocols(run)
    rebuilt = rebuild(run, of, unseen).gallery
    assert rebuilt.reference(local.structure).is_stored
    np.testing.assert_allclose(rebuilt.features, run.gallery("unseen").features)


def test_a_small_gallery_is_ranked_by_the_cosine_and_says_so(run: Run, local: RunLocal) -> None:
    gallery = run.gallery("unseen")
    few = changes.remove(gallery, gallery.items["id"].tolist()[8:])
    result = few.search_by(few.features[0], [], exclude=0, local=local.structure)
    assert "This gallery has 8 items" in result.note
    further = None if few.pretrained is None else few.pretrained
    z = local.structure.space(few.features, further)
    expected = (z @ z[0]).numpy()[result.table["row"]]
    np.testing.assert_allclose(result.table["local"], expected, atol=1e-6)


def test_pictures_get_the_pretrained_features_that_the_gallery_has(run: Run, tmp_path: Path) -> None:
    """Whatever the fit chose: here the similarity uses them."""
    gallery = with_pretrained(run)
    item = str(gallery.items["id"].iloc[0])
    (tmp_path / "new" / "class").mkdir(parents=True)
    shutil.copy(Path(run.info["dataset"]["root"]) / item, tmp_path / "new" / "class" / "a.png")
    new = to_add(run, gallery, tmp_path / "new").new
    assert new.pretrained is not None and gallery.pretrained is not None
    np.testing.assert_allclose(new.pretrained[0], gallery.pretrained[0], atol=0.02)
    with pytest.raises(ValueError, match="expected finite pretrained features of shape"):
        changes.add(gallery, dataclasses.replace(new, pretrained=None))
    more = changes.add(gallery, new)
    assert more.pretrained is not None
    np.testing.assert_array_equal(more.pretrained[-1], new.pretrained[0])
    fewer = changes.remove(more, [item])
    assert fewer.pretrained is not None
    np.testing.assert_array_equal(fewer.pretrained, more.pretrained[1:])
    assert Gallery.open(fewer.path, verify=True).pretrained is not None


def test_a_rebuilt_gallery_has_them_again(run: Run) -> None:
    before, config = with_pretrained(run), run.config
    of, (unseen, *_) = dataset_and_protocols(run)
    assert config.local_structure and before.pretrained is not None
    expected = np.array(before.pretrained)
    (before.path / "pretrained.npy").unlink()  # not overwritten: it is memory-mapped
    (before.path / "pretrained.npy").write_bytes(b"damaged")
    with pytest.raises(RunError, match=r"pretrained\.npy is damaged"):
        run.gallery("unseen")
    rebuilt = rebuild(run, of, unseen)
    assert not rebuilt.lost and rebuilt.gallery.pretrained is not None
    np.testing.assert_allclose(rebuilt.gallery.pretrained, expected, atol=0.02)


def dataset_and_protocols(run: Run):
    of = dataset_of(run.config, run.path.parent)
    return of, [one for one in (of.unseen, of.known) if one]


def with_pretrained(run: Run) -> Gallery:
    """The unseen gallery of a run whose similarity uses pretrained features."""
    gallery, loaded = run.gallery("unseen"), load_local(run)
    assert loaded and loaded.part and gallery.pretrained is not None, (
        "the fit of the fixture has chosen a weight above 0"
    )
    return gallery


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda tensors: tensors["whitening.mean"].fill_(torch.nan), "expected finite weights"),
        (lambda tensors: tensors.update({"whitening.mean": torch.zeros(3)}), "expected features of 256 dimensions"),
        (lambda tensors: tensors.pop("first.skip"), "was not written by this lab"),
        (lambda tensors: tensors.pop("pretrained.mean"), "was not written by this lab"),
    ],
)
def test_a_foreign_file_is_refused(run: Run, damage, expected: str) -> None:
    tensors, chosen = load_file(run.path / FILE), run.info["local"]
    damage(tensors)
    save_file(tensors, run.path / FILE, {name: str(value) for name, value in chosen.items()})
    with pytest.raises(RunError, match=rf"local\.safetensors .*{expected}.*Train again"):
        load_local(run)


def test_a_missing_file_and_foreign_choices_are_refused(run: Run) -> None:
    save_file(load_file(run.path / FILE), run.path / FILE, {"weight": "0.5", "passes": "3"})
    with pytest.raises(RunError, match=r"passes: expected 1 or 2"):
        load_local(run)
    (run.path / FILE).unlink()
    with pytest.raises(RunError, match=r"local\.safetensors is missing"):
        load_local(run)
    run.update(local=None)
    assert load_local(run) is None


@pytest.mark.slow
def test_a_run_that_was_stopped_while_it_was_fitted_resumes(
    run: Run, local: RunLocal, tmp_path, no_maps, monkeypatch
) -> None:
    monkeypatch.setattr("pddm_lab.local.fit.STEPS", 40)
    monkeypatch.setattr("pddm_lab.local.episodes.PAIRS", 3000)
    config = dataclasses.replace(run.config, runs_root=str(tmp_path / "runs"), run_name="stopped")
    with monkeypatch.context() as stops:
        stops.setattr(Run, "stop_requested", lambda self: self.info["phase"] == "local")
        stopped = train(config, progress=False)
    assert (stopped.status, stopped.info["phase"]) == ("stopped", "local") and load_local(stopped) is None
    again = load_local(resume(stopped.path, progress=False))
    assert again is not None
    for name, tensor in local.structure.state_dict().items():
        torch.testing.assert_close(again.structure.state_dict()[name], tensor)


def test_a_run_with_too_few_classes_goes_on_without_it(run: Run, tmp_path: Path, no_maps) -> None:
    few = tmp_path / "few"
    for name in "012345":  # three to train on
        shutil.copytree(Path(run.info["dataset"]["root"]) / name, few / name)
    config = dataclasses.replace(
        run.config, dataset=f"folder:{few}", runs_root=str(tmp_path / "runs"), run_name="few", steps=2, eval_every=2
    )
    trained = train(config, progress=False)
    assert trained.status == "finished" and load_local(trained) is None
    assert any(
        "no similarity on local structure: Expected at least 4 classes" in one for one in trained.info["warnings"]
    )
    assert "local" not in trained.info["metrics"]["unseen"]


def test_each_fold_has_a_head_that_did_not_see_its_held_out_items(run: Run, monkeypatch) -> None:
    seen: list[np.ndarray] = []

    class Watched(local_fit.Loop):
        def __init__(self, model, config, labels, items, *others, **named) -> None:
            seen.append(items)
            super().__init__(model, config, labels, items, *others, **named)

    monkeypatch.setattr(local_fit, "Loop", Watched)
    labels, train_items = np.repeat(np.arange(8), 10), np.arange(10, 80)
    pooled, groups = torch.rand(80, 24), np.arange(70) // 2
    trunk = Trunk(torch.nn.Identity(), 24, (0.5,) * 3, (0.5,) * 3)
    config = dataclasses.replace(run.config, steps=2, dim=8)
    made = fold_embeddings(
        lambda: MetricModel(config, trunk=trunk), config, 0.5, labels, train_items, groups, pooled,
        view_inputs(pooled[10:][None], train_items, 0),
    )  # fmt: skip
    divided = folds(torch.from_numpy(labels[train_items] - 1), config.seed, torch.from_numpy(groups))
    assert len(made) == len(divided) == 3
    for fold, items, features in zip(divided, seen, made, strict=True):
        assert set(items) == set(train_items[fold.rest.numpy()])
        assert not set(groups[items - 10]) & set(groups[fold.queries.numpy()])
        assert not set(labels[items]) & set(labels[train_items[fold.classes.numpy()]])
        assert features.shape == (70, 8)
        torch.testing.assert_close(features.norm(dim=1), torch.ones(70))


def test_a_trunk_that_trains_gives_one_embedding_and_no_pretrained_features(run: Run, monkeypatch) -> None:
    monkeypatch.setattr("pddm_lab.local.fit.STEPS", 5)
    features = torch.nn.functional.normalize(torch.randn(60, 8), dim=1)
    fitted = fit_local(run.config, features, np.arange(60) // 6, np.arange(60), np.arange(60), None, [])
    assert fitted.part is None and fitted.structure.weight == 0 and fitted.pretrained(torch.rand(2, 5)) is None


def test_a_fine_tuned_run_says_so(run: Run, monkeypatch) -> None:
    monkeypatch.setattr("pddm_lab.local.fit.STEPS", 5)
    monkeypatch.setattr("pddm_lab.local.episodes.PAIRS", 3000)

    class Trained:
        """Embeds with a trunk that trained: there are no features of a frozen one."""

        pooled = None

        def __call__(self, model: MetricModel, items: np.ndarray, progress: object) -> torch.Tensor:
            return torch.nn.functional.normalize(torch.randn(len(items), run.config.dim), dim=1)

    training = RunTraining(run, dataset_of(run.config, run.path.parent), progress=False)
    training.embed = Trained()  # type: ignore[assignment]
    training._fit_local(1)
    assert FIXED in training.run.info["warnings"]
    fitted = load_local(training.run)
    assert fitted is not None and fitted.structure.weight == 0 and fitted.part is None


def test_numbered_queries_are_measured_as_a_shortlist_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieval, "_SAMPLED", (300, 900))
    monkeypatch.setattr(retrieval, "_SAMPLED_IN_GALLERY", (300, 900))
    monkeypatch.setattr(retrieval, "_CHUNK_SCORES", 1)
    torch.manual_seed(0)
    unit = make_similarity("pddm", 6).eval()
    query, gallery = torch.randn(300, 6), torch.randn(90, 6)
    query_labels, gallery_labels = torch.randint(9, (300,)), torch.arange(90) % 9

    class Numbered:
        def __init__(self, query: torch.Tensor, gallery: torch.Tensor) -> None:
            self.name, self.query, self.gallery = "numbered", query, gallery

        def of_rows(self, queries: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
            return unit.candidates(self.query[queries], self.gallery, rows)

    for loo in (False, True):
        sides = (gallery, gallery, gallery_labels, gallery_labels) if loo else (
            query, gallery, query_labels, gallery_labels
        )  # fmt: skip
        expected = evaluate(unit, *sides, loo, shortlist=20)
        actual = evaluate_in_gallery(Numbered(*sides[:2]), *sides, loo, 20)
        assert actual.metrics == pytest.approx(expected.metrics, abs=1e-5)
        assert actual.distribution.pairs_scored == expected.distribution.pairs_scored
        assert (actual.queries, actual.excluded) == (expected.queries, expected.excluded)


def test_a_command_builds_its_neighbourhoods(run: Run, digits_run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    path = run.path / "gallery" / "unseen"
    manifest = read_manifest(path)
    manifest["files"].pop(file_name(manifest, NEIGHBOURHOODS))
    commit(path, manifest)
    main(["gallery", "neighbourhoods", str(run.path), "--protocol", "unseen"])
    built = run.gallery("unseen")
    assert f"The neighbourhoods of {len(built)} searched items of unseen are stored." in capsys.readouterr().out
    assert file_name(built.manifest, NEIGHBOURHOODS)
    with pytest.raises(SystemExit, match="2"):
        main(["gallery", "neighbourhoods", str(digits_run.path)])
    assert "has no local structure" in capsys.readouterr().err
