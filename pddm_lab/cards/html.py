"""A piece of HTML with its pictures and its style in it, and the parts that all cards are made of."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pddm_lab.figures.style import style_of


@dataclass(frozen=True)
class Block:
    """A piece of HTML, displayed by notebooks and by `st.html`."""

    body: str
    style: str = ""
    """CSS rules, in addition to those that all blocks share."""

    def _repr_html_(self) -> str:
        return f"<style>{_SHARED}{self.style}</style>{self.body}"

    __str__ = _repr_html_


def symbol(similarity: str) -> str:
    """A similarity's symbol as HTML: D_M with a subscript."""
    letter, _, below = style_of(similarity).letter.partition("_")
    return f"{letter}<sub>{below}</sub>" if below else letter


def picture(data: bytes | None, alt: str) -> str:
    """An <img> with the picture in it, or a placeholder if there is none.

    Args:
        data: JPEG, PNG, WebP or GIF bytes.
    """
    if not data:
        return f'<span class="pl-none" role="img" aria-label="{escaped(alt)}, picture missing">no picture</span>'
    known = {"png": data[1:4] == b"PNG", "gif": data[:3] == b"GIF", "webp": data[8:12] == b"WEBP"}
    kind = next((name for name, matches in known.items() if matches), "jpeg")
    return f'<img alt="{escaped(alt)}" src="data:image/{kind};base64,{base64.b64encode(data).decode()}">'


def pickable(item: str, title: str) -> str:
    """The attributes of an element that a page lets users click to choose an item."""
    return f'data-pick="{escaped(item)}" role="button" tabindex="0" title="{escaped(title)}"'


def swatch(colour: str) -> str:
    """A small square of a colour."""
    return f'<span class="pl-swatch" style="background:{escaped(colour)}"></span>'


def table(kind: str, heads: str, rows: Iterable[str]) -> str:
    """A table that scrolls sideways if it is too wide.

    Args:
        kind: CSS classes.
        heads: <th> cells.
        rows: <tr> elements.
    """
    return (
        f'<div class="pl-scroll" tabindex="0"><table class="{kind}"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def number(value: Any, digits: int = 2) -> str:
    text = f"{float(value):.{digits}f}"
    return (text.lstrip("-") if not float(text) else text).replace("-", "−")


def digits_of(values: Iterable[float], most: int = 3) -> int:
    """Decimals to distinguish values by: two, or up to `most` if all of them are close together."""
    numbers = np.array([value for value in values if np.isfinite(value)])
    spread = float(np.ptp(numbers)) if len(numbers) else 0.0
    return int(np.clip(np.ceil(1 - np.log10(spread)), 2, most)) if spread else 2


def escaped(value: Any) -> str:
    return html.escape(str(value), quote=True)


_SHARED = """
.pl-scroll{overflow-x:auto;container-type:inline-size}
.pl-scroll table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums;font-size:14px;margin:0}
.pl-scroll th,.pl-scroll td{padding:6px 8px;text-align:right;border:0;border-top:1px solid rgba(138,147,163,.25);
 font-weight:400;white-space:nowrap}
.pl-scroll thead td{border-top:0}
.pl-scroll thead th{border-top:0;font-size:12.5px;vertical-align:bottom;opacity:.8}
.pl-scroll th[scope=row]{text-align:left}
.pl-scroll small{display:block;font-size:11px;opacity:.8}
@container (max-width:720px){.pl-scroll table{font-size:13px}.pl-scroll th,.pl-scroll td{padding:6px 4px}}
.pl-scroll .pl-opens th,.pl-scroll .pl-opens td{border-top:2px solid rgba(138,147,163,.5)}
.pl-swatch{display:inline-block;width:10px;height:10px;border-radius:3px;margin-right:8px}
[data-pick]{cursor:pointer;outline-offset:2px}
[data-pick]:focus-visible{outline:2px solid #2F78D0}
[data-pick]:hover img{border-color:#6B7686}
.pl-corner img,.pl-frame img,.pl-none{object-fit:cover;background:#fff;border-radius:6px;display:block;
 box-sizing:border-box;border:1px solid rgba(138,147,163,.28)}
.pl-none{display:grid;place-items:center;font-size:11px;color:#6B7686;width:100%;aspect-ratio:1}
.pl-name{font-size:12px;line-height:1.35;margin-top:3px;white-space:nowrap;overflow:hidden;text-overflow:ellipsis}
.pl-rank{position:absolute;left:5px;top:5px;font-size:11px;line-height:1;padding:3px 5px;border-radius:5px;
 background:rgba(20,26,36,.74);color:#fff;font-variant-numeric:tabular-nums}
"""
