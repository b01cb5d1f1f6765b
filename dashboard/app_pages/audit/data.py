"""What the Audit page computes, as shared/work.py computes what is slow."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, TypeVar

from shared import loaders
from shared.work import Report, Work, once, work_of

from pddm_lab.errors import RunError
from pddm_lab.figures import in_order, style_of
from pddm_lab.gallery.files import repair
from pddm_lab.gallery.gallery import Gallery
from pddm_lab.runs.run import Run
from pddm_lab.similarities import SHOWN, SIMILARITIES

if TYPE_CHECKING:
    import pandas as pd

    from pddm_lab.analysis.calibration import Calibration
    from pddm_lab.analysis.duplicate_effect import Matches
    from pddm_lab.analysis.duplicates import DuplicatePairs, Pictures
    from pddm_lab.analysis.metric_axioms import Axioms
    from pddm_lab.model.similarity import Similarity

Result = TypeVar("Result")

MOST_COMPARED = 20_000
"""With more pictures than this, near-duplicates are searched for only on request."""


def _ticker(report: Report, part: int, parts: int, of: str) -> Callable[[int, int, str], None]:
    """Progress of one part as a share of all of them."""
    return lambda done, total, what: report((part + done / max(total, 1)) / parts, f"{of}{done:,} of {total:,} {what}")


def _each(
    run: Run, work: Work, report: Report, compute: Callable[[Similarity, Callable[[int, int, str], None]], Result],
    among: Collection[str] = SIMILARITIES.keys(),
) -> dict[str, Result]:  # fmt: skip
    """The result for every similarity of a run, or for some of them, by name; parts of stopped work are used again."""
    similarities = loaders.similarities(run)
    names = in_order(similarities.keys() & among)
    for part, name in enumerate(names):
        if name not in work.parts:
            tick = _ticker(report, part, len(names), f"{style_of(name).title}, ")
            work.parts[name] = compute(similarities[name], tick)
    return {name: work.parts[name] for name in names}


def axioms(run: Run, protocol: str, rows: int) -> dict[str, Axioms]:
    """The axioms of a metric, tested on a gallery for every similarity that it was measured by.

    Raises:
        RunError: as `loaders.gallery` does, or it was not measured by the run's own similarity.
    """
    gallery, distributions = loaders.gallery(run, protocol), loaders.pairs(run, protocol).distributions
    if run.config.similarity not in distributions:
        raise RunError(f"{gallery.path} was not measured by {run.config.similarity}. {repair(gallery.path)}.")

    work = work_of("axioms", run, protocol, rows)

    def compute(report: Report) -> dict[str, Axioms]:
        from pddm_lab.analysis.gallery_dependence import examine_local
        from pddm_lab.analysis.metric_axioms import examine

        thresholds = {name: of.threshold_at_fpr(0.01) for name, of in distributions.items()}
        measured = _each(run, work, report, lambda similarity, tick: examine(
            similarity, gallery.features, thresholds[similarity.name], rows=rows, progress=tick
        ), thresholds)  # fmt: skip
        local = loaders.local(run)
        reference = None if local is None else gallery.reference(local.structure)
        if local is None or reference is None or reference.note or "local" not in thresholds:
            return measured
        if "local" not in work.parts:
            tick = _ticker(report, 0, 1, f"{style_of('local').title}, ")
            work.parts["local"] = examine_local(
                local.structure, reference, thresholds["local"], rows=rows, progress=tick
            )
        return measured | {"local": work.parts["local"]}

    return once(work, "Testing the axioms of a metric", compute)


def calibrations(run: Run, protocol: str, share: float) -> dict[str, Calibration | None]:
    """Every similarity calibrated on a protocol's pairs; None where one half of the classes has too few."""

    def compute(report: Report) -> dict[str, Calibration | None]:
        from pddm_lab.analysis.calibration import calibrate

        report(0.0, "scoring pairs")
        pairs, result = loaders.sampled_pairs(run, protocol), {}
        names = [name for name in SHOWN if name in pairs]
        for part, name in enumerate(names):
            report((1 + part) / (1 + len(names)), style_of(name).title)
            result[str(name)] = calibrate(pairs, name, share=share)
        return result

    return once(work_of("calibrations", run, protocol, share), "Calibrating the similarities", compute)


def galleries(run: Run) -> dict[str, Gallery]:
    """All galleries of a run, by protocol. Raises RunError as `loaders.gallery` does."""
    return {protocol: loaders.gallery(run, protocol) for protocol in run.protocols()}


def items(run: Run) -> pd.DataFrame:
    """All items of a run's galleries with their splits, without their pictures."""
    from pddm_lab.analysis.duplicates import items_of

    return items_of(galleries(run))


def has_pictures(run: Run) -> bool:
    """Whether there is anything to compare: the thumbnails of an import without pictures show ids at most."""
    if not run.config.is_imported:
        return True
    from pddm_lab.gallery.files import thumbnail
    from pddm_lab.training.finish import no_picture

    first = next(iter(galleries(run).values()))
    return first.thumb(0) not in [thumbnail(no_picture(text)) for text in (str(first.items["id"].iloc[0]), "")]


def pictures(run: Run, near: bool) -> Pictures:
    """All pictures of a run's galleries, ready to be compared."""
    of = galleries(run)

    def compute(report: Report) -> Pictures:
        from pddm_lab.analysis.duplicates import read_pictures

        return read_pictures(of, near, progress=_ticker(report, 0, 1, ""))

    return once(work_of("pictures", run, near), "Reading the pictures", compute)


def duplicates(run: Run, near: bool) -> DuplicatePairs:
    """The identical pictures of a run and, with `near`, its near-duplicates."""
    of = pictures(run, near)

    def compute(report: Report) -> DuplicatePairs:
        from pddm_lab.analysis.duplicates import LEAST_LIKENESS, find_duplicates

        return find_duplicates(of, LEAST_LIKENESS if near else 1.0, progress=_ticker(report, 0, 1, ""))

    return once(work_of("duplicates", run, near), "Comparing all pictures", compute)


def kinds_of(choice: str) -> tuple[str, ...]:
    """The kinds of duplicates that a choice counts: one, all, or those that aren't mirrored."""
    from pddm_lab.analysis.duplicates import KINDS

    return tuple(KINDS) if choice == "all" else (choice,) if choice else ("identical", "near")


def matches(run: Run, protocol: str, every: bool) -> dict[str, Matches]:
    """The first results of the queries of a protocol, by every similarity; without `every`, of a sample of them."""
    gallery, work = loaders.gallery(run, protocol), work_of("matches", run, protocol, every)

    def compute(report: Report) -> dict[str, Matches]:
        from pddm_lab.analysis.duplicate_effect import BUDGET, best_matches

        budget = len(gallery) ** 2 if every else BUDGET
        return _each(run, work, report, lambda similarity, tick: best_matches(
            similarity, gallery, budget=budget, progress=tick
        ))  # fmt: skip

    return once(work, "Searching with the queries", compute)
