"""The tables of a study, to read (markdown) and to compute with (csv).

A number is the mean over seeds ± half of its 95 % t interval. Shares are in %.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from pddm_lab.errors import RunError
from pddm_lab.files import replacing
from pddm_lab.similarities import SIMILARITIES
from pddm_lab.study.cells import Study, table
from pddm_lab.study.methods import ABLATIONS, METHODS
from pddm_lab.study.published import RECALLS, STRONGER, of
from pddm_lab.study.statistics import best_baseline, convergence, has_baseline, searched, summary, versus, within

MEASURES: Mapping[str, tuple[str, float, int]] = {
    "recall@1": ("R@1", 100, 1), "recall@2": ("R@2", 100, 1), "recall@4": ("R@4", 100, 1),
    "recall@8": ("R@8", 100, 1), "recall@16": ("R@16", 100, 1), "recall@32": ("R@32", 100, 1),
    "r_precision": ("R-precision", 100, 1), "map@r": ("MAP@R", 100, 1), "nmi": ("NMI", 100, 1), "auc": ("AUC", 1, 3),
    "tpr@1%fpr": ("TPR", 100, 1), "dprime": ("d'", 1, 2), "tpr_dense": ("TPR dense", 100, 1),
    "tpr_middle": ("TPR middle", 100, 1), "tpr_sparse": ("TPR sparse", 100, 1),
}  # fmt: skip
"""Metric -> heading, scale, digits; in the order of the tables."""
RANKING = ("recall@1", "recall@2", "recall@4", "recall@8", "recall@16", "recall@32", "r_precision", "map@r", "nmi")
SEPARATION = ("auc", "dprime", "tpr@1%fpr", "tpr_dense", "tpr_middle", "tpr_sparse")
BENCHMARKS = ("cub200", "cars196", "products")
NEAREST = {
    "Contrastive": ("contrastive", "euclidean"), "Triplet": ("triplet_semihard", "euclidean"),
    "LiftedStruct": ("lifted", "euclidean"), "PDDM+Triplet": ("pddm_triplet_batch", "pddm"),
    "PDDM+Quadruplet": ("pddm_batch", "pddm"),
}  # fmt: skip
"""Published row -> the method here that comes nearest, and what it is ranked by, as it was published."""
PROTOCOLS = {"unseen": "unseen classes", "known": "known classes"}


def markdown(frame: pd.DataFrame) -> str:
    """A frame as a markdown table, its values as text."""
    rows = [list(map(str, frame.columns)), ["---"] * frame.shape[1], *frame.astype(str).to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows)


def number(value: float, half: float = math.nan, scale: float = 1, digits: int = 3) -> str:
    """A mean with half of its interval; a dash where there is none."""
    if not math.isfinite(value):
        return "–"
    text = f"{scale * value:.{digits}f}"
    return text if not math.isfinite(half) else f"{text} ± {scale * half:.{digits}f}"


def titles(part: str) -> dict[str, str]:
    """Method -> what it is called, in the order of the tables."""
    if part == "methods":
        return {name: method.title for name, method in METHODS.items()}
    return {name: f"{variant.factor}: {variant.method.title}" for name, variant in ABLATIONS.items()}


def wide(found: pd.DataFrame, part: str, dataset: str, protocol: str, metrics: Sequence[str]) -> pd.DataFrame:
    """One data set under one protocol: a row per method and ranking, a column per metric, as text.

    Args:
        found: as `statistics.summary` gives it.
        part: methods or ablation.
        dataset: by name.
        protocol: unseen or known.
        metrics: keys of `MEASURES`.
    """
    chosen = found[(found["dataset"] == dataset) & (found["protocol"] == protocol)]
    values = {
        (row.method, row.similarity, row.metric): (row.value, row.half) for row in chosen.itertuples()
    }  # fmt: skip
    rows = []
    for method, title in titles(part).items():
        for similarity in SIMILARITIES:
            if (method, similarity, "map@r") in values:
                cells = [
                    number(*values.get((method, similarity, metric), (math.nan, math.nan)), *MEASURES[metric][1:])
                    for metric in metrics
                ]
                rows.append([title, similarity, *cells])
    return pd.DataFrame(rows, columns=["method", "ranked by", *(MEASURES[metric][0] for metric in metrics)])


def differences(found: pd.DataFrame, dataset: str, protocol: str, metric: str = "map@r") -> pd.DataFrame:
    """Each ranking's difference to the best baseline, with its interval and corrected p, as text.

    Args:
        found: as `statistics.versus` gives it.
        dataset: by name.
        protocol: unseen or known.
        metric: that is compared.
    """
    chosen = found[(found["dataset"] == dataset) & (found["protocol"] == protocol) & (found["metric"] == metric)]
    named = titles("methods")
    rows = [
        [named.get(row.method, row.method), row.similarity, number(row.difference, row.half, *MEASURES[metric][1:]),
         "–" if math.isnan(row.holm) else f"{row.holm:.3f}" if row.holm >= 0.001 else "< 0.001",
         _verdict(row.difference, row.holm)]
        for row in chosen.itertuples()
    ]  # fmt: skip
    head = ["method", "ranked by", f"{MEASURES[metric][0]}, difference", "p (Holm)", "verdict"]
    return pd.DataFrame(rows, columns=head)


def _verdict(difference: float, p: float) -> str:
    if math.isnan(p):
        return "–"
    return "level" if p >= 0.05 else "better" if difference > 0 else "worse"


def ahead(found: pd.DataFrame, dataset: str, part: str = "methods") -> pd.DataFrame:
    """How far S is ahead of D and of D_M of the same trainings under each protocol, as text.

    Args:
        found: as `statistics.within` gives it.
        dataset: by name.
        part: methods or ablation.
    """
    values = {
        (row.method, row.protocol, row.similarity): number(row.difference, row.half, 100, 1)
        for row in found[found["dataset"] == dataset].itertuples()
    }
    columns = [(protocol, other) for protocol in PROTOCOLS for other in ("euclidean", "mahalanobis")]
    rows = [
        [title, *(values.get((method, *column), "") for column in columns)]
        for method, title in titles(part).items()
        if any((method, *column) in values for column in columns)
    ]
    heads = {"euclidean": "S − D", "mahalanobis": "S − D_M"}
    return pd.DataFrame(rows, columns=["method", *(f"{PROTOCOLS[one]}: {heads[other]}" for one, other in columns)])


def published(found: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """Published Recall@1, 2, 4, 8 of a benchmark beside what this study measured on unseen classes, where it did.

    Args:
        found: as `statistics.summary` gives it.
        dataset: one of `BENCHMARKS`.
    """
    unseen = found[(found["dataset"] == dataset) & (found["protocol"] == "unseen")]
    values = {(row.method, row.similarity, row.metric): (row.value, row.half) for row in unseen.itertuples()}
    rows = []
    for one in of(dataset):
        nearest = NEAREST[one.method]
        own = [
            number(*values[*nearest, f"recall@{k}"], 100, 1) if (*nearest, "map@r") in values else "" for k in RECALLS
        ]
        told = [f"{value:.1f}" for value in one.recalls]
        rows.append([one.method, *told, "two texts" if one.confirmed else "one text", *own])
    rows += [[name, f"{value:.1f}", *[""] * (2 * len(RECALLS))] for name, value in STRONGER.get(dataset, ())]
    columns = ["method", *(f"R@{k} published" for k in RECALLS), "printed in", *(f"R@{k} here" for k in RECALLS)]
    return pd.DataFrame(rows, columns=columns)


def write_tables(study: Study, folder: Path) -> list[Path]:
    """Write what a study has come to so far: compare, ablate, converge and published, each as .md, with .csv beside.

    Args:
        study: whose finished cells are told of.
        folder: made where it is missing.

    Returns:
        The files.

    Raises:
        RunError: the folder can't be written, or the study has no finished cell.
    """
    cells = table(study.path)
    if cells.empty:
        raise RunError(f"{study.path} has no finished cell yet: `pddm-lab compare` computes them.")
    pages = {"published": _published_page(summary(cells, "methods"))}
    frames: dict[str, pd.DataFrame] = {}
    if (cells["part"] == "methods").any():
        found, chosen = summary(cells, "methods"), searched(study)
        against, reached = versus(cells, chosen), convergence(study, chosen)
        inside = within(cells)
        pages |= {"compare": _compare_page(found, chosen, against, inside), "converge": _converge_page(reached)}
        frames |= {
            "compare": found, "versus": against, "within": inside, "search": chosen.drop(columns="key"),
            "converge": reached,
        }  # fmt: skip
    if (cells["part"] == "ablation").any():
        found = summary(cells, "ablation")
        pages["ablate"] = _ablate_page(found, within(cells, "ablation"))
        frames |= {"ablate": found, "ablate_search": searched(study, "ablation").drop(columns="key")}
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{folder} can't be written: {error.strerror}. --out names another folder.") from error
    texts = {f"{name}.md": f"{page.strip()}\n" for name, page in pages.items()}
    texts |= {f"{name}.csv": frame.to_csv(index=False, float_format="%.6g") for name, frame in frames.items()}
    for name, text in texts.items():
        with replacing(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return [folder / name for name in texts]


_AHEAD = "how far S is ahead of D and of D_M of the same trainings, points of MAP@R"
_LEGEND = (
    "Mean over seeds ± half of the 95 % t interval over seeds; all but AUC and d' in %. TPR: true-positive rate at one "
    "threshold of 1 % false positives, over all pairs and by thirds of the pairs by local density. Every method has "
    "the same frozen features, 128-d linear head, batches, cap of steps and number of configurations searched on "
    "classes held out of training; a method that trains nothing has one value, without an interval."
)


def _compare_page(found: pd.DataFrame, chosen: pd.DataFrame, against: pd.DataFrame, inside: pd.DataFrame) -> str:
    named, lines = titles("methods"), ["# Methods side by side", _LEGEND]
    for dataset in found["dataset"].unique():
        best = best_baseline(chosen, dataset) if has_baseline(chosen, dataset) else None
        lines.append(f"## {dataset}")
        for protocol in [name for name in PROTOCOLS if name in set(found["protocol"])]:
            seeds = int(found[(found["dataset"] == dataset) & (found["protocol"] == protocol)]["seeds"].max())
            lines += [
                f"### {dataset}, {PROTOCOLS[protocol]}, {seeds} seeds: ranking",
                markdown(wide(found, "methods", dataset, protocol, RANKING)),
                f"### {dataset}, {PROTOCOLS[protocol]}, {seeds} seeds: separation of pairs",
                markdown(wide(found, "methods", dataset, protocol, SEPARATION)),
            ]
            lines += (
                [
                    f"### {dataset}, {PROTOCOLS[protocol]}: against {named[best['method']]}, the best baseline of the "
                    "held-out classes",
                    markdown(differences(against, dataset, protocol)),
                ]
                if best is not None
                else ["No baseline is measured here yet."]
            )
        lines += [f"### {dataset}: {_AHEAD}", markdown(ahead(inside, dataset))]
        lines += [f"### {dataset}: what the search chose", markdown(choices(chosen, dataset))]
    return "\n\n".join(lines)


def choices(chosen: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """The configuration and the steps that each method's search chose, and MAP@R on held-out classes, as text."""
    methods = titles("methods")
    named = methods | titles("ablation") | methods  # `lab` is in both
    rows = [
        [named[row.method], ", ".join(f"{name} {value}" for name, value in row.settings.items()),
         row.step, number(row.value, row.error, 100, 1), row.similarity, row.configurations]
        for row in sorted(chosen[chosen["dataset"] == dataset].itertuples(), key=lambda row: [*named].index(row.method))
    ]  # fmt: skip
    head = ["method", "settings", "steps", "validation MAP@R ± standard error", "ranked by", "configurations"]
    return pd.DataFrame(rows, columns=head)


def _ablate_page(found: pd.DataFrame, inside: pd.DataFrame) -> str:
    lines = ["# The parts of PDDM", f"{_LEGEND} Each row changes one choice of the preset `quick`."]
    seeds = found.groupby("method")["seeds"].max()
    most = f", the presets themselves {int(seeds.max())}" if seeds.max() > seeds.min() else ""
    metrics = ("recall@1", "r_precision", "map@r", *SEPARATION)
    for dataset in found["dataset"].unique():
        for protocol in [name for name in PROTOCOLS if name in set(found["protocol"])]:
            lines += [f"## {dataset}, {PROTOCOLS[protocol]}, {int(seeds.min())} seeds{most}",
                      markdown(wide(found, "ablation", dataset, protocol, metrics))]  # fmt: skip
        lines += [f"## {dataset}: {_AHEAD}", markdown(ahead(inside, dataset, "ablation"))]
    return "\n\n".join(lines)


def reach(reached: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """Steps and seconds until the best baseline's final value, and until 99 % of a method's own best, as text."""
    named = titles("methods")
    rows = [
        [named.get(row.method, row.method), number(row.best, scale=100, digits=1), number(row.share_step, digits=0),
         number(row.share_seconds, digits=1), number(row.target_step, digits=0), number(row.target_seconds, digits=1)]
        for row in reached[reached["dataset"] == dataset].itertuples()
    ]  # fmt: skip
    head = ["method", "best MAP@R", "steps to 99 % of it", "s", "steps to the target", "s to the target"]
    return pd.DataFrame(rows, columns=head)


def _converge_page(reached: pd.DataFrame) -> str:
    lines = [
        "# How fast",
        "On classes held out of training, by each method's chosen configuration; steps are measured every so often, "
        "seconds are of training alone, on one core. The target is the MAP@R at which the best baseline ends; a dash: "
        "never reached.",
    ]
    for dataset in reached["dataset"].unique() if len(reached) else ():
        target = reached.loc[reached["dataset"] == dataset, "target"].iloc[0]
        lines += [f"## {dataset}: target {100 * target:.1f} %", markdown(reach(reached, dataset))]
    return "\n\n".join(lines)


def _published_page(found: pd.DataFrame) -> str:
    lines = [
        "# Beside published numbers",
        "Recall@K in %, unseen classes. Published ones train a GoogLeNet, or the network that is named, end to end; "
        "those of here, where `pddm-lab compare --datasets NAME` was run, a head on a frozen EfficientNet-Lite0. "
        "Rows of PDDM are ranked by S.",
    ]
    for dataset in BENCHMARKS:
        rows = published(found, dataset)
        lines += [f"## {dataset}", markdown(rows) if len(rows) else "No published number is at hand."]
    return "\n\n".join(lines)
