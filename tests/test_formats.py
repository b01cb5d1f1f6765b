"""Runs of every format so far are read: listed, searched, ranked, changed. A change of it takes a new number."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from run_shape import shape

from pddm_lab import cli
from pddm_lab.analysis.saved_queries import read as read_queries
from pddm_lab.errors import RunError
from pddm_lab.gallery import changes, history
from pddm_lab.runs.compare import final_metrics, list_runs
from pddm_lab.runs.local import load_local
from pddm_lab.runs.model import load_similarities
from pddm_lab.runs.pack import unpack
from pddm_lab.runs.run import Run
from pddm_lab.runs.schema import FORMAT

FORMATS = Path(__file__).parent / "formats"
PACKED = sorted(FORMATS.glob("*.zip"))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of each format, named after it."""
    root = tmp_path_factory.mktemp("formats")
    for file in PACKED:
        unpack(file, root, file.stem)
    return root


def test_every_format_has_a_run() -> None:
    assert {int(file.stem.partition("-")[0]) for file in PACKED} == set(range(1, FORMAT + 1))
    assert all(file.stat().st_size < 250_000 for file in PACKED)


def test_a_change_of_the_format_takes_a_new_number() -> None:
    """If this fails: raise FORMAT in pddm_lab/runs/schema.py and let RunContent accept it, then write the shape and a
    small run of the new format with `python tests/formats/make.py tests/formats/<number>.zip`."""
    assert json.loads((FORMATS / "shape.json").read_text()) == {"format": FORMAT, **shape()}


def test_all_are_listed(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert all(isinstance(run, Run) for run in list_runs(root))
    cli.main(["runs", "--runs-root", str(root)])
    listed = capsys.readouterr().out
    assert all(f"\n{file.stem} " in listed for file in PACKED) and "can't be read" not in listed


@pytest.mark.parametrize("name", [file.stem for file in PACKED])
def test_a_run_is_read_searched_and_ranked(root: Path, name: str) -> None:
    run = Run.open(root / name)
    assert run.info["format"] == int(name.partition("-")[0]) and run.status == "finished"
    assert (run.config.dim, run.config.dataset) == (8, "folder:digits")
    assert set(final_metrics(run)) == {"unseen", "known"} and len(run.metrics()) and len(run.quadruplets())
    assert ("catalogue" in run.galleries()) == (run.info["format"] > 1)
    similarities, local = load_similarities(run), load_local(run)
    assert (local is not None) == bool(run.info.get("local"))
    for protocol in run.galleries():
        gallery = run.gallery(protocol)
        assert gallery.map is not None and len(gallery.map) == len(gallery) and gallery.thumb(0)[:2] == b"\xff\xd8"
        row = int(gallery.rows("gallery")[0])
        near, distances = gallery.search(gallery.features[[row]], 5)
        exact = np.sort(np.linalg.norm(gallery.features[gallery.rows("gallery")] - gallery.features[row], axis=1))
        np.testing.assert_allclose(distances[0], exact[: len(distances[0])], atol=2e-3)
        assert row in near[0]
        structure = None if local is None else local.structure
        table = gallery.search_by(gallery.features[row], list(similarities.values()), 5, row, structure).table
        ranked = [one for one in similarities if one != "euclidean"] + (["local"] if structure else [])
        for similarity in ranked:
            assert sorted(table[f"{similarity}_rank"]) == [1, 2, 3, 4, 5]


def test_a_changed_catalogue_has_its_history(root: Path) -> None:
    run = Run.open(root / "2")
    catalogue, local = run.gallery("catalogue"), load_local(run)
    past = history.changes(catalogue.path, catalogue.manifest)
    assert [change.reason for change in past] == ["another test", "a test"]
    assert "a new class" in set(catalogue.items["class_name"])
    assert read_queries(catalogue) is not None and local is not None
    catalogue, _ = changes.undo(catalogue, local.structure)
    catalogue, _ = changes.undo(catalogue, local.structure)
    assert len(catalogue) == run.info["dataset"]["items"]


def test_a_newer_format_is_refused_in_one_sentence(root: Path, tmp_path: Path) -> None:
    info = json.loads((root / "2" / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps(info | {"format": FORMAT + 1, "config": {"of": "tomorrow"}}))
    with pytest.raises(RunError, match=f"has another format, .*got {FORMAT + 1}: update this lab to read it.$"):
        Run.open(tmp_path)
