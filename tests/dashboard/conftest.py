"""The dashboard's modules on the path, as `streamlit run` puts them there, and its pages run without a browser."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from reading import PATIENCE
from streamlit.testing.v1 import AppTest

from pddm_lab import dashboard_server
from pddm_lab.dashboard_server import PAGES

DASHBOARD = Path(__file__).parents[2] / "dashboard"
sys.path.insert(0, str(DASHBOARD))

OpenPage = Callable[..., AppTest]


@pytest.fixture
def runs_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty runs' root that the dashboard looks at."""
    monkeypatch.setenv("PDDM_LAB_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("PDDM_LAB_DATA", str(tmp_path / "data"))
    (tmp_path / "runs").mkdir()
    return tmp_path / "runs"


@pytest.fixture
def with_digits(runs_folder: Path, digits_run) -> Path:
    """A runs' root that holds a real run on digits."""
    shutil.copytree(digits_run.path, runs_folder / digits_run.name, copy_function=link)
    return runs_folder


@pytest.fixture
def with_local(runs_folder: Path, local_run) -> Path:
    """A runs' root that holds a run of the preset `lab`, which has a similarity on local structure."""
    shutil.copytree(local_run.path, runs_folder / local_run.name, copy_function=link)
    return runs_folder


def link(source: str, target: str) -> None:
    """Files of a run are replaced, never changed, so that a copy may share them."""
    Path(target).hardlink_to(source)


@pytest.fixture
def open_page(runs_folder: Path, monkeypatch: pytest.MonkeyPatch) -> OpenPage:
    """Open a page by name, with query parameters as a link would have them.

    A test's first run shows the first page of `PAGES`, so the opened one becomes that. It waits for what would come
    later in the background, and what a server imports beforehand is imported when it is needed.
    """
    monkeypatch.setattr("app_pages.search.decision.AT_ONCE", PATIENCE / 2)
    monkeypatch.setattr("shared.loaders.warm_up", lambda: None)

    def open_it(name: str = "runs", /, **query: str) -> AppTest:
        app = AppTest.from_file(str(DASHBOARD / "app.py"), default_timeout=PATIENCE)
        app.query_params.update(query)
        monkeypatch.setattr(dashboard_server, "PAGES", {name: PAGES[name], **PAGES})
        app.run()
        assert not app.exception, app.exception[0].message
        return app

    return open_it
