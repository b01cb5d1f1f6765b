"""Similarity: how well each similarity separates positive from negative pairs, and what a threshold on it costs."""

from itertools import product

import numpy as np
import streamlit as st
from app_pages.similarity import data, density, joint, thresholds
from app_pages.similarity.text import Scale
from shared import loaders, shell
from shared.plain_text import command, plain

from pddm_lab import figures
from pddm_lab.errors import LabError
from pddm_lab.figures import PROTOCOL_TITLES
from pddm_lab.similarities import EVERY, SHOWN

VIEWS = {"thresholds": "Thresholds", "joint": "One against another", "density": "By density"}

shell.heading(
    "Similarity",
    "Positive pairs are two items of one class, negative pairs two items of different classes. The less their "
    "distributions overlap, the better a threshold separates them.",
    words=("D", "D_M", "S", "L", "unseen", "known", "TPR at 1 % FPR"),
)
run = shell.run_or_stop()
shell.needs_labels(run, "pairs")
protocols = run.protocols()
if not protocols:
    shell.without(run, "pair distributions")
try:
    pairs = {protocol: loaders.pairs(run, protocol) for protocol in protocols}
except LabError as error:
    shell.unreadable("The distributions can't be read", error)
first_protocol = protocols[0]

with st.container(horizontal=True, vertical_alignment="top"):
    view = shell.choice(st.segmented_control, "View", VIEWS, "view")
    other = shell.second_run(run, first_protocol, width=260)
    if view == "joint" or other is not None:  # otherwise the page shows both protocols
        protocols = [shell.protocol_picker(run)]

runs = [run] if other is None else [run, other]
try:
    lacking = {one.name: data.not_measured(one) for one in runs}
except LabError as error:
    shell.unreadable("The distributions can't be read", error)
measured = [set(loaders.pairs(one, protocol).distributions) for one in runs for protocol in one.protocols()]
titles = {name: EVERY[name].title for name in SHOWN if all(name in names for names in measured)}
for name, names in lacking.items():
    if names:
        listed = " or ".join(EVERY[one].title for one in names)
        rebuild = command("gallery", "rebuild", name)
        st.caption(f"{plain(name)} was measured before this lab had {listed}. {rebuild} measures it again.")

chosen: dict[str, tuple[str, float]] = {}
sides = zip(st.columns(2, gap="large"), ("left", "right"), shell.compared_similarities(runs), strict=True)
for side, key, first in sides:
    with side:
        name = shell.choice(
            st.segmented_control, f"Similarity on the {key}", titles, key, first, label_visibility="collapsed"
        )
        ends = [of.distributions[name].edges[[0, -1]] for of in pairs.values()]
        scale = Scale.over(figures.shown(name, np.array([np.min(ends), np.max(ends)])))
        at_one_percent = pairs[first_protocol].distributions[name].threshold_at_fpr(0.01)
        if view == "density":  # this view sets its own thresholds
            chosen[key] = name, at_one_percent
            continue
        value = st.slider(
            f"Accept pairs with {'D of at most' if EVERY[name].is_distance else 'a score of at least'}",
            scale.low, scale.high, scale.nearest(float(figures.shown(name, np.array(at_one_percent)))),
            step=scale.step, format=f"%.{scale.decimals}f", key=f"{key}_{name}", bind="query-params",
            help=f"At first, 1 % of the negative pairs pass, {PROTOCOL_TITLES[first_protocol].lower()}.",
        )  # fmt: skip
        chosen[key] = name, float(figures.shown(name, np.array(value)))

try:
    if any(name == "local" for name, _ in chosen.values()):
        for one, protocol in product(runs, protocols):
            shell.stale_caption(one, protocol)
    if view == "thresholds":
        thresholds.show(runs, protocols, chosen)
    elif view == "joint":
        joint.show(runs, protocols[0], *chosen.values())
    else:
        density.show(runs, protocols, [name for name, _ in chosen.values()])
except LabError as error:
    shell.unreadable("The pairs can't be scored", error)
