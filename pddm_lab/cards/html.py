"""A piece of HTML that carries its pictures and its style with it, and what every kind of card is written with."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pddm_lab.figures.style import RIGHT, WRONG, style_of

__all__ = ["RIGHT", "WRONG", "Block", "digits_of", "escaped", "number", "picture", "symbol"]


@dataclass(frozen=True)
class Block:
    """A piece of HTML. Notebooks show it by itself; `st.html` takes it as it is."""

    body: str
    style: str = ""
    """Its own CSS rules, beside those that all blocks share."""

    def _repr_html_(self) -> str:
        return f"<style>{_SHARED}{self.style}</style>{self.body}"

    __str__ = _repr_html_


def symbol(similarity: str) -> str:
    """A similarity's symbol as HTML: D_M with a subscript."""
    letter, _, below = style_of(similarity).letter.partition("_")
    return f"{letter}<sub>{below}</sub>" if below else letter


def picture(data: bytes | None, alt: str) -> str:
    """An <img> with the picture in it; a quiet placeholder where there is none.

    Args:
        data: JPEG, PNG, WebP or GIF bytes.
        alt: what a person who can't see it is told.
    """
    if not data:
        return f'<span class="pl-none" role="img" aria-label="{escaped(alt)}, picture missing">no picture</span>'
    kind = (
        "png"
        if data[:4] == b"\x89PNG"
        else "gif"
        if data[:3] == b"GIF"
        else "webp"
        if data[8:12] == b"WEBP"
        else "jpeg"
    )
    return f'<img alt="{escaped(alt)}" src="data:image/{kind};base64,{base64.b64encode(data).decode()}">'


def number(value: Any, digits: int = 2) -> str:
    text = f"{float(value):.{digits}f}"
    return (text.lstrip("-") if not float(text) else text).replace("-", "−")


def digits_of(values: Iterable[float]) -> int:
    """Decimals that tell values apart: two, and more where all of them are close together."""
    numbers = np.array([value for value in values if np.isfinite(value)])
    spread = float(np.ptp(numbers)) if len(numbers) else 0.0
    return int(np.clip(np.ceil(1 - np.log10(spread)), 2, 5)) if spread else 2


def escaped(value: Any) -> str:
    return html.escape(str(value), quote=True)


_SHARED = """
.pl-corner img,.pl-frame img,.pl-none{object-fit:cover;background:#fff;border-radius:6px;display:block;
 box-sizing:border-box;border:1px solid rgba(138,147,163,.28)}
.pl-none{display:grid;place-items:center;font-size:11px;color:#6B7686;width:100%;aspect-ratio:1}
.pl-name{font-size:12px;line-height:1.35;margin-top:3px;white-space:nowrap;overflow:hidden;text-overflow:ellipsis}
.pl-rank{position:absolute;left:5px;top:5px;font-size:11px;line-height:1;padding:3px 5px;border-radius:5px;
 background:rgba(20,26,36,.74);color:#fff;font-variant-numeric:tabular-nums}
"""
