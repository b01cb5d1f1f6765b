"""What an audit finds: tables of answers with their marks, and pictures that belong together with what they share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pddm_lab.cards.html import Block, escaped, picture

_MARKS = {"holds": ("✓", "holds"), "fails": ("✕", "does not hold"), "": ("", "")}


class Cell(NamedTuple):
    """A cell of an audit's table."""

    text: str
    mark: str = ""
    """ "holds", "fails" or nothing."""
    hint: str = ""
    """What it comes to in a sentence, for who points at it."""
    small: str = ""
    """A second, smaller line."""
    colour: str = ""
    """Of a swatch before it."""


class Head(NamedTuple):
    """A column's title."""

    text: str
    hint: str = ""
    small: str = ""


def audit_table(heads: Sequence[Head], rows: Sequence[Sequence[Cell]], *, words: int = 1) -> Block:
    """A table whose first column names its rows.

    Args:
        heads: a title per column.
        rows: a cell per column.
        words: columns from the left that hold words, and stand to the left; the others hold numbers.
    """
    head = "".join(
        f'<th scope="col" title="{escaped(one.hint)}"{_left(place < words)}>{escaped(one.text)}{_small(one.small)}</th>'
        for place, one in enumerate(heads)
    )
    body = "".join(
        "<tr>" + "".join(_cell(cell, not place, place < words) for place, cell in enumerate(row)) + "</tr>"
        for row in rows
    )
    return Block(
        f'<div class="pl-scroll"><table class="pl-audit"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>",
        _STYLE,
    )


def _cell(cell: Cell, first: bool, left: bool) -> str:
    sign, means = _MARKS[cell.mark]
    mark = f'<i class="pl-sign pl-{cell.mark}" role="img" aria-label="{means}">{sign}</i> ' if sign else ""
    swatch = f'<span class="pl-swatch" style="background:{escaped(cell.colour)}"></span>' if cell.colour else ""
    tag = 'th scope="row"' if first else "td"
    said = f' title="{escaped(cell.hint)}"' if cell.hint else ""
    inner = f"{mark}{swatch}{escaped(cell.text)}{_small(cell.small)}"
    return f"<{tag}{said}{_left(left, ' ' in cell.text)}>{inner}</{tag[:2]}>"


def _left(left: bool, wraps: bool = False) -> str:
    """A column of words; a single word, such as a licence's name, stays on one line."""
    return f' class="pl-left{" pl-wraps" if wraps else ""}"' if left else ""


def _small(text: str) -> str:
    return f"<small>{escaped(text)}</small>" if text else ""


class Tile(NamedTuple):
    """One picture of a few that belong together."""

    item: str
    class_name: str
    role: str = ""
    """What it is to the others: i, j, k, or its split."""


class TileSet(NamedTuple):
    """A few pictures and what is said of them."""

    shots: Sequence[Tile]
    lines: Sequence[str]
    """Short lines below the pictures; the first is the main one."""
    conflict: bool = False
    """Marks what should not be."""


def tile_sets(cards: Sequence[TileSet], images: Mapping[str, bytes | None], *, chosen: str = "") -> Block:
    """Cards of pictures that belong together; each picture can be picked as an item.

    Args:
        cards: all with as many pictures.
        images: picture bytes by item id.
        chosen: id of the item to mark.
    """
    size = max((len(card.shots) for card in cards), default=2)
    body = "".join(_together(card, images, chosen) for card in cards)
    return Block(f'<div class="pl-sets" style="--pl-size:{size}">{body}</div>', _STYLE)


def _together(card: TileSet, images: Mapping[str, bytes | None], chosen: str) -> str:
    shots = "".join(
        f'<div class="pl-shot{" pl-chosen" if shot.item == chosen else ""}" data-pick="{escaped(shot.item)}" '
        f'role="button" tabindex="0" title="{escaped(_said(shot))} · {escaped(shot.item)}">'
        f'<div class="pl-frame">{picture(images.get(shot.item), _said(shot))}</div>'
        f'<div class="pl-name">{escaped(shot.class_name)}</div>'
        + (f'<div class="pl-role">{escaped(shot.role)}</div>' if shot.role else "")
        + "</div>"
        for shot in card.shots
    )
    lines = "".join(f"<div>{escaped(line)}</div>" for line in card.lines)
    return (
        f'<div class="pl-set{" pl-conflict" if card.conflict else ""}"><div class="pl-shots">{shots}</div>'
        f'<div class="pl-lines">{lines}</div></div>'
    )


def _said(shot: Tile) -> str:
    return f"{shot.class_name}, {shot.role}" if shot.role else shot.class_name


_STYLE = """
.pl-scroll{overflow-x:auto}
.pl-audit{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums;font-size:14px;margin:0}
.pl-audit th,.pl-audit td{padding:6px 10px;text-align:right;border:0;border-top:1px solid rgba(138,147,163,.25);
 font-weight:400;white-space:nowrap;vertical-align:top}
.pl-audit thead th{border-top:0;font-size:12.5px;vertical-align:bottom;opacity:.85;white-space:normal;
 text-wrap:balance;line-height:1.3}
.pl-audit .pl-left{text-align:left}
.pl-audit td.pl-wraps{white-space:normal}
.pl-audit small{display:block;font-size:11px;opacity:.75;line-height:1.3}
.pl-audit [title]{cursor:help}
.pl-sign{font-style:normal;font-weight:700;display:inline-grid;place-items:center;width:16px;height:16px;
 border-radius:99px;color:#fff;font-size:10px;line-height:1;margin-right:3px;vertical-align:1px}
.pl-sign.pl-holds{background:#17875A}.pl-sign.pl-fails{background:#C4382F}
.pl-swatch{display:inline-block;width:10px;height:10px;border-radius:3px;margin-right:8px}
.pl-sets{display:grid;grid-template-columns:repeat(auto-fill,minmax(calc(var(--pl-size)*84px + 20px),1fr));gap:14px}
.pl-set{min-width:0;border:1px solid rgba(138,147,163,.28);border-radius:10px;padding:9px}
.pl-set.pl-conflict{border:1px dashed #C4382F}
.pl-shots{display:grid;grid-template-columns:repeat(var(--pl-size),minmax(0,1fr));gap:8px}
.pl-shot{min-width:0;cursor:pointer;border-radius:8px;outline-offset:2px}
.pl-shot .pl-frame img,.pl-shot .pl-frame .pl-none{width:100%;aspect-ratio:1;height:auto}
.pl-shot:hover img{border-color:#6B7686}
.pl-shot:focus-visible{outline:2px solid #2F78D0}
.pl-shot.pl-chosen img{border:3px solid #6B7686}
.pl-shot.pl-linked img{border-color:#2F78D0}
.pl-role{font-size:11px;opacity:.7;white-space:nowrap;overflow:hidden;text-overflow:ellipsis}
.pl-lines{font-size:12px;line-height:1.45;margin-top:6px;font-variant-numeric:tabular-nums}
.pl-lines div+div{opacity:.75}
"""
