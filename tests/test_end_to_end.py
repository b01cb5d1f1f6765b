"""The study of trained against frozen trunks: its cells are runs, which resume and are not mixed up."""

from typing import Any

import pandas as pd
import pytest
from digit_pictures import write_digits

from pddm_lab.errors import ConfigError
from pddm_lab.panel.end_to_end import PART, run_end_to_end
from pddm_lab.panel.tables import write_panel
from pddm_lab.runs.run import Run
from pddm_lab.study.cells import Study


@pytest.mark.slow
def test_a_trained_trunk_stands_beside_a_frozen_one(digits_config, tmp_path, monkeypatch, no_maps) -> None:
    monkeypatch.setattr("pddm_lab.local.fit.STEPS", 4)
    monkeypatch.setattr("pddm_lab.local.episodes.PAIRS", 3000)
    pictures = f"folder:{write_digits(tmp_path / 'digits', 14)}"
    kept = ("data_root", "resize", "image_size", "classes_per_batch", "images_per_class", "workers", "precision")
    base: dict[str, Any] = {name: getattr(digits_config, name) for name in kept} | {"runs_root": str(tmp_path)}
    study = Study.create("ends", str(tmp_path))
    options: dict[str, Any] = {"base": {**base, "dim": 8, "eval_every": 2, "views": 1}, "seeds": 1, "steps": 2}
    outcome = run_end_to_end(study, [pictures], ["arcface"], **options)
    assert not outcome.failures and outcome.computed == 2
    for trunk in ("trained", "frozen"):
        run = Run.open(tmp_path / f"ends-digits-arcface-{trunk}-0")
        assert run.status == "finished" and run.config.freeze_trunk == (trunk == "frozen")
        cell = study.cell(next(path.stem for path in study.path.glob(f"cells/*arcface__{trunk}*.json")))
        for protocol, ways in cell["metrics"].items():
            assert {"pretrained", "euclidean", "local", "k_reciprocal"} <= set(ways)
            assert ways["local"]["map@r"] == run.info["metrics"][protocol]["local"]["map@r"]
    (table,) = (pd.read_csv(path) for path in write_panel(study, PART, tmp_path))
    assert set(table.recipe) == {"arcface, trained", "arcface, frozen"}
    other = Study.create("ends2", str(tmp_path))
    (tmp_path / "ends-digits-arcface-frozen-0").rename(tmp_path / "ends2-digits-arcface-trained-0")
    failures = run_end_to_end(other, [pictures], ["arcface"], **options).failures
    assert "is another run: expected the study's choices" in next(iter(failures.values()))
    with pytest.raises(ConfigError, match="arcface"):
        run_end_to_end(study, losses=["arcfase"], **options)
