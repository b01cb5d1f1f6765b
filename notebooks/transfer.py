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
# Training needs many labelled pictures. Often there are none of the things one wants to find, but plenty of others. Can a
# model that was trained on those be used as it is? That is **transfer**. In the extreme case, **zero-shot**, not one
# picture of the classes was seen in training; what every run of this lab measures as *unseen classes* is just that, within
# one data set. This notebook takes larger steps:
#
# * from one data set to another, both ways: pictograms to photos of groceries, and back;
# * from **coarse** classes to **fine** ones: trained to tell apples from milk, asked to tell apples apart;
# * from one **iconic picture** of a product, as a web shop shows it, to photos of it in a shop.
#
# Each model stands between two others: the **pretrained** features of the same network, which cost nothing, and a model
# that was trained on the target's own training classes, the upper reference. It is no bargain if it is not better than the
# first.

# %% tags=["parameters"]
# fmt: off
source = "emoji"  # str, Data set to train on: emoji, grocery, cub200, cars196, products, digits, folder:PATH or imagenet:zero-shot.
target = "grocery"  # str, Data set to use the model on; grocery also has coarse classes and iconic pictures.
data_root = ""  # str, Folder that holds the data sets; empty: $PDDM_LAB_DATA, else ./data.
runs_root = ""  # str, Folder that holds the runs and the trunk's features; empty: $PDDM_LAB_RUNS, else ./runs.
seeds = 3  # int, Trainings of each model, from seed 0 on; intervals need two, and are wide below five.
steps = 500  # int, Steps of each training: some 20 seconds each on one core.
image_size = 128  # int, Side of the pictures that the network sees, in pixels.
views = 4  # int, Versions of each training picture: its centre, and random crops with a mirror.
study = ""  # str, Name of a study to keep the numbers in, beside its methods; empty: keep none.
# fmt: on

# %%
from pddm_lab.training.notebook import begin

begin(
    globals(), "source", "target", "data_root", "runs_root", "seeds", "steps", "image_size", "views", "study"
)  # fmt: skip

import pandas as pd
from IPython.display import Markdown, display

from pddm_lab.applications import tables as beyond_tables
from pddm_lab.applications import transfer
from pddm_lab.config import TrainConfig
from pddm_lab.config import data_root as data_folder
from pddm_lab.data.sources import grocery
from pddm_lab.figures import PROTOCOL_TITLES, applications, style_of
from pddm_lab.progress import progress_bars
from pddm_lab.study.material import Material

choices = {
    "data_root": data_root,
    "runs_root": runs_root,
    "image_size": image_size,
    "resize": image_size,
    "views": views,
}
materials = {
    name: Material.load(TrainConfig.from_parameters({"dataset": name, **choices}), bar=progress_bars(False))
    for name in (source, target)
}
config = materials[target].config
parts = {name: material.dataset for name, material in materials.items()}
pd.DataFrame({
    "pictures": {name: len(data) for name, data in parts.items()},
    "classes": {name: len(data.class_names) for name, data in parts.items()},
    "trained on, pictures": {name: len(data.train) for name, data in parts.items()},
    "trained on, classes": {name: len(set(data.labels[data.train])) for name, data in parts.items()},
})  # fmt: skip

# %% [markdown]
# ## Training
#
# The network's trunk stays as ImageNet left it, so all that differs between the models is what their embedding, a layer of
# 128 numbers on top, was trained on. Each is trained in the same way, several times with other seeds.
#
# Where the target has official coarse classes, one more model trains on the same pictures with the coarse names alone.

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


tables: list[pd.DataFrame] = []


def show(title, aim, fits, metrics):
    """Measure models on a target; a chart of R@1 and a table of means ± half a 95 % interval over the seeds."""
    table = transfer.transfer(aim, fits, config)
    tables.append(table)
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
# All numbers are in %. For the model from elsewhere *both* tables are of classes that it never met; only the reference
# knows the "known" ones.

# %%
ALL = ("recall@1", "recall@4", "map@r", "nmi", "auc")
show(f"Trained on {source}, used on {target}", transfer.Target.of(parts[target]), only(source, target), ALL)

# %%
show(f"Trained on {target}, used on {source}", transfer.Target.of(parts[source]), only(source, target), ALL)

# %% [markdown]
# What to look for: is the model from elsewhere better than the pretrained features? An embedding learns which differences
# count and throws away the others. Between pictograms and photos the differences that count are not the same, and what was
# thrown away is gone. The further apart two data sets are, the more the pretrained features are worth.

# %% [markdown]
# ## From coarse classes to fine ones
#
# The model that knows coarse names was never told that a Granny Smith is no Pink Lady. Does it still keep them apart? The
# reference had the fine names of the same pictures.

# %%
if coarse_name in teachers:
    show(
        "Trained on coarse classes, used on fine ones",
        transfer.Target.of(parts[target]),
        only(target, coarse_name),
        ALL,
    )
else:
    display(Markdown(f"{target} has no official coarse classes; grocery has."))

# %% [markdown]
# ## From an iconic picture to photos
#
# One clean picture of each product is all there is to search; the queries are photos from shops. R@1 is the share of
# photos whose product is recognised: zero-shot for unseen classes, and for known ones the network has seen photos, never
# the iconic pictures.

# %%
icons = grocery.iconic_images(data_folder(data_root)) if target == "grocery" else {}
if icons:
    aim = transfer.Target.iconic(parts[target], icons)
    for protocol in aim.protocols:
        text = f"{PROTOCOL_TITLES[protocol.name]}: {len(protocol.query)} photos, one picture of {len(protocol.gallery)} classes"
        display(Markdown(text))
    show("One iconic picture a class", aim, trained, ("recall@1", "recall@2", "recall@4", "auc"))
else:
    display(Markdown(f"{target} has no iconic pictures here; grocery has."))

# %%
if study:
    from pddm_lab.study.cells import Study

    settings = {"steps": steps, "image_size": image_size, "views": views}
    kept = Study.create(study, runs_root)
    transfer.keep(kept, pd.concat(tables), settings)
    pages = beyond_tables.write(kept)
    display(Markdown(f"Kept in the study `{study}`, as tables in `{pages[0].parent}`."))

# %% [markdown]
# ## ImageNet
#
# The paper trains on some classes of ImageNet and tests on others: **zero-shot** on ImageNet-2010 and **transfer** to the
# ten thousand classes of ImageNet-10K. Where an ImageNet lies in the folder of data sets (`imagenet/<wnid>/<image>`, with
# `train_classes.txt` for transfer), the same protocols run as data sets of their own:
#
#     pddm-lab train paper --dataset imagenet:zero-shot --weights none
#     pddm-lab train paper --dataset imagenet:transfer --weights ilsvrc-only.pth
#
# Weights that were pretrained on all of ImageNet have met the test classes: with those it is no zero-shot. The paper's own
# lists of classes and its numbers are not at hand.
#
# In a terminal: `pddm-lab transfer demo --to grocery --reference grocery` uses a finished run on another data set, and
# `--iconic` searches iconic pictures.
