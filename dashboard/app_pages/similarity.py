"""Similarity: how far each similarity parts positive pairs from negative ones, and what a threshold on it costs."""

import loaders
import numpy as np
import shell
import streamlit as st
from pairs import Scale

from pddm_lab import figures
from pddm_lab.errors import LabError
from pddm_lab.figures import METRICS, PROTOCOL_TITLES

shell.heading(
    "Similarity",
    "Positive pairs: two items of one class. Negative pairs: two of different classes. The less they overlap, the "
    "better a threshold tells them apart.",
)
run = shell.run_or_stop()
protocols = run.protocols()
if not protocols:
    shell.without(run, "pair distributions")
try:
    pairs = {protocol: loaders.pairs(run, protocol) for protocol in protocols}
except LabError as error:
    shell.nothing("The distributions can't be read", str(error), ":material/broken_image:")
names = figures.in_order(pairs[protocols[0]].distributions)
titles = {name: figures.style_of(name).title for name in names}
trained = run.config.similarity if run.config.similarity != "euclidean" else "pddm"

chosen: dict[str, tuple[str, float]] = {}
for side, key, first in zip(st.columns(2, gap="large"), ("left", "right"), ("euclidean", trained), strict=True):
    with side:
        name = shell.choice(
            st.segmented_control, f"Similarity on the {key}", titles, key, first, label_visibility="collapsed"
        )
        style = figures.style_of(name)
        ends = [pairs[protocol].distributions[name].edges[[0, -1]] for protocol in protocols]
        scale = Scale.over(figures.shown(name, np.array([np.min(ends), np.max(ends)])))
        at_one_percent = pairs[protocols[0]].distributions[name].threshold_at_fpr(0.01)
        value = st.slider(
            "Accept pairs with D of at most" if style.distance else "Accept pairs with a score of at least",
            scale.low, scale.high, scale.nearest(float(figures.shown(name, np.array(at_one_percent)))),
            step=scale.step, format=f"%.{scale.decimals}f", key=f"{key}_{name}", bind="query-params",
            help=f"Starts where 1 % of the negative pairs pass, {PROTOCOL_TITLES[protocols[0]].lower()}.",
        )  # fmt: skip
        chosen[key] = name, float(figures.shown(name, np.array(value)))

for protocol in protocols:
    st.markdown(f"**{PROTOCOL_TITLES[protocol]}** :gray[· {pairs[protocol].size}]")
    for side, (key, (name, threshold)) in zip(st.columns(2, gap="large"), chosen.items(), strict=True):
        with side:
            style = figures.style_of(name)
            st.plotly_chart(
                figures.distributions(pairs[protocol].distributions[name], name, threshold=threshold, height=240),
                key=f"chart_{key}_{protocol}",
                config={"displayModeBar": False},
                alt=f"Distributions of positive and negative pairs by {style.title}, {PROTOCOL_TITLES[protocol]}",
            )
            tpr, fpr, precision = pairs[protocol].rates(name, threshold)
            with st.container(horizontal=True, gap="small"):
                st.metric("TPR", f"{100 * tpr:.1f} %", help="Positive pairs accepted at this threshold.")
                st.metric("FPR", f"{100 * fpr:.2f} %", help="Negative pairs accepted at this threshold.")
                st.metric("Precision", f"{100 * precision:.1f} %", help="Positive pairs among the accepted ones.")
            measured = run.info["metrics"].get(protocol, {}).get(name, {})
            st.caption(
                " · ".join(
                    f"{METRICS[metric].title} **{METRICS[metric].format(measured[metric])}** {METRICS[metric].unit}"
                    for metric in ("auc", "eer", "dprime", "tpr@1%fpr")
                    if measured.get(metric) is not None
                )
            )

st.subheader("Every threshold at once", anchor=False)
linear = st.toggle("Linear FPR axis", key="linear", bind="query-params")
for side, protocol in zip(st.columns(len(protocols), gap="large"), protocols, strict=True):
    with side:
        st.markdown(f"**ROC, {PROTOCOL_TITLES[protocol].lower()}**")
        st.plotly_chart(
            figures.roc(
                pairs[protocol].distributions,
                thresholds=dict(chosen.values()),
                log_x=not linear,
            ),
            key=f"roc_{protocol}",
            config={"displayModeBar": False},
            alt=f"ROC curves of every similarity, {PROTOCOL_TITLES[protocol]}",
        )
st.caption(
    "Markers: the thresholds above. Dotted line: 1 % FPR. Counted on "
    + "; ".join(f"{PROTOCOL_TITLES[protocol].lower()}: {pairs[protocol].counted}" for protocol in protocols)
    + "."
)
