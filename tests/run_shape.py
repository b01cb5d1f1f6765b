"""What a run holds on disk, by names: a change of it is another format of runs."""

from __future__ import annotations

import dataclasses
from typing import Any

from pddm_lab.config import TrainConfig
from pddm_lab.files import Content
from pddm_lab.gallery import history
from pddm_lab.gallery.schema import DISTRIBUTIONS, ITEMS, MAP, ManifestContent
from pddm_lab.runs.log import EUCLIDEAN, METRICS, QUADRUPLETS
from pddm_lab.runs.schema import CheckpointContent, LocalContent, RunContent


def shape() -> dict[str, Any]:
    """Fields of the files of a run and of its galleries, and columns of its tables with their types."""
    contents: tuple[type[Content], ...] = (
        RunContent, LocalContent, CheckpointContent, ManifestContent, history._ChangeContent
    )  # fmt: skip
    fields = {content.__name__: sorted(content.model_fields) for content in contents}
    config = sorted(field.name for field in dataclasses.fields(TrainConfig))
    tables = {"metrics": METRICS, "quadruplets": QUADRUPLETS | EUCLIDEAN, "items": ITEMS, "map": MAP,
              "distributions": DISTRIBUTIONS}  # fmt: skip
    return {"TrainConfig": config, **fields, **tables}
