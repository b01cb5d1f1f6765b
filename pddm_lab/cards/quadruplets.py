"""Mined quadruplets as squares of four pictures with their scores and distances on the edges."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from pddm_lab.cards.block import Block, digits_of, escaped, number, picture
from pddm_lab.figures import style_of


def quadruplet_card(
    quadruplet: Mapping[str, Any], images: Mapping[str, bytes | None], *, similarity: str = "pddm"
) -> Block:
    """One mined quadruplet as a square: i and j of one class above, their hard negatives k and l below.

    Args:
        quadruplet: a row of quadruplets.parquet.
        images: picture bytes by item id.
        similarity: the one that mined it, whose scores S are.
    """
    return Block(_quadruplet(quadruplet, images, similarity), _STYLE)


def quadruplet_grid(
    quadruplets: pd.DataFrame, images: Mapping[str, bytes | None], *, similarity: str = "pddm"
) -> Block:
    """Many quadruplets, as many to a row as fit."""
    cards = "".join(_quadruplet(row, images, similarity) for row in quadruplets.to_dict("records"))
    return Block(f'<div class="pl-quads">{cards}</div>', _STYLE)


def _quadruplet(row: Mapping[str, Any], images: Mapping[str, bytes | None], similarity: str) -> str:
    colour = style_of(similarity).colour
    classes = {"i": row["class_i"], "j": row["class_i"], "k": row["class_k"], "l": row["class_l"]}
    digits = digits_of([row["s_ij"], row["s_ik"], row["s_jl"]])

    def corner(letter: str) -> str:
        said = f"{letter}: {classes[letter]}, {row[letter]}"
        return (
            f'<div class="pl-corner" title="{escaped(said)}">{picture(images.get(str(row[letter])), said)}'
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
        said = f"Hinge {name}: margin + S {name} − S i–j = {number(slack)}; above 0 it is violated"
        return f'<div class="pl-hinge {"pl-bad" if slack > 0 else "pl-good"}" title="{escaped(said)}">{mark}</div>'

    return (
        f'<figure class="pl-quad"><figcaption>step {int(row["step"]):,}</figcaption><div class="pl-square">'
        f"{corner('i')}{edge('ij', 'across')}{corner('j')}{edge('ik', 'down')}<div></div>{edge('jl', 'down')}"
        f'{corner("k")}<div class="pl-hinges">{hinge("ik")}{hinge("jl")}</div>{corner("l")}</div></figure>'
    )


_STYLE = """
.pl-quads{display:grid;grid-template-columns:repeat(auto-fill,minmax(300px,1fr));gap:14px}
.pl-quad{margin:0;padding:10px 14px 12px;border:1px solid rgba(138,147,163,.32);border-radius:10px}
.pl-quad figcaption{font-size:12px;opacity:.72;margin-bottom:6px;font-variant-numeric:tabular-nums}
.pl-square{display:grid;grid-template-columns:92px minmax(88px,1fr) 92px;align-items:start}
.pl-corner{width:92px;position:relative}
.pl-corner img,.pl-corner .pl-none{width:92px;height:92px}
.pl-corner .pl-name{display:-webkit-box;-webkit-line-clamp:2;-webkit-box-orient:vertical;white-space:normal;
 overflow-wrap:anywhere;line-height:1.25}
.pl-edge{font-size:13px;font-variant-numeric:tabular-nums;position:relative;text-align:center}
.pl-edge span{white-space:nowrap}
.pl-edge i,.pl-value i{font-style:normal;font-weight:700}
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
"""
