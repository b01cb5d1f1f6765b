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
# PDDM is made of parts: a loss on scores, a loss on distances, margins, a branch that sees the place of a pair. What is
# each of them for? An **ablation** changes one choice at a time and leaves all others as they are. If nothing happens,
# the part wasn't needed.
#
# The two losses, as in `notebooks/train.ipynb`: $E_m$ asks that a pair of one class scores higher than the hardest pairs
# of two classes, by $\alpha$; $E_e$ asks the same of the distances of the embedding, by $\beta$; together they are
# $E = E_m + \lambda E_e$. The unit sees $u = |f_i - f_j|$, how two features differ, and $v = (f_i + f_j)/2$, where they
# lie.

# %% tags=["parameters"]
# fmt: off
study = ""  # str, Name of a study to show, such as main; empty: carry out a small one with the choices below.
datasets = ["digits"]  # list, Data sets: emoji, grocery, digits, cub200, cars196, products, or folder:PATH.
variants = ["default", "e_m_only", "e_e_only", "no_position"]  # list, Variants by name; empty: all.
seeds = 2  # int, Trainings on all training classes, each measured once.
steps = 100  # int, The most a configuration trains while its number of steps is chosen.
eval_every = 50  # int, Steps between measurements.
base: dict = {}  # dict, Fields of TrainConfig to change for all methods, such as a smaller image_size.
processes = 2  # int, Trainings at once, each on one core.
data_root = ""  # str, Folder that holds the data sets; empty: $PDDM_LAB_DATA, else ./data.
runs_root = ""  # str, Folder that holds the runs; empty: $PDDM_LAB_RUNS, else ./runs.
# fmt: on

# %% [markdown]
# The whole ablation: `pddm-lab compare --part ablation`, then `study = "main"` here. What is set above is small, to see
# how it works: its numbers mean little.

# %%
from pddm_lab.training.notebook import begin

begin(
    globals(),
    "variants",
    "study",
    "datasets",
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
from pddm_lab.study.methods import ABLATIONS
from pddm_lab.study.statistics import paired, searched, summary

plan = Plan(
    ablation_datasets=tuple(datasets), parts=("ablation",), variants=tuple(variants) or tuple(ABLATIONS),
    seeds=seeds, ablation_seeds=seeds, steps=steps, eval_every=eval_every,
    base={**base, **{name: value for name, value in (("data_root", data_root), ("runs_root", runs_root)) if value}},
)  # fmt: skip
of = opened(study, plan, runs_root, processes)
cells = table(of.path)
cells = cells[cells["part"] == "ablation"]
found, chosen = summary(cells, "ablation"), searched(of, "ablation")

# %% [markdown]
# ## What each choice does
#
# Every variant has the settings of the preset `quick` but for the one that is named, and chooses its number of steps on
# training classes that were left out, as in `notebooks/compare.ipynb`. Mean over the seeds, and half of the 95 %
# interval. Two rows deserve a word. In *E_e only* the unit doesn't shape the embedding: it learns beside, on features
# that it can't change (*detached*), and on the embedding's own hard quadruplets or on those that $S$ mines.

# %%
columns = ("recall@1", "map@r", *tables.SEPARATION)
for dataset in found["dataset"].unique():
    for protocol in tables.PROTOCOLS:
        display(Markdown(f"**{dataset}, {tables.PROTOCOLS[protocol]}**"))
        display(Markdown(tables.markdown(tables.wide(found, "ablation", dataset, protocol, columns))))

# %%
for dataset in found["dataset"].unique():
    rows = found[found["dataset"] == dataset].rename(columns={"half": "std"})
    rows = rows.assign(run=rows["method"].map(tables.titles("ablation")))
    display(figures.comparison(rows, ["map@r"], title=f"{dataset}: MAP@R, mean and 95 % interval"))

# %% [markdown]
# ## The difference to the default
#
# Seed by seed, MAP@R of the Euclidean ranking and of $S$: what is lost (below 0) or gained by the change. An interval
# that holds 0 says that these seeds can't tell.

# %%
values = cells[cells["metric"] == "map@r"].set_index(["dataset", "protocol", "similarity", "method", "seed"])["value"]
lines = []
for (dataset, protocol, similarity), group in values.groupby(["dataset", "protocol", "similarity"], sort=False):
    of_group = group.droplevel([0, 1, 2])
    if similarity == "mahalanobis" or "default" not in of_group.index:
        continue
    for method in of_group.index.unique("method").drop("default"):
        both = of_group[method].to_frame("own").join(of_group["default"].rename("default"), how="inner")
        difference, half, _ = paired(both["own"].tolist(), both["default"].tolist())
        title = tables.titles("ablation")[method]
        lines.append((dataset, protocol, similarity, title, tables.number(difference, half, 100, 1)))

import pandas as pd

head = ["data", "protocol", "ranked by", "change", "MAP@R, difference in %"]
display(Markdown(tables.markdown(pd.DataFrame(lines, columns=head))))

# %% [markdown]
# ## How long each trained
#
# A variant that learns more slowly trains longer, as far as the cap: where the chosen number of steps is the cap itself,
# it might have gone further.

# %%
for dataset in chosen["dataset"].unique():
    display(Markdown(f"**{dataset}**"))
    display(Markdown(tables.markdown(tables.choices(chosen, dataset))))
