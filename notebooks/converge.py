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
# # How fast methods learn
#
# The paper says that local similarity-aware mining finds harder examples and so learns in fewer steps. Two clocks can
# check that: the number of *steps*, and the *seconds* on one core. They can disagree, for a PDDM unit has to score all
# pairs of a batch before it knows which are hard, while a distance comes from one matrix product.
#
# To be fair, a method isn't measured by its own best value, which a bad method reaches soon. The **target** is the MAP@R
# at which the best baseline ends, on training classes that were left out: who gets there first?

# %% tags=["parameters"]
# fmt: off
study = ""  # str, Name of a study to show, such as main; empty: carry out a small one with the choices below.
datasets = ["digits"]  # list, Data sets: emoji, grocery, digits, cub200, cars196, products, or folder:PATH.
methods = ["pddm", "mahalanobis", "triplet_hard", "multi_similarity", "proxy_anchor", "pretrained"]  # list, Methods by name; empty: all.
configurations = 1  # int, Settings that each method tries, at most 6.
seeds = 1  # int, Trainings on all training classes, each measured once.
steps = 100  # int, The most a configuration trains while its number of steps is chosen.
eval_every = 10  # int, Steps between measurements.
base: dict = {}  # dict, Fields of TrainConfig to change for all methods, such as a smaller image_size.
processes = 2  # int, Trainings at once, each on one core.
data_root = ""  # str, Folder that holds the data sets; empty: $PDDM_LAB_DATA, else ./data.
runs_root = ""  # str, Folder that holds the runs; empty: $PDDM_LAB_RUNS, else ./runs.
# fmt: on

# %% [markdown]
# The curves of the whole comparison: `pddm-lab compare`, then `study = "main"` here. What is set above is small, to see
# how it works.

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

from pddm_lab.figures.study import learning
from pddm_lab.study import tables
from pddm_lab.study.compare import Plan, opened
from pddm_lab.study.methods import METHODS
from pddm_lab.study.statistics import best_baseline, convergence, curves, searched

plan = Plan(
    datasets=tuple(datasets), parts=("methods",), methods=tuple(methods) or tuple(METHODS),
    configurations=configurations, seeds=seeds, steps=steps, eval_every=eval_every,
    base={**base, **{name: value for name, value in (("data_root", data_root), ("runs_root", runs_root)) if value}},
)  # fmt: skip
of = opened(study, plan, runs_root, processes)
chosen = searched(of)
log = curves(of, chosen)

# %% [markdown]
# ## Step by step
#
# Each line is one method with the setting that its search chose: MAP@R on the left-out training classes, mean over the
# folds. A line ends early where it had stayed below its best for a while. The dotted line is the target.

# %%
BROUGHT_OUT = ("pddm", "pddm_batch", "mined_euclidean", "mahalanobis")


def show(dataset, x):
    """The curves of one data set, PDDM, what it is compared with, and the best baseline in colour."""
    rows, best = log[log["dataset"] == dataset], best_baseline(chosen, dataset)
    names = [name for name in dict.fromkeys((*BROUGHT_OUT, best["method"])) if name in set(rows["run"])]
    named = {name: METHODS[name].title for name in names}
    display(learning(rows, named, target=best["value"], x=x, title=dataset))


for dataset in chosen["dataset"].unique():
    show(dataset, "step")

# %% [markdown]
# ## Second by second
#
# The same lines against the time that the training steps took, one thread on one core. Measuring isn't counted.

# %%
for dataset in chosen["dataset"].unique():
    show(dataset, "seconds")

# %% [markdown]
# ## When each gets there
#
# A dash means never, within the steps that were allowed. Values are measured every `eval_every` steps, so the numbers
# are good to that.

# %%
reached = convergence(of, chosen)
for dataset in reached["dataset"].unique():
    target = reached.loc[reached["dataset"] == dataset, "target"].iloc[0]
    best = METHODS[best_baseline(chosen, dataset)["method"]].title
    display(Markdown(f"**{dataset}**: target {100 * target:.1f} %, where {best} ends"))
    display(Markdown(tables.markdown(tables.reach(reached, dataset))))
