"""The runs in a table, and what the ticked ones are compared by: metrics, curves, configuration and notes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
import streamlit as st
from app_pages.runs import data, tables
from shared import leads, loaders, shell
from shared.chart import chart
from shared.export import Source, export
from shared.plain_text import plain

from pddm_lab import cards, figures
from pddm_lab.errors import LabError
from pddm_lab.figures import METRICS, style_of
from pddm_lab.metrics.convergence import kept_value
from pddm_lab.runs.compare import WHERE, compare_runs, groups, measured_alike, seed_leads, spread
from pddm_lab.runs.run import PROTOCOLS, Run
from pddm_lab.similarities import EVERY, PRETRAINED, PRETRAINED_FEATURES
from pddm_lab.wording import counted

if TYPE_CHECKING:
    from pddm_lab.analysis.lead import Judged

SHARES = {"90": "90 %", "95": "95 %", "99": "99 %", "100": "all"}
NOTES_LENGTH = 20_000
FOLDED = tuple(f"recall@{k}" for k in (2, 4, 8, 16, 32))
"""Metrics that are shown on request."""


def heading(title: str, name: str, table: pd.DataFrame, runs: Source, settings: dict[str, Any], key: str = "") -> None:
    """A section's heading, in Markdown, with a menu to export its table unless that is empty."""
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.header(title, anchor=False, width="content")
        if len(table):
            export(name, lambda: table, runs, settings, key)


def _seeds(mean: bool) -> dict[str, str]:
    """An export's settings."""
    return {"seeds": "mean" if mean else "each"}


def run_table(readable: Sequence[Run], chosen: Run) -> list[Run]:
    """All runs in a table whose ticked rows are compared. Returns the ticked runs, the chosen one first.

    Ticked are the chosen run and those in the URL as `beside`. If the chosen run is unticked, the next one is chosen.
    """
    names = [run.name for run in readable]
    beside = st.query_params.get_all("beside")
    ticked = [chosen.name, *(name for name in names if name in beside and name != chosen.name)]
    key = "runs_table"

    def keep() -> None:
        rows = [names[row] for row in st.session_state[key].selection.rows]
        first = chosen.name if chosen.name in rows or not rows else rows[0]
        st.session_state["run"] = st.query_params["run"] = first
        st.query_params["beside"] = [name for name in rows if name != first]

    st.session_state[key] = {"selection": {"rows": [names.index(name) for name in ticked]}}
    table, number = tables.overview(readable), st.column_config.NumberColumn
    hidden = {"created"} | {name for name in ("warnings", "notes") if not table[name].any()}
    hidden |= {
        name for name in table.columns if name.endswith((PRETRAINED, " L", " lead")) and table[name].isna().all()
    }
    help_of = {
        "D": "the Euclidean distance D", "S": "the similarity S that the run trained", "L": "local structure L",
    }  # fmt: skip
    before = "Recall@1 in % of the trunk's own features before training, ranked by D."
    text, colours = st.column_config.TextColumn, ["blue", "green", "red", "gray", "orange"]
    recalls = {
        f"{protocol} {letter}": number(
            f"{protocol}, by {letter}", format="%.1f", width=82, help=f"Recall@1 in %, ranked by {by}."
        )
        for protocol in PROTOCOLS
        for letter, by in help_of.items()
    } | {
        f"{protocol} {PRETRAINED}": number(
            f"{protocol}, {PRETRAINED_FEATURES.title.lower()}", format="%.1f", width=190, help=before
        )
        for protocol in PROTOCOLS
    }
    lead = "Points of MAP@R that L, or S in a run without L, is ahead of D. Overview has its interval."
    leads_over_d = {
        f"{protocol} lead": number(f"{protocol}, lead", format="%+.1f", width=82, help=lead) for protocol in PROTOCOLS
    }
    columns = {
        "run": text("Run", pinned=True, width=130),
        "status": st.column_config.MultiselectColumn(
            "Status", options=list(shell.STATUS_ICONS), color=colours, width=88
        ),
        "data": text("Data", width=92),
        "training": text("Training", width=100, help="The preset, and the loss or the similarity S that was trained."),
        "seed": number("Seed", format="%d", width=56),
        "seconds": number("Time, s", format="%d", width=64),
        "warnings": text("Warnings", width="medium", help="What the training noticed, and what to do."),
        "notes": text("Notes", width="medium"),
    }
    st.dataframe(
        table, hide_index=True, key=key, on_select=keep, selection_mode="multi-row", placeholder="–",
        column_order=[name for name in table.columns if name not in hidden],
        column_config=columns | recalls | leads_over_d,
        height="content" if len(readable) < 10 else 390,
        alt="All runs with their status and Recall at 1. The ticked ones are compared below",
    )  # fmt: skip
    st.caption(
        "Tick runs to compare them. The columns unseen and known show Recall@1 in %, ranked by the distance D, by "
        "local structure L, or by the similarity S that the run trained. Lead: how many points of MAP@R L, or S "
        "without L, is ahead of D. Pretrained features: the trunk before training, ranked by D."
    )
    if missing := [name for name in beside if name not in names]:
        st.caption(f":material/link_off: The link also names {plain(', '.join(missing))}, which isn't here.")
    return [run for name in ticked for run in readable if run.name == name]


def seeds_of(compared: Sequence[Run], readable: Sequence[Run]) -> bool:
    """A switch to average runs that differ only in their seeds, where there are such. Returns whether to average.

    A button adds other seeds of the chosen run that aren't compared yet.
    """
    chosen, ticked = compared[0], {run.name for run in compared}
    family = next(group for group in groups([chosen, *readable]) if group.name == chosen.name)
    others = sorted({run.name for run in family.runs if run.config.seed != chosen.config.seed} - ticked)
    several = any(len(group.seeds) > 1 for group in groups(compared))

    def add() -> None:
        st.query_params["beside"] = [*sorted(ticked - {chosen.name}), *others]
        st.query_params["seeds"] = "mean"

    if not several and not others:
        return False
    with st.container(horizontal=True, vertical_alignment="bottom"):
        titles = {"each": "each run", "mean": "mean ± deviation"}
        help_text = "Averages runs on the same data that differ only in their seeds."
        view = shell.choice(st.segmented_control, "Seeds", titles, "seeds", help=help_text) if several else "each"
        if others:
            label = f"Add {counted(len(others), 'other seed')} of {plain(chosen.name)}"
            st.button(label, on_click=add, icon=":material/add:", key="add_seeds", help=plain(", ".join(others)))
    return view == "mean"


def final_metrics(compared: Sequence[Run], mean: bool) -> None:
    """Final metrics under each protocol: a chart where there are several runs, and tables."""
    table = spread(groups(compared)) if mean else compare_runs(compared).metrics
    shares = [name for name in ("recall@1", "map@r") if (table["metric"] == name).any()]
    title = f"Final metrics of {len(compared)} runs" if len(compared) > 1 else "Final metrics"
    heading(title + (", over seeds" if mean else ""), "metrics", table, list(compared), _seeds(mean))
    if table.empty:
        st.caption(
            "These are measured at the end of a training. The curves below show the validation classes."
            if any(run.is_labelled for run in compared)
            else "Without labels nothing is right or wrong, so nothing is measured. Import them with a column label."
        )
        return
    table = table[table["similarity"] != "cosine"]
    alike = measured_alike(compared)
    if table["run"].nunique() > 1 and shares:
        alt = "Recall at 1 and MAP at R of the compared runs under both protocols, a marker per similarity"
        alt += ", with one standard deviation over seeds" if mean else ""
        chart(figures.comparison(table, shares), "comparison", alt)
    if not mean:
        winners(compared)
    leads_of = _kept_leads(compared) | (seed_leads(groups(compared)) if mean else {})
    for protocol in (name for name in PROTOCOLS if (table["protocol"] == name).any()):
        size = loaders.protocol_size(compared[0], protocol) if alike else ""
        st.markdown(f"**{figures.PROTOCOL_TITLES[protocol]}**" + (f" :gray[· {size}]" if size else ""))
        first = [name for name in METRICS if name not in FOLDED]
        st.html(cards.metrics_table(table, protocol, metrics=first, leads=leads_of))
    legend = "R@K, R-precision, MAP@R, NMI, EER and TPR in %. Hover over a heading for its meaning."
    if leads_of:
        legend += " In bold: a difference to D whose 95 % interval doesn't include 0."
    if not alike:
        legend = "These runs were measured on different items or splits: don't compare them. " + legend
    st.caption(
        ("± is the sample standard deviation over seeds. " if mean else "")
        + legend
        + " Cosine has no row: on features "
        "of unit length it ranks as the Euclidean distance does."
    )
    title = f"{METRICS[FOLDED[0]].title} to {METRICS[FOLDED[-1]].title}"
    if table["metric"].isin(FOLDED).any() and (place := shell.unfolded(title, "recalls", compact=True)):
        with place:
            for protocol in (name for name in PROTOCOLS if (table["protocol"] == name).any()):
                st.markdown(f"**{figures.PROTOCOL_TITLES[protocol]}**")
                st.html(cards.metrics_table(table, protocol, metrics=FOLDED))


def winners(compared: Sequence[Run]) -> None:
    """Which of several runs is ahead, where the interval of the difference allows to say so."""
    alike = len(compared) > 1 and measured_alike(compared) and all(run.is_labelled for run in compared)
    protocols = [name for name in PROTOCOLS if all(name in run.protocols() for run in compared)] if alike else []
    if not protocols or any(run.status == "running" for run in compared):
        return
    try:
        kept = all(leads.kept(run, protocol) for run in compared for protocol in protocols)
        wanted = tuple(run.name for run in compared)
        if not kept and st.session_state.get("ranked_runs") != wanted:
            with st.container(horizontal=True, vertical_alignment="center"):
                st.button(
                    "Which is ahead?", icon=":material/trophy:", key="rank_runs", on_click=st.session_state.update,
                    kwargs={"ranked_runs": wanted},
                )  # fmt: skip
                st.caption("Ranks every query of these runs once, for the interval of the difference.")
            return
        for protocol in protocols:
            judged = [leads.judged(run, protocol) for run in compared]
            st.markdown(_winner(compared, protocol, judged))
    except LabError as error:
        st.caption(plain(error))


def _winner(compared: Sequence[Run], protocol: str, judged: Sequence[Judged]) -> str:
    """The best of several runs against the second, in a sentence with its interval."""
    from pddm_lab.analysis.lead import signed  # imports torch

    means = [float(of.precision[leads.best_of(run)].mean()) for run, of in zip(compared, judged, strict=True)]
    first, second = sorted(range(len(compared)), key=lambda at: -means[at])[:2]
    lead = leads.ahead(compared[first], compared[second], protocol, (judged[first], judged[second]))
    (best, by), (other, its) = (
        (plain(run.name), EVERY[leads.best_of(run)].letter) for run in (compared[first], compared[second])
    )
    place = figures.PROTOCOL_TITLES[protocol]
    if not lead.queries:
        return f"{place}: these runs have no query in common."
    ends = "" if lead.classes < 2 else f" ({signed(100 * lead.low)} to {signed(100 * lead.high)})"
    points = f"{signed(100 * lead.difference)} points{ends} of MAP@R"
    if lead.sign > 0:
        return f":material/trophy: {place}: **{best}** by {by} is ahead of {other} by {its}: {points}."
    return f"{place}: no run is surely ahead. {best} by {by} against {other} by {its}: {points}."


def _kept_leads(compared: Sequence[Run]) -> dict[tuple[str, str, str], tuple[float, float, float]]:
    """The leads over D of the runs whose queries are ranked: those that were open on Overview."""
    return {place: lead for run in compared for place, lead in leads.table_leads(run, run.protocols()).items()}


def through_training(compared: Sequence[Run], mean: bool) -> None:
    """The curves of the compared runs, updated while one of them is training."""
    training = any(run.status == "running" for run in compared)
    st.fragment(_through_training, run_every=3 if training else None)(compared, mean)


def _through_training(compared: Sequence[Run], mean: bool) -> None:
    log = data.training_log(compared, mean)
    heading("Through training", "curves", log, list(compared), _seeds(mean))
    phases = [name for name in ("select", "refit") if (log["phase"] == name).any()]
    with st.container(horizontal=True, vertical_alignment="top"):
        measured = log.loc[log["protocol"] == "validation", "metric"].unique()
        names = [name for name in METRICS if name in measured] or ["map@r"]
        titles = {name: METRICS[name].title for name in names}
        metric = shell.choice(st.selectbox, "Metric", titles, "metric", "map@r", width=200)
        help_text = "Seconds since the start of the phase, on the machine that trained."
        x = shell.choice(st.segmented_control, "By", {"step": "steps", "seconds": "seconds"}, "along", help=help_text)
        titles = {"select": "choosing the best step", "refit": "refitting"}
        titles = {name: titles[name] for name in phases or ["select"]}
        phase = shell.choice(st.segmented_control, "Losses while", titles, "phase")
    left, right = st.columns(2, gap="medium")
    with left:
        if len(measured):
            alt = f"{METRICS[metric].title} on the validation classes by training {x}, a line per similarity"
            alt += ", mean and standard deviation over seeds" if mean else ""
            chart(data.curves(compared, mean, metric, x), "curves", alt)
        else:
            st.caption("Nothing is measured on the validation classes yet.")
    with right:
        if phases:
            alt = f"Loss and its terms by training {x}" + (", mean over seeds" if mean else "")
            chart(data.losses(compared, mean, phase, x), "losses", alt)
        else:
            st.caption("No step is finished yet.")
    if len(measured) and METRICS[metric].larger_is_better:
        _how_fast(compared, metric)


def speed_columns(best: str, digits: int, share: str, target: str) -> dict[str, Any]:
    """The columns of `convergence.speed`: the best value, and when a share of it and a target were reached."""
    number = st.column_config.NumberColumn
    return {
        "best": number(best, format=f"%.{digits}f"),
        "share_step": number(f"{share} of it at step", format="%d"),
        "share_seconds": number("after, s", format="%.2f"),
        "target_step": number(f"{target} at step", format="%d"),
        "target_seconds": number("after, s ", format="%.2f"),
    }


def _how_fast(compared: Sequence[Run], metric: str) -> None:
    """When each run reached a share of its best value on the validation classes, and another run's final value."""
    spec = METRICS[metric]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        titles = {run.name: run.name for run in compared}
        share = shell.choice(st.segmented_control, "Share of its own best", SHARES, "share", "99")
        target_run = compared[0]
        if len(compared) > 1:
            name = shell.choice(st.selectbox, "And the final value of", titles, "target", width=280)
            target_run = next(run for run in compared if run.name == name)
    by = target_run.config.selection
    target = kept_value(loaders.metrics(target_run), metric, by, target_run.info.get("best_step"))
    table = data.how_fast(compared, metric, int(share) / 100, target).replace({"run": {"": compared[0].name}})
    table["similarity"] = [style_of(name).title for name in table["similarity"]]
    table["best"] *= 100 if spec.unit == "%" else 1
    target_text = spec.format(target)
    alt = f"Steps and seconds until {SHARES[share]} of each run's best {spec.title}, and until {target_text}"
    columns = speed_columns(f"Best {spec.heading}", spec.digits, SHARES[share], target_text) | {
        "run": st.column_config.TextColumn("Run", width="medium"), "similarity": "Ranked by",
        "best_step": st.column_config.NumberColumn("at step", format="%d"),
    }  # fmt: skip
    st.dataframe(table, hide_index=True, placeholder="not reached", alt=alt, key="how_fast", column_config=columns)
    st.caption(
        f"On the validation classes, at the steps that were measured. {target_text} is the final value of "
        f"{plain(target_run.name)}, ranked by {style_of(by).title}. Seconds count from step 0 on the training machine, "
        "measurements included."
    )


def choices(compared: Sequence[Run]) -> None:
    """The settings in which several runs differ; for one run, those that differ from its preset, and all of them."""
    if len(compared) > 1:
        st.header("Settings that differ", anchor=False)
        differing = compare_runs(compared).config.drop(index=[*WHERE], errors="ignore")
        if len(differing):
            table = differing.map(str).rename_axis("setting").reset_index()
            st.dataframe(table, hide_index=True, alt="Settings in which the compared runs differ", key="differences")
        else:
            st.caption("None. These runs have the same settings.")
        return
    chosen = compared[0]
    changed = tables.changed_from_preset(chosen.config)
    st.header("Settings", anchor=False)
    if chosen.config.is_imported:
        st.caption("Imported features: their model was trained elsewhere.")
    elif len(changed):
        alt = "Settings that differ from the preset"
        st.dataframe(changed, hide_index=True, alt=alt, key="changed", width="content")
    else:
        st.caption(f"The preset {plain(chosen.config.preset)}, unchanged.")
    place = shell.unfolded("All settings and versions", "settings", compact=True)
    if place is None:
        return
    with place:
        rows = pd.Series(chosen.config.to_dict()).map(str).rename("value").rename_axis("setting").reset_index()
        versions = pd.Series(chosen.info.get("versions", {})).rename("version").rename_axis("package").reset_index()
        left, right = st.columns([3, 2])
        left.dataframe(rows, hide_index=True, alt="Every setting of this run", key="choices")
        right.dataframe(versions, hide_index=True, alt="Package versions this run was trained with", key="versions")
        if isinstance(skipped := chosen.info["dataset"].get("skipped"), list) and skipped:
            right.caption(f"Unreadable, and left out: {counted(len(skipped), 'item')}.")
            right.dataframe(pd.DataFrame(skipped), hide_index=True, alt="Items left out, and why", key="skipped")


def notes(compared: Sequence[Run]) -> None:
    """A text field per run for notes, which are kept in its folder."""
    st.header("Notes", anchor=False)
    for start in range(0, len(compared), 3):
        for run, column in zip(compared[start : start + 3], st.columns(min(len(compared), 3)), strict=False):
            stamp = run.notes_stamp
            # With the file's time in the key, the field shows every change of the file.
            key = f"notes_{run.name}_{stamp}"

            def keep(run: Run = run, stamp: int = stamp, key: str = key) -> None:
                text = st.session_state[key]
                if run.notes_stamp != stamp:  # someone else has changed it since: keep both
                    text = f"{run.notes}\n\n{text}"
                try:
                    run.write_notes(text)
                except LabError as error:
                    st.error(str(error))

            column.text_area(
                plain(run.name), run.notes, key=key, on_change=keep, height=110, max_chars=NOTES_LENGTH,
                placeholder="What you tried, and what happened",
            )  # fmt: skip
    st.caption("Saved as notes.md in the run's folder when you leave the field. Exports include them.")
