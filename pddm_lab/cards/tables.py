"""Metrics as a table, the steps of a process, and short facts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from pddm_lab.cards.html import Block, escaped, swatch, table
from pddm_lab.figures import METRICS, in_order, style_of

Interval = tuple[float, float, float]
"""A value and both ends of its interval."""
D, LED = "euclidean", "map@r"
"""What similarities are compared with, and by what."""
LEAD_HELP = "Difference of MAP@R to that of D in the same run, with its 95 % interval where there is one."


def metrics_table(
    measured: pd.DataFrame, protocol: str, *, metrics: Sequence[str] = tuple(METRICS),
    leads: Mapping[tuple[str, str, str], Interval] | None = None,
) -> Block:  # fmt: skip
    """Final metrics of one protocol: a row per run and similarity, a column per metric with its unit.

    A last column has the difference of MAP@R to D of the same run. It is in bold where its interval excludes 0.

    Args:
        measured: run, protocol, similarity, metric, value; with `std` and `seeds`, each value is a mean over seeds,
            followed by its standard deviation if there are several.
        metrics: columns; those without a value are left out.
        leads: (run, protocol, similarity) -> difference to D and both ends of its 95 % interval, as shares; without
            one, the difference of the two values is shown alone.
    """
    measured = measured[measured["protocol"] == protocol]
    names = list(zip(measured["run"], measured["similarity"], measured["metric"], strict=True))
    values = dict(zip(names, measured["value"], strict=True))
    spread = dict(zip(names, measured["std"], strict=True)) if "std" in measured else {}
    seeds = measured.groupby("run")["seeds"].max() if spread else {}
    columns = [metric for metric in metrics if any(name == metric for _, _, name in names)]
    runs = list(dict.fromkeys(run for run, _, _ in names))
    has_lead = LED in columns and any(name == D for _, name, _ in names) and len({name for _, name, _ in names}) > 1
    rows: list[str] = []
    for run in runs:
        for number, name in enumerate(in_order(similarity for of, similarity, _ in names if of == run)):
            style, cells = style_of(name), []
            for metric in columns:
                text = METRICS[metric].format(values.get((run, name, metric), np.nan))
                std = spread.get((run, name, metric), np.nan)
                beside = f"<small>± {METRICS[metric].format(std)}</small>" if np.isfinite(std) else ""
                cells.append(f"<td>{text}{beside}</td>")
            if has_lead:
                cells.append(f"<td>{_difference((leads or {}).get((run, protocol, name)), values, run, name)}</td>")
            first = ""
            if len(runs) > 1 or spread:
                many = f"<small>mean of {seeds[run]} seeds</small>" if spread and seeds[run] > 1 else ""
                first = f'<th scope="row" class="pl-run">{escaped(run)}{many}</th>' if not number else "<td></td>"
            opens = ' class="pl-opens"' if not number and rows else ""
            title = f'<th scope="row">{swatch(style.colour)}{escaped(style.title)}</th>'
            rows.append(f"<tr{opens}>{first}{title}{''.join(cells)}</tr>")
    heads = "".join(f'<th scope="col" title="{escaped(METRICS[name].help)}">{_heading(name)}</th>' for name in columns)
    if has_lead:
        heads += f'<th scope="col" title="{LEAD_HELP}">{METRICS[LED].title} − D<small>points</small></th>'
    corner = ("<td></td>" if len(runs) > 1 or spread else "") + '<th scope="col" class="pl-first">ranked by</th>'
    return Block(table("pl-table", corner + heads, rows), _STYLE)


def _difference(
    lead: Interval | None, values: Mapping[tuple[str, str, str], float], run: str, similarity: str
) -> str:  # fmt: skip
    """The difference to D with its interval, in bold where that excludes 0."""
    if similarity == D:
        return ""
    own, of_d = (values.get((run, name, LED), np.nan) for name in (similarity, D))
    difference, low, high = lead or (own - of_d, np.nan, np.nan)
    if not np.isfinite(difference):
        return "–"
    text = f"{100 * difference:+.1f}".replace("-", "−")
    if not np.isfinite(low) or low == high == 0:
        return text.lstrip("+") if not float(f"{100 * difference:.1f}") else text
    ends = " to ".join(f"{100 * end:+.1f}" for end in (low, high)).replace("-", "−")
    return f"{f'<b>{text}</b>' if low > 0 or high < 0 else text}<small>{ends}</small>"


def _heading(metric: str) -> str:
    known = METRICS[metric]
    return f"{escaped(known.title)}<small>{escaped(known.unit) or '&nbsp;'}</small>"


def stepper(steps: Sequence[str], at: int) -> Block:
    """The steps of a process in a row: done, current, to come."""
    states = ("done", "now", "to come")
    items = []
    for number, step in enumerate(steps):
        state = 0 if number < at else 1 if number == at else 2
        current = ' aria-current="step"' if state == 1 else ""
        items.append(f'<li class="pl-step-{state}"{current} title="{states[state]}">{escaped(step)}</li>')
    return Block(f'<ol class="pl-steps">{"".join(items)}</ol>', _STYLE)


def facts(pairs: Mapping[str, str]) -> Block:
    """Short facts as a list of two columns."""
    rows = "".join(f"<dt>{escaped(name)}</dt><dd>{escaped(value)}</dd>" for name, value in pairs.items())
    return Block(f'<dl class="pl-facts">{rows}</dl>', _STYLE)


_STYLE = """
.pl-table thead .pl-first{text-align:left}
.pl-table b{font-weight:700}
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
.pl-step-0{opacity:.85}.pl-step-0::before{background:currentColor}
.pl-step-1{font-weight:650}.pl-step-1::before{background:linear-gradient(90deg,currentColor 50%,transparent 50%)}
.pl-step-2{opacity:.72}
"""
