"""Audit: which axioms S breaks, how well its values predict, duplicate pictures, and licences."""

import pandas as pd
import streamlit as st
from app_pages.audit import corrections, data, local_structure, pictures, similarities, slices
from shared import loaders, picture_grid, review, shell
from shared.chart import chart
from shared.export import export
from shared.plain_text import plain

from pddm_lab import cards, figures
from pddm_lab.errors import LabError
from pddm_lab.figures import PROTOCOL_TITLES
from pddm_lab.runs.run import Run
from pddm_lab.wording import counted

VIEWS = {
    "axioms": "Metric axioms", "calibration": "Calibration", "duplicates": "Duplicates", "licences": "Licences",
    "slices": "Slices", "corrections": "Corrections",
}  # fmt: skip
WITHOUT_LABELS = ("duplicates", "licences")
"""What can be audited where nothing is right or wrong."""
LOOKS = {"closest": "Self-similarity", "triangle": "Triangle inequality", "chains": "Chains", "symmetric": "Symmetry"}
PICTURES = 24


def main() -> None:
    shell.heading(
        "Audit",
        "Is S a metric? Do its values mean the same everywhere? Which pictures are duplicates, and which labels wrong?",
        words=("S", "D", "D_M", "L", "unseen", "known"),
    )
    run = shell.run_or_stop()
    if not run.protocols():
        shell.without(run, "gallery to audit")
    views = {name: title for name, title in VIEWS.items() if run.is_labelled or name in WITHOUT_LABELS}
    view = shell.choice(st.segmented_control, "View", views, "view", label_visibility="collapsed")
    try:
        {
            "axioms": axioms, "calibration": calibration, "duplicates": duplicates, "licences": licences,
            "slices": slices.show, "corrections": corrections.show,
        }[view](run)  # fmt: skip
    except LabError as error:
        shell.unreadable("Can't audit this run", error)


def axioms(run: Run) -> None:
    """The axioms of a metric for all similarities, then examples of one."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        protocol = shell.protocol_picker(run)
        rows = st.select_slider(
            "Items compared with all others", [100, 200, 500, 1000, 2000], value=200, key="compared",
            bind="query-params", width=260, help="More items give more precise shares, but take longer.",
        )  # fmt: skip
        menu = st.container()
    gallery = loaders.gallery(run, protocol)
    if len(gallery) < 3:
        shell.nothing("Too few items", f"The gallery has {len(gallery)} items. Triangles need three.")
    measured = data.axioms(run, protocol, int(rows))
    calibrated = data.calibrations(run, protocol, 0.5)
    from pddm_lab.analysis import calibration, metric_axioms

    checks = {name: of.checks() + (fit.checks() if (fit := calibrated[name]) else []) for name, of in measured.items()}
    trained = _trained(run)
    _list(similarities.headline(checks, trained))
    st.html(cards.audit_table(*similarities.answer_table(checks, metric_axioms.PROPERTIES | calibration.PROPERTIES)))
    st.caption(f"{PROTOCOL_TITLES[protocol]}. Checked: {similarities.extent(measured[trained])}")
    with menu:
        every = [check for of in checks.values() for check in of]
        settings = {"view": "axioms", "protocol": protocol, "compared": int(rows)}
        export("findings", lambda: metric_axioms.checks_table(every, protocol), run, settings, key="axioms")

    local_structure.show(run, protocol)
    st.header("Examples", anchor=False)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        look = shell.choice(st.segmented_control, "Property", LOOKS, "look")
        titles, by = {name: figures.style_of(name).title for name in measured}, trained
        if look != "symmetric":
            by = shell.choice(st.segmented_control, "Examples from", titles, "by", trained)
    one, title = measured[by], titles[by]
    if look == "closest":
        st.caption(
            "D(i,i) is 0, so no other item can be closer to i than i itself. S(i,i) is the unit's output for u = 0 and "
            "v = fᵢ, and training never scored an item with itself."
            + (" L(i,i) is that of a copy of i that is not in the gallery." if "local" in measured else "")
        )
        alt = "By how much items are more similar to themselves than to the closest other item, by similarity"
        chart(figures.self_margins(measured), "margins", alt)
        examples = similarities.closer_cards(one, gallery.items)
        _examples(
            run, examples, "closer",
            f"By {title}, {int(one.beaten.sum()):,} of {len(one.rows):,} items have another item that is more similar "
            f"to them than they are to themselves. {len(examples)} are shown. Dashed frame: the classes differ.",
            f"By {title}, no item has another that is closer to it than itself.",
        )  # fmt: skip
    elif look == "triangle":
        st.caption(
            "S is turned into a dissimilarity d = c − S, with the smallest c for which no d is negative. For the two "
            "distances d is D itself, for the cosine 1 − cos. A larger c would hide violations: with c large enough, "
            "any similarity satisfies the triangle inequality."
        )
        alt = "How much longer detours through a third item are than the direct way, by similarity"
        chart(figures.slack(measured), "slack", alt)
        t = one.triangles
        examples = similarities.triple_cards(one, t.worst, t.worst_scores, gallery.items)
        _examples(
            run, examples, "triangles",
            f"By {title}, {t.violated:,} of {t.triples:,} triples break the inequality. Here are the {len(examples)} "
            f"worst. Hiding all of them would need c = {t.needed:.2f} instead of {one.offset:.2f}.",
            f"By {title}, none of {t.triples:,} triples breaks the inequality.",
        )  # fmt: skip
    elif look == "chains":
        st.caption(
            "If i and j are accepted at 1 % FPR, and j and k too, are i and k accepted? Even a metric doesn't ensure "
            "it. But with a metric, the distance between i and k is at most twice the threshold. S has no such limit."
        )
        st.html(cards.audit_table(*similarities.chain_table(measured)))
        c = one.chains
        apart = slice(min(c.broken, len(c.worst)))
        examples = similarities.triple_cards(one, c.worst[apart], c.worst_scores[apart], gallery.items, c.threshold)
        _examples(
            run, examples, "chains",
            f"By {title}, the ends of {c.broken:,} of {c.chains:,} chains are not accepted. Here are the "
            f"{len(examples)} least similar.",
            f"By {title}, {'the ends of all chains are accepted' if c.chains else 'no accepted pairs share an item'}.",
        )  # fmt: skip
    else:
        st.caption(
            "S uses only u = |fᵢ − fⱼ| and v = (fᵢ + fⱼ) / 2, which are the same in either order. So only rounding "
            "errors should remain. Measured with the same functions that mine, search and evaluate."
            + (" L differs a little: a search takes its query out of the gallery." if "local" in measured else "")
        )
        st.html(cards.audit_table(*similarities.symmetry_table(measured)))


def calibration(run: Run) -> None:
    """How well a similarity's value predicts the probability that a pair is of one class."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        protocol = shell.protocol_picker(run)
        prior = shell.choice(
            st.segmented_control, "Positive pairs", {"half": "Half of all", "gallery": "As in the gallery"}, "prior",
            help="The share of positive pairs; the pairs are weighted to match it. Half: only the value matters. As in "
            "the gallery: it also matters how common positive pairs are.",
        )  # fmt: skip
        by = shell.choice(
            st.segmented_control, "Map to probabilities", {"platt": "Logistic (Platt)", "isotonic": "Isotonic"}, "map"
        )
        menu = st.container()
    counts = loaders.pairs(run, protocol)
    total = counts.positives + counts.negatives
    share = 0.5 if prior == "half" else counts.positives / max(total, 1)
    fitted = {name: fit for name, fit in data.calibrations(run, protocol, share).items() if fit is not None}
    fitted = {name: fitted[name] for name in figures.in_order(fitted)}
    trained = _trained(run)
    if trained not in fitted:
        shell.nothing("Too few pairs", "Calibration needs positive and negative pairs in each half of the classes.")
    first = fitted[trained]
    _list(similarities.calibration_headline(fitted, by, trained))
    st.html(cards.audit_table(*similarities.calibration_table(fitted, by)))
    st.caption(
        f"{PROTOCOL_TITLES[protocol]}. Fitted on {first.fitted:,} pairs of {first.classes[0]} classes, evaluated on "
        f"{first.evaluated:,} pairs of {first.classes[1]} other classes. {first.total:,} of {total:,} pairs were "
        f"drawn; pairs between the two halves are left out. Weighted so that {100 * share:.2g} % are positive"
        + (", separately in each third." if prior == "half" else ".")
    )
    left, right = st.columns(2, gap="large")
    with left:
        st.markdown("**Predicted and observed**")
        alt = "Reliability diagram: observed share of positive pairs by predicted probability, by similarity"
        chart(figures.reliability_diagram(fitted, by, log=prior == "gallery"), "reliability", alt)
    with right:
        titles = {name: figures.style_of(name).title for name in fitted}
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown("**By density**", width="content")
            of = shell.choice(st.segmented_control, "By density", titles, "by", trained, label_visibility="collapsed")
        alt = f"Probability of one class by {titles[of]}, in dense, middle and sparse regions"
        chart(figures.probability_by_density(fitted[of], height=330), "by_density", alt)
    st.caption(
        "Left: predictions on the dotted line are right. Right: if a value meant the same everywhere, the three curves "
        "would coincide. Pairs are grouped into thirds by the mean local radius of both items."
    )
    with menu:
        from pddm_lab.analysis.metric_axioms import checks_table

        checks = [check for fit in fitted.values() for check in fit.checks(by)]
        settings = {"view": "calibration", "protocol": protocol, "share": share, "map": by}
        export("findings", lambda: checks_table(checks, protocol), run, settings, key="calibration")


def duplicates(run: Run) -> None:
    """Duplicate and near-duplicate pictures, and their effect on Recall@1."""
    from pddm_lab.analysis.duplicates import KINDS, LEAST_LIKENESS, across_splits, groups_of
    from pddm_lab.data.licences import sources
    from pddm_lab.data.near_duplicates import NEAR_DUPLICATE

    if not data.has_pictures(run):
        text = f"The items of {run.name} have no pictures to compare. Import them with --images FOLDER."
        shell.nothing("No pictures", text, ":material/no_photography:")
    items = data.items(run)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        near = len(items) <= data.MOST_COMPARED or st.toggle(
            "Near-duplicates too", key="near_too", bind="query-params",
            help=f"Compares all {len(items):,} pictures with each other. This takes minutes; you can stop it.",
        )  # fmt: skip
        least = st.slider(
            "Least likeness", LEAST_LIKENESS, 1.0, NEAR_DUPLICATE, step=0.005, format="%.3f", key="alike",
            bind="query-params", width=240, disabled=not near,
            help="1: identical pixels. 0.95 finds copies that were re-encoded, halved in size, or cropped by 1 % on "
            "each side. Cropping by 5 % on each side lowers the likeness to about 0.88.",
        )  # fmt: skip
        kinds = {"": "Not mirrored", **KINDS, "all": "All"}
        kind = shell.choice(
            st.segmented_control, "Kind", kinds, "kind", help="A mirror image may well be of another class: an arrow."
        )
        labels = shell.choice(
            st.segmented_control, "Labels", {"": "All", "differ": "Differ", "agree": "Agree"}, "labels"
        )
        menu = st.container()
    result = data.duplicates(run, near)
    alike = result.pairs[result.pairs["likeness"] >= (least if near else 1.0)]
    pairs = alike[alike["kind"].isin(data.kinds_of(kind))]
    mirrored = 0 if "mirrored" in data.kinds_of(kind) else int((alike["kind"] == "mirrored").sum())
    table = across_splits(items, pairs)
    source = sources(run.info["dataset"], items["id"])["source"].to_numpy()
    one_source = int((source[pairs["a"]] == source[pairs["b"]]).sum()) if len(set(source)) > 1 else None
    _list(pictures.duplicate_headline(table, len(items), groups_of(len(items), pairs), one_source))
    compared = "compared with each other by their pixels" if near else "compared by identical thumbnails only"
    st.caption(
        f"All {len(items):,} pictures of the run's galleries, {compared}. The searched items of the known classes are "
        "the training pictures. Pictures outside the galleries are not included."
        + (f" {result.left_out:,} less similar pairs are left out." if result.left_out else "")
        + (f" {counted(mirrored, 'mirrored pair is', 'mirrored pairs are')} not counted." if mirrored else "")
    )
    if len(pairs):
        st.html(cards.audit_table(*pictures.split_table(table)))
    effect_place = st.container()  # filled last, because it takes longest
    st.header("The pictures", anchor=False)
    present = [f"{row.split_a}.{row.split_b}" for row in table[table["pairs"] > 0].itertuples()]
    options = {"": "all splits"} | {one: pictures.between(*one.split(".")) for one in present}
    with st.container(horizontal=True, vertical_alignment="bottom"):
        where = shell.choice(st.selectbox, "Between", options, "between", width=320)
        tagged = review.tag_filter(run, width=200)
    chosen = pairs
    if labels:
        chosen = chosen[chosen["same_label"] == (labels == "agree")]
    if tagged is not None:
        inside = items["id"].isin(tagged).to_numpy()
        chosen = chosen[inside[chosen["a"]] | inside[chosen["b"]]]
    splits = items["split"].to_numpy()
    if where:
        wanted = set(where.split("."))
        chosen = chosen[[{a, b} == wanted for a, b in zip(splits[chosen["a"]], splits[chosen["b"]], strict=True)]]
    with menu:
        settings = {"alike": float(least), "kind": kind, "labels": labels, "between": where, "near": bool(near)}
        export("duplicates", lambda: _named(items, chosen), run, settings)
    if len(chosen):
        _sheet(run, items, chosen)
    else:
        st.caption("No pair matches." if len(pairs) else "No pair has this likeness.")
    if run.is_labelled:
        with effect_place:
            _effect(run, items, pairs)


def _sheet(run: Run, items: pd.DataFrame, chosen: pd.DataFrame) -> None:
    """One page of pairs, as pictures."""
    from pddm_lab.analysis.duplicates import compare_files

    on_page = shell.paged(len(chosen), PICTURES, "sheet") if len(chosen) > PICTURES else slice(0, len(chosen))
    here, ids = chosen.iloc[on_page], items["id"].to_numpy()
    galleries, protocols = data.galleries(run), items["protocol"].to_numpy()
    files = {
        int(at): loaders.file_of(run, str(ids[at]), galleries[protocols[at]])
        for at in here.loc[here["kind"] == "identical", ["a", "b"]].to_numpy().ravel()
    }
    same = {
        (int(row.a), int(row.b)): compare_files(files[int(row.a)], files[int(row.b)])
        for row in here[here["kind"] == "identical"].itertuples()
    }
    text = (
        f"Pairs {on_page.start + 1} to {on_page.stop} of {len(chosen):,}, most alike first. Dashed: the labels differ."
    )
    _examples(run, pictures.duplicate_cards(items, here, same), "duplicates", text, "")


def _effect(run: Run, items: pd.DataFrame, pairs: pd.DataFrame) -> None:
    """Recall@1 with and without duplicates, for one protocol."""
    from pddm_lab.analysis.duplicate_effect import effect

    st.header("Effect on Recall@1", anchor=False)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        protocol = shell.protocol_picker(run)
        every = st.toggle("All queries", key="every", bind="query-params", help="Off: a sample, if there are many.")
    matches = data.matches(run, protocol, bool(every))
    protocols, rows = items["protocol"].to_numpy(), items["row"].to_numpy()
    inside = pairs[(protocols[pairs["a"]] == protocol) & (protocols[pairs["b"]] == protocol)]
    duplicates = list(zip(rows[inside["a"]], rows[inside["b"]], strict=True))
    labels = loaders.gallery(run, protocol).items["label"].to_numpy()
    effects = [effect(name, one, labels, duplicates) for name, one in matches.items()]
    first = matches[effects[0].similarity]
    st.html(cards.audit_table(*pictures.effect_table(effects)))
    st.caption(
        f"{PROTOCOL_TITLES[protocol]}: {len(first.queries):,} of {first.total:,} queries, searched exactly. A "
        "duplicate in the query's class makes the query trivial; one in another class makes it fail."
    )


def licences(run: Run) -> None:
    """The licences of the pictures."""
    from pddm_lab.data import licences as of
    from pddm_lab.data.licences import attribution, licence_of, sources

    items = data.items(run)
    table = of.counted(items, sources(run.info["dataset"], items["id"]))
    export("licences", lambda: table, run, {"view": "licences"})
    _list(pictures.licence_headline(table))
    st.html(cards.audit_table(*pictures.licence_table(table), words=3))
    st.caption(
        f"The {len(items):,} pictures of the run's galleries, by source. This is a summary; the text of the licence "
        "is what counts."
    )
    for name in dict.fromkeys(table["licence"]):
        licence = licence_of(str(name))
        link = f"[{licence.name}]({licence.url})" if licence.url else plain(licence.name)
        st.caption(f"**{link}**: {plain(licence.note)}")
    st.markdown("**Attribution, to copy**")
    st.code(attribution(table), language=None, wrap_lines=True)


def _list(lines: list[str]) -> None:
    st.markdown("\n".join(f"- {line}" for line in lines))


def _examples(run: Run, examples: list[cards.TileSet], key: str, text: str, none: str) -> None:
    """Example cards below a text, or `none` where there are no examples; and the picture that is chosen."""
    if not examples:
        st.caption(f":material/check: {none}")
        return
    st.caption(text)
    item = st.query_params.get("item", "")
    names = {shot.item: shot.class_name for card in examples for shot in card.tiles}
    picture_grid.pictures(cards.tile_sets(examples, loaders.pictures(run, names), chosen=item), f"examples_{key}")
    if item in names:
        _chosen(run, item, names[item])


def _chosen(run: Run, item: str, class_name: str) -> None:
    """The chosen picture in the sidebar, larger, with a link to search with it."""
    every = data.galleries(run)
    protocol = next((one for one, of in every.items() if loaders.row_of(of, item) is not None), None)
    with st.sidebar:  # stays visible wherever the page is scrolled
        with st.container(horizontal=True, vertical_alignment="center"):
            large = loaders.picture(run, item, every.get(protocol or "")) or loaders.pictures(run, [item])[item]
            if large:
                st.image(large, alt=f"{class_name}, {item}", width=88)
            if protocol:
                shell.search_link(run, protocol, item)
        st.html(cards.facts({"Chosen": class_name, "Item": item}))
        review.menu(run, [item], "chosen", protocol or "")


def _named(items: pd.DataFrame, pairs: pd.DataFrame) -> pd.DataFrame:
    """Pairs with their items' ids, classes and splits, for the export."""
    ends = {}
    for end in ("a", "b"):
        of = items.iloc[pairs[end]]
        for column in ("id", "class_name", "split"):
            ends[f"{column}_{end}"] = of[column].to_numpy()
    return pd.DataFrame(ends | {name: pairs[name].to_numpy() for name in ("kind", "likeness", "same_label")})


def _trained(run: Run) -> str:
    """The similarity whose examples are shown by default."""
    if not run.learned:
        return "euclidean"
    return run.config.similarity if run.config.similarity != "euclidean" else "pddm"


main()
