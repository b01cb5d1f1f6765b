"""The tables of a study, to read (markdown) and to compute with (csv).

A number is the mean over seeds ± half of its 95 % t interval. Shares are in %.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pddm_lab.errors import RunError
from pddm_lab.files import write_file
from pddm_lab.similarities import SIMILARITIES
from pddm_lab.study.cells import Study, table
from pddm_lab.study.methods import ABLATIONS, METHODS
from pddm_lab.study.published import RECALLS, STRONGER, published_rows
from pddm_lab.study.statistics import (
    best_baseline,
    compare_similarities,
    compare_with_baseline,
    convergence,
    has_baseline,
    search_results,
    summary,
)

MEASURES: Mapping[str, tuple[str, float, int]] = {
    "recall@1": ("R@1", 100, 1), "recall@2": ("R@2", 100, 1), "recall@4": ("R@4", 100, 1),
    "recall@8": ("R@8", 100, 1), "recall@16": ("R@16", 100, 1), "recall@32": ("R@32", 100, 1),
    "r_precision": ("R-precision", 100, 1), "map@r": ("MAP@R", 100, 1), "nmi": ("NMI", 100, 1), "auc": ("AUC", 1, 3),
    "tpr@1%fpr": ("TPR", 100, 1), "dprime": ("d'", 1, 2), "tpr_dense": ("TPR dense", 100, 1),
    "tpr_middle": ("TPR middle", 100, 1), "tpr_sparse": ("TPR sparse", 100, 1),
}  # fmt: skip
"""Metric -> heading, scale, digits."""
RANKING = ("recall@1", "recall@2", "recall@4", "recall@8", "recall@16", "recall@32", "r_precision", "map@r", "nmi")
SEPARATION = ("auc", "dprime", "tpr@1%fpr", "tpr_dense", "tpr_middle", "tpr_sparse")
BENCHMARKS = ("cub200", "cars196", "products")
NEAREST = {
    "Contrastive": ("contrastive", "euclidean"), "Triplet": ("triplet_semihard", "euclidean"),
    "LiftedStruct": ("lifted", "euclidean"), "PDDM+Triplet": ("pddm_triplet_batch", "pddm"),
    "PDDM+Quadruplet": ("pddm_batch", "pddm"),
}  # fmt: skip
"""Published row -> the closest method here, and the similarity that the published row is ranked by."""
PROTOCOLS = {"unseen": "unseen classes", "known": "known classes"}


def markdown(frame: pd.DataFrame) -> str:
    """A frame as a markdown table."""
    rows = [list(map(str, frame.columns)), ["---"] * frame.shape[1], *frame.astype(str).to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows)


def format_number(value: float, half: float = math.nan, scale: float = 1, digits: int = 3) -> str:
    """A mean with half of its interval; a dash for a missing value."""
    if not math.isfinite(value):
        return "–"
    text = f"{scale * value:.{digits}f}"
    return text if not math.isfinite(half) else f"{text} ± {scale * half:.{digits}f}"


def method_titles(part: str) -> dict[str, str]:
    """Method -> title, in the order of the tables."""
    if part == "methods":
        return {name: method.title for name, method in METHODS.items()}
    return {name: f"{variant.factor}: {variant.method.title}" for name, variant in ABLATIONS.items()}


def metrics_table(means: pd.DataFrame, part: str, dataset: str, protocol: str, metrics: Sequence[str]) -> pd.DataFrame:
    """One data set under one protocol, from `statistics.summary`: a row per method and similarity, a column per metric.

    `metrics` are keys of `MEASURES`. All values are text, as in the other tables here.
    """
    values = _values(means[(means["dataset"] == dataset) & (means["protocol"] == protocol)])
    rows = []
    for method, title in method_titles(part).items():
        for name in SIMILARITIES:
            if (method, name, "map@r") in values:
                cells = (values.get((method, name, metric), (math.nan, math.nan)) for metric in metrics)
                scales = (MEASURES[metric][1:] for metric in metrics)
                rows.append(
                    [title, name, *(format_number(*cell, *how) for cell, how in zip(cells, scales, strict=True))]
                )
    return pd.DataFrame(rows, columns=["method", "ranked by", *(MEASURES[metric][0] for metric in metrics)])


def _values(means: pd.DataFrame) -> dict[tuple[Any, ...], tuple[Any, Any]]:
    return {(row.method, row.similarity, row.metric): (row.value, row.half) for row in means.itertuples()}


def differences_table(against: pd.DataFrame, dataset: str, protocol: str, metric: str = "map@r") -> pd.DataFrame:
    """Each ranking's difference from the best baseline, from `statistics.compare_with_baseline`."""
    of_protocol = (against["dataset"] == dataset) & (against["protocol"] == protocol)
    titles, rows = method_titles("methods"), []
    for row in against[of_protocol & (against["metric"] == metric)].itertuples():
        difference = format_number(row.difference, row.half, *MEASURES[metric][1:])
        p, result = f"{row.holm:.3f}" if row.holm >= 0.001 else "< 0.001", "better" if row.difference > 0 else "worse"
        if math.isnan(row.holm):
            p = result = "–"
        elif row.holm >= 0.05:
            result = "not significant"
        rows.append([titles.get(row.method, row.method), row.similarity, difference, p, result])
    head = ["method", "ranked by", f"{MEASURES[metric][0]}, difference", "p (Holm)", "result"]
    return pd.DataFrame(rows, columns=head)


def lead_table(leads: pd.DataFrame, dataset: str, part: str = "methods") -> pd.DataFrame:
    """The lead of S over D and D_M under each protocol, from `statistics.compare_similarities`."""
    values = {
        (row.method, row.protocol, row.similarity): format_number(row.difference, row.half, 100, 1)
        for row in leads[leads["dataset"] == dataset].itertuples()
    }
    columns = [(protocol, other) for protocol in PROTOCOLS for other in ("euclidean", "mahalanobis")]
    rows = [
        [title, *(values.get((method, *column), "") for column in columns)]
        for method, title in method_titles(part).items()
        if any((method, *column) in values for column in columns)
    ]
    heads = {"euclidean": "S − D", "mahalanobis": "S − D_M"}
    return pd.DataFrame(rows, columns=["method", *(f"{PROTOCOLS[one]}: {heads[other]}" for one, other in columns)])


def published_table(means: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """Published Recall@1, 2, 4, 8 of one of `BENCHMARKS` next to this study's, if any, from `statistics.summary`."""
    values = _values(means[(means["dataset"] == dataset) & (means["protocol"] == "unseen")])
    rows = []
    for row in published_rows(dataset):
        keys = [(*NEAREST[row.method], f"recall@{k}") for k in RECALLS]
        here = [format_number(*values[key], 100, 1) if key in values else "" for key in keys]
        rows.append([row.method, *map("{:.1f}".format, row.recalls), "two" if row.confirmed else "one", *here])
    rows += [[name, f"{value:.1f}", *[""] * (2 * len(RECALLS))] for name, value in STRONGER.get(dataset, ())]
    columns = ["method", *(f"R@{k} published" for k in RECALLS), "sources", *(f"R@{k} here" for k in RECALLS)]
    return pd.DataFrame(rows, columns=columns)


def search_table(chosen: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """Each method's chosen configuration, steps and MAP@R on held-out classes, from `statistics.search_results`."""
    methods = method_titles("methods")
    titles = methods | method_titles("ablation") | methods  # `lab` is in both
    order = {name: position for position, name in enumerate(titles)}
    rows = [
        [titles[row.method], ", ".join(f"{name} {value}" for name, value in row.settings.items()), row.step,
         format_number(row.value, row.error, 100, 1), row.similarity, row.configurations]
        for row in sorted(chosen[chosen["dataset"] == dataset].itertuples(), key=lambda row: order[row.method])
    ]  # fmt: skip
    head = ["method", "settings", "steps", "validation MAP@R ± standard error", "ranked by", "configurations"]
    return pd.DataFrame(rows, columns=head)


def convergence_table(reached: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """Steps and seconds until the best baseline's final value and until 99 % of a method's own best value.

    `reached` is the result of `statistics.convergence`.
    """
    titles = method_titles("methods")
    columns = {"best": (100, 1), "share_step": (1, 0), "share_seconds": (1, 1), "target_step": (1, 0),
               "target_seconds": (1, 1)}  # fmt: skip
    rows = []
    for row in reached[reached["dataset"] == dataset].itertuples():
        cells = (format_number(getattr(row, name), math.nan, *how) for name, how in columns.items())
        rows.append([titles.get(row.method, row.method), *cells])
    head = ["method", "best MAP@R", "steps to 99 % of it", "s", "steps to the target", "s to the target"]
    return pd.DataFrame(rows, columns=head)


def write_tables(study: Study, folder: Path) -> list[Path]:
    """Write the tables of the finished cells: compare, ablate, converge and published as .md, their data as .csv.

    Returns:
        The files.

    Raises:
        RunError: the folder can't be written, or the study has no finished cell.
    """
    cells = table(study.path)
    if cells.empty:
        raise RunError(f"{study.path} has no finished cell yet: `pddm-lab compare` computes them.")
    means = summary(cells, "methods")
    pages, frames = {"published": _published_page(means)}, dict[str, pd.DataFrame]()
    if (cells["part"] == "methods").any():
        chosen, leads = search_results(study), compare_similarities(cells)
        against, reached = compare_with_baseline(cells, chosen), convergence(study, chosen)
        pages |= {"compare": _compare_page(means, chosen, against, leads), "converge": _converge_page(reached)}
        frames |= {"compare": means, "versus": against, "within": leads, "converge": reached}
        frames["search"] = chosen.drop(columns="key")
    if (cells["part"] == "ablation").any():
        frames["ablate"] = summary(cells, "ablation")
        frames["ablate_search"] = search_results(study, "ablation").drop(columns="key")
        pages["ablate"] = _ablate_page(frames["ablate"], compare_similarities(cells, "ablation"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{folder} can't be written: {error.strerror}. Choose another folder: --out.") from error
    texts = {f"{name}.md": f"{page.strip()}\n" for name, page in pages.items()}
    texts |= {f"{name}.csv": frame.to_csv(index=False, float_format="%.6g") for name, frame in frames.items()}
    for name, text in texts.items():
        write_file(folder / name, text)
    return [folder / name for name in texts]


_LEAD = "lead of S over D and D_M in the same trainings, in points of MAP@R"
_LEGEND = (
    "Each value is the mean over seeds ± half of its 95 % t interval. All values except AUC and d' are in %. TPR is "
    "the true-positive rate at one threshold with 1 % false positives, over all pairs and over thirds of the pairs "
    "by local density. Every method has the same frozen features, 128-d linear head, batches, step limit and number "
    "of configurations, which are searched on classes held out of training. A method that isn't trained has one "
    "value, without an interval."
)


def _compare_page(means: pd.DataFrame, chosen: pd.DataFrame, against: pd.DataFrame, leads: pd.DataFrame) -> str:
    titles, lines = method_titles("methods"), ["# Methods side by side", _LEGEND]
    for dataset in means["dataset"].unique():
        of_dataset = means[means["dataset"] == dataset]
        lines.append(f"## {dataset}")
        for protocol, of_protocol in of_dataset.groupby("protocol", sort=False):
            where = f"### {dataset}, {PROTOCOLS[protocol]}"
            for what, metrics in (("ranking", RANKING), ("separation of pairs", SEPARATION)):
                lines.append(f"{where}, {int(of_protocol['seeds'].max())} seeds: {what}")
                lines.append(markdown(metrics_table(means, "methods", dataset, protocol, metrics)))
            if has_baseline(chosen, dataset):
                best = titles[best_baseline(chosen, dataset)["method"]]
                lines.append(f"{where}: compared with {best}, the best baseline on held-out classes")
                lines.append(markdown(differences_table(against, dataset, protocol)))
            else:
                lines.append("No baseline has been measured here yet.")
        lines += [f"### {dataset}: {_LEAD}", markdown(lead_table(leads, dataset))]
        lines += [f"### {dataset}: configurations chosen by the search", markdown(search_table(chosen, dataset))]
    return "\n\n".join(lines)


def _ablate_page(means: pd.DataFrame, leads: pd.DataFrame) -> str:
    lines = ["# Ablation of PDDM", f"{_LEGEND} Each row changes one choice of the preset `joint`."]
    seeds = means.groupby("method")["seeds"].max()
    most = f" ({int(seeds.max())} for the presets themselves)" if seeds.max() > seeds.min() else ""
    metrics = ("recall@1", "r_precision", "map@r", *SEPARATION)
    for dataset in means["dataset"].unique():
        for protocol in means.loc[means["dataset"] == dataset, "protocol"].unique():
            lines.append(f"## {dataset}, {PROTOCOLS[protocol]}, {int(seeds.min())} seeds{most}")
            lines.append(markdown(metrics_table(means, "ablation", dataset, protocol, metrics)))
        lines += [f"## {dataset}: {_LEAD}", markdown(lead_table(leads, dataset, "ablation"))]
    return "\n\n".join(lines)


def _converge_page(reached: pd.DataFrame) -> str:
    lines = [
        "# Speed of convergence",
        "Measured at intervals on classes held out of training, with each method's chosen configuration. Seconds count "
        "training alone, on one core. The target is the MAP@R at which the best baseline ends. A dash means that the "
        "target was never reached.",
    ]
    for dataset in reached["dataset"].unique() if len(reached) else ():
        target = reached.loc[reached["dataset"] == dataset, "target"].iloc[0]
        lines += [f"## {dataset}: target {100 * target:.1f} %", markdown(convergence_table(reached, dataset))]
    return "\n\n".join(lines)


def _published_page(means: pd.DataFrame) -> str:
    lines = [
        "# Published numbers",
        "Recall@K in %, on unseen classes. The published methods train a GoogLeNet, or the network named in the row, "
        "end to end. The columns `here` train a head on a frozen EfficientNet-Lite0; `pddm-lab compare --datasets "
        "NAME` fills them. Rows of PDDM are ranked by S. Sources: how many texts print the numbers.",
    ]
    for dataset in BENCHMARKS:
        rows = published_table(means, dataset)
        lines += [f"## {dataset}", markdown(rows) if len(rows) else "No published numbers available."]
    return "\n\n".join(lines)
