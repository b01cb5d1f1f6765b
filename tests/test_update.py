"""An update of a run: what trains, what is written, which model serves, and what a kill leaves."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from digit_pictures import write_digits
from filelock import FileLock
from PIL import Image

from pddm_lab import cli
from pddm_lab.analysis import saved_queries
from pddm_lab.change.signals import Gauge
from pddm_lab.data.images import open_image
from pddm_lab.errors import RunError
from pddm_lab.files import write_tensors
from pddm_lab.gallery import changes
from pddm_lab.runs.local import load_local
from pddm_lab.runs.model import ImageEmbedder, load_model
from pddm_lab.runs.run import Run
from pddm_lab.runs.versions import model_stamp
from pddm_lab.training.loop import dataset_of
from pddm_lab.update import run_update
from pddm_lab.update.material import trained_ids
from pddm_lab.update.serving import LOCK, read_serving, serving, write_serving


@pytest.fixture(scope="module")
def arriving(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits turned by a quarter, as two new classes."""
    source = write_digits(tmp_path_factory.mktemp("source") / "digits", 8)
    folder = tmp_path_factory.mktemp("arriving") / "new"
    for label in ("4", "7"):
        (folder / f"turned {label}").mkdir(parents=True)
        for file in (source / label).iterdir():
            with Image.open(file) as image:
                image.rotate(90).save(folder / f"turned {label}" / file.name)
    return folder


@pytest.fixture(scope="module")
def run(local_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """A copy of a small run with the features of its pictures, which the tests of this file update."""
    root = tmp_path_factory.mktemp("updates")
    shutil.copytree(local_run.path.parent / ".features", root / ".features")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PDDM_LAB_RUNS", str(root))
        yield Run.open(shutil.copytree(local_run.path, root / "local"))


def update(run: Run, folder: Path, better: bool, number: int) -> Run:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_update.Verdict, "better", property(lambda self: better))
        cli.main(["update", run.name, "--add", str(folder), "--steps", "3", "--replay", "20", "--no-map"])
    return Run.open(run.path.parent / f"local-update-{number}")


class Killed(BaseException):
    """Ends an update as a kill would."""


def kill(*_: object, **__: object) -> None:
    raise Killed


@pytest.fixture(scope="module")
def after_kills(run: Run, arriving: Path) -> list[tuple[str, int]]:
    """After each kill: which run serves, and how many hidden folders are left."""
    left = []
    moments = ("pddm_lab.update.writing.keep_up", "pddm_lab.update.run_update.os.rename")
    for number, moment in enumerate(moments, 1):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(moment, kill)
            patch.setattr(run_update.shutil, "rmtree", lambda *_, **__: None)  # a killed process deletes nothing
            with pytest.raises(Killed):
                update(run, arriving, True, 1)
        hidden = list(run.path.parent.glob(".local-update-1.*.tmp"))
        left.append((serving(run).name, len(hidden)))
        for folder in run.path.parent.glob(f".local-update-1.{os.getpid()}-*.tmp"):  # as of a process that is gone
            os.rename(folder, folder.with_name(f".local-update-1.4194305-{number}.tmp"))
    return left


@pytest.fixture(scope="module")
def first(run: Run, arriving: Path, after_kills: list[tuple[str, int]]) -> Run:
    """The update that two kills ended, run again; it serves."""
    return update(run, arriving, True, 1)


def test_a_killed_update_leaves_what_serves_and_runs_again(
    run: Run, after_kills: list[tuple[str, int]], first: Run
) -> None:
    assert after_kills == [("local", 1), ("local", 2)]
    assert serving(run).name == serving(first).name == "local-update-1"
    assert not list(run.path.parent.glob(".*.tmp"))


def test_an_updated_run_holds_old_and_new_items_by_the_new_model(run: Run, first: Run, arriving: Path) -> None:
    assert (first.status, first.galleries()) == ("finished", run.galleries())
    facts = first.info["updated"]
    assert (facts["source"], facts["first"], facts["new_items"], facts["new_classes"]) == ("local", "local", 16, 2)
    assert 0 < facts["replay"] <= 20 and facts["comparable"] == [model_stamp(run.path)]
    old, grown = run.gallery("catalogue"), first.gallery("catalogue")
    files = sorted(arriving.glob("*/*.png"))
    assert grown.items["id"].tolist() == [*old.items["id"], *(f"{one.parent.name}/{one.name}" for one in files)]
    assert grown.manifest["model"] == model_stamp(first.path) != model_stamp(run.path)
    embed = ImageEmbedder(first, load_model(first))
    for row, file in ((3, Path(run.info["dataset"]["root"]) / old.items["id"].iloc[3]), (len(grown) - 1, files[-1])):
        np.testing.assert_allclose(grown.features[row], embed(open_image(file, embed.shorter)), atol=1e-4)
    assert grown.thumb(len(grown) - 1)[:2] == b"\xff\xd8" and grown.thumb(3) == old.thumb(3)
    before, after = (one.info["metrics"]["unseen"] for one in (run, first))
    assert set(before) == set(after) and before["euclidean"] != after["euclidean"]
    kept = saved_queries.read(grown)
    assert kept is not None and {name for name in kept.items["class_name"] if "turned" in name}


def test_the_trunk_stays_and_the_rest_learns(run: Run, first: Run) -> None:
    before, after = run.model_state(), first.model_state()
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert {name for name in before if ".trunk." in name} <= same and "embedding.head.weight" not in same
    old, new = load_local(run), load_local(first)
    assert old is not None and new is not None
    assert not torch.equal(old.structure.whitening.mean, new.structure.whitening.mean)
    grown = first.gallery("catalogue")
    table = grown.search_by(np.array(grown.features[-1]), [], exclude=len(grown) - 1, local=new.structure).table
    assert table["local"].notna().all()
    trained = [trained_ids(one, dataset_of(one.config, one.path.parent)) for one in (run, first)]
    new_ones = trained[1] - trained[0]
    assert trained[0] < trained[1] and {one.partition("/")[0] for one in new_ones} == {"turned 4", "turned 7"}
    assert len(new_ones) == 12, "a fifth of each new class is held out, to see whether it is found"
    gauge = Gauge.of(first)
    held_out = {gauge.ids[place] for place in gauge.held_out}
    assert held_out == set(gauge.ids) - trained[1], "what has trained is no reference for new queries"


def test_the_next_goes_on_from_what_serves_and_a_worse_one_does_not(
    run: Run, first: Run, arriving: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "turned 4").mkdir()
    for number, file in enumerate(sorted((arriving / "turned 7").iterdir())[:3]):
        shutil.copy(file, tmp_path / "turned 4" / f"again {number}.png")
    uploaded = run.path / "uploads" / "now" / "turned 7" / "uploaded.png"
    uploaded.parent.mkdir(parents=True)
    with Image.open(sorted((arriving / "turned 7").iterdir())[-1]) as image:
        image.rotate(180).save(uploaded)
    cli.main(["gallery", "add", "local", str(uploaded.parents[1]), "--no-map"])
    write_serving(run, read_serving(run).model_copy(update={"tried": 5}))
    second = update(run, tmp_path, False, 2)
    assert read_serving(run).tried == 5, "it is a watch that counts what it has tried"
    grown = second.gallery("catalogue")
    assert grown.pictures is not None
    picture = Path(grown.pictures[grown.index_of("turned 7/uploaded.png")])
    assert picture.is_relative_to(second.path.resolve()) and picture.samefile(uploaded), (
        "it needs no other run's folder"
    )
    facts = second.info["updated"]
    assert (facts["source"], facts["new_classes"], facts["better"]) == ("local-update-1", 0, False)
    assert serving(run).name == "local-update-1" and "local-update-1 still serves" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        cli.main(["update", "local", "--add", str(arriving)])
    assert "are in the catalogue already" in capsys.readouterr().err
    cli.main(["update", "local", "--rollback"])
    assert serving(second).name == "local" and "local serves again" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        cli.main(["update", "local", "--rollback"])
    assert "nothing to go back from" in capsys.readouterr().err


def test_vectors_of_two_models_are_mixed_only_if_they_can_be_compared(run: Run, first: Run, tmp_path: Path) -> None:
    copy = Run.open(shutil.copytree(first.path, tmp_path / "copy"))
    gallery = copy.gallery("catalogue")
    assert gallery.pretrained is not None
    row = changes.NewItems(
        gallery.items.iloc[:1].assign(id="other"), np.array(gallery.features[:1]), [gallery.thumb(0)], (),
        np.array(gallery.pretrained[:1]), ["of another model"],
    )  # fmt: skip
    with pytest.raises(RunError, match="of another model than the new ones"):
        changes.add(gallery, row)
    shutil.rmtree(copy.path / "gallery" / "unseen")
    shutil.copytree(first.path / "gallery" / "unseen", copy.path / "gallery" / "unseen")
    older = copy.path / "gallery" / "unseen" / "manifest.json"
    older.write_text(older.read_text().replace(model_stamp(first.path), model_stamp(run.path)))
    assert copy.gallery("unseen").protocol == "unseen", "the update kept its features near the old ones"
    copy.update(updated={**copy.info["updated"], "comparable": []})
    with pytest.raises(RunError, match="has vectors of another model, not to be compared"):
        copy.gallery("unseen")


def test_the_stamp_is_of_what_makes_vectors(tmp_path: Path) -> None:
    def stamp(**tensors: float) -> str:
        write_tensors(tmp_path / "model.safetensors", {name: torch.full((2,), of) for name, of in tensors.items()}, {})
        return model_stamp(tmp_path)

    assert model_stamp(tmp_path) == "" == stamp(other=1.0)
    kept = stamp(**{"embedding.head": 1.0, "learned.unit": 1.0})
    assert len(kept) == 64 and kept == stamp(**{"embedding.head": 1.0, "learned.unit": 2.5})
    assert kept != stamp(**{"embedding.head": 1.5, "learned.unit": 1.0})
    for damaged in (b"", b"no model", b"\xff" * 40):
        (tmp_path / "model.safetensors").write_bytes(damaged)
        assert model_stamp(tmp_path) == ""


def test_one_update_at_a_time(run: Run, arriving: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with FileLock(run.path / LOCK), pytest.raises(SystemExit):
        cli.main(["update", "local", "--add", str(arriving)])
    assert "An update of local is under way" in capsys.readouterr().err
    for wrong in ([], ["--add", "a", "--rollback"]):
        with pytest.raises(SystemExit):
            cli.main(["update", "local", *wrong])
        assert "expects one of" in capsys.readouterr().err
