"""How many items of each class a selection contains, as bars in the map's colours."""

from __future__ import annotations

from collections.abc import Sequence

from pddm_lab.cards.html import Block, escaped, swatch


def class_counts(classes: Sequence[tuple[str, int, int]], colours: Sequence[str], most: int = 12) -> Block:
    """Classes as bars, the largest first.

    Args:
        classes: (name, items in the selection, items there are) of each class.
        colours: of each class, as CSS.
        most: classes shown; the others are counted in one line.
    """
    largest = max((count for _, count, _ in classes), default=1)
    rows = "".join(
        f'<tr title="{escaped(name)}: {count:,} of its {total:,} items"><th scope="row">'
        f"{swatch(colour)}{escaped(name)}</th>"
        f'<td class="pl-count">{count:,} <small>of {total:,}</small></td>'
        f'<td class="pl-barred"><i style="width:{100 * count / largest:.1f}%;background:{colour}"></i></td></tr>'
        for (name, count, total), colour in list(zip(classes, colours, strict=True))[:most]
    )
    others = classes[most:]
    left = sum(count for _, count, _ in others)
    rest = f'<div class="pl-others">and {left:,} items of {len(others):,} other classes</div>' if others else ""
    return Block(f'<table class="pl-classes"><tbody>{rows}</tbody></table>{rest}', _STYLE)


_STYLE = """
.pl-classes{border-collapse:collapse;width:100%;font-size:13px;font-variant-numeric:tabular-nums;table-layout:fixed}
.pl-classes th,.pl-classes td{padding:3px 6px 3px 0;border:0;text-align:left;font-weight:400}
.pl-classes th{overflow:hidden;text-overflow:ellipsis;white-space:nowrap;width:48%}
.pl-classes .pl-count{width:26%;text-align:right;white-space:nowrap}
.pl-classes small{opacity:.66;font-size:11px}
.pl-classes .pl-barred i{display:block;height:8px;border-radius:4px;min-width:2px}
.pl-others{font-size:12px;opacity:.72;margin-top:4px}
"""
