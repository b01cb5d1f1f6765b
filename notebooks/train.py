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
# network that measures how similar two images are, so that images of one class end up close together, even for classes
# it has never seen. This notebook trains such a network and shows the result, a *run*: how the training went, which
# images were hard, how well it separates same from different, and what a search with an image returns.
#
# It compares two measures of similarity:
#
# * the **Euclidean distance** $D(i, j) = \lVert f_i - f_j \rVert$ between two feature vectors: one ruler for the whole
#   space;
# * the **PDDM score** $S(i, j)$, a small network that also sees *where* in the space the two vectors lie, and can use a
#   different ruler there (Huang, Loy and Tang, *Local Similarity-Aware Deep Feature Embedding*, NIPS 2016).
#
# Run the cells from top to bottom. With the preset `quick` the training takes some minutes on a laptop.

# %% [markdown]
# ## What to train
#
# These are all settings of a training. `None` means the preset's own value, which is shown in square brackets. Change some
# of them and run the notebook again, or leave the notebook unchanged and pass them on the command line:
#
#     pddm-lab train quick --dataset emoji --steps 300
#     papermill notebooks/train.ipynb out.ipynb -p dataset emoji -p steps 300

# %% tags=["parameters"]
# fmt: off
preset = "quick"  # str, The preset that these choices start from.
dataset = "emoji"  # str, A data set of pddm-lab data list, folder:PATH for any PATH/<class>/<image>, or manifest:FILE.csv.
data_root = None  # str, Folder that holds the data sets; empty: $PDDM_LAB_DATA, else ./data.
runs_root = None  # str, Folder that holds the runs; empty: $PDDM_LAB_RUNS, else ./runs.
run_name = None  # str, Folder name of the run; empty: dataset, preset and time.
notes = None  # str, Free text kept with the run.
known_query_share = None  # float, Share of each training class held out as known-class queries, if the data set names none; 0 to 0.5. [0.2; paper 0.0]
val_class_share = None  # float, Share of the training classes held out to choose the best step; 0 to 0.5; 0 keeps the last step. [0.2]
corrections = None  # bool, Apply the data set's corrections, which the pages and `pddm-lab data corrections` keep beside the runs. [False]
split_seed = None  # int, Seed of the class splits. It is separate from seed, so that trainings with several seeds share their splits. [0]
trunk = None  # str, efficientnet_lite0, _lite1 or _lite2, whose weights need no download, or a torchvision classification model. ['efficientnet_lite0'; paper 'googlenet']
weights = None  # str, imagenet, none, or the path of a .pth or .safetensors state dict of the trunk. ['imagenet']
resize = None  # int, Length of an image's shorter side after scaling and before the crop, in pixels. [160; finetune 112; paper 256]
image_size = None  # int, Side of the trunk's square input, in pixels: a centred crop to evaluate, a random, mirrored crop to train. [160; finetune 96; paper 227]
freeze_trunk = None  # bool, Train on features of the pretrained trunk, which are computed once and cached on disk. [True; finetune False; paper False]
views = None  # int, With freeze_trunk, how many versions of each training image to train on: its centre and random crops. [4]
augmentation = None  # str, What random crops differ in besides: crops: nothing; light, blur-noise or geometry: that; mixed: all three. ['crops']
pool_power = None  # float, Power of the trunk's pooled features before the head: 0.5 takes signed square roots, 1 leaves them. [0.5; finetune 1.0; paper 1.0]
dim = None  # int, Embedding dimensions (d). [256; joint 128; finetune 128; paper 128]
start = None  # str, Weights of the head before training: random, or the principal components of the trunk's features. ['principal'; joint 'random'; paper 'random']
interpolate = None  # bool, With freeze_trunk, let held-out training classes choose head weights between the start and the end. [True; joint False; paper False]
whiten = None  # bool, With freeze_trunk, scale the embedding so that it varies alike in all directions within a training class. [True; joint False; paper False]
similarity = None  # str, The similarity that PDDM's losses train. With another loss, it mines the quadruplets that are shown. ['pddm']
unit_hidden = None  # int, Width of the PDDM unit's layers; 0: the same as dim, as in the paper. [128; joint 0; finetune 0; paper 0]
unit_dropout = None  # float, Dropout after each layer of the PDDM unit; 0 to 1. [0.0]
unit_normalize = None  # bool, L2-normalise u and v before the PDDM unit's first layers (one text does; measured worse). [False]
unit_position = None  # bool, Let the PDDM unit see the position v of a pair; without it S is a learned global measure of the difference u. [True]
unit_global = None  # float, Initial g of the score W_s c + b_s - g D, in which the unit corrects the distance; 0: no D, as in the paper. [1.0; joint 0.0; paper 0.0]
unit_detached = None  # bool, Train the unit on detached features: then E_e alone trains the embedding, and E_m the unit. [True; joint False; paper False]
familiarity = None  # float, Only earlier runs: cosine to the nearest training class at which S fades into the pretrained features; 0: off. [0.0]
local_structure = None  # bool, Afterwards fit the similarity on local structure, which compares the neighbourhoods of two items. [False; lab True]
mining = None  # str, anchor: a hard quadruplet for every item of a batch. batch: the paper's one hardest quadruplet of a batch. ['anchor'; paper 'batch']
mining_similarity = None  # str, The similarity that mines; empty: the trained one.
loss = None  # str, The loss that trains the embedding: PDDM's quadruplet or triplet; with others, S learns on detached features. ['quadruplet']
loss_options = None  # str, Options of a loss other than PDDM's, pairs of name and value with an equals sign, separated by commas.
score_margin = None  # float, Margin between scores of the hard positive and each hard negative (alpha), in score units. [0.5]
distance_margin = None  # float, Margin between distances of the embedding (beta), in units of D, or of its square with squared_distance. [0.2; joint 1.0; paper 1.0]
embedding_weight = None  # float, Weight of the embedding's own hinge E_e beside E_m (lambda). [0.5]
squared_distance = None  # bool, Use the squared Euclidean distance in E_e; the sources don't say. [False]
steps = None  # int, Training steps (batches). [500; finetune 400; paper 20000]
classes_per_batch = None  # int, Classes in a batch (P). [32; finetune 16; paper 16]
images_per_class = None  # int, Images of each class in a batch (K). [4]
optimizer = None  # str, adamw, or sgd with momentum 0.9. ['adamw'; paper 'sgd']
lr = None  # float, Learning rate of the embedding head and the similarities. [0.0005; paper 0.01]
trunk_lr_scale = None  # float, The trunk's learning rate as a share of lr; unused with freeze_trunk. [0.1]
weight_decay = None  # float, Weight decay (gamma). [0.0005]
schedule = None  # str, Learning rate after the warm-up: constant, cosine to 0, or step: divided by 10 at 1/2 and 3/4 of the steps. ['cosine'; joint 'constant'; paper 'constant']
warmup_steps = None  # int, Steps in which the learning rate rises linearly from 0. [50; joint 0; finetune 20; paper 0]
clip_norm = None  # float, Largest L2 norm of the gradient; 0: no clipping. [0.0; finetune 1.0]
average = None  # float, Decay per step of the moving average of the weights, which is measured and saved; 0: the last weights. [0.99; finetune 0.0; paper 0.0]
eval_every = None  # int, Steps between measurements on the validation classes. [50; paper 1000]
selection = None  # str, The similarity whose MAP@R on the validation classes chooses the best step. ['euclidean']
selection_tolerance = None  # float, The latest step within this many standard errors of the best is chosen; 0: the best. [1.0]
refit = None  # str, Afterwards retrain on all training classes, for as many passes over them or as many steps; none: don't. ['passes']
seed = None  # int, Seed of the weights, the batches and the augmentation. [0]
deterministic = None  # bool, Use deterministic algorithms only (slower on a GPU). [False]
device = None  # str, auto: cuda where there is one, else cpu. ['auto']
devices = None  # int, Processes, one device each; more than one trains with DDP (gloo on CPUs, nccl on GPUs). [1]
precision = None  # str, auto: bf16 on a GPU that supports it, else fp16; 32 on a CPU. ['auto']
workers = None  # int, Processes that load images for training the trunk; -1: one per core but one, at most 8. [-1]
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
from pddm_lab.config import runs_root as runs_folder
from pddm_lab.errors import RunError
from pddm_lab.runs.compare import compare_runs
from pddm_lab.runs.model import load_model
from pddm_lab.runs.quadruplets import Mined
from pddm_lab.training import trainer
from pddm_lab.training.loop import dataset_of
from pddm_lab.training.notebook import config_of

config = config_of(globals())
if Path("train.ipynb").is_file() and Path("../pddm_lab").is_dir():
    os.chdir("..")  # Jupyter starts in notebooks/; data and runs are in the repository's root
plotly.io.renderers.default = "plotly_mimetype"  # figures as data: small, and they need no internet

# %% [markdown]
# ## The data
#
# An **item** is an image with a class. The classes are split in two: the network trains on one half and never sees the
# other. Two **protocols** measure how well the search works. In each, a *query* is compared with a *gallery*:
#
# * **unseen**: all images are of classes that were not in the training data. This is the situation of a shop whose range
#   changes, and the more important one;
# * **known**: the queries are new images of the training classes.

# %%
data = dataset_of(config)
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


display(Markdown("Some training classes"))
show_classes(data.train)
if data.unseen:
    display(Markdown("Some classes that are not in the training data"))
    show_classes(data.unseen.gallery)

# %% [markdown]
# ## The model
#
# A convolutional network, the *trunk*, turns an image into some hundreds of numbers. A linear layer reduces them to $d$
# numbers (`dim`), which are scaled to length 1. This is the image's **feature vector** $f$ (`EmbeddingNet` in
# `model/embedding.py`).
#
# The **PDDM unit** (`model/pddm.py`) scores a pair of feature vectors. Its inputs are their difference $u$ and their
# place $v$:
#
# $$u = |f_i - f_j| \qquad v = \tfrac{1}{2}(f_i + f_j)$$
# $$u' = \frac{\max(0, W_u u + b_u)}{\lVert\cdot\rVert} \qquad v' = \frac{\max(0, W_v v + b_v)}{\lVert\cdot\rVert} \qquad
# c = \max(0, W_c [u'; v'] + b_c) \qquad S(i, j) = W_s c + b_s$$
#
# A larger $S$ means more similar. Without $v$ the unit would measure differences the same way everywhere. With $v$ it can
# weight them differently in different regions.
#
# ## What it learns from
#
# A batch holds $P$ classes with $K$ images each (`classes_per_batch`, `images_per_class`). Most of its pairs are easy and
# teach nothing, so the **miner** (`training/miner.py`) looks for hard ones. A **quadruplet** $(i, j, k, l)$ consists of a
# pair of one class with a *low* score, $i$ and $j$, and for each end the image of another class with the *highest* score:
# $k$ for $i$, and $l$ for $j$.
#
# The **loss** (`training/losses.py`) asks that the pair of one class beats both other pairs by a margin: $\alpha$ for
# scores (`score_margin`) and $\beta$ for distances (`distance_margin`):
#
# $$E_m = \max(0, \alpha + S_{ik} - S_{ij}) + \max(0, \alpha + S_{jl} - S_{ij})$$
# $$E_e = \max(0, \beta + D_{ij} - D_{ik}) + \max(0, \beta + D_{ij} - D_{jl})$$
# $$E = E_m + \lambda E_e \qquad (\lambda = \texttt{embedding\_weight})$$
#
# In the paper (`preset="joint"`, `"paper"`) both train the embedding. By default $E_e$ alone does, on quadruplets that $D$
# mines, and $E_m$ trains the unit beside it, on features that it cannot change: so learning S can do the embedding no harm.
# Other losses are available too, such as `loss="arcface"` with `loss_options="margin=20,scale=32"`. They train the embedding
# alone, and the PDDM unit learns beside it from its own quadruplets, on features that it cannot change.
#
# ## Training
#
# The head starts at the principal components of the trunk's features, so that step 0 ranks as the pretrained features do.
# Training helps the classes that it sees, and it can hurt others. So the head first trains on three folds of the training
# classes, and the held-out ones decide which *share* of the way it goes from its start. Then some classes are set aside as
# *validation classes*, and the network trains on the rest (phase `select`). Last, it starts again and trains on all training
# classes for the same number of passes over them (phase `refit`). The unseen classes are used only once, at the end.

# %%
run = trainer.resume(runs_folder(config.runs_root) / config.run_name) if resume else trainer.train(config)
if run.status != "finished":
    raise RunError(f"{run.name} is {run.status}: {run.reason} Resume it with `pddm-lab resume {run.name}`.")
display(Markdown(f"The run is in `{run.path}`."))

# %% [markdown]
# ## How it went
#
# The loss falls slowly, because the miner keeps picking the hardest pairs that are left. The second curve matters more:
# **MAP@R** on the validation classes. For a query with $R$ right items in the gallery, it counts the right items among the
# first $R$ results, and early ones count more. It is 100 % if all of them are right.

# %%
metrics = run.metrics()
first_phase = metrics[metrics["phase"] == metrics["phase"].iloc[0]]
figures.losses(first_phase, title="Loss of the training batches")

# %%
if (metrics["protocol"] == "validation").any():
    display(figures.curves(metrics, "map@r", title=f"Validation classes; best at step {run.info['best_step']}"))
else:
    display(Markdown("There are no validation classes (`val_class_share` is 0)."))

# %% [markdown]
# ## The hardest quadruplets
#
# The run logs every mined quadruplet. Its **slack** is the value inside a hinge of the loss, such as $\alpha + S_{ik} -
# S_{ij}$. If it is above 0, the hinge is violated, and the network learns from it. Below are the most violated quadruplets
# of the first and of the last steps. The late ones are often hard for a person too, or their labels are debatable. The
# small pictures show what mining by Euclidean distance would pick from the same batch.

# %%
mined = Mined.of(run.mined())
phase = mined.phases[0]
table = through_training(mined, mined.pick(phase))
figures.hardness(table, title="Mined quadruplets that violate a hinge")


# %%
def show_hardest(first, last):
    """The most violated quadruplets of some steps, no positive pair twice."""
    chosen = mined.most_violated(mined.pick(phase, (first, last)), 6)
    ids = pd.concat([chosen[end] for end in (*"ijkl", "e_i", "e_j", "e_k", "e_l") if end in chosen]).dropna()
    display(Markdown(f"Steps {first} to {last}"))
    display(cards.quadruplet_grid(chosen, pictures_of(ids), similarity=config.similarity))


first, last = mined.span(phase)
tenth = max(1, last // 10)
show_hardest(first, tenth)
show_hardest(last - tenth + 1, last)

# %% [markdown]
# ## Same or different?
#
# Consider every pair of a query and a gallery item. A pair of one class is *positive*, any other pair is *negative*. With a
# good similarity the two distributions overlap little. **ROC AUC** is the chance that a positive pair is more similar than
# a negative one.

# %%
compared = list(dict.fromkeys(["euclidean", config.similarity]))
galleries = {name: run.gallery(name) for name in run.protocols()}
for protocol, gallery in galleries.items():
    for name in compared:
        pairs = gallery.distributions[name]
        title = f"{figures.PROTOCOL_TITLES[protocol]}: {figures.style_of(name).title}, ROC AUC {pairs.auc():.3f}"
        display(figures.distributions(pairs, name, title=title))

# %% [markdown]
# ## Searching
#
# A search first finds the nearest items by Euclidean distance, which an index does very fast. These are the *shortlist*. The
# trained similarity then *re-ranks* the shortlist. Right results have a solid frame and a tick, wrong ones a dashed frame
# and a cross. An arrow shows by how many places an item moved up or down.

# %%
protocol, gallery = next(iter(galleries.items()))
reranker = load_model(run).similarity(config.similarity)
queries = gallery.items.iloc[gallery.rows("query")].sample(frac=1, random_state=config.seed)
for row, query in queries.drop_duplicates("class_name").head(4).iterrows():
    response = gallery.search_by(gallery.features[row], [reranker], shortlist=50, exclude=row)
    ranked = {ranker: response.ranked(ranker, 8) for ranker in compared}
    display(Markdown(f"**{query['class_name']}**, {figures.PROTOCOL_TITLES[protocol].lower()}"))
    display(cards.image_grid([(query["id"], query["class_name"])], {query["id"]: gallery.thumb(row)}))
    for ranker, results in ranked.items():
        thumbs = {item: gallery.thumb(place) for item, place in zip(results["id"], results["row"], strict=True)}
        display(Markdown(f"ranked by {figures.style_of(ranker).title}"))
        display(cards.retrieval_grid(results, thumbs, ranker, right_class=query["class_name"]))

# %% [markdown]
# ## The result in numbers
#
# **R@1** is the share of queries whose first result is right. **MAP@R** considers as many results as there are right items.
# **TPR at 1 % FPR** is the share of positive pairs that are accepted by a threshold which lets 1 % of the negative pairs
# pass. Read both tables: a similarity that depends on the place can be far ahead on known classes and behind on unseen
# ones. The row *Pretrained features* is the trunk before training, ranked by $D$: where it is ahead, training did harm.

# %%
for warning in run.info.get("warnings", ()):
    display(Markdown(f"**Warning:** {warning}"))
table = compare_runs([run]).metrics
for protocol in run.protocols():
    display(Markdown(f"**{figures.PROTOCOL_TITLES[protocol]}**"))
    display(cards.metrics_table(table, protocol))

# %% [markdown]
# ## Where to go from here
#
# `pddm-lab dashboard` shows the same run in the browser. There you can drag the threshold through the distributions, filter
# the quadruplets by class, and search with an image of your own.
#
# Settings to try above: `mining="batch"` takes one quadruplet per batch, as in the paper; `similarity="mahalanobis"`
# trains one learned ruler instead of the local one; `unit_dropout=0.3` with `unit_hidden=256` makes it harder for the unit
# to memorise places; `freeze_trunk=False`, or the preset `finetune`, trains the trunk as well.
