"""Pictures of queries that are not items of a gallery, each with the class it was taken for and its distance."""

from __future__ import annotations

from collections.abc import Iterable

from pddm_lab.cards.html import Block, escaped, number, picture, symbol
from pddm_lab.figures.style import style_of


def far_queries(queries: Iterable[tuple[str, str, float, bytes]]) -> Block:
    """A grid of pictures.

    Args:
        queries: (name, class of the nearest item or nothing, D to it, JPEG) of each.
    """
    mark = f'<i style="color:{style_of("euclidean").colour}">{symbol("euclidean")}</i>'
    tiles = "".join(
        f'<figure title="{escaped(name)}">{picture(data, name)}'
        f"<figcaption><b>{escaped(class_name or name)}</b><span>{mark} {number(distance)}</span></figcaption></figure>"
        for name, class_name, distance, data in queries
    )
    return Block(f'<div class="pl-far">{tiles}</div>', _STYLE)


_STYLE = """
.pl-far{display:grid;grid-template-columns:repeat(auto-fill,minmax(104px,1fr));gap:12px}
.pl-far figure{margin:0;min-width:0}
.pl-far img,.pl-far .pl-none{width:100%;aspect-ratio:1;height:auto;object-fit:cover;background:#fff;border-radius:6px;
 display:block;box-sizing:border-box;border:1px solid rgba(138,147,163,.28)}
.pl-far figcaption{font-size:12px;line-height:1.4;margin-top:3px;font-variant-numeric:tabular-nums}
.pl-far figcaption b{display:block;font-weight:400;white-space:nowrap;overflow:hidden;text-overflow:ellipsis}
"""
