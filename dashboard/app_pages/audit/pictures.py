"""What the Audit page says of pictures: which are there twice, what that does, and whose they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from app_pages.audit.similarities import listed, minus, name_cell, shot

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
"""What is told of a licence, by its field."""


def split_table(table: pd.DataFrame) -> tuple[list[Head], list[list[Cell]]]:
    """Pairs of each two splits that have any."""
    heads = [
        Head("Between"), Head("Pairs"), *(Head(title) for title in KINDS.values()),
        Head("Labels differ", "One picture with two labels: a conflict, or two classes that are drawn alike."),
        Head("Items concerned"),
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
    """What the pairs come to, in a few sentences.

    Args:
        table: of `across_splits`.
        total: pictures compared.
        groups: the group of each.
        one_source: pairs whose pictures come from one source; None where the data has but one.
    """
    pairs, identical = int(table["pairs"].sum()), int(table["identical"].sum())
    if not pairs:
        return [f"None of the {total:,} pictures has a duplicate or near-duplicate among the others."]
    sizes = np.bincount(groups)
    concerned = int(sizes[sizes > 1].sum())
    sentences = [
        f"**{concerned:,} of {total:,} pictures** have a twin, in {int((sizes > 1).sum()):,} groups, the largest of "
        f"{int(sizes.max()):,}. "
        + (f"{identical:,} pair{'s are' if identical > 1 else ' is'} identical." if identical else "None is identical.")
    ]
    across = table[(table["split_a"] != table["split_b"]) & (table["pairs"] > 0)]
    leaks = across.assign(told=[between(a, b) for a, b in zip(across["split_a"], across["split_b"], strict=True)])
    sentences.append(
        "Across splits: "
        + listed([f"{row.pairs:,} pair{'s' if row.pairs > 1 else ''} between {row.told}" for row in leaks.itertuples()])
        + "."
        if len(leaks)
        else "No pair lies across two splits."
    )
    conflicts = int(table["conflicts"].sum())
    sentences.append(
        f"In {conflicts:,} of the {pairs:,} pairs the labels differ."
        if conflicts
        else "In every pair the labels agree."
    )
    if one_source is not None:
        sentences.append(f"In {one_source:,} of the {pairs:,} pairs both pictures are one source's.")
    return sentences


def effect_table(effects: Sequence[Effect]) -> tuple[list[Head], list[list[Cell]]]:
    """Recall@1 with and without twins, a row per similarity."""
    heads = [
        Head("Ranked by"), Head("Queries"), Head("With a twin", "Queries with a duplicate or near-duplicate to find."),
        Head("R@1", small="%"), Head("R@1 of those with a twin", small="%"), Head("R@1 of the others", small="%"),
        Head("R@1 without twins", "Each query's twins taken out of what it searches.", "%"),
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


def twin_cards(items: pd.DataFrame, pairs: pd.DataFrame, confirmations: Mapping[tuple[int, int], str]) -> list[TileSet]:
    """Pairs of pictures side by side, with what they are and where."""
    cards = []
    for row in pairs.itertuples():
        told = KINDS[str(row.kind)]
        if confirmation := confirmations.get((int(row.a), int(row.b))):
            told += f": {confirmation}"
        elif row.kind != "identical":
            told += f", likeness {row.likeness:.3f}" if row.likeness < 0.9995 else ", likeness above 0.999"
        shots = [shot(items, at, SPLITS[str(items["split"].iloc[at])]) for at in (int(row.a), int(row.b))]
        cards.append(TileSet(shots, [told, *([] if row.same_label else ["labels differ"])], not row.same_label))
    return cards


def licence_table(table: pd.DataFrame) -> tuple[list[Head], list[list[Cell]]]:
    """Sources with their licences, what these permit, and the items of each split."""
    splits = [name for name in SPLITS if name in table.columns]
    heads = [
        Head("Source"), Head("Author"), Head("Licence"), *(Head(title) for title in PERMITS.values()), Head("Items"),
        *(Head(SPLITS[name]) for name in splits),
    ]  # fmt: skip
    words = {
        "commercial": {True: ("permitted", "holds"), False: ("not permitted", "fails")},
        "changes": {True: ("permitted", "holds"), False: ("not permitted", "fails")},
        "attribution": {True: ("required", ""), False: ("not required", "")},
        "share_alike": {True: ("required", ""), False: ("no", "")},
    }
    rows = []
    for row in table.to_dict("records"):
        licence = licence_of(str(row["licence"]))
        told = [words[field].get(getattr(licence, field), ("not stated", "")) for field in PERMITS]
        rows.append([
            Cell(str(row["source"]) or "unknown"), Cell(str(row["author"]) or "–"),
            Cell(licence.name, hint=licence.note),
            *(Cell(*one, licence.note) for one in told), Cell(f"{row['items']:,}"),
            *(Cell(f"{row[name]:,}" if row[name] else "–") for name in splits),
        ])  # fmt: skip
    return heads, rows


def licence_headline(table: pd.DataFrame) -> list[str]:
    """How many items may be used how."""
    total = int(table["items"].sum())
    sentences = []
    for field, words in (
        ("commercial", "may be used commercially"),
        ("share_alike", "must be shared alike when changed"),
    ):
        held = [getattr(licence_of(str(name)), field) for name in table["licence"]]
        some = int(table.loc[[one is True for one in held], "items"].sum())
        who = f"All {total:,}" if some == total else f"{some:,} of {total:,}" if some else f"None of {total:,}"
        sentences.append(f"{who} items {words}.")
    unknown = int(table.loc[[licence_of(str(name)).commercial is None for name in table["licence"]], "items"].sum())
    if unknown:
        sentences.append(f"Of {unknown:,} items nobody told this lab whether they may be used commercially.")
    return sentences
