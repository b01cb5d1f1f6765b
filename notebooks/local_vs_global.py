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
# # Local against global: one ruler, or one that knows where it is?
#
# Are these two things alike? A computer that compares images first turns each into a list of numbers, its **feature**:
# a point in a space. Alike then means *near*, and the usual ruler is the **Euclidean distance** $D$. It measures the same
# way everywhere: it is *global*.
#
# This notebook shows on a plane, where you can see everything, why one ruler can fail; builds a similarity that also
# looks at *where* a pair lies, the **Position-Dependent Deep Metric** (PDDM; Huang, Loy and Tang, *Local Similarity-Aware
# Deep Feature Embedding*, NIPS 2016), equation by equation; trains it; and looks for the places where it does worse.
#
# Run the cells from top to bottom; all of it takes well under a minute. Questions are marked **Think**; click
# *Answer* after you have thought.

# %% tags=["parameters"]
# fmt: off
scene = "density"  # str, The points: density, islands, grains, diagonals or even.
seed = 0  # int, Seed of the points, the start of the unit and its batches.
steps = 300  # int, Steps of each training.
hidden = 48  # int, Width of the unit's layers.
run = ""  # str, A finished run to ask the same question, by name or path; empty: leave that part out.
runs_root = ""  # str, Folder that holds the runs; empty: $PDDM_LAB_RUNS, else ./runs.
pairs = 20000  # int, Pairs of that run to look at.
# fmt: on

# %%
from pddm_lab.training.notebook import begin, run_named

begin(globals(), "scene", "seed", "steps", "hidden", "run", "runs_root", "pairs")

import numpy as np
import torch
from IPython.display import Markdown, display

from pddm_lab import cards, figures
from pddm_lab.model.similarity import PDDMSimilarity
from pddm_lab.teaching import plane
from pddm_lab.teaching.point_sets import (
    LAYOUTS,
    PlaneConfig,
    first_anchor,
    make_point_set,
    mesh,
    path,
    spans,
    vector,
    without,
)
from pddm_lab.training.losses import double_header_hinge
from pddm_lab.training.miner import mine

config = PlaneConfig(scene, seed=seed, steps=steps, hidden=hidden)
points = make_point_set(scene, seed)
layout = LAYOUTS[scene]

# %% [markdown]
# ## 1. Points on a plane
#
# Every dot is an item, say a photo, and its colour and shape are its class. Small dots train, large ones are held back
# to measure with, and classes drawn hollow never train at all. Some classes are small and lie close together: there the
# plane is **dense**. Others are wide and far apart: there it is **sparse**. Real features are like that, too. Photos of
# one brand of milk differ little; photos of "fruit in a bowl" differ a lot.

# %%
display(Markdown(f"**{layout.title}**, {len(points.points)} points of {len(points.regions)} classes. {layout.summary}"))
figures.plane_pairs(points, {}, height=500)

# %% [markdown]
# ## 2. Why one ruler fails
#
# To say *same class* or *not* from a distance, you need a threshold: a radius $r$ around a point, within which you
# accept. Each row below is one class. The blue bar ends where half of the pairs *within* the class are: $r$ should reach
# at least so far. The hatched bar begins at the nearest point of *another* class: $r$ should not reach so far.
#
# The lines are two radii that one might choose for all: one that suits the smallest class, and the one that lets 1 % of
# all negative pairs pass (pairs of two classes). The small one finds hardly any pair of the wide classes. The larger one
# finds some, and reaches into the next class wherever classes are small.

# %%
distance = plane.measure_distance(points)
radius = -distance["known"].threshold
smallest = min(span.half for span in spans(points))
figures.plane_rulers(points, {"r small": smallest, "r at 1 %": radius})

# %%
found = ", ".join(f"{region} **{100 * share:.0f} %**" for region, share in distance["known"].tpr_by_region.items())
display(
    Markdown(
        f"With $r = {radius:.2f}$, which lets 1 % of the negative pairs pass, of the positive pairs D finds: {found}."
    )
)

# %% [markdown]
# **Think.** Could we stretch the plane first, twice as wide, or along one axis, and use one ruler then?
#
# <details><summary>Answer</summary>
#
# Stretching multiplies all distances alike (or all along one axis): the dense part and the sparse part are stretched by
# the same factor, so that their ratio stays. That is what a *Mahalanobis* distance learns: a better ruler, but still one
# for all places. We need a ruler that is long in one place and short in another.
#
# </details>

# %% [markdown]
# ## 3. The unit, equation by equation
#
# A PDDM unit takes two features $a$ and $b$ (the paper's $f_i$, $f_j$) and returns one number, the **score** $S$; larger
# means more similar. It is a small neural network of four linear layers (`PDDM` in `pddm_lab/pddm.py`).
#
# Take three pairs: **A** and **B** have exactly the same difference in two places. **C** lies where A does, but is a
# quarter as long. × marks the mean of each pair.

# %%
difference = vector(layout.length, layout.angle)
here, there = path(points)[0], path(points)[-1]
names = "ABC"
ends = {
    "A": np.stack([here - difference / 2, here + difference / 2]),
    "B": np.stack([there - difference / 2, there + difference / 2]),
    "C": np.stack([here - difference / 8, here + difference / 8]),
}
figures.plane_pairs(points, ends, height=500)

# %% [markdown]
# Below, each equation is worked out with plain matrix products. The last line of each cell compares the result with what
# the lab's own unit computes inside (`plane.inside` listens at the doors of its layers). The unit isn't trained yet: its
# weights are random.
#
# ### How do they differ, and where do they lie?
#
# $$u = |a - b| \qquad\qquad v = \frac{a + b}{2}$$
#
# $u$ is how far the two ends are apart, axis by axis. $v$ is their mean: *where* the pair lies. Neither changes if $a$
# and $b$ trade places, so that $S(a, b) = S(b, a)$.

# %%
snapshots = list(plane.train_plane(points, config))
unit = snapshots[0].unit  # as it is before the first step
a, b = (torch.tensor(np.stack([ends[name][end] for name in names]), dtype=torch.float32) for end in (0, 1))
code = plane.inside(unit, a, b)

u = (a - b).abs()
v = (a + b) / 2
assert torch.equal(u, code.u) and torch.equal(v, code.v)
for name, of_u, of_v in zip(names, u, v, strict=True):
    print(f"{name}:  u = ({of_u[0]:.2f}, {of_u[1]:.2f})   v = ({of_v[0]:5.2f}, {of_v[1]:5.2f})   D = {of_u.norm():.2f}")

# %% [markdown]
# A and B have the same $u$, and so the same $D$; only $v$ tells them apart. A and C have the same $v$.
#
# ### Features of the difference, features of the place
#
# $$u' = \mathrm{norm}(\mathrm{relu}(W_u u + b_u)) \qquad v' = \mathrm{norm}(\mathrm{relu}(W_v v + b_v))$$
#
# Two layers, `difference` and `position`, with weights of their own. $\mathrm{relu}(x) = \max(0, x)$ cuts off what is
# below 0, as in a CNN; *norm* divides by the length, so that neither the difference nor the place can outweigh the other.


# %%
def norm(x):
    """Vectors scaled to length 1."""
    return x / x.norm(dim=-1, keepdim=True)


W_u, b_u = unit.difference.weight, unit.difference.bias
W_v, b_v = unit.position.weight, unit.position.bias
u_ = norm(torch.relu(u @ W_u.T + b_u))
v_ = norm(torch.relu(v @ W_v.T + b_v))
assert torch.allclose(u_, code.u_hidden, atol=1e-6) and torch.allclose(v_, code.v_hidden, atol=1e-6)
print(f"W_u {tuple(W_u.shape)}, W_v {tuple(W_v.shape)}: {u.shape[1]} numbers in, {u_.shape[1]} out")

# %% [markdown]
# ### Both together, and the score
#
# $$c = \mathrm{relu}(W_c [u'; v'] + b_c) \qquad\qquad S = W_s c + b_s$$
#
# The layer `joint` sees both at once: here a number can answer to "a small difference *and* on the left". The layer
# `score` adds them up with weights. There is no sigmoid: $S$ is just a number, and what it is worth depends on other $S$.

# %%
W_c, b_c = unit.joint.weight, unit.joint.bias
W_s, b_s = unit.score.weight, unit.score.bias
c = torch.relu(torch.cat([u_, v_], dim=-1) @ W_c.T + b_c)
S = (c @ W_s.T + b_s).squeeze(-1)
assert torch.allclose(c, code.joint, atol=1e-6) and torch.allclose(S, code.score, atol=1e-6)
assert torch.allclose(S, unit(b, a), atol=1e-6)  # a and b may change places
print("S before training:", ", ".join(f"{name} {score:.3f}" for name, score in zip(names, S.tolist(), strict=True)))

# %% [markdown]
# That's all there is. The same numbers as a picture: a row per pair, a column per unit of the layer, darker is larger.
# Rows A and B are equal in $u'$, rows A and C in $v'$. In the last block orange adds to $S$ and blue takes away.

# %%
figures.plane_unit(code, W_s[0].numpy(), names, title="Inside the unit before training")

# %% [markdown]
# **Think.** How many weights has a unit for features of $d = 128$ numbers, all layers 128 wide? Does that depend on how
# many classes there are?
#
# <details><summary>Answer</summary>
#
# $W_u$ and $W_v$ have $128 \cdot 128$ each, $W_c$ has $128 \cdot 256$, $W_s$ has 128, and the biases $3 \cdot 128 + 1$:
# about 66 000. It doesn't depend on the number of classes: a classifier's last layer does.
#
# </details>

# %% [markdown]
# ## 4. Training it
#
# The unit learns from **hard quadruplets** (`mine` in `miner.py`): in a batch each point $i$ takes its *least* similar
# partner $j$ of the same class, and then the *most* similar points of other classes, $k$ for $i$ and $l$ for $j$. The
# loss asks that the positive pair wins at both ends by a margin $\alpha$ (`double_header_hinge` in `losses.py`):
#
# $$E_m = \max(0, \alpha + S_{ik} - S_{ij}) + \max(0, \alpha + S_{jl} - S_{ij})$$

# %%
batch = torch.tensor(np.flatnonzero(points.trains)[::7])
f, labels = torch.from_numpy(points.points)[batch], torch.from_numpy(points.labels)[batch]
similarity = PDDMSimilarity(unit)
quads = mine(f, labels, similarity, "anchor")
s_ij, s_ik, s_jl = (
    similarity(f[quads.i], f[quads.j]),
    similarity(f[quads.i], f[quads.k]),
    similarity(f[quads.j], f[quads.l]),
)
E_m = torch.relu(config.score_margin + s_ik - s_ij) + torch.relu(config.score_margin + s_jl - s_ij)
assert torch.allclose(E_m, double_header_hinge(s_ij, s_ik, s_jl, config.score_margin))
trained = snapshots[-1]
print(
    f"E_m before training {E_m.mean():.2f}, at the end of {trained.step} steps {trained.loss:.3f} (alpha {config.score_margin})"
)

# %% [markdown]
# The points stay where they are here, so that the only thing that learns is the ruler. (In the lab the CNN learns along.)
# The same three pairs afterwards:

# %%
after = plane.inside(trained.unit, a, b)
verdicts = ", ".join(
    f"{name}: S = {score:.2f}, {'accepted' if score > trained.known.threshold else 'refused'}"
    for name, score in zip(names, after.score.tolist(), strict=True)
)
display(
    Markdown(f"{verdicts}; the threshold that lets 1 % of the negative pairs pass is {trained.known.threshold:.2f}.")
)
figures.plane_unit(after, trained.unit.score.weight[0].numpy(), names, title="Inside the unit after training")

# %% [markdown]
# ## 5. Contours against circles
#
# Choose a point, the anchor, marked by a cross. Which points does $D$ accept? Those within a circle, always of the same
# size. Which does $S$ accept? Those within the orange line. Both let 1 % of the negative pairs pass. Here are two anchors,
# from either end of the scene.


# %%
def around(anchor, title):
    """What S and D accept around an anchor, as a picture and in numbers."""
    scores = plane.score(trained.unit, points.points[anchor], mesh()[2])
    display(
        figures.plane_neighbourhood(points, anchor, scores, trained.known.threshold, radius, title=title, height=500)
    )
    to_points = plane.score(trained.unit, points.points[anchor], points.points)
    away = np.linalg.norm(points.points - points.points[anchor], axis=1)
    for name, values, at in (("S", to_points, trained.known.threshold), ("D", -away, -radius)):
        got = plane.accepted(points, anchor, values, at)
        print(f"{name} accepts {got.own} of {got.own_total} of its class and {got.others} of {got.others_total} others")


known = points.held_out("known")
first = first_anchor(points)
other = int(known[np.linalg.norm(points.points[known] - here, axis=1).argmin()])
for anchor in (first, other):
    around(anchor, f"An anchor in the region “{points.region_of(np.array([anchor]))[0]}”")

# %% [markdown]
# **Think.** A circle looks the same around every point. Can the orange line be any shape at all?
#
# <details><summary>Answer</summary>
#
# No. The unit sees $|a - b|$, which forgets signs. So a difference to the upper right and one to the upper left are the
# same $u$, and only the mean can tell them apart. And the score is symmetric: if $a$ accepts $b$, then $b$ accepts $a$.
#
# </details>
#
# ## 6. The same difference, elsewhere
#
# Now hold the difference fixed, and move the pair. The colour is $S$ of this one difference with its mean at each place;
# within the orange line it is accepted. $D$ of a fixed difference is the same everywhere: it accepts everywhere or
# nowhere.

# %%
everywhere = plane.score_at(trained.unit, mesh()[2], difference)
figures.plane_everywhere(points, everywhere, trained.known.threshold, pair=ends["A"], height=500)

# %%
along = plane.score_at(trained.unit, path(points), difference)
length = float(np.linalg.norm(difference))
figures.plane_along(points, along, trained.known.threshold, length, radius, 0.0, title="Along the dashed line")

# %% [markdown]
# ## 7. Through training
#
# What $S$ accepts around the first anchor at four steps. Before training its scores are chance; where no orange line is
# drawn it accepts nothing there.

# %%
taken = [snapshots[number] for number in np.linspace(0, len(snapshots) - 1, 4).round().astype(int)]
figures.plane_through(points, first, taken, radius)

# %%
display(Markdown("Positive pairs found when 1 % of the negative pairs pass:"))
figures.plane_steps(snapshots, distance, len(snapshots) - 1)

# %% [markdown]
# ## 8. Known classes, and classes it has never met
#
# Two questions, always both: how good is $S$ on new points of classes that trained (**known**), and on classes that never
# trained (**unseen**)? **R@1** is the share of points whose most similar other point is of their class, **ROC AUC** the
# chance that a positive pair is more similar than a negative one, **TPR at 1 % FPR** what the section before drew.

# %%
table = plane.table_of({"euclidean": distance, "pddm": {"known": trained.known, "unseen": trained.unseen}})
for protocol in ("known", "unseen"):
    display(Markdown(f"**{figures.PROTOCOL_TITLES[protocol]}**"))
    display(cards.metrics_table(table, protocol, metrics=("recall@1", "auc", "tpr@1%fpr")))

# %% [markdown]
# The unseen classes of this scene lie *among* classes that trained, so that what $S$ learned of the place serves them,
# too. That isn't always so.
#
# ## 9. Where S loses
#
# An honest look needs cases that are bad for $S$:
#
# * **One density**: all classes are alike. One ruler fits, and there is nothing to win.
# * **Two islands**: a gap between dense and sparse. The loss only compares pairs that share an end. Nothing ties the
#   scores of one island to those of the other, so that one threshold for both is a matter of luck. Three seeds show it.
# * **Diagonals**: stripes that rise on the left and fall on the right. $|a - b|$ is the same along and across a stripe, so
#   that $S$ can't tell the two apart. It gains what the place alone can give, and no more.
# * **Two grains, the upright stripes never trained**: $S$ learned "along the x axis is near" and is then asked where
#   classes stand upright. It has never been there.

# %%
cases = [("One density", make_point_set("even", seed), seed)]
cases += [
    (f"Two islands, seed {number}", make_point_set("islands", number), number) for number in (seed, seed + 1, seed + 2)
]
cases += [("Diagonals", make_point_set("diagonals", seed), seed)]
cases += [("Two grains, upright never trained", without(make_point_set("grains", seed), "upright"), seed)]
lines = [
    "| | known: D | known: S | unseen: D | unseen: S | R@1 unseen: D | R@1 unseen: S |",
    "|---|---|---|---|---|---|---|",
]
for name, case, number in cases:
    *_, last = plane.train_plane(case, PlaneConfig(case.name, seed=number, steps=steps, hidden=hidden))
    by_d, by_s = plane.measure_distance(case), {"known": last.known, "unseen": last.unseen}
    cells = [(protocol, "tpr@1%fpr") for protocol in ("known", "unseen")] + [("unseen", "recall@1")]
    shown = [f"{100 * by[protocol].metrics[metric]:.0f}" for protocol, metric in cells for by in (by_d, by_s)]
    lines.append(f"| {name} | {' | '.join(shown)} |")
display(Markdown("Positive pairs found when 1 % of the negative ones pass, and R@1, in %:\n\n" + "\n".join(lines)))

# %% [markdown]
# Read the last row (with the settings that the notebook comes with): on known classes $S$ is far ahead, on classes in a region that training never reached it is far
# behind, even in R@1. A local metric **memorises places**. Where it has been, it can use a ruler that fits; elsewhere it
# says whatever its lines happen to run into. The distance knows nothing of places, and so it can't be wrong about them.
# That is why the lab always measures known *and* unseen classes.
#
# **Think.** A shop's range changes with the season: new products all the time. Which of the two would you search with?
#
# <details><summary>Answer</summary>
#
# For products that are in the training data, $S$ may find more. For new ones nothing promises that. Both can be combined:
# find a shortlist by $D$, and let $S$ order it only where the query looks like something that was trained on. What the
# lab has measured of this is in its README.
#
# </details>
#
# ## 10. The same question on a real run
#
# There the space has 128 dimensions, the network has trained along, and dense and sparse are what the features make of
# the photos. The question stays: does one threshold work alike where items lie densely and where they lie sparsely?

# %%
if run:
    from pddm_lab.analysis.pairs import pairs_by_density
    from pddm_lab.analysis.thresholds import by_density
    from pddm_lab.runs.model import load_similarities

    opened = run_named(run, runs_root)
    similarities = load_similarities(opened)
    for protocol in opened.protocols():
        sample = pairs_by_density(opened.gallery(protocol), similarities, pairs)
        results = {name: by_density(sample, name) for name in ("euclidean", "pddm")}
        display(Markdown(f"**{opened.name}, {figures.PROTOCOL_TITLES[protocol].lower()}**"))
        display(figures.by_density(results, share=0.01))
        display(cards.density_table(results))
else:
    display(
        Markdown("*No run was named: `-p run NAME` shows this part of a run that `pddm-lab train quick` has trained.*")
    )

# %% [markdown]
# With a run: the left panel shows the positive pairs found, the right one the negative pairs that pass, in each third of
# the pairs by density. A flat line at the right means that the threshold fits everywhere. Hollow marks are what a
# threshold of each third's own would find. Is PDDM's line flatter than Euclid's? On classes it knows, or on unseen ones,
# too? Do the intervals overlap? Then the run can't tell.
#
# ## Where to go from here
#
# * `scene="grains"` above: no single ruler, however stretched, serves lying *and* upright stripes.
# * The dashboard's page *Local vs global* lets you click an anchor and move the pair with the mouse: `pddm-lab dashboard`.
# * `hard_quadruplets.ipynb` shows what the miner picks, `train.ipynb` trains on photos.
