"""What run.json and last.ckpt must hold, in every format so far. The configuration checks itself (config.py).

Format 1 grew until 2026-11-29: metrics of the pretrained features, shares, whitening and local structure came with it,
and a run of it may lack any of them. Format 2 has the catalogue, its changes and imported features, format 3 the data
set's corrections, format 4 augmented views. What a run holds on disk is a format, galleries included: a change of it
takes the next number, and the tests read a small run of each.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from pddm_lab.files import Content, Count, Text
from pddm_lab.runs.log import PHASES

FORMAT = 4
"""Number of the format that is written; runs of a larger one can't be read."""
STATUSES = ("running", "finished", "failed", "stopped")

_Seconds = Annotated[float, Field(ge=0, le=1e11)]
"""A duration or a time since the epoch."""


def is_time(text: str) -> str:
    """The text, if it is a time with its zone."""
    time = datetime.fromisoformat(text)
    if time.tzinfo is None or not 1970 <= time.year < 9000:
        raise ValueError("expected a time with its zone, between the years 1970 and 9000")
    return text


class CorrectionsContent(Content):
    """The corrections that a run was trained with; its own copy of them lies beside run.json."""

    sha256: Text
    items: Count


class DatasetContent(Content):
    """The data set that a run was trained on."""

    name: Text
    fingerprint: Text
    items: Count
    classes: Count
    licence: Text = ""
    attribution: Text = ""
    root: Text = ""
    labelled: bool = True
    model: Text = ""
    """That made imported features, if it is known."""
    corrections: CorrectionsContent | None = None
    skipped: list[dict[str, Text]] | Count | None = None
    """The images that could not be read; their number in early runs."""


class ShareContent(Content):
    """How much of a part's training a run uses, chosen on held-out classes (training/shares.py)."""

    share: Annotated[float, Field(ge=0, le=1)]
    map_at_r: Annotated[dict[Text, float], Field(alias="map@r")]
    """Share -> MAP@R on the held-out classes."""


class LocalContent(Content):
    """The similarity on local structure, as it was fitted (local/unit.py)."""

    weight: Annotated[float, Field(ge=0, le=10)]
    """w of the pretrained features, chosen on held-out classes."""
    passes: Literal[1, 2]


class UpdatedContent(Content):
    """How an update made the run (update/)."""

    source: Text
    """The run that it went on from."""
    first: Text
    """The run that the updates began with, in whose folder it says which of them serves."""
    number: Count
    new_items: Count
    new_classes: Count
    replay: Count
    """Old items that trained again."""
    replay_classes: Count
    steps: Count
    near: Annotated[float, Field(ge=0)]
    """Weight of what kept its features near the old ones."""
    comparable: list[Text]
    """Stamps of other models whose vectors can be compared with its own."""
    recall: dict[Text, dict[Text, dict[Text, float]]]
    """before and after -> saved and new queries -> similarity -> R@1."""
    better: bool


class RunContent(Content):
    """run.json."""

    format: Literal[1, 2, 3, 4]
    name: Text
    created: Annotated[str, AfterValidator(is_time)]
    config: dict[str, Any]
    dataset: DatasetContent
    status: Literal[STATUSES]  # type: ignore[valid-type]
    metrics: dict[Text, dict[Text, dict[Text, float | None]]]
    """protocol -> similarity -> metric -> value."""
    pretrained: dict[Text, dict[Text, float | None]] = Field(default_factory=dict)
    """protocol -> metric -> value of the trunk's own features before training, ranked by D; earlier runs lack it."""
    versions: dict[Text, Text] = Field(default_factory=dict)
    seed: int = 0
    device: Text
    precision: Text
    reason: Text = ""
    phase: Literal[PHASES]  # type: ignore[valid-type]
    step: Count
    steps_total: Count
    seconds: _Seconds = 0.0
    best_step: Count | None
    shares: dict[Literal["head", "unit"], ShareContent] = Field(default_factory=dict)
    local: LocalContent | None = None
    updated: UpdatedContent | None = None
    heartbeat: _Seconds = 0.0
    pid: Annotated[int, Field(ge=0, lt=2**31)] = 0
    process_started: _Seconds = 0.0
    host: Text = ""
    warnings: list[Text] = Field(default_factory=list)


class CheckpointContent(Content):
    """last.ckpt. Shapes are compared with the model's where it is loaded (training/loop.py)."""

    phase: Literal["select", "refit"]
    step: Count
    best_step: Count
    head_share: Annotated[float, Field(ge=0, le=1)] = 1.0
    unit_share: Annotated[float, Field(ge=0, le=1)] = 1.0
    best_value: Annotated[float, Field(allow_inf_nan=True)]
    """Minus infinity before the first measurement."""
    error: float
    model: dict[str, Any]
    kept: dict[str, Any]
    optimizer: dict[str, Any]
