"""A run that is served is not removed; where its folder is gone all the same, the service says so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from no_maps import NoMaps

from pddm_lab.errors import RunError
from pddm_lab.runs.removal import remove
from pddm_lab.runs.run import Run
from pddm_lab.service.app import create
from pddm_lab.service.settings import Settings
from pddm_lab.training import finish
from pddm_lab.training.imports import import_features


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run of imported features, which takes a second."""
    monkeypatch.setattr(finish, "start_map", NoMaps)
    np.save(tmp_path / "f.npy", np.random.default_rng(0).standard_normal((60, 8)).astype(np.float32))
    (tmp_path / "items.csv").write_text("id\n" + "\n".join(f"item {row}" for row in range(60)))
    return import_features("mine", tmp_path / "f.npy", tmp_path / "items.csv", runs_root=str(tmp_path), shown=False)


def test_it_is_removed_only_when_its_service_has_ended(run: Run) -> None:
    with TestClient(create(Settings(str(run.path))), base_url="http://localhost") as client:
        assert client.get("/v1/search", params={"item": "item 7"}).status_code == 200
        with pytest.raises(RunError, match="mine is being served: end its service"):
            remove(run.path)
        assert client.get("/ready").status_code == 200
    assert remove(run.path)


def test_a_service_whose_run_is_gone_is_not_ready_and_says_why(run: Run) -> None:
    elsewhere = run.path.with_name("elsewhere")
    with TestClient(create(Settings(str(run.path))), base_url="http://localhost") as client:
        assert client.get("/v1/classes").status_code == 200
        run.path.rename(elsewhere)
        expected = {"error": "The run mine was removed: end this service, and serve another run."}
        for path in ("/ready", "/v1/search?item=item%207", "/v1/classes"):
            answer = client.get(path)
            assert (answer.status_code, answer.json()) == (503, expected)
        assert client.post("/v1/undo").json() == expected and client.get("/health").status_code == 200
        elsewhere.rename(run.path)
        assert client.get("/ready").status_code == 200 and client.get("/v1/classes").status_code == 200
    assert remove(run.path)
