"""A run's similarity on local structure: local.safetensors, with what makes pretrained features of new pictures.

The file holds the similarity's weights and, where it uses them, the mean and the directions of the pretrained features
p (`PretrainedPart`). p of a picture then follows from the trunk's features, which are computed for x anyway.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from pddm_lab.errors import RunError
from pddm_lab.files import check, read_tensors, write_tensors
from pddm_lab.local.unit import LocalStructure
from pddm_lab.model.embedding import signed_power
from pddm_lab.model.familiarity import PretrainedPart
from pddm_lab.runs.run import Run
from pddm_lab.runs.schema import LocalContent

FILE = "local.safetensors"
_PRETRAINED = "pretrained."


class RunLocal(NamedTuple):
    """A run's similarity on local structure, on the CPU."""

    structure: LocalStructure
    part: PretrainedPart | None
    """None: it uses no pretrained features."""
    power: float
    """Of the trunk's features, see `signed_power`."""

    @torch.no_grad()
    def pretrained(self, pooled: Float[Tensor, "n trunk_dim"]) -> Float[Tensor, "n pretrained"] | None:
        """p of the trunk's pooled features; None if the similarity uses none."""
        return None if self.part is None else self.part(signed_power(pooled.cpu(), self.power))

    def save(self, run: Run) -> None:
        """Write the run's file, and what was chosen into run.json."""
        tensors = dict(self.structure.state_dict())
        if self.part is not None:
            tensors |= {_PRETRAINED + name: value for name, value in self.part.state_dict().items()}
        chosen = {"weight": self.structure.weight, "passes": 1 if self.structure.second is None else 2}
        write_tensors(run.path / FILE, tensors, chosen)
        run.update(local=chosen)


def load_local(run: Run) -> RunLocal | None:
    """A run's similarity on local structure; None if it has none.

    Raises:
        RunError: its file is missing, damaged, or of another run.
    """
    if not run.info.get("local"):
        return None
    file, hint = run.path / FILE, run.hint()
    state, chosen = read_tensors(file, hint)
    check(LocalContent, chosen, file, hint)
    mean = state.get("whitening.mean")
    # Shapes are compared before anything is allocated: a foreign run's configuration could ask for any memory.
    if mean is None or mean.shape != (run.config.dim,):
        raise RunError(f"{file} is of another run: expected features of {run.config.dim} dimensions. {hint}")
    if not all(tensor.isfinite().all() for tensor in state.values()):
        raise RunError(f"{file} is damaged: expected finite weights, got NaN or infinity. {hint}")
    weight, of_part = float(chosen["weight"]), {}
    for name in [name for name in state if name.startswith(_PRETRAINED)]:
        of_part[name.removeprefix(_PRETRAINED)] = state.pop(name)
    structure, part = LocalStructure(run.config.dim, weight > 0, weight, chosen["passes"]), None
    try:
        structure.load_state_dict(state)
        if weight:
            part = PretrainedPart(len(of_part["mean"]))
            part.load_state_dict(of_part)
    except (RuntimeError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise RunError(f"{file} was not written by this lab: {reason}. {hint}") from error
    return RunLocal(structure.eval().requires_grad_(False), part, run.config.pool_power)
