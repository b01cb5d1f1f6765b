"""Queries with what each similarity finds first for them, a line per similarity, right and wrong marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pddm_lab.cards.html import Block, escaped, pickable, picture, symbol
from pddm_lab.figures import style_of


@dataclass(frozen=True)
class Line:
    """The first results of a query by one similarity."""

    similarity: str
    precision: float
    """Average precision over the first R, 0 to 1."""
    results: Sequence[tuple[str, str]]
    """(id, class name), best first."""


@dataclass(frozen=True)
class Answer:
    """A query and its lines."""

    item: str
    class_name: str
    lines: Sequence[Line]


def answer_rows(answers: Sequence[Answer], images: Mapping[str, bytes | None]) -> Block:
    """A row per query: its picture, and beside it a line of results per similarity; a page lets users click a row."""
    return Block(f'<div class="pl-answers">{"".join(_row(one, images) for one in answers)}</div>', _STYLE)


def _row(answer: Answer, images: Mapping[str, bytes | None]) -> str:
    shares = ", ".join(f"{style_of(line.similarity).title} {100 * line.precision:.0f} %" for line in answer.lines)
    hint = f"Search with {answer.class_name}. Average precision: {shares}"
    lines = "".join(
        f'<div class="pl-by"><i style="color:{style_of(line.similarity).colour}">{symbol(line.similarity)}</i>'
        f"<b>{100 * line.precision:.0f} %</b></div>"
        f'<div class="pl-first">{"".join(_tile(item, name, answer.class_name, images) for item, name in line.results)}'
        "</div>"
        for line in answer.lines
    )
    return (
        f'<div class="pl-answer" {pickable(answer.item, hint)} aria-label="{escaped(hint)}">'
        f'<div class="pl-asked">{picture(images.get(answer.item), answer.class_name)}'
        f'<div class="pl-name">{escaped(answer.class_name)}</div></div><div class="pl-lines">{lines}</div></div>'
    )


def _tile(item: str, class_name: str, right_class: str, images: Mapping[str, bytes | None]) -> str:
    look, mark = ("hit", "✓") if class_name == right_class else ("miss", "✕")
    shown = picture(images.get(item), class_name)
    return f'<div class="pl-{look}" title="{escaped(class_name)}">{shown}<b>{mark}</b></div>'


_STYLE = """
.pl-answers{display:grid;gap:6px;container-type:inline-size}
.pl-answer{display:grid;grid-template-columns:84px minmax(0,1fr);gap:14px;padding:8px;border-radius:8px;
 border:1px solid rgba(138,147,163,.28)}
.pl-answer:hover{border-color:#6B7686}
.pl-asked{min-width:0}
.pl-asked img,.pl-asked .pl-none{width:84px;height:84px;aspect-ratio:1;object-fit:cover;background:#fff;
 border-radius:6px;display:grid}
.pl-lines{display:grid;grid-template-columns:44px minmax(0,1fr);gap:5px 8px;align-items:center;align-content:center}
.pl-by{font-size:12px;line-height:1.3;font-variant-numeric:tabular-nums;white-space:nowrap}
.pl-by i{font-style:normal;font-weight:700;display:block;font-size:13px}
.pl-by b{font-weight:400;opacity:.85}
.pl-first{display:grid;grid-template-columns:repeat(6,minmax(0,76px));gap:5px}
.pl-hit,.pl-miss{position:relative;min-width:0}
.pl-hit img,.pl-miss img,.pl-hit .pl-none,.pl-miss .pl-none{width:100%;aspect-ratio:1;object-fit:cover;background:#fff;
 border-radius:5px;display:grid;box-sizing:border-box;font-size:0}
.pl-hit img,.pl-hit .pl-none{border:2px solid #17875A}
.pl-miss img,.pl-miss .pl-none{border:2px dashed #C4382F}
.pl-hit b,.pl-miss b{position:absolute;right:3px;top:3px;width:14px;height:14px;border-radius:99px;display:grid;
 place-items:center;color:#fff;font-size:9px;line-height:1}
.pl-hit b{background:#17875A}.pl-miss b{background:#C4382F}
@container (max-width:420px){
.pl-answer{grid-template-columns:60px minmax(0,1fr);gap:10px}
.pl-asked img,.pl-asked .pl-none{width:60px;height:60px}
.pl-first{grid-template-columns:repeat(4,minmax(0,1fr))}
.pl-first>:nth-child(n+5){display:none}
}
"""
