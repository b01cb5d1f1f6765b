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
# # Train a similarity, and look at what it learned
#
# Two photos of the same thing can look less alike than two photos of different things. **Metric learning** trains a
# network to say how similar two images are, so that images of one class end up close together, even for classes it has
# never seen. This notebook trains one such network, a *run*, and looks at it from all sides: how the training went,
# which images it found hard, how well it tells same from different, and what it finds when you search with an image.
#
# It compares two ways to say "similar":
#
# * the **Euclidean distance** $D(i, j) = \lVert f_i - f_j \rVert$ between two feature vectors: one ruler for the whole
#   space;
# * the **PDDM score** $S(i, j)$, a small network that also sees *where* in the space the two vectors lie, and can use
#   another ruler there (Huang, Loy and Tang, *Local Similarity-Aware Deep Feature Embedding*, NIPS 2016).
#
# Run the cells from top to bottom. With the preset `quick` the training takes about a minute on a laptop.

# %% [markdown]
# ## What to train
#
# Every choice of a training is here; `None` stands for the preset's own value, which is in square brackets. Change some
# and run the notebook again, or leave it as it is and pass them from outside:
#
#     pddm-lab train quick --dataset emoji --steps 300
#     papermill notebooks/train.ipynb out.ipynb -p dataset emoji -p steps 300

# %% tags=["parameters"]
# fmt: off
preset = "quick"  # str, Name of the preset these choices started from.
dataset = "emoji"  # str, emoji, grocery, cub200, cars196, products, digits, or folder:PATH for any root/<class>/<image>.
data_root = None  # str, Folder that holds the data sets; empty: $PDDM_LAB_DATA, else ./data.
runs_root = None  # str, Folder that holds the runs; empty: $PDDM_LAB_RUNS, else ./runs.
run_name = None  # str, Folder name of the run; empty: dataset, preset and time.
notes = None  # str, Free text kept with the run.
known_query_share = None  # float, Share of each training class held out as queries of the known classes, where a data set names none; 0 to 0.5. [0.2; paper 0.0]
val_class_share = None  # float, Share of the training classes set apart to choose the best step on; 0 to 0.5, 0 keeps the last step. [0.2]
split_seed = None  # int, Seed of the class splits; apart from `seed`, so that several seeds share their splits. [0]
trunk = None  # str, efficientnet_lite0, googlenet, or any torchvision classification model by name. ['efficientnet_lite0'; paper 'googlenet']
weights = None  # str, imagenet, none, or the path of a .pth or .safetensors state dict of the trunk. ['imagenet']
resize = None  # int, Shorter side an image is scaled to before the crop, in pixels. [128; finetune 112; paper 256]
image_size = None  # int, Side of the square crop the trunk sees, in pixels: centred to evaluate, random with a mirror to train. [128; finetune 96; paper 227]
freeze_trunk = None  # bool, Train on features of the pretrained trunk, computed once and kept on disk by content. [True; finetune False; paper False]
views = None  # int, With freeze_trunk, versions of each training image to train on: its centre, and random crops with a mirror. [4]
pool_power = None  # float, Power of the trunk's pooled features before the head: 0.5 takes signed square roots, 1 leaves them. [0.5; finetune 1.0; paper 1.0]
dim = None  # int, Embedding dimensions (d). [128]
similarity = None  # str, The similarity that the loss trains. ['pddm']
unit_hidden = None  # int, Width of the PDDM unit's layers; 0: the same as dim, as in the paper. [0]
unit_dropout = None  # float, Dropout after each layer of the PDDM unit; 0 to 1. [0.0]
unit_normalize = None  # bool, L2-normalise u and v before the PDDM unit's first layers (one text does; measured worse). [False]
unit_position = None  # bool, Let the PDDM unit see the place v of a pair; without it S is one learned global measure of the difference u. [True]
unit_global = None  # float, Initial g of the score W_s c + b_s - g D, in which the unit corrects the distance; 0: no D, as in the paper. [0.0; lab 1.0]
unit_detached = None  # bool, Let the unit learn on detached features, so that E_m leaves the embedding as E_e makes it. [False; lab True]
familiarity = None  # float, Cosine to the nearest training class at which the unit and the pretrained features correct D by half; 0: off. [0.0; lab 0.55]
mining = None  # str, anchor: a hard quadruplet for every item of a batch. batch: the paper's one hardest quadruplet of a batch. ['anchor'; paper 'batch']
mining_similarity = None  # str, The similarity that mines; empty: the one that is trained.
loss = None  # str, quadruplet: PDDM+Quadruplet (both hinges). triplet: PDDM+Triplet (i, j, k only). ['quadruplet']
score_margin = None  # float, Margin between scores of the hard positive and each hard negative (alpha), in score units. [0.5]
distance_margin = None  # float, Margin between distances of the embedding (beta), in units of D, or of its square with squared_distance. [1.0]
embedding_weight = None  # float, Weight of the embedding's own hinge E_e beside E_m (lambda). [0.5]
squared_distance = None  # bool, Use the squared Euclidean distance in E_e; no source settles it. [False]
steps = None  # int, Training steps (batches). [500; finetune 400; paper 20000]
classes_per_batch = None  # int, Classes in a batch (P). [32; finetune 16; paper 16]
images_per_class = None  # int, Images of each class in a batch (K). [4]
optimizer = None  # str, adamw, or sgd with momentum 0.9. ['adamw'; paper 'sgd']
lr = None  # float, Learning rate of the embedding head and the similarities. [0.0005; finetune 0.001; paper 0.01]
trunk_lr_scale = None  # float, The trunk's learning rate as a share of lr; unused with freeze_trunk. [0.1]
weight_decay = None  # float, Weight decay (gamma). [0.0005]
schedule = None  # str, Learning rate after the warm-up: constant, cosine to 0, or step: divided by 10 at 1/2 and 3/4 of the steps. ['constant'; finetune 'cosine']
warmup_steps = None  # int, Steps in which the learning rate rises linearly from 0. [0; finetune 20]
clip_norm = None  # float, Largest L2 norm of the gradient; 0: no clipping. [0.0; finetune 1.0]
average = None  # float, Decay per step of the moving average of the weights, which a run measures and keeps; 0: the last weights. [0.99; finetune 0.0; paper 0.0]
eval_every = None  # int, Steps between measurements on the validation classes. [50; paper 1000]
selection = None  # str, The similarity whose MAP@R on the validation classes chooses the best step. ['euclidean']
selection_tolerance = None  # float, Standard errors a step may lie below the best and still be as good; the latest such is chosen; 0: the best. [1.0]
refit = None  # str, Then train again on all training classes: for as many passes over them, as many steps, or not at all. ['passes']
seed = None  # int, Seed of the weights, the batches and the augmentation. [0]
deterministic = None  # bool, Ask torch for deterministic algorithms only (slower on a GPU). [False]
device = None  # str, auto: cuda where there is one, else cpu. ['auto']
devices = None  # int, Processes, one device each; more than one trains with DDP (gloo on CPUs, nccl on GPUs). [1]
precision = None  # str, auto: bf16 on a GPU that has it, fp16 on an older one; on a CPU 32, or bf16 for a frozen trunk if fast. ['auto']
workers = None  # int, Processes that load images; -1: one per core but one, at most 8. [-1]
resume = None  # bool, Resume the stopped run `run_name` instead of starting a new one. [False]
# fmt: on

# %%
import os
from io import BytesIO
from pathlib import Path

import pandas as pd
import plotly.io
from IPython.display import Markdown, display

from pddm_lab import cards, figures
from pddm_lab.analysis.hardness import through_training
from pddm_lab.config import data_root as data_folder
from pddm_lab.config import runs_root as runs_folder
from pddm_lab.data.dataset import read_dataset
from pddm_lab.errors import RunError
from pddm_lab.runs.compare import compare_runs
from pddm_lab.runs.model import load_model
from pddm_lab.runs.quadruplets import Mined
from pddm_lab.training import trainer
from pddm_lab.training.notebook import config_of

config = config_of(globals())
if Path("train.ipynb").is_file() and Path("../pddm_lab").is_dir():
    os.chdir("..")  # opened in Jupyter, a notebook starts in its own folder; data and runs lie in the repository's
plotly.io.renderers.default = "plotly_mimetype"  # figures as data: small, and drawn without a network

# %% [markdown]
# ## The data
#
# An **item** is an image with a class. The classes are split in two: the network trains on one half and never meets the
# other. Two **protocols** then ask how well the search works. In each, a *query* is searched for in a *gallery*:
#
# * **unseen**: among classes that training never met. That is the case of a shop whose range changes, and the one that
#   counts most;
# * **known**: new images of the classes that were trained on.

# %%
data = read_dataset(
    config.dataset, data_folder(config.data_root), known_query_share=config.known_query_share,
    split_seed=config.split_seed, check_cache=runs_folder(config.runs_root) / ".checked",
)  # fmt: skip
protocols = [protocol for protocol in (data.unseen, data.known) if protocol]
parts = {"training": data.train} | {
    f"{protocol.name}: {side}": getattr(protocol, side) for protocol in protocols for side in ("query", "gallery")
}
pd.DataFrame({
    "items": {name: len(items) for name, items in parts.items()},
    "classes": {name: len(set(data.labels[items])) for name, items in parts.items()},
})  # fmt: skip

# %%
print(f"{data.name}: {len(data)} items in {len(data.class_names)} classes.", *data.notes, sep="\n")
print(f"Licence: {data.licence}. {data.attribution}")

# %%
number_of = {item_id: number for number, item_id in enumerate(data.ids)}


def picture(number):
    """An item as JPEG bytes, small enough to keep many in a notebook."""
    image = data.load(number)
    image.thumbnail((96, 96))
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def pictures_of(ids):
    """Item ids to JPEG bytes."""
    return {item_id: picture(number_of[item_id]) for item_id in set(ids)}


def show_classes(items, classes=4, each=6):
    """A few images of a few classes."""
    labels = pd.Series(data.labels[items], index=items)
    some = labels.drop_duplicates().sample(min(classes, labels.nunique()), random_state=config.seed)
    chosen = [item for label in some for item in labels.index[labels == label][:each]]
    named = [(data.ids[item], data.class_names[data.labels[item]]) for item in chosen]
    display(cards.image_grid(named, pictures_of(item_id for item_id, _ in named)))


display(Markdown("Some classes to train on"))
show_classes(data.train)
if data.unseen:
    display(Markdown("Some classes that training won't see"))
    show_classes(data.unseen.gallery)

# %% [markdown]
# ## The model
#
# A convolutional network, the *trunk*, turns an image into some hundreds of numbers; a linear layer makes $d$ of them
# (`dim`), which are scaled to length 1. That is the image's **feature vector** $f$ (`EmbeddingNet` in `model.py`).
#
# The **PDDM unit** (`pddm.py`) scores a pair of feature vectors. It looks at how they differ, $u$, and at where they
# lie, $v$:
#
# $$u = |f_i - f_j| \qquad v = \tfrac{1}{2}(f_i + f_j)$$
# $$u' = \frac{\max(0, W_u u + b_u)}{\lVert\cdot\rVert} \qquad v' = \frac{\max(0, W_v v + b_v)}{\lVert\cdot\rVert} \qquad
# c = \max(0, W_c [u'; v'] + b_c) \qquad S(i, j) = W_s c + b_s$$
#
# A larger $S$ is more similar. Without $v$ it could only measure differences the same way everywhere; with $v$ it can
# weigh them differently in different regions.
#
# ## What it learns from
#
# A batch holds $P$ classes with $K$ images each (`classes_per_batch`, `images_per_class`). Most pairs in it are easy
# and teach nothing, so the **miner** (`miner.py`) looks for hard ones. A **quadruplet** $(i, j, k, l)$ is a pair of one
# class that scores *low*, $i$ and $j$, and the images of other classes that score *highest* with each end, $k$ with $i$
# and $l$ with $j$.
#
# The **loss** (`losses.py`) asks that the pair of one class beats both of the others by a margin, $\alpha$ for scores
# (`score_margin`), $\beta$ for distances (`distance_margin`):
#
# $$E_m = \max(0, \alpha + S_{ik} - S_{ij}) + \max(0, \alpha + S_{jl} - S_{ij})$$
# $$E_e = \max(0, \beta + D_{ij} - D_{ik}) + \max(0, \beta + D_{ij} - D_{jl})$$
# $$E = E_m + \lambda E_e \qquad (\lambda = \texttt{embedding\_weight})$$
#
# ## Training
#
# First some of the training classes are put aside, as *validation classes*, and the network trains on the rest
# (`select`). They show after how many steps it does best on classes it hasn't met. Then it starts again and trains on
# all training classes for as many passes over them (`refit`). The unseen classes are looked at only once, at the end.

# %%
run = trainer.resume(runs_folder(config.runs_root) / config.run_name) if resume else trainer.train(config)
if run.status != "finished":
    raise RunError(f"{run.name} is {run.status}: {run.reason} `pddm-lab resume {run.name}` goes on with it.")
display(Markdown(f"The run is kept in `{run.path}`."))

# %% [markdown]
# ## How it went
#
# The loss falls while the pairs that the miner finds are still hard: as the network gets better, so does the miner. The
# curve that matters is the one beside it: **MAP@R** on the validation classes. For a query with $R$ right items in the
# gallery, it looks at the first $R$ results; they are all right at 100 %, and right ones count more when they come
# early.

# %%
metrics = run.metrics()
first_phase = metrics[metrics["phase"] == metrics["phase"].iloc[0]]
figures.losses(first_phase, title="Loss of the training batches")

# %%
if (metrics["protocol"] == "validation").any():
    display(figures.curves(metrics, "map@r", title=f"Validation classes; best at step {run.info['best_step']}"))
else:
    display(Markdown("No validation classes were put aside (`val_class_share` is 0)."))

# %% [markdown]
# ## The hardest quadruplets
#
# Every quadruplet that was mined is kept. Its **slack** is the value inside a hinge of the loss, such as $\alpha +
# S_{ik} - S_{ij}$: above 0 the hinge is violated, and the network learns from it. Below are the most violated ones of
# the first and of the last steps. At the end they are often the ones a person would also find hard, or labels one could
# argue about. Small pictures are those that mining by Euclidean distance would have taken from the same batch instead.

# %%
quadruplets, mined = run.quadruplets(), Mined.of(run.mined())
table = through_training(mined, mined.pick(mined.phases[0]))
figures.hardness(table, title="How many of the mined quadruplets violate their hinges")

# %%
slacks = quadruplets[["slack_ik", "slack_jl"]]
hardest = quadruplets.assign(violation=slacks.max(axis="columns")).sort_values("violation", ascending=False)
hardest = hardest[hardest["phase"] == hardest["phase"].iloc[0]]


def show_hardest(steps, title, count=6):
    """The most violated quadruplets of some steps, no pair twice."""
    of_steps = hardest[hardest["step"].between(*steps)]
    pairs = of_steps[["i", "j"]].apply(frozenset, axis="columns")
    chosen = of_steps[~pairs.duplicated()].head(count)
    ids = pd.concat([chosen[end] for end in (*"ijkl", "e_i", "e_j", "e_k", "e_l")]).dropna()
    display(Markdown(title))
    display(cards.quadruplet_grid(chosen, pictures_of(ids), similarity=config.similarity))


last, tenth = int(hardest["step"].max()), max(1, int(hardest["step"].max()) // 10)
show_hardest((1, tenth), f"Steps 1 to {tenth}")
show_hardest((last - tenth + 1, last), f"Steps {last - tenth + 1} to {last}")

# %% [markdown]
# ## Same or different?
#
# Take every pair of a query and a gallery item. A pair of one class is *positive*, any other *negative*. A good
# similarity keeps the two apart: the less the two humps overlap, the better. **ROC AUC** is the chance that a positive
# pair is more similar than a negative one.

# %%
compared = list(dict.fromkeys(["euclidean", config.similarity]))
galleries = {name: run.gallery(name) for name in run.protocols()}
for protocol, gallery in galleries.items():
    spreads = gallery.distributions
    for name in compared:
        title = (
            f"{figures.PROTOCOL_TITLES[protocol]}: {figures.style_of(name).title}, ROC AUC {spreads[name].auc():.3f}"
        )
        display(figures.distributions(spreads[name], name, title=title))

# %% [markdown]
# ## Searching
#
# A query is compared with the gallery by Euclidean distance, which an index answers at once; that gives a *shortlist*.
# The trained similarity then puts the shortlist in its own order: it *re-ranks* it. Right classes have a full frame and
# a tick, wrong ones a dashed frame and a cross, and the arrows say how many places an item won or lost.

# %%
protocol, gallery = next(iter(galleries.items()))
reranker = load_model(run).similarity(config.similarity)
queries = gallery.items.iloc[gallery.rows("query")].sample(frac=1, random_state=config.seed)
for row, query in queries.drop_duplicates("class_name").head(4).iterrows():
    found = gallery.search_by(gallery.features[row], [reranker], shortlist=50, exclude=row)
    ranked = {ranker: found.ranked(ranker, 8) for ranker in compared}
    display(Markdown(f"**{query['class_name']}**, {figures.PROTOCOL_TITLES[protocol].lower()}"))
    display(cards.image_grid([(query["id"], query["class_name"])], {query["id"]: gallery.thumb(row)}))
    for ranker, results in ranked.items():
        thumbs = {item: gallery.thumb(place) for item, place in zip(results["id"], results["row"], strict=True)}
        display(Markdown(f"ranked by {figures.style_of(ranker).title}"))
        display(cards.retrieval_grid(results, thumbs, ranker, right_class=query["class_name"]))

# %% [markdown]
# ## The result in numbers
#
# **R@1** is the share of queries whose first result is right, **MAP@R** looks at as many results as there are right
# items. **TPR at 1 % FPR** is the share of positive pairs that a threshold finds which lets one negative pair in a
# hundred pass. Read both tables: a similarity that can tell positions apart can be far ahead on classes it knows, and
# behind on classes it has never met.

# %%
table = compare_runs([run]).metrics
for protocol in run.protocols():
    display(Markdown(f"**{figures.PROTOCOL_TITLES[protocol]}**"))
    display(cards.metrics_table(table, protocol))

# %% [markdown]
# ## Where to go from here
#
# The dashboard shows the same run with more to try: `pddm-lab dashboard` opens it in the browser. Drag the threshold
# through the distributions, filter the quadruplets by class, search with an image of your own.
#
# Things to change above: `mining="batch"` takes one quadruplet a batch, as the paper does; `similarity="mahalanobis"`
# trains one learned ruler in place of the local one; `unit_dropout=0.3` with `unit_hidden=256` keeps the unit from
# memorising places; `freeze_trunk=False`, or the preset `finetune`, trains the trunk as well.
