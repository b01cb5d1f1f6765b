"""The lab's own results, which come with it, on the Runs page: they are there before anything is trained."""

from __future__ import annotations

import streamlit as st
from app_pages.runs import study_local, study_methods
from app_pages.runs.views import heading
from shared import shell
from shared.plain_text import plain

from pddm_lab.errors import RunError
from pddm_lab.figures import METRICS, PROTOCOL_TITLES
from pddm_lab.study.findings import metric_of, title_of
from pddm_lab.study.shipped import FOLDER, read_shipped

TITLE = "The lab's own results"
SOURCE = {"name": "pddm-lab", "created": "", "settings": {"read from": FOLDER}}


def page() -> None:
    """Local against global metrics, then every method side by side."""
    try:
        shipped = read_shipped()
    except RunError as error:
        st.error(plain(error), icon=":material/broken_image:")
        return
    study_local.show_leads(shipped.leads, SOURCE, {"part": "local"})
    datasets = {name: name for name in shipped.datasets()}
    place = st.container()
    with st.container(horizontal=True, vertical_alignment="bottom"):
        dataset = shell.choice(st.selectbox, "Data", datasets, "data", "emoji", width=140)
        protocol = shell.choice(
            st.segmented_control, "Protocol", {name: PROTOCOL_TITLES[name] for name in ("unseen", "known")}, "protocol"
        )
        measured = {name: METRICS[name].title for name in METRICS if (shipped.means["metric"] == name).any()}
        metric = shell.choice(st.selectbox, "Metric", measured, "metric", "map@r", width=160)
    results = shipped.results(dataset, protocol, metric)
    results = results.assign(name=results["method"].map(title_of))
    where = f"{dataset}, {PROTOCOL_TITLES[protocol].lower()}"
    settings = {"data": dataset, "protocol": protocol, "metric": metric}
    with place:
        title = f"Methods side by side: {metric_of(metric).title} on {where}"
        heading(title, "methods", results, SOURCE, settings, "study_methods")
    seeds = results[["name", "similarity", "value"]][:0]
    study_methods.show(results, seeds, metric, where, title_of(shipped.baseline(dataset)))
    st.caption(
        f"From {FOLDER}, which also says how each was measured: a linear head on the frozen trunk at 128 px, 5 seeds; "
        "local structure on the preset quick at 160 px. `pddm-lab compare --out results` computes all of it again."
    )
