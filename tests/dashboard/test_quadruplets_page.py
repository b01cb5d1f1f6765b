"""The Quadruplets page against the log of a real run."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
from reading import blocks, markdown, texts

from pddm_lab.analysis import hardness
from pddm_lab.runs.log import EUCLIDEAN
from pddm_lab.runs.quadruplets import Mined
from pddm_lab.runs.run import Run


@pytest.fixture
def mined(with_digits: Path) -> Mined:
    return Mined.of(Run.open(with_digits / "digits").mined())


def counted(app, pattern: str) -> int:
    return int(re.findall(pattern, texts(app))[0].replace(",", ""))


def test_quadruplets_are_sorted_filtered_and_paged(open_page, with_digits: Path) -> None:
    log = Run.open(with_digits / "digits").quadruplets()
    worst = log.loc[log["phase"] == "refit", ["slack_ik", "slack_jl"]].max(axis=1)
    app = open_page("quadruplets", run="digits")
    body = blocks(app, "cards")
    assert body.count('class="pl-quad"') == 12
    first = max(float(value) for value in re.findall(r"by (\d\.\d\d)", body.split("</figure>")[0]))
    assert first == pytest.approx(worst.max(), abs=0.005)

    own = sorted(log.loc[log["phase"] == "select", "class_i"].unique())[0]
    app = open_page("quadruplets", run="digits", mined="select", order="latest", own=own, page="2")
    assert app.get_by_key("mined").value == "select"
    of_class = log[(log["phase"] == "select") & (log["class_i"] == own)]
    assert counted(app, r"\*\*([\d,]+)\*\* of") == len({canonical(row) for row in of_class.itertuples()})
    steps = [int(step) for step in re.findall(r"step (\d+)<", blocks(app, "cards"))]
    assert len(steps) == 12 and steps == sorted(steps, reverse=True)
    assert app.get_by_key("own").value == [own]


def canonical(row) -> tuple:
    """The same for a quadruplet and its mirror image."""
    one, other = (row.i, row.k), (row.j, row.l)
    return (row.phase, row.step, *min(one, other), *max(one, other))


def test_a_card_explains_itself_and_shows_what_euclidean_mining_would_have_chosen(open_page, mined: Mined) -> None:
    app = open_page("quadruplets", run="digits", show="differs", order="earliest", steps="4")
    rows = mined.ordered(mined.pick("refit", only="differs"), "earliest")
    assert counted(app, r"\*\*([\d,]+)\*\* of") == len(rows)
    same = hardness.agreement(mined, rows)
    assert f"chooses the same j in {100 * same['j']:.0f} %, k in {100 * same['k']:.0f} %" in texts(app)
    card, row = blocks(app, "cards").split("</figure>")[0], mined.frame(rows[:1]).iloc[0]
    for end, pair in (("j", "ij"), ("k", "ik")):
        if row[f"e_{end}"] != row[end]:
            assert f"{end}′ of Euclidean mining: {row[f'e_class_{end}'.replace('j', 'i')]}, {row[f'e_{end}']}" in card
            assert f"{row[f'e_d_{pair}']:.2f}" in card
    assert f"the least similar of {int(mined.positives(rows[:1])[0])} positives in the batch, by PDDM" in card
    slack = f"{row['slack_ik']:.2f}".replace("-", "−")
    assert f"= {slack}" in card or row["slack_ik"] == pytest.approx(0, abs=0.01)


def test_a_picture_leads_to_its_own_quadruplets(open_page, mined: Mined) -> None:
    item = str(mined.items[mined.ends["i"][5]])
    app = open_page("quadruplets", run="digits", item=item)
    assert counted(app, r"\*\*([\d,]+)\*\* of") == len(mined.pick("refit", item=item))
    assert all(f"{item}" in card for card in blocks(app, "cards").split("</figure>")[:-1])
    app.get_by_key("forget_item").click().run()
    assert counted(app, r"\*\*([\d,]+)\*\* of") == len(mined.pick("refit"))
    assert "item" not in app.query_params
    assert "No quadruplet matches" in texts(open_page("quadruplets", run="digits", item="nothing.png"))


def test_hardness_is_drawn_through_training(open_page, mined: Mined) -> None:
    table = hardness.through_training(mined, mined.pick("refit"))
    app = open_page("quadruplets", run="digits", view="training")
    values = {metric.label: metric.value for metric in app.metric}
    last = table.iloc[-5:]
    share = (last["violated_ik"] * last["count"]).sum() / last["count"].sum()
    assert values["Hinge i–k violated"] == f"{100 * share:.1f} %"
    assert set(values) >= {"Same j as Euclidean", "Same k as Euclidean"}
    for what in ("slack", "s", "d", "same"):
        app = open_page("quadruplets", run="digits", view="training", draw=what)
        assert len(app.get("plotly_chart")) == 1


def test_confused_classes_are_counted_and_a_pair_shows_its_quadruplets(open_page, mined: Mined) -> None:
    table = hardness.confusions(mined, mined.pick("refit"))
    app = open_page("quadruplets", run="digits", view="confusion")
    assert counted(app, r"\*\*([\d,]+)\*\* hard negatives") == table["count"].sum()
    first = hardness.mutual(table).iloc[0]
    body = blocks(app, "pairs")
    assert f"{first['count']:,} times" in body.split('class="pl-counts"')[1]
    assert f'title="{first["a"]} and {first["b"]}: ' in body

    app = open_page("quadruplets", run="digits", view="confusion", pair=[first["a"], first["b"]])
    chosen = mined.pick("refit", own=[first["a"], first["b"]], others=[first["a"], first["b"]])
    assert counted(app, r": ([\d,]+) quadruplets, the most violated first") == len(chosen)
    assert blocks(app, "pair_quadruplets").count('class="pl-quad"') == min(6, len(chosen))
    app.get_by_key("pair_cards").click().run()
    assert counted(app, r"\*\*([\d,]+)\*\* of") == len(chosen)
    assert sorted(app.get_by_key("others").value) == sorted([first["a"], first["b"]])


def test_suspects_are_listed_and_one_shows_its_quadruplets(open_page, mined: Mined) -> None:
    table = hardness.suspects(mined, mined.pick("refit"))
    app = open_page("quadruplets", run="digits", view="suspects")
    listed = re.findall(r'class="pl-suspect[^"]*" data-pick="([^"]+)"', blocks(app, "suspects"))
    assert listed == table["id"][:12].tolist()
    assert counted(app, r"of ([\d,]+) items with evidence") == len(table)
    app = open_page("quadruplets", run="digits", view="suspects", item=listed[1])
    assert blocks(app, "item_quadruplets").count('class="pl-quad"') == min(6, len(mined.pick("refit", item=listed[1])))
    assert 'class="pl-suspect pl-chosen' in blocks(app, "suspects")


@pytest.mark.parametrize("view", ["cards", "training", "confusion", "suspects"])
def test_choices_that_leave_nothing_say_so(open_page, with_digits: Path, view: str) -> None:
    log = Run.open(with_digits / "digits").quadruplets()
    untrained = sorted(set("0123456789") - set(log["class_i"]))[0]
    app = open_page("quadruplets", run="digits", view=view, own=untrained, pair=["a", untrained])
    assert app.get_by_key("own").value == []  # a class that never trained is no choice
    assert not app.error


def test_a_run_without_recorded_alternatives_still_opens(open_page, with_digits: Path) -> None:
    folder = with_digits / "digits" / "quadruplets.parquet"
    parts = sorted(folder.iterdir())
    for part in parts:
        frame = pd.read_parquet(part).drop(columns=list(EUCLIDEAN))
        part.unlink()  # shared with the run that other tests read
        frame.to_parquet(part, index=False)
    app = open_page("quadruplets", run="digits", show="differs")
    assert "did not record what Euclidean mining" in texts(app)
    assert app.get_by_key("show").options == ["all", "violated"]
    assert 'class="pl-instead"' not in blocks(app, "cards")
    app = open_page("quadruplets", run="digits", view="training", draw="same")
    assert len(app.metric) == 2


def test_a_damaged_part_is_named(open_page, with_digits: Path) -> None:
    folder = with_digits / "digits" / "quadruplets.parquet"
    part = sorted(folder.iterdir())[0]
    data = part.read_bytes()
    part.unlink()
    part.write_bytes(data[: len(data) // 2])
    assert part.name in texts(open_page("quadruplets", run="digits"))


def test_a_run_that_has_mined_nothing_says_so(open_page, with_digits: Path) -> None:
    shutil.rmtree(with_digits / "digits" / "quadruplets.parquet")
    assert "No quadruplets" in texts(open_page("quadruplets", run="digits"))


def test_a_run_that_ended_early_shows_what_it_mined_until_then(open_page, with_digits: Path) -> None:
    Run.open(with_digits / "digits").update(status="stopped", reason="Stopped on request.")
    app = open_page("quadruplets", run="digits")
    assert "The run was stopped. These are the quadruplets it mined before that." in texts(app)
    assert blocks(app, "cards").count('class="pl-quad"') == 12


@pytest.mark.parametrize("view", ["cards", "training", "confusion", "suspects", "99999"])
def test_nonsense_in_a_link_opens_the_default(open_page, with_digits: Path, view: str) -> None:
    names = ("mined", "steps", "own", "others", "order", "show", "item", "draw", "pair", "pairs_page", "suspects_page")
    app = open_page("quadruplets", run="digits", view=view, **dict.fromkeys(names, "99999"))
    assert not app.error
    image = "![x](http://example.com/a.png)"
    app = open_page("quadruplets", run="digits", view=view, **dict.fromkeys(("own", "item", "pair"), image))
    assert image not in markdown(app)
    assert all(image not in button.label for button in app.button)
