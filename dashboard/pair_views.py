"""The views of the Similarity page: thresholds, one similarity against the other, and one threshold by density."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial

import exporting
import loaders
import numpy as np
import pair_loading
import pandas as pd
import picking
import shell
import streamlit as st
from pairs import as_exported, density_in_words, who_is_right_in_words, with_items

from pddm_lab import cards, figures
from pddm_lab.figures import METRICS, PROTOCOL_TITLES
from pddm_lab.runs import Run
from pddm_lab.verdicts import QUADRANTS, clearest_first, nearest_to, quadrant_of, who_is_right

Choice = tuple[str, float]
"""A similarity and a threshold on it, larger = more similar."""
PER_SIDE = 5
"""Pairs shown on each side of a threshold, of either kind."""
EXPORTED_PER_SIDE = 200
PER_PAGE = 16
QUIET = {"displayModeBar": False}


def thresholds(runs: Sequence[Run], protocols: Sequence[str], chosen: Mapping[str, Choice]) -> None:
    """Distributions with the chosen thresholds, every threshold at once, and the pairs just either side of one."""
    run, *others = runs
    if others:
        protocol = shell.protocol_picker(run)
        columns = [(one, protocol) for one in runs]
    else:
        columns = [(run, protocol) for protocol in protocols]
    matched = {
        (one.name, protocol): {
            key: (name, _matched(run, one, protocol, name, at)) for key, (name, at) in chosen.items()
        }
        for one, protocol in columns
    }
    if others:
        for side, one in zip(st.columns(2, gap="large"), runs, strict=True):
            side.markdown(f"**{shell.plain(one.name)}** :gray[· {loaders.pairs(one, protocol).size}]")
        for key in chosen:
            for side, (one, of) in zip(st.columns(2, gap="large"), columns, strict=True):
                with side:
                    _distribution(one, of, *matched[one.name, of][key], key=f"{key}_{one.name}")
    else:
        for _, protocol in columns:
            st.markdown(f"**{PROTOCOL_TITLES[protocol]}** :gray[· {loaders.pairs(run, protocol).size}]")
            for side, (key, choice) in zip(st.columns(2, gap="large"), chosen.items(), strict=True):
                with side:
                    _distribution(run, protocol, *choice, key=f"{key}_{protocol}")

    st.subheader("Every threshold at once", anchor=False)
    linear = st.toggle("Linear FPR axis", key="linear", bind="query-params")
    for side, (one, protocol) in zip(st.columns(len(columns), gap="large"), columns, strict=True):
        with side:
            title = shell.plain(one.name) if others else f"ROC, {PROTOCOL_TITLES[protocol].lower()}"
            st.markdown(f"**{title}**")
            st.plotly_chart(
                figures.roc(
                    loaders.pairs(one, protocol).distributions,
                    thresholds=dict(matched[one.name, protocol].values()),
                    log_x=not linear,
                ),
                key=f"roc_{one.name}_{protocol}",
                config=QUIET,
                alt=f"ROC curves of every similarity, {PROTOCOL_TITLES[protocol]}, {one.name}",
            )
    counted = dict.fromkeys(protocol for _, protocol in columns)
    st.caption(
        "Markers: the thresholds above. Dotted line: 1 % FPR. Counted on "
        + "; ".join(f"{PROTOCOL_TITLES[name].lower()}: {loaders.pairs(run, name).counted}" for name in counted)
        + "."
    )
    _around(runs, chosen)


def _matched(run: Run, other: Run, protocol: str, similarity: str, threshold: float) -> float:
    """The threshold of another run that lets as many negative pairs pass as this one's; its own scale may differ."""
    if other.name == run.name:
        return threshold
    _, fpr, _ = loaders.pairs(run, protocol).rates(similarity, threshold)
    return loaders.pairs(other, protocol).distributions[similarity].threshold_at_fpr(fpr)


def _distribution(run: Run, protocol: str, name: str, threshold: float, key: str) -> None:
    pairs, style = loaders.pairs(run, protocol), figures.style_of(name)
    scores = _picked_scores(run, protocol)
    st.plotly_chart(
        figures.distributions(
            pairs.distributions[name], name, threshold=threshold, picked=scores[name] if scores else None, height=240
        ),
        key=f"chart_{key}",
        config=QUIET,
        alt=f"Distributions of positive and negative pairs by {style.title}, {PROTOCOL_TITLES[protocol]}, {run.name}",
    )
    tpr, fpr, precision = pairs.rates(name, threshold)
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


def _around(runs: Sequence[Run], chosen: Mapping[str, Choice]) -> None:
    """The pairs just either side of one of the thresholds, as pictures."""
    run = runs[0]
    st.subheader("Just either side of a threshold", anchor=False)
    by_name = dict(chosen.values())
    with st.container(horizontal=True, vertical_alignment="bottom"):
        titles = {name: figures.style_of(name).title for name in by_name}
        name = shell.choice(st.segmented_control, "Threshold of", titles, "around")
        protocol = shell.protocol_picker(run) if len(runs) == 1 else _protocol(run)
        pairs = loaders.scored_pairs(run, protocol)
        settings = {"protocol": protocol, "similarity": name, "threshold": _shown(name, by_name[name])}
        exporting.export(
            "pairs-at-threshold",
            lambda: as_exported(
                with_items(loaders.gallery(run, protocol), nearest_to(pairs, name, by_name[name], EXPORTED_PER_SIDE))
            ),
            run,
            settings | {"of_each_kind_and_side": EXPORTED_PER_SIDE},
        )
    for one in runs:
        at, of = _matched(run, one, protocol, name, by_name[name]), loaders.scored_pairs(one, protocol)
        if len(runs) > 1:
            st.markdown(f"**{shell.plain(one.name)}**")
        gallery = loaders.gallery(one, protocol)
        near = with_items(gallery, nearest_to(of, name, at, PER_SIDE))
        images = loaders.thumbs(gallery, {*near["a"], *near["b"]})
        for kind, title in ((True, "Positive pairs"), (False, "Negative pairs")):
            rejected, accepted = ("missed", "found") if kind else ("told apart", "taken for one class")
            st.caption(f"**{title}**: {rejected} on the left of the threshold, {accepted} on its right")
            picking.pictures(
                cards.pair_strip(near[near["positive"] == kind], images, name, at, chosen=picked()),
                f"strip_{one.name}_{kind}",
                on_pick=pick,
            )
    st.caption(_sampled(run, protocol))
    _picked_pair(runs, protocol, by_name)


def joint(runs: Sequence[Run], on_x: Choice, on_y: Choice) -> None:
    """The same pairs by two similarities: where they agree, and, as pictures, where they don't."""
    run = runs[0]
    (x, at_x), (y, at_y) = on_x, on_y
    if x == y:
        st.info("Choose two different similarities to see one against the other.", icon=":material/compare_arrows:")
        return
    protocol = shell.protocol_picker(run)
    at = {one.name: (_matched(run, one, protocol, x, at_x), _matched(run, one, protocol, y, at_y)) for one in runs}
    quadrants = {one.name: quadrant_of(loaders.scored_pairs(one, protocol), x, y, *at[one.name]) for one in runs}
    if len(runs) == 1:
        left, right = st.columns([17, 10], gap="large")
        with left:
            _joint_chart(run, protocol, x, y, *at[run.name], height=540)
        with right:
            _quadrants(run, protocol, x, y, quadrants[run.name])
    else:
        for side, one in zip(st.columns(2, gap="large"), runs, strict=True):
            with side:
                st.markdown(f"**{shell.plain(one.name)}**")
                _joint_chart(one, protocol, x, y, *at[one.name], height=440)
                _quadrants(one, protocol, x, y, quadrants[one.name])
    _picked_pair(runs, protocol, {x: at_x, y: at_y})
    _pairs_of_quadrant(runs, protocol, (x, y), at, quadrants)


def _joint_chart(run: Run, protocol: str, x: str, y: str, at_x: float, at_y: float, height: int) -> None:
    pairs, scores = loaders.scored_pairs(run, protocol), _picked_scores(run, protocol)
    drawn = min(1200, len(pairs))
    key = f"joint_{run.name}_{protocol}"

    def click() -> None:
        points = st.session_state[key].selection.points
        place = next((point["customdata"] for point in points if point.get("customdata") is not None), None)
        if place is not None:
            row = with_items(loaders.gallery(run, protocol), pairs.iloc[[int(np.ravel(place)[0])]]).iloc[0]
            st.query_params["pair"] = [row["item_a"], row["item_b"]]

    st.plotly_chart(
        figures.joint(
            pairs, x, y, at_x=at_x, at_y=at_y, points=drawn, height=height,
            picked=(scores[x], scores[y]) if scores else None,
        ),
        key=key,
        config=QUIET,
        on_select=click,
        selection_mode="points",
        alt=f"Pairs by {figures.style_of(x).title} and {figures.style_of(y).title} with both thresholds, "
        f"{PROTOCOL_TITLES[protocol]}, {run.name}",
    )  # fmt: skip
    st.caption(
        f"Outlines hold 50, 90 and 99 % of either kind. {drawn:,} of {len(pairs):,} scored pairs are drawn as points; "
        "click one to see its pictures."
    )


def _quadrants(run: Run, protocol: str, x: str, y: str, quadrant: np.ndarray) -> None:
    pairs = loaders.scored_pairs(run, protocol)
    st.html(cards.quadrant_table(_counts(pairs, quadrant), x, y))
    st.markdown(who_is_right_in_words(who_is_right(pairs, quadrant), x, y))
    st.caption(
        "In brackets: 95 % interval, from drawing the classes anew. Where both thresholds let the same share of "
        f"negative pairs pass, those split evenly. {_sampled(run, protocol)}"
    )


def _counts(pairs: pd.DataFrame, quadrant: np.ndarray) -> pd.DataFrame:
    positive = pairs["positive"].to_numpy()
    return pd.DataFrame(
        {
            kind: np.bincount(quadrant[positive == of], minlength=len(QUADRANTS))
            for kind, of in (("positive", True), ("negative", False))
        },
        index=QUADRANTS,
    )


def _pairs_of_quadrant(
    runs: Sequence[Run],
    protocol: str,
    names: tuple[str, str],
    at: Mapping[str, tuple[float, float]],
    quadrants: Mapping[str, np.ndarray],
) -> None:
    """The pairs of one quadrant as pictures, page by page, the clearest first."""
    x, y = (figures.style_of(name).title for name in names)
    titles = {"y": f"Only {y} accepts", "x": f"Only {x} accepts", "both": "Both accept", "neither": "Both reject"}
    with st.container(horizontal=True, vertical_alignment="bottom"):
        of = shell.choice(st.segmented_control, "Pairs", titles, "quadrant", label_visibility="collapsed")
        kinds = {"all": "all pairs", "positive": "positive", "negative": "negative"}
        kind = shell.choice(st.segmented_control, "Kind", kinds, "kind", label_visibility="collapsed")
        if len(runs) > 1:
            by_run = {one.name: one.name for one in runs}
            name = shell.choice(st.segmented_control, "In", by_run, "of", label_visibility="collapsed")
        else:
            name = runs[0].name
    run = next(one for one in runs if one.name == name)
    pairs = loaders.scored_pairs(run, protocol)
    rows = quadrants[name] == QUADRANTS.index(of)
    if kind != "all":
        rows &= pairs["positive"].to_numpy() == (kind == "positive")
    found = pairs[rows]
    found = found.iloc[clearest_first(found, *names, *at[name])]
    gallery = loaders.gallery(run, protocol)
    pages = max(1, -(-len(found) // PER_PAGE))
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.markdown(f"**{len(found):,}** of {len(pairs):,} scored pairs, those farthest from both thresholds first")
        page = min(st.pagination(pages, key="page", bind="query-params"), pages)
        exporting.export(
            "pairs-of-quadrant",
            lambda: as_exported(with_items(gallery, found)),
            run,
            {"protocol": protocol, "x": names[0], "y": names[1], "kind": kind, "quadrant": titles[of]}
            | {f"threshold_{axis}": _shown(by, value) for axis, by, value in zip("xy", names, at[name], strict=True)},
        )
    if found.empty:
        st.info("No scored pair lies there at these thresholds.", icon=":material/filter_alt_off:")
        return
    seen = with_items(gallery, found.iloc[(page - 1) * PER_PAGE : page * PER_PAGE])
    picking.pictures(
        cards.pair_grid(seen, loaders.thumbs(gallery, {*seen["a"], *seen["b"]}), names, chosen=picked()),
        "quadrant_pairs",
        on_pick=pick,
    )


def density(runs: Sequence[Run], protocols: Sequence[str], chosen: Mapping[str, float]) -> None:
    """Does the threshold that works where items lie densely fail where they lie sparsely? For each similarity."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        shares = {"0.1": "0.1 % FPR", "1": "1 % FPR", "5": "5 % FPR"}
        asked = shell.choice(st.segmented_control, "One threshold at", shares, "fpr", default="1")
        if len(runs) > 1:
            protocol = shell.protocol_picker(runs[0])
            panels = [(run, protocol) for run in runs]
        else:
            panels = [(runs[0], protocol) for protocol in protocols]
        share = float(asked) / 100
        exporting.export(
            "threshold-by-density",
            partial(_density_table, panels, list(chosen), share),
            list(runs),
            {"fpr_percent": float(asked), "similarities": list(chosen)},
        )
    st.caption(
        "Every pair lies in the dense, the middle or the sparse third, by the mean distance of its two items to their "
        "10 nearest others. One threshold is set for all pairs, and measured within each third: does what works where "
        "items lie densely fail where they lie sparsely?"
    )
    for side, (run, protocol) in zip(st.columns(len(panels), gap="large"), panels, strict=True):
        with side:
            title = (
                PROTOCOL_TITLES[protocol]
                if len(runs) == 1
                else f"{shell.plain(run.name)}, {PROTOCOL_TITLES[protocol].lower()}"
            )
            st.markdown(f"### {title}")
            results = {name: pair_loading.by_density(run, protocol, name, share) for name in chosen}
            for paragraph in density_in_words(results):
                st.markdown(paragraph)
            st.plotly_chart(
                figures.by_density(results, share=share),
                key=f"density_{run.name}_{protocol}",
                config=QUIET,
                alt=f"TPR and FPR of one threshold by density, {PROTOCOL_TITLES[protocol]}, {run.name}",
            )
            st.html(cards.density_table(results))
            for name in chosen:
                style = figures.style_of(name)
                st.markdown(f"**ROC by density, {style.title}**")
                st.plotly_chart(
                    figures.roc_by_density(
                        pair_loading.thirds(run, protocol, name), name, threshold=results[name].threshold, height=280
                    ),
                    key=f"roc_{name}_{run.name}_{protocol}",
                    config=QUIET,
                    alt=f"ROC curves of {style.title} by density, {PROTOCOL_TITLES[protocol]}, {run.name}",
                )
            st.caption(_sampled(run, protocol))
    st.caption(
        "Intervals of 95 %, from drawing the classes anew 200 times. Hollow markers: the TPR at a threshold of the "
        "third's own that lets the same share of its negative pairs pass. What of the gap remains then stays with any "
        "threshold: sparse pairs are harder."
    )


def _density_table(panels: Sequence[tuple[Run, str]], names: Sequence[str], share: float) -> pd.DataFrame:
    parts = []
    for run, protocol in panels:
        for name in names:
            result = pair_loading.by_density(run, protocol, name, share)
            front = pd.DataFrame({"run": run.name, "protocol": protocol, "similarity": name}, index=result.table.index)
            parts.append(pd.concat([front, result.table.assign(threshold=result.threshold)], axis=1))
    return pd.concat(parts, ignore_index=True)


def pick(pair: str) -> None:
    """Make a pair, as the cards name it, the page's own."""
    st.query_params["pair"] = json.loads(pair)


def picked() -> tuple[str, ...]:
    """Both item ids of the pair that the URL names; empty where it names none."""
    items = tuple(st.query_params.get_all("pair"))
    return items if len(set(items)) == 2 == len(items) else ()


def _picked_scores(run: Run, protocol: str) -> dict[str, float] | None:
    items = picked()
    return pair_loading.scores_of(run, protocol, items) if items else None


def _picked_pair(runs: Sequence[Run], protocol: str, thresholds: Mapping[str, float]) -> None:
    """The picked pair, large, with what every similarity of every open run makes of it."""
    items = picked()
    if not items:
        if "pair" in st.query_params:
            st.warning("The link names no pair of two items.", icon=":material/link_off:")
        return
    run = runs[0]
    scores = _picked_scores(run, protocol)
    with st.container(border=True):
        if scores is None:
            named = " and ".join(f"“{shell.plain(item)}”" for item in items)
            st.caption(f":material/link_off: The picked pair, {named}, isn't in this gallery.")
            st.button("Drop it", key="unpick", on_click=unpick)
            return
        gallery = loaders.gallery(run, protocol)
        *pictures, told = st.columns([1, 1, 3], gap="medium")
        classes = []
        for side, item in zip(pictures, items, strict=True):
            row = gallery.index_of(item)
            classes.append(str(gallery.items["class_name"].iloc[row]))
            with side:
                st.image(
                    loaders.picture(run, item) or gallery.thumb(row), alt=f"{classes[-1]}, {item}", width="stretch"
                )
                st.page_link(
                    "app_pages/search.py",
                    label=shell.plain(classes[-1]),
                    icon=":material/image_search:",
                    help="Search with this item",
                    query_params={"run": run.name, "protocol": protocol, "item": item},
                )
        with told:
            with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"):
                kind = "positive" if classes[0] == classes[1] else "negative"
                st.markdown(f"**The picked pair: {kind}**, {PROTOCOL_TITLES[protocol].lower()}")
                st.button("Drop it", key="unpick", icon=":material/close:", on_click=unpick)
            for side, one in zip(st.columns(len(runs)), runs, strict=True):
                of = _picked_scores(one, protocol) or {}
                facts = {}
                for name in figures.in_order(of):
                    text = f"{_shown(name, of[name]):.3f}".replace("-", "−")
                    if name in thresholds:
                        at = _matched(run, one, protocol, name, thresholds[name])
                        text += " · accepted" if of[name] >= at else " · rejected"
                    facts[figures.style_of(name).title] = text
                side.html(cards.facts(({"Run": one.name} if len(runs) > 1 else {}) | facts))


def unpick() -> None:
    """Forget the picked pair."""
    st.query_params.pop("pair", None)


def _protocol(run: Run) -> str:
    """The protocol in the URL, which a picker further up shows."""
    asked = st.query_params.get("protocol", "")
    return asked if asked in run.protocols() else run.protocols()[0]


def _shown(name: str, value: float) -> float:
    return float(figures.shown(name, np.array(value)))


def _sampled(run: Run, protocol: str) -> str:
    pairs, scored = loaders.pairs(run, protocol), len(loaders.scored_pairs(run, protocol))
    return f"{scored:,} of {pairs.positives + pairs.negatives:,} pairs were scored one by one."
