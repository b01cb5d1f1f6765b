"""The command `search`: what it prints for a picture, for an item, and for what is neither."""

from __future__ import annotations

import pickle
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from digit_pictures import write_digits
from no_maps import NoMaps
from PIL import Image

from pddm_lab import cli
from pddm_lab.runs.imported import unnamed_model
from pddm_lab.runs.local import load_local
from pddm_lab.runs.run import Run
from pddm_lab.training import finish
from pddm_lab.training.imports import import_features


def search(run: Run, *words: str) -> None:
    cli.main(["search", run.name, *words, "--runs-root", str(run.path.parent)])


def test_an_item_is_ranked_as_the_gallery_ranks_it(
    local_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gallery, local = local_run.gallery("catalogue"), load_local(local_run)
    assert local is not None
    item = gallery.items["id"].iloc[9]
    search(local_run, item, "--k", "4", "--csv", str(tmp_path / "hits.csv"))
    lines = capsys.readouterr().out.splitlines()
    expected = gallery.search_by(gallery.features[9], [], 100, 9, local.structure).ranked("local", 4)
    assert lines[0].split() == ["rank", "id", "class", "D", "L"]
    assert [line.split()[1] for line in lines[1:5]] == expected["id"].tolist() and item not in expected["id"].tolist()
    hits = pd.read_csv(tmp_path / "hits.csv", dtype={"class_name": str})
    np.testing.assert_allclose(hits["value"], expected["value"], atol=1e-5)
    rows = [gallery.index_of(one) for one in hits["id"]]
    np.testing.assert_allclose(
        hits["distance"], np.linalg.norm(gallery.features[rows] - gallery.features[9], axis=1), atol=1e-4
    )
    assert f"The best of {len(gallery)} items by L" in lines[6] and lines[7].startswith("By D it ")


@pytest.mark.parametrize("by", ["euclidean", "mahalanobis", "pddm"])
def test_a_picture_finds_its_own_item(
    local_run: Run, by: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = write_digits(tmp_path / "digits", 14)
    item = local_run.gallery("catalogue").items["id"].iloc[3]
    search(local_run, str(pictures / item), "--by", by, "--k", "1")
    head, first, *_ = capsys.readouterr().out.splitlines()
    assert head.split()[3:] == {"euclidean": ["D"], "mahalanobis": ["D", "D_M"], "pddm": ["D", "S"]}[by]
    assert first.split()[1] == item and float(first.split()[3]) < 0.01


def test_a_short_shortlist_decides_as_a_long_one(local_run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    for item in local_run.gallery("catalogue").items["id"].iloc[[9, 60]]:
        lines = []
        for size in ("2", "200"):
            search(local_run, item, "--k", "2", "--shortlist", size)
            lines.append(capsys.readouterr().out.splitlines()[-1])
        assert lines[0] == lines[1] and lines[0].startswith("By D it ")


@pytest.mark.parametrize(
    ("words", "message"),
    [(["nowhere"], "'nowhere' is no file, and no item"), (["0", "--by", "csls"], "Unknown similarity 'csls'")],
)
def test_what_cannot_be_searched_is_one_sentence(
    local_run: Run, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        search(local_run, *words)
    assert message in capsys.readouterr().err


def test_imported_features_without_labels_are_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(finish, "start_map", NoMaps)
    np.save(tmp_path / "f.npy", np.random.default_rng(0).normal(size=(30, 8)))
    (tmp_path / "items.csv").write_text("id\n" + "\n".join(f"item {number}" for number in range(30)))
    run = import_features("bare", tmp_path / "f.npy", tmp_path / "items.csv", runs_root=str(tmp_path))
    search(run, "item 7", "--k", "3")
    printed = capsys.readouterr().out
    assert "The best of 30 items by D" in printed and "it shows" not in printed and "item 7" not in printed
    Image.new("RGB", (8, 8)).save(tmp_path / "my photo.png")
    error = unnamed_model(run)
    assert str(error).endswith("name the model that made them, with `--model package.module:callable`.")
    assert str(pickle.loads(pickle.dumps(error))) == str(error), "workers of a command hand it over"
    typed = ["search", str(run.path), str(tmp_path / "my photo.png")]
    with pytest.raises(SystemExit):
        cli.main(typed)
    message, command = capsys.readouterr().err.split(": `")
    assert message.endswith("name the model that made them") and "gallery add" not in command
    assert command.strip() == f"pddm-lab {shlex.join(typed)} --model package.module:callable`."
