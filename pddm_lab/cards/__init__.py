"""Pictures with their numbers as HTML blocks, for notebooks and the dashboard alike; `from pddm_lab import cards`.

A block carries its pictures as data URIs and its style with it: one element on a page however many pictures it holds,
and nothing to load. It takes text and background from where it is put, so that it fits a light and a dark page.
"""

from pddm_lab.cards.audit import Cell, Head, Tile, TileSet, audit_table, tile_sets
from pddm_lab.cards.classes import class_counts
from pddm_lab.cards.confusions import confusion_bars, suspect_grid
from pddm_lab.cards.explanation import Dimension, dimension_rows, explained_pair
from pddm_lab.cards.html import RIGHT, WRONG, Block, picture
from pddm_lab.cards.pairs import density_table, pair_grid, pair_strip, quadrant_table
from pddm_lab.cards.pictures import image_grid, retrieval_grid
from pddm_lab.cards.quadruplets import quadruplet_card, quadruplet_grid
from pddm_lab.cards.tables import facts, metrics_table, stepper

__all__ = [
    "RIGHT",
    "WRONG",
    "Block",
    "Cell",
    "Dimension",
    "Head",
    "Tile",
    "TileSet",
    "audit_table",
    "class_counts",
    "confusion_bars",
    "density_table",
    "dimension_rows",
    "explained_pair",
    "facts",
    "image_grid",
    "metrics_table",
    "pair_grid",
    "pair_strip",
    "picture",
    "quadrant_table",
    "quadruplet_card",
    "quadruplet_grid",
    "retrieval_grid",
    "stepper",
    "suspect_grid",
    "tile_sets",
]
