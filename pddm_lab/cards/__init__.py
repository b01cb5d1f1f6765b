"""Pictures with their numbers as HTML blocks, for notebooks and the dashboard; `from pddm_lab import cards`.

A block contains its pictures as data URIs and its own style: one element on a page, and nothing to load. It inherits
text colour and background, so that it fits a light and a dark page. Everywhere, `images` are picture bytes by item id.
"""

from pddm_lab.cards.answers import Answer, Line, answer_rows
from pddm_lab.cards.audit import Cell, Head, Tile, TileSet, audit_table, tile_sets
from pddm_lab.cards.classes import class_counts
from pddm_lab.cards.confusions import confusion_bars, suspect_grid
from pddm_lab.cards.explanation import Dimension, contributions, dimension_rows, explained_pair
from pddm_lab.cards.html import Block, picture
from pddm_lab.cards.pairs import density_table, pair_grid, pair_strip, quadrant_table
from pddm_lab.cards.pictures import image_grid, retrieval_grid
from pddm_lab.cards.quadruplets import quadruplet_card, quadruplet_grid
from pddm_lab.cards.queries import far_queries
from pddm_lab.cards.tables import facts, metrics_table, stepper
