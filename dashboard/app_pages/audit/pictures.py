"""The Audit page's results about pictures: duplicates, their effect on Recall@1, and licences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from app_pages.audit.similarities import listed, minus, name_cell, tile

from pddm_lab.analysis.duplicates import KINDS, SPLITS
from pddm_lab.cards import Cell, Head, TileSet
from pddm_lab.data.licences import licence_of

if TYPE_CHECKING:
    from pddm_lab.analysis.duplicate_effect import Effect

PERMITS = {
    "commercial": "Commercial use",
    "changes": "Changes",
    "attribution": "Attribution",
    "share_alike": "Share-alike",
}
"""The columns on a licence's terms, by its fields."""


def split_table(table: pd.DataFrame) -> tuple[list[Head], list[list[Cell]]]:
    """Pairs between each two splits that have any."""
    heads = [
        Head("Between"), Head("Pairs"), *(Head(title) for title in KINDS.values()),
        Head("Labels differ", "One picture with two labels: a conflict, or two classes that look alike."),
        Head("Items"),
    ]  # fmt: skip
    rows = [
        [Cell(between(row["split_a"], row["split_b"])), Cell(f"{row['pairs']:,}"),
         *(Cell(f"{row[kind]:,}" if row[kind] else "–") for kind in KINDS),
         Cell(f"{row['conflicts']:,}" if row["conflicts"] else "–"), Cell(f"{row['items']:,}")]
        for row in table.to_dict("records") if row["pairs"]
    ]  # fmt: skip
    return heads, rows


def between(first: str, second: str) -> str:
    """Two splits in words."""
    return f"within {SPLITS[first]}" if first == second else f"{SPLITS[first]} and {SPLITS[second]}"


def duplicate_headline(table: pd.DataFrame, total: int, groups: np.ndarray, one_source: int | None = None) -> list[str]:
    """The duplicates in a few sentences.

    Args:
        table: from `across_splits`.
        total: number of pictures compared.
        groups: the group of each picture.
        one_source: pairs whose pictures come from the same source; None where the data has only one source.
    """
    pairs, identical = int(table["pairs"].sum()), int(table["identical"].sum())
    if not pairs:
        return [f"None of the {total:,} pictures has a duplicate or near-duplicate."]
    sizes = np.bincount(groups)
    duplicated = int(sizes[sizes > 1].sum())
    sentences = [
        f"**{duplicated:,} of {total:,} pictures** have a duplicate or near-duplicate, in {int((sizes > 1).sum()):,} "
        f"groups of up to {int(sizes.max()):,}. "
        + (f"{identical:,} pair{'s are' if identical > 1 else ' is'} identical." if identical else "None is identical.")
    ]
    across = table[(table["split_a"] != table["split_b"]) & (table["pairs"] > 0)]
    leaks = [
        f"{row.pairs:,} pair{'s' if row.pairs > 1 else ''} between {between(row.split_a, row.split_b)}"
        for row in across.itertuples()
    ]
    sentences.append(f"Across splits: {listed(leaks)}." if leaks else "No pair lies across two splits.")
    conflicts = int(table["conflicts"].sum())
    differ = (
        f"In {conflicts:,} of the {pairs:,} pairs the labels differ." if conflicts else "The labels of all pairs agree."
    )
    sentences.append(differ)
    if one_source is not None:
        sentences.append(f"In {one_source:,} of the {pairs:,} pairs both pictures come from the same source.")
    return sentences


def effect_table(effects: Sequence[Effect]) -> tuple[list[Head], list[list[Cell]]]:
    """Recall@1 with and without duplicates, a row per similarity."""
    heads = [
        Head("Ranked by"), Head("Queries"),
        Head("With a duplicate", "Queries with a duplicate or near-duplicate among the searched items."),
        Head("R@1", small="%"), Head("R@1 of these", small="%"), Head("R@1 of the others", small="%"),
        Head("R@1 without duplicates", "Without each query's duplicates among the searched items.", "%"),
        Head("Change", small="points"),
    ]  # fmt: skip

    def text(value: float) -> str:
        return f"{100 * value:.1f}" if np.isfinite(value) else "–"

    rows = []
    for effect in effects:
        change = 100 * (effect.recall_removed - effect.recall)
        rows.append([
            name_cell(effect.similarity), Cell(f"{effect.queries:,}"), Cell(f"{effect.duplicated:,}"),
            Cell(text(effect.recall)), Cell(text(effect.recall_duplicated)), Cell(text(effect.recall_others)),
            Cell(text(effect.recall_removed), small="" if effect.removed_queries == effect.queries
                 else f"of {effect.removed_queries:,} queries"),
            Cell(minus(f"{change:+.1f}") if np.isfinite(change) else "–"),
        ])  # fmt: skip
    return heads, rows


def duplicate_cards(
    items: pd.DataFrame, pairs: pd.DataFrame, confirmations: Mapping[tuple[int, int], str]
) -> list[TileSet]:
    """Pairs of pictures side by side, with their kind and splits."""
    cards = []
    for row in pairs.itertuples():
        text = KINDS[str(row.kind)]
        if confirmation := confirmations.get((int(row.a), int(row.b))):
            text += f": {confirmation}"
        elif row.kind != "identical":
            text += f", likeness {row.likeness:.3f}" if row.likeness < 0.9995 else ", likeness above 0.999"
        tiles = [tile(items, at, SPLITS[str(items["split"].iloc[at])]) for at in (int(row.a), int(row.b))]
        cards.append(TileSet(tiles, [text, *([] if row.same_label else ["labels differ"])], not row.same_label))
    return cards


def licence_table(table: pd.DataFrame) -> tuple[list[Head], list[list[Cell]]]:
    """Sources with their licences, the licences' terms, and the items of each split."""
    splits = [name for name in SPLITS if name in table.columns]
    heads = [
        Head("Source"), Head("Author"), Head("Licence"), *(Head(title) for title in PERMITS.values()), Head("Items"),
        *(Head(SPLITS[name]) for name in splits),
    ]  # fmt: skip
    permitted = {True: ("permitted", "holds"), False: ("not permitted", "fails")}
    required = {True: ("required", ""), False: ("not required", "")}
    words = {"commercial": permitted, "changes": permitted, "attribution": required, "share_alike": required}
    rows = []
    for row in table.to_dict("records"):
        licence = licence_of(str(row["licence"]))
        terms = [words[field].get(getattr(licence, field), ("not stated", "")) for field in PERMITS]
        rows.append([
            Cell(str(row["source"]) or "unknown"), Cell(str(row["author"]) or "–"),
            Cell(licence.name, hint=licence.note),
            *(Cell(*one, licence.note) for one in terms), Cell(f"{row['items']:,}"),
            *(Cell(f"{row[name]:,}" if row[name] else "–") for name in splits),
        ])  # fmt: skip
    return heads, rows


def licence_headline(table: pd.DataFrame) -> list[str]:
    """How many items may be used commercially, and how many must be shared alike."""
    total = int(table["items"].sum())
    sentences = []
    for field, words in (
        ("commercial", "may be used commercially"),
        ("share_alike", "must be shared alike if changed"),
    ):
        applies = [getattr(licence_of(str(name)), field) is True for name in table["licence"]]
        some = int(table.loc[applies, "items"].sum())
        who = f"All {total:,}" if some == total else f"{some:,} of the {total:,}" if some else f"None of the {total:,}"
        sentences.append(f"{who} items {words}.")
    unknown = int(table.loc[[licence_of(str(name)).commercial is None for name in table["licence"]], "items"].sum())
    if unknown:
        sentences.append(f"It is unknown whether {unknown:,} items may be used commercially.")
    return sentences
