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
# # Hard quadruplets: what the miner picks, and why
#
# A network learns to compare by being shown pairs: *these two belong together, those two don't*. A batch of 20 images has
# 190 pairs, and most teach nothing: the network is right about them already. So a **miner** looks for the pairs that it
# gets most wrong. This notebook follows a miner through one batch, picture by picture; shows what the loss makes of its
# picks; and what happens when the hardest pairs are hard because somebody labelled them wrongly.
#
# It trains a small model itself, on handwritten digits that come with scikit-learn, and needs no network. Run the cells
# from top to bottom; all of it takes well under a minute. Questions are marked **Think**; click *Answer* after you have
# thought.

# %% tags=["parameters"]
# fmt: off
dataset = "digits"  # str, emoji, grocery, cub200, cars196, products, digits, or folder:PATH for any root/<class>/<image>.
data_root = ""  # str, Folder that holds the data sets; empty: $PDDM_LAB_DATA, else ./data.
runs_root = ""  # str, Folder that holds the runs and the trunk's features; empty: $PDDM_LAB_RUNS, else ./runs.
image_size = 0  # int, Side of the images that the trunk sees, in pixels; 0: 32 for digits, else 128.
steps = 300  # int, Steps of each training.
classes_per_batch = 5  # int, Classes in a batch (P).
images_per_class = 4  # int, Images of each class in a batch (K).
lr = 0.002  # float, Learning rate.
wrong = 0.05  # float, Share of the training images that get a wrong label in the last part; above 0, below 1.
seed = 0  # int, Seed of the weights, the batches and the wrong labels.
run = ""  # str, A finished run whose logged quadruplets to open as well, by name or path; empty: none.
# fmt: on

# %%
from pddm_lab.training.notebook import begin, run_named

begin(
    globals(), "dataset", "data_root", "runs_root", "image_size", "steps", "classes_per_batch", "images_per_class",
    "lr", "wrong", "seed", "run",
)  # fmt: skip

import dataclasses
import time

import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown, display

from pddm_lab import cards, figures
from pddm_lab.analysis import hardness
from pddm_lab.applications.feature_spaces import pooled_features
from pddm_lab.config import TrainConfig
from pddm_lab.config import data_root as data_folder
from pddm_lab.data.dataset import read_dataset
from pddm_lab.model.similarity import Euclidean
from pddm_lab.runs.quadruplets import Mined
from pddm_lab.teaching.small_training import PHASE, SmallTraining, ids_in, pictures, share_with, with_wrong_labels
from pddm_lab.training.losses import double_header_hinge, embedding_hinge
from pddm_lab.training.miner import mine

side = image_size or (32 if dataset == "digits" else 128)
config = TrainConfig(
    dataset=dataset, data_root=data_root, runs_root=runs_root, image_size=side, resize=side, seed=seed,
    classes_per_batch=classes_per_batch, images_per_class=images_per_class, lr=lr, workers=0,
)  # fmt: skip
data = read_dataset(dataset, data_folder(data_root))

# %% [markdown]
# ## 1. A batch
#
# A CNN that was trained on photos, the *trunk*, turns each image into some hundreds of numbers. It stays as it is; what
# learns is a linear layer on top that makes the **feature** $f$ (128 numbers, length 1), and the **PDDM unit** that
# scores two features: $S(i, j)$, larger means more similar (`pddm.py`; `local_vs_global.ipynb` builds it up).
#
# A batch holds $P$ classes with $K$ images each (`ClassBatches` in `sampler.py`), so that there are pairs of both kinds
# in it. The model is half way through its training; this is the batch that comes next.

# %%
training = SmallTraining(data, pooled_features(config, [data.path(item) for item in range(len(data))]), config)
before = {name: training.metrics(name) for name in ("euclidean", "pddm")}
warm_up = max(1, steps // 2)
training.train(warm_up)

items = training.batch(warm_up + 1)
ids = [data.ids[item] for item in items]
labels = torch.from_numpy(data.labels[items])
names = [data.class_names[label] for label in labels]
images = pictures(data, ids)
faces = [images[item] for item in ids]
cards.image_grid(zip(ids, names, strict=True), images, small=True)

# %% [markdown]
# ## 2. All its similarities
#
# Each row and each column is an image; the cell is $S$ of the two. Framed squares on the diagonal hold the pairs of one
# class, the **positive pairs**; all other cells are **negative pairs**. A perfect similarity would paint the framed
# squares dark and all else light. Look for light cells inside a frame and dark cells outside: those are mistakes.

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
# Of all pairs of one class, the one that the unit finds *least* similar. In plain torch: hide everything else, and take
# the minimum. Below are the positive pairs from the hardest to the easiest.

# %%
same = labels[:, None] == labels
upper = torch.ones_like(same).triu(1)  # each pair once
hidden = scores.masked_fill(~(same & upper), torch.inf)
i, j = (int(end) for end in divmod(int(hidden.argmin()), len(items)))


def pair_frame(left, right):
    """Pairs of the batch as the cards take them."""
    return pd.DataFrame({
        "item_a": [ids[n] for n in left], "item_b": [ids[n] for n in right],
        "class_a": [names[n] for n in left], "class_b": [names[n] for n in right],
        "positive": [bool(same[a, b]) for a, b in zip(left, right, strict=True)],
        "pddm": scores[left, right].numpy(),
    })  # fmt: skip


rows, columns = (same & upper).nonzero(as_tuple=True)
order = scores[rows, columns].argsort()
shown = torch.cat([order[:5], order[-3:]]) if len(order) > 8 else order
display(
    Markdown(
        f"$i$ = `{ids[i]}`, $j$ = `{ids[j]}`: $S = {scores[i, j]:.2f}$ is the lowest of {len(order)} positive pairs. "
        "Here are the five hardest and the three easiest:"
    )
)
cards.pair_grid(pair_frame(rows[shown], columns[shown]), images, ["pddm"], chosen=[ids[i], ids[j]])

# %% [markdown]
# ## 4. Their hard negatives
#
# $$k^* = \arg\max_{k \text{ of another class}} S(i^*, k) \qquad l^* = \arg\max_{l \text{ of another class}} S(j^*, l)$$
#
# For each end of that pair, the image of another class that looks *most* like it. Only two rows of the matrix are needed.
# Here they are, in order.

# %%
k, l = (int(scores[end].masked_fill(same[end], -torch.inf).argmax()) for end in (i, j))
for end, letter in ((i, "i"), (j, "j")):
    ranked = [n for n in map(int, scores[end].argsort(descending=True)) if not same[end, n]][:8]
    table = pd.DataFrame({
        "id": [ids[n] for n in ranked], "class_name": [names[n] for n in ranked],
        "rank": range(1, len(ranked) + 1), "value": scores[end, ranked].numpy(),
    })  # fmt: skip
    display(
        Markdown(
            f"Negatives of ${letter}$, the {names[end]} `{ids[end]}`; its $S$ with its partner is {scores[i, j]:.2f}:"
        )
    )
    display(cards.retrieval_grid(table, images, "pddm"))

# %%
quads = mine(f, labels, S, "batch")
found = (int(quads.i), int(quads.j), int(quads.k), int(quads.l))
assert found in ((i, j, k, l), (j, i, l, k))  # the lab's miner finds the same four
pairs = {"hardest positive i–j": [(i, j)], "hard negatives i–k, j–l": [(i, k), (j, l)]}
figures.batch_matrix(scores.numpy(), names, faces, "pddm", marks=pairs, title="The quadruplet of the batch")

# %% [markdown]
# **Think.** How many scores did the miner need for that? How many are there in a batch of $m$ images? What if $m$ is 1000?
#
# <details><summary>Answer</summary>
#
# The positive pairs, $P \cdot K (K - 1) / 2$ (30 for 5 classes of 4), and two rows of negatives, $2 (m - K)$ (32). All
# pairs are $m (m - 1) / 2$ (190). With $K$ fixed, the first grows like $m$ and the second like $m^2$: with $m = 1000$ and
# $K = 4$, 3492 against 499 500. That is why the paper mines this way.
#
# </details>
#
# ## 5. `batch` against `anchor`
#
# That one quadruplet is all that `mining="batch"`, the paper's way, takes from a batch. `mining="anchor"` takes one for
# *every* image: it is $i$ once, $j$ is its own least similar positive, and $k$, $l$ as before. Circles mark each row's
# hardest positive, crosses its hardest negative.

# %%
quads = mine(f, labels, S, "anchor")
for n in range(len(items)):  # the same by a slow loop
    partners = [m for m in range(len(items)) if same[n, m] and m != n]
    others = [m for m in range(len(items)) if not same[n, m]]
    at = quads.i.tolist().index(n)
    assert quads.j[at] == min(partners, key=lambda m: scores[n, m])
    assert quads.k[at] == max(others, key=lambda m: scores[n, m])
marks = {
    "hardest positive of each row": list(zip(quads.i.tolist(), quads.j.tolist(), strict=True)),
    "hardest negative of each row": list(zip(quads.i.tolist(), quads.k.tolist(), strict=True)),
}
figures.batch_matrix(scores.numpy(), names, faces, "pddm", marks=marks, title=f"{len(quads)} quadruplets by anchor")

# %% [markdown]
# The three most violated of them as cards: $i$ and $j$ above, below each its hard negative. $S$ and $D$ (the Euclidean
# distance of the features) stand on the edges.

# %%
look = training.look(items)
cut = pd.DataFrame({"phase": PHASE, "step": warm_up + 1, **training.columns(items, look)})
cut["violation"] = cut[["slack_ik", "slack_jl"]].max(axis="columns")
hardest = cut.sort_values("violation", ascending=False)
hardest = hardest[~hardest[["i", "j"]].apply(frozenset, axis="columns").duplicated()].head(3)
cards.quadruplet_grid(hardest, images)

# %% [markdown]
# ## 6. What would Euclid have picked?
#
# Any similarity can mine. The cards above show in small what mining by Euclidean distance takes from the same batch. The
# paper's argument is that a global distance picks the wrong ones: where a class is wide, its distances are large without
# being hard, and where classes are dense, small distances are easily overlooked. Here is the same batch by $-D$:

# %%
D = -Euclidean().matrix(f, f)
by_distance = mine(f, labels, Euclidean(), "anchor")
marks = {
    "hardest positive of each row": list(zip(by_distance.i.tolist(), by_distance.j.tolist(), strict=True)),
    "hardest negative of each row": list(zip(by_distance.i.tolist(), by_distance.k.tolist(), strict=True)),
}
display(figures.batch_matrix(-D.numpy(), names, faces, "euclidean", marks=marks, title="The same batch by distance"))
agree = {end: float((getattr(quads, end) == getattr(by_distance, end)).float().mean()) for end in "jk"}
print(
    f"Both take the same hardest positive for {100 * agree['j']:.0f} % of the images, the same hardest negative for {100 * agree['k']:.0f} %."
)

# %% [markdown]
# ## 7. What the loss makes of them
#
# The loss (`losses.py`) asks that the positive pair beats each negative one by a margin $\alpha$ (`score_margin`). What
# stands inside is the **slack**; above 0 the hinge is violated, and only then does it push:
#
# $$\underbrace{\alpha + S_{ik} - S_{ij}}_{\text{slack}_{ik}} \qquad
# E_m = \max(0, \text{slack}_{ik}) + \max(0, \text{slack}_{jl})$$
# $$E_e = \max(0, \beta + D_{ij} - D_{ik}) + \max(0, \beta + D_{ij} - D_{jl}) \qquad E = E_m + \lambda E_e$$
#
# $E_e$ asks the same of the distances (`distance_margin` $\beta$), so that the features learn along. Here for the batch:

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
assert torch.isclose(E_m.mean(), look.terms["E_m"], atol=1e-3) and torch.isclose(
    E_e.mean(), look.terms["E_e"], atol=1e-3
)
violated = float(((slack_ik > 0) | (slack_jl > 0)).float().mean())
print(
    f"E_m = {E_m.mean():.3f}, E_e = {E_e.mean():.3f}, E = {E:.3f}; {100 * violated:.0f} % of the quadruplets violate a hinge"
)

# %% [markdown]
# Now let the model train on. As it gets better, the *hardest* of a batch get easier, but the miner always hands over what
# is still worst: that is why a loss of mined quadruplets falls slowly, and why it needn't reach 0.

# %%
start = time.perf_counter()
training.train(steps - warm_up)
seconds = time.perf_counter() - start
mined = training.mined()
table = hardness.through_training(mined, mined.pick(PHASE), points=40)
for what, told in {
    "violated": "Quadruplets that violate a hinge:",
    "slack": "Slack, median and the middle 80 %; above 0 the hinge is violated:",
    "same": "How often Euclidean mining takes the same image:",
}.items():
    display(Markdown(told))
    display(figures.hardness(table, what, height=300))

# %% [markdown]
# For the first steps nothing seems to happen: the slack stays at $\alpha$. The unit still gives all pairs about the same
# score, so that every hinge is violated by $\alpha$ and $E_m = 2 \alpha$. It can only leave this plateau once a difference
# in $S$ is right for *most* of the hard quadruplets; then the slack opens like a fan.
#
# ## 8. Does it pay to take one from every anchor?
#
# The same model, batches and steps, once with each way of mining. **MAP@R** on new images of the training classes: for an
# image with $R$ right ones in the gallery, how many of the first $R$ results are right, early ones counting more.

# %%
one = SmallTraining(data, training.pooled, dataclasses.replace(config, mining="batch"))
start = time.perf_counter()
one.train(steps)
one_seconds = time.perf_counter() - start
results = [
    ("before training", before, "–", 0),
    ("`batch`: one quadruplet a step", {name: one.metrics(name) for name in before}, f"{1e3 * one_seconds / steps:.0f}", steps),
    ("`anchor`: one for every image", {name: training.metrics(name) for name in before},
     f"{1e3 * seconds / max(steps - warm_up, 1):.0f}", steps * len(items)),
]  # fmt: skip


def results_table(rows, heads):
    """A table in Markdown: a name, MAP@R by D and by S, and more."""
    heads = ["", "MAP@R by D, %", "MAP@R by S, %", *heads]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name, metrics, *more in rows:
        values = [f"{100 * metrics[by]['map@r']:.1f}" for by in ("euclidean", "pddm")]
        lines.append(f"| {' | '.join([name, *values, *map(str, more)])} |")
    return Markdown("\n".join(lines))


results_table(results, ["ms a step", "quadruplets learned from, at most"])

# %% [markdown]
# **Think.** The hardest pair of a batch is the one with the most to teach. Why does learning from it alone go so slowly?
#
# <details><summary>Answer</summary>
#
# It is one example a step instead of twenty, so the gradient is noisy: each step puts right one odd pair, whatever that
# does to the others. And the very hardest pairs are often *too* hard: an unreadable scrawl, or a wrong label. That is the
# next part.
#
# </details>
#
# ## 9. Too hard: wrong labels
#
# Suppose somebody labelled in a hurry: a share of the training images (`wrong`) get the label of another class, at random.
# A wrong label makes an image a *very* hard positive for its supposed classmates, and a very hard negative for its real
# ones. So the miner, which looks for hard pairs, finds wrong labels more often than chance would.

# %%
bad_labels, is_wrong = with_wrong_labels(data.labels, data.train, wrong, seed)
bad_ids = [data.ids[item] for item in np.flatnonzero(is_wrong)]
spoiled = {}
for mining in ("anchor", "batch"):
    spoiled[mining] = SmallTraining(data, training.pooled, dataclasses.replace(config, mining=mining), bad_labels)
    spoiled[mining].train(steps)
bad = spoiled["anchor"].mined()
chance = 1 - (1 - wrong) ** 4
text = (
    f"{len(bad_ids)} of {len(data.train)} training images are labelled wrongly ({100 * wrong:.0f} %). Of four images "
    f"drawn at random, at least one would be wrong {100 * chance:.0f} % of the time. Of the mined quadruplets "
    f"**{100 * share_with(bad, bad_ids):.0f} %** hold one, and of the hardest tenth **{100 * share_with(bad, bad_ids, 0.1):.0f} %**."
)
display(Markdown(text))
late = bad.ordered(bad.pick(PHASE, steps=(max(1, steps // 2), steps)), "violation")
worst = bad.frame(late[:400])
worst = worst[~worst[["i", "j"]].apply(frozenset, axis="columns").duplicated()].head(3)
display(
    Markdown(
        "The most violated quadruplets of the second half. The names below the pictures are the labels as given; compare them with the pictures."
    )
)
cards.quadruplet_grid(worst, pictures(data, ids_in(worst)))

# %% [markdown]
# What does it cost? The gallery and the queries below keep their right labels; only the training was misled.


# %%
def spread(model):
    """How far apart the scores of a batch lie: their standard deviation."""
    features = model.features(items)
    return f"{model.model.similarity('pddm').matrix(features, features).std():.3f}"


trained = {
    "`anchor`, right labels": training, f"`anchor`, {100 * wrong:.0f} % wrong": spoiled["anchor"],
    "`batch`, right labels": one, f"`batch`, {100 * wrong:.0f} % wrong": spoiled["batch"],
}  # fmt: skip
measured = [(name, {by: model.metrics(by) for by in before}, spread(model)) for name, model in trained.items()]
results_table(measured, ["spread of S in the batch"])

# %% [markdown]
# With the settings that the notebook comes with, the score suffers most. To spread the scores pays only if most of the
# *hardest* pairs profit; when too many of them are wrong, every spread makes the loss larger, and the unit stays on the
# plateau where all pairs score alike: look at the last column. The features themselves still learn by $E_e$. (Much the
# same keeps `batch` there: one odd pair a step.)
#
# The weakness can be turned to use. A wrongly labelled image is found the least similar by its supposed classmates again
# and again, while an image of another class lies closer. `hardness.suspects` counts that, with the lower end of an
# interval as the score, so that little evidence counts little. The first suspects, next to pictures of the class they are
# labelled as and of the class they are taken for:

# %%
suspects = hardness.suspects(bad, bad.pick(PHASE))
listed = suspects.head(len(bad_ids))
if len(listed):
    right = listed["id"].isin(bad_ids)
    display(
        Markdown(
            f"Of the first {len(listed)} suspects {right.sum()} are indeed wrong (**{100 * right.mean():.0f} %**); by chance it would be {100 * wrong:.0f} %."
        )
    )
    first = suspects.head(6)
    typical = hardness.examples(bad, bad.pick(PHASE), {*first["class_name"], *first["named"]})
    needed = {*first["id"], *(item for some in typical.values() for item in some)}
    display(cards.suspect_grid(first, pictures(data, needed), typical))
else:
    print(f"No image met enough classmates in {steps} steps to be suspected.")

# %% [markdown]
# **Think.** Would you leave out the hardest pairs, to be safe?
#
# <details><summary>Answer</summary>
#
# That is what *semi-hard* mining does: it takes negatives that are farther than the positive, but within the margin. It
# is steadier, and it also misses the pairs that could have taught most. Mining one quadruplet per anchor, averaging over
# all of them, and looking at the suspects by eye is the way this lab goes.
#
# </details>
#
# ## 10. The quadruplets of a real run
#
# Every training of the lab logs each quadruplet that it mined. With `run` set, here are its hardest ones and the classes
# that it mixes up.

# %%
if run:
    opened = run_named(run, runs_root)
    log = Mined.of(opened.mined())
    phase = log.phases[0]
    of_run = log.pick(phase)
    display(
        figures.hardness(
            hardness.through_training(log, of_run), title=f"{opened.name}: quadruplets that violate a hinge"
        )
    )
    top = log.frame(log.ordered(of_run, "violation")[:400])
    top = top[~top[["i", "j"]].apply(frozenset, axis="columns").duplicated()].head(6)
    its_data = read_dataset(
        opened.config.dataset, data_folder(opened.config.data_root),
        known_query_share=opened.config.known_query_share, split_seed=opened.config.split_seed,
    )  # fmt: skip
    display(cards.quadruplet_grid(top, pictures(its_data, ids_in(top)), similarity=opened.config.similarity))
    mixed = hardness.mutual(hardness.confusions(log, of_run)).head(5)
    examples = hardness.mixed_up(log, of_run, list(zip(mixed["a"], mixed["b"], strict=True)))
    needed = {item for pair in examples.values() for some in pair for item in some}
    display(cards.confusion_bars(mixed, pictures(its_data, needed), examples))
else:
    display(
        Markdown("*No run was named: `-p run NAME` shows this part of a run that `pddm-lab train quick` has trained.*")
    )

# %% [markdown]
# ## Where to go from here
#
# * Other pictures: `dataset="emoji"`, or `folder:PATH` for your own.
# * More classes in a batch make harder negatives: try `classes_per_batch=10` on a data set that has them.
# * The dashboard's page *Quadruplets* filters a run's quadruplets by class, step and item: `pddm-lab dashboard`.
