"""drift.json in a run's folder: what `pddm-lab drift` last measured. And a line of a log of scores."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from pddm_lab.change.signals import SIGNALS
from pddm_lab.files import Content, Count, Text, read_json, write_file
from pddm_lab.runs.run import Run
from pddm_lab.runs.schema import is_time

FILE = "drift.json"
_Share = Annotated[float, Field(ge=0, le=1)]
_BASE64 = r"^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"
_Name = Literal[tuple(SIGNALS)]  # type: ignore[valid-type]


class ScoreContent(Content):
    """A line of a log of scores, the oldest first: an object for each query that a service has searched.

    More fields than these are passed over. `class_name` is used if every line has it.
    """

    distance: Annotated[float, Field(ge=0, strict=False)]
    """D to the nearest item of the catalogue."""
    margin: Annotated[float, Field(strict=False)]
    """D to the nearest item of another class minus D to the nearest item."""
    probability: Annotated[_Share, Field(strict=False)]
    """That the class of the nearest item is right."""
    in_range: bool
    """Whether the query was taken to be in the range."""
    class_name: Text = ""
    """Of the nearest item."""
    run: Text = ""
    """Whose model scored, where a service followed the updates of a run; scores of two models don't compare."""


class SignalContent(Content):
    """A signal, then (the reference) and now (the last window)."""

    ratios: list[float]
    """Statistic over its threshold, of each window; above 1 is an alarm."""
    then: float | None = None
    """Median; a signal of a whole window has none."""
    now: float | None = None
    edges: list[float] = Field(default_factory=list)
    """Of the bins."""
    share_then: list[_Share] = Field(default_factory=list)
    """Share of the queries in each bin."""
    share_now: list[_Share] = Field(default_factory=list)


class ClassContent(Content):
    """A class that clearly gains or loses queries."""

    name: Text
    then: _Share
    now: _Share


class FarContent(Content):
    """A query far from the range."""

    name: Text
    """Path in the folder."""
    class_name: Text
    """Of the nearest item; empty without labels."""
    distance: float
    thumb: Annotated[str, Field(pattern=_BASE64)]
    """JPEG, base64."""


class DriftContent(Content):
    """drift.json."""

    format: Literal[1]
    created: Annotated[str, AfterValidator(is_time)]
    source: Text
    """The folder or the log."""
    kind: Literal["pictures", "log"]
    is_ordered: bool
    """Whether the queries have an order, so that it matters which is an alarm's."""
    queries: Count
    """That were looked at."""
    skipped: Count
    """Pictures that couldn't be read, and queries before the last `length`."""
    window: Annotated[int, Field(ge=1)]
    reference: Annotated[int, Field(ge=1)]
    """Held-out queries."""
    level: _Share
    length: Count
    """Share of streams of so many own queries that raise an alarm."""
    ends: Annotated[list[Count], Field(min_length=1)]
    """Queries after which each window ends."""
    signals: Annotated[dict[_Name, SignalContent], Field(min_length=1)]  # type: ignore[valid-type]
    outside_then: _Share | None
    """Share of the queries that are not in the range; None if nothing is decided."""
    outside_now: _Share | None
    classes: list[ClassContent]
    farthest: list[FarContent]

    @model_validator(mode="after")
    def _fits(self) -> DriftContent:
        for name, of in self.signals.items():
            if len(of.ratios) != len(self.ends):
                raise ValueError(f"expected {len(self.ends)} ratios of {name}, got {len(of.ratios)}")
            bins = max(len(of.edges) - 1, 0)
            if not len(of.share_then) == len(of.share_now) == bins or bool(bins) == (of.then is None or of.now is None):
                raise ValueError(f"expected medians and the shares of each bin of {name}")
        return self


def write_drift(run: Run, content: DriftContent) -> None:
    """Keep a result with the run; it replaces the last one."""
    write_file(run.path / FILE, content.model_dump_json())


def read_drift(run: Run) -> DriftContent | None:
    """The last result of a run; None if there is none.

    Raises:
        RunError: the file is damaged or was not written by this lab.
    """
    file, hint = run.path / FILE, f"Measure it again: `pddm-lab drift {run.name} --queries FOLDER`."
    if not file.is_file():
        return None
    return DriftContent.model_validate(read_json(file, DriftContent, f"{file} is missing. {hint}", hint))
