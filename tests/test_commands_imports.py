"""The command `import`: what it needs, what it refuses, and what it prints."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from no_maps import NoMaps

from pddm_lab import cli
from pddm_lab.training import finish


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "got none of them"), (["--features", "f.npy"], "got --features"),
        (["--model", "a:b", "--items", "i.csv"], "got --items and --model"),
        (["--model", "a:b", "--dataset", "digits", "--images", "x"], "--images expects --items"),
        (["--features", "f.npy", "--items", "i.csv"], "f.npy does not exist"),
        (["--model", "no_such:model", "--dataset", "digits"], "can't be imported"),
        (["../one", "--model", "no_such:model", "--dataset", "digits"], "NAME expects up to 100 letters"),
    ],
)  # fmt: skip
def test_what_is_missing_is_named(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["import", *([] if words[:1] == ["../one"] else ["one"]), *words])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_features_are_imported_and_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(finish, "start_map", NoMaps)
    labels = np.arange(120) % 6
    rng = np.random.default_rng(0)
    np.save(tmp_path / "f.npy", rng.normal(size=(6, 8))[labels] + 0.1 * rng.normal(size=(120, 8)))
    (tmp_path / "items.csv").write_text("id,label\n" + "\n".join(f"{at},{label}" for at, label in enumerate(labels)))
    files = ["--features", str(tmp_path / "f.npy"), "--items", str(tmp_path / "items.csv")]
    cli.main(["import", "one", *files, "--runs-root", str(tmp_path)])
    printed, bars = capsys.readouterr()
    assert "unseen    euclidean   100.0" in printed and "pddm " not in printed
    assert "mine quadruplets" in bars and "refit" not in bars, "nothing is trained"
    cli.main(["runs", "--runs-root", str(tmp_path)])
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("one "))
    assert row.split()[:4] == ["one", "finished", "done", "imported:items.csv"]
    assert "--train adds PDDM and Mahalanobis" in printed and "pddm-lab dashboard one" in printed
    for source in (files, ["--model", "no_such:model", "--dataset", "digits"]):  # before the model is loaded
        with pytest.raises(SystemExit):
            cli.main(["import", "one", *source, "--runs-root", str(tmp_path)])
        again = capsys.readouterr().err
        assert "exists already: choose another NAME, or remove it: `pddm-lab runs remove one`." in again
        assert "resume" not in again and "--run-name" not in again
    cli.main(["recognise", "one", "--episodes", "2", "--runs-root", str(tmp_path)])
    assert "nearest class mean" in capsys.readouterr().out
    for words in (["export", "one"], ["transfer", "one", "--to", "digits"]):
        with pytest.raises(SystemExit):
            cli.main([*words, "--runs-root", str(tmp_path)])
        assert "no network of its own" in capsys.readouterr().err
    cli.main(["open-set", "one", "--draws", "1", "--csv", str(tmp_path / "open.csv"), "--runs-root", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "unseen: 3 classes in the range" in printed and "AUROC" in printed and (tmp_path / "open.csv").is_file()


def test_without_labels_no_queries_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(finish, "start_map", NoMaps)
    np.save(tmp_path / "f.npy", np.random.default_rng(0).normal(size=(30, 8)))
    values = np.load(tmp_path / "f.npy")
    values[7] = values[2]
    np.save(tmp_path / "f.npy", values)
    (tmp_path / "items.csv").write_text("id\n" + "\n".join(map(str, range(30))))
    files = ["--features", str(tmp_path / "f.npy"), "--items", str(tmp_path / "items.csv")]
    report = tmp_path / "report.csv"
    cli.main(["import", "bare", *files, "--report", str(report), "--runs-root", str(tmp_path)])
    captured = capsys.readouterr()
    assert "Nothing was measured, since its items have no labels" in captured.out and "R@1 %" not in captured.out
    assert f"What was done with each of 30 files is in {report}." in captured.out
    with pytest.raises(SystemExit):
        cli.main(["import", "other", *files, "--report", str(tmp_path), "--runs-root", str(tmp_path)])
    assert "can't be written" in capsys.readouterr().err and not (tmp_path / "other").exists()
    lines = report.read_text().splitlines()
    assert lines[0] == "file,item,done,why" and len(lines) == 31
    assert all("imported,without its picture: " in line for line in lines[1:])
    assert [line.partition(",")[0] for line in lines if "the same features as 2" in line] == ["7"]
    with pytest.raises(SystemExit):
        cli.main(["gallery", "queries", "bare", "--runs-root", str(tmp_path)])
    assert "have no labels" in capsys.readouterr().err
