"""The service, over HTTP: searches against slow ones, changes that the next answer knows of, errors in sentences."""

from __future__ import annotations

import io
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from no_maps import NoMaps
from PIL import Image
from service_run import PATIENCE, copied, png, serving
from starlette.testclient import TestClient

from pddm_lab import cli
from pddm_lab.analysis import saved_queries
from pddm_lab.analysis.decision import Decision, Range
from pddm_lab.change.incoming import from_log
from pddm_lab.change.signals import Gauge
from pddm_lab.errors import BusyError, ConfigError, RunError
from pddm_lab.gallery import changes
from pddm_lab.gallery.gallery import Gallery
from pddm_lab.model.similarity import make_similarity
from pddm_lab.runs.local import load_local
from pddm_lab.runs.model import load_similarities
from pddm_lab.runs.run import Run
from pddm_lab.service import catalogue, decisions
from pddm_lab.service.app import create
from pddm_lab.service.settings import Settings
from pddm_lab.training import finish
from pddm_lab.training.imports import import_features


@pytest.fixture(scope="module")
def run(local_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A copy of the run with local structure."""
    return copied(local_run, tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def client(run: Run) -> Iterator[httpx.Client]:
    """A client of a service without a key."""
    with serving(run, megabytes=2) as client:
        yield client


@pytest.fixture
def gallery(run: Run) -> Gallery:
    """The catalogue as it is."""
    return run.gallery("catalogue")


def nearest_to(client: httpx.Client, picture: bytes, **query: object) -> dict:
    """The answer to a search with a picture."""
    answer = client.post("/v1/search", params=query, files={"picture": ("a.png", picture)})  # type: ignore[arg-type]
    assert answer.status_code == 200, answer.text
    return answer.json()


def by_item(client: httpx.Client, item: str, **query: Any) -> dict:
    answer = client.get("/v1/search", params={"item": item, **query})
    assert answer.status_code == 200, answer.text
    return answer.json()


def patiently(change: Callable[[], Gallery]) -> Gallery:
    """A change by another process; the service may be listing neighbourhoods anew."""
    for _ in range(600):
        try:
            return change()
        except BusyError:
            time.sleep(0.05)
    return change()


def error(answer: httpx.Response, status: int) -> str:
    """The sentence of an error."""
    assert answer.status_code == status, answer.text
    (name, sentence), *others = answer.json().items()
    assert name == "error" and not others and sentence.endswith((".", "`")) and "Traceback" not in sentence
    return sentence


@pytest.mark.parametrize("name", ["euclidean", "mahalanobis", "pddm", "local"])
def test_an_item_is_searched_as_by_hand(client: httpx.Client, run: Run, gallery: Gallery, name: str) -> None:
    row, local = 17, load_local(run)
    assert local is not None
    similarities = [load_similarities(run)[name]] if name != "local" else []
    table = gallery.search_by(gallery.features[row], similarities, 139, row, local.structure).table  # type: ignore[arg-type]
    table = table.sort_values(f"{name}_rank").reset_index(drop=True)
    answer = by_item(client, gallery.items["id"].iloc[row], k=5, similarity=name)
    assert [hit["id"] for hit in answer["hits"]] == table["id"].tolist()[:5]
    assert [hit["class_name"] for hit in answer["hits"]] == table["class_name"].tolist()[:5]
    np.testing.assert_allclose([hit["score"] for hit in answer["hits"]], table[name][:5], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose([hit["distance"] for hit in answer["hits"]], -table["euclidean"][:5], atol=1e-5)
    assert answer["items"] == 140 and answer["similarity"] == name
    least = (table[name][2] + table[name][3]) / 2
    assert len(by_item(client, gallery.items["id"].iloc[row], k=5, similarity=name, threshold=least)["hits"]) == 3


def test_a_picture_is_searched_as_by_hand(client: httpx.Client, run: Run, gallery: Gallery) -> None:
    row = 30
    item = gallery.items["id"].iloc[row]
    answer = nearest_to(client, (Path(run.info["dataset"]["root"]) / item).read_bytes(), k=140)
    assert answer["hits"][0]["id"] == item and len(answer["hits"]) == 140
    distances = np.linalg.norm(np.array(gallery.features) - gallery.features[row], axis=1)
    actual = {hit["id"]: hit["distance"] for hit in answer["hits"]}
    np.testing.assert_allclose([actual[one] for one in gallery.items["id"]], distances, atol=0.02)
    assert list(actual.values()) == sorted(actual.values())


def test_a_decision_says_what_decides_and_how_often_it_errs(client: httpx.Client, run: Run, gallery: Gallery) -> None:
    by = load_similarities(run)["euclidean"]
    of = Range.of(gallery, by)
    fitted = Decision.fit(of, sample=decisions.SAMPLE)
    row = 50
    near = of.nearest(of.features[[row]], own=torch.tensor([row]))
    expected = float(fitted.probability(near)[0])
    decided = by_item(client, gallery.items["id"].iloc[row])["decision"]
    assert decided["probability"] == pytest.approx(expected, abs=1e-4)
    assert decided["in_range"] == bool(fitted.in_range(np.array([expected]))[0])
    assert decided["answer"] == (decided["class_name"] if decided["in_range"] else "not in the range")
    assert (decided["similarity"], decided["false_accepts"], decided["items"]) == ("euclidean", 0.05, 140)
    assert decided["right"] == pytest.approx(fitted.hits)
    assert nearest_to(client, png(5, 200))["decision"]["in_range"] in (True, False)


def test_a_new_class_is_found_by_the_next_search_and_gone_when_it_is_removed(client: httpx.Client, run: Run) -> None:
    before = client.get("/v1/classes").json()
    files = [("pictures", ("one.png", png(1))), ("pictures", ("two é.png", png(2))), ("pictures", ("no.png", b"none"))]
    added = client.post("/v1/items", data={"class_name": "noise/new", "reason": "a test"}, files=files)
    assert added.status_code == 201
    changed = added.json()
    assert changed["ids"] == ["noise/new/one.png", "noise/new/two é.png"] and changed["items"] == 142
    (skipped,) = changed["skipped"]
    assert skipped["file"] == "no.png" and "not a picture" in skipped["reason"]
    assert [nearest_to(client, png(seed), k=1)["hits"][0]["id"] for seed in (1, 2)] == changed["ids"]
    assert client.get("/v1/item", params={"id": "noise/new/one.png"}).json()["class_name"] == "noise/new"
    thumb = client.get("/v1/thumbnail", params={"id": "noise/new/one.png"})
    assert thumb.headers["content-type"] == "image/jpeg" and Image.open(io.BytesIO(thumb.content)).size == (24, 24)
    listed = client.get("/v1/items", params={"class_name": "noise/new", "size": 1, "page": 2}).json()
    assert [one["id"] for one in listed["items"]] == ["noise/new/two é.png"] and listed["total"] == 2
    last = client.get("/v1/changes").json()["changes"][0]
    assert (last["reason"], last["items_before"], last["change"]) == ("a test", 140, changed["change"])
    kept = sorted((run.path / "uploads").iterdir())
    assert sorted(file.read_bytes() for file in kept) == sorted([png(1), png(2)])
    listed_pictures = changes.with_sources(run.gallery("catalogue").path, run.gallery("catalogue").manifest)["picture"]
    assert set(listed_pictures.dropna()) == {str(file) for file in kept}, "the gallery can be written again"

    again = client.post("/v1/items", data={"class_name": "noise/new"}, files=[("pictures", ("one.png", png(3)))])
    assert "PUT /v1/item" in error(again, 409)
    assert client.put("/v1/item", params={"id": "noise/new/one.png"}, files={"picture": png(4)}).status_code == 200
    near = nearest_to(client, png(4), k=1)["hits"][0]
    assert near["id"] == "noise/new/one.png" and near["distance"] < 1e-3
    assert client.patch("/v1/classes", params={"name": "noise/new", "to": "3"}).status_code == 200
    assert nearest_to(client, png(4), k=1)["hits"][0]["class_name"] == "3"
    assert client.post("/v1/undo").json()["what"].startswith("undone: merged 2 items")
    gone = client.delete("/v1/items", params={"id": ["noise/new/one.png", "nothing"]})
    assert "'nothing'" in error(gone, 404), "nothing is removed if one is unknown"
    gone = client.delete("/v1/classes", params={"name": "noise/new"})
    assert set(gone.json()["ids"]) == set(changed["ids"])
    assert not {hit["id"] for hit in nearest_to(client, png(4), k=140)["hits"]} & set(changed["ids"])
    assert client.get("/v1/classes").json() == before


def test_a_change_says_what_it_did_to_the_saved_queries(client: httpx.Client, run: Run, gallery: Gallery) -> None:
    kept = saved_queries.save(gallery, 40)
    try:
        gone = kept.items["id"].tolist()
        assert client.delete("/v1/items", params={"id": gone, "reason": "measured"}).status_code == 200
        end = time.monotonic() + PATIENCE
        while not (last := client.get("/v1/changes").json()["changes"][0])["recall"]:
            assert time.monotonic() < end, "it was not measured"
            time.sleep(0.1)
        by, after = make_similarity("euclidean", gallery.features.shape[1]), run.gallery("catalogue")
        assert last["reason"] == "measured" and last["recall"].keys() == {"euclidean", "local"}
        assert last["recall"]["euclidean"] == [kept.accuracy(gallery, by), kept.accuracy(after, by)]
        assert client.post("/v1/undo").status_code == 200
    finally:
        (gallery.path / saved_queries.FILE).unlink()


def test_classes_are_listed_by_the_numbers_in_their_names(
    client: httpx.Client, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    first, *_, last = (one["name"] for one in client.get("/v1/classes").json()["classes"])
    for name, to in ((last, "shelf 10"), (first, "shelf 9")):
        assert client.patch("/v1/classes", params={"name": name, "to": to}).status_code == 200
    names = [one["name"] for one in client.get("/v1/classes").json()["classes"]]
    assert names[-2:] == ["shelf 9", "shelf 10"] and len(names) > 2
    cli.main(["gallery", "list", str(run.path)])
    lines = capsys.readouterr().out.splitlines()
    assert [next(at for at, line in enumerate(lines) if line.startswith(f"{name} ")) for name in names] == sorted(
        at for at, line in enumerate(lines) if line.startswith(tuple(f"{name} " for name in names))
    )
    assert [client.post("/v1/undo").status_code for _ in range(2)] == [200, 200]


def test_a_change_by_the_command_line_is_in_the_next_answer(client: httpx.Client, run: Run) -> None:
    gallery = run.gallery("catalogue")
    item, feature = str(gallery.items["id"].iloc[3]), gallery.items["id"].iloc[4]
    assert item in {hit["id"] for hit in by_item(client, feature, k=139)["hits"]}
    changed = patiently(lambda: changes.remove(gallery, [item]))
    answer = by_item(client, feature, k=139)
    assert item not in {hit["id"] for hit in answer["hits"]} and answer["change"] == changed.manifest["change"]
    error(client.get("/v1/search", params={"item": item}), 404)
    patiently(lambda: changes.undo(changed)[0])
    assert by_item(client, item)["items"] == 140


def test_the_map_is_drawn_anew_when_changes_rest(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Path] = []
    monkeypatch.setattr(catalogue.redraw, "start_redrawing", drawn.append)
    with ThreadPoolExecutor(1) as pool:
        served = catalogue.Catalogue(copied(run, tmp_path), "unseen", None, pool, pool)
        assert served.latest.gallery.manifest["map"]

        def change(work: Callable[[Gallery], Gallery], quiet: float) -> threading.Timer:
            monkeypatch.setattr(catalogue, "QUIET", quiet)
            served.change(work)
            assert served._drawing is not None
            return served._drawing

        first, second = (
            change(lambda gallery: changes.remove(gallery, [gallery.items["id"].iloc[0]]), quiet)
            for quiet in (600.0, 0.01)
        )
        assert first.finished.is_set(), "another change came before the first one's quiet was over"
        second.join(60)
        assert drawn == [served.latest.gallery.path]
        third = change(lambda gallery: changes.undo(gallery)[0], 600.0)
        served.stop()
        third.join(60)
    assert drawn == [served.latest.gallery.path]


def test_errors_are_sentences(client: httpx.Client) -> None:
    send = {"picture": ("a.png", b"none")}
    assert "GET /v1/items" in error(client.get("/v1/search", params={"item": "none"}), 404)
    assert error(client.get("/v1/search", params={"item": "x", "k": 0}), 422).startswith("k: expected greater")
    assert "Known: euclidean" in error(client.get("/v1/search", params={"item": "x", "similarity": "cosin"}), 422)
    assert "not a picture the lab can read" in error(client.post("/v1/search", files=send), 422)
    assert "curl -F picture=@FILE" in error(client.post("/v1/search", data={"picture": "text"}), 422)
    assert "picture: expected, but missing" in error(client.post("/v1/search"), 422)
    assert "/openapi.json" in error(client.get("/v1/nothing"), 404)
    assert "/v1/classes has no POST" in error(client.post("/v1/classes"), 405)
    assert "GET /v1/classes" in error(client.delete("/v1/classes", params={"name": "none"}), 404)
    for name in (" ", "../../etc", " ..", "/etc", "apple/../pear", "apple//red", "two\nlines"):
        refused = client.post("/v1/items", data={"class_name": name}, files={"pictures": png(1)})
        assert error(refused, 422).startswith("class_name: expected a name without control characters whose parts")
    renamed = client.patch("/v1/classes", params={"name": "3", "to": "../three"})
    assert error(renamed, 422).startswith("to: expected a name without control characters whose parts")
    assert "too large" in error(client.post("/v1/search", files={"picture": bytes(2_100_000)}), 413)
    wide = io.BytesIO()
    Image.new("1", (9_000, 9_000)).save(wide, "PNG")
    assert "million pixels" in error(client.post("/v1/search", files={"picture": wide.getvalue()}), 422)


def test_only_this_machine_and_no_other_site_may_use_it_without_a_key(client: httpx.Client) -> None:
    error(client.post("/v1/undo", headers={"Origin": "http://evil.example"}), 403)
    error(client.get("/v1/classes", headers={"Host": "evil.example"}), 403)
    assert client.get("/v1/classes", headers={"Origin": "http://localhost:8501"}).status_code == 200
    assert client.get("/health", headers={"Host": "10.0.0.1"}).json() == {"status": "alive"}


def printed_from_now_on(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What the service prints, as it grows. Called in a test: pytest takes over what is printed between its parts."""
    text = io.StringIO()
    monkeypatch.setattr(sys, "stdout", text)
    return text


def log_of(printed: io.StringIO, answers: list[httpx.Response]) -> str:
    """The log with the lines of some answers: the service prints them after it has answered."""
    requests, end = {one.headers["x-request-id"] for one in answers}, time.monotonic() + PATIENCE
    while True:
        lines = printed.getvalue().splitlines(keepends=True)
        whole = [line for line in lines if line.endswith("\n")]
        if requests <= {json.loads(line)["request"] for line in whole}:
            return "".join(whole)
        assert time.monotonic() < end
        time.sleep(0.01)


def test_its_log_and_its_metrics_tell_of_requests_but_not_of_what_they_hold(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    printed = printed_from_now_on(monkeypatch)
    answer = client.get("/v1/search", params={"item": "a secret"}, headers={"X-API-Key": "another secret"})
    text = log_of(printed, [answer])
    (line,) = [one for one in map(json.loads, text.splitlines()) if one["request"] == answer.headers["x-request-id"]]
    assert (line["method"], line["path"], line["status"]) == ("GET", "/v1/search", 404) and line["ms"] >= 0
    assert "secret" not in text
    metrics = client.get("/metrics").text
    assert 'pddm_lab_requests_total{method="GET",path="/v1/search",status="404"}' in metrics
    assert "secret" not in metrics and "pddm_lab_ready_workers 1.0" in metrics


def test_drift_reads_the_scores_in_its_log(
    client: httpx.Client, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    printed = printed_from_now_on(monkeypatch)
    given = [client.post("/v1/search", files={"picture": ("a.png", png(seed))}) for seed in range(3)]
    answers = [one.json() for one in given]
    (tmp_path / "log").write_text(log_of(printed, [*given, client.get("/v1/classes")]))
    stream = from_log(Gauge.of(run), tmp_path / "log", 100).stream
    np.testing.assert_allclose(stream.signals["distance"], [one["hits"][0]["distance"] for one in answers])
    np.testing.assert_allclose(stream.signals["probability"], [one["decision"]["probability"] for one in answers])
    assert stream.in_range is not None and stream.in_range.tolist() == [one["decision"]["in_range"] for one in answers]
    assert (stream.signals["margin"] >= 0).all()


def test_what_it_is_and_what_it_offers(client: httpx.Client, run: Run) -> None:
    version = client.get("/version").json()
    assert (version["run"], version["gallery"]) == (run.name, "catalogue")
    assert version["similarities"] == ["euclidean", "mahalanobis", "pddm", "local"] and version["pictures"] == ""
    document = client.get("/openapi.json").json()
    for path, methods in document["paths"].items():
        for operation in methods.values():
            assert operation["summary"] and operation["responses"], path
    shown = document["components"]["schemas"]["Hit"]["properties"]
    assert shown["score"]["examples"] and shown["id"]["examples"]
    assert client.get("/docs").status_code == 404, "it would fetch scripts from elsewhere"


def test_another_address_needs_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PDDM_LAB_API_KEY", raising=False)
    with pytest.raises(ConfigError, match=r"0\.0\.0\.0 .*--api-key-file"):
        Settings("run", host="0.0.0.0").keys()
    for host in ("127.0.0.1", "localhost", "::1", "127.8.8.8"):
        assert Settings("run", host=host).keys() == ()
    monkeypatch.setenv("PDDM_LAB_API_KEY", "short")
    with pytest.raises(ConfigError, match="16 or more"):
        Settings("run").keys()
    monkeypatch.setenv("PDDM_LAB_API_KEY", "a" * 32)
    assert Settings("run", host="0.0.0.0").keys() == ("a" * 32,)
    file = tmp_path / "keys"
    file.write_text(f"{'b' * 20}\n\n {'c' * 20} \n")
    assert Settings("run", host="::", api_key_file=str(file)).keys() == ("b" * 20, "c" * 20)
    file.write_text("\n")
    with pytest.raises(ConfigError, match="holds no key"):
        Settings("run", api_key_file=str(file)).keys()
    with pytest.raises(RunError, match="can't be read"):
        Settings("run", api_key_file=str(tmp_path / "none")).keys()


def test_imported_features_are_searched_by_item_and_a_picture_needs_the_named_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finish, "start_map", NoMaps)
    features = np.random.default_rng(0).standard_normal((60, 8)).astype(np.float32)
    np.save(tmp_path / "f.npy", features)
    (tmp_path / "items.csv").write_text("id\n" + "\n".join(f"item {row}" for row in range(60)))
    made = import_features("mine", tmp_path / "f.npy", tmp_path / "items.csv", runs_root=str(tmp_path), shown=False)
    with TestClient(create(Settings(str(made.path))), base_url="http://localhost") as client:
        answer = client.get("/v1/search", params={"item": "item 7", "k": 3}).json()
        unit = features / np.linalg.norm(features, axis=1, keepdims=True)
        nearest = np.linalg.norm(unit - unit[7], axis=1).argsort()[1:4]
        assert [hit["id"] for hit in answer["hits"]] == [f"item {row}" for row in nearest]
        assert answer["decision"] is None and "no classes" in answer["no_decision"]
        sentence = error(client.post("/v1/search", files={"picture": png(1)}), 409)  # type: ignore[arg-type]
        assert "pddm-lab serve mine --model" in sentence
        assert sentence == client.get("/version").json()["pictures"]
        files = {"pictures": ("a.png", png(1))}
        error(client.post("/v1/items", data={"class_name": "new"}, files=files), 409)  # type: ignore[arg-type]
