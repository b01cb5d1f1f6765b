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
# This notebook opens a finished run and measures it as the lab does. It computes each number first by hand, for one query
# whose pictures you can see, and then for all queries:
#
# 1. what a search finds: Recall@K, R-precision, MAP@R;
# 2. whether items of a class form clusters: NMI;
# 3. how well *same* and *different* can be separated: distributions, a threshold, and both by local density;
# 4. what training did to the space: distances within and between classes, before and after.
#
# It needs a run. `pddm-lab train quick` trains one in some minutes. If you don't name a run, the newest one is opened.

# %% tags=["parameters"]
# fmt: off
run = ""  # str, Name or path of a finished run; empty: the newest one.
runs_root = ""  # str, Folder with the runs; empty: $PDDM_LAB_RUNS, or ./runs.
pairs = 20000  # int, Number of pairs to draw for sections 5 and 6.
seed = 0  # int, Seed for the choice of the query and of the pairs.
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
from pddm_lab.applications.feature_spaces import gallery_spaces
from pddm_lab.metrics.class_margins import MARGINS, class_margins
from pddm_lab.metrics.retrieval import cluster, evaluate
from pddm_lab.model.similarity import Euclidean
from pddm_lab.runs.compare import compare_runs
from pddm_lab.runs.model import load_similarities
from pddm_lab.similarities import PRETRAINED

opened = run_named(run, runs_root)
similarities = load_similarities(opened)
galleries = {name: opened.gallery(name) for name in opened.protocols()}
choices = opened.config
display(
    Markdown(f"The run **{opened.name}**: data set {choices.dataset}, preset {choices.preset}, loss {choices.loss}.")
)
for warning in opened.info.get("warnings", ()):
    display(Markdown(f"**Warning:** {warning}"))

# %% [markdown]
# ## 1. Two protocols
#
# A search compares a *query* with the items of a *gallery*. **Unseen classes**: classes that were not in the training
# data; each item is a query, and all others are the gallery. **Known classes**: the queries are new images of the
# training classes, and the gallery holds the training images.

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
# Here is a query with some right and some wrong results, ranked by the Euclidean distance $D$. $R$ is the number of right
# items in the gallery.

# %%
protocol, gallery = next(iter(galleries.items()))
labels = gallery.items["label"].to_numpy()
queries, searched = rows[protocol]["query"], rows[protocol]["gallery"]
judged = judge(gallery.features, labels, queries, searched)
right_items = np.array([(labels[searched] == labels[row]).sum() - (row in searched) for row in judged["row"]])
some = (judged["ap"] * right_items % 1).between(0.1, 0.9)  # a right result after a wrong one,
some &= (right_items >= 3) & (right_items <= max(12, np.quantile(right_items, 0.1)))  # and not too many to show
candidates = judged[some] if some.any() else judged
order = (candidates["ap"] - 0.5).abs().argsort(kind="stable")
query = int(candidates["row"].iloc[order.iloc[min(seed, len(candidates) - 1)]])

others = searched[searched != query]  # an item is never its own result
D = np.linalg.norm(gallery.features[others] - gallery.features[query], axis=1)
order = np.argsort(D, kind="stable")
hits = labels[others[order]] == labels[query]
R = int(hits.sum())


def thumbs(rows):
    """Pictures of some items of the gallery, by id."""
    return {gallery.items["id"].iloc[row]: gallery.thumb(row) for row in rows}


def show(rows, **more):
    """Some items of the gallery with their classes."""
    items = gallery.items.iloc[rows]
    return cards.image_grid(list(zip(items["id"], items["class_name"], strict=True)), thumbs(rows), **more)


class_name = gallery.items["class_name"].iloc[query]
display(Markdown(f"The query, **{class_name}**. Its class has $R = {R}$ other items:"), show([query]))
first = others[order][: max(R, 8)]
results = gallery.items.iloc[first][["id", "class_name"]]
results = results.assign(rank=range(1, len(first) + 1), value=-D[order][: len(first)])
display(cards.retrieval_grid(results, thumbs(first), "euclidean", right_class=class_name))

# %% [markdown]
# ### Recall@K: is there a right result among the first K?

# %%
recall = {k: float(hits[:k].any()) for k in (1, 2, 4, 8)}
print(", ".join(f"Recall@{k} = {value:.0f}" for k, value in recall.items()))

# %% [markdown]
# ### R-precision: how many of the first R results are right?
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
# Each right result counts with the precision at its place: 1 if all results before it are right too, and less otherwise.
# MAP@R is the mean over all queries.

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
# The lab's own code gives the same numbers for this query (`metrics/retrieval.py`):

# %%
f = torch.from_numpy(np.array(gallery.features))
alone = evaluate(Euclidean(), f[[query]], f[others], labels[[query]], labels[others], leave_one_out=False).metrics
assert np.isclose(alone["r_precision"], r_precision) and np.isclose(alone["map@r"], average_precision)
assert all(alone[f"recall@{k}"] == value for k, value in recall.items())

# %% [markdown]
# **Think.** A query has one right item ($R = 1$), and it is the second result. What are Recall@1, Recall@2, R-precision and
# AP@R? Why does the lab choose its training steps by MAP@R and not by Recall@1?
#
# <details><summary>Answer</summary>
#
# Recall@1 is 0, Recall@2 is 1, and the other two are 0: with $R = 1$ only the first place counts. Recall@1 needs one right
# item and ignores the rest of the class. Two spaces with the same Recall@1 can keep classes together very differently,
# and MAP@R measures that (Musgrave et al., *A Metric Learning Reality Check*, ECCV 2020).
#
# </details>
#
# ## 3. All queries
#
# Both protocols, and every similarity of the run on the same features: the Euclidean distance, the cosine, a learned
# Mahalanobis distance (one ruler for all places), and PDDM's score $S$ (a ruler that depends on the place). The row
# *Pretrained features* is what the run measured of the trunk before training, by $D$: training should be better than that.

# %%
measured = {}
for name, one in galleries.items():
    features, classes = torch.from_numpy(np.array(one.features)), one.items["label"].to_numpy()
    q, g = rows[name]["query"], rows[name]["gallery"]
    for by, similarity in similarities.items():
        measured[name, by] = evaluate(
            similarity, features[q], features[g], classes[q], classes[g], np.array_equal(q, g), nmi=by == "euclidean"
        )
table = pd.DataFrame(
    [
        (opened.name, *key, metric, value)
        for key, result in measured.items()
        for metric, value in result.metrics.items()
    ],
    columns=["run", "protocol", "similarity", "metric", "value"],
)
recorded = compare_runs([opened]).metrics
table = pd.concat([table, recorded[recorded["similarity"] == PRETRAINED]])
for name in galleries:
    display(Markdown(f"**{figures.PROTOCOL_TITLES[name]}**"), cards.metrics_table(table, name))

# %%
kept = opened.info["metrics"]
differ = max(abs(result.metrics["map@r"] - kept[name][by]["map@r"]) for (name, by), result in measured.items())
print(f"The run's own record differs by at most {100 * differ:.2f} points of MAP@R.")
figures.comparison(table, ("recall@1", "r_precision", "map@r"))

# %% [markdown]
# The Euclidean distance and the cosine rank features of length 1 alike. Compare PDDM with both distances, under both
# protocols: a similarity that has learned places can be ahead on known classes and behind on unseen ones. How much of it
# is chance? MAP@R is a mean over queries. Its standard error says how much another sample of queries would change it:

# %%
for (name, by), result in measured.items():
    if by in ("euclidean", "pddm"):
        value = f"{100 * result.metrics['map@r']:.1f} ± {100 * result.map_at_r_error:.1f} %"
        title = f"{figures.PROTOCOL_TITLES[name]:15} {figures.style_of(by).title:10}"
        print(f"{title} MAP@R {value}, {result.queries} queries")

# %% [markdown]
# This is still a single training; another seed gives other numbers. `pddm-lab train quick --seed 1` trains a second one,
# and the dashboard's page *Runs* averages over seeds.
#
# ## 4. Do classes form clusters? NMI
#
# Ignore the labels and let *k-means* divide the features into as many clusters as there are classes. In a good space each
# cluster is a class. This is the query's cluster:

# %%
whole = searched if np.array_equal(queries, searched) else np.concatenate([searched, queries])
count = len(np.unique(labels[whole]))
clusters = cluster(f[whole], count)
members = whole[clusters == clusters[np.flatnonzero(whole == query)[0]]]
print(f"{count} clusters. This one has {len(members)} items of {len(np.unique(labels[members]))} classes.")
own, own_total = (labels[members] == labels[query]).sum(), (labels[whole] == labels[query]).sum()
print(f"It holds {own} of the {own_total} items of the query's class.")
show(members[:24], chosen=(gallery.items["id"].iloc[query],))

# %% [markdown]
# The **normalised mutual information** summarises this for all clusters in one number. Count how many items of class $c$
# are in cluster $k$, and divide by the number of items: $p(c, k)$. Then
#
# $$I = \sum_{c, k} p(c, k) \log \frac{p(c, k)}{p(c)\, p(k)} \qquad H(c) = -\sum_c p(c) \log p(c) \qquad
# \text{NMI} = \frac{I}{(H(c) + H(k)) / 2}$$
#
# It is 1 if the clusters are the classes, and 0 if they are independent of them. Beware: with many small classes it is
# high by chance alone, so compare it only on the same data.

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
print(f"I = {information:.3f}, H(c) = {H_c:.3f}, H(k) = {H_k:.3f}: NMI = {nmi:.3f}.")
print(f"With shuffled clusters it would be {shuffled:.3f}.")

# %% [markdown]
# ## 5. Same or different?
#
# Now consider all *pairs*: pairs of one class (**positive**) and of two classes (**negative**). With a good similarity the
# two distributions overlap little. The line is the threshold that lets 1 % of the negative pairs pass.

# %%
for name in galleries:
    for by in ("euclidean", "pddm"):
        distribution = measured[name, by].distribution
        threshold = distribution.threshold_at_fpr(0.01)
        tpr, fpr = distribution.rates_at(threshold)
        display(Markdown(
            f"**{figures.PROTOCOL_TITLES[name]}, {figures.style_of(by).title}**: the threshold "
            f"{figures.shown(by, np.array(threshold)):.3f} accepts {100 * tpr:.1f} % of the positive pairs and "
            f"{100 * fpr:.1f} % of the negative pairs."
        ))  # fmt: skip
        display(figures.distributions(distribution, by, threshold=threshold))

# %% [markdown]
# The **ROC AUC** is the chance that a positive pair is more similar than a negative one. By hand, on a sample of pairs:
# compare every positive pair with every negative pair, and count how often the positive one wins.

# %%
sample = pairs_by_density(gallery, similarities, pairs, seed)
positive, negative = (sample.loc[sample["positive"] == kind, "pddm"].to_numpy()[:2000] for kind in (True, False))
wins = (positive[:, None] > negative).mean() + (positive[:, None] == negative).mean() / 2
print(f"It wins {wins:.3f} of {len(positive) * len(negative):,} comparisons.")
print(f"Over all pairs the AUC is {measured[protocol, 'pddm'].metrics['auc']:.3f}.")
distributions = {by: measured[protocol, by].distribution for by in similarities}
figures.roc(distributions, title=f"{figures.PROTOCOL_TITLES[protocol]}: TPR and FPR of every threshold")

# %% [markdown]
# The pairs closest to the threshold on either side. Solid edges join positive pairs, dashed edges negative pairs. An error
# is a solid edge on the left or a dashed edge on the right.

# %%
for by in ("euclidean", "pddm"):
    threshold = threshold_at_fpr(sample, by, 0.01)
    near = around_threshold(sample, by, threshold, 2)
    for end in "ab":
        items = gallery.items.iloc[near[end]]
        near = near.assign(**{f"item_{end}": items["id"].to_numpy(), f"class_{end}": items["class_name"].to_numpy()})
    images = thumbs({*near["a"], *near["b"]})
    display(Markdown(figures.style_of(by).title), cards.pair_strip(near, images, by, threshold))

# %% [markdown]
# ## 6. One threshold, everywhere?
#
# The paper claims: a threshold on a global distance that works in dense places fails in sparse ones, and a local similarity
# corrects this. Here the pairs are grouped into thirds by the density around their items, and one threshold for all pairs
# is tested in each third. Is PDDM's line flatter? Do the intervals (95 %, bootstrap over classes) overlap?

# %%
for name, one in galleries.items():
    part = sample if one is gallery else pairs_by_density(one, similarities, pairs, seed)
    thirds = {by: by_density(part, by) for by in ("euclidean", "pddm")}
    display(Markdown(f"**{figures.PROTOCOL_TITLES[name]}**"))
    display(figures.by_density(thirds, share=0.01), cards.density_table(thirds))

# %% [markdown]
# ## 7. What training did to the space: a large margin
#
# Before training, an image's feature is the output of the pretrained trunk, scaled to length 1 like the run's own features.
# Training should make distances within classes smaller and distances between classes larger. It can also stretch the
# whole space, and then *intra* grows as well. So compare the *ratio*, the *overlap* and the clusters, which do not depend
# on the scale.

# %%
pd.Series(MARGINS, name="meaning").to_frame().style.set_properties(**{"text-align": "left"})

# %%
for name, one in galleries.items():
    spaces = gallery_spaces(opened, one)
    classes = one.items["label"].to_numpy()
    display(Markdown(f"**{figures.PROTOCOL_TITLES[name]}**"))
    if len(spaces) == 1:
        display(
            Markdown(
                "The image files are no longer on this machine, so there are no pretrained features to compare with."
            )
        )
    margins = class_margins({space.name: space.features for space in spaces}, classes)
    display(margins.round(3).set_index("space").drop(columns=["items", "classes"]))
    q, g = rows[name]["query"], rows[name]["gallery"]
    for space in spaces:
        result, x = measured[name, "euclidean"], space.features
        if space.name == PRETRAINED:
            result = evaluate(Euclidean(), x[q], x[g], classes[q], classes[g], np.array_equal(q, g))
        values = result.metrics
        title = f"{space.name}: MAP@R {100 * values['map@r']:.1f} %, ROC AUC {values['auc']:.3f}"
        display(Markdown(title), figures.distributions(result.distribution, "euclidean"))

# %% [markdown]
# **Think.** Known classes usually gain more from training than unseen ones. Why, and is that a fault?
#
# <details><summary>Answer</summary>
#
# Training saw the known classes and pulled exactly these together. What transfers to unseen classes is what it learned
# about *which differences matter*. A gap is normal. If the unseen classes gain nothing, training has only memorised its
# own classes.
#
# </details>
#
# ## Where to go from here
#
# * The dashboard's pages *Similarity*, *Map* and *Audit* show the same run interactively: `pddm-lab dashboard`.
# * `local_vs_global.ipynb` explains PDDM's score, and `hard_quadruplets.ipynb` the examples that it learns from.
