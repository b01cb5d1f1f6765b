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
# # What do bad pictures cost?
#
# The pictures that a model was trained on are sharp and well lit. Those that it gets later may not be: out of focus, in
# the rain, with a hand in front. This notebook takes a finished run, makes pictures worse in known ways and in steps, and
# measures what each similarity still finds. It answers three questions. What hurts most? Which similarity holds best? And
# does a threshold that was chosen on good pictures still hold on bad ones?

# %% tags=["parameters"] jupyter={"source_hidden": true}
# fmt: off
run = ""  # str, Name or path of a finished run; empty: the newest one.
runs_root = ""  # str, Folder with the runs; empty: $PDDM_LAB_RUNS, or ./runs.
protocol = "unseen"  # str, Classes that are searched: unseen or known.
corruptions = ["gaussian_noise", "defocus_blur", "fog", "jpeg_compression", "occlusion", "illumination"]  # list, Ways to make a picture worse; `pddm-lab robustness` has 25.
strengths = [1, 3, 5]  # list, Steps, from 1 to 5.
sides = ["query"]  # list, Whose pictures are made worse: query, gallery, both.
queries = 200  # int, Queries, a seeded sample.
items = 800  # int, Items that are searched, a seeded sample of whole classes.
seed = 0  # int, Seed of the sample.
# fmt: on

# %% tags=["hide-input"] jupyter={"source_hidden": true}
from pddm_lab.training.notebook import begin, run_named

begin(globals(), "run", "runs_root", "protocol", "corruptions", "strengths", "sides", "queries", "items", "seed")

from PIL import Image

from pddm_lab import cards
from pddm_lab.data.images import open_image
from pddm_lab.gallery.files import thumbnail
from pddm_lab.robustness.corruptions import CORRUPTIONS, corrupt, square_of
from pddm_lab.robustness.sample import draw_sample

opened = run_named(run, runs_root)
sample = draw_sample(opened, protocol, queries, items, seed)
one = sample.query[0]
clean = square_of(open_image(sample.paths[one]))
steps = [("clean", 0), *((name, strength) for name in corruptions for strength in strengths)]
worse = {step: Image.fromarray(corrupt(clean, sample.ids[one], *step)) for step in steps}
titles = {name: CORRUPTIONS[name].title for name in corruptions}
tiles = [(f"{name} {strength}", f"{titles.get(name, 'as it is')} {strength or ''}") for name, strength in steps]
cards.image_grid(tiles, {item: thumbnail(image) for (item, _), image in zip(tiles, worse.values(), strict=True)})

# %% [markdown]
# Above is a query of the run as it is, and then in each way and strength that is measured below. What is random about
# them, such as where the noise is, depends on the item alone: every run sees the same bad pictures.
#
# ## One query
#
# The nearest items by D in the gallery, the query itself left out: first for the picture as it is, then for one of its bad
# versions in the largest strength. A green frame is the right class.

# %%
from IPython.display import Markdown, display

from pddm_lab.runs.model import embedder

gallery, embed = opened.gallery(protocol), embedder(opened)
row = gallery.index_of(sample.ids[one])
own_class = gallery.items["class_name"].iloc[row]
bad = (corruptions[0], max(strengths))
for step in (("clean", 0), bad):
    feature = embed.embed_all([embed.prepare(worse[step])])[0][0]
    ranked = gallery.search_by(feature, [], 10, row).ranked("euclidean", 8)
    images = {item: gallery.thumb(gallery.index_of(item)) for item in ranked["id"]}
    display(Markdown(f"**{titles.get(step[0], 'As it is')}**"))
    display(cards.retrieval_grid(ranked, images, "euclidean", right_class=own_class))

# %% [markdown]
# ## All queries
#
# R@1 is the share of queries whose nearest item is of their class. A row is a way to make pictures worse, a column its
# strength. What is measured is kept with the run, where the page Robustness of the dashboard shows it; running this again
# goes on with it.

# %%
import pandas as pd

from pddm_lab.figures import robustness as charts
from pddm_lab.robustness.findings import leads, summarise
from pddm_lab.robustness.measure import measure_robustness
from pddm_lab.similarities import EVERY, PRETRAINED, PRETRAINED_FEATURES

measured = measure_robustness(opened, protocol, corruptions, strengths, sides, queries, items, seed)
cells = measured.table()
cells = cells[cells["corruption"].isin(["clean", *corruptions]) & cells["strength"].isin([0, *strengths])]
side = sides[0]
of_side = cells[(cells["side"] == side) | (cells["corruption"] == "clean")]
by_distance = of_side[of_side["similarity"] == "euclidean"]
charts.corruption_map(by_distance, "recall@1", titles, title="R@1 by D, %")

# %% [markdown]
# ## Which similarity holds best?
#
# The mean over these ways, for each strength. Where the lines come together, what a similarity had learned is lost on bad
# pictures. Local structure compares neighbourhoods: a bad picture that lands among strangers has the wrong neighbours, and
# then all of them speak for a wrong class.

# %%
means = of_side.groupby(["similarity", "strength"], as_index=False)["recall@1"].mean().assign(corruption="all")
charts.by_strength(means, "recall@1", title="R@1, mean over the ways above")

# %% [markdown]
# In one line each: R@1 in % on the pictures as they are and on the bad ones, with a 95 % interval over classes; **kept**,
# the share that is left; **mCE**, the errors as a share of those of the pretrained features, where less is better and they
# have 100; and how many points of R@1 the similarity is **ahead of D** on the bad pictures. An interval of the last that
# holds 0 is no difference.

# %%
ahead = leads(measured).query("of == 'corrupted'").set_index(["side", "similarity"])


def line(of):
    """A similarity in one line."""
    lead = ahead.loc[(of.side, of.similarity)] if (of.side, of.similarity) in ahead.index else None
    return {
        "worse pictures of": of.side,
        "ranked by": PRETRAINED_FEATURES.title if of.similarity == PRETRAINED else EVERY[of.similarity].title,
        "clean": f"{100 * of.clean:.1f}",
        "bad": f"{100 * of.corrupted:.1f} ({100 * of.low:.1f} to {100 * of.high:.1f})",
        "kept, %": f"{100 * of.kept:.0f}",
        "mCE": "" if of.mce != of.mce else f"{100 * of.mce:.0f}",
        "ahead of D": ""
        if lead is None
        else f"{100 * lead['lead']:+.1f} ({100 * lead['low']:+.1f} to {100 * lead['high']:+.1f})",
    }


pd.DataFrame([line(of) for of in summarise(measured).itertuples()]).style.hide(axis="index")

# %% [markdown]
# ## Does a threshold hold?
#
# Distances of pairs of one class and of pairs of two classes, mean and deviation, under the way that costs D most. Between
# both bands lies a threshold that says *same* or *different*. Bad pictures move the first band towards the other one, and
# the threshold then calls more and more pairs of one class different.

# %%
worst = by_distance[by_distance["corruption"] != "clean"].groupby("corruption")["recall@1"].mean().idxmin()
bands = by_distance[by_distance["corruption"].isin(["clean", worst])]
charts.score_bands(bands, "euclidean", title=f"D of pairs: {titles[worst].lower()}")

# %% [markdown]
# What to do? `pddm-lab drift` notices when many queries are worse than they were. Then ask for better pictures, or add some
# of the bad ones to the gallery: with `sides = ["query", "both"]` you see what is found when both sides are alike.
#
#     pddm-lab robustness demo                       # 25 ways, five strengths, 500 queries, both sides: most of an hour
#     pddm-lab viewpoint demo                        # how far a thing may be turned, on fruits360
