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
# The paper says that local similarity-aware mining finds harder examples and therefore learns in fewer steps. This can be
# measured in *steps* or in *seconds* on one core. The two can disagree: a PDDM unit has to score all pairs of a batch
# before it knows which are hard, while distances need only one matrix product.
#
# A method is not measured by its own best value, because a bad method reaches that soon. The **target** for all methods is
# the final MAP@R of the best baseline on held-out training classes. Which method reaches it first?

# %% tags=["parameters"]
# fmt: off
study = ""  # str, Name of a study to show, such as main; empty: run a small one with the settings below.
datasets = ["digits"]  # list, Data sets: names that pddm-lab data list shows, or folder:PATH.
methods = ["pddm", "mahalanobis", "triplet_hard", "multi_similarity", "proxy_anchor", "pretrained"]  # list, Names of methods; empty: all.
configurations = 1  # int, Configurations that each method may try, at most 6.
seeds = 1  # int, Final trainings per method on all training classes, each measured once.
steps = 100  # int, Most training steps per configuration; the number of steps is chosen up to this limit.
eval_every = 10  # int, Steps between measurements.
base: dict = {}  # dict, Fields of TrainConfig to change for all methods, such as image_size.
processes = 2  # int, Trainings that run at the same time, each on one core.
data_root = ""  # str, Folder with the data sets; empty: $PDDM_LAB_DATA, or ./data.
runs_root = ""  # str, Folder with the runs; empty: $PDDM_LAB_RUNS, or ./runs.
# fmt: on

# %% [markdown]
# For the curves of the whole comparison run `pddm-lab compare`, then set `study = "main"` here. The settings above are small
# and only show how it works.

# %%
from pddm_lab.training.notebook import begin

begin(
    globals(), "methods", "study", "datasets", "configurations", "seeds", "steps", "eval_every", "base", "processes",
    "data_root", "runs_root",
)  # fmt: skip

from IPython.display import Markdown, display

from pddm_lab.figures.study import learning
from pddm_lab.study import tables
from pddm_lab.study.methods import METHODS
from pddm_lab.study.plan import Plan, open_study
from pddm_lab.study.statistics import best_baseline, convergence, curves, search_results

plan = Plan(
    datasets=tuple(datasets), parts=("methods",), methods=tuple(methods) or tuple(METHODS),
    configurations=configurations, seeds=seeds, steps=steps, eval_every=eval_every,
    base={**base, **{name: value for name, value in (("data_root", data_root), ("runs_root", runs_root)) if value}},
)  # fmt: skip
record = open_study(study, plan, runs_root, processes)
chosen = search_results(record)
log = curves(record, chosen)

# %% [markdown]
# ## Step by step
#
# Each line is one method with the configuration that its search chose: MAP@R on the held-out training classes, mean over the
# folds. A line ends early if it had stayed below its best value for a while. The dotted line is the target.

# %%
HIGHLIGHTED = ("pddm", "pddm_batch", "mined_euclidean", "mahalanobis")


def show(dataset, x):
    """The curves of one data set; PDDM, its rivals and the best baseline are in colour."""
    rows, best = log[log["dataset"] == dataset], best_baseline(chosen, dataset)
    names = [name for name in dict.fromkeys((*HIGHLIGHTED, best["method"])) if name in set(rows["run"])]
    named = {name: METHODS[name].title for name in names}
    display(learning(rows, named, target=best["value"], x=x, title=dataset))


for dataset in chosen["dataset"].unique():
    show(dataset, "step")

# %% [markdown]
# ## Second by second
#
# The same lines over the time of the training steps, with one thread on one core. The time to measure is not included.

# %%
for dataset in chosen["dataset"].unique():
    show(dataset, "seconds")

# %% [markdown]
# ## When each method reaches the target
#
# A dash means that it did not reach it within the allowed steps. Values are measured every `eval_every` steps, so the
# numbers are no more precise than that.

# %%
reached = convergence(record, chosen)
for dataset in reached["dataset"].unique():
    target = reached.loc[reached["dataset"] == dataset, "target"].iloc[0]
    best = METHODS[best_baseline(chosen, dataset)["method"]].title
    display(Markdown(f"**{dataset}**: the target is {100 * target:.1f} %, the final value of {best}"))
    display(Markdown(tables.markdown(tables.convergence_table(reached, dataset))))
