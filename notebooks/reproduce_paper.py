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
# Huang, Loy and Tang, *Local Similarity-Aware Deep Feature Embedding* (NIPS 2016), use two data sets, birds (CUB-200-2011)
# and cars (Cars196). They train on one half of the classes and search among the other half, which the network has never
# seen. **Recall@K** is the share of pictures with another picture of their class among the first K results.
#
# Nobody has published a reproduction of these numbers so far. This notebook is the whole recipe. With a GPU and the data it
# trains the preset `paper`, resumes if it was stopped, and fills the table. Without them it shows the published numbers
# beside an empty row. Nothing here is estimated or copied.

# %% tags=["parameters"]
# fmt: off
dataset = "cub200"  # str, cub200 or cars196.
train = False  # bool, Train, or resume a stopped training; needs the data, and a GPU to finish within a day.
seeds = [0]  # list, Seeds, one training each; the table shows their mean.
changes: dict = {}  # dict, Fields that differ from the preset `paper`, such as {"devices": 2} or {"weights": "googlenet.pth"}.
data_root = ""  # str, Folder with the data sets; empty: $PDDM_LAB_DATA, or ./data.
runs_root = ""  # str, Folder with the runs; empty: $PDDM_LAB_RUNS, or ./runs.
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
# The preset uses the paper's settings: GoogLeNet pretrained on ImageNet, 227 pixels, features of 128 numbers, the single
# hardest quadruplet of each batch, the hinges on the scores (margin 0.5) and on the distances (margin 1.0, weight 0.5),
# weight decay 5e-4. Where no source gives a value, it is this lab's choice: stochastic gradient descent with a learning
# rate of 0.01, a tenth of that for the trunk, 20 000 batches of 64, crops from 256 pixels. The number of steps is chosen on
# a fifth of the training classes, and then all of them are trained on (`refit`). The test classes are used once, at the end.

# %%
pd.Series(
    {name: value for name, value in config.to_dict().items() if name not in ("notes", "runs_root", "data_root")},
    name="value",
).to_frame()

# %% [markdown]
# ## What it takes
#
# From the repository's folder, on a machine with a GPU of 8 GB or more:
#
#     pddm-lab data fetch cub200                       # 1.1 GB; cars196: 1.9 GB
#     papermill notebooks/reproduce_paper.ipynb out.ipynb -p dataset cub200 -p train True
#
# The GPU is used automatically, in bf16 if it supports that and in fp16 otherwise. A batch is 64 pictures of 227 pixels. If
# the processor decodes them more slowly than the GPU learns, more cores help (`workers`). Ctrl-C, or the dashboard's stop
# button, ends the training after its current step, and **the same command resumes it**: a checkpoint is written every 1000
# steps. For three seeds add `-y "seeds: [0, 1, 2]"`, for two GPUs `-y "changes: {devices: 2}"`. Without an internet
# connection you need the weights as a file: `-y "changes: {weights: googlenet.pth}"`.
#
# The longest it can take, from the number of pictures and the pictures per second:

# %%
count = len(seeds) * reproduction.training_images(config)
display(Markdown(f"At most {count:,} training pictures for {len(seeds)} {'seed' if len(seeds) == 1 else 'seeds'}."))
estimate = reproduction.hours(config)
estimate["hours"] = (len(seeds) * estimate["hours"]).map("{:,.1f}".format)
estimate.rename(columns={"images_per_second": "pictures per second"}).set_index("pictures per second")

# %%
if source.is_present(root):
    display(Markdown(f"{source.title} is in `{root}`. Licence: {source.licence}. {source.attribution}"))
else:
    display(
        Markdown(
            f"**{source.title} is not available.** {how_to_get(dataset, root)} Expected in `{root / source.folder_name}`."
        )
    )

# %% [markdown]
# ## Training

# %%
if train:
    runs = [reproduction.train_or_resume(one) for one in configs]
else:
    before = [reproduction.existing_run(one) for one in configs]
    runs = [run for run in before if run and run.status == "finished"]
    for one, run in zip(configs, before, strict=True):
        state = f"is {run.status} at step {run.info['step']} of {run.info['steps_total']}" if run else "has not started"
        display(Markdown(f"`{one.run_name}` {state}. Set `train` to true to train or resume it."))

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
# Recall@K in %, unseen classes. *D* ranks by the Euclidean distance, *S* by the PDDM score. "Printed" numbers appear in two
# texts. The others appear in one text only and could not be checked.

# %%
table = reproduction.table(dataset, runs)
table.set_index("method").map(
    lambda value: "" if value != value else f"{value:.1f}" if isinstance(value, float) else value
)

# %% [markdown]
# For comparison, the results of later methods with larger networks on the same split (R@1 in %):

# %%
pd.DataFrame(published.STRONGER[dataset], columns=["method", "R@1"]).set_index("method")
