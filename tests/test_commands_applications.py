"""`pddm-lab recognise`, `transfer` and `class-scaling` on a run of digits."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from pddm_lab import cli


def output(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    cli.main(list(words))
    return capsys.readouterr().out


def test_recognise(digits_run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    csv = tmp_path / "episodes.csv"
    words = ("--shots", "1", "5", "--ways", "3", "--episodes", "2", "--protocol", "unseen", "--csv", str(csv))
    out = output(capsys, "recognise", str(digits_run.path), *words)
    assert "unseen: accuracy in % among 3 classes, mean of 2 episodes" in out
    assert "known" not in out
    assert "1 shot " in out and "5 shots" in out
    assert out.count("nearest class mean") == 2
    assert len(pd.read_csv(csv)) == 2 * 2 * (4 + 5)


def test_transfer(digits_run, few_pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    roots = ("--runs-root", str(digits_run.path.parent))
    out = output(capsys, "transfer", digits_run.name, "--to", f"folder:{few_pictures}", *roots)
    lines = [line.split() for line in out.splitlines()]
    assert [line[:2] for line in lines if line[:1] in (["pretrained"], [digits_run.name])] == [
        ["pretrained", "euclidean"], [digits_run.name, "euclidean"], [digits_run.name, "pddm"],
    ] * 2  # fmt: skip
    assert f"folder:{few_pictures}, unseen classes of its own split" in out


def test_icons_are_grocerys(digits_run, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["transfer", str(digits_run.path), "--to", "digits", "--iconic"])
    assert "--iconic expects --to grocery" in capsys.readouterr().err


def test_where_there_is_no_imagenet(digits_run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["transfer", str(digits_run.path), "--to", "imagenet:zero-shot", "--data-root", str(tmp_path)])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("pddm-lab: ImageNet is not in")


def test_class_scaling(digits_run, capsys: pytest.CaptureFixture[str]) -> None:
    out = output(capsys, "class-scaling", str(digits_run.path), "--most", "100", "--images", "2")
    assert [line.split()[0] for line in out.splitlines() if line[:1].isdigit()] == ["10", "100"]
    assert "14.5 MB" in out and "each on this machine" in out
    with pytest.raises(SystemExit):
        cli.main(["class-scaling", str(digits_run.path), "--most", "5"])


@pytest.fixture(scope="module")
def few_pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four classes of four pictures."""
    import numpy as np
    from PIL import Image

    root, rng = tmp_path_factory.mktemp("few") / "pictures", np.random.default_rng(0)
    for c in range(4):
        (root / f"class-{c}").mkdir(parents=True)
        for number in range(4):
            pixels = rng.integers(0, 120, (32, 32, 3)) + np.array([c % 2, c // 2, 0]) * 120
            Image.fromarray(pixels.astype(np.uint8)).save(root / f"class-{c}" / f"{number}.png")
    return root
