"""Audit, Slices: R@1 and MAP@R on parts of the queries, and the tags that name such parts."""

from __future__ import annotations

import streamlit as st
from shared import leads, loaders, review, shell
from shared.export import export
from shared.plain_text import plain
from shared.work import once, work_of

from pddm_lab import cards
from pddm_lab.cards import Cell, Head
from pddm_lab.errors import LabError
from pddm_lab.figures import in_order, style_of
from pddm_lab.review import tags
from pddm_lab.review.cell import items_cell
from pddm_lab.review.slices import EVERYTHING, MOST, UNTAGGED, Slice, as_table, columns, slices
from pddm_lab.runs.run import Run
from pddm_lab.wording import counted


def show(run: Run) -> None:
    """The view of a run."""
    shell.needs_labels(run, "slices")
    of = review.tags_in(review.tag_file_of(run))
    with st.container(horizontal=True, vertical_alignment="bottom"):
        protocol = shell.protocol_picker(run)
        gallery = loaders.gallery(run, protocol)
        titles = {name: name[:1].upper() + name[1:] for name in columns(gallery.items, of)}
        by = shell.choice(st.selectbox, "Slices by", titles, "slices", width=220)
        menu = st.container()
    judged = leads.judged(run, protocol)
    measured = once(
        work_of("slices", run, protocol, by, str(of)), "Measuring the slices",
        lambda report: slices(
            judged, gallery.items, by, of,
            lambda done, total, what: report(done / total, f"{done:,} of {total:,} {what}"),
        ),
    )  # fmt: skip
    with menu:
        export("slices", lambda: as_table(measured), run, {"protocol": protocol, "by": by})
    st.markdown(headline(measured))
    st.html(cards.audit_table(*table(measured)))
    st.caption(
        "All items stay searched; a slice is of queries. 95 % intervals are drawn from classes and their queries, so a "
        f"slice of one class has none. Of a column, the {MOST} most frequent values are shown."
    )
    _tags(run, protocol, of)


def headline(measured: list[Slice]) -> str:
    """Where the best similarity finds least, in a sentence."""
    best = max((one for one in measured if one.name == EVERYTHING), key=lambda one: one.map_at_r).similarity
    own = [one for one in measured if one.similarity == best and one.name not in (EVERYTHING, UNTAGGED)]
    if not own:
        return "No query is in a slice."
    low, high = min(own, key=lambda one: one.map_at_r), max(own, key=lambda one: one.map_at_r)
    return (
        f"By {style_of(best).title}, **{plain(low.name)}** is found worst (MAP@R {100 * low.map_at_r:.1f} %, "
        f"{counted(low.queries, 'query', 'queries')}) and **{plain(high.name)}** best ({100 * high.map_at_r:.1f} %)."
    )


def table(measured: list[Slice]) -> tuple[list[Head], list[list[Cell]]]:
    """A row for each slice: its queries and classes, and both measures by each similarity."""
    names = in_order({one.similarity for one in measured})
    heads = [Head("Slice"), Head("Queries"), Head("Classes")]
    for title in ("R@1", "MAP@R"):
        heads += [Head(f"{title}, {style_of(name).letter}", style_of(name).title, "%") for name in names]
    rows: dict[str, dict[str, Slice]] = {}
    for one in measured:
        rows.setdefault(one.name, {})[one.similarity] = one
    cells = []
    for name, by in rows.items():
        first = by[names[0]]
        line = [Cell(name), Cell(f"{first.queries:,}"), Cell(f"{first.classes:,}")]
        line += [_cell(by[one].recall, by[one].recall_low, by[one].recall_high) for one in names]
        line += [_cell(by[one].map_at_r, by[one].map_low, by[one].map_high) for one in names]
        cells.append(line)
    return heads, cells


def _cell(value: float, low: float, high: float) -> Cell:
    return Cell(f"{100 * value:.1f}", small=f"{100 * low:.0f} to {100 * high:.0f}" if low == low else "")


def _tags(run: Run, protocol: str, of: dict[str, list[str]]) -> None:
    """The tags of the data set, to rename, to remove, and to open in a notebook."""
    st.header("Tags", anchor=False)
    if not of:
        st.caption("None yet. Make one with *Correct or tag* on Map, Search, Quadruplets or in Duplicates.")
        return
    st.caption(f"{plain(review.tag_file_of(run))} keeps them for all runs on {plain(run.config.dataset)}.")
    with st.container(horizontal=True, vertical_alignment="bottom"):
        titles = {name: f"{name} ({len(items):,})" for name, items in of.items()}
        name = st.selectbox("Tag", list(titles), key="managed_tag", format_func=titles.__getitem__, width=260)
        new = st.text_input("New name", key=f"rename_{name}", placeholder=name, width=220)
        st.button("Rename", key="rename_tag", disabled=not new.strip(), on_click=_change,
                  args=(tags.rename, review.tag_file_of(run), name, new))  # fmt: skip
        st.button("Remove the tag", icon=":material/delete:", key="remove_tag", on_click=_change,
                  args=(tags.remove, review.tag_file_of(run), name))  # fmt: skip
    if error := st.session_state.pop("tags_error", ""):
        st.error(plain(error))
    st.markdown("**Its items as a data frame, in a notebook**")
    st.code(items_cell(run.path, protocol, tag=name), language="python")


def _change(change, *values: object) -> None:  # type: ignore[no-untyped-def]
    try:
        change(*values)
    except LabError as error:
        st.session_state["tags_error"] = str(error)
