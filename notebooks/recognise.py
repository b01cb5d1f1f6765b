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
# # Recognise things without a classifier
#
# A network that names things usually ends in a *classifier*: a layer with one line of weights per class. It knows the
# classes it was trained on and no other. A shop that sells a new product tomorrow must make the layer larger and train
# again.
#
# Metric learning leaves that layer out. The network turns a picture into a **feature**, a list of numbers, so that
# pictures of one class lie close together. To know a class it then takes a few pictures of it, kept as features in a
# **gallery**, and a plain method that compares. Nothing is trained, and classes come and go at once.
#
# This notebook takes a finished run and asks: how well does that work with 1, 2, 5 or 10 pictures of each class, for
# classes the network was trained on and for classes it has never met? What does it cost when there are 100 000 classes?
# And how far apart does training push the classes?

# %% tags=["parameters"]
# fmt: off
run = ""  # str, A finished run, by name or path; empty: the newest one.
runs_root = ""  # str, Folder that holds the runs; empty: $PDDM_LAB_RUNS, else ./runs.
shots = [1, 2, 5, 10]  # list, Pictures of each class to learn from.
ways = 20  # int, Classes to tell apart in an episode; 0: all.
episodes = 20  # int, Episodes of each protocol; 100 halve the intervals.
most_classes = 100000  # int, Largest number of classes whose cost is measured: 100 000 take about 15 seconds and 2 GB.
seed = 0  # int, Seed of the episodes.
study = ""  # str, Name of a study to keep the numbers in, beside its methods; empty: keep none.
# fmt: on

# %%
from pddm_lab.training.notebook import begin, run_named

begin(globals(), "run", "runs_root", "shots", "ways", "episodes", "most_classes", "seed", "study")

import pandas as pd
import torch
from IPython.display import Markdown, display

from pddm_lab import cards
from pddm_lab.applications import tables
from pddm_lab.applications.class_scaling import CLASSES, class_costs, embedding_seconds
from pddm_lab.applications.feature_spaces import gallery_spaces
from pddm_lab.applications.few_shot import METHODS, Episodes, by_mean, by_score, classifier, keep, of_run, summary
from pddm_lab.figures import PROTOCOL_TITLES, applications
from pddm_lab.metrics.class_margins import MARGINS, class_margins
from pddm_lab.runs.model import load_model
from pddm_lab.study.cells import Study

pd.set_option("display.max_colwidth", None)
of = run_named(run, runs_root)
protocol = of.protocols()[0]
gallery = of.gallery(protocol)
spaces = gallery_spaces(of, gallery)
labels = gallery.items["label"].to_numpy()
names = dict(zip(labels.tolist(), gallery.items["class_name"], strict=True))
display(Markdown(
    f"The run **{of.name}** was trained on {of.config.dataset}. Its gallery of *{PROTOCOL_TITLES[protocol].lower()}* holds "
    f"{len(gallery)} pictures of {len(names)} classes."
))  # fmt: skip
if len(spaces) == 1:
    display(Markdown("The pictures themselves aren't here any more, so the pretrained features are left out."))

# %% [markdown]
# ## One episode
#
# An **episode** is a small test. It draws some classes, some pictures of each to learn from, the *shots*, and other
# pictures to recognise. Here are five classes with up to five shots, one line a class.

# %%
drawn = Episodes(labels, gallery.rows("gallery"), gallery.rows("query"), shots=shots, ways=5, seed=seed)
example = drawn.episode(0)


def show(rows):
    """Items of the gallery as pictures with their classes."""
    items = gallery.items.iloc[rows]
    thumbs = {item: gallery.thumb(row) for item, row in zip(items["id"], rows, strict=True)}
    display(cards.image_grid(list(zip(items["id"], items["class_name"], strict=True)), thumbs))


for line in example.support:
    show(line[:5])

# %% [markdown]
# Each method sees only the features of these pictures:
#
# * **k-NN** looks for the nearest pictures by Euclidean distance; they vote (scikit-learn);
# * **linear SVM** looks for the flat boundary with the widest gap between classes (scikit-learn);
# * **naive Bayes** fits a bell curve to every dimension of every class (scikit-learn);
# * **nearest class mean** keeps one point a class, the mean of its pictures;
# * **k-NN by S** lets the PDDM score rank the nearest pictures before they vote.
#
# And this is what they say to three pictures of the same classes:

# %%
support, own = example.support.ravel(), spaces[-1]
points, known = own.features[torch.from_numpy(support)], labels[support]
asked = pd.Series(example.query, index=labels[example.query]).groupby(level=0).first()
asked = asked.sample(min(3, len(asked)), random_state=seed).to_numpy(copy=True)
queries = own.features[torch.from_numpy(asked)]
answers = {
    METHODS[method]: classifier(method).fit(points.numpy(), known).predict(queries.numpy())
    for method in ("knn", "svm", "bayes")
}
answers[METHODS["mean"]] = by_mean(queries, points, known)
answers[METHODS["pddm"]] = by_score(own.similarities["pddm"], queries, points, known)
show(asked)
pd.DataFrame(
    {name: [names[int(label)] for label in found] for name, found in answers.items()},
    index=pd.Index([f"picture {n + 1}: {names[int(label)]}" for n, label in enumerate(labels[asked])], name="it shows"),
).transpose()

# %% [markdown]
# ## Many episodes
#
# One episode is luck. Below is the mean over many, with a 95 % interval: how far other draws of classes and pictures
# would move it. All methods and both feature spaces meet the same episodes. *pretrained* are the features of the same
# network before metric learning: what one gets for free.
#
# A number of shots is left out where most classes have too few pictures, and all shots use the same classes.

# %%
table = of_run(of, episodes, shots=shots, ways=ways, seed=seed)
means = summary(table)
for name in of.protocols():
    display(applications.few_shot(means, name, METHODS, title=PROTOCOL_TITLES[name]))

# %%
for name in of.protocols():
    part = means[means["protocol"] == name]
    text = [f"{100 * a:.1f} ± {100 * (high - a):.1f}" for a, high in zip(part["accuracy"], part["high"], strict=True)]
    title = (
        f"**{PROTOCOL_TITLES[name]}**: accuracy in %, {part['ways'].iloc[0]} classes an episode, {episodes} episodes"
    )
    display(Markdown(title))
    wide = part.assign(text=text, method=part["method"].map(METHODS))
    display(wide.pivot(index=["space", "method"], columns="shots", values="text").fillna(""))

# %%
if study:
    settings = {"shots": list(shots), "ways": ways, "episodes": episodes, "seed": seed}
    kept = Study.create(study, runs_root)
    keep(kept, of.config.dataset, table, of.config.seed, settings)
    pages = tables.write(kept)
    display(Markdown(f"Kept in the study `{study}`, as tables in `{pages[0].parent}`."))

# %% [markdown]
# What to look for: does training help unseen classes as much as known ones? From how many shots on does a class mean do
# as well as a trained SVM? And does the local score S help to recognise, or does one ruler for all do?

# %% [markdown]
# ## A new class arrives
#
# Take one of the classes away. Its pictures are then taken for something else, all of them. Now add its few shots to the
# gallery: no training, no new weights, and it is recognised. How well the *other* classes are recognised hardly changes.

# %%
newcomer = int(labels[example.support[0, 0]])
is_new, asks_new = known == newcomer, labels[example.query] == newcomer
every = own.features[torch.from_numpy(example.query)]
before = by_mean(every, points[torch.from_numpy(~is_new)], known[~is_new])
after = by_mean(every, points, known)
truth = labels[example.query]
pd.DataFrame(
    {
        f"pictures of {names[newcomer]}": [
            f"{100 * (found == truth)[asks_new].mean():.0f} %" for found in (before, after)
        ],
        "pictures of the others": [f"{100 * (found == truth)[~asks_new].mean():.0f} %" for found in (before, after)],
    },
    index=["without it", f"with {example.support.shape[1]} pictures of it"],
)

# %% [markdown]
# ## What a hundred thousand classes cost
#
# The lab's model has the same size for 10 classes and for 100 000: what grows is the gallery, which is data. A softmax
# classifier on the same trunk grows by a line of weights per class. One more class costs the lab a few features put into
# its index; it costs the classifier a larger layer, and training, for the new line must win against all others. Both are
# measured here on arrays of their real sizes. Only a pass over all pictures that would take more than some seconds is
# computed, from the measured seconds of one step; the table says so. On top, either way, new pictures go through the
# network once.

# %%
model = load_model(of)
costs = class_costs(model, [count for count in CLASSES if count <= most_classes])
applications.class_scaling(costs, title="What classes cost")

# %%
display(
    Markdown(f"One picture through the network: {1000 * embedding_seconds(model, of.config):.1f} ms on this machine.")
)
pd.DataFrame({
    "lab's parameters": costs["lab_parameters"].map("{:,}".format),
    "classifier's parameters": costs["classifier_parameters"].map("{:,}".format),
    "lab's model, MB": (costs["lab_bytes"] / 1e6).map("{:,.1f}".format),
    "its gallery, 5 pictures a class, MB": (costs["gallery_bytes"] / 1e6).map("{:,.1f}".format),
    "classifier, MB": (costs["classifier_bytes"] / 1e6).map("{:,.1f}".format),
    "add a class: lab, s": costs["add_gallery_seconds"].map("{:.1e}".format),
    "larger layer, s": costs["enlarge_seconds"].map("{:.1e}".format),
    "and one pass of training, s": [
        f"{seconds:,.3g}{'' if measured else ' (computed)'}"
        for seconds, measured in zip(costs["pass_seconds"], costs["pass_measured"], strict=True)
    ],
    "search all classes, s": costs["search_seconds"].map("{:.1e}".format),
    "classify, s": costs["classify_seconds"].map("{:.1e}".format),
}).set_axis(costs["classes"].map("{:,}".format)).transpose()  # fmt: skip

# %% [markdown]
# ## How far apart are the classes?
#
# "Large margin" means: little distance within a class, much between classes. Before training and after it, on the same
# pictures (Euclidean distance of features of length 1, which lie between 0 and 2):

# %%
for name in of.protocols():
    here = of.gallery(name)
    found = class_margins({s.name: s.features for s in gallery_spaces(of, here)}, here.items["label"].to_numpy(), seed)
    display(Markdown(f"**{PROTOCOL_TITLES[name]}**, {found['items'][0]} pictures of {found['classes'][0]} classes"))
    display(found.set_index("space")[list(MARGINS)].T.map("{:.3f}".format).assign(meaning=pd.Series(MARGINS)))

# %% [markdown]
# ## Where to go from here
#
#     pddm-lab recognise demo --shots 1 5 --episodes 100     # the tables above, in a terminal
#     pddm-lab class-scaling demo                            # what classes cost
#     pddm-lab gallery add demo new-products                 # new classes for a run's gallery: new-products/<class>/<image>
#
# `notebooks/transfer.ipynb` asks what the features are worth on another data set.
