"""Classes that are confused with each other, and items whose label looks wrong, as pictures with counts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from pddm_lab.cards.html import Block, escaped, number, pickable, picture

SUSPICIOUS = 0.5
"""From this score on, significantly more than half of the classmates met contradict an item's label."""


def confusion_bars(
    pairs: pd.DataFrame, images: Mapping[str, bytes | None],
    examples: Mapping[tuple[str, str], tuple[Sequence[str], Sequence[str]]], *, chosen: Sequence[str] = (),
) -> Block:  # fmt: skip
    """Pairs of classes as bars with pictures of both; a page lets users click one to choose it.

    Args:
        pairs: a, b, count, violated, a_to_b, b_to_a, as `hardness.mutual` returns it.
        examples: item ids of a and of b by pair.
        chosen: two classes whose bar is marked.
    """
    largest = max(int(pairs["count"].max()), 1) if len(pairs) else 1
    rows = []
    for row in pairs.to_dict("records"):
        a, b, count, violated = row["a"], row["b"], int(row["count"]), int(row["violated"])
        hint = (
            f"{a} and {b}: {count:,} hard negatives, {violated:,} of them violate their hinge; "
            f"{int(row['a_to_b']):,} of {b} for {a}, {int(row['b_to_a']):,} of {a} for {b}"
        )
        sides = [
            f'<div class="pl-side-of">{"".join(picture(images.get(item), name) for item in items)}</div>'
            for name, items in zip((a, b), examples.get((a, b), ((), ())), strict=True)
        ]
        marked = " pl-chosen" if {a, b} == set(chosen) else ""
        pick = pickable(json.dumps([a, b], ensure_ascii=False), hint)
        rows.append(
            f'<div class="pl-mixed{marked}" {pick}>'
            f'{sides[0]}<div class="pl-between"><div class="pl-both"><span>{escaped(a)}</span>'
            f'<span>{escaped(b)}</span></div><div class="pl-bar"><i style="width:{100 * count / largest:.1f}%">'
            f'<b style="width:{100 * violated / max(count, 1):.1f}%"></b></i></div>'
            f'<div class="pl-counts"><span>{count:,} times</span><span>{violated:,} violated</span></div></div>'
            f"{sides[1]}</div>"
        )
    return Block(f'<div class="pl-mixes">{"".join(rows)}</div>', _STYLE)


def suspect_grid(
    suspects: pd.DataFrame, images: Mapping[str, bytes | None], examples: Mapping[str, Sequence[str]], *,
    chosen: str = "", first: int = 1, met: str = "classmates",
) -> Block:  # fmt: skip
    """Items whose label looks wrong, each beside pictures of its class and of the class it is most similar to.

    Args:
        suspects: as `pddm_lab.analysis.hardness.suspects` returns it.
        examples: item ids by class.
        chosen: id of the item to mark.
        first: rank of the first row.
        met: what the column `met` counts.
    """
    cards = "".join(
        _suspect(row, images, examples, rank, row["id"] == chosen, met)
        for rank, row in enumerate(suspects.to_dict("records"), first)
    )
    return Block(f'<div class="pl-suspects">{cards}</div>', _STYLE)


def _suspect(
    row: Mapping[str, Any], images: Mapping[str, bytes | None], examples: Mapping[str, Sequence[str]], rank: int,
    chosen: bool, met: str,
) -> str:  # fmt: skip
    against, named = f"{int(row['against']):,} of {int(row['met']):,} {met}", str(row["named"])
    hint = f"{rank}: {row['id']}, labelled {row['class_name']}; {against} contradict the label, most often for {named}"

    def of_class(word: str, name: str, share: str = "") -> str:
        shown = "".join(picture(images.get(item), name) for item in examples.get(name, ()) if item != row["id"])
        return (
            f'<div class="pl-class"><div class="pl-words"><small>{word}</small>{escaped(name)}{share}</div>'
            f'<div class="pl-thumbs">{shown}</div></div>'
        )

    share = f" <small>{100 * row['named_share']:.0f} %</small>"
    marks = (" pl-chosen" if chosen else "") + (" pl-strong" if row["score"] >= SUSPICIOUS else "")
    return (
        f'<div class="pl-suspect{marks}" {pickable(row["id"], hint)}><div class="pl-frame">'
        f"{picture(images.get(row['id']), hint)}"
        f'<span class="pl-rank">{rank}</span></div><div class="pl-classes-of">'
        f"{of_class('labelled', str(row['class_name']))}{of_class('nearer to', named, share)}</div>"
        f'<div class="pl-counts"><span class="pl-score" title="lower end of the 95 % interval of the share">'
        f"score <b>{number(row['score'])}</b></span><span>{against}</span></div></div>"
    )


_STYLE = """
.pl-mixes{display:flex;flex-direction:column;gap:6px}
.pl-mixed{display:grid;grid-template-columns:auto minmax(0,1fr) auto;gap:12px;align-items:center;
 border:1px solid rgba(138,147,163,.28);border-radius:9px;padding:7px 9px}
.pl-mixed:hover,.pl-suspect:hover{border-color:#6B7686}
.pl-mixed.pl-chosen,.pl-suspect.pl-chosen{outline:2px solid #F2B705}
.pl-side-of,.pl-thumbs{display:flex;gap:4px}
.pl-side-of img,.pl-side-of .pl-none,.pl-thumbs img,.pl-thumbs .pl-none{width:40px;height:40px;object-fit:cover;
 border-radius:5px;border:1px solid rgba(138,147,163,.28);background:#fff;box-sizing:border-box;display:block}
.pl-side-of .pl-none,.pl-thumbs .pl-none{font-size:0}
.pl-both{display:flex;justify-content:space-between;gap:10px;font-size:12.5px;line-height:1.3}
.pl-both span{overflow:hidden;text-overflow:ellipsis;white-space:nowrap;min-width:0}
.pl-bar{height:8px;border-radius:4px;background:rgba(138,147,163,.16);margin:4px 0 3px}
.pl-bar i{display:block;height:8px;border-radius:4px;background:rgba(196,56,47,.38);overflow:hidden}
.pl-bar b{display:block;height:8px;background:#C4382F}
.pl-counts{display:flex;justify-content:space-between;gap:8px;font-size:11.5px;opacity:.85;
 font-variant-numeric:tabular-nums;white-space:nowrap}
.pl-suspects{display:grid;grid-template-columns:repeat(auto-fill,minmax(max(288px,24%),1fr));gap:12px}
.pl-suspect{display:grid;grid-template-columns:104px minmax(0,1fr);gap:6px 12px;border-radius:10px;
 border:1px solid rgba(138,147,163,.32);padding:10px;align-content:start}
.pl-suspect .pl-frame{position:relative}
.pl-suspect .pl-frame img,.pl-suspect .pl-frame .pl-none{width:104px;height:104px}
.pl-suspect.pl-strong .pl-frame img{border:3px dashed #C4382F}
.pl-classes-of{display:flex;flex-direction:column;gap:6px;justify-content:space-between;min-width:0}
.pl-words{font-size:12.5px;line-height:1.25;overflow:hidden;text-overflow:ellipsis;white-space:nowrap;margin-bottom:3px}
.pl-words small,.pl-counts small{font-size:11px;opacity:.72}
.pl-words small:first-child{margin-right:5px}
.pl-thumbs img,.pl-thumbs .pl-none{width:32px;height:32px}
.pl-suspect>.pl-counts{grid-column:1/-1}
"""
