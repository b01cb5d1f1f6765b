"""Every source has a licence the lab knows, and every item of the demo its own."""

from __future__ import annotations

import pandas as pd

from pddm_lab.data.dataset import SOURCES
from pddm_lab.data.licences import LICENCES, UNKNOWN, attribution, counted, licence_of, sources
from pddm_lab.data.sources.emoji_sets import STYLE_SETS


def test_every_licence_of_a_source_is_known() -> None:
    named = {style.licence for style in STYLE_SETS} | {
        source.licence for name, source in SOURCES.items() if name != "emoji"
    }
    assert named <= set(LICENCES)


def test_each_emoji_has_the_licence_of_its_style() -> None:
    ids = [f"bear/{style.style}.png" for style in STYLE_SETS] + ["bear/other.png"]
    table = sources({"name": "emoji", "licence": "by style"}, ids)
    assert table["licence"].tolist() == [style.licence for style in STYLE_SETS] + [UNKNOWN]
    assert table["source"].tolist() == [style.title for style in STYLE_SETS] + [""]


def test_a_folder_of_ones_own_is_unknown_and_a_named_set_is_not() -> None:
    for name in ("folder:/x/y", "manifest:/x/y"):
        table = sources({"name": name, "licence": "your own"}, ["a"])
        assert table[["source", "licence"]].to_numpy().tolist() == [["/x/y", UNKNOWN]]
    assert sources({"name": "digits", "licence": "CC-BY-4.0"}, ["a", "b"])["licence"].tolist() == ["CC-BY-4.0"] * 2
    assert licence_of("WTFPL").commercial is None and licence_of("WTFPL").name == "WTFPL"
    assert licence_of("CC-BY-SA-4.0").share_alike and not licence_of("CC-BY-4.0").share_alike


def test_items_are_counted_by_source_and_split() -> None:
    ids = ["a/noto.png", "b/noto.png", "a/twemoji.png"]
    items = pd.DataFrame({"id": ids, "split": ["train", "unseen", "unseen"]})
    table = counted(items, sources({"name": "emoji"}, ids))
    assert table[["source", "items", "train", "unseen"]].to_numpy().tolist() == [
        ["Noto Emoji", 2, 1, 1], ["Twitter Emoji", 1, 0, 1],
    ]  # fmt: skip
    text = attribution(table)
    assert text.splitlines()[2] == "Twitter Emoji by Twitter. Licence: CC-BY-4.0."
    assert "https://creativecommons.org/licenses/by/4.0/" in text
