"""Audit: what S is not, what its values are worth, which pictures are there twice, and whose they are."""

import pandas as pd
import streamlit as st
from app_pages.audit import data, pictures, similarities
from shared import export as exporting
from shared import loaders, picture_grid, shell

from pddm_lab import cards, figures
from pddm_lab.errors import LabError
from pddm_lab.figures import PROTOCOL_TITLES
from pddm_lab.runs.run import Run

VIEWS = {"axioms": "Metric axioms", "calibration": "Calibration", "duplicates": "Duplicates", "licences": "Licences"}
LOOKS = {
    "closest": "Self-similarity",
    "triangle": "Triangles",
    "chains": "Friends of friends",
    "symmetric": "Asymmetry",
}
PICTURES = 24
PLOT = {"displayModeBar": False}


def main() -> None:
    shell.heading(
        "Audit",
        "What a learned similarity is not, what its values are worth, which pictures the data holds twice, and whose "
        "they are.",
    )
    run = shell.run_or_stop()
    if not run.protocols():
        shell.without(run, "gallery to audit")
    view = shell.choice(st.segmented_control, "View", VIEWS, "view", label_visibility="collapsed")
    try:
        {"axioms": axioms, "calibration": calibration, "duplicates": duplicates, "licences": licences}[view](run)
    except LabError as error:
        shell.nothing("This can't be audited", str(error), ":material/broken_image:")


def axioms(run: Run) -> None:
    """The axioms of a metric: all similarities at once, then one question closely."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        protocol = shell.protocol_picker(run)
        rows = st.select_slider(
            "Items compared with all others", [100, 200, 500, 1000, 2000], value=200, key="compared",
            bind="query-params", width=260, help="More items, surer shares: the time grows with them.",
        )  # fmt: skip
        export = st.container()
    gallery = loaders.gallery(run, protocol)
    if len(gallery) < 3:
        shell.nothing("Too few items", f"The gallery has {len(gallery)}; triangles take three.")
    found = data.axioms(run, protocol, int(rows))
    calibrated = data.calibrations(run, protocol, 0.5)
    from pddm_lab.analysis.calibration import PROPERTIES as WORTH
    from pddm_lab.analysis.metric_axioms import PROPERTIES, checks_table

    findings = {
        name: one.checks() + (worth.checks() if (worth := calibrated[name]) else []) for name, one in found.items()
    }
    trained = _trained(run)
    st.markdown("\n".join(f"- {line}" for line in similarities.headline(findings, trained)))
    st.html(cards.audit_table(*similarities.answer_table(findings, PROPERTIES | WORTH)))
    st.caption(f"{PROTOCOL_TITLES[protocol]}. Measured on {similarities.looked_at(found[trained])}")
    with export:
        exporting.export(
            "findings", lambda: checks_table([one for each in findings.values() for one in each], protocol), run,
            {"view": "axioms", "protocol": protocol, "compared": int(rows)}, key="axioms",
        )  # fmt: skip

    st.subheader("Look closer", anchor=False)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        look = shell.choice(st.segmented_control, "Question", LOOKS, "look")
        titles = {name: figures.style_of(name).title for name in found}
        by = (
            shell.choice(st.segmented_control, "Examples from", titles, "by", trained)
            if look != "symmetric"
            else trained
        )
    one, told = found[by], titles[by]
    if look == "closest":
        st.caption(
            "D(i,i) is 0, so no other item can be closer to i than i. S(i,i) is whatever the unit makes of u = 0 and "
            "v = fᵢ: training never scored an item with itself."
        )
        st.plotly_chart(
            figures.self_margins(found), key="margins", config=PLOT,
            alt="By how much items are more similar to themselves than to the closest other item, by similarity",
        )  # fmt: skip
        examples = similarities.closer_cards(one, gallery.items)
        _examples(
            run, examples, "closer",
            f"{int(one.beaten.sum()):,} of {len(one.rows):,} items have another that {told} puts above themselves; the "
            f"first {len(examples)} are shown. A dashed frame: of another class, too.",
            f"By {told} no item has another that is closer to it than itself.",
        )  # fmt: skip
    elif look == "triangle":
        st.caption(
            "S becomes a dissimilarity as d = c − S with the smallest c that leaves no d below 0: for the two "
            "distances that is D itself, for the cosine 1 − cos. A larger c would hide what is broken: with one large "
            "enough, anything keeps the triangle inequality."
        )
        st.plotly_chart(
            figures.slack(found), key="slack", config=PLOT,
            alt="How much longer detours through a third item are than the direct way, by similarity",
        )  # fmt: skip
        t = one.triangles
        examples = similarities.triple_cards(one, t.worst, t.worst_scores, gallery.items)
        _examples(
            run, examples, "triangles",
            f"{t.violated:,} of {t.triples:,} triples break the inequality by {told}; the {len(examples)} worst are "
            f"shown. It would take c = {t.needed:.2f} instead of {one.offset:.2f} to hide them all.",
            f"By {told} none of {t.triples:,} triples breaks the inequality.",
        )  # fmt: skip
    elif look == "chains":
        st.caption(
            "An order alone, without any constant: i and j are accepted at 1 % FPR, j and k are, and i and k? Not even "
            "a metric promises that, but its ends lie within twice the threshold; those of S may lie anywhere."
        )
        st.html(cards.audit_table(*similarities.chain_table(found)))
        c = one.chains
        apart = slice(min(c.broken, len(c.worst)))
        examples = similarities.triple_cards(one, c.worst[apart], c.worst_scores[apart], gallery.items, c.threshold)
        _examples(
            run, examples, "chains",
            f"{c.broken:,} of {c.chains:,} chains by {told} end apart; the {len(examples)} furthest are shown.",
            f"By {told} " + ("every chain's ends are accepted, too." if c.chains else "no two accepted pairs meet."),
        )  # fmt: skip
    else:
        st.caption(
            "Expected: rounding alone. u = |fᵢ − fⱼ| and v = (fᵢ + fⱼ) / 2 are the same in either order, and all that "
            "S is made of. Measured through the very calls that mine, search and evaluate."
        )
        st.html(cards.audit_table(*similarities.symmetry_table(found)))


def calibration(run: Run) -> None:
    """What a similarity's value says of the chance that a pair is of one class."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        protocol = shell.protocol_picker(run)
        prior = shell.choice(
            st.segmented_control, "Positive pairs", {"half": "Half of all", "gallery": "As in the gallery"}, "prior",
            help="What share of pairs is to be positive: pairs are weighted to it. Half shows what the value itself "
            "says; as in the gallery, how common positive pairs are counts too.",
        )  # fmt: skip
        by = shell.choice(
            st.segmented_control, "Map to chances", {"platt": "Logistic (Platt)", "isotonic": "Isotonic"}, "map"
        )
        export = st.container()
    counts = loaders.pairs(run, protocol)
    total = counts.positives + counts.negatives
    share = 0.5 if prior == "half" else counts.positives / max(total, 1)
    found = {name: one for name, one in data.calibrations(run, protocol, share).items() if one is not None}
    found = {name: found[name] for name in figures.in_order(found)}
    trained = _trained(run)
    if trained not in found:
        shell.nothing("Too few pairs", "Each half of the classes needs positive and negative pairs to calibrate on.")
    first = found[trained]
    st.markdown("\n".join(f"- {line}" for line in similarities.calibration_headline(found, by, trained)))
    st.html(cards.audit_table(*similarities.calibration_table(found, by)))
    st.caption(
        f"{PROTOCOL_TITLES[protocol]}. Fitted on {first.fitted:,} pairs of {first.classes[0]} classes, judged on "
        f"{first.judged:,} pairs of {first.classes[1]} others; {first.total:,} of {total:,} pairs were drawn, those "
        f"across the halves are left out. Weighted so that {100 * share:.2g} % are positive"
        + (", in each third by itself." if prior == "half" else ".")
    )
    left, right = st.columns(2, gap="large")
    with left:
        st.markdown("**What is said, and what is so**")
        st.plotly_chart(
            figures.reliability_diagram(found, by, log=prior == "gallery"), key="reliability", config=PLOT,
            alt="Reliability diagram: share of positive pairs found against the chance said, by similarity",
        )  # fmt: skip
    with right:
        titles = {name: figures.style_of(name).title for name in found}
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown("**By density**", width="content")
            of = shell.choice(st.segmented_control, "By density", titles, "by", trained, label_visibility="collapsed")
        st.plotly_chart(
            figures.chance_by_density(found[of], height=330), key="by_density", config=PLOT,
            alt=f"Chance of one class by {titles[of]}, in dense, middle and sparse regions",
        )  # fmt: skip
    st.caption(
        "Left: on the dotted line chances are right. Right: were a value to mean the same everywhere, the three curves "
        "would be one. A pair's third is that of the mean local radius of both items."
    )
    with export:
        from pddm_lab.analysis.metric_axioms import checks_table

        exporting.export(
            "findings", lambda: checks_table([one for each in found.values() for one in each.checks(by)], protocol),
            run, {"view": "calibration", "protocol": protocol, "share": share, "map": by}, key="calibration",
        )  # fmt: skip


def duplicates(run: Run) -> None:
    """Pictures that are there twice, and what they do to Recall@1."""
    from pddm_lab.analysis.duplicates import KINDS, LEAST_LIKENESS, NEAR_DUPLICATE, across_splits, groups_of
    from pddm_lab.data.licences import sources

    items = data.listed(run)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        near = len(items) <= data.COMPARED_AT_ONCE or st.toggle(
            "Near-duplicates, too", key="near_too", bind="query-params",
            help=f"Compares {len(items):,} pictures with one another: this takes minutes, and can be stopped.",
        )  # fmt: skip
        least = st.slider(
            "How alike", LEAST_LIKENESS, 1.0, NEAR_DUPLICATE, step=0.005, format="%.3f", key="alike",
            bind="query-params", width=300, disabled=not near,
            help="1: the same pixels. 0.95 finds copies that were encoded anew, halved in size, or cut by 1 % a side; "
            "cut by 5 % a side, copies fall to about 0.88.",
        )  # fmt: skip
        kind = shell.choice(st.segmented_control, "Kind", {"": "All", **KINDS}, "kind")
        labels = shell.choice(
            st.segmented_control, "Labels", {"": "All", "differ": "Differ", "agree": "Agree"}, "labels"
        )
        export = st.container()
    found = data.alike(run, near)
    pairs = found.pairs[found.pairs["likeness"] >= (least if near else 1.0)]
    table = across_splits(items, pairs)
    source = sources(run.info["dataset"], items["id"])["source"].to_numpy()
    one_source = int((source[pairs["a"]] == source[pairs["b"]]).sum()) if len(set(source)) > 1 else None
    lines = pictures.duplicate_headline(table, len(items), groups_of(len(items), pairs), one_source)
    st.markdown("\n".join(f"- {line}" for line in lines))
    told = f"All {len(items):,} pictures of the run's galleries"
    told += ", each compared with every other by its pixels" if near else ", by identical thumbnails only"
    st.caption(
        f"{told}. The searched items of the known classes are what trained; pictures that no gallery holds are not "
        "looked at." + (f" {found.left_out:,} pairs beyond the most alike are left out." if found.left_out else "")
    )
    if len(pairs):
        st.html(cards.audit_table(*pictures.split_table(table)))
    effect_place = st.container()  # filled last: what takes longest doesn't hold up the pictures
    st.subheader("The pictures", anchor=False)
    present = [f"{row.split_a}.{row.split_b}" for row in table[table["pairs"] > 0].itertuples()]
    options = {"": "all splits"} | {one: pictures.between(*one.split(".")) for one in present}
    where = shell.choice(st.selectbox, "Between", options, "between", width=320)
    chosen = pairs
    if kind:
        chosen = chosen[chosen["kind"] == kind]
    if labels:
        chosen = chosen[chosen["same_label"] == (labels == "agree")]
    splits = items["split"].to_numpy()
    if where:
        wanted = set(where.split("."))
        chosen = chosen[[{a, b} == wanted for a, b in zip(splits[chosen["a"]], splits[chosen["b"]], strict=True)]]
    with export:
        exporting.export(
            "duplicates", lambda: _named(items, chosen), run,
            {"alike": float(least), "kind": kind, "labels": labels, "between": where, "near": bool(near)},
        )  # fmt: skip
    if len(chosen):
        _sheet(run, items, chosen)
    else:
        st.caption("No such pair." if len(pairs) else "No pair is as alike as that.")
    with effect_place:
        _effect(run, items, pairs)


def _sheet(run: Run, items: pd.DataFrame, chosen: pd.DataFrame) -> None:
    """A page of pairs as pictures."""
    from pddm_lab.analysis.duplicates import compare_files

    sheets = -(-len(chosen) // PICTURES)
    sheet = min(st.pagination(sheets, key="sheet", bind="query-params"), sheets) if sheets > 1 else 1
    here = chosen.iloc[PICTURES * (sheet - 1) : PICTURES * sheet]
    names = items["id"]
    root = str(run.info["dataset"].get("root") or "")
    same = {
        (int(row.a), int(row.b)): compare_files(root, str(names.iloc[row.a]), str(names.iloc[row.b]))
        for row in here[here["kind"] == "identical"].itertuples()
    }
    _examples(
        run, pictures.twin_cards(items, here, same), "twins",
        f"{len(chosen):,} pairs, the most alike first; {PICTURES * (sheet - 1) + 1} to "
        f"{PICTURES * (sheet - 1) + len(here)} are shown. A dashed frame: the labels differ.", "",
    )  # fmt: skip


def _effect(run: Run, items: pd.DataFrame, pairs: pd.DataFrame) -> None:
    """Recall@1 with and without twins, of one protocol."""
    from pddm_lab.analysis.duplicate_effect import effect

    st.subheader("What they do to Recall@1", anchor=False)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        protocol = shell.protocol_picker(run)
        every = st.toggle(
            "Every query", key="every", bind="query-params", help="Without it a part stands for many queries."
        )
    matches = data.matches(run, protocol, bool(every))
    protocols, rows = items["protocol"].to_numpy(), items["row"].to_numpy()
    inside = pairs[(protocols[pairs["a"]] == protocol) & (protocols[pairs["b"]] == protocol)]
    twins = list(zip(rows[inside["a"]], rows[inside["b"]], strict=True))
    labels = loaders.gallery(run, protocol).items["label"].to_numpy()
    effects = [effect(name, one, labels, twins) for name, one in matches.items()]
    first = matches[effects[0].similarity]
    st.html(cards.audit_table(*pictures.effect_table(effects)))
    st.caption(
        f"{PROTOCOL_TITLES[protocol]}: {len(first.queries):,} of {first.total:,} queries, searched exactly. A twin of "
        "the query's class gives the answer away, one of another class takes it."
    )


def licences(run: Run) -> None:
    """Whose pictures these are."""
    from pddm_lab.data.licences import attribution, counted, licence_of, sources

    items = data.listed(run)
    table = counted(items, sources(run.info["dataset"], items["id"]))
    exporting.export("licences", lambda: table, run, {"view": "licences"})
    st.markdown("\n".join(f"- {line}" for line in pictures.licence_headline(table)))
    st.html(cards.audit_table(*pictures.licence_table(table), words=3))
    st.caption(
        f"The {len(items):,} pictures of the run's galleries, by their sources' own names. A licence's text binds, "
        "this summary doesn't."
    )
    for name in dict.fromkeys(table["licence"]):
        licence = licence_of(str(name))
        link = f"[{licence.name}]({licence.url})" if licence.url else shell.plain(licence.name)
        st.caption(f"**{link}**: {shell.plain(licence.note)}")
    st.markdown("**Attribution, to copy**")
    st.code(attribution(table), language=None, wrap_lines=True)


def _examples(run: Run, examples: list[cards.TileSet], key: str, told: str, none: str) -> None:
    """Cards of examples, what they show, and the picture chosen among them."""
    if not examples:
        st.caption(f":material/check: {none}")
        return
    st.caption(told)
    asked = st.query_params.get("item", "")
    names = {shot.item: shot.class_name for card in examples for shot in card.tiles}
    picture_grid.pictures(cards.tile_sets(examples, loaders.pictures(run, names), chosen=asked), f"examples_{key}")
    if asked in names:
        _chosen(run, asked, names[asked])


def _chosen(run: Run, item: str, class_name: str) -> None:
    """The picture that was chosen, larger, with the way to search with it."""
    protocol = next((one for one, of in data.galleries(run).items() if loaders.row_of(of, item) is not None), None)
    with st.sidebar:  # in sight, however far down it was chosen
        with st.container(horizontal=True, vertical_alignment="center"):
            large = loaders.picture(run, item) or loaders.pictures(run, [item])[item]
            if large:
                st.image(large, alt=f"{class_name}, {item}", width=88)
            if protocol:
                st.page_link(
                    "app_pages/search/page.py", label="Search with it", icon=":material/image_search:",
                    query_params={"run": run.name, "protocol": protocol, "item": item},
                )  # fmt: skip
        st.html(cards.facts({"Chosen": class_name, "Item": item}))


def _named(items: pd.DataFrame, pairs: pd.DataFrame) -> pd.DataFrame:
    """Pairs with their items' ids, classes and splits, to take away."""
    ends = {}
    for end in ("a", "b"):
        of = items.iloc[pairs[end]]
        for column in ("id", "class_name", "split"):
            ends[f"{column}_{end}"] = of[column].to_numpy()
    return pd.DataFrame(ends | {name: pairs[name].to_numpy() for name in ("kind", "likeness", "same_label")})


def _trained(run: Run) -> str:
    """The similarity whose examples are shown unless another is chosen."""
    return run.config.similarity if run.config.similarity != "euclidean" else "pddm"


main()
