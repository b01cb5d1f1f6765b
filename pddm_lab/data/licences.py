"""Whose pictures a run shows, under which licence, and what that permits: in the sources' own names, item by item.

What a licence permits is told in its own terms, in short, and binds nobody: the licence's text does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import pandas as pd

from pddm_lab.data.dataset import SOURCES
from pddm_lab.data.sources.emoji_sets import LICENCE_URLS, STYLE_SETS

UNKNOWN = "unknown"


@dataclass(frozen=True)
class Licence:
    """What one licence says of using the pictures. None: it doesn't say, or nobody told this lab."""

    name: str
    """SPDX identifier, or the source's own words."""
    url: str = ""
    commercial: bool | None = None
    """Commercial use is permitted."""
    changes: bool | None = None
    """Changed versions may be shared."""
    attribution: bool | None = None
    """Author or licence must be named."""
    share_alike: bool | None = None
    """Changed versions must be shared under the same licence."""
    note: str = ""
    """What else must be heeded, in one sentence."""


LICENCES = {
    licence.name: licence
    for licence in (
        Licence("MIT", LICENCE_URLS["MIT"], True, True, True, False, "Its text and copyright line go with every copy."),
        Licence(
            "Apache-2.0", LICENCE_URLS["Apache-2.0"], True, True, True, False,
            "Its text and notices go with every copy; changed files say that they were changed.",
        ),
        Licence(
            "CC-BY-4.0", LICENCE_URLS["CC-BY-4.0"], True, True, True, False,
            "Name the author, link the licence, say what was changed.",
        ),
        Licence(
            "CC-BY-SA-4.0", LICENCE_URLS["CC-BY-SA-4.0"], True, True, True, True,
            "As CC-BY-4.0, and what is made from the pictures is shared under this licence or a compatible one.",
        ),
        Licence(
            "non-commercial research and education; the photos belong to their photographers", "", False, None, True,
            None, "The photographers keep their rights: nothing says that the photos may be passed on.",
        ),
        Licence("non-commercial research", "", False, None, True, None, "Nothing is said of passing the photos on."),
        Licence(
            "research; the photos belong to their sellers", "", None, None, True, None,
            "The sellers keep their rights: nothing says that the photos may be passed on.",
        ),
        Licence(UNKNOWN, note="Nobody told this lab: whoever put the pictures together has to know."),
    )
}  # fmt: skip
"""Every licence of the data sets that the lab knows by name."""


def licence_of(name: str) -> Licence:
    """A licence by its name; of one the lab knows nothing about, its name alone."""
    return LICENCES.get(name, Licence(name, note="This lab knows no more of it than its name."))


def sources(dataset: Mapping[str, Any], ids: Iterable[str]) -> pd.DataFrame:
    """Where each item is from: source, author, licence, url, in the order of the ids.

    Args:
        dataset: what run.json says of the data set: name, licence, attribution.
        ids: of items; of the emoji data set the file's name is its drawing style.
    """
    ids = list(ids)
    if dataset.get("name") == "emoji":
        of = {style.style: style for style in STYLE_SETS}
        found = [of.get(PurePosixPath(item).stem) for item in ids]
        rows = [
            (style.title, style.author, style.licence, style.url) if style else ("", "", UNKNOWN, "") for style in found
        ]
    else:
        own = str(dataset.get("name", "")).startswith("folder:")
        licence = UNKNOWN if own or not dataset.get("licence") else str(dataset["licence"])
        known = SOURCES.get(str(dataset.get("name", "")))
        title = known.title if known else str(dataset.get("name", "")).removeprefix("folder:")
        rows = [(title, str(dataset.get("attribution") or ""), licence, "")] * len(ids)
    return pd.DataFrame(rows, columns=["source", "author", "licence", "url"])


def counted(items: pd.DataFrame, of: pd.DataFrame) -> pd.DataFrame:
    """Items per source and split: source, author, licence, url, items, and a column per split; most items first.

    Args:
        items: with a column split.
        of: the same items' `sources`.
    """
    keys = ["source", "author", "licence", "url"]
    every = of.assign(split=items["split"].to_numpy(), items=1)
    table = every.pivot_table(index=keys, columns="split", values="items", aggfunc="sum", fill_value=0, sort=False)
    splits = list(dict.fromkeys(items["split"]))
    table = table.reindex(columns=splits, fill_value=0).astype(int)
    table.insert(0, "items", table.sum(axis=1))
    return (
        table.reset_index()
        .sort_values("items", ascending=False, kind="stable", ignore_index=True)
        .rename_axis(columns=None)
    )


def attribution(table: pd.DataFrame) -> str:
    """A text to put beside pictures that are shown or passed on, a line per source and one of links.

    Args:
        table: source, author, licence, url.
    """
    lines = []
    for row in table.drop_duplicates(["source", "author", "licence"]).itertuples():
        by = f"{row.source} by {row.author}" if row.source and row.author else row.source or row.author or "unknown"
        known = licence_of(str(row.licence))
        links = ", ".join(filter(None, (row.url, known.url)))
        lines.append(f"{by.rstrip('.')}. Licence: {row.licence}." + (f"\n  {links}" if links else ""))
    return "\n".join(lines)
