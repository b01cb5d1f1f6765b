"""What a study trains is what a run trains: from the same first weights both come to the same last ones."""

from __future__ import annotations

import torch

from pddm_lab.model.embedding import MetricModel
from pddm_lab.runs.run import Run
from pddm_lab.study.fit import Fitting
from pddm_lab.study.material import Material
from pddm_lab.study.methods import METHODS


def test_a_study_trains_what_a_run_trains(small_run: Run) -> None:
    config = small_run.config
    material = Material.load(config, folds=2)
    settings = {"lr": config.lr, "embedding_weight": config.embedding_weight}
    fitting = Fitting(material, METHODS["pddm"], settings, material.dataset.train, config.steps, config.seed)
    torch.manual_seed(config.seed)
    first = {name: value for name, value in MetricModel(config).state_dict().items() if "trunk" not in name}
    assert fitting.model
    for model in (fitting.model, fitting._objective.model):
        model.load_state_dict(first, strict=False)
    fitting.advance(config.steps)
    kept, last = small_run.model_state(), fitting.model.state_dict()
    for name, before in first.items():
        assert torch.allclose(last[name], kept[name], atol=1e-6), name
        assert name.startswith("learned") or not torch.equal(last[name], before)
