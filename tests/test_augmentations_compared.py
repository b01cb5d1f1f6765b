"""The comparison of augmentations in small: cells, shares by slow loops, the verdict, and the command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from digit_pictures import write_digits

from pddm_lab import cli
from pddm_lab.errors import ConfigError
from pddm_lab.local import episodes, fit
from pddm_lab.robustness import augmentations, frozen
from pddm_lab.robustness.augmentation_table import COLUMNS, augmentation_table, verdicts
from pddm_lab.robustness.augmentations import run_augmentations
from pddm_lab.study.cells import Study

NAMES = ("contrast", "occlusion", "fog")


@pytest.fixture(
    scope="module", params=[(), pytest.param(("crops", "mixed"), marks=pytest.mark.slow)], ids=["d", "local"]
)
def compared(
    data_root: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> tuple[Study, str, list[str]]:
    """A study of two augmentations on a few digits, its data set, and the words of the command; by D, or with L too."""
    root = tmp_path_factory.mktemp("augmentations")
    dataset = f"folder:{write_digits(root / 'digits', 10)}"
    base = {"resize": 32, "image_size": 32, "views": 2, "dim": 8, "classes_per_batch": 3, "runs_root": str(root)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit, "STEPS", 10)
        patch.setattr(episodes, "PAIRS", 1000)
        patch.setattr(augmentations, "WITH_LOCAL", request.param)
        for name, value in (("QUERIES", 12), ("ITEMS", 40), ("STRENGTHS", (2, 5))):
            patch.setattr(augmentations, name, value)
        patch.setattr(frozen, "CORRUPTIONS", NAMES)
        study = Study.create("small", str(root))
        options: dict[str, Any] = {"base": base, "folds": 2, "seeds": 1, "steps": 4, "progress": False}
        outcome = run_augmentations(study, "augmentation", [dataset], ["crops", "mixed"], **options)
        assert not outcome.failures and outcome.computed == 2
        again = run_augmentations(study, "augmentation", [dataset], ["crops", "mixed"], **options)
        assert again.present == 2 and not again.computed, "finished cells are kept"
    return study, dataset, ["--name", "small", "--part", "augmentation", "--runs-root", str(root), "--tables-only"]


def test_a_cell_holds_all_that_is_measured(compared) -> None:
    cells = {cell["method"]: cell for cell in compared[0].cells("augmentation")}
    assert set(cells) == {"crops", "mixed"}
    for cell in cells.values():
        assert set(cell["metrics"]) == {
            "unseen",
            "known",
            "clean 0",
            *(f"{one} {at}" for one in NAMES for at in (2, 5)),
        }
        for similarities in cell["metrics"].values():
            assert set(similarities) - {"local"} == {"euclidean", "pretrained"}
            assert all(0 <= value <= 1 for of in similarities.values() for value in of.values())
        for name, hits in cell["queries"]["hits"].items():
            assert np.mean(hits["clean"]) == pytest.approx(cell["metrics"]["clean 0"][name]["recall@1"])
            means = [cell["metrics"][f"{one} {at}"][name]["recall@1"] for one in NAMES for at in (2, 5)]
            assert np.mean(hits["corrupted"]) == pytest.approx(np.mean(means), abs=1e-4)
    before = [cell["metrics"]["fog 5"]["pretrained"] for cell in cells.values()]
    assert before[0] == before[1], "the frozen trunk's features don't depend on the augmentation"


def test_the_table_equals_slow_loops(compared) -> None:
    study, dataset, _ = compared
    table = augmentation_table(study, "augmentation")
    assert tuple(table.columns) == COLUMNS and set(table["dataset"]) == {dataset}
    of = {cell["method"]: cell["metrics"] for cell in study.cells("augmentation")}

    def error(augmentation: str, similarity: str, names: tuple[str, ...]) -> float:
        return float(
            np.mean([1 - of[augmentation][f"{one} {at}"][similarity]["recall@1"] for one in names for at in (2, 5)])
        )

    rows = table.set_index(["similarity", "augmentation", "condition"])
    groups = {
        "corrupted": NAMES,
        "light": ("contrast",),
        "geometry": ("occlusion",),
        "foreign": ("fog",),
        "fog": ("fog",),
    }
    for similarity in {"euclidean", "local"} & set(table["similarity"]):
        clean = 1 - of["crops"]["clean 0"][similarity]["recall@1"]
        for condition, names in groups.items():
            row = rows.loc[(similarity, "mixed", condition)]
            own, crops = (error(one, similarity, names) for one in ("mixed", "crops"))
            assert row["recall@1"] == pytest.approx(1 - own)
            if crops > clean:
                assert row["removed"] == pytest.approx((crops - own) / (crops - clean))
        ratios = [error("mixed", similarity, (one,)) / error("mixed", "pretrained", (one,)) for one in NAMES]
        assert rows.loc[(similarity, "mixed", "corrupted"), "mce"] == pytest.approx(np.mean(ratios))
        assert rows.loc[(similarity, "crops", "corrupted"), "mce of crops"] == pytest.approx(1)
    assert ("blur-noise" not in set(table["condition"])) and ("pretrained", "mixed", "fog") not in rows.index


def test_what_pays_costs_little_and_removes_much() -> None:
    rows = []
    for augmentation, lost, removed in (
        ("crops", 0, 0),
        ("light", 0.004, 0.25),
        ("geometry", 0.006, 0.4),
        ("mixed", -0.1, 0.1),
    ):
        for condition, value in (("unseen", 0.5 - lost), ("known", 0.7), ("corrupted", 0.3)):
            of = {"dataset": "d", "similarity": "euclidean", "augmentation": augmentation, "condition": condition}
            rows.append({**of, "map@r": value, "removed": removed})
    judged = verdicts(pd.DataFrame(rows)).set_index("augmentation")
    assert judged["pays"].to_dict() == {"light": True, "geometry": False, "mixed": False}
    assert judged.loc["geometry", "lost"] == pytest.approx(0.006) and judged.loc["mixed", "lost"] == 0


def test_the_command_writes_the_table(compared, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study, dataset, words = compared
    cli.main(["compare", *words, "--out", str(tmp_path)])
    out = capsys.readouterr().out
    assert f"{dataset}, by euclidean: R@1 / MAP@R and, of the error that corruptions add, the share removed" in out
    assert out.strip().endswith("augmentation.csv")
    assert len(pd.read_csv(tmp_path / "augmentation.csv")) == len(augmentation_table(study, "augmentation"))


def test_an_unknown_augmentation_is_named(compared) -> None:
    with pytest.raises(ConfigError, match="Unknown augmentation 'colour'"):
        run_augmentations(compared[0], "augmentation", [compared[1]], ["colour"], base={})
