"""Widgets around runs that are compared: which, their final metrics, their curves, their choices, their notes."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import streamlit as st
from app_pages.runs import data, tables
from shared import loaders, shell
from shared.export import export

from pddm_lab import cards, figures
from pddm_lab.figures import METRICS, style_of
from pddm_lab.metrics.convergence import kept_value
from pddm_lab.runs import compare
from pddm_lab.runs.run import PROTOCOLS, Run

SHARES = {"90": "90 %", "95": "95 %", "99": "99 %", "100": "all"}
NOTES_LENGTH = 20_000


def run_table(readable: Sequence[Run], chosen: Run) -> list[Run]:
    """All runs in a table whose ticked rows are compared. Returns those, the chosen one first.

    The ticks are the chosen run and those in the URL as `beside`; without the chosen one's the next takes its place.
    """
    names = [run.name for run in readable]
    asked = st.query_params.get_all("beside")
    ticked = [chosen.name, *(name for name in names if name in asked and name != chosen.name)]
    key = "runs_table"

    def keep() -> None:
        left = [names[row] for row in st.session_state[key].selection.rows]
        first = chosen.name if chosen.name in left or not left else left[0]
        st.session_state["run"] = st.query_params["run"] = first
        st.query_params["beside"] = [name for name in left if name != first]

    st.session_state[key] = {"selection": {"rows": [names.index(name) for name in ticked]}}
    table, number = tables.overview(readable), st.column_config.NumberColumn
    unshown = {"created"} | ({"notes"} if not table["notes"].any() else set())
    help_of = {
        "D": "Recall@1 in %, ranked by the Euclidean distance D.",
        "S": "Recall@1 in %, ranked by the similarity S that the run trained.",
    }
    st.dataframe(
        table,
        hide_index=True,
        key=key,
        on_select=keep,
        selection_mode="multi-row",
        column_order=[name for name in table.columns if name not in unshown],
        placeholder="–",
        height="content" if len(readable) < 10 else 390,
        alt="All runs with their state and Recall at 1; ticked ones are compared below",
        column_config={
            "run": st.column_config.TextColumn("Run", pinned=True, width=160),
            "status": st.column_config.MultiselectColumn(
                "Status", options=list(shell.STATUS_ICONS), color=["blue", "green", "red", "gray", "orange"], width=96
            ),
            "data": st.column_config.TextColumn("Data", width=76),
            "training": st.column_config.TextColumn(
                "Training", width=112, help="Preset, and the similarity S it trained."
            ),
            "seed": number("Seed", format="%d", width=56),
            "seconds": number("Time, s", format="%d", width=64),
            "notes": st.column_config.TextColumn("Notes", width="medium"),
            **{
                f"{protocol} {letter}": number(
                    f"{protocol}, by {letter}", format="%.1f", width=84, help=help_of[letter]
                )
                for protocol in PROTOCOLS
                for letter in "DS"
            },
        },
    )
    st.caption(
        "Tick runs to compare them. unseen, known: Recall@1 in % under that protocol, ranked by the distance D or by "
        "the S that the run trained."
    )
    if missing := [name for name in asked if name not in names]:
        st.caption(f":material/link_off: The link also names {shell.plain(', '.join(missing))}: no such run is here.")
    return [run for name in ticked for run in readable if run.name == name]


def seeds_of(compared: Sequence[Run], readable: Sequence[Run]) -> bool:
    """A switch between each run and means over seeds, where some differ in their seeds alone. Returns whether means.

    Where other seeds of the chosen run are there and not compared, a button adds them.
    """
    chosen, ticked = compared[0], {run.name for run in compared}
    family = next(group for group in compare.groups([chosen, *readable]) if group.name == chosen.name)
    others = sorted(
        {run.name for run in family.runs if run.name not in ticked and run.config.seed != chosen.config.seed}
    )
    several = any(len(group.seeds) > 1 for group in compare.groups(compared))

    def add() -> None:
        st.query_params["beside"] = [*sorted(ticked - {chosen.name}), *others]
        st.query_params["seeds"] = "mean"

    if not several and not others:
        return False
    with st.container(horizontal=True, vertical_alignment="bottom"):
        titles = {"each": "each run", "mean": "mean ± deviation"}
        told = "Runs of the same choices and data that differ in their seeds alone are taken together."
        view = shell.choice(st.segmented_control, "Seeds", titles, "seeds", help=told) if several else "each"
        if others:
            label = f"Add {len(others)} other seed{'s' * (len(others) > 1)} of {chosen.name}"
            st.button(label, on_click=add, icon=":material/add:", key="add_seeds", help=", ".join(others))
    return view == "mean"


def final_metrics(compared: Sequence[Run], mean: bool) -> None:
    """What the runs came to under each protocol: dots where there are several, and tables."""
    table = compare.spread(compare.groups(compared)) if mean else compare.compare_runs(compared).metrics
    shares = [name for name in ("recall@1", "map@r") if (table["metric"] == name).any()]
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        what = f"Final metrics of {len(compared)} runs" if len(compared) > 1 else "Final metrics"
        st.subheader(what + (", over seeds" if mean else ""), anchor=False, width="content")
        if len(table):
            export("metrics", lambda: table, list(compared), {"seeds": "mean" if mean else "each"})
    if table.empty:
        st.caption("Measured at the end of a training. Until then the curves below show the validation classes.")
        return
    alike = compare.measured_alike(compared)
    if table["run"].nunique() > 1 and shares:
        st.plotly_chart(
            figures.comparison(table, shares),
            key="comparison",
            config={"displayModeBar": False},
            alt="Recall at 1 and MAP at R of the compared runs under both protocols, a marker per similarity"
            + (", with one standard deviation over seeds" if mean else ""),
        )
    for protocol in (name for name in PROTOCOLS if (table["protocol"] == name).any()):
        size = loaders.protocol_size(compared[0], protocol) if alike else ""
        st.markdown(f"**{figures.PROTOCOL_TITLES[protocol]}**" + (f" :gray[· {size}]" if size else ""))
        st.html(cards.metrics_table(table, protocol, best_of_each=not alike))
    st.caption(
        ("± is the sample standard deviation over seeds. " if mean else "")
        + (
            "R@K, R-precision, MAP@R, NMI, EER and TPR in %; best in bold. Hover a heading for its meaning."
            if alike
            else "These runs were measured on different items or splits: compare within each; its best is in bold."
        )
    )


def through_training(compared: Sequence[Run], mean: bool) -> None:
    """The curves of the compared runs, renewed by themselves while one of them is at work."""
    at_work = any(run.status == "running" for run in compared)
    st.fragment(_through_training, run_every=3 if at_work else None)(compared, mean)


def _through_training(compared: Sequence[Run], mean: bool) -> None:
    log = data.training_log(compared, mean)
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.subheader("Through training", anchor=False, width="content")
        if len(log):
            export("curves", lambda: log, list(compared), {"seeds": "mean" if mean else "each"})
    phases = [name for name in ("select", "refit") if (log["phase"] == name).any()]
    with st.container(horizontal=True, vertical_alignment="top"):
        measured = log.loc[log["protocol"] == "validation", "metric"].unique()
        names = [name for name in METRICS if name in measured] or ["map@r"]
        titles = {name: METRICS[name].title for name in names}
        metric = shell.choice(st.selectbox, "Metric", titles, "metric", "map@r", width=200)
        told = "Seconds count from a phase's first row, on the machine that trained."
        x = shell.choice(st.segmented_control, "Along", {"step": "steps", "seconds": "seconds"}, "along", help=told)
        titles = {"select": "choosing the best step", "refit": "refitting"}
        phase = shell.choice(
            st.segmented_control, "Losses while", {name: titles[name] for name in phases or ["select"]}, "phase"
        )
    left, right = st.columns(2, gap="medium")
    with left:
        if len(measured):
            title = METRICS[metric].title
            st.plotly_chart(
                data.curves(compared, mean, metric, x),
                key="curves",
                config={"displayModeBar": False},
                alt=f"{title} on the validation classes by training {x}, a line per similarity"
                + (", mean and standard deviation over seeds" if mean else ""),
            )
        else:
            st.caption("No measurement on validation classes yet.")
    with right:
        if phases:
            st.plotly_chart(
                data.losses(compared, mean, phase, x),
                key="losses",
                config={"displayModeBar": False},
                alt=f"Loss and its terms by training {x}" + (", mean over seeds" if mean else ""),
            )
        else:
            st.caption("No step yet.")
    if len(measured) and METRICS[metric].larger_is_better:
        _how_fast(compared, metric)


def _how_fast(compared: Sequence[Run], metric: str) -> None:
    """When each run came to a share of its best value on the validation classes, and to what a chosen one kept."""
    known = METRICS[metric]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        titles = {run.name: run.name for run in compared}
        share = shell.choice(st.segmented_control, "Reached of its own best", SHARES, "share", "99")
        target_run = compared[0]
        if len(compared) > 1:
            name = shell.choice(st.selectbox, "And what this run kept", titles, "target", width=280)
            target_run = next(run for run in compared if run.name == name)
    by = target_run.config.selection
    target = kept_value(loaders.metrics(target_run), metric, by, target_run.info.get("best_step"))
    found = data.how_fast(compared, metric, int(share) / 100, target).replace({"run": {"": compared[0].name}})
    found["similarity"] = [style_of(name).title for name in found["similarity"]]
    found["best"] *= 100 if known.unit == "%" else 1
    wanted = known.format(target)
    integer = st.column_config.NumberColumn
    st.dataframe(
        found,
        hide_index=True,
        placeholder="not reached",
        alt=f"Steps and seconds until {SHARES[share]} of each run's best {known.title}, and until {wanted}",
        key="how_fast",
        column_config={
            "run": st.column_config.TextColumn("Run", width="medium"),
            "similarity": "Ranked by",
            "best": integer(f"Best {known.heading}", format=f"%.{known.digits}f"),
            "best_step": integer("at step", format="%d"),
            "share_step": integer(f"{SHARES[share]} of it at step", format="%d"),
            "share_seconds": integer("after, s", format="%.1f"),
            "target_step": integer(f"{wanted} at step", format="%d"),
            "target_seconds": integer("after, s ", format="%.1f"),
        },
    )
    st.caption(
        f"On the validation classes, as often as they were measured. {wanted} is what {target_run.name} kept, ranked "
        f"by {style_of(by).title}. Seconds count from step 0, with the measuring, and are the training machine's own."
    )


def choices(compared: Sequence[Run]) -> None:
    """The choices in which several runs differ; of one run those that differ from its preset, and all of them."""
    if len(compared) > 1:
        st.subheader("Choices that differ", anchor=False)
        differing = compare.compare_runs(compared).config.drop(index=[*compare.WHERE], errors="ignore")
        if len(differing):
            table = differing.map(str).rename_axis("choice").reset_index()
            st.dataframe(table, hide_index=True, alt="Choices in which the compared runs differ", key="differences")
        else:
            st.caption("None: these runs were made with the same choices.")
        return
    chosen = compared[0]
    changed = tables.changed_from_preset(chosen.config)
    st.subheader("Choices", anchor=False)
    if len(changed):
        st.dataframe(
            changed, hide_index=True, alt="Choices that differ from the preset", key="changed", width="content"
        )
    else:
        st.caption(f"Exactly the preset {chosen.config.preset}.")
    with st.expander("All choices and versions", type="compact"):
        rows = pd.Series(chosen.config.to_dict()).map(str).rename("value").rename_axis("choice").reset_index()
        versions = pd.Series(chosen.info.get("versions", {})).rename("version").rename_axis("package").reset_index()
        left, right = st.columns([3, 2])
        left.dataframe(rows, hide_index=True, alt="Every choice of this run", key="choices")
        right.dataframe(versions, hide_index=True, alt="Versions this run was trained with", key="versions")
        if skipped := chosen.info["dataset"].get("skipped"):
            right.caption(f"{len(skipped):,} items were left out, for they can't be read:")
            right.dataframe(pd.DataFrame(skipped), hide_index=True, alt="Items left out, and why", key="skipped")


def notes(compared: Sequence[Run]) -> None:
    """What people wrote about the runs, to read and to change; kept in each run's folder."""
    st.subheader("Notes", anchor=False)
    for start in range(0, len(compared), 3):
        for run, column in zip(compared[start : start + 3], st.columns(min(len(compared), 3)), strict=False):
            stamp = run.notes_stamp
            # The key follows the file: whoever changes it, the field shows what it says.
            key = f"notes_{run.name}_{stamp}"

            def keep(run: Run = run, stamp: int = stamp, key: str = key) -> None:
                text = st.session_state[key]
                if run.notes_stamp != stamp:  # someone else wrote meanwhile: keep both
                    text = f"{run.notes}\n\n{text}"
                run.write_notes(text)

            column.text_area(
                run.name, run.notes, key=key, on_change=keep, height=110, max_chars=NOTES_LENGTH,
                placeholder="What was tried, and what came of it",
            )  # fmt: skip
    st.caption("Kept as notes.md in the run's folder when you leave the field; exports carry them.")
