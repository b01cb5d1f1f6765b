"""Mined quadruplets as squares of four pictures, with scores and distances on the edges and the reason for each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from pddm_lab.cards.html import Block, digits_of, escaped, number, pickable, picture
from pddm_lab.figures import style_of


def quadruplet_card(
    quadruplet: Mapping[str, Any], images: Mapping[str, bytes | None], *, similarity: str = "pddm",
    mined_by: str = "", margin: float | None = None,
) -> Block:  # fmt: skip
    """One mined quadruplet as a square: i and j of one class above, their hard negatives k and l below.

    Args:
        quadruplet: a row of quadruplets.parquet. If it has columns of what Euclidean mining would have chosen
            (e_j, ...), those pictures follow below.
        similarity: the trained one, whose scores S are.
        mined_by: the similarity that mined it; empty for the trained one.
        margin: of the scores; if given, the card explains why each picture was chosen. The row then needs `positives`:
            how many positives i had in its batch, NaN if the batch gave one quadruplet in all
            (`pddm_lab.runs.quadruplets.Mined.positives`).
    """
    return Block(_quadruplet(quadruplet, images, similarity, mined_by or similarity, margin), _STYLE)


def quadruplet_grid(
    quadruplets: pd.DataFrame, images: Mapping[str, bytes | None], *, similarity: str = "pddm", mined_by: str = "",
    margin: float | None = None,
) -> Block:  # fmt: skip
    """Many quadruplets in a grid; see `quadruplet_card`."""
    cards = "".join(
        _quadruplet(row, images, similarity, mined_by or similarity, margin) for row in quadruplets.to_dict("records")
    )
    return Block(f'<div class="pl-quads">{cards}</div>', _STYLE)


def _quadruplet(
    row: Mapping[str, Any], images: Mapping[str, bytes | None], similarity: str, mined_by: str, margin: float | None
) -> str:
    colour = style_of(similarity).colour
    classes = {"i": row["class_i"], "j": row["class_i"], "k": row["class_k"], "l": row["class_l"]}
    digits = digits_of([row["s_ij"], row["s_ik"], row["s_jl"]])

    def corner(letter: str) -> str:
        hint = f"{letter}: {classes[letter]}, {row[letter]}"
        return (
            f'<div class="pl-corner" {pickable(row[letter], hint)}>{picture(images.get(str(row[letter])), hint)}'
            f'<span class="pl-rank">{letter}</span><div class="pl-name">{escaped(classes[letter])}</div></div>'
        )

    def edge(pair: str, where: str) -> str:
        broken = " pl-broken" if row.get(f"slack_{pair}", np.nan) > 0 else ""
        score, distance = number(row[f"s_{pair}"], digits), number(row[f"d_{pair}"])
        return (
            f'<div class="pl-edge pl-{where}{broken}"><span><i style="color:{colour}">S</i> {score}</span>'
            f'<span><i class="pl-d">D</i> {distance}</span></div>'
        )

    def hinge(pair: str) -> str:
        slack, name = row[f"slack_{pair}"], f"{pair[0]}–{pair[1]}"
        mark = f"✕ {name} by {number(slack)}" if slack > 0 else f"✓ {name} holds"
        hint = f"Hinge {name}: margin + S {name} − S i–j = {number(slack)}; above 0 it is violated"
        return f'<div class="pl-hinge {"pl-bad" if slack > 0 else "pl-good"}" title="{escaped(hint)}">{mark}</div>'

    return (
        f'<figure class="pl-quad"><figcaption>step {int(row["step"]):,}</figcaption><div class="pl-square">'
        f"{corner('i')}{edge('ij', 'across')}{corner('j')}{edge('ik', 'down')}<div></div>{edge('jl', 'down')}"
        f'{corner("k")}<div class="pl-hinges">{hinge("ik")}{hinge("jl")}</div>{corner("l")}</div>'
        f"{_instead(row, images, colour, digits)}{_reasons(row, mined_by, margin, digits)}</figure>"
    )


def _instead(row: Mapping[str, Any], images: Mapping[str, bytes | None], colour: str, digits: int) -> str:
    """What Euclidean mining would have chosen from the same batch; empty if that was not logged."""
    if not isinstance(row.get("e_i"), str):
        return ""
    letters = "jkl" if row["e_i"] == row["i"] else "ijkl"
    if all(row[f"e_{letter}"] == row[letter] for letter in letters):
        return '<div class="pl-instead"><span>Euclidean mining chooses the same four.</span></div>'
    pairs = {"i": "ij", "j": "ij", "k": "ik", "l": "jl"}
    classes = {"i": row["e_class_i"], "j": row["e_class_i"], "k": row["e_class_k"], "l": row["e_class_l"]}
    cells = []
    for letter in letters:
        item, pair = str(row[f"e_{letter}"]), pairs[letter]
        if item == row[letter]:
            cells.append(f'<div class="pl-other"><div><b>{letter}</b><br>the same</div></div>')
            continue
        distance, score = number(row[f"e_d_{pair}"]), number(row[f"e_s_{pair}"], min(digits, 3))
        end = {"i": "j′", "j": "i", "k": "i", "l": "j′"}[letter]
        hint = f"{letter}′ of Euclidean mining: {classes[letter]}, {item}; D {distance} and S {score} to its {end}"
        cells.append(
            f'<div class="pl-other" title="{escaped(hint)}">{picture(images.get(item), hint)}<div><b>{letter}′</b> '
            f'<i class="pl-d">D</i> {distance}<br><i style="color:{colour}">S</i> {score}</div></div>'
        )
    many = ' class="pl-four"' if len(cells) == 4 else ""
    return f'<div class="pl-instead"><span>Euclidean mining chooses</span><div{many}>{"".join(cells)}</div></div>'


def _reasons(row: Mapping[str, Any], mined_by: str, margin: float | None, digits: int) -> str:
    if margin is None:
        return ""
    by = f"by {style_of(mined_by).title}"
    positives = row["positives"]
    s_ij, s_ik, s_jl = (number(row[name], digits) for name in ("s_ij", "s_ik", "s_jl"))
    if np.isfinite(positives):
        of = f"{int(positives)} positives" if positives > 1 else "one positive"
        first = "the anchor: every item of a batch is the anchor once"
        second = f"{'the least similar of' if positives > 1 else 'its'} {of} in the batch, {by}"
    else:
        first = f"i and j are the least similar positive pair of the batch, {by}"
        second = "the other end of that pair"

    def negative(end: str, slack: float, score: str) -> str:
        terms = [f"({term})" if term.startswith("−") else term for term in (score, s_ij)]
        state = "above 0, violated" if slack > 0 else "not above 0, it holds"
        value = f"{margin:g} + {terms[0]} − {terms[1]} = {number(slack, digits)}"
        return f"the negative most similar to {end}, {by}. Its hinge: {value}, {state}"

    lines = {
        "i": first, "j": second, "k": negative("i", row["slack_ik"], s_ik), "l": negative("j", row["slack_jl"], s_jl),
    }  # fmt: skip
    reasons = "".join(f"<dt>{letter}</dt><dd>{escaped(line)}</dd>" for letter, line in lines.items())
    return f'<details class="pl-why"><summary>Why these four</summary><dl>{reasons}</dl></details>'


_STYLE = """
.pl-quads{display:grid;grid-template-columns:repeat(auto-fill,minmax(max(288px,24%),1fr));gap:14px}
.pl-quad{margin:0;padding:10px 14px 12px;border:1px solid rgba(138,147,163,.32);border-radius:10px}
.pl-quad figcaption{font-size:12px;opacity:.72;margin-bottom:6px;font-variant-numeric:tabular-nums}
.pl-square{display:grid;grid-template-columns:92px minmax(78px,1fr) 92px;align-items:start}
.pl-corner{width:92px;position:relative;border-radius:6px}
.pl-corner img,.pl-corner .pl-none{width:92px;height:92px}
.pl-corner .pl-name{display:-webkit-box;-webkit-line-clamp:2;-webkit-box-orient:vertical;white-space:normal;
 overflow-wrap:anywhere;line-height:1.25;min-height:2.5em}
.pl-edge{font-size:13px;font-variant-numeric:tabular-nums;position:relative;text-align:center}
.pl-edge span{white-space:nowrap}
.pl-edge i,.pl-value i,.pl-other i{font-style:normal;font-weight:700}
.pl-d{color:#2F78D0}
.pl-across{display:flex;flex-direction:column;gap:7px;padding:17px 6px 0}
.pl-across span:first-child{border-bottom:2px solid #6B7686;padding-bottom:4px}
.pl-down{display:flex;flex-direction:column;gap:2px;padding:4px 0 4px 10px;margin:2px 0 2px 45px;
 text-align:left;border-left:2px dashed #8A93A3;align-self:stretch;justify-content:center}
.pl-broken{border-left:3px dashed #C4382F}
.pl-hinges{display:flex;flex-direction:column;gap:5px;align-items:center;padding-top:21px}
.pl-hinge{font-size:11.5px;line-height:1;padding:4px 7px;border-radius:99px;white-space:nowrap;
 font-variant-numeric:tabular-nums}
.pl-hinge.pl-bad{background:#C4382F;color:#fff}
.pl-hinge.pl-good{border:1px solid rgba(138,147,163,.5)}
.pl-instead{margin-top:8px;padding-top:8px;font-size:11.5px;line-height:1.35;
 border-top:1px solid rgba(138,147,163,.25)}
.pl-instead>span{opacity:.78;font-size:12px}
.pl-instead>div{display:grid;grid-auto-flow:column;grid-auto-columns:1fr;gap:8px;margin-top:5px;min-height:36px}
.pl-instead>div.pl-four{grid-auto-flow:row;grid-template-columns:1fr 1fr}
.pl-other{display:flex;gap:5px;align-items:center;white-space:nowrap;font-variant-numeric:tabular-nums}
.pl-other img,.pl-other .pl-none{width:36px;height:36px;object-fit:cover;border-radius:5px;box-sizing:border-box;
 border:1px solid rgba(138,147,163,.28);background:#fff}
.pl-other .pl-none{font-size:0}
.pl-why{font-size:12px;margin-top:8px}
.pl-why summary{cursor:pointer;opacity:.78}
.pl-why dl{display:grid;grid-template-columns:auto 1fr;gap:3px 8px;margin:6px 0 0!important}
.pl-why dt{font-weight:700;opacity:1}
.pl-why dd{margin:0!important;font-variant-numeric:tabular-nums}
"""
