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
# # Hard quadruplets: which examples the miner picks, and why
#
# A network learns to compare images from pairs: *these two belong together, those two don't*. A batch of 20 images has
# 190 pairs, and the network already gets most of them right, so they teach it nothing. A **miner** looks for the pairs
# that the network gets most wrong. In this notebook you follow a miner through one batch, picture by picture. You then
# see how the loss uses its picks, and what happens when pairs are hard only because somebody labelled them wrongly.
#
# The notebook trains a small model on handwritten digits that come with scikit-learn, so it needs no internet. Run the
# cells from top to bottom; together they take well under a minute. Questions are marked **Think**. Click *Answer* when
# you have thought about one. The cells that only prepare are collapsed.

# %% tags=["parameters"] jupyter={"source_hidden": true}
# fmt: off
dataset = "digits"  # str, Name of a data set, as pddm-lab data list shows it, or folder:PATH for your own PATH/<class>/<image>.
data_root = ""  # str, Folder with the data sets; empty: $PDDM_LAB_DATA, or ./data.
runs_root = ""  # str, Folder with the runs and the cached trunk features; empty: $PDDM_LAB_RUNS, or ./runs.
image_size = 0  # int, Side of the images that the trunk sees, in pixels; 0: 32 for digits, 128 otherwise.
steps = 300  # int, Steps of each training.
classes_per_batch = 5  # int, Classes in a batch (P).
images_per_class = 4  # int, Images of each class in a batch (K).
lr = 0.002  # float, Learning rate.
wrong = 0.05  # float, Share of training images that get a wrong label in section 9; between 0 and 1, both excluded.
seed = 0  # int, Seed of the weights, the batches and the wrong labels.
run = ""  # str, Name or path of a finished run whose mined quadruplets to show in section 10; empty: skip that section.
# fmt: on

# %% tags=["hide-input"] jupyter={"source_hidden": true}
from pddm_lab import cards
from pddm_lab.config import data_root as data_folder
from pddm_lab.data.dataset import read_dataset
from pddm_lab.teaching.small_training import pictures
from pddm_lab.training.notebook import begin, run_named

begin(globals(), "dataset", "data_root", "runs_root", "image_size", "steps", "classes_per_batch", "images_per_class", "lr", "wrong", "seed", "run")  # fmt: skip
data = read_dataset(dataset, data_folder(data_root))
one_of_each = {data.class_names[label]: data.ids[item] for item, label in enumerate(data.labels)}
tiles = [(item, name) for name, item in list(one_of_each.items())[:10]]
cards.image_grid(tiles, pictures(data, (item for item, _ in tiles)), small=True)

# %% tags=["hide-input"] jupyter={"source_hidden": true}
import dataclasses
import time

import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown, display

from pddm_lab import figures
from pddm_lab.analysis import hardness
from pddm_lab.applications.feature_spaces import pooled_features
from pddm_lab.config import PRESETS
from pddm_lab.model.similarity import Euclidean
from pddm_lab.runs.log import coded_table
from pddm_lab.runs.quadruplets import Mined
from pddm_lab.teaching.small_training import PHASE, SmallTraining, ids_in, share_with, with_wrong_labels
from pddm_lab.training.losses import double_header_hinge, embedding_hinge
from pddm_lab.training.miner import mine

side = image_size or (32 if dataset == "digits" else 128)
config = dataclasses.replace(
    PRESETS["joint"], dataset=dataset, data_root=data_root, runs_root=runs_root, image_size=side, resize=side,
    seed=seed, classes_per_batch=classes_per_batch, images_per_class=images_per_class, lr=lr, workers=0,
)  # fmt: skip

# %% [markdown]
# ## 1. A batch
#
# The *trunk*, a CNN trained on photos, turns each image into some hundreds of numbers. It does not change here. What
# learns is a linear layer on top of it, which produces the **feature** $f$ (128 numbers, length 1), and the **PDDM
# unit**, which scores two features: $S(i, j)$, where larger means more similar (`model/pddm.py`;
# `local_vs_global.ipynb` builds it step by step).
#
# A batch holds $P$ classes with $K$ images each (`ClassBatches` in `data/sampler.py`), so it contains both kinds of
# pairs. The model is half way through its training, and this is its next batch.

# %%
training = SmallTraining(data, pooled_features(config, [data.path(item) for item in range(len(data))]), config)
untrained = [round(100 * training.metrics(by)["map@r"], 1) for by in ("euclidean", "pddm")]
half = max(1, steps // 2)
training.train(half)

items = training.batch(half + 1)
ids = [data.ids[item] for item in items]
labels = torch.from_numpy(data.labels[items])
names = [data.class_names[label] for label in labels]
images = pictures(data, ids)
faces = [images[item] for item in ids]
cards.image_grid(zip(ids, names, strict=True), images, small=True)

# %% [markdown]
# ## 2. All similarities of the batch
#
# Each row and each column is an image, and a cell shows their $S$. Framed squares on the diagonal hold the pairs of one
# class, the **positive pairs**. All other cells are **negative pairs**. With a perfect similarity the framed squares are
# dark and everything else is light. Light cells inside a frame and dark cells outside are mistakes.

# %%
S = training.model.similarity("pddm")
f = training.features(items)
scores = S.matrix(f, f)
assert torch.allclose(scores, scores.T, atol=1e-5)  # S(i, j) = S(j, i)
figures.batch_matrix(scores.numpy(), names, faces, "pddm", title="S of all pairs of the batch")

# %% [markdown]
# ## 3. The hardest positive pair
#
# $$(i^*, j^*) = \arg\min_{(i, j) \text{ of one class}} S(i, j)$$
#
# The pair of one class with the *lowest* score. In plain torch: hide all other cells and take the minimum.

# %%
same = labels[:, None] == labels
pair_cells = same & torch.ones_like(same).triu(1)  # each positive pair once
i, j = divmod(int(scores.masked_fill(~pair_cells, torch.inf).argmin()), len(items))
left, right = pair_cells.nonzero(as_tuple=True)
order = scores[left, right].argsort()
some = torch.cat([order[:5], order[-3:]]) if len(order) > 8 else order
shown = [(ids[a], ids[b], names[a], True, float(scores[a, b])) for a, b in zip(left[some], right[some], strict=True)]
pairs = pd.DataFrame(shown, columns=["item_a", "item_b", "class_a", "positive", "pddm"])
print(f"i = {ids[i]}, j = {ids[j]}: S = {scores[i, j]:.2f} is the lowest of {len(order)} positive pairs.")
print("The five hardest pairs and the three easiest:")
cards.pair_grid(pairs.assign(class_b=pairs["class_a"]), images, ["pddm"], chosen=[ids[i], ids[j]])

# %% [markdown]
# ## 4. Their hard negatives
#
# $$k^* = \arg\max_{k \text{ of another class}} S(i^*, k) \qquad l^* = \arg\max_{l \text{ of another class}} S(j^*, l)$$
#
# For each end of that pair, the miner takes the image of another class with the *highest* score. It needs only two rows
# of the matrix. Here they are, sorted.

# %%
k, l = (int(scores[end].masked_fill(same[end], -torch.inf).argmax()) for end in (i, j))
for end, letter in ((i, "i"), (j, "j")):
    ranked = [n for n in map(int, scores[end].argsort(descending=True)) if not same[end, n]][:8]
    table = pd.DataFrame({
        "id": [ids[n] for n in ranked], "class_name": [names[n] for n in ranked],
        "rank": range(1, len(ranked) + 1), "value": scores[end, ranked].numpy(),
    })  # fmt: skip
    display(Markdown(f"Negatives of ${letter}$, the {names[end]} `{ids[end]}`. Its pair has $S = {scores[i, j]:.2f}$."))
    display(cards.retrieval_grid(table, images, "pddm"))

# %%
quads = mine(f, labels, S, "batch")
# The lab's miner picks the same four images:
assert (int(quads.i), int(quads.j), int(quads.k), int(quads.l)) in ((i, j, k, l), (j, i, l, k))
marks = {"hardest positive i–j": [(i, j)], "hard negatives i–k, j–l": [(i, k), (j, l)]}
figures.batch_matrix(scores.numpy(), names, faces, "pddm", marks=marks, title="The quadruplet of the batch")

# %% [markdown]
# **Think.** How many scores did the miner need? How many pairs does a batch of $m$ images have? What if $m$ is 1000?
#
# <details><summary>Answer</summary>
#
# It needs the positive pairs, $P \cdot K (K - 1) / 2$ (30 for 5 classes of 4), and two rows of negatives, $2 (m - K)$
# (32). A batch has $m (m - 1) / 2$ pairs (190). With $K$ fixed, the first grows like $m$ and the second like $m^2$: for
# $m = 1000$ and $K = 4$ it is 3492 against 499 500. This is why the paper mines this way.
#
# </details>
#
# ## 5. `batch` against `anchor`
#
# With `mining="batch"`, the paper's way, a batch yields only that one quadruplet. With `mining="anchor"` *every* image
# yields one: the image is $i$, its own least similar positive is $j$, and $k$ and $l$ are chosen as before. Circles mark
# each row's hardest positive, crosses its hardest negative.


# %%
def marks_of(quads):
    """Cells of the matrix to mark: each row's hardest positive and hardest negative."""
    ends = {"hardest positive of each row": quads.j, "hardest negative of each row": quads.k}
    return {name: list(zip(quads.i.tolist(), end.tolist(), strict=True)) for name, end in ends.items()}


quads = mine(f, labels, S, "anchor")
for n in range(len(items)):  # check with a slow loop
    row, others = quads.i.tolist().index(n), [m for m in range(len(items)) if m != n]
    assert quads.j[row] == min((m for m in others if same[n, m]), key=lambda m: scores[n, m])
    assert quads.k[row] == max((m for m in others if not same[n, m]), key=lambda m: scores[n, m])
title = f"{len(quads)} quadruplets with anchor mining"
figures.batch_matrix(scores.numpy(), names, faces, "pddm", marks=marks_of(quads), title=title)

# %% [markdown]
# The three quadruplets that violate the margin most: $i$ and $j$ above, and below each its hard negative. The edges show
# $S$ and $D$, the Euclidean distance of the features.

# %%
step = training.look(items)
mined = Mined.of(coded_table([{"phase": PHASE, "step": half + 1, **training.columns(items, step)}]))
cards.quadruplet_grid(mined.most_violated(mined.pick(PHASE), 3), images)

# %% [markdown]
# ## 6. What would the Euclidean distance pick?
#
# Any similarity can mine. The small pictures on the cards above are the picks of the Euclidean distance from the same
# batch. The paper argues that a global distance picks the wrong ones: the distances within a wide class are large
# without being hard, and in dense regions hard pairs have small distances that are easy to miss. The same batch by $-D$:

# %%
D = -Euclidean().matrix(f, f)
by_distance = mine(f, labels, Euclidean(), "anchor")
display(figures.batch_matrix(-D.numpy(), names, faces, "euclidean", marks=marks_of(by_distance), title="By D"))
agree = {end: float((getattr(quads, end) == getattr(by_distance, end)).float().mean()) for end in "jk"}
print(f"Same hardest positive: {100 * agree['j']:.0f} % of the images; negative: {100 * agree['k']:.0f} %.")

# %% [markdown]
# ## 7. How the loss uses them
#
# The loss (`training/losses.py`) asks that the positive pair beats each negative pair by a margin $\alpha$
# (`score_margin`). The value inside the maximum is the **slack**. If it is above 0, the hinge is violated, and only then
# does the network learn from it:
#
# $$\underbrace{\alpha + S_{ik} - S_{ij}}_{\text{slack}_{ik}} \qquad
# E_m = \max(0, \text{slack}_{ik}) + \max(0, \text{slack}_{jl})$$
# $$E_e = \max(0, \beta + D_{ij} - D_{ik}) + \max(0, \beta + D_{ij} - D_{jl}) \qquad E = E_m + \lambda E_e$$
#
# $E_e$ asks the same of the distances (with `distance_margin` as $\beta$), so that the features learn as well. For this
# batch:

# %%
s_ij, s_ik, s_jl = scores[quads.i, quads.j], scores[quads.i, quads.k], scores[quads.j, quads.l]
d_ij, d_ik, d_jl = D[quads.i, quads.j], D[quads.i, quads.k], D[quads.j, quads.l]
alpha, beta, weight = config.score_margin, config.distance_margin, config.embedding_weight
slack_ik, slack_jl = alpha + s_ik - s_ij, alpha + s_jl - s_ij
E_m = slack_ik.clamp(min=0) + slack_jl.clamp(min=0)
E_e = (beta + d_ij - d_ik).clamp(min=0) + (beta + d_ij - d_jl).clamp(min=0)
E = E_m.mean() + weight * E_e.mean()
assert torch.allclose(E_m, double_header_hinge(s_ij, s_ik, s_jl, alpha))
assert torch.allclose(E_e, embedding_hinge(d_ij, d_ik, d_jl, beta))
assert torch.isclose(E_m.mean(), step.terms["E_m"], atol=1e-3)
assert torch.isclose(E_e.mean(), step.terms["E_e"], atol=1e-3)
violated = float(((slack_ik > 0) | (slack_jl > 0)).float().mean())
print(f"E_m = {E_m.mean():.3f}, E_e = {E_e.mean():.3f}, E = {E:.3f}; {100 * violated:.0f} % violate a hinge.")

# %% [markdown]
# Now the model trains on. As it improves, the hardest pairs of a batch become easier, but the miner still picks the worst
# that are left. This is why the loss of mined quadruplets falls slowly and need not reach 0.

# %%
start = time.perf_counter()
training.train(steps - half)
anchor_ms = 1e3 * (time.perf_counter() - start) / max(steps - half, 1)
mined = training.mined()
table = hardness.through_training(mined, mined.pick(PHASE), points=40)
for what, heading in {
    "violated": "Quadruplets that violate a hinge:",
    "slack": "Slack, median and the middle 80 %; above 0 the hinge is violated:",
    "same": "How often Euclidean mining picks the same image:",
}.items():
    display(Markdown(heading), figures.hardness(table, what, height=300))

# %% [markdown]
# In the first steps the slack stays at $\alpha$. The unit still gives all pairs about the same score, so each hinge is
# violated by $\alpha$, and $E_m = 2 \alpha$. The unit leaves this plateau only when a difference in $S$ is right for
# *most* of the hard quadruplets. Then the slacks spread out.
#
# ## 8. Is it worth mining a quadruplet for every anchor?
#
# The same model, batches and steps, once with each kind of mining. **MAP@R** is measured on new images of the training
# classes: for an image with $R$ right images in the gallery, it counts how many of the first $R$ results are right, and
# early ones count more.


# %%
def map_at_r(model):
    """MAP@R of a model by D and by S, in %."""
    return [round(100 * model.metrics(by)["map@r"], 1) for by in ("euclidean", "pddm")]


one = SmallTraining(data, training.pooled, dataclasses.replace(config, mining="batch"))
start = time.perf_counter()
one.train(steps)
batch_ms = 1e3 * (time.perf_counter() - start) / steps
table = pd.DataFrame({
    "before training": [*untrained, "–", 0],
    "batch: one per step": [*map_at_r(one), round(batch_ms), steps],
    "anchor: one per image": [*map_at_r(training), round(anchor_ms), steps * len(items)],
}).transpose()  # fmt: skip
table.set_axis(["MAP@R by D, %", "MAP@R by S, %", "ms per step", "quadruplets, at most"], axis="columns")

# %% [markdown]
# **Think.** The hardest pair of a batch has the most to teach. Why is learning from it alone so slow?
#
# <details><summary>Answer</summary>
#
# It is one example per step instead of twenty, so the gradient is noisy: each step corrects one odd pair, whatever that
# does to the others. And the hardest pairs are often *too* hard: an illegible digit, or a wrong label (section 9).
#
# </details>
#
# ## 9. Too hard: wrong labels
#
# Suppose somebody labelled in a hurry, and a share of the training images (`wrong`) has the label of a random other
# class. With its wrong label an image is a *very* hard positive for its supposed classmates and a very hard negative for
# its real ones. A miner looks for hard pairs, so it picks wrong labels more often than chance.

# %%
bad_labels, is_wrong = with_wrong_labels(data.labels, data.train, wrong, seed)
bad_ids = [data.ids[item] for item in np.flatnonzero(is_wrong)]
misled = {}
for mining in ("anchor", "batch"):
    misled[mining] = SmallTraining(data, training.pooled, dataclasses.replace(config, mining=mining), bad_labels)
    misled[mining].train(steps)
bad = misled["anchor"].mined()
chance = 1 - (1 - wrong) ** 4
display(Markdown(
    f"{len(bad_ids)} of {len(data.train)} training images have a wrong label ({100 * wrong:.0f} %). Of four random images "
    f"at least one is wrong {100 * chance:.0f} % of the time. A wrong image is part of **{100 * share_with(bad, bad_ids):.0f} %** "
    f"of the mined quadruplets and of **{100 * share_with(bad, bad_ids, 0.1):.0f} %** of the hardest tenth."
))  # fmt: skip
worst = bad.most_violated(bad.pick(PHASE, steps=(half, steps)), 3)
display(Markdown("The most violated quadruplets of the second half; compare the given labels with the pictures:"))
cards.quadruplet_grid(worst, pictures(data, ids_in(worst)))

# %% [markdown]
# What do the wrong labels cost? The gallery and the queries keep their right labels. The last column is the standard
# deviation of the scores in the batch.

# %%
trained = {
    "anchor, right labels": training, f"anchor, {100 * wrong:.0f} % wrong": misled["anchor"],
    "batch, right labels": one, f"batch, {100 * wrong:.0f} % wrong": misled["batch"],
}  # fmt: skip
rows = {}
for name, model in trained.items():
    g = model.features(items)
    rows[name] = [*map_at_r(model), f"{model.model.similarity('pddm').matrix(g, g).std():.3f}"]
pd.DataFrame(rows, index=["MAP@R by D, %", "MAP@R by S, %", "spread of S"]).transpose()

# %% [markdown]
# With the notebook's own settings the score suffers most. Spreading the scores lowers the loss only if most of the
# *hardest* pairs improve. If too many are wrong, any spread raises the loss, and the unit stays on the plateau where all
# pairs score alike: see the last column. The features still learn through $E_e$. (`batch` stays there for a similar reason.)
#
# This weakness is also useful. For its supposed classmates a wrongly labelled image is often the least similar one,
# while an image of another class is closer. `hardness.suspects` counts how often. Its score is the lower end of an
# interval, so little evidence gives a low score. The first suspects, with the class of their label and the one nearer:

# %%
suspects = hardness.suspects(bad, bad.pick(PHASE))
listed = suspects.head(len(bad_ids))
if len(listed):
    share = 100 * listed["id"].isin(bad_ids).mean()
    print(f"{share:.0f} % of the first {len(listed)} suspects have a wrong label; by chance {100 * wrong:.0f} %.")
    first = suspects.head(6)
    typical = hardness.examples(bad, bad.pick(PHASE), {*first["class_name"], *first["named"]})
    needed = {*first["id"], *(item for some in typical.values() for item in some)}
    display(cards.suspect_grid(first, pictures(data, needed), typical))
else:
    print(f"In {steps} steps no image met enough classmates to be a suspect.")

# %% [markdown]
# **Think.** Would you leave out the hardest pairs to be safe?
#
# <details><summary>Answer</summary>
#
# *Semi-hard* mining does that: it takes negatives that are farther away than the positive, but within the margin. It is
# more stable, but it misses the pairs that could teach most. This lab mines one quadruplet per anchor, averages over
# all of them, and lets you check the suspects by eye.
#
# </details>
#
# ## 10. The quadruplets of a real run
#
# Each training logs its quadruplets. Set `run` to see the hardest ones, and the classes that it confuses.

# %%
if run:
    opened = run_named(run, runs_root)
    log = Mined.of(opened.mined())
    of_run = log.pick(log.phases[0])
    title = f"{opened.name}: quadruplets that violate a hinge"
    display(figures.hardness(hardness.through_training(log, of_run), title=title))
    its_data = read_dataset(opened.config.dataset, data_folder(opened.config.data_root))
    worst = log.most_violated(of_run, 6)
    display(cards.quadruplet_grid(worst, pictures(its_data, ids_in(worst)), similarity=opened.config.similarity))
    mixed = hardness.mutual(hardness.confusions(log, of_run)).head(5)
    examples = hardness.mixed_up(log, of_run, list(zip(mixed["a"], mixed["b"], strict=True)))
    needed = {item for pair in examples.values() for some in pair for item in some}
    display(cards.confusion_bars(mixed, pictures(its_data, needed), examples))
else:
    display(Markdown("*No run is set. Train one with `pddm-lab train quick`, then set `run` to its name.*"))

# %% [markdown]
# ## Where to go from here
#
# * Use `dataset="emoji"`, or `folder:PATH`; more classes in a batch, `classes_per_batch=10`, give harder negatives.
# * On the dashboard's page *Quadruplets* you can filter a run's quadruplets by class, step and item: `pddm-lab dashboard`.
