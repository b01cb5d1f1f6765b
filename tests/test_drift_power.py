"""How false alarms and delays are measured, and pictures of worse quality."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pddm_lab.change import drift_power
from pddm_lab.change.alarm import spans_of
from pddm_lab.change.signals import Stream
from pddm_lab.change.worse_pictures import AMOUNTS, WORSE, worsen
from pddm_lab.errors import ConfigError, DataError
from pddm_lab.runs.run import Run


def numbered(first: int, count: int) -> Stream:
    """Queries whose distances are their numbers."""
    numbers = np.arange(first, first + count, dtype=float)
    return Stream({"distance": numbers}, numbers[:, None])


class Ears:
    """Raises an alarm in the first window that ends after a given query, and keeps what it hears."""

    window = 40

    def __init__(self, at: float) -> None:
        self.at = at

    def ratios(self, stream: Stream) -> dict[str, np.ndarray]:
        self.stream = stream.signals["distance"]
        ends = spans_of(len(stream), self.window)[:, 1]
        return {"distance": np.where(ends > self.at, 2.0, 0.5), "features": np.where(ends > self.at, 3.0, 0.5)}


@pytest.mark.parametrize(("at", "expected"), [(310, 12.0), (250, np.nan), (np.inf, np.inf)])
def test_the_delay_counts_from_the_change_and_no_query_comes_twice(at: float, expected: float) -> None:
    own, new, ears = numbered(0, 900), np.arange(100, 700), Ears(at)
    worse = drift_power._Change("blur", "much", numbered(1000, 400), np.arange(0, 400))
    row = drift_power._with_drift(ears, own, new, worse, np.random.default_rng(0))  # type: ignore[arg-type]
    before, later = ears.stream[:300], ears.stream[300:] - 1000
    assert len(later) == drift_power.SOON and len({*before, *later}) == 500
    assert set(before) | set(later) <= set(new), "the reference has none of them"
    np.testing.assert_equal(row["delay"], expected)
    np.testing.assert_equal(row["alarm"], {12.0: 1.0, np.inf: 0.0}.get(expected, np.nan))
    assert row["first"] == ("features" if expected == 12.0 else "")


def test_the_summary_is_over_splits() -> None:
    rows = pd.DataFrame({
        "stream": "blur", "amount": "much", "split": [0, 0, 1, 1, 1], "alarm": [1.0, 0.0, 1.0, 1.0, np.nan],
        "delay": [20.0, np.inf, 40.0, 60.0, np.nan], "first": ["score", "", "score", "features", ""],
    })  # fmt: skip
    (line,) = drift_power.summary(rows).to_dict("records")
    assert line["streams"] == 4 and line["alarms"] == 0.75 and line["delay"] == 50.0 and line["first"] == "score"
    assert line["low"] == 0.0 and line["high"] == 1.0, "0.75 +- 12.7 * 0.25"


def test_a_run_is_measured(local_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drift_power, "WORSE", {"darkness": WORSE["darkness"]})
    monkeypatch.setattr(drift_power, "AMOUNTS", ("much",))
    table = drift_power.measure(local_run, [], tmp_path, window=30, splits=2, streams=5, pictures=60, drawn=10)
    assert table["stream"].tolist() == ["own", "darkness"] and table["streams"].tolist()[0] == 10
    assert table["alarms"].between(0, 1).all()
    lost = Run(local_run.path, {**local_run.info, "dataset": {**local_run.info["dataset"], "root": str(tmp_path)}})
    with pytest.raises(DataError, match=r"The pictures of local are missing: expected them in .* Restore that folder"):
        drift_power.measure(lost, [], tmp_path, splits=1, streams=1, drawn=2)


@pytest.mark.parametrize("name", WORSE)
def test_much_is_worse_than_little_and_the_same_each_time(name: str) -> None:
    draw = np.random.default_rng(0)
    image = Image.fromarray(draw.integers(0, 256, (120, 160, 3), dtype=np.uint8)).resize((320, 240))
    before = image.tobytes()
    made = {amount: worsen(image, name, amount, "a/b.png") for amount in AMOUNTS}
    assert image.tobytes() == before
    away = {}
    for amount, worse in made.items():
        assert worse.mode == "RGB" and worse.tobytes() == worsen(image, name, amount, "a/b.png").tobytes()
        reference = image.resize(worse.size)
        away[amount] = np.abs(np.asarray(worse, float) - np.asarray(reference, float)).mean()
    assert 0 < away["little"] < away["much"]


def test_an_unknown_kind_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"Unknown kind 'blurr'\. Did you mean 'blur'"):
        worsen(Image.new("RGB", (8, 8)), "blurr", "much", "a")
