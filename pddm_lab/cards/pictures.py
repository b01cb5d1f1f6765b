"""Items as tiles: ranked results with their scores, and plain grids."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from pddm_lab.cards.html import Block, digits_of, escaped, number, pickable, picture, symbol
from pddm_lab.figures import shown, style_of


def retrieval_grid(
    results: pd.DataFrame, images: Mapping[str, bytes | None], similarity: str, *, right_class: str | None = None,
    why: bool = False, highlighted: str = "", small: bool = False,
) -> Block:  # fmt: skip
    """A ranked list of pictures, best first.

    Args:
        results: id, class_name, rank (from 1), value (of the similarity, larger = more similar); optional rank_change
            (places gained against the other ranking, NaN if that one lacks the item), note (added to the tile's title).
        similarity: the one that ranked.
        right_class: the query's class, to mark right and wrong results; None if it is unknown.
        why: add a button to each tile that asks why it is here; a page reads its `data-why`.
        highlighted: id of an item to mark.
        small: smaller pictures, for narrow columns.
    """
    mark_of_value = f'<i style="color:{style_of(similarity).colour}">{symbol(similarity)}</i>'
    values = shown(similarity, results["value"].to_numpy(dtype=float))
    tiles, digits = [], digits_of(values)
    for row, value in zip(results.to_dict("records"), values, strict=True):
        look = "plain" if right_class is None else "right" if row["class_name"] == right_class else "wrong"
        notes = [f"{look} class" if right_class is not None else "", row.get("note")]
        hint = ", ".join(filter(None, [f"Rank {int(row['rank'])}: {row['class_name']}", *notes]))
        over = f'<span class="pl-rank">{int(row["rank"])}</span>{_MARKS[look]}'
        over += f'<span class="pl-why" data-why="{escaped(row["id"])}" aria-hidden="true">why?</span>' if why else ""
        below = (
            f'<div class="pl-value"><span>{mark_of_value} {number(value, digits)}</span>'
            f"{_change(row.get('rank_change'))}</div>"
        )
        tiles.append(_tile(row["id"], row["class_name"], images, hint, look, over, below, row["id"] == highlighted))
    size = " pl-asking" if why else " pl-small" if small else ""
    return Block(f'<div class="pl-tiles{size}">{"".join(tiles)}</div>', _STYLE)


def image_grid(
    items: Iterable[tuple[str, str]], images: Mapping[str, bytes | None], *, chosen: Collection[str] = (),
    small: bool = False,
) -> Block:  # fmt: skip
    """Items as thumbnails with their class names below.

    Args:
        items: (id, class name) pairs.
        chosen: ids of the items to mark.
    """
    tiles = "".join(
        _tile(name, class_name, images, f"A picture of {class_name}", "chosen" if name in chosen else "plain")
        for name, class_name in items
    )
    return Block(f'<div class="pl-tiles{" pl-small" if small else ""}">{tiles}</div>', _STYLE)


def _tile(
    item: str, class_name: str, images: Mapping[str, bytes | None], hint: str, look: str, over: str = "",
    below: str = "", highlighted: bool = False,
) -> str:  # fmt: skip
    """One picture with its class name."""
    return (
        f'<div class="pl-tile pl-{look}" {pickable(item, f"{hint} · {item}")}{" data-highlighted" * highlighted}>'
        f'<div class="pl-frame">{picture(images.get(item), hint)}{over}</div>'
        f'<div class="pl-name">{escaped(class_name)}</div>{below}</div>'
    )


def _change(change: Any) -> str:
    """Places gained or lost against the other ranking."""
    if change is None or not np.isfinite(change):
        return ""
    if not change:
        return '<span class="pl-change" title="same rank in both">=</span>'
    arrow, words = ("▲", "earlier") if change > 0 else ("▼", "later")
    places = abs(int(change))
    return f'<span class="pl-change" title="{places} places {words} than in the other ranking">{arrow}{places}</span>'


_MARKS = {"right": '<b class="pl-mark pl-good">✓</b>', "wrong": '<b class="pl-mark pl-bad">✕</b>', "plain": ""}
_STYLE = """
.pl-tiles{display:grid;grid-template-columns:repeat(auto-fill,minmax(clamp(76px,6vw,116px),1fr));gap:10px}
.pl-asking{grid-template-columns:repeat(auto-fill,minmax(clamp(66px,5.1vw,116px),1fr));gap:9px}
.pl-small{grid-template-columns:repeat(auto-fill,minmax(62px,1fr));gap:8px}
.pl-tile{min-width:0;border-radius:8px}
.pl-frame{position:relative}
.pl-frame img,.pl-frame .pl-none{width:100%;aspect-ratio:1;height:auto}
.pl-right img{border:3px solid #17875A}
.pl-wrong img{border:3px dashed #C4382F}
.pl-chosen img{border:3px solid #6B7686}
.pl-mark{position:absolute;right:5px;top:5px;width:18px;height:18px;border-radius:99px;display:grid;place-items:center;
 color:#fff;font-size:11px;line-height:1}
.pl-mark.pl-good{background:#17875A}.pl-mark.pl-bad{background:#C4382F}
.pl-why{position:absolute;right:5px;bottom:5px;font-size:11px;line-height:1;padding:3px 5px;border-radius:5px;
 background:rgba(20,26,36,.86);color:#fff;opacity:0}
.pl-tile:hover .pl-why,.pl-tile:focus .pl-why,[data-highlighted] .pl-why{opacity:1}
.pl-why:hover{background:#2F78D0}
@media (hover:none){.pl-why{opacity:1}}
[data-highlighted] .pl-frame,.pl-linked .pl-frame{border-radius:6px;
 box-shadow:0 0 0 2px var(--pl-page,#fff),0 0 0 4px #2F78D0}
.pl-asking .pl-rank,.pl-asking .pl-why{left:4px;top:4px;padding:2px 4px;font-size:10.5px}
.pl-asking .pl-why{left:auto;top:auto;right:4px;bottom:4px}
.pl-asking .pl-mark{right:4px;top:4px;width:15px;height:15px;font-size:9.5px}
.pl-value{font-size:12px;display:flex;justify-content:space-between;font-variant-numeric:tabular-nums;white-space:nowrap}
.pl-value sub{line-height:0}
.pl-change{opacity:.72}
"""
