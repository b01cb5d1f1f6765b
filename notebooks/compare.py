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
# # Methods side by side
#
# Many papers on metric learning report that the new method wins. When others repeat the comparison with the same
# network, the same data and the same effort for every method, most of the difference is gone (Musgrave, Belongie and
# Lim, *A Metric Learning Reality Check*, ECCV 2020). So before saying what PDDM is good for, this notebook makes the
# comparison fair:
#
# * **the same features.** A network trained on ImageNet is frozen. Every method trains one linear layer on its features,
#   which makes 128 numbers of length 1 of each picture;
# * **the same batches and steps.** Every method sees the same pictures in the same order;
# * **the same search.** Every method may try the same number of settings. They are judged on *training classes that
#   were left out of training*, part by part (folds), never on the test classes;
# * **several seeds.** The chosen setting is trained again from other random weights. A result is a mean with an
#   interval: the range that would hold the mean of many more such trainings 95 times out of 100.
#
# The test classes are looked at once per training, at the very end.

# %% tags=["parameters"]
# fmt: off
study = ""  # str, Name of a study to show, such as main; empty: carry out a small one with the choices below.
datasets = ["digits"]  # list, Data sets: emoji, grocery, digits, cub200, cars196, products, or folder:PATH.
methods = ["pddm", "mahalanobis", "triplet_hard", "multi_similarity", "proxy_anchor", "pretrained"]  # list, Methods by name; empty: all.
configurations = 1  # int, Settings that each method tries, at most 6.
seeds = 2  # int, Trainings on all training classes, each measured once.
steps = 100  # int, The most a configuration trains while its number of steps is chosen.
eval_every = 50  # int, Steps between measurements.
base: dict = {}  # dict, Fields of TrainConfig to change for all methods, such as a smaller image_size.
processes = 2  # int, Trainings at once, each on one core.
data_root = ""  # str, Folder that holds the data sets; empty: $PDDM_LAB_DATA, else ./data.
runs_root = ""  # str, Folder that holds the runs; empty: $PDDM_LAB_RUNS, else ./runs.
# fmt: on

# %% [markdown]
# The whole comparison takes about an hour and a half on two cores: `pddm-lab compare`. Stop it when you like, it goes on where
# it was; then show it here with `study = "main"`. What is set above is small, to see how it works: its numbers mean
# little.

# %%
from pddm_lab.training.notebook import begin

begin(
    globals(),
    "methods",
    "study",
    "datasets",
    "configurations",
    "seeds",
    "steps",
    "eval_every",
    "base",
    "processes",
    "data_root",
    "runs_root",
)

from IPython.display import Markdown, display

from pddm_lab import figures
from pddm_lab.study import table, tables
from pddm_lab.study.compare import Plan, opened
from pddm_lab.study.methods import METHODS
from pddm_lab.study.statistics import best_baseline, searched, summary, versus, within

plan = Plan(
    datasets=tuple(datasets), parts=("methods",), methods=tuple(methods) or tuple(METHODS),
    configurations=configurations, seeds=seeds, steps=steps, eval_every=eval_every,
    base={**base, **{name: value for name, value in (("data_root", data_root), ("runs_root", runs_root)) if value}},
)  # fmt: skip
of = opened(study, plan, runs_root, processes)
cells = table(of.path)
found, chosen = summary(cells, "methods"), searched(of)
display(Markdown(f"The study is in `{of.path}`: {len(cells)} measurements."))


def show(frame):
    """A table of text."""
    display(Markdown(tables.markdown(frame)))


# %% [markdown]
# ## What was chosen
#
# For each method the setting that retrieved the left-out training classes best, and how many steps it trained: the
# latest step whose MAP@R lies within one standard error of the best. **MAP@R**: for a query with $R$ right items, it
# looks at the first $R$ results; right ones count more when they come early.

# %%
for dataset in chosen["dataset"].unique():
    display(Markdown(f"**{dataset}**"))
    show(tables.choices(chosen, dataset))

# %% [markdown]
# ## What they came to
#
# *Unseen classes* are those that training never met. *Known classes* are new pictures of the training classes. A PDDM
# method has three rows: its embedding ranked by Euclidean distance, by the Mahalanobis distance that learned beside it,
# and by its score $S$.

# %%
for dataset in found["dataset"].unique():
    for protocol in tables.PROTOCOLS:
        display(Markdown(f"**{dataset}, {tables.PROTOCOLS[protocol]}**"))
        show(tables.wide(found, "methods", dataset, protocol, tables.RANKING))

# %%
for dataset in found["dataset"].unique():
    rows = found[found["dataset"] == dataset].rename(columns={"half": "std"})
    rows = rows.assign(run=rows["method"].map(tables.titles("methods")))
    display(figures.comparison(rows, ["map@r"], title=f"{dataset}: MAP@R, mean and 95 % interval"))

# %% [markdown]
# ## Better, worse, or level?
#
# Each ranking against the best baseline, which is chosen by the left-out *training* classes, so that luck on the test
# classes doesn't choose it. Seeds are compared pair by pair: both methods saw the same splits and batches. With twenty
# comparisons one would look significant by chance, so the p values are corrected for their number (Holm). *Level* means
# that these seeds can't tell them apart.

# %%
against = versus(cells, chosen)
for dataset in found["dataset"].unique():
    best = best_baseline(chosen, dataset)
    for protocol in tables.PROTOCOLS:
        display(Markdown(f"**{dataset}, {tables.PROTOCOLS[protocol]}**, against {METHODS[best['method']].title}"))
        show(tables.differences(against, dataset, protocol))

# %% [markdown]
# ## Is the local similarity worth it?
#
# Each training of PDDM ranks in three ways on the same embedding: by the local S, by the plain distance D, and by one
# learned global metric D_M. The table says how far S is ahead, in points of MAP@R, with the 95 % interval over seeds:
# above zero on both sides of the protocols is what one would like to see.

# %%
inside = within(cells)
for dataset in found["dataset"].unique():
    display(Markdown(f"**{dataset}**"))
    show(tables.ahead(inside, dataset))

# %% [markdown]
# ## One threshold for all
#
# A shop that asks "is this the same product?" needs a threshold rather than a ranking. **TPR** is the share of same-class
# pairs that are accepted when 1 % of the others pass. The paper's claim is about the last three columns: the pairs are
# parted into thirds by how densely their items lie, and *one* threshold is used for all of them. Where a global distance
# accepts nearly all pairs of dense places and hardly any of sparse ones, a local similarity should lie closer together.

# %%
for dataset in found["dataset"].unique():
    for protocol in tables.PROTOCOLS:
        display(Markdown(f"**{dataset}, {tables.PROTOCOLS[protocol]}**"))
        show(tables.wide(found, "methods", dataset, protocol, tables.SEPARATION))

# %% [markdown]
# ## Beside the paper's numbers
#
# The paper trains a whole GoogLeNet on birds (CUB-200-2011) and cars (Cars196). Whoever has these data sets fills the
# columns on the right: `pddm-lab compare --datasets cub200 cars196`. The settings differ (here only a linear layer is
# trained), so look at the order of the methods rather than at the height of the numbers.

# %%
for dataset in tables.BENCHMARKS:
    display(Markdown(f"**{dataset}**"))
    rows = tables.published(found, dataset)
    show(rows) if len(rows) else display(Markdown("No published number is at hand."))
