"""Quadruplets: what training mined, as pictures with scores and distances on their edges."""

import loaders
import shell
import streamlit as st
import tables

from pddm_lab import cards, figures

PER_PAGE = 12

shell.heading(
    "Quadruplets",
    "i and j: a pair of one class that the similarity found least alike. k and l: the items of other classes it found "
    "most like i and like j. A hinge is violated where a negative pair comes within the margin of the positive one.",
)
run = shell.run_or_stop()
mined = loaders.quadruplets(run)
if mined.empty:
    shell.without(run, "quadruplets")

phases = [name for name in ("refit", "select") if (mined["phase"] == name).any()]
titles = {"refit": "refitting", "select": "choosing the best step"}
with st.container(horizontal=True, vertical_alignment="top"):
    phase = shell.choice(st.segmented_control, "Mined while", {name: titles[name] for name in phases}, "mined")
    order = shell.choice(st.selectbox, "Order", tables.ORDERS, "order", width=270)
    show = shell.choice(st.segmented_control, "Show", {"all": "all", "violated": "violated"}, "show")
in_phase = mined[mined["phase"] == phase]
first, last = int(in_phase["step"].min()), int(in_phase["step"].max())
with st.container(horizontal=True, vertical_alignment="top"):
    if last > first:
        steps = st.slider("Training steps", first, last, (first, last), key="steps", bind="query-params", width=420)
    else:
        steps = (first, last)
    classes = st.multiselect(
        "Classes", sorted(in_phase["class_i"].unique()), key="classes", bind="query-params", placeholder="all classes"
    )

chosen = tables.pick_quadruplets(mined, phase, steps, classes, show == "violated", order)
broken = (tables.worst_slack(chosen) > 0).mean() if len(chosen) else 0.0
with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
    st.markdown(f"**{len(chosen):,}** of {len(in_phase):,} quadruplets · **{100 * broken:.1f} %** violate a hinge")
    pages = max(1, -(-len(chosen) // PER_PAGE))
    page = min(st.pagination(pages, key="page", bind="query-params"), pages)
if chosen.empty:
    st.info("No quadruplet fits these choices. Widen the steps, or take out a class.", icon=":material/filter_alt_off:")
    st.stop()

shown = chosen.iloc[(page - 1) * PER_PAGE : page * PER_PAGE]
ids = tuple(dict.fromkeys(shown[["i", "j", "k", "l"]].to_numpy().ravel().tolist()))
st.html(cards.quadruplet_grid(shown, loaders.pictures(run, ids), similarity=run.config.similarity))

style = figures.style_of(run.config.similarity)
st.caption(
    f"S: {style.title}, the similarity that this run trains; larger is more similar. D: Euclidean distance; smaller is "
    f"more similar. Solid edge: positive pair. Dashed edge: negative pair, red where its hinge is violated. "
    f"Margin of the scores: {run.config.score_margin:g}."
)
st.subheader("How hard, through training", anchor=False)
st.plotly_chart(
    figures.hardness(in_phase, height=240),
    key="hardness",
    config={"displayModeBar": False},
    alt="Share of quadruplets that violate each hinge, by training step",
)
