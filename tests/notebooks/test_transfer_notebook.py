"""Transfer: every direction on tiny data in the official layouts; the numbers are saved in a study."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from pddm_lab.study.cells import table

FIGURE = "application/vnd.plotly.v1+json"


def make_grocery(data_root: Path, classes: int = 8) -> None:
    """Noise in one colour per class, with coarse classes of four fine ones and an iconic picture of each."""
    root = data_root / "GroceryStoreDataset" / "dataset"
    (root / "icons").mkdir(parents=True)
    rng = np.random.default_rng(0)

    def picture(c: int) -> Image.Image:
        pixels = rng.integers(0, 120, (32, 32, 3)) + np.array([c % 2, c // 2 % 2, c // 4 % 2]) * 120
        return Image.fromarray(pixels.astype(np.uint8))

    lines = ["Class,ID,Coarse,Coarse ID,Iconic,Description"]
    for c in range(classes):
        lines.append(f"Fruit-{c},{c},Kind-{c // 4},{c // 4},/icons/{c}.png,/icons/{c}.txt")
        picture(c).save(root / "icons" / f"{c}.png")
    (root / "classes.csv").write_text("\n".join(lines) + "\n")
    for split, count in {"train": 4, "val": 1, "test": 2}.items():
        paths = [(f"{split}/Fruit-{c}_{n}.png", c) for c in range(classes) for n in range(count)]
        (root / split).mkdir()
        for path, c in paths:
            picture(c).save(root / path)
        (root / f"{split}.txt").write_text("".join(f"{path}, {c}, {c // 4}\n" for path, c in paths))


def test_every_direction(execute, few_digits: Path, tmp_path: Path) -> None:
    make_grocery(tmp_path / "data")
    notebook = execute(
        "transfer", source=f"folder:{few_digits}", target="grocery", data_root=str(tmp_path / "data"),
        runs_root=str(tmp_path / "runs"), seeds=2, steps=2, image_size=32, views=1, study="beyond",
    )  # fmt: skip
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    assert len([output for output in outputs if FIGURE in output.get("data", {})]) == 4
    text = "\n".join(output.get("data", {}).get("text/markdown", "") for output in outputs)
    assert "have 4 fine and 2 coarse classes" in text
    assert "Unseen classes: 8 photos, one picture of 4 classes" in text
    assert "Saved in the study `beyond`; its tables" in text
    kept = table(tmp_path / "runs" / "studies" / "beyond")
    assert set(kept["part"]) == {"transfer"}
    assert set(kept["dataset"]) == {"grocery", "grocery, iconic", f"folder:{few_digits}"}
    assert set(kept["method"]) == {"pretrained", "grocery", "grocery, coarse classes", f"folder:{few_digits}"}
    assert set(kept["seed"]) == {-1, 0, 1}
    page = (tmp_path / "runs" / "studies" / "beyond" / "tables" / "transfer.md").read_text()
    assert "| unseen | grocery, coarse classes | PDDM | 2 |" in page
