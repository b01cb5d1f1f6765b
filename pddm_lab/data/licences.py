"""Where the pictures of a run come from, under which licence, and what that licence permits.

The lab only summarises each licence. The text of the licence is what counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from pddm_lab.data.dataset import OWN, SOURCES
from pddm_lab.data.source import Credit
from pddm_lab.data.sources.emoji_sets import LICENCE_URLS

UNKNOWN = "unknown"


@dataclass(frozen=True)
class Licence:
    """What one licence says about using the pictures. None: not stated, or not known to the lab."""

    name: str
    """SPDX identifier, or the source's own wording."""
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
    """Further conditions, in one sentence."""


LICENCES = {
    licence.name: licence
    for licence in (
        Licence("MIT", LICENCE_URLS["MIT"], True, True, True, False, "Include its text and copyright with every copy."),
        Licence(
            "Apache-2.0", LICENCE_URLS["Apache-2.0"], True, True, True, False,
            "Include its text and notices with every copy; mark changed files as changed.",
        ),
        Licence(
            "CC-BY-4.0", LICENCE_URLS["CC-BY-4.0"], True, True, True, False,
            "Name the author, link to the licence, and say what you changed.",
        ),
        Licence(
            "CC-BY-SA-4.0", LICENCE_URLS["CC-BY-SA-4.0"], True, True, True, True,
            "As CC-BY-4.0; share what you make from the pictures under this licence or a compatible one.",
        ),
        Licence(
            "non-commercial research and education; the photos belong to their photographers", "", False, None, True,
            None, "The photographers keep their rights; permission to redistribute the photos is not stated.",
        ),
        Licence("non-commercial research", "", False, None, True, None, "Redistribution is not mentioned."),
        Licence(
            "research; the photos belong to their sellers", "", None, None, True, None,
            "The sellers keep their rights; permission to redistribute the photos is not stated.",
        ),
        Licence(UNKNOWN, note="The lab does not know: ask whoever collected the pictures."),
    )
}  # fmt: skip
"""Every licence of the data sets known by name."""


def licence_of(name: str) -> Licence:
    """A licence by its name; only the name is filled in if the lab does not know it."""
    return LICENCES.get(name, Licence(name, note="The lab knows only the name of this licence."))


def sources(dataset: Mapping[str, Any], ids: Iterable[str]) -> pd.DataFrame:
    """Where each item comes from: source, author, licence, url, in the order of the ids.

    Args:
        dataset: name, licence and attribution of the data set, as in run.json.
        ids: of items.
    """
    name = str(dataset.get("name", ""))
    source = SOURCES.get(name)
    if source and source.credit:
        rows = [source.credit(item) or Credit("", "", UNKNOWN, "") for item in ids]
    else:
        prefix, _, path = name.partition(":")
        licence = UNKNOWN if prefix in OWN else str(dataset.get("licence") or UNKNOWN)
        title = source.title if source else path if prefix in OWN else name
        rows = [Credit(title, str(dataset.get("attribution") or ""), licence, "")] * len(list(ids))
    return pd.DataFrame(rows, columns=Credit._fields)


def counted(items: pd.DataFrame, of: pd.DataFrame) -> pd.DataFrame:
    """Items per source and split: source, author, licence, url, items, and a column per split; most items first.

    Args:
        items: with a column split.
        of: the same items' `sources`.
    """
    keys = [*Credit._fields]
    every = of.assign(split=items["split"].to_numpy(), items=1)
    table = every.pivot_table(index=keys, columns="split", values="items", aggfunc="sum", fill_value=0, sort=False)
    splits = list(dict.fromkeys(items["split"]))
    table = table.reindex(columns=splits, fill_value=0).astype(int)
    table.insert(0, "items", table.sum(axis=1))
    table = table.reset_index().rename_axis(columns=None)
    return table.sort_values("items", ascending=False, kind="stable", ignore_index=True)


def attribution(table: pd.DataFrame) -> str:
    """The text to show with the pictures: a line per source and a line of links.

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
