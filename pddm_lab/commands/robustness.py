"""The commands `robustness` and `viewpoint`: how a run's similarities hold when pictures get worse or things turn."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Interval
from tyro.conf import arg

from pddm_lab.commands.terminal import DataRoot, RunName, RunsRoot, print_table, progress_bar, write_csv
from pddm_lab.config import Count, CountOrNone
from pddm_lab.similarities import PRETRAINED, PRETRAINED_FEATURES

Strength = Annotated[int, Interval(ge=1, le=5)]
Model = Annotated[str, arg(help="Of imported features: what made them, module:NAME, FILE.onnx or torchvision:NAME.")]
_SIDES = {"query": "the query", "gallery": "the gallery", "both": "both"}


def robustness(
    run: RunName, protocol: str = "unseen", corruptions: tuple[str, ...] = (),
    strengths: tuple[Strength, ...] = (1, 2, 3, 4, 5), sides: tuple[str, ...] = ("query", "gallery", "both"),
    queries: Count = 500, items: Count = 2000, seed: CountOrNone = 0, processes: CountOrNone = 0, model: Model = "",
    csv: str = "", runs_root: RunsRoot = "",
) -> None:  # fmt: skip
    """Corrupt the pictures of a run's queries and gallery, and measure how each similarity still ranks them.

    Every cell is kept with the run as soon as it is measured. The same command resumes; the page Robustness shows them.

    Args:
        protocol: unseen or known.
        corruptions: Names such as fog or occlusion; empty: all that the pictures allow.
        strengths: 1 to 5.
        sides: query, gallery or both: whose pictures are corrupted.
        queries: Queries, a seeded sample.
        items: Items that are searched, a seeded sample of whole classes.
        seed: Seed of the sample.
        processes: Processes that corrupt pictures; 0: one a core.
        csv: File to write all cells to.
    """
    from pddm_lab.robustness.findings import leads, summarise
    from pddm_lab.robustness.measure import measure_robustness
    from pddm_lab.training.notebook import run_named
    from pddm_lab.wording import counted

    measured_run = run_named(run, runs_root)
    with progress_bar() as report:
        measured = measure_robustness(
            measured_run, protocol, corruptions, strengths, sides, queries, items, seed, processes, model, report
        )
    cells = measured.table()
    cells.insert(0, "dataset", measured_run.config.dataset)
    for name, reason in measured.settings["refused"].items():
        print(f"Left out: {name}. {reason}")
    means, ahead = summarise(measured), leads(measured)
    for side, part in means.groupby("side", sort=False):
        first = part.iloc[0]
        print(
            f"\nCorrupted: {_SIDES[str(side)]}. R@1 in %, mean of {counted(first['corruptions'], 'corruption')} in "
            f"{counted(first['cells'], 'cell')}, {len(measured.settings['queries'])} queries among "
            f"{measured.settings['searched']:,} items, {protocol} classes"
        )
        of_side = ahead[(ahead["side"] == side) & (ahead["of"] == "corrupted")].set_index("similarity")
        rows = []
        for row in part.itertuples():
            lead = of_side.loc[row.similarity] if row.similarity in of_side.index else None
            ahead_text = "" if lead is None else _points(lead["lead"], lead["low"], lead["high"])
            rows.append([
                _title(str(row.similarity)), f"{100 * row.clean:.1f}", f"{100 * row.corrupted:.1f}",
                f"{100 * row.low:.1f} to {100 * row.high:.1f}", f"{100 * row.kept:.0f}",
                "-" if row.mce != row.mce else f"{100 * row.mce:.0f}", ahead_text,
            ])  # fmt: skip
        print_table(["ranked by", "clean", "corrupted", "95 % interval", "kept", "mCE", "ahead of D"], rows)
    print(f"\nThe cells are in {measured.path}. mCE: errors relative to the pretrained features, 100 for these.")
    write_csv(cells, csv)


def viewpoint(
    run: RunName, rounds: Count = 4, processes: CountOrNone = 0, csv: str = "", data_root: DataRoot = "",
    runs_root: RunsRoot = "",
) -> None:  # fmt: skip
    """Measure how far a thing may be turned: R@1 against the angle to its nearest view in the gallery, on fruits360.

    Args:
        rounds: Queries of each turn of views.
        processes: Processes that read pictures; 0: one a core.
        csv: File to write the values to.
    """
    from pddm_lab import config
    from pddm_lab.robustness.findings import by_angle
    from pddm_lab.robustness.viewpoint import measure_viewpoint
    from pddm_lab.training.notebook import run_named

    measured_run = run_named(run, runs_root)
    with progress_bar() as report:
        outcomes = measure_viewpoint(measured_run, config.data_root(data_root), rounds, processes, report)
    table = by_angle(outcomes)
    print(f"R@1 in %, {table['queries'].iloc[0]} queries an angle, 95 % intervals over varieties")
    texts = table.assign(
        text=[
            f"{100 * value:.1f} ({100 * low:.1f} to {100 * high:.1f})"
            for value, low, high in zip(table["value"], table["low"], table["high"], strict=True)
        ]
    )
    wide = texts.pivot_table(index="angle", columns="similarity", values="text", aggfunc="first", sort=False)
    print_table(["degrees", *map(_title, wide)], [[*row] for row in wide.itertuples()])
    write_csv(table.assign(trained_on=measured_run.config.dataset), csv)


def _title(name: str) -> str:
    from pddm_lab.similarities import EVERY

    return PRETRAINED_FEATURES.title if name == PRETRAINED else EVERY[name].title


def _points(lead: float, low: float, high: float) -> str:
    return f"{100 * lead:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"
