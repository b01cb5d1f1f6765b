"""Tables whose cells can be marked as holding or failing, and sets of pictures that belong together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pddm_lab.cards.html import Block, escaped, pickable, picture, swatch, table

_MARKS = {"holds": ("✓", "holds"), "fails": ("✕", "does not hold"), "": ("", "")}


class Cell(NamedTuple):
    """A cell of a table."""

    text: str
    mark: str = ""
    """ "holds", "fails" or nothing."""
    hint: str = ""
    """A sentence that is shown on hover."""
    small: str = ""
    """A second, smaller line."""
    colour: str = ""
    """Colour of a swatch in front of the text; empty: none."""


class Head(NamedTuple):
    """A column's title."""

    text: str
    hint: str = ""
    small: str = ""


def audit_table(heads: Sequence[Head], rows: Sequence[Sequence[Cell]], *, words: int = 1) -> Block:
    """A table whose first column names its rows.

    Args:
        words: columns, from the left, that hold words and are left-aligned; the others hold numbers.
    """
    head = "".join(
        f'<th scope="col" title="{escaped(one.hint)}"{_left(place < words)}>{escaped(one.text)}{_small(one.small)}</th>'
        for place, one in enumerate(heads)
    )
    body = (
        "<tr>" + "".join(_cell(cell, not place, place < words) for place, cell in enumerate(row)) + "</tr>"
        for row in rows
    )
    return Block(table("pl-audit", head, body), _STYLE)


def _cell(cell: Cell, first: bool, left: bool) -> str:
    sign, means = _MARKS[cell.mark]
    mark = f'<i class="pl-sign pl-{cell.mark}" role="img" aria-label="{means}">{sign}</i> ' if sign else ""
    tag = 'th scope="row"' if first else "td"
    hint = f' title="{escaped(cell.hint)}"' if cell.hint else ""
    inner = f"{mark}{swatch(cell.colour) if cell.colour else ''}{escaped(cell.text)}{_small(cell.small)}"
    return f"<{tag}{hint}{_left(left, ' ' in cell.text)}>{inner}</{tag[:2]}>"


def _left(left: bool, wraps: bool = False) -> str:
    """The class of a left-aligned cell; only text with a space wraps."""
    return f' class="pl-left{" pl-wraps" if wraps else ""}"' if left else ""


def _small(text: str) -> str:
    return f"<small>{escaped(text)}</small>" if text else ""


class Tile(NamedTuple):
    """One picture of a set."""

    item: str
    class_name: str
    role: str = ""
    """Its role in the set: i, j, k, or its split."""


class TileSet(NamedTuple):
    """A few pictures that belong together, with a description."""

    tiles: Sequence[Tile]
    lines: Sequence[str]
    """Short lines below the pictures; the first is the main one."""
    conflict: bool = False
    """Marks the set as a conflict."""


def tile_sets(sets: Sequence[TileSet], images: Mapping[str, bytes | None], *, chosen: str = "") -> Block:
    """Sets of pictures as cards; each picture can be picked as an item.

    Args:
        sets: all with the same number of pictures.
    """
    size = max((len(one.tiles) for one in sets), default=2)
    body = "".join(_card(one, images, chosen) for one in sets)
    return Block(f'<div class="pl-sets" style="--pl-size:{size}">{body}</div>', _STYLE)


def _card(one: TileSet, images: Mapping[str, bytes | None], chosen: str) -> str:
    def tile(of: Tile) -> str:
        alt = ", ".join(filter(None, (of.class_name, of.role)))
        marked = " pl-chosen" if of.item == chosen else ""
        return (
            f'<div class="pl-shot{marked}" {pickable(of.item, f"{alt} · {of.item}")}>'
            f'<div class="pl-frame">{picture(images.get(of.item), alt)}</div>'
            f'<div class="pl-name">{escaped(of.class_name)}</div>'
            + (f'<div class="pl-role">{escaped(of.role)}</div></div>' if of.role else "</div>")
        )

    lines = "".join(f"<div>{escaped(line)}</div>" for line in one.lines)
    return (
        f'<div class="pl-set{" pl-conflict" if one.conflict else ""}"><div class="pl-shots">'
        f'{"".join(map(tile, one.tiles))}</div><div class="pl-lines">{lines}</div></div>'
    )


_STYLE = """
.pl-audit th,.pl-audit td{vertical-align:top}
.pl-audit thead th{vertical-align:bottom;white-space:normal;text-wrap:balance;line-height:1.3}
.pl-audit .pl-left{text-align:left}
@container (max-width:860px){.pl-audit td{white-space:normal}.pl-audit table{font-size:13px}}
.pl-audit td.pl-wraps{white-space:normal}
.pl-audit small{line-height:1.3}
.pl-audit [title]{cursor:help}
.pl-sign{font-style:normal;font-weight:700;display:inline-grid;place-items:center;width:16px;height:16px;
 border-radius:99px;color:#fff;font-size:10px;line-height:1;margin-right:3px;vertical-align:1px}
.pl-sign.pl-holds{background:#17875A}.pl-sign.pl-fails{background:#C4382F}
.pl-sets{display:grid;grid-template-columns:repeat(auto-fill,minmax(calc(var(--pl-size)*84px + 20px),1fr));gap:14px}
.pl-set{min-width:0;border:1px solid rgba(138,147,163,.28);border-radius:10px;padding:9px}
.pl-set.pl-conflict{border:1px dashed #C4382F}
.pl-shots{display:grid;grid-template-columns:repeat(var(--pl-size),minmax(0,1fr));gap:8px}
.pl-shot{min-width:0;border-radius:8px}
.pl-shot .pl-frame img,.pl-shot .pl-frame .pl-none{width:100%;aspect-ratio:1;height:auto}
.pl-shot.pl-chosen img{border:3px solid #6B7686}
.pl-shot.pl-linked img{border-color:#2F78D0}
.pl-role{font-size:11px;opacity:.7;white-space:nowrap;overflow:hidden;text-overflow:ellipsis}
.pl-lines{font-size:12px;line-height:1.45;margin-top:6px;font-variant-numeric:tabular-nums}
.pl-lines div+div{opacity:.75}
"""
