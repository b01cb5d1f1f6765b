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
# # How good is it? Measure a run
#
# This notebook opens a finished run and measures it as the lab does. Each number is worked out once by hand, for one query
# with its pictures in sight, before it is taken over all of them:
#
# 1. what a search finds: Recall@K, R-precision, MAP@R;
# 2. whether items of one class lie together: NMI;
# 3. how well *same* and *different* come apart: distributions, a threshold, and the same by local density;
# 4. what training did to the space: distances within and between classes, before and after.
#
# It needs a run: `pddm-lab train quick` trains one in two minutes, and the newest one is opened where none is named.

# %% tags=["parameters"]
# fmt: off
run = ""  # str, A finished run, by name or path; empty: the newest one.
runs_root = ""  # str, Folder that holds the runs; empty: $PDDM_LAB_RUNS, else ./runs.
pairs = 20000  # int, Pairs that are looked at one by one.
seed = 0  # int, Seed of which query and which pairs are looked at.
# fmt: on

# %%
from pddm_lab.training.notebook import begin, run_named

begin(globals(), "run", "runs_root", "pairs", "seed")

import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown, display
from sklearn.metrics import normalized_mutual_info_score

from pddm_lab import cards, figures
from pddm_lab.analysis.pairs import pairs_by_density
from pddm_lab.analysis.query_errors import judge
from pddm_lab.analysis.thresholds import around_threshold, by_density, threshold_at_fpr
from pddm_lab.applications.feature_spaces import PRETRAINED, gallery_spaces
from pddm_lab.metrics.class_margins import MARGINS, class_margins
from pddm_lab.metrics.retrieval import cluster, evaluate
from pddm_lab.model.similarity import Euclidean
from pddm_lab.runs.model import load_similarities

of = run_named(run, runs_root)
similarities = load_similarities(of)
galleries = {name: of.gallery(name) for name in of.protocols()}
display(
    Markdown(
        f"The run **{of.name}**: {of.config.dataset}, preset {of.config.preset}, trained by {figures.style_of(of.config.similarity).title}."
    )
)

# %% [markdown]
# ## 1. What is asked: two protocols
#
# A *query* is searched for in a *gallery*. **Unseen classes**: classes that training never met, where each item is
# searched among all others. **Known classes**: new images of the training classes, searched among the training images.

# %%
rows = {name: {role: gallery.rows(role) for role in ("query", "gallery")} for name, gallery in galleries.items()}
pd.DataFrame({
    figures.PROTOCOL_TITLES[name]: {
        "queries": len(rows[name]["query"]), "gallery items": len(rows[name]["gallery"]),
        "classes": gallery.items["label"].nunique(),
    }
    for name, gallery in galleries.items()
}).transpose()  # fmt: skip

# %% [markdown]
# ## 2. One query by hand
#
# Here is a query for which the search neither finds everything nor nothing, and what the Euclidean distance $D$ finds for
# it. $R$ is how many right items there are to find.

# %%
protocol, gallery = next(iter(galleries.items()))
labels = gallery.items["label"].to_numpy()
queries, searched = rows[protocol]["query"], rows[protocol]["gallery"]
judged = judge(gallery.features, labels, queries, searched)
to_find = np.array([(labels[searched] == labels[row]).sum() - (row in searched) for row in judged["row"]])
earned = judged["ap"] * to_find
some = (earned % 1).between(0.1, 0.9)  # right ones after a wrong one,
some &= (to_find >= 3) & (to_find <= max(12, np.quantile(to_find, 0.1)))  # and not too many of them to look at
candidates = judged[some] if some.any() else judged
query = int(
    candidates.iloc[(candidates["ap"] - 0.5).abs().argsort(kind="stable").iloc[min(seed, len(candidates) - 1)]]["row"]
)

others = searched[searched != query]  # an item doesn't find itself
D = np.linalg.norm(gallery.features[others] - gallery.features[query], axis=1)
order = np.argsort(D, kind="stable")
hits = labels[others[order]] == labels[query]
R = int(hits.sum())


def show(rows, **more):
    """Pictures of some items of the gallery."""
    found = gallery.items.iloc[rows]
    thumbs = {item: gallery.thumb(row) for item, row in zip(found["id"], rows, strict=True)}
    return cards.image_grid(list(zip(found["id"], found["class_name"], strict=True)), thumbs, **more)


class_name = gallery.items["class_name"].iloc[query]
display(Markdown(f"The query, **{class_name}**; there are $R = {R}$ others of its class:"), show([query]))
first = others[order][: max(R, 8)]
results = gallery.items.iloc[first][["id", "class_name"]].assign(
    rank=range(1, len(first) + 1), value=-D[order][: len(first)]
)
display(
    cards.retrieval_grid(
        results,
        {item: gallery.thumb(row) for item, row in zip(results["id"], first, strict=True)},
        "euclidean",
        right_class=class_name,
    )
)

# %% [markdown]
# ### Recall@K: is there a right one among the first K?

# %%
recall = {k: float(hits[:k].any()) for k in (1, 2, 4, 8)}
print(", ".join(f"Recall@{k} = {value:.0f}" for k, value in recall.items()))

# %% [markdown]
# ### R-precision: how many of the first R are right?
#
# $$\text{R-precision} = \frac{1}{R} \sum_{n=1}^{R} \text{right}_n$$

# %%
r_precision = hits[:R].mean()
print(f"{hits[:R].sum()} of the first {R} are right: R-precision = {r_precision:.3f}")

# %% [markdown]
# ### MAP@R: and do they come early?
#
# $$\text{AP@R} = \frac{1}{R} \sum_{n=1}^{R} \text{right}_n \cdot P(n) \qquad P(n) = \text{share of right ones among the first } n$$
#
# Each right result earns the precision at its place: 1 if all before it were right, too, less if not. MAP@R is the mean
# over all queries.

# %%
places = np.arange(1, R + 1)
P = hits[:R].cumsum() / places
earned = np.where(hits[:R], P, 0)
average_precision = earned.sum() / R
display(
    pd.DataFrame({"place": places, "right": hits[:R], "P(n)": P.round(3), "earns": earned.round(3)})
    .set_index("place")
    .T
)
print(f"AP@R = {earned.sum():.3f} / {R} = {average_precision:.3f}")

# %% [markdown]
# The lab's own code for this one query says the same (`evaluate.py`):

# %%
f = torch.from_numpy(np.array(gallery.features))
alone = evaluate(Euclidean(), f[[query]], f[others], labels[[query]], labels[others], leave_one_out=False).metrics
assert np.isclose(alone["r_precision"], r_precision) and np.isclose(alone["map@r"], average_precision)
assert all(alone[f"recall@{k}"] == value for k, value in recall.items())

# %% [markdown]
# **Think.** A query with $R = 1$ finds its one right item at the second place. What are Recall@1, Recall@2, R-precision and
# AP@R? Why does the lab choose its training steps by MAP@R and not by Recall@1?
#
# <details><summary>Answer</summary>
#
# Recall@1 is 0, Recall@2 is 1, and both others are 0: with $R = 1$ only the first place counts. Recall@1 asks for one right
# item and ignores all others of the class. Two spaces with the same Recall@1 can be very different in how well they keep
# classes together, and MAP@R sees that (Musgrave et al., *A Metric Learning Reality Check*, ECCV 2020).
#
# </details>
#
# ## 3. All queries
#
# Both protocols, and every similarity of the run on the same features: the Euclidean distance, the cosine, a learned
# Mahalanobis distance (one ruler for all places), and PDDM's score $S$ (a ruler that knows the place).

# %%
measured = {}
for name, one in galleries.items():
    features, classes = torch.from_numpy(np.array(one.features)), one.items["label"].to_numpy()
    asked, held = rows[name]["query"], rows[name]["gallery"]
    for by, similarity in similarities.items():
        measured[name, by] = evaluate(
            similarity, features[asked], features[held], classes[asked], classes[held], np.array_equal(asked, held),
            nmi=by == "euclidean",
        )  # fmt: skip
table = pd.DataFrame(
    [(of.name, *key, metric, value) for key, found in measured.items() for metric, value in found.metrics.items()],
    columns=["run", "protocol", "similarity", "metric", "value"],
)
for name in galleries:
    display(Markdown(f"**{figures.PROTOCOL_TITLES[name]}**"), cards.metrics_table(table, name))

# %%
kept = of.info["metrics"]
differ = max(abs(found.metrics["map@r"] - kept[name][by]["map@r"]) for (name, by), found in measured.items())
print(f"The run's own record differs by at most {100 * differ:.2f} points of MAP@R.")
figures.comparison(table, ("recall@1", "r_precision", "map@r"))

# %% [markdown]
# Euclid and cosine rank features of length 1 alike. Compare PDDM with both distances, in both protocols: a similarity that
# has learned places can be ahead where classes are known and behind where they aren't. How much is chance? MAP@R is a mean
# over queries, and its standard error says how far another draw of queries would move it:

# %%
for (name, by), found in measured.items():
    if by in ("euclidean", "pddm"):
        print(
            f"{figures.PROTOCOL_TITLES[name]:15} {figures.style_of(by).title:10} MAP@R {100 * found.metrics['map@r']:.1f} ± {100 * found.map_at_r_error:.1f} %, {found.queries} queries"
        )

# %% [markdown]
# That is still one training: another seed gives other numbers. `pddm-lab train --seed 1` trains one more, and the
# dashboard's page *Runs* averages seeds.
#
# ## 4. Do classes form clusters? NMI
#
# Forget the labels, and let *k-means* part the features into as many clusters as there are classes. If the space is good,
# a cluster is a class. This is the cluster that holds the query:

# %%
whole = searched if np.array_equal(queries, searched) else np.concatenate([searched, queries])
count = len(np.unique(labels[whole]))
clusters = cluster(f[whole], count)
members = whole[clusters == clusters[np.flatnonzero(whole == query)[0]]]
print(
    f"{count} clusters; this one has {len(members)} items of {len(np.unique(labels[members]))} classes, and {(labels[members] == labels[query]).sum()} of the query's class of {(labels[whole] == labels[query]).sum()}."
)
show(members[:24], chosen=gallery.items["id"].iloc[query])

# %% [markdown]
# The **normalised mutual information** puts that into one number for all clusters. Count in a table how many items of class
# $c$ are in cluster $k$, and divide by their number: $p(c, k)$. Then
#
# $$I = \sum_{c, k} p(c, k) \log \frac{p(c, k)}{p(c)\, p(k)} \qquad H(c) = -\sum_c p(c) \log p(c) \qquad
# \text{NMI} = \frac{I}{(H(c) + H(k)) / 2}$$
#
# 1 if clusters are the classes, 0 if they know nothing of them. Beware: with many small classes it is high for chance's
# sake alone, so compare it only on the same data.

# %%
p = pd.crosstab(labels[whole], clusters).to_numpy() / len(whole)
p_c, p_k = p.sum(1, keepdims=True), p.sum(0, keepdims=True)
filled = p > 0
information = (p[filled] * np.log((p / (p_c * p_k))[filled])).sum()
H_c, H_k = -(p_c * np.log(p_c)).sum(), -(p_k * np.log(p_k)).sum()
nmi = information / ((H_c + H_k) / 2)
assert np.isclose(nmi, normalized_mutual_info_score(labels[whole], clusters))
assert np.isclose(nmi, measured[protocol, "euclidean"].metrics["nmi"])
shuffled = normalized_mutual_info_score(labels[whole], np.random.default_rng(seed).permutation(clusters))
print(
    f"I = {information:.3f}, H(c) = {H_c:.3f}, H(k) = {H_k:.3f}: NMI = {nmi:.3f}. With the clusters shuffled it would be {shuffled:.3f}."
)

# %% [markdown]
# ## 5. Same or different?
#
# Now all *pairs*: those of one class (**positive**) and of two (**negative**). A good similarity keeps the two humps apart.
# The line is the threshold that lets 1 % of the negative pairs pass.

# %%
for name in galleries:
    for by in ("euclidean", "pddm"):
        found = measured[name, by]
        at = found.distribution.threshold_at_fpr(0.01)
        tpr, fpr = found.distribution.rates_at(at)
        title = figures.style_of(by).title
        display(
            Markdown(
                f"**{figures.PROTOCOL_TITLES[name]}, {title}**: at {figures.shown(by, np.array(at)):.3f} it accepts {100 * tpr:.1f} % of the positive and {100 * fpr:.1f} % of the negative pairs."
            )
        )
        display(figures.distributions(found.distribution, by, threshold=at))

# %% [markdown]
# By hand, on a sample of pairs: the **ROC AUC** is the chance that a positive pair is more similar than a negative one.
# Take every positive pair with every negative pair, and count how often it wins.

# %%
sample = pairs_by_density(gallery, similarities, pairs, seed)
positive, negative = (sample.loc[sample["positive"] == kind, "pddm"].to_numpy()[:2000] for kind in (True, False))
wins = (positive[:, None] > negative).mean() + (positive[:, None] == negative).mean() / 2
print(
    f"{wins:.3f} of {len(positive) * len(negative):,} duels; over all pairs it is {measured[protocol, 'pddm'].metrics['auc']:.3f}"
)
distributions = {by: measured[protocol, by].distribution for by in similarities}
figures.roc(distributions, title=f"{figures.PROTOCOL_TITLES[protocol]}: what a threshold finds, and what it lets pass")

# %% [markdown]
# The pairs just either side of the threshold. Solid edges join positive pairs, dashed ones negative pairs; an error is a
# solid edge on the left or a dashed one on the right.

# %%
for by in ("euclidean", "pddm"):
    at = threshold_at_fpr(sample, by, 0.01)
    near = around_threshold(sample, by, at, 2)
    for end in "ab":
        items = gallery.items.iloc[near[end]]
        near = near.assign(**{f"item_{end}": items["id"].to_numpy(), f"class_{end}": items["class_name"].to_numpy()})
    thumbs = {gallery.items["id"].iloc[row]: gallery.thumb(row) for row in {*near["a"], *near["b"]}}
    display(Markdown(figures.style_of(by).title), cards.pair_strip(near, thumbs, by, at))

# %% [markdown]
# ## 6. One threshold, everywhere?
#
# The paper's claim: a threshold on a global distance that works where items lie densely fails where they lie sparsely, and
# a local similarity mends that. Here pairs are parted into thirds by how densely their items lie, and one threshold for
# all is tried in each third. Is PDDM's line flatter? Do the intervals (95 %, by drawing classes anew) overlap?

# %%
for name, one in galleries.items():
    part = sample if one is gallery else pairs_by_density(one, similarities, pairs, seed)
    thirds = {by: by_density(part, by) for by in ("euclidean", "pddm")}
    display(Markdown(f"**{figures.PROTOCOL_TITLES[name]}**"))
    display(figures.by_density(thirds, share=0.01), cards.density_table(thirds))

# %% [markdown]
# ## 7. What training did to the space: a large margin
#
# Before training, an image's feature is what the pretrained trunk makes of it, scaled to length 1 like the run's own.
# Training should pull classes together and push them apart. A space may also grow as a whole, so that *intra* grows, too:
# compare the *ratio*, the *overlap* and the clusters, which no scale can move.

# %%
pd.Series(MARGINS, name="what it says").to_frame().style.set_properties(**{"text-align": "left"})

# %%
for name, one in galleries.items():
    spaces = gallery_spaces(of, one)
    classes = one.items["label"].to_numpy()
    display(Markdown(f"**{figures.PROTOCOL_TITLES[name]}**"))
    if len(spaces) == 1:
        display(Markdown("The pictures themselves aren't here any more, so there is nothing to compare with."))
    display(
        class_margins({space.name: space.features for space in spaces}, classes)
        .round(3)
        .set_index("space")
        .drop(columns=["items", "classes"])
    )
    asked, held = rows[name]["query"], rows[name]["gallery"]
    for space in spaces:
        found = measured[name, "euclidean"]
        if space.name == PRETRAINED:
            found = evaluate(
                Euclidean(), space.features[asked], space.features[held], classes[asked], classes[held], np.array_equal(asked, held),
            )  # fmt: skip
        values = found.metrics
        title = f"{space.name}: MAP@R {100 * values['map@r']:.1f} %, ROC AUC {values['auc']:.3f}"
        display(Markdown(title), figures.distributions(found.distribution, "euclidean"))

# %% [markdown]
# **Think.** Known classes usually gain more from training than unseen ones. Why, and is that a fault?
#
# <details><summary>Answer</summary>
#
# Training saw the known classes and pulled exactly them together. What carries over to unseen classes is what it learned of
# *which differences matter*. A gap is normal; a space whose unseen classes gain nothing has only learned its classes by
# heart.
#
# </details>
#
# ## Where to go from here
#
# * The dashboard's pages *Similarity*, *Map* and *Audit* show the same run with more to try: `pddm-lab dashboard`.
# * `local_vs_global.ipynb` explains PDDM's score, `hard_quadruplets.ipynb` what it learned from.
