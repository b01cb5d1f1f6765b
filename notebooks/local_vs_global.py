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
# Are these two things alike? A computer that compares images first turns each image into a list of numbers, its
# **feature**: a point in a space. Similar images should be *near* each other, and the usual ruler is the **Euclidean
# distance** $D$. It measures the same way everywhere: it is *global*.
#
# This notebook uses points on a plane, where you can see everything. It shows why a single ruler can fail. Then it
# builds a similarity that also looks at *where* a pair lies, the **Position-Dependent Deep Metric** (PDDM; Huang, Loy
# and Tang, *Local Similarity-Aware Deep Feature Embedding*, NIPS 2016), equation by equation. It trains this similarity,
# and shows where it does worse than the distance.
#
# Run the cells from top to bottom; together they take well under a minute. Questions are marked **Think**. Click
# *Answer* when you have thought about one. The cells that only prepare are collapsed.

# %% tags=["parameters"] jupyter={"source_hidden": true}
# fmt: off
scene = "density"  # str, The point set: density, islands, grains, diagonals or even.
seed = 0  # int, Seed of the points, of the unit's first weights and of its batches.
steps = 300  # int, Steps of each training.
hidden = 48  # int, Width of the unit's layers.
run = ""  # str, Name or path of a finished run to examine in section 10; empty: skip that section.
runs_root = ""  # str, Folder with the runs; empty: $PDDM_LAB_RUNS, or ./runs.
pairs = 20000  # int, Number of pairs of that run to draw.
# fmt: on

# %% [markdown]
# ## 1. Points on a plane
#
# Each dot is an item, say a photo. Its colour and shape show its class. Small dots are training data, large dots are held
# out to measure with, and hollow dots belong to classes that are never trained. Some classes are small and close
# together: the plane is **dense** there. Others are wide and far apart: it is **sparse** there. Real features are like
# that too. Photos of one brand of milk differ little, photos of "fruit in a bowl" differ a lot.

# %% tags=["hide-input"] jupyter={"source_hidden": true}
from IPython.display import Markdown, display

from pddm_lab import figures
from pddm_lab.teaching import point_sets
from pddm_lab.training.notebook import begin, run_named

begin(globals(), "scene", "seed", "steps", "hidden", "run", "runs_root", "pairs")
points, layout = point_sets.make_point_set(scene, seed), point_sets.LAYOUTS[scene]
display(Markdown(f"**{layout.title}**, {len(points.points)} points of {len(points.regions)} classes. {layout.summary}"))
figures.plane_pairs(points, {}, height=500)

# %% tags=["hide-input"] jupyter={"source_hidden": true}
import numpy as np
import torch

from pddm_lab import cards
from pddm_lab.model.similarity import PDDMSimilarity
from pddm_lab.teaching import plane
from pddm_lab.training.losses import double_header_hinge
from pddm_lab.training.miner import mine

config = point_sets.PlaneConfig(scene, seed=seed, steps=steps, hidden=hidden)

# %% [markdown]
# ## 2. Why one ruler fails
#
# To decide *same class* or *different class* from a distance you need a threshold: a radius $r$ around a point, within
# which you accept. Each row below is a class. Half of the pairs *within* the class are no longer than the blue bar, so
# $r$ should be at least that long. The hatched bar begins at the nearest point of *another* class, so $r$ should end
# before it.
#
# The two lines are radii that one might use for all classes. One suits the smallest class. The other lets 1 % of all
# negative pairs pass (pairs of two classes). The small radius accepts hardly any pair of the wide classes. The larger
# one accepts some of them, and reaches into the next class wherever classes are small.

# %%
distance = plane.measure_distance(points)
radius = -distance["known"].threshold
smallest = min(span.half for span in point_sets.spans(points))
figures.plane_rulers(points, {"r small": smallest, "r at 1 %": radius})

# %%
shares = ", ".join(f"{region} **{100 * share:.0f} %**" for region, share in distance["known"].tpr_by_region.items())
display(Markdown(f"With $r = {radius:.2f}$ 1 % of the negative pairs pass. D accepts of the positive pairs: {shares}."))

# %% [markdown]
# **Think.** Could we first stretch the plane, to twice its width or along one axis, and then use one ruler?
#
# <details><summary>Answer</summary>
#
# Stretching multiplies all distances by the same factor (or all distances along one axis). The dense part and the sparse
# part are stretched alike, so their ratio stays the same. This is what a *Mahalanobis* distance learns: a better ruler,
# but still one for all places. We need a ruler that is long in one place and short in another.
#
# </details>

# %% [markdown]
# ## 3. The unit, equation by equation
#
# A PDDM unit takes two features $a$ and $b$ (the paper's $f_i$ and $f_j$) and returns one number, the **score** $S$. A
# larger score means more similar. The unit is a small neural network of four linear layers (`PDDM` in `model/pddm.py`).
#
# Take three pairs. **A** and **B** have exactly the same difference in two places. **C** lies where A lies, but is a
# quarter as long. × marks the mean of each pair.

# %%
difference = point_sets.vector(layout.length, layout.angle)
here, there = point_sets.path(points)[0], point_sets.path(points)[-1]
names = "ABC"
ends = {
    "A": np.stack([here - difference / 2, here + difference / 2]),
    "B": np.stack([there - difference / 2, there + difference / 2]),
    "C": np.stack([here - difference / 8, here + difference / 8]),
}
figures.plane_pairs(points, ends, height=500)

# %% [markdown]
# Each equation below is computed with plain matrix products. The assertion in each cell compares the result with what the
# lab's own unit computes (`plane.inside` records the inputs of its layers). The unit is not trained yet: its weights are
# random.
#
# ### How do the two differ, and where do they lie?
#
# $$u = |a - b| \qquad\qquad v = \frac{a + b}{2}$$
#
# $u$ is the difference of the two ends along each axis. $v$ is their mean: *where* the pair lies. Neither changes if $a$
# and $b$ trade places, so $S(a, b) = S(b, a)$.

# %%
snapshots = list(plane.train_plane(points, config))
unit = snapshots[0].unit  # before the first step
a, b = (torch.tensor(np.stack([ends[name][end] for name in names]), dtype=torch.float32) for end in (0, 1))
code = plane.inside(unit, a, b)

u = (a - b).abs()
v = (a + b) / 2
assert torch.equal(u, code.u) and torch.equal(v, code.v)
for name, of_u, of_v in zip(names, u, v, strict=True):
    print(f"{name}:  u = ({of_u[0]:.2f}, {of_u[1]:.2f})   v = ({of_v[0]:5.2f}, {of_v[1]:5.2f})   D = {of_u.norm():.2f}")

# %% [markdown]
# A and B have the same $u$, and so the same $D$; they differ only in $v$. A and C have the same $v$.
#
# ### Features of the difference, features of the place
#
# $$u' = \mathrm{norm}(\mathrm{relu}(W_u u + b_u)) \qquad v' = \mathrm{norm}(\mathrm{relu}(W_v v + b_v))$$
#
# These are two layers, `difference` and `position`, with their own weights. $\mathrm{relu}(x) = \max(0, x)$ sets negative
# values to 0, as in a CNN. *norm* divides by the length, so neither the difference nor the place can dominate the other.


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
# The layer `joint` sees both at once, so one of its numbers can respond to "a small difference *and* on the left". The
# layer `score` is their weighted sum. There is no sigmoid: $S$ is a number that is meaningful only beside other $S$.

# %%
W_c, b_c = unit.joint.weight, unit.joint.bias
W_s, b_s = unit.score.weight, unit.score.bias
c = torch.relu(torch.cat([u_, v_], dim=-1) @ W_c.T + b_c)
S = (c @ W_s.T + b_s).squeeze(-1)
assert torch.allclose(c, code.joint, atol=1e-6) and torch.allclose(S, code.score, atol=1e-6)
assert torch.allclose(S, unit(b, a), atol=1e-6)  # a and b may trade places
print("S before training:", ", ".join(f"{name} {score:.3f}" for name, score in zip(names, S.tolist(), strict=True)))

# %% [markdown]
# That is all. The picture shows the same numbers: a row per pair, a column per number of the layer, darker is larger.
# Rows A and B are equal in $u'$, rows A and C in $v'$. In the last block orange adds to $S$ and blue subtracts.

# %%
figures.plane_unit(code, W_s[0].numpy(), names, title="Inside the unit before training")

# %% [markdown]
# **Think.** How many weights does a unit have for features of $d = 128$ numbers, if all layers are 128 wide? Does this
# depend on the number of classes?
#
# <details><summary>Answer</summary>
#
# $W_u$ and $W_v$ have $128 \cdot 128$ weights each, $W_c$ has $128 \cdot 256$, $W_s$ has 128, and the biases have
# $3 \cdot 128 + 1$: about 66 000. The number of classes does not matter, unlike in the last layer of a classifier.
#
# </details>

# %% [markdown]
# ## 4. Training the unit
#
# The unit learns from **hard quadruplets** (`mine` in `training/miner.py`). In a batch each point $i$ gets its *least*
# similar partner $j$ of the same class, and then the *most* similar points of other classes: $k$ for $i$ and $l$ for $j$.
# The loss asks that the positive pair wins at both ends by a margin $\alpha$ (`double_header_hinge` in
# `training/losses.py`):
#
# $$E_m = \max(0, \alpha + S_{ik} - S_{ij}) + \max(0, \alpha + S_{jl} - S_{ij})$$

# %%
batch = torch.tensor(np.flatnonzero(points.trains)[::7])
f, labels = torch.from_numpy(points.points)[batch], torch.from_numpy(points.labels)[batch]
similarity, alpha = PDDMSimilarity(unit), config.score_margin
quads = mine(f, labels, similarity, "anchor")
ij, ik, jl = (quads.i, quads.j), (quads.i, quads.k), (quads.j, quads.l)
s_ij, s_ik, s_jl = (similarity(f[one], f[other]) for one, other in (ij, ik, jl))
E_m = torch.relu(alpha + s_ik - s_ij) + torch.relu(alpha + s_jl - s_ij)
assert torch.allclose(E_m, double_header_hinge(s_ij, s_ik, s_jl, alpha))
trained = snapshots[-1]
print(f"E_m before training {E_m.mean():.2f}, after {trained.step} steps {trained.loss:.3f} (alpha {alpha})")

# %% [markdown]
# Here the points do not move, so the ruler is the only thing that learns. (In the lab the CNN learns as well.) The same
# three pairs after training:

# %%
after, threshold = plane.inside(trained.unit, a, b), trained.known.threshold
for name, score in zip(names, after.score.tolist(), strict=True):
    print(f"{name}: S = {score:.2f}, {'accepted' if score > threshold else 'rejected'}")
print(f"The threshold that lets 1 % of the negative pairs pass is {threshold:.2f}.")
figures.plane_unit(after, trained.unit.score.weight[0].numpy(), names, title="Inside the unit after training")

# %% [markdown]
# ## 5. Contours against circles
#
# Choose a point, the anchor, marked with a cross. Which points does $D$ accept? All within a circle, which has the same
# size everywhere. Which points does $S$ accept? All within the orange line. Both let 1 % of the negative pairs pass. Here
# are two anchors, one from each end of the point set.


# %%
def around(anchor, title):
    """What S and D accept around an anchor, as a picture and in numbers."""
    scores = plane.score(trained.unit, points.points[anchor], point_sets.mesh()[2])
    display(figures.plane_neighbourhood(points, anchor, scores, threshold, radius, title=title, height=500))
    to_points = plane.score(trained.unit, points.points[anchor], points.points)
    away = np.linalg.norm(points.points - points.points[anchor], axis=1)
    for name, values, least in (("S", to_points, threshold), ("D", -away, -radius)):
        n = plane.accepted(points, anchor, values, least)
        print(f"{name} accepts {n.own} of {n.own_total} points of its class and {n.others} of {n.others_total} others.")


known = points.held_out("known")
first = point_sets.first_anchor(points)
other = int(known[np.linalg.norm(points.points[known] - here, axis=1).argmin()])
for anchor in (first, other):
    around(anchor, f"An anchor in the region “{points.region_of(np.array([anchor]))[0]}”")

# %% [markdown]
# **Think.** A circle looks the same around every point. Can the orange line have any shape at all?
#
# <details><summary>Answer</summary>
#
# No. The unit sees $|a - b|$, which has no signs. A difference to the upper right and one to the upper left give the same
# $u$, so only the mean can tell them apart. The score is also symmetric: if $a$ accepts $b$, then $b$ accepts $a$.
#
# </details>
#
# ## 6. The same difference in other places
#
# Now keep the difference fixed and move the pair. The colour shows $S$ of this one difference, with its mean at each
# place. Within the orange line the pair is accepted. $D$ of a fixed difference is the same everywhere, so $D$ accepts it
# everywhere or nowhere.

# %%
everywhere = plane.score_at(trained.unit, point_sets.mesh()[2], difference)
figures.plane_everywhere(points, everywhere, threshold, pair=ends["A"], height=500)

# %%
along = plane.score_at(trained.unit, point_sets.path(points), difference)
length = float(np.linalg.norm(difference))
figures.plane_along(points, along, threshold, length, radius, 0.0, title="Along the dashed line")

# %% [markdown]
# ## 7. During training
#
# What $S$ accepts around the first anchor at four steps. Before training its scores are random. Where there is no orange
# line, it accepts nothing.

# %%
some = [snapshots[number] for number in np.linspace(0, len(snapshots) - 1, 4).round().astype(int)]
figures.plane_through(points, first, some, radius)

# %%
display(Markdown("Positive pairs accepted when 1 % of the negative pairs pass:"))
figures.plane_steps(snapshots, distance, len(snapshots) - 1)

# %% [markdown]
# ## 8. Known classes, and classes it has never seen
#
# There are always two questions. How good is $S$ on new points of trained classes (**known**), and on classes that were
# never trained (**unseen**)? **R@1** is the share of points whose most similar other point has their class. **ROC AUC** is
# the chance that a positive pair is more similar than a negative one. **TPR at 1 % FPR** is what section 7 plotted.

# %%
table = plane.table_of({"euclidean": distance, "pddm": {"known": trained.known, "unseen": trained.unseen}})
for protocol in ("known", "unseen"):
    display(Markdown(f"**{figures.PROTOCOL_TITLES[protocol]}**"))
    display(cards.metrics_table(table, protocol, metrics=("recall@1", "auc", "tpr@1%fpr")))

# %% [markdown]
# The unseen classes of this point set lie *among* trained classes, so what $S$ learned about a place helps them too. This
# is not always so.
#
# ## 9. Where S loses
#
# An honest comparison includes cases that are bad for $S$:
#
# * **One density**: all classes are alike. One ruler fits, and there is nothing to gain.
# * **Two islands**: a gap between dense and sparse. The loss compares only pairs that share an end, so nothing ties the
#   scores of one island to those of the other. Whether one threshold fits both is a matter of luck: see the three seeds.
# * **Diagonals**: stripes that rise on the left and fall on the right. $|a - b|$ is the same along and across a stripe, so
#   $S$ cannot tell the two directions apart. It gains only what the place alone can give.
# * **Two grains, without the upright stripes in training**: $S$ learned "near along the x axis" and is then tested where
#   classes stand upright, a place it has never seen.

# %%
make = point_sets.make_point_set
cases = [("One density", make("even", seed), seed)]
cases += [(f"Two islands, seed {n}", make("islands", n), n) for n in (seed, seed + 1, seed + 2)]
cases += [("Diagonals", make("diagonals", seed), seed)]
cases += [("Two grains, upright never trained", point_sets.without(make("grains", seed), "upright"), seed)]
lines = [
    "| | known: D | known: S | unseen: D | unseen: S | R@1 unseen: D | R@1 unseen: S |",
    "|---|---|---|---|---|---|---|",
]
for name, case, number in cases:
    *_, last = plane.train_plane(case, point_sets.PlaneConfig(case.name, seed=number, steps=steps, hidden=hidden))
    by_d, by_s = plane.measure_distance(case), {"known": last.known, "unseen": last.unseen}
    cells = [("known", "tpr@1%fpr"), ("unseen", "tpr@1%fpr"), ("unseen", "recall@1")]
    shown = [f"{100 * by[protocol].metrics[metric]:.0f}" for protocol, metric in cells for by in (by_d, by_s)]
    lines.append(f"| {name} | {' | '.join(shown)} |")
display(Markdown("Positive pairs accepted when 1 % of the negative pairs pass, and R@1, in %:\n\n" + "\n".join(lines)))

# %% [markdown]
# Look at the last row (with the notebook's own settings). On known classes $S$ is far ahead. On classes in a region that
# was never trained it is far behind, even in R@1. A local metric **memorises places**. Where it was trained, it can use a
# ruler that fits. Elsewhere its scores are extrapolation. The distance knows nothing about places, so it cannot be wrong
# about them. This is why the lab always measures known *and* unseen classes.
#
# **Think.** A shop's range changes with the season, so new products arrive all the time. Which one would you search with?
#
# <details><summary>Answer</summary>
#
# For products in the training data, $S$ may find more. For new products nothing guarantees that. You can combine both:
# let $D$ make a shortlist, and let $S$ re-rank it only if the query resembles something that was trained. The lab's README
# shows what was measured about this.
#
# </details>
#
# ## 10. The same question on a real run
#
# In a run the space has 128 dimensions, the network was trained as well, and the features decide where items are dense or
# sparse. The question is the same: does one threshold work equally well in dense and in sparse places?

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
        display(figures.by_density(results, share=0.01), cards.density_table(results))
else:
    display(Markdown("*No run is set. Train one with `pddm-lab train quick`, then set `run` to its name.*"))

# %% [markdown]
# With a run, the pairs are divided into thirds by density. The left panel shows the share of positive pairs that are
# accepted in each third, the right panel the share of negative pairs that pass. A flat line on the right means that the
# threshold fits everywhere. Hollow marks show what a separate threshold for each third would accept. Is PDDM's line
# flatter than Euclid's? On known classes only, or on unseen ones too? If the intervals overlap, this run cannot tell.
#
# ## Where to go from here
#
# * Set `scene="grains"`: no single ruler, however stretched, fits lying *and* upright stripes.
# * On the dashboard's page *Local vs global* you can click an anchor and drag the pair with the mouse: `pddm-lab dashboard`.
# * `hard_quadruplets.ipynb` shows what the miner picks, and `train.ipynb` trains on photos.
