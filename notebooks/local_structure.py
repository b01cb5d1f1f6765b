# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Local structure: places don't carry over, neighbourhoods do
#
# `local_vs_global.ipynb` ends with a warning. A local metric that looks at *where* a pair lies is far ahead where it was
# trained, and far behind where it wasn't. New classes lie in new places, so this is the case that matters.
#
# This notebook keeps the idea, to judge a pair by its surroundings, and changes how the surroundings are described: not by
# coordinates, but by the **neighbourhoods** of both items in the gallery. First on a plane, then on pictures.
#
# Run the cells from top to bottom; with the digits it takes less than a minute. Questions are marked **Think**. The cells
# that only prepare are collapsed.

# %% tags=["parameters"] jupyter={"source_hidden": true}
# fmt: off
dataset = "digits"  # str, Data set of the second part: a name that pddm-lab data list shows, or folder:PATH.
data_root = ""  # str, Folder with the data sets; empty: $PDDM_LAB_DATA, or ./data.
runs_root = ""  # str, Folder with the runs and the cached trunk features; empty: $PDDM_LAB_RUNS, or ./runs.
seed = 0  # int, Seed of the points, and of all that learns.
steps = 200  # int, Steps of each training.
image_size = 96  # int, Side of the pictures that the network sees, in pixels.
shown = 10  # int, Results to show of one query.
# fmt: on

# %% [markdown]
# ## 1. Two regions of a plane
#
# Each dot is an item and each colour a class. Classes are stripes. In the left region they lie, in the right one they
# stand; in both, thin stripes are close together and wide ones far apart. We train in the left region only. Nobody sees the
# right one before we search in it.

# %% tags=["hide-input"] jupyter={"source_hidden": true}
from pddm_lab import figures
from pddm_lab.teaching import regions
from pddm_lab.training.notebook import begin

begin(globals(), "dataset", "data_root", "runs_root", "seed", "steps", "image_size", "shown")
first, second = regions.make_regions(seed)
names = ("where we train", "where we search later")
figures.plane_regions((first, second), names, height=330)

# %% tags=["hide-input"] jupyter={"source_hidden": true}
import copy

import pandas as pd
import torch
from IPython.display import Markdown, display

from pddm_lab import cards
from pddm_lab.config import TrainConfig
from pddm_lab.local.evidence import evidence
from pddm_lab.local.fit import fit_local_structure
from pddm_lab.local.neighbourhoods import SCALES, Neighbourhoods
from pddm_lab.local.similarity import Global
from pddm_lab.metrics.retrieval import rank
from pddm_lab.model.similarity import make_similarity
from pddm_lab.progress import progress_bars
from pddm_lab.runs.local import RunLocal
from pddm_lab.study.material import Material
from pddm_lab.teaching.small_training import pictures
from pddm_lab.training.local_evaluation import Sides, evaluate_local

# %% [markdown]
# ## 2. A unit that looks at coordinates
#
# PDDM's unit takes two points and sees their difference $u = |a - b|$ and their place $v = (a + b) / 2$. We train it in the
# left region. Then each point is searched among all the others of its region. **MAP@R** is 100 % if all points of a class
# come before all others, for every query.

# %%
on_coordinates, on_neighbourhoods = regions.train_on(first, steps, seed)
scores = {
    name: regions.scores_in(region, on_coordinates, on_neighbourhoods)
    for name, region in zip(names, (first, second), strict=True)
}


def table(*methods):
    """MAP@R in both regions, in %."""
    return pd.DataFrame({
        name: {method: round(100 * regions.quality(region, scores[name][method]), 1) for method in methods}
        for name, region in zip(names, (first, second), strict=True)
    })  # fmt: skip


table("distance", "unit on coordinates")

# %% [markdown]
# Where it was trained, the unit is far better than the distance. It has learned "a difference along x hardly counts". In
# the other region this is wrong, and the unit is far worse than the distance. Its numbers there are extrapolation.
#
# Below are the points that each of the two finds most similar to one point (the cross) of the right region.

# %%
anchor = int((second.points - second.points.mean(0)).square().sum(1).argmin())


def most_similar(*methods):
    """As many points as there are others in the class of the anchor."""
    of = scores[names[1]]
    nearest = {method: regions.nearest(of[method], anchor, regions.EACH - 1) for method in methods}
    return figures.plane_nearest(second, anchor, nearest, height=330)


most_similar("distance", "unit on coordinates")

# %% [markdown]
# **Think.** Would it help to train in more regions?
#
# <details><summary>Answer</summary>
#
# It would help in those regions. A plane can be covered with regions; a space of 128 dimensions can't. New classes bring
# new places, and about a place nothing is known before something of it was seen.
#
# </details>
#
# ## 3. A unit that looks at neighbourhoods
#
# What do we know of a place that we have never seen? The items that lie there: the gallery itself. Nobody has to tell us
# their classes. For each item $a$, let $h_1, h_2, \dots$ be its nearest others, with weights $w_m = \max(0, \cos)^3$. Their
# sum with $a$ itself is the **expansion** of $a$:
#
# $$E_k(a) = z_a + w_1 z_{h_1} + \dots + w_k z_{h_k} \qquad\qquad e_k(a) = E_k(a) / \lVert E_k(a) \rVert$$
#
# Along a stripe, neighbours lead from one point to the next, so the expansions of two points of a stripe are more alike
# than the points. The unit has the paper's form, $S = a \cdot u + W_s\,\mathrm{relu}(W_c [u'; v'])$, but
#
# * $u$ says how much two neighbourhoods **agree**: $e_k(q) \cdot z_g$ and $z_q \cdot e_k(g)$, $e_k(q) \cdot e_k(g)$, shared
#   neighbours, reciprocal neighbours, and the rank of each among the neighbours of the other;
# * $v$ says **what kind of place** it is: how dense it is around both, and how differently both ends see it.
#
# None of these numbers is a coordinate. "The 8 nearest of both are the same" means the same everywhere.

# %%
z = regions.features(second.points)
reference = Neighbourhoods.of(z)
own = torch.tensor([anchor])
rows = regions.nearest(scores[names[1]]["distance"], anchor, 8)[None]
seen = evidence(reference, reference.queries(z[own], own), rows)
pd.DataFrame(
    {
        "right class": ["yes" if right else "no" for right in second.labels[rows[0]] == second.labels[anchor]],
        "cosine": seen.cosine[0], f"expansions of both, k = {SCALES[2]}": seen.both[2][0],
        "shared neighbours": seen.shared[0][0], "rank of the item": seen.ranks[0][0].expm1().int(),
        "rank of the query": seen.ranks[1][0].expm1().int(),
    },
    index=[f"nearest {place + 1}" for place in range(rows.shape[1])],
).round(2)  # fmt: skip

# %%
display(table(*regions.METHODS))
most_similar(*regions.METHODS)

# %% [markdown]
# Where it was trained, the unit on coordinates remains the best: it knows the place by heart. In the other region only the
# unit on neighbourhoods is better than the distance. What it learned, for example how much a shared neighbour is worth,
# holds there too.
#
# **Think.** What does this unit need that a distance doesn't?
#
# <details><summary>Answer</summary>
#
# The gallery. $S$ of the same two items changes when the items around them change, and with two or three items in the
# gallery there are no neighbourhoods to speak of. The same holds for every re-ranking that uses the gallery.
#
# </details>
#
# ## 4. Pictures
#
# Now the features of a pretrained network, which nobody trained on these pictures. `fit_local_structure` makes the whole
# similarity from the training classes: it evens out the directions in which classes vary, trains the unit on galleries
# of held-out classes and pictures, also on galleries with few items of a class, and trains a **second pass**, which takes
# as neighbours those that the first found most similar.

# %%
config = TrainConfig.from_parameters({
    "dataset": dataset, "data_root": data_root, "runs_root": runs_root, "image_size": image_size,
    "resize": image_size, "views": 1,
})  # fmt: skip
material = Material.load(config, bar=progress_bars(False))
data, labels = material.dataset, torch.from_numpy(material.dataset.labels)
features = torch.nn.functional.normalize(material.inputs, dim=1)
train = torch.from_numpy(data.train)
structure = fit_local_structure(features[train], labels[train], steps=steps, seed=seed)
one_pass = copy.copy(structure)
one_pass.second = None
weights = sum(weight.numel() for weight in structure.parameters())
display(Markdown(
    f"**{dataset}**: {len(data)} pictures of {len(data.class_names)} classes; {len(train)} of them to learn from. "
    f"Both units have {weights:,} weights together."
))  # fmt: skip

# %% [markdown]
# Two questions, as always: new pictures of known classes, and classes that were never trained. Three rivals need no
# training: **query expansion** searches with $e_k(q)$ instead of $z_q$, **expansion of both sides** compares $e_k(q)$ with
# $e_k(g)$, and **k-reciprocal** re-ranking (Zhong et al., CVPR 2017) compares the sets of neighbours that are mutual.

# %%
METHODS = {
    "Query expansion": (structure, "expansion"), "Expansion of both sides": (structure, "both_expansion"),
    "k-reciprocal": (structure, "k_reciprocal"), "Unit, first pass": (one_pass, "local"),
    "Unit, second pass": (structure, "local"),
}  # fmt: skip
measured = {}
for name, protocol in {"unseen": data.unseen, "known": data.known}.items():
    if protocol is None:
        continue
    query, gallery = torch.from_numpy(protocol.query), torch.from_numpy(protocol.gallery)
    sides = Sides(features, None, labels, query, gallery, protocol.leave_one_out)
    of = {"Distance": rank(
        make_similarity("euclidean", features.shape[1]), features[query], features[gallery], labels[query],
        labels[gallery], protocol.leave_one_out,
    )}  # fmt: skip
    for method, (similarity, kind) in METHODS.items():
        ((_, evaluation),) = evaluate_local(RunLocal(similarity, None, 1.0), sides, (kind,))
        of[method] = evaluation.metrics
    for metric in ("map@r", "recall@1"):
        column = (figures.PROTOCOL_TITLES[name], figures.METRICS[metric].title)
        measured[column] = {method: round(100 * values[metric], 1) for method, values in of.items()}
pd.DataFrame(measured)

# %% [markdown]
# Look at the unseen classes first. No label of theirs was ever used, neither in training nor in the search.
#
# Query expansion and k-reciprocal re-ranking need no training at all. If they come close to the unit on your pictures, you
# may not need it. They belong in every such table.
#
# ## 5. One query
#
# The picture whose results the neighbourhoods improve most. The first is the query, the others are its most similar
# pictures: by the distance above, by the unit below.

# %%
shown_protocol = data.unseen or data.known
assert shown_protocol is not None  # every data set has one
query, gallery = torch.from_numpy(shown_protocol.query), torch.from_numpy(shown_protocol.gallery)
reference, z = structure.reference(features[gallery]), structure.space(features[query])
in_gallery = torch.arange(len(query)) if shown_protocol.leave_one_out else None
shortlist = reference.shortlist(reference.queries(z, in_gallery), 200)
same = labels[gallery][shortlist] == labels[query, None]
ranked = {
    name: scores.argsort(dim=1, descending=True, stable=True)[:, :shown]
    for name, scores in {
        "distance": Global().candidates(reference, z, shortlist, in_gallery),
        "unit": structure.candidates(reference, z, shortlist, in_gallery),
    }.items()
}
right = {name: same.gather(1, order).sum(1) for name, order in ranked.items()}
best = int((right["unit"] - right["distance"]).argmax())
for name, order in ranked.items():
    items = [int(query[best]), *gallery[shortlist[best][order[best]]].tolist()]
    tiles = [(data.ids[item], data.class_names[data.labels[item]]) for item in items]
    display(Markdown(f"By the **{name}**: {int(right[name][best])} of {order.shape[1]} are right."))
    display(cards.image_grid(tiles, pictures(data, (name for name, _ in tiles))))

# %% [markdown]
# Why? Here are the neighbours that the query shares with the first right picture of the unit that the distance missed. The
# unit never saw the class; it saw that both know the same others.

# %%
missed = [
    row for row in ranked["unit"][best].tolist() if same[best, row] and row not in ranked["distance"][best].tolist()
]
if missed:
    item = shortlist[best, missed[0]]
    near = [
        set(
            reference.queries(z[[best]], None if in_gallery is None else in_gallery[[best]]).neighbours[0, :20].tolist()
        )
    ]
    near.append(set(reference.neighbours[item, :20].tolist()))
    shared = [int(query[best]), int(gallery[item]), *gallery[sorted(near[0] & near[1])].tolist()]
    tiles = [(data.ids[each], data.class_names[data.labels[each]]) for each in shared]
    display(Markdown(f"The query, the picture, and the {len(shared) - 2} that are among the 20 nearest of both:"))
    display(cards.image_grid(tiles, pictures(data, (name for name, _ in tiles))))
else:
    display(Markdown("Both find the same right pictures."))

# %% [markdown]
# ## What to remember
#
# * A place described by coordinates must have been seen in training. A place described by its neighbourhoods need not.
# * The price: $S$ is a function of the pair *and* the gallery. When the gallery changes, scores change.
# * Without labels of the new classes, the gain comes from the unlabelled items around them. A single new item in a
#   gallery of strangers gains nothing.
# * Set `dataset="emoji"` for a harder case: over 1200 pictograms, and only a few pictures of each.
