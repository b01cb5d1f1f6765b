from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mining import ITEMS, mined_frame, write

from pddm_lab.analysis import hardness
from pddm_lab.runs.log import EUCLIDEAN
from pddm_lab.runs.quadruplets import Mined


@pytest.mark.parametrize("points", [3, 100])
def test_hardness_through_training_is_that_of_each_group_of_steps(tmp_path: Path, points: int) -> None:
    mined = Mined.of(write(tmp_path, mined_frame(10)))
    rows = mined.pick("refit")
    frame, found = mined.frame(rows), hardness.through_training(mined, rows, points)
    width = 4 if points == 3 else 1
    assert found["width"].unique().tolist() == [width]
    for row, (step, group) in zip(found.to_dict("records"), frame.groupby(frame["step"] // width * width), strict=True):
        assert (row["step"], row["count"]) == (step, len(group))
        assert row["violated_jl"] == pytest.approx((group["slack_jl"] > 0).mean())
        for name in ("slack_ik", "d_jl", "s_ij"):
            for quantile in (10, 50, 90):
                assert row[f"{name}_{quantile}"] == pytest.approx(group[name].quantile(quantile / 100), abs=1e-6)
        assert row["same_j"] == pytest.approx((group["j"] == group["e_j"]).mean())


def test_nothing_is_known_of_alternatives_that_were_not_kept(tmp_path: Path) -> None:
    old, new = mined_frame(2).assign(**dict.fromkeys(EUCLIDEAN)), mined_frame(4, seed=1)
    mined = Mined.of(write(tmp_path, pd.concat([old, new[new["step"] > 2]], ignore_index=True)))
    rows = mined.pick("refit")
    found = hardness.through_training(mined, rows)
    assert found["same_k"].isna().tolist() == [True, True, False, False]
    later = mined.frame(rows[mined.step[rows] > 2])
    assert hardness.agreement(mined, rows) == {
        end: pytest.approx((later[end] == later[f"e_{end}"]).mean()) for end in "jk"
    }
    assert hardness.agreement(mined, rows[mined.step[rows] <= 2]) == {}


def test_confusions_count_both_hard_negatives(tmp_path: Path) -> None:
    mined = Mined.of(write(tmp_path, mined_frame(12)))
    rows = mined.pick("refit", (2, 12))
    count, violated = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for row in mined.frame(rows).itertuples():
        for other, slack in ((row.class_k, row.slack_ik), (row.class_l, row.slack_jl)):
            count[row.class_i, other] += 1
            violated[row.class_i, other] += slack > 0
    found = hardness.confusions(mined, rows)
    assert dict(zip(zip(found["own"], found["other"], strict=True), found["count"], strict=True)) == count
    assert dict(zip(zip(found["own"], found["other"], strict=True), found["violated"], strict=True)) == violated
    np.testing.assert_allclose(found.groupby("own")["share"].sum(), 1)
    assert found["count"].is_monotonic_decreasing
    both = hardness.mutual(found)
    for row in both.to_dict("records"):
        a, b = row["a"], row["b"]
        assert (row["a_to_b"], row["b_to_a"]) == (count[a, b], count[b, a])
        assert row["a_to_b"] >= row["b_to_a"]
        assert row["count"] == count[a, b] + count[b, a]
        assert row["violated"] == violated[a, b] + violated[b, a]
    assert both["count"].sum() == 2 * len(rows)
    assert both["violated"].is_monotonic_decreasing
    assert hardness.mutual(hardness.confusions(mined, rows[:0])).empty


@pytest.mark.parametrize("strategy", ["anchor", "batch"])
def test_suspects_are_those_that_their_classmates_pick_while_a_negative_lies_closer(
    tmp_path: Path, strategy: str
) -> None:
    frame = mined_frame(40, strategy=strategy)
    mined = Mined.of(write(tmp_path, frame))
    met, against = Counter[str](), Counter[str]()
    named: dict[str, Counter[str]] = defaultdict(Counter)
    for _, batch in frame.groupby("step"):
        for row in batch.itertuples():
            if strategy == "anchor":
                met[row.i] += sum(batch["class_i"] == row.class_i) - 1
                ends = [(row.j, row.s_jl, row.class_l)]
            else:
                met.update([row.i, row.j])
                ends = [(row.i, row.s_ik, row.class_k), (row.j, row.s_jl, row.class_l)]
            for item, negative, other in ends:
                if negative > row.s_ij:
                    against[item] += 1
                    named[item][other] += 1
    found = hardness.suspects(mined, mined.pick("refit"), least_met=3)
    assert set(found["id"]) == {item for item in against if met[item] >= 3}
    for row in found.to_dict("records"):
        item = row["id"]
        assert (row["met"], row["against"]) == (met[item], against[item])
        assert named[item][row["named"]] == max(named[item].values())
        assert row["named_share"] == pytest.approx(max(named[item].values()) / against[item])
        assert row["class_name"] == item.split("/")[0]
        # The bound solves |share - bound| = z sqrt(bound (1 - bound) / n).
        gap = row["share"] - row["score"]
        assert gap**2 * row["met"] == pytest.approx(1.96**2 * row["score"] * (1 - row["score"]), abs=1e-9)
    assert found["score"].is_monotonic_decreasing


def test_planted_wrong_labels_come_first(tmp_path: Path) -> None:
    """Points of a line: each class lies around its own place, but for two that were given another class's name."""
    random = np.random.default_rng(0)
    place = {item: 10.0 * (number // 5) + random.normal() for number, item in enumerate(ITEMS)}
    place["apple/1.png"], place["quince/0.png"] = 20.0, 10.0  # among plums, and among pears
    rows = []
    for step in range(60):
        chosen = [ITEMS[c * 5 + n] for c in random.permutation(4)[:3] for n in random.permutation(5)[:3]]
        for i in chosen:

            def nearest(of: str, own: bool, sign: int, chosen: list[str] = chosen) -> str:
                others = [x for x in chosen if x != of and (x.split("/")[0] == of.split("/")[0]) == own]
                return min(others, key=lambda x: sign * abs(place[x] - place[of]))

            j = nearest(i, True, -1)
            k, l = nearest(i, False, 1), nearest(j, False, 1)
            s = {
                "s_ij": -abs(place[i] - place[j]),
                "s_ik": -abs(place[i] - place[k]),
                "s_jl": -abs(place[j] - place[l]),
            }
            classes = {f"class_{end}": item.split("/")[0] for end, item in (("i", i), ("k", k), ("l", l))}
            slack = {"slack_ik": s["s_ik"] - s["s_ij"], "slack_jl": s["s_jl"] - s["s_ij"]}
            distances = {name.replace("s_", "d_"): -value for name, value in s.items()}
            row = {"phase": "refit", "step": step, "i": i, "j": j, "k": k, "l": l}
            rows.append(row | classes | s | distances | slack | dict.fromkeys(EUCLIDEAN))
    mined = Mined.of(write(tmp_path, pd.DataFrame(rows)))
    found = hardness.suspects(mined, mined.pick("refit"))
    assert set(found["id"][:2]) == {"apple/1.png", "quince/0.png"}
    named = dict(zip(found["id"], found["named"], strict=True))
    assert (named["apple/1.png"], named["quince/0.png"]) == ("plum", "pear")
    assert found["score"][1] > 0.6 > 0.3 > found["score"][2]
