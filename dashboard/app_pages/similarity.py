"""Similarity: how far each similarity parts positive pairs from negative ones, and what a threshold on it costs."""

import loaders
import numpy as np
import shell
import streamlit as st

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
trained = run.config.similarity if run.config.similarity != "euclidean" else "pddm"

sides = st.columns(2, gap="large")
thresholds = {}
for side, key, first in zip(sides, ("left", "right"), ("euclidean", trained), strict=True):
    with side:
        name = st.segmented_control(
            f"{key.capitalize()} similarity",
            names,
            default=first if first in names else names[0],
            required=True,
            key=key,
            bind="query-params",
            label_visibility="collapsed",
            format_func=lambda name: figures.style_of(name).title,
        )
        style = figures.style_of(name)
        at_one_percent = pairs[protocols[0]].distributions[name].threshold_at_fpr(0.01)
        ends = [pairs[protocol].distributions[name].edges[[0, -1]] for protocol in protocols]
        low, high = sorted(figures.shown(name, np.array([np.min(ends), np.max(ends)])).tolist())
        step = 10.0 ** np.floor(np.log10((high - low) / 200))
        chosen = st.slider(
            f"Threshold: accept pairs with {'D of at most' if style.distance else 'a value of at least'}",
            float(np.floor(low / step) * step),
            float(np.ceil(high / step) * step),
            float(np.round(figures.shown(name, np.array(at_one_percent)) / step) * step),
            step=float(step),
            format=f"%.{max(0, -int(np.log10(step)))}f",
            key=f"at_{name}" if key == "left" else f"at_{name}_right",
            bind="query-params",
            help="Starts where 1 % of the unseen classes' negative pairs pass.",
        )
        thresholds[key] = float(figures.shown(name, np.array(chosen)))
        for protocol in protocols:
            data = pairs[protocol]
            st.markdown(f"**{PROTOCOL_TITLES[protocol]}** :gray[· {style.title} · {data.size}]")
            st.plotly_chart(
                figures.distributions(data.distributions[name], name, threshold=thresholds[key], height=250),
                key=f"chart_{key}_{protocol}",
                config={"displayModeBar": False},
                alt=f"Distributions of positive and negative pairs by {style.title}, {PROTOCOL_TITLES[protocol]}",
            )
            tpr, fpr, precision = data.rates(name, thresholds[key])
            with st.container(horizontal=True, gap="small"):
                st.metric("TPR", f"{100 * tpr:.1f} %", help="Positive pairs accepted at this threshold.")
                st.metric("FPR", f"{100 * fpr:.2f} %", help="Negative pairs accepted at this threshold.")
                st.metric("Precision", f"{100 * precision:.1f} %", help="Positive pairs among the accepted ones.")
            measured = run.info["metrics"].get(protocol, {}).get(name, {})
            st.caption(
                " · ".join(
                    f"{METRICS[metric].title} **{METRICS[metric].format(measured[metric])}**"
                    + (f" {METRICS[metric].unit}" if METRICS[metric].unit else "")
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
                thresholds={st.session_state[key]: thresholds[key] for key in ("left", "right")},
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
