"""Pictures with their numbers as HTML blocks, for notebooks and the dashboard alike: quadruplets, results, tables.

A block carries its pictures as data URIs and its style with it: one element on a page however many pictures it holds,
and nothing to load. It takes text and background from where it is put, so that it fits a light and a dark page.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pddm_lab.figures import METRICS, in_order, shown, style_of

RIGHT, WRONG = "#17875A", "#C4382F"


@dataclass(frozen=True)
class Block:
    """A piece of HTML. Notebooks show it by itself; `st.html` takes it as it is."""

    body: str

    def _repr_html_(self) -> str:
        return f"<style>{_CSS}</style>{self.body}"

    __str__ = _repr_html_


def picture(data: bytes | None, alt: str) -> str:
    """An <img> with the picture in it; a quiet placeholder where there is none.

    Args:
        data: JPEG, PNG, WebP or GIF bytes.
        alt: what a person who can't see it is told.
    """
    if not data:
        return f'<span class="pl-none" role="img" aria-label="{_text(alt)}, picture missing">no picture</span>'
    kind = (
        "png"
        if data[:4] == b"\x89PNG"
        else "gif"
        if data[:3] == b"GIF"
        else "webp"
        if data[8:12] == b"WEBP"
        else "jpeg"
    )
    return f'<img alt="{_text(alt)}" src="data:image/{kind};base64,{base64.b64encode(data).decode()}">'


def quadruplet_card(
    quadruplet: Mapping[str, Any], images: Mapping[str, bytes | None], *, similarity: str = "pddm"
) -> Block:
    """One mined quadruplet as a square: i and j of one class above, their hard negatives k and l below.

    Args:
        quadruplet: a row of quadruplets.parquet.
        images: picture bytes by item id.
        similarity: the one that mined it, whose scores S are.
    """
    return Block(_quadruplet(quadruplet, images, similarity))


def quadruplet_grid(
    quadruplets: pd.DataFrame, images: Mapping[str, bytes | None], *, similarity: str = "pddm"
) -> Block:
    """Many quadruplets, as many to a row as fit."""
    cards = "".join(_quadruplet(row, images, similarity) for row in quadruplets.to_dict("records"))
    return Block(f'<div class="pl-quads">{cards}</div>')


def _quadruplet(row: Mapping[str, Any], images: Mapping[str, bytes | None], similarity: str) -> str:
    colour = style_of(similarity).colour
    classes = {"i": row["class_i"], "j": row["class_i"], "k": row["class_k"], "l": row["class_l"]}
    digits = _digits([row["s_ij"], row["s_ik"], row["s_jl"]])

    def corner(letter: str) -> str:
        said = f"{letter}: {classes[letter]}, {row[letter]}"
        return (
            f'<div class="pl-corner" title="{_text(said)}">{picture(images.get(str(row[letter])), said)}'
            f'<span class="pl-rank">{letter}</span><div class="pl-name">{_text(classes[letter])}</div></div>'
        )

    def edge(pair: str, where: str) -> str:
        broken = " pl-broken" if row.get(f"slack_{pair}", np.nan) > 0 else ""
        score, distance = _number(row[f"s_{pair}"], digits), _number(row[f"d_{pair}"])
        return (
            f'<div class="pl-edge pl-{where}{broken}"><span><i style="color:{colour}">S</i> {score}</span>'
            f'<span><i class="pl-d">D</i> {distance}</span></div>'
        )

    def hinge(pair: str) -> str:
        slack, name = row[f"slack_{pair}"], f"{pair[0]}–{pair[1]}"
        mark = f"✕ {name} by {_number(slack)}" if slack > 0 else f"✓ {name} holds"
        said = f"Hinge {name}: margin + S {name} − S i–j = {_number(slack)}; above 0 it is violated"
        return f'<div class="pl-hinge {"pl-bad" if slack > 0 else "pl-good"}" title="{_text(said)}">{mark}</div>'

    return (
        f'<figure class="pl-quad"><figcaption>step {int(row["step"]):,}</figcaption><div class="pl-square">'
        f"{corner('i')}{edge('ij', 'across')}{corner('j')}{edge('ik', 'down')}<div></div>{edge('jl', 'down')}"
        f'{corner("k")}<div class="pl-hinges">{hinge("ik")}{hinge("jl")}</div>{corner("l")}</div></figure>'
    )


def retrieval_grid(
    results: pd.DataFrame, images: Mapping[str, bytes | None], similarity: str, *, right_class: str | None = None
) -> Block:
    """A ranked list of pictures, best first.

    Args:
        results: id, class_name, rank (from 1), value (of the similarity, larger = more similar); optional rank_change
            (places won against the other ranking, NaN where that one doesn't hold the item).
        images: picture bytes by item id.
        similarity: the one that ranked.
        right_class: the query's class, to mark right and wrong; None where it is unknown.
    """
    style = style_of(similarity)
    letter = "D" if style.distance else "S" if similarity == "pddm" else "s"
    values = shown(similarity, results["value"].to_numpy(dtype=float))
    tiles, digits = [], _digits(values)
    for row, value in zip(results.to_dict("records"), values, strict=True):
        verdict = "" if right_class is None else "right" if row["class_name"] == right_class else "wrong"
        mark = {"right": '<b class="pl-mark pl-good">✓</b>', "wrong": '<b class="pl-mark pl-bad">✕</b>', "": ""}[
            verdict
        ]
        said = f"Rank {int(row['rank'])}: {row['class_name']}" + (f", {verdict} class" if verdict else "")
        over = f'<span class="pl-rank">{int(row["rank"])}</span>{mark}'
        below = (
            f'<div class="pl-value"><span><i style="color:{style.colour}">{letter}</i> {_number(value, digits)}</span>'
            f"{_change(row.get('rank_change'))}</div>"
        )
        tiles.append(_tile(row["id"], row["class_name"], images, said, verdict or "plain", over, below))
    return Block(f'<div class="pl-tiles">{"".join(tiles)}</div>')


def image_grid(
    items: Iterable[tuple[str, str]], images: Mapping[str, bytes | None], *, chosen: str = "", small: bool = False
) -> Block:
    """Items as thumbnails with their class names below.

    Args:
        items: (id, class name) pairs.
        images: picture bytes by item id.
        chosen: id of the one to mark.
    """
    tiles = "".join(
        _tile(name, class_name, images, class_name, "chosen" if name == chosen else "plain")
        for name, class_name in items
    )
    return Block(f'<div class="pl-tiles{" pl-small" if small else ""}">{tiles}</div>')


def _tile(
    item: str,
    class_name: str,
    images: Mapping[str, bytes | None],
    said: str,
    look: str,
    over: str = "",
    below: str = "",
) -> str:
    """One picture with its class name; `data-pick` lets a page take a click on it as choosing the item."""
    return (
        f'<div class="pl-tile pl-{look}" data-pick="{_text(item)}" role="button" tabindex="0" '
        f'title="{_text(said)} · {_text(item)}"><div class="pl-frame">{picture(images.get(item), said)}{over}</div>'
        f'<div class="pl-name">{_text(class_name)}</div>{below}</div>'
    )


def metrics_table(
    table: pd.DataFrame, protocol: str, *, metrics: Sequence[str] = tuple(METRICS), best_of_each: bool = False
) -> Block:
    """Final metrics of one protocol: a row per run and similarity, a column per metric with its unit, the best in bold.

    Args:
        table: run, protocol, similarity, metric, value.
        protocol: the rows to take.
        metrics: columns; those without a value are left out.
        best_of_each: the best of each run in bold rather than of all: for runs that were measured on different items.
    """
    table = table[table["protocol"] == protocol]
    columns = [metric for metric in metrics if (table["metric"] == metric).any()]
    runs = list(dict.fromkeys(table["run"]))
    values = table.set_index(["run", "similarity", "metric"])["value"]
    rows: list[str] = []
    for run in runs:
        best = _best(table[table["run"] == run] if best_of_each else table, columns)
        for number, name in enumerate(in_order(table.loc[table["run"] == run, "similarity"])):
            style, cells = style_of(name), []
            for metric in columns:
                text = METRICS[metric].format(values.get((run, name, metric), np.nan))
                cells.append(f"<td><b>{text}</b></td>" if text == best.get(metric) else f"<td>{text}</td>")
            first = f'<th scope="row" class="pl-run">{_text(run) if not number else ""}</th>' if len(runs) > 1 else ""
            swatch = f'<span class="pl-swatch" style="background:{style.colour}"></span>'
            opens = ' class="pl-opens"' if not number and rows else ""
            rows.append(f'<tr{opens}>{first}<th scope="row">{swatch}{_text(style.title)}</th>{"".join(cells)}</tr>')
    heads = "".join(f'<th scope="col" title="{_text(METRICS[name].help)}">{_heading(name)}</th>' for name in columns)
    corner = ("<th></th>" if len(runs) > 1 else "") + '<th scope="col" class="pl-first">ranked by</th>'
    return Block(
        f'<div class="pl-scroll"><table class="pl-table"><thead><tr>{corner}{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _best(table: pd.DataFrame, metrics: Sequence[str]) -> dict[str, str]:
    """The best value of each metric that more than one row has, as it is written."""
    best = {}
    for metric in metrics:
        values = table.loc[table["metric"] == metric, "value"].dropna()
        if len(values) > 1:
            known = METRICS[metric]
            best[metric] = known.format(values.max() if known.larger_is_better else values.min())
    return best


def _heading(metric: str) -> str:
    known = METRICS[metric]
    return f"{_text(known.title)}<small>{_text(known.unit) or '&nbsp;'}</small>"


def stepper(steps: Sequence[str], at: int) -> Block:
    """Steps of a longer work in a row: those done, the one at hand, those to come."""
    words = ("done", "now", "to come")
    items = []
    for number, step in enumerate(steps):
        state = 0 if number < at else 1 if number == at else 2
        current = ' aria-current="step"' if state == 1 else ""
        items.append(f'<li class="pl-step-{state}"{current} title="{words[state]}">{_text(step)}</li>')
    return Block(f'<ol class="pl-steps">{"".join(items)}</ol>')


def facts(pairs: Mapping[str, str]) -> Block:
    """Short facts as a list of two columns."""
    rows = "".join(f"<dt>{_text(name)}</dt><dd>{_text(value)}</dd>" for name, value in pairs.items())
    return Block(f'<dl class="pl-facts">{rows}</dl>')


def _change(change: Any) -> str:
    """Places won or lost against the other ranking."""
    if change is None or not np.isfinite(change):
        return ""
    if not change:
        return '<span class="pl-change" title="same rank in both">=</span>'
    arrow, words = ("▲", "earlier") if change > 0 else ("▼", "later")
    places = abs(int(change))
    return f'<span class="pl-change" title="{places} places {words} than in the other ranking">{arrow}{places}</span>'


def _number(value: Any, digits: int = 2) -> str:
    text = f"{float(value):.{digits}f}"
    return (text.lstrip("-") if not float(text) else text).replace("-", "−")


def _digits(values: Iterable[float]) -> int:
    """Decimals that tell values apart: two, and more where all of them are close together."""
    numbers = np.array([value for value in values if np.isfinite(value)])
    spread = float(np.ptp(numbers)) if len(numbers) else 0.0
    return int(np.clip(np.ceil(1 - np.log10(spread)), 2, 5)) if spread else 2


def _text(value: Any) -> str:
    return html.escape(str(value), quote=True)


_CSS = """
.pl-quads{display:grid;grid-template-columns:repeat(auto-fill,minmax(300px,1fr));gap:14px}
.pl-quad{margin:0;padding:10px 14px 12px;border:1px solid rgba(138,147,163,.32);border-radius:10px}
.pl-quad figcaption{font-size:12px;opacity:.72;margin-bottom:6px;font-variant-numeric:tabular-nums}
.pl-square{display:grid;grid-template-columns:92px minmax(88px,1fr) 92px;align-items:start}
.pl-corner{width:92px;position:relative}
.pl-corner img,.pl-corner .pl-none{width:92px;height:92px}
.pl-corner img,.pl-frame img,.pl-none{object-fit:cover;background:#fff;border-radius:6px;display:block;
 box-sizing:border-box;border:1px solid rgba(138,147,163,.28)}
.pl-none{display:grid;place-items:center;font-size:11px;color:#6B7686;width:100%;aspect-ratio:1}
.pl-name{font-size:12px;line-height:1.35;margin-top:3px;white-space:nowrap;overflow:hidden;text-overflow:ellipsis}
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
.pl-tiles{display:grid;grid-template-columns:repeat(auto-fill,minmax(clamp(76px,6vw,116px),1fr));gap:10px}
.pl-small{grid-template-columns:repeat(auto-fill,minmax(66px,1fr));gap:8px}
.pl-tile{min-width:0;cursor:pointer;border-radius:8px;outline-offset:2px}
.pl-frame{position:relative}
.pl-frame img,.pl-frame .pl-none{width:100%;aspect-ratio:1;height:auto}
.pl-tile:hover img{border-color:#6B7686}
.pl-tile:focus-visible{outline:2px solid #2F78D0}
.pl-right img{border:3px solid #17875A}
.pl-wrong img{border:3px dashed #C4382F}
.pl-chosen img{border:3px solid #6B7686}
.pl-rank{position:absolute;left:5px;top:5px;font-size:11px;line-height:1;padding:3px 5px;border-radius:5px;
 background:rgba(20,26,36,.74);color:#fff;font-variant-numeric:tabular-nums}
.pl-mark{position:absolute;right:5px;top:5px;width:18px;height:18px;border-radius:99px;display:grid;place-items:center;
 color:#fff;font-size:11px;line-height:1}
.pl-mark.pl-good{background:#17875A}.pl-mark.pl-bad{background:#C4382F}
.pl-value{font-size:12px;display:flex;justify-content:space-between;font-variant-numeric:tabular-nums;white-space:nowrap}
.pl-change{opacity:.72}
.pl-scroll{overflow-x:auto}
.pl-table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums;font-size:14px;margin:0}
.pl-table th,.pl-table td{padding:6px 10px;text-align:right;border:0;border-top:1px solid rgba(138,147,163,.25);
 font-weight:400;white-space:nowrap}
.pl-table th[scope=row]{text-align:left}
.pl-table thead th{border-top:0;font-size:12.5px;vertical-align:bottom;opacity:.8}
.pl-table thead .pl-first{text-align:left}
.pl-table small{display:block;font-size:11px;opacity:.85}
.pl-table b{font-weight:700}
.pl-table .pl-opens th,.pl-table .pl-opens td{border-top:2px solid rgba(138,147,163,.5)}
.pl-run{max-width:230px;overflow:hidden;text-overflow:ellipsis}
.pl-facts{display:grid;grid-template-columns:auto 1fr;gap:3px 12px;margin:0!important;padding:0!important;
 font-size:13px;line-height:1.4}
.pl-facts dt{opacity:.66}
.pl-facts dd{margin:0;overflow-wrap:anywhere;font-variant-numeric:tabular-nums}
.pl-steps{list-style:none;display:flex;flex-wrap:wrap;gap:4px 20px;margin:0!important;padding:0!important;
 font-size:13px}
.pl-steps li{margin:0!important;padding:0 0 0 18px!important;position:relative}
.pl-steps li::before{content:"";position:absolute;left:0;top:.42em;width:9px;height:9px;border-radius:99px;
 border:2px solid currentColor;box-sizing:border-box}
.pl-step-0{opacity:.75}.pl-step-0::before{background:currentColor}
.pl-step-1{font-weight:650}.pl-step-1::before{background:linear-gradient(90deg,currentColor 50%,transparent 50%)}
.pl-step-2{opacity:.5}
.pl-swatch{display:inline-block;width:10px;height:10px;border-radius:3px;margin-right:8px}
"""
