"""The Similarity page's view of thresholds: distributions, ROC curves, and pictures of pairs close to a threshold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import streamlit as st
from app_pages.similarity import data
from app_pages.similarity.picked_pair import as_shown, matched, pick, picked, picked_scores, show_picked
from app_pages.similarity.text import as_exported, with_items
from shared import export, loaders, picture_grid, shell
from shared.chart import chart
from shared.plain_text import plain

from pddm_lab import cards, figures
from pddm_lab.analysis.thresholds import around_threshold
from pddm_lab.figures import METRICS, PROTOCOL_TITLES
from pddm_lab.runs.compare import final_metrics
from pddm_lab.runs.run import Run
from pddm_lab.similarities import EVERY, PRETRAINED, PRETRAINED_FEATURES

PER_SIDE = 5
"""Pairs shown on each side of a threshold, of either kind."""
EXPORTED_PER_SIDE = 200


def show(runs: Sequence[Run], protocols: Sequence[str], chosen: Mapping[str, tuple[str, float]]) -> None:
    """One run under every protocol, or two runs under one of them.

    Args:
        chosen: for left and right, a similarity and a threshold on the first run's values.
    """
    run = runs[0]
    if len(runs) == 1:
        for protocol in protocols:
            st.markdown(f"**{PROTOCOL_TITLES[protocol]}** :gray[· {_size(run, protocol)}]")
            for side, (key, choice) in zip(st.columns(2, gap="large"), chosen.items(), strict=True):
                with side:
                    _distribution(run, protocol, *choice, key=f"{key}_{protocol}")
            _pretrained(run, protocol)
    else:
        protocol = protocols[0]
        for side, one in zip(st.columns(2, gap="large"), runs, strict=True):
            side.markdown(f"**{plain(one.name)}** :gray[· {_size(one, protocol)}]")
        for key, (name, threshold) in chosen.items():
            for side, one in zip(st.columns(2, gap="large"), runs, strict=True):
                with side:
                    at = matched(run, one, protocol, name, threshold)
                    _distribution(one, protocol, name, at, key=f"{key}_{one.name}")
        for side, one in zip(st.columns(2, gap="large"), runs, strict=True):
            with side:
                _pretrained(one, protocol)
        st.caption(
            f"Scales differ between runs, so {plain(runs[1].name)} is shown at the thresholds that let as many "
            "negative pairs pass."
        )
    _around(runs, protocols, dict(chosen.values()))
    if place := shell.unfolded("All thresholds: ROC", "roc"):
        with place:
            _roc(runs, protocols, dict(chosen.values()))


def _distribution(run: Run, protocol: str, name: str, threshold: float, key: str) -> None:
    pairs, scores = loaders.pairs(run, protocol), picked_scores(run, protocol)
    tpr, fpr, precision = pairs.rates(name, threshold)
    with st.container(horizontal=True, gap="small"):
        st.metric("TPR", f"{100 * tpr:.1f} %", help="Positive pairs accepted at this threshold.")
        st.metric("FPR", f"{100 * fpr:.2f} %", help="Negative pairs accepted at this threshold.")
        help_text = "Positive pairs among the accepted ones. Of all pairs, it is the share of positive pairs."
        st.metric("Precision", f"{100 * precision:.1f} %", help=help_text)
    figure = figures.distributions(
        pairs.distributions[name], name, threshold=threshold, picked=scores.get(name) if scores else None, height=240
    )
    title = f"Distributions of positive and negative pairs by {EVERY[name].title}"
    chart(figure, f"chart_{key}", f"{title}, {PROTOCOL_TITLES[protocol]}, {run.name}")
    st.caption(_measured(run, protocol, name))


def _size(run: Run, protocol: str) -> str:
    """The size of a protocol, and how rare positive pairs are: that is why precision is low. Accepting all has that."""
    pairs = loaders.pairs(run, protocol)
    share = 100 * pairs.positives / max(pairs.positives + pairs.negatives, 1)
    return f"{pairs.size}; {share:.2g} % of all pairs are positive"


def _measured(run: Run, protocol: str, name: str) -> str:
    """What the run measured of all pairs by a similarity, in Markdown; empty if it didn't."""
    measured = final_metrics(run).get(protocol, {}).get(name, {})
    return " · ".join(
        f"{METRICS[metric].title} **{METRICS[metric].format(value)}** {METRICS[metric].unit}"
        for metric in ("auc", "eer", "dprime", "tpr@1%fpr")
        if (value := measured.get(metric)) is not None
    )


def _pretrained(run: Run, protocol: str) -> None:
    """The same of the trunk before training, to compare with."""
    if text := _measured(run, protocol, PRETRAINED):
        st.caption(f"{PRETRAINED_FEATURES.title}, before training: {text}")


def _roc(runs: Sequence[Run], protocols: Sequence[str], thresholds: Mapping[str, float]) -> None:
    """ROC curves: a chart per protocol, or per run."""
    linear = st.toggle("Linear FPR axis", key="linear", bind="query-params")
    charts = [(run, protocol) for run in runs for protocol in protocols]
    for side, (run, protocol) in zip(st.columns(len(charts), gap="large"), charts, strict=True):
        with side:
            of = f"ROC, {PROTOCOL_TITLES[protocol].lower()}"
            st.markdown(f"**{of if len(runs) == 1 else plain(run.name)}**")
            at = {name: matched(runs[0], run, protocol, name, value) for name, value in thresholds.items()}
            figure = figures.roc(loaders.pairs(run, protocol).distributions, thresholds=at, log_x=not linear)
            alt = f"ROC curves of every similarity, {PROTOCOL_TITLES[protocol]}, {run.name}"
            chart(figure, f"roc_{run.name}_{protocol}", alt)
    st.caption(
        "Markers: the thresholds above. Dotted line: 1 % FPR. Counted on "
        + "; ".join(f"{PROTOCOL_TITLES[name].lower()}: {loaders.pairs(runs[0], name).counted}" for name in protocols)
        + "."
    )


def _around(runs: Sequence[Run], protocols: Sequence[str], thresholds: Mapping[str, float]) -> None:
    """The pairs closest to one of the thresholds, on either side, as pictures."""
    run = runs[0]
    st.header("Pairs close to a threshold", anchor=False)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        titles = {name: EVERY[name].title for name in thresholds}
        name = shell.choice(st.segmented_control, "Threshold of", titles, "around")
        protocol = shell.protocol_picker(run) if len(runs) == 1 else protocols[0]
        where = shell.choice(st.selectbox, "Pairs of", data.WHERE, "where", width=150)
        export.export(
            "pairs-at-threshold",
            lambda: as_exported(
                with_items(
                    loaders.gallery(run, protocol),
                    around_threshold(data.pairs_where(run, protocol, where), name, thresholds[name], EXPORTED_PER_SIDE),
                )
            ),
            run,
            {"protocol": protocol, "similarity": name, "threshold": as_shown(name, thresholds[name])}
            | {"density": where, "at_most_of_each_kind_and_side": EXPORTED_PER_SIDE},
        )
    for one in runs:
        if len(runs) > 1:
            st.markdown(f"**{plain(one.name)}**")
        gallery, at = loaders.gallery(one, protocol), matched(run, one, protocol, name, thresholds[name])
        near = with_items(gallery, around_threshold(data.pairs_where(one, protocol, where), name, at, PER_SIDE))
        images = loaders.thumbs(gallery, {*near["a"], *near["b"]})
        for kind, text in (
            (True, "**Positive pairs**: wrongly rejected left of the threshold, rightly accepted right of it"),
            (False, "**Negative pairs**: rightly rejected left of the threshold, wrongly accepted right of it"),
        ):
            st.caption(text)
            picture_grid.pictures(
                cards.pair_strip(near[near["positive"] == kind], images, name, at, chosen=picked()),
                f"strip_{one.name}_{'positive' if kind else 'negative'}",
                on_pick=pick,
            )
    st.caption(data.scored_in_words(run, protocol))
    show_picked(runs, protocol, thresholds)
