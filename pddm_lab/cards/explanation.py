"""A pair explained: its two pictures, and its most important dimensions with the items at both ends of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pddm_lab.cards.html import Block, digits_of, escaped, number, pickable, picture, symbol, table
from pddm_lab.figures import style_of

if TYPE_CHECKING:
    from pddm_lab.analysis.explain import Explanation


@dataclass(frozen=True)
class Dimension:
    """One dimension of the features, for a row."""

    number: int
    low: float
    """Its lowest value in the gallery."""
    high: float
    """The highest."""
    a: float
    """The query's value."""
    b: float
    """The result's value."""
    least: Sequence[tuple[str, str]]
    """(id, class name) of the items with the lowest values."""
    most: Sequence[tuple[str, str]]
    """(id, class name) of the items with the highest values."""


def explained_pair(a: tuple[str, str], b: tuple[str, str], images: Mapping[str, bytes | None]) -> Block:
    """Two items side by side.

    Args:
        a: id and class name of the query.
        b: of the result.
    """
    shown = "".join(
        f"<figure>{picture(images.get(item), f'{kind}: {class_name}, {item}')}"
        f'<figcaption title="{escaped(item)}"><b>{kind}</b><br>{escaped(class_name)}</figcaption></figure>'
        for kind, (item, class_name) in (("Query", a), ("Result", b))
    )
    return Block(f'<div class="pl-pair">{shown}</div>', _STYLE)


def dimension_rows(why: Explanation, dimensions: Sequence[Dimension], images: Mapping[str, bytes | None]) -> Block:
    """The most important dimensions, a row each: where the pair lies in the gallery's range, and what it contributes.

    On the track the distance between both marks is u, and their middle is v. The bars to the left of the last line show
    the share of D², those to its right the contribution to S: below 0 it makes the pair less similar.
    """
    shares, parts = why.distance_shares, why.score_parts
    most_share = max((shares[one.number] for one in dimensions), default=0) or 1
    most_part = max((abs(parts[one.number]) for one in dimensions), default=0) or 1
    digits = digits_of([0, *(parts[one.number] for one in dimensions)])
    rows = []
    for one in dimensions:
        share, part, u, v = shares[one.number], parts[one.number], why.u[one.number], why.v[one.number]
        also = ""
        if why.mahalanobis_shares is not None:
            also = f"<td>{number(100 * why.mahalanobis_shares[one.number], 1)} %</td>"
        rows.append(
            f'<tr><th scope="row">{one.number}</th><td class="pl-end">{_strip(one.least, images, "least")}</td>'
            f'<td class="pl-where">{_track(one)}</td><td class="pl-end">{_strip(one.most, images, "most")}</td>'
            f"<td>{number(u)}</td><td>{number(v)}</td>{also}"
            f'<td class="pl-left">{_bar(share / most_share, f"{number(100 * share, 1)} %", "euclidean")}</td>'
            f'<td class="pl-right-of">{_bar(part / most_part, _signed(part, digits), "pddm")}</td></tr>'
        )
    heads = [
        ("dim.", "Dimension of the features"),
        ("least of it", "Items of the gallery with the lowest values"),
        ("query ● ○ result", "Between the lowest and the highest value in the gallery"),
        ("most of it", "Items of the gallery with the highest values"),
        ("u", "The difference |f_i - f_j| in this dimension"),
        ("v", "The mean (f_i + f_j) / 2 in this dimension"),
        *([("of D<sub>M</sub>²", "Share of the squared Mahalanobis distance")] * (why.mahalanobis_shares is not None)),
        ("of D²", "Share of the squared Euclidean distance"),
        ("to S", "Contribution of this dimension's difference to S, by integrated gradients from an identical pair"),
    ]
    head = "".join(f'<th scope="col" title="{hint}">{name}</th>' for name, hint in heads)
    return Block(table("pl-dims", head, rows), _STYLE)


def contributions(parts: Mapping[str, float], titles: Mapping[str, str], similarity: str) -> Block:
    """What each group of inputs contributes to a score, a row each; those below 0 make the pair less similar."""
    most, digits = max(map(abs, parts.values()), default=0) or 1, digits_of([0, *parts.values()])
    rows = [
        f'<tr><th scope="row">{escaped(titles[name])}</th>'
        f'<td class="pl-right-of">{_bar(part / most, _signed(part, digits), similarity)}</td></tr>'
        for name, part in parts.items()
    ]
    heads = f'<th scope="col">What the score looks at</th><th scope="col">to {symbol(similarity)}</th>'
    return Block(table("pl-dims pl-parts", heads, rows), _STYLE)


def _strip(items: Sequence[tuple[str, str]], images: Mapping[str, bytes | None], which: str) -> str:
    return "".join(
        f'<span class="pl-bit" {pickable(item, f"{class_name} · {item}")}>'
        f"{picture(images.get(item), f'{which}: {class_name}')}</span>"
        for item, class_name in items
    )


def _track(one: Dimension) -> str:
    """A line from the gallery's lowest to its highest value, with marks for query and result."""
    span = (one.high - one.low) or 1.0
    a, b = (min(max(100 * (value - one.low) / span, 0), 100) for value in (one.a, one.b))
    hint = f"query {number(one.a)}, result {number(one.b)}, gallery {number(one.low)} to {number(one.high)}"
    return (
        f'<div class="pl-track" role="img" aria-label="{hint}" title="{hint}">'
        f'<i style="left:{min(a, b):.1f}%;width:{abs(a - b):.1f}%"></i>'
        f'<b style="left:{a:.1f}%"></b><b class="pl-hollow" style="left:{b:.1f}%"></b></div>'
    )


def _bar(share: float, text: str, similarity: str) -> str:
    kind = "pl-adds" if share > 0 and similarity != "euclidean" else ""
    colour = style_of(similarity).colour
    return f'<div class="pl-bar"><i class="{kind}" style="width:{60 * abs(share):.1f}%;--bar:{colour}"></i>{text}</div>'


def _signed(value: float, digits: int) -> str:
    text = number(value, digits)
    return f"+{text}" if float(text.replace("−", "-")) > 0 else text


_STYLE = """
.pl-pair{display:grid;grid-template-columns:1fr 1fr;gap:12px}
.pl-pair figure{margin:0;min-width:0}
.pl-pair img,.pl-pair .pl-none{width:100%;aspect-ratio:1;object-fit:cover;border-radius:6px;
 display:block;box-sizing:border-box;border:1px solid rgba(138,147,163,.28)}
.pl-pair figcaption{font-size:12.5px;line-height:1.35;margin-top:4px;overflow-wrap:anywhere}
.pl-scroll .pl-dims{font-size:12.5px}
.pl-dims th,.pl-dims td{padding:4px 6px}
.pl-dims th:nth-child(-n+4),.pl-dims td:nth-child(-n+4){text-align:left}
.pl-dims th:nth-child(3){text-align:center}
.pl-dims th:last-child{text-align:left}
.pl-dims.pl-parts td,.pl-dims.pl-parts th:nth-child(2){text-align:left}
.pl-bit{display:inline-block;width:34px;height:34px;margin-right:3px;border-radius:5px;
 vertical-align:middle}
.pl-bit img,.pl-bit .pl-none{width:34px;height:34px;object-fit:cover;background:#fff;border-radius:5px;display:block;
 box-sizing:border-box;border:1px solid rgba(138,147,163,.28);font-size:0}
.pl-end{width:1%}
.pl-where{min-width:90px}
.pl-track{position:relative;height:12px;margin:0 7px}
.pl-track::before{content:"";position:absolute;left:-6px;right:-6px;top:5px;height:2px;border-radius:2px;
 background:rgba(138,147,163,.4)}
.pl-track i{position:absolute;top:4px;height:4px;background:currentColor;opacity:.55}
.pl-track b{position:absolute;top:0;width:12px;height:12px;margin-left:-6px;border-radius:99px;background:currentColor;
 box-sizing:border-box}
.pl-track .pl-hollow{background:var(--pl-page,#fff);border:2.5px solid currentColor}
.pl-bar{display:flex;align-items:center;gap:5px;min-width:112px}
.pl-left .pl-bar{flex-direction:row-reverse}
.pl-bar i{display:block;height:13px;background:var(--bar);border-radius:2px;min-width:1px}
.pl-bar .pl-adds{background:none;border:2px solid var(--bar);box-sizing:border-box}
.pl-dims .pl-left{padding-right:0;width:1%}
.pl-dims .pl-right-of{padding-left:0;border-left:1px solid rgba(138,147,163,.6);text-align:left;width:1%}
"""
