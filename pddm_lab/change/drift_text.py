"""What a measured drift means, in sentences and tables: the same on the command line and on the page."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from pddm_lab.change.drift_schema import DriftContent, SignalContent
from pddm_lab.change.signals import SIGNALS
from pddm_lab.runs.run import Run
from pddm_lab.wording import counted

HEAD = ("signal", "then", "now", "of its threshold", "alarm")
_MOST_NAMED = 3
_MOST_CLASSES = 5
_CLEAR_RISE = 0.05
"""Of the share of queries that are not in the range."""


def since(content: DriftContent) -> int | None:
    """The query after which the first window raised an alarm; None without one."""
    ends = [end for of in content.signals.values() if (end := alarm_of(content, of)) is not None]
    return min(ends, default=None)


def alarm_of(content: DriftContent, signal: SignalContent) -> int | None:
    """The query after which a signal first raised an alarm; None without one."""
    return next((end for end, ratio in zip(content.ends, signal.ratios, strict=True) if ratio > 1), None)


def sentence(content: DriftContent) -> str:
    """The result in a sentence."""
    start, now = since(content), changed_now(content)
    if start is None:
        return (
            f"No drift: the {content.queries:,} queries are like the run's own, by {len(content.signals)} signals "
            f"in windows of {content.window}."
        )
    if not now:
        return f"No drift any more: query {start:,} raised an alarm, and the last {_last(content)} are as usual again."
    what = _listed([_change(name, content.signals[name]) for name in now[:_MOST_NAMED]])
    if content.outside_then is not None and content.outside_now is not None:
        what += (
            f"; {100 * content.outside_now:.0f} % are not in the range, {100 * content.outside_then:.0f} % of own ones"
        )
    opening = f"Drift since query {start:,}" if content.is_ordered else "Drift: these queries differ from the run's own"
    return f"{opening}: {what}."


def changed_now(content: DriftContent) -> list[str]:
    """The signals over their threshold in the last window: those of one query first, the clearest first."""
    over = {name: of for name, of in content.signals.items() if of.ratios[-1] > 1}
    return sorted(over, key=lambda name: (over[name].then is None, -over[name].ratios[-1]))


def advice(content: DriftContent, run: Run) -> str:
    """What to do with the run, in sentences."""
    now, distance = changed_now(content), content.signals.get("distance")
    if not now:
        return "There is nothing to do."
    add = f"`pddm-lab gallery add {shlex.quote(run.name)} FOLDER`"
    if distance and distance.then is not None and distance.now is not None and distance.now < 0.5 * distance.then:
        return "The queries are much nearer than own ones: check whether these pictures are in the catalogue already."
    if content.outside_then is not None and content.outside_now is not None:
        if content.outside_now > content.outside_then + _CLEAR_RISE:
            return (
                f"Look at the queries that are farthest. New products: add pictures of them, {add}. Known products in "
                f"another light or by another camera: add such pictures too, or {_train_anew(run)}."
            )
        if now == ["classes"]:
            return f"The range fits. More pictures of the classes that gain make these surer: {add}."
        return f"As many queries as usual are in the range. Add some of the new pictures, {add}, and watch the share."
    return f"Look at the queries that are farthest, and add pictures of what is new: {add}."


def table_rows(content: DriftContent) -> list[list[str]]:
    """The cells of each signal, under `HEAD`."""
    rows = []
    for name, of in content.signals.items():
        alarm = alarm_of(content, of)
        at = "-" if alarm is None else f"query {alarm:,}" if content.is_ordered else "yes"
        rows.append([SIGNALS[name][0], _number(of.then), _number(of.now), f"{max(100 * of.ratios[-1], 0):,.0f} %", at])
    return rows


def classes_in_words(content: DriftContent) -> list[str]:
    """Which classes gain and lose queries, a line for each; no line if none clearly does."""
    lines = []
    for title, rows in (
        ("Gain", [row for row in content.classes if row.now > row.then]),
        ("Lose", [row for row in reversed(content.classes) if row.now < row.then]),
    ):
        named = [f"{row.name} {100 * row.then:.1f} -> {100 * row.now:.1f} %" for row in rows[:_MOST_CLASSES]]
        more = f", and {len(rows) - _MOST_CLASSES} more" if len(rows) > _MOST_CLASSES else ""
        lines += [f"{title}: {', '.join(named)}{more}."] if rows else []
    return lines


def facts(content: DriftContent) -> str:
    """How it was measured, in a sentence or two."""
    skipped = f", {content.skipped:,} more were left out" if content.skipped else ""
    return (
        f"{content.queries:,} queries of {content.source}{skipped}. Then: {content.reference:,} items of the catalogue "
        f"that were not trained on, each as a query; now: the last {_last(content)}. An alarm is a value over its "
        f"threshold; {100 * content.level:.0f} % of streams of {content.length:,} own queries raise one by chance."
    )


def _train_anew(run: Run) -> str:
    if run.config.is_imported:
        return "train the model that made the features anew, and import them"
    return f"train anew with them, `pddm-lab train {run.config.preset} --dataset {shlex.quote(run.config.dataset)}`"


def _last(content: DriftContent) -> str:
    return counted(min(content.window, content.queries), "query", "queries")


def _change(name: str, signal: SignalContent) -> str:
    if name == "classes":
        return "the mix of classes is another one"
    if name == "features":
        return "the features as a whole differ"
    title = SIGNALS[name][0].lower()
    then, now = _number(signal.then), _number(signal.now)
    if then == now or signal.then is None or signal.now is None:
        return f"{title} is spread differently"
    return f"{title} {'rose' if signal.now > signal.then else 'fell'} from {then} to {now}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}".replace("-", "−")


def _listed(parts: Sequence[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
