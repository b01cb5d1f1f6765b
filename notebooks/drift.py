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
# # Do the queries still look like the range?
#
# A model that was good last year may be worse today, and nobody tells it: the lamp in the shop was changed, the lens is
# dirty, customers photograph products that are not in the range. Labels would show it, but nobody labels queries. This
# notebook looks for **drift** without labels: it compares the queries that come in with the run's own, by several signals,
# and raises an alarm when they differ by more than chance allows.

# %% tags=["parameters"] jupyter={"source_hidden": true}
# fmt: off
run = ""  # str, Name or path of a finished run; empty: the newest one.
runs_root = ""  # str, Folder with the runs; empty: $PDDM_LAB_RUNS, or ./runs.
queries = ""  # str, Folder of new pictures to look at in the end; empty: none.
kind = "darkness"  # str, What happens to the pictures half way: blur, noise or darkness.
amount = "little"  # str, How much of it: little or much.
before = 300  # int, Own queries that come first.
after = 200  # int, Worse pictures that follow.
window = 200  # int, Queries that are compared at a time.
streams = 400  # int, Streams without drift that choose the threshold.
seed = 0  # int, Seed of all draws.
# fmt: on

# %% tags=["hide-input"] jupyter={"source_hidden": true}
from pddm_lab.training.notebook import begin, run_named

begin(globals(), "run", "runs_root", "queries", "kind", "amount", "before", "after", "window", "streams", "seed")

from pathlib import Path

import numpy as np

from pddm_lab import cards
from pddm_lab.change.signals import SIGNALS, Gauge
from pddm_lab.change.worse_pictures import worsen
from pddm_lab.data.images import open_image
from pddm_lab.gallery.files import thumbnail

opened = run_named(run, runs_root)
gauge = Gauge.of(opened)
places = gauge.sample(seed)
kept, new = np.split(np.arange(len(places)), [round(2 / 3 * len(places))])
later, earlier = new[:after], new[after : after + before]
if len(earlier) < before:  # a small run: some of the first queries come again as worse pictures
    earlier = new[-before:]
root = Path(opened.info["dataset"]["root"])


def picture(query, is_worse):
    """The picture of one of the held-out queries, as it is or worse."""
    item = gauge.ids[places[query]]
    image = open_image(root / item)
    return worsen(image, kind, amount, item) if is_worse else image


shown = [
    (f"{query} {is_worse}", "worse" if is_worse else "as it is") for is_worse in (False, True) for query in later[:8]
]
images = {f"{query} {worse}": thumbnail(picture(query, worse)) for worse in (False, True) for query in later[:8]}
cards.image_grid(shown, images)

# %% [markdown]
# Some of the run's **held-out** pictures, on which it was not trained, and the same with the change that comes half way. Is
# it one that you would notice, looking at one picture after the other?
#
# ## What is measured of a query
#
# Each query is compared with the items of the catalogue, without itself. The last two signals of the lab, *classes* and
# *features*, are of all queries of a window together. Here is one query, as it is and worse.

# %%
import pandas as pd
from IPython.display import Markdown, display

from pddm_lab.runs.model import embedder

embed = embedder(opened)


def stream_of(rows, is_worse):
    """Held-out queries as a stream."""
    parts = [
        embed.embed_all([embed.prepare(picture(query, is_worse)) for query in rows[start : start + 32]])[0]
        for start in range(0, len(rows), 32)
    ]
    return gauge.read(np.concatenate(parts), places[rows])


own, worse = gauge.own(places), stream_of(later, True)
same = own.take(later)
pd.DataFrame({
    SIGNALS[name][0]: {
        "as it is": f"{same.signals[name][0]:.3f}", "worse": f"{worse.signals[name][0]:.3f}", "what it is": SIGNALS[name][1]
    } for name in worse.signals
}).transpose()  # fmt: skip

# %% [markdown]
# ## Then and now
#
# One query says little, as queries differ anyway. Many say more: grey is how far the run's own queries are from their
# nearest item, the line shows the worse ones. The second chart is of the probability that the nearest item's class is right.

# %%
from pddm_lab.change.drift import BINS
from pddm_lab.figures import change

for name in ("distance", "probability"):
    if name in worse.signals:
        both = own.signals[name], worse.signals[name]
        low, high = np.quantile(np.concatenate(both), [0.001, 0.999])
        edges = np.linspace(low, high, BINS + 1)
        then, now = (np.histogram(np.clip(of, low, high), edges)[0] / len(of) for of in both)
        display(change.then_and_now(edges.tolist(), then.tolist(), now.tolist(), title=SIGNALS[name][0]))

# %% [markdown]
# ## When is it an alarm?
#
# The last queries are a **window**. It moves along the stream, and at every tenth of its size each signal of the window is
# compared with the run's own queries: by the Kolmogorov-Smirnov statistic, or, for the features, by the maximum mean
# discrepancy. So many looks at so many signals would raise false alarms if each were tested by itself. Therefore streams
# **without** drift are drawn from own queries, and the threshold is the one that only 5 % of them ever exceed.
#
# Two thirds of the held-out queries choose the threshold. The others are two streams: own queries, then worse pictures; and
# own queries to the end. A line above 100 % is an alarm.

# %%
from pddm_lab.change.alarm import Alarm, first_alarm, spans_of

alarm = Alarm.fit(own.take(kept), window, seed, streams)
for title, stream in (
    ("Own queries, then worse pictures", own.take(earlier).then(worse)),
    ("Own queries to the end", own.take(np.random.default_rng(seed).permutation(new)[:1000])),
):
    ratios, ends = alarm.ratios(stream), spans_of(len(stream), window)[:, 1]
    titled = {SIGNALS[name][0]: of.tolist() for name, of in ratios.items()}
    display(change.drift_over_stream(ends.tolist(), titled, title=title))
    first = first_alarm(ratios)
    if first is None:
        display(Markdown("No alarm."))
    else:
        loudest = max(ratios, key=lambda name: ratios[name][first])
        display(Markdown(f"An alarm after {ends[first]} queries, first by *{SIGNALS[loudest][0].lower()}*."))

# %% [markdown]
# One stream is no rate. `pddm-lab bench drift` measures how many of many streams raise a false alarm, and how soon a true
# one comes, on queries that the threshold hasn't seen; `notebooks/results/README.md` has the results.
#
# ## Your own pictures
#
# Name a folder in `queries` to compare its pictures with the run.

# %%
if queries:
    from pddm_lab.change import drift_text
    from pddm_lab.change.drift import drift_of_folder

    content, notes = drift_of_folder(opened, Path(queries), window, seed=seed)
    display(Markdown(" ".join([drift_text.sentence(content), drift_text.advice(content, opened), *notes])))
    display(pd.DataFrame(drift_text.table_rows(content), columns=drift_text.HEAD).style.hide(axis="index"))

# %% [markdown]
# What then? New products: add them to the catalogue, and update the model when there are many. Known products in another
# light: add such pictures too.
#
#     pddm-lab drift demo --queries new-pictures     # the same for a folder; --log FILE reads a service's scores
#     pddm-lab update demo --add new-products        # train the run on with what is new
