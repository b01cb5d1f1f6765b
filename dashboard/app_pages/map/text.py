"""The Map page in words: an item, how far a map can be trusted, what its colours mean."""

from __future__ import annotations

import numpy as np
import pandas as pd
from app_pages.map.scene import Choice, Map, MapView
from shared.plain_text import command, plain

from pddm_lab.analysis.query_errors import RERANKED
from pddm_lab.cards.html import number
from pddm_lab.figures import shown
from pddm_lab.gallery.redraw import is_being_redrawn
from pddm_lab.gallery.umap_layout import NEIGHBOURS as MAP_NEIGHBOURS
from pddm_lab.metrics.density import DENSITIES, NEIGHBOURS, density_of
from pddm_lab.similarities import EVERY
from pddm_lab.wording import counted


def describe(scene: MapView, row: int) -> list[str]:
    """An item's values on the maps, in a few short lines."""
    lines = []
    for of, choice in zip(scene.maps, scene.choices, strict=True):
        who = f"{of.run.name}: " if scene.of_two_runs else ""
        lines += [who + line for line in _describe(of, choice, row, scene.anchor)]
    return lines


def _describe(of: Map, choice: Choice, row: int, anchor: int) -> list[str]:
    if choice.colour == "anchor":
        if row == anchor:
            return []
        values = of.similarity(anchor, choice.by)
        rank = 1 + int((np.delete(values, anchor) > values[row]).sum())
        return [f"{named(choice.by)} {number(shown(choice.by, values[row]), 3)}, rank {rank:,}"]
    if choice.colour == "error":
        errors = of.query_errors(choice.by)
        errors = errors[errors["row"] == row]
        if not len(errors):
            return ["not a query" if of.gallery.items["role"].iloc[int(of.order[row])] == "gallery" else "not measured"]
        right = "right" if errors["right"].iloc[0] else "wrong"
        return [f"first result {right}", f"AP@R {100 * errors['ap'].iloc[0]:.0f} %"]
    if choice.colour in ("density", "trust"):
        radius, overlap = of.trust()
        if not np.isfinite(overlap[row]):
            return ["not measured"]
        return [f"radius {radius[row]:.3f}", f"{100 * overlap[row]:.0f} % of neighbours kept"]
    return []


def named(similarity: str) -> str:
    """A similarity with its symbol: Euclidean D, PDDM S."""
    return f"{EVERY[similarity].title} {EVERY[similarity].letter}"


def named_on(scene: MapView, at: int) -> str:
    """`named` for one of two maps, with its run if they belong to two."""
    name = named(scene.choices[at].by)
    return f"{name} of {plain(scene.maps[at].run.name)}" if scene.of_two_runs else name


def facts(scene: MapView) -> dict[str, str]:
    """The anchor's facts for its card; with density and trust if the map was stored with them."""
    item, first = scene.items.iloc[scene.anchor], scene.first
    roles = {"both": "query and searched", "query": "query", "gallery": "searched"}
    values = {"Class": str(item["class_name"]), "Item": str(item["id"]), "Role": roles[str(item["role"])]}
    if first.layout.has_trust:
        radius, overlap = (measured[scene.anchor] for measured in first.trust())
        third = DENSITIES[int(density_of(first.trust()[0])[scene.anchor])]
        values |= {"Radius": f"{radius:.3f}, {third}", "Trust": f"{100 * overlap:.0f} % of neighbours kept"}
    return values


def words(scene: MapView, measure: bool) -> list[str]:
    """For each map, sentences on what is drawn, how far it can be trusted, and what the colours mean.

    Args:
        scene: the content of the page.
        measure: measure the trust of a map that was stored without it.
    """
    texts = []
    for of, choice in zip(scene.different, scene.choices, strict=False):
        parts = [_drawn_words(of, scene), _trust_words(of, measure), _colour_words(of, choice)]
        texts.append((f"{plain(of.run.name)}: " if scene.of_two_runs else "") + " ".join(filter(None, parts)))
    return texts


def _drawn_words(of: Map, scene: MapView) -> str:
    how = "UMAP" if of.layout.method == "umap" else "their two principal components"
    why = f" ({plain(of.layout.reason.rstrip('.'))})" if of.layout.reason else ""
    count = len(of.layout) if scene.kept is None else int(scene.kept.sum())
    only = f" ({scene.filter.in_words()})" if scene.filter else ""
    drawn = f"**{count:,} of {counted(len(of.layout), 'item')} drawn**{only}, by {how}{why}."
    if not of.layout.placed:
        return drawn
    items = counted(of.layout.placed, "item")
    came = f"{drawn} Since then {items} came, each in a square, put between its nearest neighbours"
    if is_being_redrawn(of.gallery.path):
        return f"{came}."
    return f"{came}: redraw the map with {command('gallery', 'map', of.run.name, '--protocol', of.gallery.protocol)}."


def _trust_words(of: Map, measure: bool) -> str:
    if not measure and not of.layout.has_trust:
        return "How far this map can be trusted was not measured. Colour by trust to measure a sample."
    overlap = of.trust()[1]
    known = overlap[np.isfinite(overlap)]
    if not len(known):
        return ""
    sampled = "" if len(known) == len(overlap) else f" ({len(known):,} of {len(overlap):,} items measured)"
    share = f"**{100 * known.mean():.0f} %**"
    return f"The map keeps {share} of each item's {MAP_NEIGHBOURS} nearest neighbours on average{sampled}."


def _colour_words(of: Map, choice: Choice) -> str:
    if choice.colour == "error":
        errors, queries = of.query_errors(choice.by), len(of.gallery.rows("query"))
        if not len(errors):
            return "No query has a searched item of its class."
        how = "" if choice.by == "euclidean" else f", which re-ranks the {RERANKED} nearest by Euclidean D"
        right, precision = (f"**{100 * errors[column].mean():.1f} %**" for column in ("right", "ap"))
        return (
            f"{len(errors):,} of {queries:,} queries evaluated by {EVERY[choice.by].title}{how}: the first "
            f"result is right for {right}, AP@R is {precision} on average."
        )
    if choice.colour == "density":
        radius = of.trust()[0]
        return (
            f"Local radius: the mean D of an item to its {NEIGHBOURS} nearest neighbours, small where items lie "
            f"densely. Measured for {int(np.isfinite(radius).sum()):,} of {len(radius):,} items."
        )
    return ""


def around_words(scene: MapView, around: pd.DataFrame) -> str:
    """How the two neighbourhoods of an anchor differ, in a few sentences."""
    near, names = [around[f"near_{at}"] for at in (0, 1)], [named_on(scene, at) for at in (0, 1)]
    right = [int((around["class_name"][each] == scene.anchor_class).sum()) for each in near]
    circle = "Items within a given distance form a ball among the features, but not a circle on the map. "
    return (
        f"The rings mark the {scene.choices[0].near} nearest to the anchor: left by {names[0]}, right by {names[1]}. "
        f"{'' if all(EVERY[choice.by].is_network for choice in scene.choices) else circle}"
        f"**{int((near[0] & near[1]).sum())} of them are the same**; larger rings mark those that only one has. "
        f"Of the anchor's class: {right[0]} left, {right[1]} right. Click another item to make it the anchor."
    )
