from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mining import mined_frame, write

from pddm_lab.errors import ConfigError
from pddm_lab.runs.log import EUCLIDEAN, QUADRUPLETS
from pddm_lab.runs.quadruplets import ORDERS, VALUES, Mined


@pytest.fixture
def frame() -> pd.DataFrame:
    return pd.concat([mined_frame(5, "select", seed=1), mined_frame(6)], ignore_index=True)


def distinct(frame: pd.DataFrame) -> tuple[pd.DataFrame, list[bool]]:
    """The first row of each two mirrored ones, and whether it has a second."""
    keys = [(row.phase, row.step, *sorted([(row.i, row.k), (row.j, row.l)])) for row in frame.itertuples()]
    firsts = [at for at, key in enumerate(keys) if key not in keys[:at]]
    return frame.iloc[firsts], [keys.count(keys[at]) == 2 for at in firsts]


def test_mirror_images_are_one_quadruplet_that_stands_for_both(tmp_path: Path, frame: pd.DataFrame) -> None:
    mined = Mined.of(write(tmp_path, frame))
    expected, both = distinct(frame)
    assert 0 < sum(both) < len(both) == len(mined) < len(frame)
    assert mined.both.tolist() == both
    again = mined.frame(np.arange(len(mined)))
    assert list(again) and set(again) == {*QUADRUPLETS, *EUCLIDEAN}
    for name in again:
        assert again[name].tolist() == expected[name].tolist(), name
    assert mined.phases == ["refit", "select"] and mined.span("select") == (1, 5)
    assert [mined.classes[c] for c in mined.class_of] == [item.split("/")[0] for item in mined.items]
    assert not mined.one_a_batch
    assert Mined.of(write(tmp_path / "batch", mined_frame(strategy="batch"))).one_a_batch


CHOICES = [
    {"phase": "select"},
    {"phase": "refit", "steps": (2, 4)},
    {"phase": "refit", "own": ["plum", "pear"], "others": ["quince"]},
    {"phase": "refit", "own": ["nothing"]},
    {"phase": "refit", "only": "violated"},
    {"phase": "refit", "only": "differs", "steps": (1, 5)},
    {"phase": "refit", "item": "apple/2.png"},
    {"phase": "refit", "item": "apple/9.png"},
]


@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_quadruplets_are_picked(tmp_path: Path, frame: pd.DataFrame, choice: dict) -> None:
    mined = Mined.of(write(tmp_path, frame))
    low, high = choice.get("steps", (0, 99))
    slow = []
    for at, row in enumerate(distinct(frame)[0].itertuples()):
        keep = row.phase == choice["phase"] and low <= row.step <= high
        keep &= not choice.get("own") or row.class_i in choice["own"]
        keep &= not choice.get("others") or row.class_k in choice["others"] or row.class_l in choice["others"]
        keep &= not choice.get("item") or choice["item"] in (row.i, row.j)
        keep &= choice.get("only") != "violated" or max(row.slack_ik, row.slack_jl) > 0
        keep &= choice.get("only") != "differs" or row.j != row.e_j or row.k != row.e_k
        slow += [at] if keep else []
    assert mined.pick(**choice).tolist() == slow
    with pytest.raises(ConfigError, match="'differs'"):
        mined.pick("refit", only="odd")


@pytest.mark.parametrize("order", list(ORDERS))
def test_quadruplets_are_ordered(tmp_path: Path, frame: pd.DataFrame, order: str) -> None:
    mined = Mined.of(write(tmp_path, frame))
    rows = mined.pick("refit", (2, 5))
    ordered = mined.ordered(rows, order)
    assert sorted(ordered) == rows.tolist()
    chosen = mined.frame(ordered)
    value = {
        "violation": -chosen[["slack_ik", "slack_jl"]].max(axis=1), "positive": chosen["s_ij"],
        "latest": -chosen["step"], "earliest": chosen["step"],
    }[order]  # fmt: skip
    assert value.is_monotonic_increasing


def test_the_most_violated_quadruplets_hold_each_positive_pair_once(tmp_path: Path, frame: pd.DataFrame) -> None:
    mined = Mined.of(write(tmp_path, frame))
    rows = mined.pick("refit")
    ordered = mined.frame(mined.ordered(rows, "violation"))
    seen: list[frozenset[str]] = []
    expected = []
    for number, pair in enumerate(map(frozenset, zip(ordered["i"], ordered["j"], strict=True))):
        if pair not in seen:
            seen.append(pair)
            expected.append(number)
    assert 3 < len(expected) < len(rows)
    pd.testing.assert_frame_equal(
        mined.most_violated(rows, 3).reset_index(drop=True), ordered.iloc[expected[:3]].reset_index(drop=True)
    )
    assert len(mined.most_violated(rows, len(rows))) == len(expected)


@pytest.mark.parametrize("strategy", ["anchor", "batch"])
def test_euclidean_mining_is_the_same_where_it_takes_the_same_items(tmp_path: Path, strategy: str) -> None:
    frame = distinct(mined_frame(30, strategy=strategy))[0]
    mined = Mined.of(write(tmp_path, frame))
    for end in "jk":
        assert mined.same(end).tolist() == [
            row.i == row.e_i and row[end] == row[f"e_{end}"] for _, row in frame.iterrows()
        ]
    assert mined.same("k").any() or strategy == "batch"


def test_a_log_from_before_alternatives_were_kept_has_none(tmp_path: Path, frame: pd.DataFrame) -> None:
    older = frame.assign(**dict.fromkeys(EUCLIDEAN))
    mined = Mined.of(write(tmp_path, older))
    assert not mined.has_euclidean and not mined.same("k").any()
    assert set(mined.frame(np.arange(3))) == set(QUADRUPLETS)
    assert len(mined.pick("refit", only="differs")) == 0
    assert set(mined.values) >= set(VALUES)


def test_an_empty_log_is_no_quadruplet(tmp_path: Path, frame: pd.DataFrame) -> None:
    mined = Mined.of(write(tmp_path, frame.iloc[:0]))
    assert len(mined) == 0 and mined.phases == []
