"""Runs: every training with its state and metrics, compared; live while one trains; the place to start and stop one."""

import loaders
import pandas as pd
import shell
import streamlit as st
import tables
import training

from pddm_lab import cards, figures, runs
from pddm_lab.runs import BrokenRun, Run

found = loaders.list_runs()
readable = [run for run in found if isinstance(run, Run)]

with st.container(horizontal=True, vertical_alignment="bottom", horizontal_alignment="distribute"):
    with st.container(width="content"):
        shell.heading("Runs", "Every training, its metrics under both protocols, and how it got there.")
    if readable and st.button("Train a run", icon=":material/add:", key="train"):
        training.dialog()

busy = training.watch()

for broken in (run for run in found if isinstance(run, BrokenRun)):
    st.warning(broken.reason, title=f"{broken.name} can't be read", icon=":material/broken_image:")

if not readable:
    if not busy:
        with st.container(border=True):
            st.subheader("Train your first run", anchor=False)
            st.markdown(
                "The quick preset fetches pictograms in several drawing styles, learns a similarity on half of "
                "their classes, and shows how it does on the other half. It takes about a minute and needs no GPU."
            )
            if training.choose_and_start():
                st.rerun()
    st.stop()

table, share = tables.overview(readable), st.column_config.NumberColumn
help_of = {
    "D": "Recall@1 in %, ranked by the Euclidean distance D.",
    "S": "Recall@1 in %, ranked by the similarity S that the run trained.",
}
st.dataframe(
    table,
    hide_index=True,
    key="runs_table",
    column_order=[name for name in table.columns if name != "created"],
    placeholder="–",
    height="content" if len(readable) < 10 else 390,
    alt="All runs with their state and Recall at 1",
    column_config={
        "run": st.column_config.TextColumn("Run", pinned=True, width="medium"),
        "status": st.column_config.MultiselectColumn(
            "Status", options=list(shell.STATUS_ICONS), color=["blue", "green", "red", "gray", "orange"], width=96
        ),
        "data": st.column_config.TextColumn("Data", width=76),
        "training": st.column_config.TextColumn("Training", width=112, help="Preset, and the similarity S it trained."),
        "seconds": st.column_config.NumberColumn("Time, s", format="%d", width=64),
        "created": st.column_config.DatetimeColumn("Created", format="D MMM, HH:mm"),
        **{
            f"{protocol} {letter}": share(f"{protocol}, by {letter}", format="%.1f", width=92, help=help_of[letter])
            for protocol in runs.PROTOCOLS
            for letter in "DS"
        },
    },
)

st.caption(
    "unseen, known: Recall@1 in % under that protocol, ranked by the distance D or by the S that the run trained."
)

chosen = shell.run_or_stop()
others = [run.name for run in readable if run.name != chosen.name]
beside = (
    st.multiselect(
        "Compare with", others, key="beside", bind="query-params", placeholder="other runs", max_selections=5
    )
    if others
    else []
)
compared = [chosen, *(run for run in readable if run.name in beside and run.name != chosen.name)]
for run in compared:
    if run.reason:
        shown = st.info if run.status == "stopped" else st.error
        shown(run.reason, title=f"{run.name}: {run.status}", icon=shell.STATUS_ICONS[run.status])

comparison = runs.compare(compared)
shares = [name for name in ("recall@1", "map@r") if (comparison.metrics["metric"] == name).any()]
st.subheader("Final metrics" if len(compared) == 1 else f"Final metrics of {len(compared)} runs", anchor=False)
if comparison.metrics.empty:
    st.caption("Measured at the end of a training. Until then the curves below show the validation classes.")
alike = runs.measured_alike(compared)
if len(compared) > 1 and shares:
    st.plotly_chart(
        figures.comparison(comparison.metrics, shares),
        key="comparison",
        config={"displayModeBar": False},
        alt="Recall at 1 and MAP at R of the compared runs under both protocols, a marker per similarity",
    )
for protocol in (name for name in runs.PROTOCOLS if (comparison.metrics["protocol"] == name).any()):
    size = loaders.protocol_size(chosen, protocol) if alike else ""
    st.markdown(f"**{figures.PROTOCOL_TITLES[protocol]}**" + (f" :gray[· {size}]" if size else ""))
    st.html(cards.metrics_table(comparison.metrics, protocol, best_of_each=not alike))
if not comparison.metrics.empty:
    st.caption(
        "R@K, R-precision, MAP@R, NMI, EER and TPR in %; best in bold. Hover a heading for its meaning."
        if alike
        else "These runs were measured on different items or splits: compare within each; its best is in bold."
    )


def through_training() -> None:
    """The curves of the compared runs; on its own, so that it can follow a run at work."""
    st.subheader("Through training", anchor=False)
    log = tables.several(compared, [loaders.metrics(run) for run in compared])
    phases = [name for name in ("select", "refit") if (log["phase"] == name).any()]
    with st.container(horizontal=True, vertical_alignment="top"):
        measured = log.loc[log["protocol"] == "validation", "metric"].unique()
        names = [name for name in figures.METRICS if name in measured] or ["map@r"]
        titles = {name: figures.METRICS[name].title for name in names}
        metric = shell.choice(st.selectbox, "Metric", titles, "metric", "map@r", width=200)
        x = shell.choice(st.segmented_control, "Along", {"step": "steps", "seconds": "seconds"}, "along")
        titles = {"select": "choosing the best step", "refit": "refitting"}
        phase = shell.choice(
            st.segmented_control, "Losses while", {name: titles[name] for name in phases or ["select"]}, "phase"
        )
    left, right = st.columns(2, gap="medium")
    with left:
        if len(measured):
            title = figures.METRICS[metric].title
            st.plotly_chart(
                figures.curves(log, metric, x=x, height=320),
                key="curves",
                config={"displayModeBar": False},
                alt=f"{title} on the validation classes by training {x}, a line per similarity",
            )
        else:
            st.caption("No measurement on validation classes yet.")
    with right:
        in_phase = log[log["phase"] == phase]
        if len(in_phase):
            st.plotly_chart(
                figures.losses(in_phase, x=x, height=320),
                key="losses",
                config={"displayModeBar": False},
                alt=f"Loss and its terms by training {x}",
            )
        else:
            st.caption("No step yet.")


at_work = any(run.status == "running" for run in compared)
st.fragment(through_training, run_every=3 if at_work else None)()

if len(compared) > 1:
    st.subheader("Choices that differ", anchor=False)
    differing = comparison.config.drop(index=[*runs.WHERE], errors="ignore")
    if len(differing):
        table = differing.map(str).rename_axis("choice").reset_index()
        st.dataframe(table, hide_index=True, alt="Choices in which the compared runs differ", key="differences")
    else:
        st.caption("None: these runs were made with the same choices.")
else:
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
