"""How many neighbours count for what. No torch: an exported similarity has the same sizes."""

SCALES = (2, 4, 8, 16, 32)
"""k of the expansions."""
SECOND_SCALES = (5, 15, 40)
"""k of the expansions of the second pass."""
LENGTH = 40
"""Neighbours in a list. The gallery keeps one more, which takes the place of a query that is taken out."""
NEAR = 100
"""Items that are searched for each query; a second pass lists the best of them by its score."""
POWER = 3
"""w = max(0, cosine)^3: near neighbours count, others hardly."""
FEWEST = 10
"""With fewer items than this a gallery has no neighbourhoods to speak of: it is ranked by the cosine."""
SHARED = (4, 32)
"""k of the neighbours that two items share."""
RECIPROCAL = (6, 20)
"""k of the reciprocal sets."""
LIMIT = 5.0
"""Standardised inputs of a unit are clamped to so many deviations."""
LISTS = ("neighbours", "scores", "weights", "reverse", "squares", "onward")
"""What is listed for each item of a gallery, see `Neighbourhoods`."""
