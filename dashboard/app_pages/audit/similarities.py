"""The Audit page's results about similarities, as sentences, tables and cards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pddm_lab.cards import Cell, Head, Tile, TileSet
from pddm_lab.figures import shown, style_of

if TYPE_CHECKING:
    from pddm_lab.analysis.calibration import Calibration
    from pddm_lab.analysis.metric_axioms import Axioms, PropertyCheck

SHOWN = 12
"""Most cards of examples on a page."""


def name_cell(similarity: str, small: str = "") -> Cell:
    """The first cell of a similarity's row."""
    style = style_of(similarity)
    return Cell(style.title, small=small, colour=style.colour)


def answer_table(
    checks: Mapping[str, Sequence[PropertyCheck]], properties: Mapping[str, tuple[str, str]]
) -> tuple[list[Head], list[list[Cell]]]:
    """A row per similarity, a column per property: heads and cells."""
    heads = [Head("Similarity")] + [Head(title, hint) for title, hint in properties.values()]
    rows = []
    for similarity, of in checks.items():
        by_name = {check.name: check for check in of}
        rows.append([name_cell(similarity), *(_check_cell(by_name.get(name)) for name in properties)])
    return heads, rows


def _check_cell(check: PropertyCheck | None) -> Cell:
    if check is None:
        return Cell("–", hint="Too few pairs.")
    mark = {True: "holds", False: "fails", None: ""}[check.holds]
    return Cell(value_text(check), mark, f"{check.text} ({check.scored:,} of {check.total:,} checked).")


def value_text(check: PropertyCheck) -> str:
    """A check's number with its unit."""
    if not np.isfinite(check.value):
        return "–"
    if check.name == "self":
        return f"{check.value:.2f} spreads" if check.value >= 0.005 else "one value"
    if check.name == "symmetric":
        return "exact" if check.value == 0 else "rounding" if check.holds else f"{check.value:.2g} spreads"
    if check.name == "calibrated":
        return f"{100 * check.value:.1f} points"
    if check.name == "everywhere":
        return f"{100 * check.value:.0f} points"
    from pddm_lab.analysis.metric_axioms import percent

    return percent(round(check.value * check.scored), check.scored) if check.value else "0 %"


def headline(checks: Mapping[str, Sequence[PropertyCheck]], trained: str) -> list[str]:
    """The results for the axioms in a few sentences: the trained similarity first, then the others."""
    title = style_of(trained).title
    broken = {name: _broken(of) for name, of in checks.items()}
    sentences = [f"**{title}** breaks no axiom of a metric in these checks."]
    if broken[trained]:
        sentences = [f"**{title}** is not a metric. " + " ".join(f"{check.text}." for check in broken[trained])]
    symmetric = next(check for check in checks[trained] if check.name == "symmetric")
    sentences[0] += f" {symmetric.text}." if symmetric.holds else ""
    satisfying = [style_of(name).title for name in checks if name != trained and not broken[name]]
    if satisfying:
        verb = "satisfy" if len(satisfying) > 1 else "satisfies"
        sentences.append(f"{listed(satisfying)} {verb} every axiom of a metric in these checks.")
    for name in checks:
        if name != trained and broken[name]:
            sentences.append(f"{style_of(name).title}: " + "; ".join(_lower(one.text) for one in broken[name]) + ".")
    return sentences


def _broken(checks: Sequence[PropertyCheck]) -> list[PropertyCheck]:
    """The axioms that don't hold; calibration isn't an axiom."""
    return [check for check in checks if check.holds is False and check.name not in ("calibrated", "everywhere")]


def minus(text: str) -> str:
    """A number with a minus sign rather than a hyphen."""
    return text.replace("-", "−")


def listed(words: Sequence[str]) -> str:
    """Words as a list: a, b and c."""
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1]))) if words else ""


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def extent(axioms: Axioms) -> str:
    """How many pairs, items and triples were checked, of how many."""
    chains = axioms.chains
    return (
        f"{axioms.symmetry.pairs:,} pairs in both orders; {len(axioms.rows):,} of {axioms.items:,} items against all "
        f"others; all {axioms.triangles.triples:,} triples of {axioms.triangles.items} items; {chains.chains:,} of the "
        f"{chains.possible:,} chains of accepted pairs around the {len(axioms.rows):,} items. One spread is the "
        "standard deviation of S over pairs."
    )


def symmetry_table(axioms: Mapping[str, Axioms]) -> tuple[list[Head], list[list[Cell]]]:
    """The largest differences between both orders of a pair, and between the two ways to score it."""
    heads = [
        Head("Similarity"), Head("Largest |S(a,b) − S(b,a)|", small="pair by pair"),
        Head("Mean", small="pair by pair"), Head("Largest", small="in matrices, as in search and evaluation"),
        Head("Largest between the two", "The same pair scored alone and in a matrix."), Head("Spread of S"),
    ]  # fmt: skip
    rows = []
    for name, of in axioms.items():
        s = of.symmetry
        values = (s.pairs_largest, s.pairs_mean, s.matrix_largest, s.paths_largest)
        cells = [Cell(f"{value:.1e}" if value else "0") for value in values]
        rows.append([name_cell(name), *cells, Cell(f"{of.spread:.3f}")])
    return heads, rows


def chain_table(axioms: Mapping[str, Axioms]) -> tuple[list[Head], list[list[Cell]]]:
    """How often the ends of a chain are accepted, a row per similarity."""
    from pddm_lab.analysis.metric_axioms import percent

    heads = [
        Head("Similarity"), Head("Threshold", "At 1 % FPR."), Head("Chains checked"),
        Head("Ends not accepted"), Head("Detour shorter"), Head("c of d = c − S", "The largest S that was measured."),
        Head("c needed", "The smallest c with which all these triples satisfy the triangle inequality."),
    ]  # fmt: skip
    rows = []
    for name, of in axioms.items():
        c = of.chains
        rows.append([
            name_cell(name), Cell(minus(f"{float(shown(name, np.array(c.threshold))):.3f}")),
            Cell(f"{c.chains:,}", small=f"of {c.possible:,}"), Cell(percent(c.broken, c.chains)),
            Cell(percent(c.violated, c.chains)), Cell(f"{of.offset + 0.0:.2f}"),
            Cell(f"{max(of.triangles.needed, of.offset) + 0.0:.2f}"),
        ])  # fmt: skip
    return heads, rows


def closer_cards(axioms: Axioms, items: pd.DataFrame) -> list[TileSet]:
    """Items with another item that is more similar to them than they are to themselves, the largest gap first."""
    own = axioms.own[axioms.rows]
    beaten = np.flatnonzero(axioms.beaten)
    order = beaten[(own - axioms.rival_score)[beaten].argsort(kind="stable")][:SHOWN]
    cards = []
    for at in order:
        i, j = int(axioms.rows[at]), int(axioms.rival[at])
        others = int(axioms.closer[at])
        lines = [
            f"S(i,j) is {axioms.rival_score[at] - own[at]:.2f} above S(i,i)",
            f"{others:,} item{'s are' if others > 1 else ' is'} closer to i than i itself",
        ]
        both = [tile(items, i, f"S(i,i) = {own[at]:.2f}"), tile(items, j, f"S(i,j) = {axioms.rival_score[at]:.2f}")]
        cards.append(TileSet(both, lines, bool(items["label"].iloc[i] != items["label"].iloc[j])))
    return cards


def triple_cards(
    axioms: Axioms, rows: np.ndarray, scores: np.ndarray, items: pd.DataFrame, threshold: float | None = None
) -> list[TileSet]:
    """Triples i, j, k as pictures with their similarities; with a threshold, chains whose ends are not accepted."""
    name, offset = axioms.similarity, axioms.offset
    letter = style_of(name).letter
    cards = []
    for (i, j, k), triple in list(zip(rows.tolist(), scores, strict=True))[:SHOWN]:
        ij, jk, ik = (float(value) for value in shown(name, triple))
        first = f"{letter}(i,j) {ij:.2f} · {letter}(j,k) {jk:.2f} · {letter}(i,k) {ik:.2f}"
        detour, direct = 2 * offset - triple[0] - triple[1], offset - triple[2]
        way = f"d(i,k) = {direct:.2f} {'>' if direct > detour else '≤'} {detour:.2f} = d(i,j) + d(j,k)"
        if threshold is not None:
            at = float(shown(name, np.array(threshold)))
            first = f"i ~ j ~ k, but {letter}(i,k) = {ik:.2f} (threshold {at:.2f})"
            way = f"{letter}(i,j) {ij:.2f} · {letter}(j,k) {jk:.2f}"
        tiles = [tile(items, row, role) for row, role in zip((i, j, k), "ijk", strict=True)]
        cards.append(TileSet(tiles, [minus(first), minus(way)]))
    return cards


def tile(items: pd.DataFrame, row: int, role: str = "") -> Tile:
    """An item as a picture on a card."""
    return Tile(str(items["id"].iloc[row]), str(items["class_name"].iloc[row]), role)


def calibration_table(calibrations: Mapping[str, Calibration], by: str) -> tuple[list[Head], list[list[Cell]]]:
    """Calibration errors, overall and in each third by density, and the value of even odds in each third."""
    from pddm_lab.analysis.calibration import PROPERTIES
    from pddm_lab.metrics.density import DENSITIES

    (calibrated, calibrated_hint), (everywhere, everywhere_hint) = PROPERTIES.values()
    heads = [
        Head("Similarity"), Head(calibrated, calibrated_hint, "expected error, points"),
        Head("Brier score", "Mean squared error of the predicted probability."),
        Head("Skill", "1: perfect. 0: no better than always predicting the share of positive pairs.", "%"),
        Head("Error by density", "Calibration error of the logistic map in each third.", " · ".join(DENSITIES)),
        Head("Even odds at", "Where the curve of a third crosses one half.", " · ".join(DENSITIES)),
        Head(everywhere, everywhere_hint, "predicted at even odds, " + " · ".join(DENSITIES) + ", %"),
    ]  # fmt: skip
    rows = []
    for name, of in calibrations.items():
        first, second = of.checks(by)
        reliability = of.maps[by]
        errors = [f"{100 * of.thirds[third].error:.1f}" if third in of.thirds else "–" for third in DENSITIES]
        even = [float(shown(name, np.array(of.even(third)))) for third in DENSITIES]
        predicted = [100 * of.predicted_at_even[third] for third in DENSITIES]
        mark = {True: "holds", False: "fails", None: ""}
        rows.append([
            name_cell(name), Cell(f"{100 * reliability.error:.1f}", mark[first.holds], first.text + "."),
            Cell(f"{reliability.brier:.4f}"), Cell(f"{100 * reliability.skill:.0f}"), Cell(" · ".join(errors)),
            Cell(" · ".join(minus(f"{at:.2f}") if np.isfinite(at) else "–" for at in even)),
            Cell(" · ".join(f"{value:.0f}" if np.isfinite(value) else "–" for value in predicted),
                 mark[second.holds], second.text + "."),
        ])  # fmt: skip
    return heads, rows


def calibration_headline(calibrations: Mapping[str, Calibration], by: str, trained: str) -> list[str]:
    """Which similarity predicts probabilities best, and which depends least on density."""
    best = min(calibrations, key=lambda name: calibrations[name].maps[by].error)
    own = calibrations[trained]
    off = f"are off by {100 * own.maps[by].error:.1f} points on average"
    if best != trained:
        off += f"; those from {style_of(best).title}, the best, by {100 * calibrations[best].maps[by].error:.1f}"
    sentences = [f"Probabilities predicted from **{style_of(trained).title}** {off}."]
    gaps = {name: of.gap for name, of in calibrations.items() if np.isfinite(of.gap)}
    if trained in gaps:
        dense, sparse = (f"{100 * own.predicted_at_even[third]:.0f} %" for third in ("dense", "sparse"))
        steadiest = min(gaps, key=gaps.__getitem__)
        sentences.append(
            (
                "One value does not mean one probability"
                if gaps[trained] > 0.1
                else "One value means nearly one probability"
            )
            + f": for pairs with an observed probability of one half, the prediction is {dense} in dense regions and "
            f"{sparse} in sparse ones."
        )
        ranges = listed([f"{100 * gap:.0f} points for {style_of(name).title}" for name, gap in gaps.items()])
        sentences.append(
            f"Between regions of different density, this prediction varies by {ranges}. "
            f"{style_of(steadiest).title} depends least on density."
        )
    return sentences
