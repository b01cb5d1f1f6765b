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
# # When new classes keep arriving
#
# A model is trained once, and then the range changes: every few weeks some new classes come. What should be done with the
# model? This notebook lets classes arrive in **sessions** and compares ways to keep up:
#
# * **no training**: the new pictures join the gallery, and the model stays;
# * **the unit alone**: only the unit of S learns, from the new items;
# * **new items alone**: the head trains on, on what is new;
# * **with a replay buffer**: and on some old items of each class, those whose mean is nearest to the class's;
# * **replay, kept near**: and the features of old classes are held near the old ones, as `pddm-lab update` does;
# * **all anew**: everything is trained again, on all items so far.
#
# The trunk is frozen and its features are cached, so that an update takes seconds. `pddm-lab sessions` computes the same
# and keeps it; this notebook goes on with what is there.

# %% tags=["parameters"]
# fmt: off
dataset = "grocery"  # str, Data set whose classes arrive.
data_root = ""  # str, Folder with the data sets; empty: $PDDM_LAB_DATA, or ./data.
runs_root = ""  # str, Folder with the runs; empty: $PDDM_LAB_RUNS, or ./runs.
study = "sessions"  # str, Name of the study that keeps the results.
sessions = 5  # int, Sessions of new classes after the first training.
classes = 10  # int, New classes in each.
steps = 500  # int, Steps of a training anew.
update_steps = 100  # int, Steps of an update.
replay = 2000  # int, Old items that train again, at most.
near = 1.0  # float, Weight of what keeps features near the old ones.
image_size = 160  # int, Side of the trunk's input, in pixels.
# fmt: on

# %%
from pddm_lab.training.notebook import begin

begin(
    globals(), "dataset", "data_root", "runs_root", "study", "sessions", "classes", "steps", "update_steps", "replay",
    "near", "image_size",
)  # fmt: skip

import pandas as pd
from IPython.display import Markdown, display

from pddm_lab.figures import change
from pddm_lab.study.cells import Study
from pddm_lab.update.compare import PART, run_sessions
from pddm_lab.update.compatibility import SHARES
from pddm_lab.update.continued import Choices
from pddm_lab.update.tables import matrix_of, summary, updates_table
from pddm_lab.update.ways import AT, WAYS

roots = {name: value for name, value in (("data_root", data_root), ("runs_root", runs_root)) if value}
kept = Study.create(study, runs_root)
outcome = run_sessions(
    kept, [dataset], base={**roots, "image_size": image_size, "resize": image_size}, sessions=sessions, classes=classes,
    seeds=1, steps=steps, choices=Choices(steps=update_steps, near=near, replay=replay), progress=False,
)  # fmt: skip
for key, reason in outcome.failures.items():
    display(Markdown(f"**{key}** failed: {reason}"))
cells = {
    cell["method"]: cell for cell in kept.cells(PART) if (cell["dataset"], cell["seed"]) == (dataset, 0)
}  # fmt: skip
cells = {way: cells[way] for way in WAYS if way in cells}

# %% [markdown]
# ## What is found after each session
#
# A row is a session after which is measured, and a column the classes that came in a session. All columns are searched in
# the same gallery, which holds the pictures of all sessions. Above the diagonal are classes that the model hasn't met
# yet. A column that fades downwards is **forgetting**.

# %%
for similarity, title in (("euclidean", "R@1 by D, %"), ("local", "R@1 by local structure, %")):
    of_ways = {WAYS[way]: matrix_of(cell["metrics"], similarity, sessions + 1) for way, cell in cells.items()}
    display(change.matrices(of_ways, title))

# %% [markdown]
# In one number each, in %: the average at the end; **forgetting**, how far the classes of each session have fallen from
# their best; **backward** and **forward** transfer, what later sessions did to earlier classes and earlier ones to later
# classes; the **worst** R@1 on earlier classes while an update was under way, and the **gap** to the value before. Of the
# first update: how much MAP@R the old classes **lost**, which share of what training all anew **gained** on the new
# classes the way has, and its time as a share of training all anew.

# %%
table = updates_table(kept)
for similarity, title in (("euclidean", "D"), ("pddm", "S"), ("local", "local structure")):
    wide = summary(table, dataset, similarity).set_index("way").loc[list(cells)].rename(index=WAYS)
    shares = wide.drop(columns="seconds").map(lambda value: "" if pd.isna(value) else f"{100 * value:.1f}")
    display(Markdown(f"**By {title}**"), shares.assign(seconds=wide["seconds"].map("{:.1f}".format)))

# %% [markdown]
# ## In between
#
# At the end of an update all may be well, and it may have been bad on the way there: a model that serves while it trains
# would find less. `pddm-lab update` therefore writes a new run, and the old one serves until the new one is better.

# %%
curves = {
    WAYS[way]: cell["settings"]["curves"] for way, cell in cells.items()
    if all(len(curve) > 1 for curve in cell["settings"]["curves"])
}  # fmt: skip
change.while_training(curves, AT)

# %% [markdown]
# ## Must all vectors be made anew?
#
# A query is embedded by the new model. Are the old vectors of the gallery of any use for it? MAP@R by D in %, of old and
# new queries in an old and a new gallery, after the first update. The vectors of the new classes are new in any case: they
# arrive with the new model.

# %%
compared = {WAYS[way]: cell["settings"] for way, cell in cells.items() if "backfill" in cell["settings"]}
pd.DataFrame({
    (way, classes_of): {where: f"{100 * of[classes_of]:.1f}" for where, of in settings["two_by_two"].items()}
    for way, settings in compared.items() for classes_of in ("old", "new")
})  # fmt: skip

# %%
change.backfill({way: settings["backfill"] for way, settings in compared.items()}, SHARES)

# %% [markdown]
# A model that was kept near starts where the others end: nothing needs to be embedded again. One that was trained anew has
# a space of its own, in which old vectors mean nothing.
#
#     pddm-lab update demo --add new-products     # train a run on; the new one serves if it finds more
#     pddm-lab sessions --datasets grocery        # this comparison, over several seeds
