"""What changed in a catalogue is carried over to the run that serves again; and a worker follows what serves."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from service_run import png

from pddm_lab import cli
from pddm_lab.errors import BusyError, RunError
from pddm_lab.gallery import changes
from pddm_lab.gallery.gallery import Gallery
from pddm_lab.runs import new_items
from pddm_lab.runs.new_items import Picture, item_rows
from pddm_lab.runs.removal import remove
from pddm_lab.runs.run import Run
from pddm_lab.service import worker as workers
from pddm_lab.service.settings import Settings
from pddm_lab.update import carry
from pddm_lab.update.serving import ServingContent, roll_back, serving, write_serving

COUNTS = dict.fromkeys(("new_items", "new_classes", "replay", "replay_classes", "steps"), 0)
UPDATED = COUNTS | {"first": "local", "source": "local", "near": 0.0, "comparable": [], "recall": {}, "better": True}


@pytest.fixture
def first(local_run: Run, tmp_path: Path) -> Run:
    """A copy of a run, and beside it one with the same model that serves as its update."""
    for number in (1, 2):
        path = shutil.copytree(local_run.path, tmp_path / f"local-update-{number}")
        Run.open(path).update(name=path.name, updated=UPDATED | {"number": number})
    run = Run.open(shutil.copytree(local_run.path, tmp_path / "local"))
    write_serving(run, ServingContent(updates=["local-update-1"]))
    return run


def test_commands_change_the_catalogue_that_serves(first: Run, capsys: pytest.CaptureFixture[str]) -> None:
    name = first.gallery("catalogue").items["class_name"].iloc[0]
    cli.main(["gallery", "rename", str(first.path), name, "other"])
    assert "Of local, the update local-update-1 serves: this is its gallery." in capsys.readouterr().out
    assert name not in set(serving(first).gallery("catalogue").items["class_name"])
    assert name in set(first.gallery("catalogue").items["class_name"])
    cli.main(["gallery", "list", str(first.path)])
    lines = capsys.readouterr().out.splitlines()
    assert "local-update-1 serves" in lines[0] and not any(line.split()[0] == name for line in lines if line)


def test_a_command_changes_the_catalogue_that_serves_by_then(
    first: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "new" / "late").mkdir(parents=True)
    (tmp_path / "new" / "late" / "1.png").write_bytes(png(1))
    embed, runs = new_items.to_add, []

    def to_add(run: Run, *of: Any) -> new_items.FolderItems:
        runs.append(run.name)
        made = embed(run, *of)
        write_serving(first, ServingContent(updates=["local-update-1", "local-update-2"]))
        return made

    monkeypatch.setattr(new_items, "to_add", to_add)
    cli.main(["gallery", "add", str(first.path), str(tmp_path / "new")])
    assert runs == ["local-update-1", "local-update-2"] and "Added 1 item of 1 class" in capsys.readouterr().out
    have = [
        name
        for name in ("local", *runs)
        if "late/1.png" in set(Run.open(tmp_path / name).gallery("catalogue").items["id"])
    ]
    assert have == ["local-update-2"]


def made_up(run: Run, gallery: Gallery, of_class: dict[str, str], folder: Path) -> changes.NewItems:
    """Items with features by chance, and their pictures' files."""
    draw, files = np.random.default_rng(len(of_class)), []
    for number, item in enumerate(of_class):
        files.append(folder / item.replace("/", " "))
        files[-1].write_bytes(png(number))
    features, pretrained = (
        None if of is None else draw.standard_normal((len(files), of.shape[1])).astype(np.float32)
        for of in (gallery.features, gallery.pretrained)
    )
    assert features is not None
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    rows = item_rows(run, gallery, list(of_class), list(of_class.values()))
    return changes.NewItems(rows, features, [png(0)] * len(files), files, pretrained, run.models())


def test_a_rollback_keeps_what_changed_but_what_came_with_the_update(
    first: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    update = serving(first)
    gallery = update.gallery("catalogue")
    gallery = changes.add(gallery, made_up(update, gallery, {"turned/1.png": "turned"}, tmp_path))
    carry.write_served(update)
    ids, classes = (gallery.items[name].astype(str).tolist() for name in ("id", "class_name"))
    gone, replaced, renamed = ids[3], ids[10], classes[50]
    members = {item for item, name in zip(ids, classes, strict=True) if name == renamed} - {gone}
    gallery = changes.add(gallery, made_up(update, gallery, {"late/1.png": "late", "late/2.png": "late"}, tmp_path))
    gallery = changes.rename_class(gallery, renamed, "other")
    gallery = changes.remove(gallery, [gone])
    gallery = changes.update(gallery, made_up(update, gallery, {replaced: classes[10]}, tmp_path))

    def embedded(run: Run, files: Sequence[Path]) -> Iterator[Picture | str]:
        assert run.name == "local", "by the model of the catalogue that gets them"
        new = made_up(run, gallery, {file.name: "" for file in files}, tmp_path)
        for row, file in enumerate(files):
            further = None if new.pretrained is None else new.pretrained[row]
            yield "It is gone." if file.name == "late 2.png" else Picture(new.features[row], png(0), further)

    monkeypatch.setattr(carry, "embed_pictures", embedded)
    was, now, left = roll_back(first)
    assert (was.name, now.name, serving(first).name) == ("local-update-1", "local", "local")
    assert left == ["late/2.png: It is gone."]
    items = first.gallery("catalogue").items
    of_item = dict(zip(items["id"].astype(str), items["class_name"].astype(str), strict=True))
    assert of_item["late/1.png"] == "late" and not {"late/2.png", "turned/1.png", gone} & set(of_item)
    assert {item for item, name in of_item.items() if name == "other"} == members and renamed not in of_item.values()
    assert (items.groupby("class_name")["label"].nunique() == 1).all()
    kept, before = first.gallery("catalogue"), update.gallery("catalogue")
    same, other = (kept.features[kept.index_of(item)] for item in (ids[20], replaced))
    assert np.array_equal(same, before.features[before.index_of(ids[20])])
    assert not np.array_equal(other, before.features[before.index_of(replaced)]), "no vector is copied"


def test_uploads_of_items_that_are_carried_over_stay_when_their_run_is_removed(
    first: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    update, gallery = serving(first), first.gallery("catalogue")
    before, uploads = carry.listed(gallery), first.path / "uploads"
    uploads.mkdir()
    new = made_up(first, gallery, {"late/1.png": "late"}, uploads)
    changes.add(gallery, new)
    monkeypatch.setattr(carry, "embed_pictures", lambda *_: [Picture(new.features[0], png(0), new.pretrained[0])])  # type: ignore[index]
    carry.carry(first, before, update)
    remove(first.path)
    (picture,) = update.gallery("catalogue").pictures.dropna()  # type: ignore[union-attr]
    assert Path(picture) == update.path / "uploads" / "late 1.png" and Path(picture).read_bytes() == png(0)


class Opened:
    """Stands for a run with its model, which takes seconds to open."""

    catalogue = SimpleNamespace(latest=SimpleNamespace(gallery=[]), stop=lambda: None)
    kept: ExitStack
    let_go, removed = workers.Served.let_go, workers.Served.removed
    allowed = workers.Served._while_it_serves

    def __init__(self, run: Run, named: Run, *_: Any) -> None:
        if run.name == "local-update-2":
            raise RunError("It is damaged.")
        self.run, self._named = run, named


async def note(of: Opened) -> str:
    """A change of a catalogue: the name of the run that it is of."""

    def change() -> str:
        with of.allowed():  # type: ignore[misc]
            return of.run.name

    return await asyncio.to_thread(change)


def test_a_worker_follows_what_serves_and_changes_wait_for_it(first: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "LOOK", 0.05)
    monkeypatch.setattr(workers, "AGAIN", 3600.0)  # what can't be opened keeps nothing else from serving
    monkeypatch.setattr(workers, "Served", Opened)

    async def follow() -> list[str]:
        worker, pinned = (workers.Worker(Settings(str(serving_of.path))) for serving_of in (first, serving(first)))
        tasks = [asyncio.create_task(one.start()) for one in (worker, pinned)]
        changed: list[str] = []
        for names in (["local-update-1"], [], ["local-update-1"], ["local-update-2"], []):
            write_serving(first, ServingContent(updates=names))
            for one in (worker, pinned):
                await one.started.wait()
            try:
                changed.append(await worker.change(note))  # type: ignore[arg-type]
            except BusyError as error:
                changed.append(str(error))
            assert await pinned.change(note) == "local-update-1"  # type: ignore[arg-type]
        for task in tasks:
            task.cancel()
        return changed

    assert asyncio.run(asyncio.wait_for(follow(), 600)) == [
        "local-update-1", "local", "local-update-1", "Another run is to serve, and can't be opened: It is damaged.",
        "local",
    ]  # fmt: skip
