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
# # Use a model on what it wasn't trained on
#
# Training needs many labelled pictures. Often there are none of the things you want to find, but plenty of others. Can you
# use a model that was trained on those? This is **transfer**. The extreme case is **zero-shot**: no picture of the classes
# was in the training data. Every run of this lab measures this within one data set, as *unseen classes*. This notebook
# takes larger steps:
#
# * from one data set to another, in both directions: from pictograms to photos of groceries, and back;
# * from **coarse** to **fine** classes: trained to distinguish apples from milk, used to distinguish kinds of apples;
# * from one **iconic picture** of a product, as in a web shop, to photos of it in a store.
#
# Each model is compared with two others: the **pretrained** features of the same network, which cost nothing, and a model
# trained on the target's own training classes, the upper reference. If a model is not better than the pretrained
# features, its training was not worth it.

# %% tags=["parameters"]
# fmt: off
source = "emoji"  # str, Data set to train on: a name that pddm-lab data list shows, folder:PATH or imagenet:zero-shot.
target = "grocery"  # str, Data set to use the model on; grocery also has coarse classes and iconic pictures.
data_root = ""  # str, Folder with the data sets; empty: $PDDM_LAB_DATA, or ./data.
runs_root = ""  # str, Folder with the runs and the cached trunk features; empty: $PDDM_LAB_RUNS, or ./runs.
seeds = 3  # int, Trainings of each model, from seed 0 on; intervals need at least two and are wide below five.
steps = 500  # int, Steps of each training; 500 take about 20 seconds on one core.
image_size = 128  # int, Side of the pictures that the network sees, in pixels.
views = 4  # int, Versions of each training picture: its centre, and random crops with random mirroring.
study = ""  # str, Name of a study to save the numbers in; empty: do not save them.
# fmt: on

# %%
from pddm_lab.training.notebook import begin

begin(globals(), "source", "target", "data_root", "runs_root", "seeds", "steps", "image_size", "views", "study")

import pandas as pd
from IPython.display import Markdown, display

from pddm_lab.applications import tables, transfer
from pddm_lab.config import TrainConfig
from pddm_lab.config import data_root as data_folder
from pddm_lab.data.sources import grocery
from pddm_lab.figures import PROTOCOL_TITLES, applications, style_of
from pddm_lab.progress import progress_bars
from pddm_lab.study.material import Material

places = {"data_root": data_root, "runs_root": runs_root}
choices = {"preset": "joint", **places, "image_size": image_size, "resize": image_size, "views": views}
materials = {
    name: Material.load(TrainConfig.from_parameters({"dataset": name, **choices}), bar=progress_bars(False))
    for name in (source, target)
}
config = materials[target].config
parts = {name: material.dataset for name, material in materials.items()}
pd.DataFrame({
    "pictures": {name: len(data) for name, data in parts.items()},
    "classes": {name: len(data.class_names) for name, data in parts.items()},
    "training pictures": {name: len(data.train) for name, data in parts.items()},
    "training classes": {name: len(set(data.labels[data.train])) for name, data in parts.items()},
})  # fmt: skip

# %% [markdown]
# ## Training
#
# The network's trunk keeps its ImageNet weights. The models differ only in the training data of their embedding, a layer of
# 128 numbers on top. Each is trained in the same way, several times with different seeds.
#
# If the target has official coarse classes, one more model is trained on the same pictures with only the coarse names.

# %%
teachers = dict(materials)
coarse_name = f"{target}, coarse classes"
if target == "grocery":
    coarse_of = grocery.coarse_classes(data_folder(data_root))
    teachers[coarse_name] = transfer.coarse(materials[target], coarse_of)
    coarse_data = teachers[coarse_name].dataset
    display(Markdown(
        f"The training pictures have {len(set(parts[target].labels[parts[target].train]))} fine and "
        f"{len(set(coarse_data.labels[coarse_data.train]))} coarse classes."
    ))  # fmt: skip
trained = transfer.train_each(teachers, steps, range(seeds))


def only(*names):
    """The trained models of these names."""
    return {key: fit for key, fit in trained.items() if key[0] in names}


measured: list[pd.DataFrame] = []


def show(title, aim, fits, metrics):
    """Measure models on a target: a chart of R@1, and a table of means ± half of the 95 % interval over seeds."""
    table = transfer.transfer(aim, fits, config)
    measured.append(table)
    means = transfer.summary(table)
    display(applications.transferred(means, title=title))
    rows = means[means["metric"].isin(metrics)].assign(
        protocol=lambda frame: frame["protocol"].map(PROTOCOL_TITLES),
        similarity=lambda frame: [style_of(name).title for name in frame["similarity"]],
        text=lambda frame: [
            f"{100 * value:.1f}" + (f" ± {100 * (high - value):.1f}" if high == high else "")
            for value, high in zip(frame["value"], frame["high"], strict=True)
        ],
    )
    wide = rows.pivot_table(
        index=["protocol", "trained_on", "similarity"], columns="metric", values="text", aggfunc="first", sort=False
    )
    display(wide[[metric for metric in metrics if metric in wide]].fillna("–"))


# %% [markdown]
# ## From one data set to another
#
# All numbers are in %. For the model from the other data set, the classes of *both* protocols are new. Only the reference was
# trained on the "known" ones.

# %%
ALL = ("recall@1", "recall@4", "map@r", "nmi", "auc")
show(f"Trained on {source}, used on {target}", transfer.Target.of(parts[target]), only(source, target), ALL)

# %%
show(f"Trained on {target}, used on {source}", transfer.Target.of(parts[source]), only(source, target), ALL)

# %% [markdown]
# What to look for: is the model from the other data set better than the pretrained features? An embedding learns which
# differences matter and discards the others. For pictograms and for photos different things matter, and what was
# discarded is lost. The more two data sets differ, the better the pretrained features are in comparison.

# %% [markdown]
# ## From coarse classes to fine ones
#
# The model trained on coarse names never learned that a Granny Smith is not a Pink Lady. Does it still separate them? The
# reference was trained on the fine names of the same pictures.

# %%
if coarse_name in teachers:
    show(
        "Trained on coarse classes, used on fine ones",
        transfer.Target.of(parts[target]),
        only(target, coarse_name),
        ALL,
    )
else:
    display(Markdown(f"{target} has no official coarse classes; the data set grocery has them."))

# %% [markdown]
# ## From an iconic picture to photos
#
# The gallery has only one clean picture of each product, and the queries are photos from shops. R@1 is the share of photos
# whose product is recognised. For unseen classes this is zero-shot. Of known classes the network has seen photos, but
# never the iconic pictures.

# %%
icons = grocery.iconic_images(data_folder(data_root)) if target == "grocery" else {}
if icons:
    aim = transfer.Target.iconic(parts[target], icons)
    for protocol in aim.protocols:
        text = f"{PROTOCOL_TITLES[protocol.name]}: {len(protocol.query)} photos, one picture of {len(protocol.gallery)} classes"
        display(Markdown(text))
    show("One iconic picture a class", aim, trained, ("recall@1", "recall@2", "recall@4", "auc"))
else:
    display(Markdown(f"{target} has no iconic pictures; the data set grocery has them."))

# %%
if study:
    from pddm_lab.study.cells import Study

    settings = {"steps": steps, "image_size": image_size, "views": views}
    kept = Study.create(study, runs_root)
    transfer.keep(kept, pd.concat(measured), settings)
    pages = tables.write(kept)
    display(Markdown(f"Saved in the study `{study}`; its tables are in `{pages[0].parent}`."))

# %% [markdown]
# ## ImageNet
#
# The paper trains on some classes of ImageNet and tests on others: **zero-shot** on ImageNet-2010, and **transfer** to the
# ten thousand classes of ImageNet-10K. If you have an ImageNet in the folder of data sets (`imagenet/<wnid>/<image>`, with
# `train_classes.txt` for transfer), the same protocols are available as data sets:
#
#     pddm-lab train paper --dataset imagenet:zero-shot --weights none
#     pddm-lab train paper --dataset imagenet:transfer --weights ilsvrc-only.pth
#
# Weights that were pretrained on all of ImageNet have seen the test classes, so with them it is not zero-shot. The paper's
# own lists of classes and its numbers are not available.
#
# In a terminal, `pddm-lab transfer demo --to grocery --reference grocery` uses a finished run on another data set, and
# `--iconic` searches iconic pictures.
