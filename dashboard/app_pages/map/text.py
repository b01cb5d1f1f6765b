"""What the Map page says: of an item, of how far a map can be trusted, of what its colours mean."""

from __future__ import annotations

import numpy as np
import pandas as pd
from app_pages.map.scene import Choice, Map, Scene

from pddm_lab.analysis.query_errors import SHORTLIST
from pddm_lab.cards.html import number
from pddm_lab.figures import shown, style_of
from pddm_lab.gallery.umap_layout import NEIGHBOURS as MAP_NEIGHBOURS
from pddm_lab.metrics.density import DENSITIES, NEIGHBOURS, density_of


def told(scene: Scene, row: int) -> list[str]:
    """What the maps say of an item, in a few short lines."""
    lines = []
    for of, choice in zip(scene.maps, scene.choices, strict=True):
        who = f"{of.run.name}: " if scene.of_two_runs else ""
        lines += [who + line for line in _told(of, choice, row, scene.anchor)]
    return lines


def _told(of: Map, choice: Choice, row: int, anchor: int) -> list[str]:
    if choice.colour == "anchor":
        if row == anchor:
            return []
        values = of.similarity(anchor, choice.by)
        rank = 1 + int((np.delete(values, anchor) > values[row]).sum())
        return [f"{named(choice.by)} {number(shown(choice.by, values[row]), 3)}, rank {rank:,}"]
    if choice.colour == "error":
        found = of.query_errors(choice.by)
        found = found[found["row"] == row]
        if not len(found):
            return ["no query" if of.gallery.items["role"].iloc[int(of.order[row])] == "gallery" else "not judged"]
        right = "right" if found["right"].iloc[0] else "wrong"
        return [f"first result {right}", f"AP@R {100 * found['ap'].iloc[0]:.0f} %"]
    if choice.colour in ("density", "trust"):
        radius, overlap = of.trust()
        if not np.isfinite(overlap[row]):
            return ["not measured"]
        return [f"radius {radius[row]:.3f}", f"{100 * overlap[row]:.0f} % of neighbours kept"]
    return []


def named(similarity: str) -> str:
    """A similarity with the letter of its values: Euclidean D, PDDM S."""
    style = style_of(similarity)
    return f"{style.title} {style.letter}"


def named_on(scene: Scene, at: int) -> str:
    """`named` of one of two maps, with its run where they are of two."""
    name = named(scene.choices[at].by)
    return f"{name} of {scene.maps[at].run.name}" if scene.of_two_runs else name


def facts(scene: Scene) -> dict[str, str]:
    """The anchor's facts for its card; density and trust where the map was stored with them."""
    item, first = scene.items.iloc[scene.anchor], scene.first
    roles = {"both": "query and searched", "query": "query", "gallery": "searched"}
    found = {"Class": str(item["class_name"]), "Item": str(item["id"]), "Role": roles[str(item["role"])]}
    if first.layout.has_trust:
        radius, overlap = (values[scene.anchor] for values in first.trust())
        third = DENSITIES[int(density_of(first.trust()[0])[scene.anchor])]
        found |= {"Radius": f"{radius:.3f}, {third}", "Trust": f"{100 * overlap:.0f} % of neighbours kept"}
    return found


def words(scene: Scene, measure: bool) -> list[str]:
    """What is drawn, how far it can be trusted, and what the colours mean, as sentences.

    Args:
        scene: what is shown.
        measure: measure the trust of a map that was stored without it.
    """
    said = []
    for of, choice in zip(scene.different, scene.choices, strict=False):
        parts = [_drawn_words(of), _trust_words(of, measure), _colour_words(of, choice)]
        said.append((f"{of.run.name}: " if scene.of_two_runs else "") + " ".join(filter(None, parts)))
    return said


def _drawn_words(of: Map) -> str:
    how = "UMAP" if of.layout.method == "umap" else "their two principal components"
    why = f" ({of.layout.reason.rstrip('.')})" if of.layout.reason else ""
    return f"**{len(of.layout):,} of {len(of.layout):,} items drawn**, by {how}{why}."


def _trust_words(of: Map, measure: bool) -> str:
    if not measure and not of.layout.has_trust:
        return "How far this map can be trusted was not measured: colour by trust to measure a sample."
    overlap = of.trust()[1]
    known = overlap[np.isfinite(overlap)]
    if not len(known):
        return ""
    sampled = "" if len(known) == len(overlap) else f" ({len(known):,} of {len(overlap):,} items measured)"
    return (
        f"Of an item's {MAP_NEIGHBOURS} nearest by features, **{100 * known.mean():.0f} %** on average are among its "
        f"{MAP_NEIGHBOURS} nearest on the map{sampled}; the rest lies elsewhere on it."
    )


def _colour_words(of: Map, choice: Choice) -> str:
    if choice.colour == "error":
        found, queries = of.query_errors(choice.by), len(of.gallery.rows("query"))
        if not len(found):
            return "No query has an item of its class to find."
        how = "" if choice.by == "euclidean" else f", which orders the {SHORTLIST} nearest by Euclidean D anew"
        right, precision = (f"**{100 * found[column].mean():.1f} %**" for column in ("right", "ap"))
        return (
            f"{len(found):,} of {queries:,} queries judged by {style_of(choice.by).title}{how}: the first result is "
            f"right for {right}, AP@R is {precision} on average."
        )
    if choice.colour == "density":
        radius = of.trust()[0]
        return (
            f"Local radius: the mean D of an item to its {NEIGHBOURS} nearest others, small where items lie densely; "
            f"{int(np.isfinite(radius).sum()):,} of {len(radius):,} measured."
        )
    return ""


def around_words(scene: Scene, around: pd.DataFrame) -> str:
    """How the two neighbourhoods of an anchor differ, in a few sentences."""
    near, names = [around[f"near_{at}"] for at in (0, 1)], [named_on(scene, at) for at in (0, 1)]
    right = [int((around["class_name"][each] == scene.anchor_class).sum()) for each in near]
    ringed = f"Ringed are the {scene.choices[0].near} nearest to the anchor: left by {names[0]}, right by {names[1]}."
    circle = "A global metric's circle is round among the features only: on the map it is the items that it catches. "
    return (
        f"{ringed} {circle if any(choice.by != 'pddm' for choice in scene.choices) else ''}"
        f"**{int((near[0] & near[1]).sum())} are the same**; the larger rings are those that the other leaves out. "
        f"Of the anchor's class: {right[0]} left, {right[1]} right. Click another item to make it the anchor."
    )
