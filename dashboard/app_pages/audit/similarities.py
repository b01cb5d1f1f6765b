"""What the Audit page says of similarities: findings as sentences, tables and cards, from what was measured."""

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
"""Cards of examples on a page."""


def name_cell(similarity: str, small: str = "") -> Cell:
    """The first cell of a similarity's row."""
    style = style_of(similarity)
    return Cell(style.title, small=small, colour=style.colour)


def answer_table(
    findings: Mapping[str, Sequence[PropertyCheck]], questions: Mapping[str, tuple[str, str]]
) -> tuple[list[Head], list[list[Cell]]]:
    """A row per similarity, a column per question: heads and cells."""
    heads = [Head("Similarity")] + [Head(title, said) for title, said in questions.values()]
    rows = []
    for name, found in findings.items():
        answers = {finding.name: finding for finding in found}
        rows.append([name_cell(name), *(_answer(answers.get(question)) for question in questions)])
    return heads, rows


def _answer(finding: PropertyCheck | None) -> Cell:
    if finding is None:
        return Cell("–", hint="Too few pairs.")
    mark = "" if finding.holds is None else "holds" if finding.holds else "fails"
    return Cell(value_text(finding), mark, f"{finding.text} ({finding.scored:,} of {finding.total:,} looked at).")


def value_text(finding: PropertyCheck) -> str:
    """A finding's number with its unit."""
    if not np.isfinite(finding.value):
        return "–"
    if finding.name == "self":
        return f"{finding.value:.2f} spreads" if finding.value >= 0.005 else "one value"
    if finding.name == "symmetric":
        return "exact" if finding.value == 0 else "rounding" if finding.holds else f"{finding.value:.2g} spreads"
    if finding.name == "calibrated":
        return f"{100 * finding.value:.1f} points"
    if finding.name == "everywhere":
        return f"{100 * finding.value:.0f} points"
    from pddm_lab.analysis.metric_axioms import percent

    return percent(round(finding.value * finding.scored), finding.scored) if finding.value else "0 %"


def headline(findings: Mapping[str, Sequence[PropertyCheck]], trained: str) -> list[str]:
    """What the axioms come to, in a few sentences: the trained similarity first, then the others by how they differ."""
    title = style_of(trained).title
    broken = _broken(findings[trained])
    sentences = (
        [f"**{title}** is not a metric. " + ". ".join(finding.text for finding in broken) + "."]
        if broken
        else [f"**{title}** breaks no axiom of a metric on what was looked at."]
    )
    symmetric = next(finding for finding in findings[trained] if finding.name == "symmetric")
    sentences[0] += f" {symmetric.text}." if symmetric.holds else ""
    others = [name for name in findings if name != trained]
    kept = [style_of(name).title for name in others if not _broken(findings[name])]
    if kept:
        sentences.append(f"{listed(kept)} {'keep' if len(kept) > 1 else 'keeps'} every axiom of a metric.")
    for name in others:
        failed = _broken(findings[name])
        if failed:
            sentences.append(f"{style_of(name).title}: " + "; ".join(_lower(one.text) for one in failed) + ".")
    return sentences


def _broken(findings: Sequence[PropertyCheck]) -> list[PropertyCheck]:
    """The axioms that don't hold; calibration is no axiom."""
    return [one for one in findings if one.holds is False and one.name not in ("calibrated", "everywhere")]


def minus(text: str) -> str:
    """A number with a minus sign rather than a hyphen."""
    return text.replace("-", "−")


def listed(words: Sequence[str]) -> str:
    """Words as a list for reading."""
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1]))) if words else ""


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def looked_at(axioms: Axioms) -> str:
    """How many of how many the axioms were measured on."""
    chains = axioms.chains
    return (
        f"{axioms.symmetry.pairs:,} pairs in both orders; {len(axioms.rows):,} of {axioms.items:,} items against all "
        f"others; all {axioms.triangles.triples:,} triples of {axioms.triangles.items} items; {chains.chains:,} of "
        f"{chains.possible:,} chains of accepted pairs around the {len(axioms.rows):,} items. A spread is the standard "
        "deviation of S over pairs."
    )


def symmetry_table(axioms: Mapping[str, Axioms]) -> tuple[list[Head], list[list[Cell]]]:
    """Largest differences between both orders, and between both ways to score."""
    heads = [
        Head("Similarity"), Head("Largest |S(a,b) − S(b,a)|", small="pair by pair"),
        Head("Mean", small="pair by pair"), Head("Largest", small="as matrices, as search and evaluation score"),
        Head("Largest between both ways", "The same pair scored alone and in a matrix."), Head("Spread of S"),
    ]  # fmt: skip
    rows = []
    for name, found in axioms.items():
        s = found.symmetry
        values = (s.pairs_largest, s.pairs_mean, s.matrix_largest, s.paths_largest)
        rows.append([name_cell(name), *(Cell(f"{value:.1e}" if value else "0") for value in values),
                     Cell(f"{found.spread:.3f}")])  # fmt: skip
    return heads, rows


def chain_table(axioms: Mapping[str, Axioms]) -> tuple[list[Head], list[list[Cell]]]:
    """What becomes of the ends of chains, a row per similarity."""
    from pddm_lab.analysis.metric_axioms import percent

    heads = [
        Head("Similarity"), Head("Accepted from", "The threshold at 1 % FPR."), Head("Chains looked at"),
        Head("Ends not accepted"), Head("Detour shorter"), Head("c of d = c − S", "The largest S seen."),
        Head("c it would take", "The smallest c with which no triple tried breaks the triangle inequality."),
    ]  # fmt: skip
    rows = []
    for name, found in axioms.items():
        c = found.chains
        rows.append([
            name_cell(name), Cell(minus(f"{float(shown(name, np.array(c.threshold))):.3f}")),
            Cell(f"{c.chains:,}", small=f"of {c.possible:,}"), Cell(percent(c.broken, c.chains)),
            Cell(percent(c.violated, c.chains)), Cell(f"{found.offset + 0.0:.2f}"),
            Cell(f"{max(found.triangles.needed, found.offset) + 0.0:.2f}"),
        ])  # fmt: skip
    return heads, rows


def closer_cards(axioms: Axioms, items: pd.DataFrame) -> list[TileSet]:
    """Items that another item is more similar to than they are themselves, the furthest beaten first."""
    own = axioms.own[axioms.rows]
    beaten = np.flatnonzero(axioms.beaten)
    order = beaten[(own - axioms.rival_score)[beaten].argsort(kind="stable")][:SHOWN]
    cards = []
    for at in order:
        i, j = int(axioms.rows[at]), int(axioms.rival[at])
        others = int(axioms.closer[at])
        lines = [
            f"{axioms.rival_score[at] - own[at]:.2f} above itself",
            f"{others:,} other{'s are' if others > 1 else ' is'} closer to i than i",
        ]
        both = [shot(items, i, f"S(i,i) = {own[at]:.2f}"), shot(items, j, f"S(i,j) = {axioms.rival_score[at]:.2f}")]
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
            first = f"i ~ j ~ k, but {letter}(i,k) = {ik:.2f} where {at:.2f} is asked"
            way = f"{letter}(i,j) {ij:.2f} · {letter}(j,k) {jk:.2f}"
        cards.append(
            TileSet(
                [shot(items, row, role) for row, role in zip((i, j, k), "ijk", strict=True)], [minus(first), minus(way)]
            )
        )
    return cards


def shot(items: pd.DataFrame, row: int, role: str = "") -> Tile:
    """An item as a picture of a card."""
    return Tile(str(items["id"].iloc[row]), str(items["class_name"].iloc[row]), role)


def calibration_table(calibrations: Mapping[str, Calibration], by: str) -> tuple[list[Head], list[list[Cell]]]:
    """Errors of the chances said, overall and in each third by density, and where each third's even odds lie."""
    from pddm_lab.analysis.calibration import PROPERTIES
    from pddm_lab.metrics.density import DENSITIES

    (calibrated, calibrated_said), (everywhere, everywhere_said) = PROPERTIES.values()
    heads = [
        Head("Similarity"), Head(calibrated, calibrated_said, "expected error, points"),
        Head("Brier score", "Mean squared error of the chance said."),
        Head("Skill", "1: knows all; 0: no better than always saying the share of positive pairs.", "%"),
        Head("Error by density", "Calibration error of the logistic map in each third.", " · ".join(DENSITIES)),
        Head("Even odds at", "Where a third's own curve crosses one half.", " · ".join(DENSITIES)),
        Head(everywhere, everywhere_said, "said at even odds, " + " · ".join(DENSITIES) + ", %"),
    ]  # fmt: skip
    rows = []
    for name, found in calibrations.items():
        first, second = found.checks(by)
        reliability = found.maps[by]
        errors = [f"{100 * found.thirds[third].error:.1f}" if third in found.thirds else "–" for third in DENSITIES]
        even = [float(shown(name, np.array(found.even(third)))) for third in DENSITIES]
        said = found.predicted_at_even
        mark = {True: "holds", False: "fails", None: ""}
        rows.append([
            name_cell(name), Cell(f"{100 * reliability.error:.1f}", mark[first.holds], first.text + "."),
            Cell(f"{reliability.brier:.4f}"), Cell(f"{100 * reliability.skill:.0f}"), Cell(" · ".join(errors)),
            Cell(" · ".join(minus(f"{at:.2f}") if np.isfinite(at) else "–" for at in even)),
            Cell(" · ".join(f"{100 * said[third]:.0f}" if np.isfinite(said[third]) else "–" for third in DENSITIES),
                 mark[second.holds], second.text + "."),
        ])  # fmt: skip
    return heads, rows


def calibration_headline(calibrations: Mapping[str, Calibration], by: str, trained: str) -> list[str]:
    """Which similarity says chances best, and which says the same everywhere."""
    best = min(calibrations, key=lambda name: calibrations[name].maps[by].error)
    own = calibrations[trained]
    sentences = [
        f"Chances said from **{style_of(trained).title}** are off by {100 * own.maps[by].error:.1f} points on average"
        + (", the least of all." if best == trained else
           f"; from {style_of(best).title} by {100 * calibrations[best].maps[by].error:.1f}.")
    ]  # fmt: skip
    gaps = {name: found.gap for name, found in calibrations.items() if np.isfinite(found.gap)}
    if trained in gaps:
        said = {third: f"{100 * chance:.0f} %" for third, chance in own.predicted_at_even.items()}
        steadiest = min(gaps, key=gaps.__getitem__)
        sentences.append(
            "One value doesn't mean one chance: pairs that are truly even odds are said to be "
            f"{said['dense']} likely in dense regions and {said['sparse']} in sparse ones."
            if gaps[trained] > 0.1 else
            "One value means nearly one chance everywhere: pairs that are truly even odds are said to be "
            f"{said['dense']} likely in dense regions and {said['sparse']} in sparse ones."
        )  # fmt: skip
        sentences.append(
            "Over the thirds by density what is said there ranges over "
            + listed([f"{100 * gap:.0f} points for {style_of(name).title}" for name, gap in gaps.items()])
            + f": {style_of(steadiest).title} depends least on where in the space a pair lies."
        )
    return sentences
