"""The Audit page's part on local structure: its score depends on the gallery, and this is by how much."""

from __future__ import annotations

import streamlit as st
from shared import loaders, shell
from shared.cache import GALLERIES, LOCAL, cached

from pddm_lab import cards
from pddm_lab.analysis.gallery_dependence import Change
from pddm_lab.cards import Cell, Head
from pddm_lab.runs.run import Run


@cached(*GALLERIES, LOCAL, show_spinner="Scoring pairs in smaller galleries")
def changes(run: Run, protocol: str) -> list[Change]:
    """How the scores change with the gallery; empty if the run has no local structure."""
    from pddm_lab.analysis.gallery_dependence import dependence

    gallery, local = loaders.gallery(run, protocol), loaders.local(run)
    distribution = loaders.pairs(run, protocol).distributions.get("local")
    if local is None or distribution is None or gallery.reference(local.structure).note:
        return []
    return dependence(gallery, local.structure, distribution.threshold_at_fpr(0.01))


def show(run: Run, protocol: str) -> None:
    """A table of the changes; nothing where the run has no local structure."""
    rows = changes(run, protocol)
    if not rows:
        return
    st.header("Local structure", anchor=False)
    shell.stale_caption(run, protocol)
    heads = [
        Head("What changes"), Head("Items searched"), Head("Mean change", "In standard deviations of L over pairs."),
        Head("Largest change"), Head("Decisions changed", "Pairs accepted in one case only, at 1 % FPR."),
    ]  # fmt: skip
    table = [
        [
            Cell(f"{100 * row.left_out:.0f} % of the other items leave" if row.left_out else "a and b exchanged"),
            Cell(f"{row.items:,}"), Cell(f"{row.mean:.3f} spreads"), Cell(f"{row.largest:.2f} spreads"),
            Cell(f"{100 * row.crossed:.1f} %"),
        ]
        for row in rows
    ]  # fmt: skip
    st.html(cards.audit_table(heads, table))
    st.caption(
        "L is a similarity of a pair and its gallery; the table above tests it among the items that are searched. "
        f"{rows[-1].pairs:,} pairs were compared, half of them positive; their own items stay. L has the same formulas "
        "for both items of a pair. Exchanging them still changes L a little: the query is taken out of the gallery, "
        "and the other item isn't."
    )
