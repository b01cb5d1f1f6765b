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
# # The parts of PDDM
#
# PDDM has several parts: a loss on scores, a loss on distances, two margins, and a branch that sees the place of a pair.
# What does each of them do? An **ablation** changes one setting at a time and keeps all others. If the result stays the
# same, the part was not needed.
#
# The two losses are explained in `notebooks/train.ipynb`: $E_m$ asks that a pair of one class scores higher than the
# hardest pairs of two classes, by $\alpha$. $E_e$ asks the same of the distances of the embedding, by $\beta$. Together
# they are $E = E_m + \lambda E_e$. The unit sees $u = |f_i - f_j|$, the difference of two features, and
# $v = (f_i + f_j)/2$, their place.

# %% tags=["parameters"]
# fmt: off
study = ""  # str, Name of a study to show, such as main; empty: run a small one with the settings below.
datasets = ["digits"]  # list, Data sets: names that pddm-lab data list shows, or folder:PATH.
variants = ["default", "e_m_only", "e_e_only", "no_position"]  # list, Names of variants; empty: all.
seeds = 2  # int, Final trainings per method on all training classes, each measured once.
steps = 100  # int, Most training steps per configuration; the number of steps is chosen up to this limit.
eval_every = 50  # int, Steps between measurements.
base: dict = {}  # dict, Fields of TrainConfig to change for all methods, such as image_size.
processes = 2  # int, Trainings that run at the same time, each on one core.
data_root = ""  # str, Folder with the data sets; empty: $PDDM_LAB_DATA, or ./data.
runs_root = ""  # str, Folder with the runs; empty: $PDDM_LAB_RUNS, or ./runs.
# fmt: on

# %% [markdown]
# For the whole ablation run `pddm-lab compare --part ablation`, then set `study = "main"` here. The settings above are small
# and only show how it works; their numbers mean little.

# %%
from pddm_lab.training.notebook import begin

begin(
    globals(), "variants", "study", "datasets", "seeds", "steps", "eval_every", "base", "processes", "data_root",
    "runs_root",
)  # fmt: skip

from IPython.display import Markdown, display

from pddm_lab import figures
from pddm_lab.study import table, tables
from pddm_lab.study.methods import ABLATIONS
from pddm_lab.study.plan import Plan, open_study
from pddm_lab.study.statistics import paired_test, search_results, summary

plan = Plan(
    ablation_datasets=tuple(datasets), parts=("ablation",), variants=tuple(variants) or tuple(ABLATIONS),
    seeds=seeds, ablation_seeds=seeds, steps=steps, eval_every=eval_every,
    base={**base, **{name: value for name, value in (("data_root", data_root), ("runs_root", runs_root)) if value}},
)  # fmt: skip
record = open_study(study, plan, runs_root, processes)
cells = table(record.path)
cells = cells[cells["part"] == "ablation"]
results, chosen = summary(cells, "ablation"), search_results(record, "ablation")

# %% [markdown]
# ## What each choice does
#
# Every variant has the settings of the preset `joint`, except for the one in its name. Its number of steps is chosen on
# held-out training classes, as in `notebooks/compare.ipynb`. The table shows the mean over the seeds and half of the 95 %
# interval. In the two rows *E_e only* the unit does not shape the embedding. It learns beside it, on features that it
# cannot change (*detached*), from the hard quadruplets of either the embedding or $S$.

# %%
columns = ("recall@1", "map@r", *tables.SEPARATION)
for dataset in results["dataset"].unique():
    for protocol in tables.PROTOCOLS:
        display(Markdown(f"**{dataset}, {tables.PROTOCOLS[protocol]}**"))
        display(Markdown(tables.markdown(tables.metrics_table(results, "ablation", dataset, protocol, columns))))

# %%
for dataset in results["dataset"].unique():
    rows = results[results["dataset"] == dataset].rename(columns={"half": "std"})
    rows = rows.assign(run=rows["method"].map(tables.method_titles("ablation")))
    display(figures.comparison(rows, ["map@r"], title=f"{dataset}: MAP@R, mean and 95 % interval"))

# %% [markdown]
# ## The difference to the default
#
# Seed by seed, the difference in MAP@R of the Euclidean ranking and of $S$: below 0 the change makes it worse. If the
# interval contains 0, these seeds show no difference.

# %%
values = cells[cells["metric"] == "map@r"].set_index(["dataset", "protocol", "similarity", "method", "seed"])["value"]
lines = []
for (dataset, protocol, similarity), group in values.groupby(["dataset", "protocol", "similarity"], sort=False):
    of_group = group.droplevel([0, 1, 2])
    if similarity == "mahalanobis" or "default" not in of_group.index:
        continue
    for method in of_group.index.unique("method").drop("default"):
        both = of_group[method].to_frame("own").join(of_group["default"].rename("default"), how="inner")
        difference, half, _ = paired_test(both["own"].tolist(), both["default"].tolist())
        title = tables.method_titles("ablation")[method]
        lines.append((dataset, protocol, similarity, title, tables.format_number(difference, half, 100, 1)))

import pandas as pd

head = ["data", "protocol", "ranked by", "change", "MAP@R, difference in %"]
display(Markdown(tables.markdown(pd.DataFrame(lines, columns=head))))

# %% [markdown]
# ## How long each trained
#
# A variant that learns more slowly trains longer, up to the limit. If the chosen number of steps is the limit itself, longer
# training might have been better.

# %%
for dataset in chosen["dataset"].unique():
    display(Markdown(f"**{dataset}**"))
    display(Markdown(tables.markdown(tables.search_table(chosen, dataset))))
