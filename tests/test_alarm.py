"""The alarm over all signals and windows: its rate of false alarms, its power, and what it takes."""

from __future__ import annotations

import numpy as np
import pytest

from pddm_lab.change import alarm as alarms
from pddm_lab.change.alarm import Alarm, fewest_queries, first_alarm, spans_of
from pddm_lab.change.signals import Stream
from pddm_lab.change.two_samples import ks
from pddm_lab.errors import DataError

CLASSES = 12


def queries(count: int, seed: int, farther: float = 0.0) -> Stream:
    """Queries of a range of classes, `farther` from it in standard deviations."""
    draw = np.random.default_rng(seed)
    classes = draw.integers(CLASSES, size=count)
    space = np.random.default_rng(99).normal(size=(CLASSES, 6))[classes] + draw.normal(size=(count, 6))
    distance = draw.normal(size=count) + farther
    return Stream({"distance": distance, "score": draw.normal(size=count) - distance}, space, classes)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams of 120 queries, to be quick."""
    monkeypatch.setattr(alarms, "LENGTH", 120)


def fitted(pool: int = 300) -> Alarm:
    return Alarm.fit(queries(pool, 1), window=40, streams=150)


def test_windows_grow_and_then_slide() -> None:
    assert spans_of(120, 100).tolist() == [[0, end] for end in range(30, 101, 10)] + [[10, 110], [20, 120]]
    assert fewest_queries(100) == 30
    assert spans_of(29, 100).tolist() == []


def test_streams_without_drift_rarely_raise_an_alarm(short: None) -> None:
    alarm = fitted(600)
    raised = [first_alarm(alarm.ratios(queries(120, 1000 + seed))) is not None for seed in range(120)]
    assert sum(raised) <= 14, "5 % of 120 are 6, and 14 is three deviations more"


@pytest.mark.parametrize(
    ("signal", "changed"),
    [
        ("distance", lambda own: Stream({"distance": own.signals["distance"] + 2}, own.space, own.classes)),
        ("classes", lambda own: Stream(own.signals, own.space, np.minimum(own.classes, 3))),
        ("features", lambda own: Stream(own.signals, own.space * [1, 1, 1, 1, 1, -1] + 1, own.classes)),
    ],
)  # fmt: skip
def test_each_signal_sees_its_own_change(short: None, signal: str, changed) -> None:
    alarm = fitted()
    alarm.reference.signals.pop("score")  # it depends on the distance
    ratios = alarm.ratios(changed(queries(120, 7)))
    assert ratios[signal].max() > 1
    assert all(of.max() < 1 for name, of in ratios.items() if name != signal)


def test_a_change_in_the_middle_is_seen_soon_after_it(short: None) -> None:
    alarm, late = fitted(), []
    for seed in range(20):
        stream = queries(60, 50 + seed).then(queries(60, 500 + seed, farther=2.0))
        first = first_alarm(alarm.ratios(stream))
        assert first is not None
        late.append(spans_of(120, 40)[first, 1] - 60)
    assert 0 < np.median(late) <= 20


def test_a_ratio_is_the_statistic_over_its_threshold(short: None) -> None:
    alarm, stream = fitted(), queries(120, 3)
    spans, own = spans_of(120, 40), alarm.reference.signals["distance"]
    expected = ks(own, stream.signals["distance"], spans) / alarm.usual["distance"] / alarm.threshold
    np.testing.assert_allclose(alarm.ratios(stream)["distance"], expected)
    assert len(alarm.reference) == 180, "all but as many as a stream has"
    part = alarm.ratios(stream.take(np.arange(70)))
    assert len(part["features"]) == len(spans_of(70, 40))


def test_a_signal_with_one_value_is_left_out(short: None) -> None:
    own = queries(80, 1)
    constant = Stream({"distance": np.ones(80), "score": own.signals["score"]}, own.space, np.zeros(80, int))
    assert set(Alarm.fit(constant, window=40, streams=5).ratios(own)) == {"score", "features"}


def test_too_few_held_out_queries_are_an_error() -> None:
    with pytest.raises(DataError, match=r"expected 40 or more .* got 39\. .*gallery add"):
        Alarm.fit(queries(39, 1))
