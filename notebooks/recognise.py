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
# A network that names things usually ends in a *classifier*: a layer with one row of weights per class. It knows only the
# classes that it was trained on. A shop that sells a new product tomorrow must enlarge the layer and train again.
#
# Metric learning does without that layer. The network turns a picture into a **feature**, a list of numbers, so that
# pictures of one class are close together. To recognise a class, it needs a few pictures of it, stored as features in a
# **gallery**, and a simple method that compares features. Nothing is trained, and you can add or remove a class at once.
#
# This notebook takes a finished run and measures three things. How well does this work with 1, 2, 5 or 10 pictures per
# class, for trained classes and for classes the network has never seen? What does it cost with 100 000 classes? And how
# far apart does training push the classes?

# %% tags=["parameters"]
# fmt: off
run = ""  # str, Name or path of a finished run; empty: the newest one.
runs_root = ""  # str, Folder with the runs; empty: $PDDM_LAB_RUNS, or ./runs.
shots = [1, 2, 5, 10]  # list, Numbers of pictures per class to learn from.
ways = 20  # int, Classes in an episode; 0: all.
episodes = 20  # int, Episodes per protocol; 100 episodes halve the intervals.
most_classes = 100000  # int, Largest number of classes to measure the cost of; 100 000 take about 15 seconds and 2 GB.
seed = 0  # int, Seed of the episodes.
study = ""  # str, Name of a study to save the numbers in; empty: do not save them.
# fmt: on

# %%
from pddm_lab.training.notebook import begin, run_named

begin(globals(), "run", "runs_root", "shots", "ways", "episodes", "most_classes", "seed", "study")

import pandas as pd
import torch
from IPython.display import Markdown, display

from pddm_lab import cards
from pddm_lab.applications import few_shot, tables
from pddm_lab.applications.class_scaling import CLASSES, class_costs, embedding_seconds
from pddm_lab.applications.feature_spaces import gallery_spaces
from pddm_lab.figures import PROTOCOL_TITLES, applications
from pddm_lab.metrics.class_margins import MARGINS, class_margins
from pddm_lab.runs.model import load_model
from pddm_lab.study.cells import Study

pd.set_option("display.max_colwidth", None)
opened = run_named(run, runs_root)
protocol = opened.protocols()[0]
gallery = opened.gallery(protocol)
spaces = gallery_spaces(opened, gallery)
labels = gallery.items["label"].to_numpy()
names = dict(zip(labels.tolist(), gallery.items["class_name"], strict=True))
display(Markdown(
    f"The run **{opened.name}** was trained on {opened.config.dataset}. Its gallery of *{PROTOCOL_TITLES[protocol].lower()}* holds "
    f"{len(gallery)} pictures of {len(names)} classes."
))  # fmt: skip
if len(spaces) == 1:
    display(Markdown("The image files are no longer on this machine, so the pretrained features are left out."))

# %% [markdown]
# ## One episode
#
# An **episode** is a small test. It draws some classes, some pictures of each to learn from (the *shots*), and other
# pictures to recognise. Here are five classes with up to five shots, one row per class.

# %%
drawn = few_shot.Episodes(labels, gallery.rows("gallery"), gallery.rows("query"), shots=shots, ways=5, seed=seed)
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
# * **k-NN** finds the nearest pictures by Euclidean distance, and they vote (scikit-learn);
# * **linear SVM** finds the flat boundary with the widest gap between classes (scikit-learn);
# * **naive Bayes** fits a normal distribution to every dimension of every class (scikit-learn);
# * **nearest class mean** keeps one point per class, the mean of its pictures;
# * **k-NN by S** lets the PDDM score re-rank the nearest pictures before they vote.
#
# This is what they predict for three pictures of the same classes:

# %%
support, own = example.support.ravel(), spaces[-1]
points, known = own.features[torch.from_numpy(support)], labels[support]
tests = pd.Series(example.query, index=labels[example.query]).groupby(level=0).first()
tests = tests.sample(min(3, len(tests)), random_state=seed).to_numpy(copy=True)
queries = own.features[torch.from_numpy(tests)]
predicted = {
    few_shot.METHODS[method]: few_shot.classifier(method).fit(points.numpy(), known).predict(queries.numpy())
    for method in ("knn", "svm", "bayes")
}
predicted[few_shot.METHODS["mean"]] = few_shot.by_mean(queries, points, known)
predicted[few_shot.METHODS["pddm"]] = few_shot.by_score(own.similarities["pddm"], queries, points, known)
show(tests)
pd.DataFrame(
    {name: [names[int(label)] for label in classes] for name, classes in predicted.items()},
    index=[f"picture {n + 1}, {names[int(label)]}" for n, label in enumerate(labels[tests])],
).transpose()

# %% [markdown]
# ## Many episodes
#
# The result of one episode depends on luck. Below is the mean over many episodes, with a 95 % interval that says how much
# other draws of classes and pictures would change it. All methods and both feature spaces get the same episodes.
# *pretrained* are the features of the same network before metric learning, which cost nothing.
#
# A number of shots is left out if most classes have too few pictures for it. All numbers of shots use the same classes.

# %%
table = few_shot.recognise_run(opened, episodes, shots=shots, ways=ways, seed=seed)
means = few_shot.summary(table)
for name in opened.protocols():
    display(applications.few_shot(means, name, few_shot.METHODS, title=PROTOCOL_TITLES[name]))

# %%
for name in opened.protocols():
    part = means[means["protocol"] == name]
    text = [f"{100 * a:.1f} ± {100 * (high - a):.1f}" for a, high in zip(part["accuracy"], part["high"], strict=True)]
    ways_used = part["ways"].iloc[0]
    display(
        Markdown(f"**{PROTOCOL_TITLES[name]}**: accuracy in %, {ways_used} classes per episode, {episodes} episodes")
    )
    wide = part.assign(text=text, method=part["method"].map(few_shot.METHODS))
    display(wide.pivot(index=["space", "method"], columns="shots", values="text").fillna(""))

# %%
if study:
    settings = {"shots": list(shots), "ways": ways, "episodes": episodes, "seed": seed}
    kept = Study.create(study, runs_root)
    few_shot.keep(kept, opened.config.dataset, table, opened.config.seed, settings)
    pages = tables.write(kept)
    display(Markdown(f"Saved in the study `{study}`; its tables are in `{pages[0].parent}`."))

# %% [markdown]
# What to look for: does training help unseen classes as much as known ones? How many shots does a class mean need to be as
# good as a trained SVM? And does the local score S help, or is one ruler for all places enough?

# %% [markdown]
# ## A new class arrives
#
# Remove one of the classes. All its pictures are then taken for something else. Now add its few shots to the gallery. It is
# recognised without training and without new weights, and the accuracy of the *other* classes hardly changes.

# %%
new = int(labels[example.support[0, 0]])
is_new, is_new_query = known == new, labels[example.query] == new
every = own.features[torch.from_numpy(example.query)]
without = few_shot.by_mean(every, points[torch.from_numpy(~is_new)], known[~is_new]) == labels[example.query]
with_it = few_shot.by_mean(every, points, known) == labels[example.query]
pd.DataFrame(
    {
        f"pictures of {names[new]}": [f"{100 * right[is_new_query].mean():.0f} %" for right in (without, with_it)],
        "pictures of the others": [f"{100 * right[~is_new_query].mean():.0f} %" for right in (without, with_it)],
    },
    index=["without it", f"with {example.support.shape[1]} pictures of it"],
)

# %% [markdown]
# ## What a hundred thousand classes cost
#
# The lab's model has the same size for 10 and for 100 000 classes. Only the gallery grows, and that is data. A softmax
# classifier on the same trunk grows by a row of weights per class. For one more class the lab adds a few features to its
# index. The classifier needs a larger layer and more training, because the new row must win against all others. Both
# costs are measured here on arrays of their real sizes. The only exception is a pass over all pictures that would take
# more than a few seconds: it is computed from the time of one step, and the table says so. Either way, each new picture
# also goes through the network once.

# %%
model = load_model(opened)
costs = class_costs(model, [count for count in CLASSES if count <= most_classes])
applications.class_scaling(costs, title="What classes cost")

# %%
print(f"One picture takes {1000 * embedding_seconds(model, opened.config):.1f} ms in the network on this machine.")
pd.DataFrame({
    "lab's parameters": costs["lab_parameters"].map("{:,}".format),
    "classifier's parameters": costs["classifier_parameters"].map("{:,}".format),
    "lab's model, MB": (costs["lab_bytes"] / 1e6).map("{:,.1f}".format),
    "its gallery, 5 pictures per class, MB": (costs["gallery_bytes"] / 1e6).map("{:,.1f}".format),
    "classifier, MB": (costs["classifier_bytes"] / 1e6).map("{:,.1f}".format),
    "add a class: lab, s": costs["add_gallery_seconds"].map("{:.1e}".format),
    "add a class: larger layer, s": costs["enlarge_seconds"].map("{:.1e}".format),
    "and one training pass, s": [
        f"{seconds:,.3g}{'' if measured else ' (computed)'}"
        for seconds, measured in zip(costs["pass_seconds"], costs["pass_measured"], strict=True)
    ],
    "search all classes, s": costs["search_seconds"].map("{:.1e}".format),
    "classify, s": costs["classify_seconds"].map("{:.1e}".format),
}).set_axis(costs["classes"].map("{:,}".format)).transpose()  # fmt: skip

# %% [markdown]
# ## How far apart are the classes?
#
# "Large margin" means small distances within a class and large distances between classes. Before and after training, on
# the same pictures (Euclidean distances of features of length 1, which are between 0 and 2):

# %%
for name in opened.protocols():
    here = opened.gallery(name)
    margins = class_margins(
        {s.name: s.features for s in gallery_spaces(opened, here)}, here.items["label"].to_numpy(), seed
    )
    display(Markdown(f"**{PROTOCOL_TITLES[name]}**, {margins['items'][0]} pictures of {margins['classes'][0]} classes"))
    display(margins.set_index("space")[list(MARGINS)].T.map("{:.3f}".format).assign(meaning=pd.Series(MARGINS)))

# %% [markdown]
# ## Where to go from here
#
#     pddm-lab recognise demo --shots 1 5 --episodes 100     # the tables above, in a terminal
#     pddm-lab class-scaling demo                            # what classes cost
#     pddm-lab gallery add demo new-products                 # new classes for a run's gallery: new-products/<class>/<image>
#
# `notebooks/transfer.ipynb` measures how useful the features are on another data set.
