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
# # Reproduce the paper's table
#
# Huang, Loy and Tang, *Local Similarity-Aware Deep Feature Embedding* (NIPS 2016), train on one half of the classes of two
# data sets, birds (CUB-200-2011) and cars (Cars196), and search among the other half, which the network has never met.
# **Recall@K** is the share of pictures that find another of their class among the first K.
#
# Nobody has published a reproduction of their numbers so far. This notebook is the whole recipe: with a GPU and the data
# it trains the preset `paper`, goes on where it was stopped, and fills the table. Without, it shows the published numbers
# beside an empty row. An empty row is honest: nothing here is estimated or copied.

# %% tags=["parameters"]
# fmt: off
dataset = "cub200"  # str, cub200 or cars196.
train = False  # bool, Train, or go on with a training that stopped; needs the data, and a GPU to end the same day.
seeds = [0]  # list, Trainings, one a seed; the table holds their mean.
changes: dict = {}  # dict, Choices that differ from the preset `paper`, such as {"devices": 2} or {"weights": "googlenet.pth"}.
data_root = ""  # str, Folder that holds the data sets; empty: $PDDM_LAB_DATA, else ./data.
runs_root = ""  # str, Folder that holds the runs; empty: $PDDM_LAB_RUNS, else ./runs.
# fmt: on

# %%
from pddm_lab.training.notebook import begin

begin(globals(), "dataset", "train", "seeds", "changes", "data_root", "runs_root")

import pandas as pd
from IPython.display import Markdown, display

from pddm_lab import figures
from pddm_lab.applications import reproduction
from pddm_lab.config import data_root as data_folder
from pddm_lab.data.dataset import SOURCES
from pddm_lab.data.source import how_to_get
from pddm_lab.study import published

pd.set_option("display.max_colwidth", None)
places = {"data_root": data_root, "runs_root": runs_root}
configs = [
    reproduction.recipe(dataset, {"run_name": f"paper-{dataset}-seed{seed}", **places, **changes, "seed": seed})
    for seed in seeds
]
config = configs[0]
source, root = SOURCES[dataset], data_folder(data_root)

# %% [markdown]
# ## The recipe
#
# What the paper fixes, the preset takes from it: GoogLeNet pretrained on ImageNet, 227 pixels, features of 128 numbers,
# the one hardest quadruplet of each batch, the hinges on the scores (margin 0.5) and on the distances (margin 1.0, weight
# 0.5), weight decay 5e-4. What no source settles is this lab's choice: stochastic gradient descent at 0.01 with a tenth of
# that for the trunk, 20 000 batches of 64, crops from 256 pixels. The number of steps is chosen on a fifth of the training
# classes, then all of them are trained on (`refit`). The test classes are looked at once, at the end.

# %%
pd.Series(
    {name: value for name, value in config.to_dict().items() if name not in ("notes", "runs_root", "data_root")},
    name="choice",
).to_frame()

# %% [markdown]
# ## What it takes
#
# From the repository's folder, on a machine with a GPU of 8 GB or more:
#
#     pddm-lab data fetch cub200                       # 1.1 GB; cars196: 1.9 GB
#     papermill notebooks/reproduce_paper.ipynb out.ipynb -p dataset cub200 -p train True
#
# The GPU is taken by itself, in bf16 where it can (fp16 on older ones). A batch is 64 pictures at 227 pixels; where the
# processor decodes them slower than the GPU learns, more cores help (`workers`). Ctrl-C, or the dashboard's stop button,
# ends the training after its step, and **running the same command again goes on with it**: a checkpoint is written every
# 1000 steps. Three seeds are `-y "seeds: [0, 1, 2]"`, two GPUs `-y "changes: {devices: 2}"`. A machine without a network
# needs the weights as a file: `-y "changes: {weights: googlenet.pth}"`.
#
# The longest it can take, from the number of pictures and how many pass through a second:

# %%
count = len(seeds) * reproduction.training_images(config)
display(Markdown(f"{count:,} training pictures at most, for {len(seeds)} {'seed' if len(seeds) == 1 else 'seeds'}."))
estimate = reproduction.hours(config)
estimate["hours"] = (len(seeds) * estimate["hours"]).map("{:,.1f}".format)
estimate.rename(columns={"images_per_second": "pictures a second"}).set_index("pictures a second")

# %%
if source.is_present(root):
    display(Markdown(f"{source.title} is in `{root}`. Licence: {source.licence}. {source.attribution}"))
else:
    display(
        Markdown(f"**{source.title} is not here.** {how_to_get(dataset, root)} Expected `{root / source.folder_name}`.")
    )

# %% [markdown]
# ## Training

# %%
if train:
    runs = [reproduction.attempt(one) for one in configs]
else:
    before = [reproduction.begun(one) for one in configs]
    runs = [run for run in before if run and run.status == "finished"]
    for one, run in zip(configs, before, strict=True):
        state = f"is {run.status} at step {run.info['step']} of {run.info['steps_total']}" if run else "is not begun"
        display(Markdown(f"`{one.run_name}` {state}. With `train` it is trained, or gone on with."))

# %%
for run in runs:
    log = run.metrics()
    minutes = run.seconds / 60
    display(
        Markdown(f"`{run.path}`: best step {run.info['best_step']}, {minutes:,.0f} minutes on {run.info['device']}.")
    )
    display(figures.losses(log[log["phase"] == log["phase"].iloc[0]], title="Loss of the training batches"))
    if (log["protocol"] == "validation").any():
        display(figures.curves(log, "map@r", title="Validation classes"))

# %% [markdown]
# ## The table
#
# Recall@K in %, unseen classes. *D* ranks by the Euclidean distance, *S* by the PDDM score. Numbers that a second text
# prints as well are "printed"; the others come from one text alone.

# %%
found = reproduction.table(dataset, runs)
found.set_index("method").map(
    lambda value: "" if value != value else f"{value:.1f}" if isinstance(value, float) else value
)

# %% [markdown]
# For orientation, what later methods reach on the same split with larger networks (R@1 in %):

# %%
pd.DataFrame(published.STRONGER[dataset], columns=["method", "R@1"]).set_index("method")
