"""Pairs of items as two pictures with their similarities on the edge between them, and what thresholds do to pairs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from pddm_lab.analysis.thresholds import QUADRANTS, ByDensity
from pddm_lab.cards.html import Block, digits_of, escaped, number, pickable, picture, swatch, symbol, table
from pddm_lab.figures import shown, style_of


def pair_grid(
    pairs: pd.DataFrame, images: Mapping[str, bytes | None], similarities: Sequence[str], *, chosen: Sequence[str] = ()
) -> Block:
    """Pairs as cards in a grid. The edge of a positive pair is solid, that of a negative pair dashed.

    Args:
        pairs: item_a, item_b, class_a, class_b, positive, and each similarity, larger = more similar.
        similarities: whose values are shown on the edge.
        chosen: both ids of the pair to mark.
    """
    return Block(f'<div class="pl-pairs">{_cards(pairs, images, similarities, chosen)}</div>', _STYLE)


def pair_strip(
    pairs: pd.DataFrame, images: Mapping[str, bytes | None], similarity: str, threshold: float, *,
    chosen: Sequence[str] = (),
) -> Block:  # fmt: skip
    """The pairs nearest to a threshold in one row: rejected pairs on the left, accepted pairs on the right.

    Values have the decimals that it takes to tell them from the threshold.

    Args:
        pairs: as for `pair_grid`, with `accepted`, least similar first.
        threshold: a similarity, not a distance.
    """
    sides = [pairs[pairs["accepted"] == side] for side in (False, True)]
    style = style_of(similarity)
    at = number(shown(similarity, np.array(threshold)), 3)
    rejected, accepted = (
        f'<div class="pl-side" style="--pl-count:{len(side)}">{_cards(side, images, [similarity], chosen, 5)}</div>'
        if len(side)
        else '<div class="pl-side pl-empty">no such pair in the sample</div>'
        for side in sides
    )
    line = (
        f'<div class="pl-line" style="--pl-colour:{style.colour}" role="separator" '
        f'aria-label="threshold at {at}"><span>{symbol(similarity)} = {at}</span></div>'
    )
    return Block(f'<div class="pl-strip">{rejected}{line}{accepted}</div>', _STYLE)


def quadrant_table(counts: pd.DataFrame, x: str, y: str) -> Block:
    """How many pairs of each kind either similarity accepts, in the layout of the joint plot.

    Args:
        counts: a row per quadrant (an index of `QUADRANTS`), columns positive and negative.
    """
    totals = counts.sum()

    def cell(quadrant: str) -> str:
        lines = []
        for kind in ("positive", "negative"):
            count, total = int(counts.loc[quadrant, kind]), int(totals[kind])
            share = f"{100 * count / total:.1f} %" if total else "–"
            lines.append(f'<span class="pl-count"><b>{count:,}</b> {kind} <small>{share}</small></span>')
        differs = " pl-differs" if quadrant in ("x", "y") else ""
        return f'<td class="pl-quadrant{differs}">{"".join(lines)}</td>'

    x_title, y_title = escaped(style_of(x).title), escaped(style_of(y).title)
    assert set(counts.index) == set(QUADRANTS)
    return Block(
        f'<table class="pl-quadrants"><thead><tr><td></td><th scope="col">{x_title} rejects</th>'
        f'<th scope="col">{x_title} accepts</th></tr></thead><tbody>'
        f'<tr><th scope="row">{y_title} accepts</th>{cell("y")}{cell("both")}</tr>'
        f'<tr><th scope="row">{y_title} rejects</th>{cell("neither")}{cell("x")}</tr></tbody></table>',
        _STYLE,
    )


def density_table(results: Mapping[str, ByDensity]) -> Block:
    """One threshold by density: each third's rates with 95 % intervals, and the threshold that it would need."""
    rows: list[str] = []
    for name, result in results.items():
        style, thirds = style_of(name), result.table
        digits = max(2, digits_of(thirds["own"]) + 1)
        at = number(shown(name, np.array(result.threshold)), digits)
        rows.append(
            f'<tr class="pl-opens"><th scope="rowgroup" colspan="5">{swatch(style.colour)}{escaped(style.title)}, '
            f"one threshold: {symbol(name)} = {at}</th></tr>"
        )
        for row in thirds.to_dict("records"):
            own = number(shown(name, np.array(row["own"])), digits) if np.isfinite(row["own"]) else "–"
            cells = (_rate(row, "tpr", 1), _rate(row, "fpr", 2), own, _rate(row, "own_tpr", 1))
            rows.append(
                f'<tr><th scope="row">{row["density"]}<small>{row["positives"]:,} + {row["negatives"]:,}</small></th>'
                f"{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
            )
    titles = (
        "third<small>positive + negative</small>", "TPR, %<small>95 % interval</small>",
        "FPR, %<small>95 % interval</small>", "needs<small>threshold</small>",
        "TPR then, %<small>95 % interval</small>",
    )  # fmt: skip
    head = "".join(f'<th scope="col">{title}</th>' for title in titles)
    return Block(table("pl-table pl-thirds", head, rows), _STYLE)


def _rate(row: Mapping[str, Any], name: str, digits: int) -> str:
    if not np.isfinite(row[name]):
        return "–"
    ends = [f"{100 * row[f'{name}_{end}']:.{digits}f}" for end in ("low", "high")]
    return f"{100 * row[name]:.{digits}f}<small>{ends[0]} – {ends[1]}</small>"


def _cards(
    pairs: pd.DataFrame, images: Mapping[str, bytes | None], similarities: Sequence[str], chosen: Sequence[str],
    most: int = 3,
) -> str:  # fmt: skip
    digits = {name: digits_of(pairs[name], most) for name in similarities}
    return "".join(_card(row, images, digits, set(chosen)) for row in pairs.to_dict("records"))


def _card(row: Mapping[str, Any], images: Mapping[str, bytes | None], digits: Mapping[str, int], chosen: set) -> str:
    kind = "positive" if row["positive"] else "negative"
    values = [
        (style_of(name), symbol(name), number(shown(name, np.array(row[name])), decimals))
        for name, decimals in digits.items()
    ]
    hint = f"A {kind} pair: {row['class_a']} and {row['class_b']}, " + ", ".join(
        f"{style.title} {value}" for style, _, value in values
    )
    on_edge = "".join(
        f'<span><i style="color:{style.colour}">{letter}</i> {value}</span>' for style, letter, value in values
    )
    ends = [
        f'<div class="pl-frame">{picture(images.get(str(row[f"item_{end}"])), str(row[f"class_{end}"]))}'
        f'<div class="pl-name">{escaped(row[f"class_{end}"])}</div></div>'
        for end in "ab"
    ]
    marked = " pl-chosen" if chosen == {row["item_a"], row["item_b"]} else ""
    pick = pickable(json.dumps([row["item_a"], row["item_b"]], ensure_ascii=False), hint)
    edge = f'<div class="pl-edge">{on_edge}</div>'
    return f'<div class="pl-pair pl-{kind}{marked}" {pick}>{ends[0]}{edge}{ends[1]}</div>'


_STYLE = """
.pl-pairs{display:grid;grid-template-columns:repeat(auto-fill,minmax(104px,1fr));gap:14px}
.pl-strip{display:grid;grid-template-columns:minmax(0,1fr) auto minmax(0,1fr);gap:14px;align-items:stretch}
.pl-side{display:grid;grid-template-columns:repeat(5,minmax(0,1fr));gap:10px}
.pl-side:first-child .pl-pair:first-child{grid-column-start:calc(6 - var(--pl-count))}
.pl-side.pl-empty{display:block;font-size:12px;opacity:.7;align-self:center}
.pl-line{border-left:2px solid var(--pl-colour);position:relative;width:0;margin:0 2px}
.pl-line span{position:absolute;top:50%;left:-1px;transform:translate(-50%,-50%) rotate(180deg);
 writing-mode:vertical-rl;font-size:11.5px;white-space:nowrap;padding:6px 2px;border-radius:6px;
 background:var(--pl-colour);color:#fff;font-variant-numeric:tabular-nums}
.pl-pair{min-width:0;border-radius:8px;outline-offset:3px;border:1px solid rgba(138,147,163,.28);
 padding:6px}
.pl-pair:hover{border-color:#6B7686}
.pl-pair.pl-chosen{outline:2px solid #F2B705}
.pl-pair .pl-frame img,.pl-pair .pl-frame .pl-none{width:100%;aspect-ratio:1;height:auto;border:0}
.pl-pair .pl-name{font-size:11.5px}
.pl-pair .pl-edge{margin:3px 0 5px 10px;padding:2px 0 2px 8px;border-left:2px solid #6B7686;font-size:12px;
 display:flex;flex-direction:column;gap:1px;font-variant-numeric:tabular-nums;white-space:nowrap;overflow:hidden}
.pl-pair.pl-negative .pl-edge{border-left:2px dashed #8A93A3}
.pl-pair .pl-edge i{font-style:normal;font-weight:700}
.pl-quadrants{border-collapse:separate;border-spacing:3px;width:100%;margin:0;font-variant-numeric:tabular-nums}
.pl-quadrants thead td{border:0}
.pl-quadrants th{font-size:12.5px;font-weight:400;opacity:.8;border:0;padding:2px 4px;text-align:center}
.pl-quadrants th[scope=row]{text-align:right;width:1%}
.pl-quadrant{border:1px solid rgba(138,147,163,.3)!important;border-radius:8px;padding:7px 8px!important;width:44%}
.pl-quadrant.pl-differs{background:rgba(138,147,163,.13)}
.pl-count{display:block;font-size:12.5px;white-space:nowrap}
.pl-count small{opacity:.7;font-size:11.5px}
.pl-thirds th,.pl-thirds td{padding:4px 6px;vertical-align:top}
.pl-thirds th[scope=row],.pl-thirds th[scope=rowgroup],.pl-thirds th:first-child{text-align:left}
.pl-thirds .pl-opens th{padding-top:8px}
"""
