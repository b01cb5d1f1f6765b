"""A service follows the update that serves: answers of one model each, no change lost, back again, and what fails."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import pytest
from digit_pictures import write_digits
from PIL import Image
from service_run import png, serving

from pddm_lab import cli
from pddm_lab.data.images import open_image
from pddm_lab.runs.model import ImageEmbedder, load_model
from pddm_lab.runs.run import Run
from pddm_lab.runs.versions import model_stamp
from pddm_lab.service import worker as workers
from pddm_lab.update import run_update
from pddm_lab.update.serving import changes_of_service, serving_path

pytestmark = pytest.mark.slow

SOON = 600.0
"""Seconds: a busy machine takes far more than the few that it should be."""


@dataclass(eq=False)
class Living:
    """A service that answers all the time, and what it answered to one picture."""

    client: httpx.Client
    root: Path
    query: bytes
    answers: list[dict] = field(default_factory=list)

    def by(self, run: str) -> dict:
        """The next answer by a run's model."""
        count, end = len(self.answers), time.monotonic() + SOON
        while not (got := [one for one in self.answers[count:] if one["run"] == run]):
            assert time.monotonic() < end, f"{run} did not answer"
            time.sleep(0.02)
        return got[0]

    def ids(self, name: str) -> list[str]:
        """The items of a class, as the service has them."""
        listed = self.client.get("/v1/items", params={"class_name": name, "size": 1000}).json()
        return [one["id"] for one in listed["items"]]


@pytest.fixture(scope="module")
def living(local_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Living]:
    """A service on a copy of a run, which is searched all the time by a thread."""
    root = tmp_path_factory.mktemp("followed")
    shutil.copytree(local_run.path.parent / ".features", root / ".features")
    run = Run.open(shutil.copytree(local_run.path, root / "local"))
    item = Path(run.info["dataset"]["root"]) / run.gallery("catalogue").items["id"].iloc[20]
    ends = threading.Event()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PDDM_LAB_RUNS", str(root))
        patch.setattr(workers, "LOOK", 0.1)
        with serving(run, timeout=300) as client:
            client.timeout = httpx.Timeout(300)
            living = Living(client, root, item.read_bytes())

            def search() -> None:
                with httpx.Client(base_url=client.base_url, timeout=300) as own:
                    while not ends.is_set():
                        sent = {"picture": ("a.png", living.query)}
                        answer = own.post("/v1/search", params={"k": 1000}, files=sent)
                        time.sleep(0.02)
                        living.answers.append(answer.json() if answer.status_code == 200 else {"run": answer.text})

            thread = threading.Thread(target=search, daemon=True)
            thread.start()
            yield living
            ends.set()
            thread.join(SOON)


def back_to_the_first(living: Living) -> None:
    """Let the run that was updated answer, whichever does."""
    if serving_path(Run.open(living.root / "local")).name != "local":
        cli.main(["update", "local", "--rollback"])
    living.by("local")


@contextmanager
def each_when(moment: str, work: Callable[[], object]) -> Iterator[None]:
    """Do something when an update begins with a function of run_update."""
    function = getattr(run_update, moment)

    def first(*arguments: object, **named: object) -> object:
        work()
        return function(*arguments, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_update, moment, first)
        patch.setattr(run_update.Verdict, "better", property(lambda self: True))
        yield


@pytest.fixture(scope="module")
def updated(living: Living, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The update; while it trained, items were added, replaced, renamed and removed."""
    source = write_digits(tmp_path_factory.mktemp("source") / "digits", 6)
    (folder := tmp_path_factory.mktemp("new") / "new" / "turned").mkdir(parents=True)
    for file in (source / "4").iterdir():
        with Image.open(file) as image:
            image.rotate(90).save(folder / file.name)
    client = living.client
    living.by("local")
    gone, replaced = living.ids("3")[0], living.ids("5")[0]

    def change() -> None:
        files = [("pictures", (f"{seed}.png", png(seed))) for seed in (1, 2)]
        answers = [
            client.post("/v1/items", data={"class_name": "noise"}, files=files),
            client.patch("/v1/classes", params={"name": "8", "to": "eight"}),
            client.put("/v1/item", params={"id": replaced}, files={"picture": png(3)}),
            client.delete("/v1/items", params={"id": [gone, "noise/2.png"]}),
        ]
        assert {one.status_code for one in answers} <= {200, 201}, [one.text for one in answers]

    with each_when("_judged", change):
        cli.main(["update", "local", "--add", str(folder.parent), "--steps", "3", "--replay", "20", "--no-map"])
    living.by("local-update-1")
    assert gone not in living.ids("3") and living.ids("noise") == ["noise/1.png"]
    assert not living.ids("8") and len(living.ids("eight")) == 14 and replaced in living.ids("5")
    return Run.open(living.root / "local-update-1")


def expected(run: Run, picture: Path) -> dict[str, float]:
    """Distances of a picture to all items, both by a run's model."""
    gallery, embed = run.gallery("catalogue"), ImageEmbedder(run, load_model(run))
    distances = np.linalg.norm(gallery.features - embed(open_image(picture, embed.shorter)), axis=1)
    return dict(zip(gallery.items["id"], distances.tolist(), strict=True))


def test_each_answer_is_by_one_model_and_none_fails(living: Living, updated: Run, tmp_path: Path) -> None:
    (tmp_path / "query.png").write_bytes(living.query)
    before, after = Run.open(living.root / "local"), updated
    assert {one["run"] for one in living.answers} == {"local", "local-update-1"}, "no request failed"
    at = [one["run"] for one in living.answers].index("local-update-1")
    assert {one["run"] for one in living.answers[at:]} == {"local-update-1"}
    of_runs = {run.name: expected(run, tmp_path / "query.png") for run in (before, after)}
    own, theirs = of_runs[before.name], of_runs[after.name]
    assert max(abs(own[item] - theirs[item]) for item in own.keys() & theirs.keys()) > 0.01, "the models differ by more"
    for answer in (living.answers[at - 1], living.by(after.name)):
        distances = of_runs[answer["run"]]
        assert answer["items"] == len(distances)
        assert {hit["id"]: hit["distance"] for hit in answer["hits"]} == pytest.approx(distances, abs=2e-3)


def test_it_says_which_model_serves(living: Living, updated: Run) -> None:
    version = living.client.get("/version").json()
    assert (version["run"], version["model"]) == (updated.name, model_stamp(updated.path))
    metrics = living.client.get("/metrics").text
    assert 'pddm_lab_serving_workers{run="local-update-1"} 1.0' in metrics
    assert 'pddm_lab_serving_workers{run="local"} 0.0' in metrics
    assert f"pddm_lab_items {float(len(updated.gallery('catalogue')))}" in metrics


def test_what_changed_while_it_trained_is_there_by_the_new_model(living: Living, updated: Run) -> None:
    for seed, item in ((1, "noise/1.png"), (3, living.ids("5")[-1])):
        answer = living.client.post("/v1/search", params={"k": 1}, files={"picture": ("a.png", png(seed))}).json()
        assert answer["run"] == updated.name
        assert answer["hits"][0]["id"] == item and answer["hits"][0]["distance"] < 2e-3
    assert len(living.ids("turned")) == 6
    assert updated.gallery("catalogue").manifest["model"] == model_stamp(updated.path)


def test_a_change_waits_for_the_run_that_serves_and_a_rollback_keeps_it(living: Living, updated: Run) -> None:
    client, seed = living.client, 11
    with changes_of_service(Run.open(living.root / "local"), 5):
        thread = threading.Thread(target=cli.main, args=(["update", "local", "--rollback"],))
        thread.start()  # it waits for changes to end
        time.sleep(0.3)
        assert serving_path(Run.open(living.root / "local")).name == updated.name
        slow = threading.Thread(target=client.post, args=("/v1/items",), kwargs={
            "data": {"class_name": "late"}, "files": [("pictures", (f"{seed}.png", png(seed)))],
        })  # fmt: skip
        slow.start()
    thread.join(SOON)
    slow.join(SOON)
    answer = living.by("local")
    assert {"late/11.png", "noise/1.png"} <= {hit["id"] for hit in answer["hits"]}
    assert len(living.ids("eight")) == 14 and not living.ids("turned")
    assert {one["run"] for one in living.answers} == {"local", "local-update-1"}, "no request failed"


def test_what_can_not_be_opened_does_not_serve(living: Living, updated: Run) -> None:
    path, first = living.root / "local-update-1", Run.open(living.root / "local")
    back_to_the_first(living)
    shutil.copytree(path, path.with_name("local-update-2"))
    (path.with_name("local-update-2") / "model.safetensors").write_bytes(b"damaged")
    (first.path / "serving.json").write_text('{"format": 1, "updates": ["local-update-2"], "tried": 0}')
    end = time.monotonic() + SOON
    while (answer := living.client.post("/v1/undo")).status_code != 503 and time.monotonic() < end:
        time.sleep(0.1)
    assert answer.json()["error"].startswith("Another run is to serve, and can't be opened: ")
    assert "model.safetensors" in answer.json()["error"] and living.by("local")
    (first.path / "serving.json").unlink()
    end = time.monotonic() + SOON
    while living.client.patch("/v1/classes", params={"name": "eight", "to": "8"}).status_code != 200:
        assert time.monotonic() < end
        time.sleep(0.1)


def test_changes_are_undone_in_the_run_that_serves(living: Living, updated: Run) -> None:
    back_to_the_first(living)
    before = living.ids("6")
    assert living.client.patch("/v1/classes", params={"name": "6", "to": "six"}).status_code == 200
    assert not living.ids("6")
    undone = living.client.post("/v1/undo").json()
    assert undone["what"].startswith("undone: renamed 14 items") and living.ids("6") == before


def test_an_update_that_is_named_itself_is_kept(living: Living, updated: Run) -> None:
    with serving(updated) as client:
        time.sleep(0.5)
        assert client.get("/version").json()["run"] == updated.name
        assert client.delete("/v1/classes", params={"name": "turned"}).status_code == 200


def test_pictures_that_are_gone_keep_an_update_from_serving(
    living: Living, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "new" / "extra").mkdir(parents=True)
    for seed in (21, 22, 23):
        (tmp_path / "new" / "extra" / f"{seed}.png").write_bytes(png(seed, 40))
    uploads = living.root / "local" / "uploads"
    before = set(uploads.iterdir())

    def lose() -> None:
        files = [("pictures", ("lost.png", png(30)))]
        assert living.client.post("/v1/items", data={"class_name": "lost"}, files=files).status_code == 201
        for file in set(uploads.iterdir()) - before:
            file.unlink()

    with each_when("_judged", lose), pytest.raises(SystemExit):
        cli.main(["update", "local", "--add", str(tmp_path / "new"), "--steps", "2", "--replay", "20", "--no-map"])
    assert "1 picture that came while the update trained can't be embedded" in capsys.readouterr().err
    assert serving_path(Run.open(living.root / "local")).name == "local" and living.ids("lost") == ["lost/lost.png"]
