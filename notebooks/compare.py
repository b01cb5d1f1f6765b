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
# # Methods side by side
#
# Many papers on metric learning report that the new method wins. When the comparison is repeated with the same network,
# the same data and the same effort for every method, most of the difference disappears (Musgrave, Belongie and Lim, *A
# Metric Learning Reality Check*, ECCV 2020). This notebook therefore makes a fair comparison before it says what PDDM is
# good for:
#
# * **The same features.** A network trained on ImageNet is frozen. Every method trains one linear layer on its features,
#   which turns each picture into 128 numbers, scaled to length 1.
# * **The same batches and steps.** Every method sees the same pictures in the same order.
# * **The same search.** Every method may try the same number of configurations. They are compared on *training classes
#   that were held out* fold by fold, never on the test classes.
# * **Several seeds.** The chosen configuration is trained again from other random weights. A result is a mean with a 95 %
#   interval: 95 of 100 such intervals contain the mean of many more such trainings.
#
# The test classes are used once per training, at the very end.

# %% tags=["parameters"]
# fmt: off
study = ""  # str, Name of a study to show, such as main; empty: run a small one with the settings below.
datasets = ["digits"]  # list, Data sets: names that pddm-lab data list shows, or folder:PATH.
methods = ["pddm", "mahalanobis", "triplet_hard", "multi_similarity", "proxy_anchor", "pretrained"]  # list, Names of methods; empty: all.
configurations = 1  # int, Configurations that each method may try, at most 6.
seeds = 2  # int, Final trainings per method on all training classes, each measured once.
steps = 100  # int, Most training steps per configuration; the number of steps is chosen up to this limit.
eval_every = 50  # int, Steps between measurements.
base: dict = {}  # dict, Fields of TrainConfig to change for all methods, such as image_size.
processes = 2  # int, Trainings that run at the same time, each on one core.
data_root = ""  # str, Folder with the data sets; empty: $PDDM_LAB_DATA, or ./data.
runs_root = ""  # str, Folder with the runs; empty: $PDDM_LAB_RUNS, or ./runs.
# fmt: on

# %% [markdown]
# The whole comparison, `pddm-lab compare`, takes about an hour and a half on two cores. You can stop it at any time, and the
# same command resumes it. Then set `study = "main"` to show it here. The settings above are small and only show how it
# works; their numbers mean little.

# %%
from pddm_lab.training.notebook import begin

begin(
    globals(), "methods", "study", "datasets", "configurations", "seeds", "steps", "eval_every", "base", "processes",
    "data_root", "runs_root",
)  # fmt: skip

from IPython.display import Markdown, display

from pddm_lab import figures
from pddm_lab.study import table, tables
from pddm_lab.study.methods import METHODS
from pddm_lab.study.plan import Plan, open_study
from pddm_lab.study.statistics import (
    best_baseline,
    compare_similarities,
    compare_with_baseline,
    search_results,
    summary,
)

plan = Plan(
    datasets=tuple(datasets), parts=("methods",), methods=tuple(methods) or tuple(METHODS),
    configurations=configurations, seeds=seeds, steps=steps, eval_every=eval_every,
    base={**base, **{name: value for name, value in (("data_root", data_root), ("runs_root", runs_root)) if value}},
)  # fmt: skip
record = open_study(study, plan, runs_root, processes)
cells = table(record.path)
results, chosen = summary(cells, "methods"), search_results(record)
display(Markdown(f"The study in `{record.path}` has {len(cells)} measurements."))


def show(frame):
    """A table of text."""
    display(Markdown(tables.markdown(frame)))


# %% [markdown]
# ## What was chosen
#
# For each method, the configuration that was best on the held-out training classes, and the number of steps: the latest
# step whose MAP@R is within one standard error of the best. **MAP@R**: for a query with $R$ right items it counts the
# right items among the first $R$ results, and early ones count more.

# %%
for dataset in chosen["dataset"].unique():
    display(Markdown(f"**{dataset}**"))
    show(tables.search_table(chosen, dataset))

# %% [markdown]
# ## The results
#
# *Unseen classes* were not in the training data. *Known classes* means new pictures of the training classes. A PDDM method
# has three rows: its embedding ranked by Euclidean distance, by the Mahalanobis distance trained beside it, and by its
# score $S$.

# %%
for dataset in results["dataset"].unique():
    for protocol in tables.PROTOCOLS:
        display(Markdown(f"**{dataset}, {tables.PROTOCOLS[protocol]}**"))
        show(tables.metrics_table(results, "methods", dataset, protocol, tables.RANKING))

# %%
for dataset in results["dataset"].unique():
    rows = results[results["dataset"] == dataset].rename(columns={"half": "std"})
    rows = rows.assign(run=rows["method"].map(tables.method_titles("methods")))
    display(figures.comparison(rows, ["map@r"], title=f"{dataset}: MAP@R, mean and 95 % interval"))

# %% [markdown]
# ## Better, worse, or level?
#
# Each ranking is compared with the best baseline. The baseline is chosen on the held-out *training* classes, so that luck on
# the test classes cannot choose it. Seeds are compared in pairs, because both methods saw the same splits and batches. Of
# twenty comparisons one would look significant by chance, so the p values are corrected for their number (Holm). *Level*
# means that these seeds show no difference.

# %%
against = compare_with_baseline(cells, chosen)
for dataset in results["dataset"].unique():
    best = best_baseline(chosen, dataset)
    for protocol in tables.PROTOCOLS:
        display(Markdown(f"**{dataset}, {tables.PROTOCOLS[protocol]}**, against {METHODS[best['method']].title}"))
        show(tables.differences_table(against, dataset, protocol))

# %% [markdown]
# ## Is the local similarity worth it?
#
# Each training of PDDM ranks the same embedding in three ways: by the local score S, by the distance D, and by a learned
# global metric D_M. The table shows how far S is ahead, in points of MAP@R, with the 95 % interval over seeds. A local
# similarity is worth it if the difference is above zero under both protocols. Two cautions: the S of the preset `lab`
# also sees the pretrained features, which D and D_M do not, and the interval covers seeds, not other classes.

# %%
inside = compare_similarities(cells)
for dataset in results["dataset"].unique():
    display(Markdown(f"**{dataset}**"))
    show(tables.lead_table(inside, dataset))

# %% [markdown]
# ## One threshold for all
#
# A shop that asks "is this the same product?" needs a threshold, not a ranking. **TPR** is the share of same-class pairs
# that are accepted when 1 % of the other pairs pass. The paper's claim is about the last three columns: the pairs are
# grouped into thirds by the density around their items, and *one* threshold is used for all of them. A global distance
# accepts nearly all pairs in dense places and hardly any in sparse ones. With a local similarity the three values should
# be closer together.

# %%
for dataset in results["dataset"].unique():
    for protocol in tables.PROTOCOLS:
        display(Markdown(f"**{dataset}, {tables.PROTOCOLS[protocol]}**"))
        show(tables.metrics_table(results, "methods", dataset, protocol, tables.SEPARATION))

# %% [markdown]
# ## Beside the paper's numbers
#
# The paper trains a whole GoogLeNet on birds (CUB-200-2011) and cars (Cars196). If you have these data sets, `pddm-lab
# compare --datasets cub200 cars196` fills the columns on the right. The settings differ (only a linear layer is trained
# here), so compare the order of the methods rather than the numbers.

# %%
for dataset in tables.BENCHMARKS:
    display(Markdown(f"**{dataset}**"))
    rows = tables.published_table(results, dataset)
    show(rows) if len(rows) else display(Markdown("There are no published numbers."))
