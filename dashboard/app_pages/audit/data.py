"""What the Audit page computes: once for all sessions of a server, with progress, and stopped by any click."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, TypeVar

import streamlit as st
from shared import loaders
from shared.cache import GALLERIES, MODEL, cached

from pddm_lab.errors import LabError, RunError
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

Report = Callable[[float, str], None]
"""Called with the share that is done, and a text."""
Result = TypeVar("Result")

MOST_COMPARED = 20_000
"""With more pictures than this, near-duplicates are searched for only on request."""


class _Work:
    """One result, and the progress of the session that computes it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.ready = False
        self.result: Any = None
        self.parts: dict[str, Any] = {}
        """Finished parts, by similarity: kept when the work is stopped, so that the next session continues there."""
        self.share, self.text = 0.0, ""


@cached(*GALLERIES, MODEL, max_entries=32)
def _work(name: str, run: Run, *settings: Any) -> _Work:
    return _Work()


def _once(work: _Work, title: str, compute: Callable[[Report], Result]) -> Result:
    """The result of `compute`, computed once for all sessions. Ends the page where the user has stopped it.

    It runs in the page's own thread, so that Stop, any other click and leaving the page end it at its next report. A
    session that needs what another is computing shows that one's progress, and computes it itself if the other stops.
    """
    if work.ready:
        return work.result
    place = st.empty()
    with place.container(border=True):
        if st.session_state.get("audit_stopped") is work:
            kept = "What was finished is kept." if work.parts else "Nothing was kept."
            st.markdown(f"**Stopped:** {title}. {kept}")
            st.button(
                "Start again", icon=":material/play_arrow:", on_click=st.session_state.pop, args=("audit_stopped",)
            )
            st.stop()
        bar = st.progress(0.0, title)
        st.button("Stop", icon=":material/stop_circle:", key=f"stop_{title}", on_click=_stop, args=(work,))
    updated = 0.0

    def report(share: float, text: str) -> None:
        nonlocal updated
        work.share, work.text = min(share, 1.0), text
        if time.monotonic() - updated > 0.1:
            updated = time.monotonic()
            bar.progress(work.share, f"{title}: {text}")

    while not work.lock.acquire(timeout=0.25):
        bar.progress(work.share, f"{title}: {work.text}")
    try:
        if not work.ready:
            work.result = compute(report)
            work.ready = True
    except LabError:
        place.empty()
        raise
    finally:
        work.lock.release()
    place.empty()
    return work.result


def _stop(work: _Work) -> None:
    st.session_state["audit_stopped"] = work


def _ticker(report: Report, part: int, parts: int, of: str) -> Callable[[int, int, str], None]:
    """Progress of one part as a share of all of them."""
    return lambda done, total, what: report((part + done / max(total, 1)) / parts, f"{of}{done:,} of {total:,} {what}")


def _each(
    run: Run, work: _Work, report: Report, compute: Callable[[Similarity, Callable[[int, int, str], None]], Result],
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

    work = _work("axioms", run, protocol, rows)

    def compute(report: Report) -> dict[str, Axioms]:
        from pddm_lab.analysis.metric_axioms import examine

        thresholds = {name: of.threshold_at_fpr(0.01) for name, of in distributions.items()}
        return _each(run, work, report, lambda similarity, tick: examine(
            similarity, gallery.features, thresholds[similarity.name], rows=rows, progress=tick
        ), thresholds)  # fmt: skip

    return _once(work, "Testing the axioms of a metric", compute)


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

    return _once(_work("calibrations", run, protocol, share), "Calibrating the similarities", compute)


def galleries(run: Run) -> dict[str, Gallery]:
    """All galleries of a run, by protocol. Raises RunError as `loaders.gallery` does."""
    return {protocol: loaders.gallery(run, protocol) for protocol in run.protocols()}


def items(run: Run) -> pd.DataFrame:
    """All items of a run's galleries with their splits, without their pictures."""
    from pddm_lab.analysis.duplicates import items_of

    return items_of(galleries(run))


def pictures(run: Run, near: bool) -> Pictures:
    """All pictures of a run's galleries, ready to be compared."""
    of = galleries(run)

    def compute(report: Report) -> Pictures:
        from pddm_lab.analysis.duplicates import read_pictures

        return read_pictures(of, near, progress=_ticker(report, 0, 1, ""))

    return _once(_work("pictures", run, near), "Reading the pictures", compute)


def duplicates(run: Run, near: bool) -> DuplicatePairs:
    """The identical pictures of a run and, with `near`, its near-duplicates."""
    of = pictures(run, near)

    def compute(report: Report) -> DuplicatePairs:
        from pddm_lab.analysis.duplicates import LEAST_LIKENESS, find_duplicates

        return find_duplicates(of, LEAST_LIKENESS if near else 1.0, progress=_ticker(report, 0, 1, ""))

    return _once(_work("duplicates", run, near), "Comparing all pictures", compute)


def matches(run: Run, protocol: str, every: bool) -> dict[str, Matches]:
    """The first results of the queries of a protocol, by every similarity; without `every`, of a sample of them."""
    gallery, work = loaders.gallery(run, protocol), _work("matches", run, protocol, every)

    def compute(report: Report) -> dict[str, Matches]:
        from pddm_lab.analysis.duplicate_effect import BUDGET, best_matches

        budget = len(gallery) ** 2 if every else BUDGET
        return _each(run, work, report, lambda similarity, tick: best_matches(
            similarity, gallery, budget=budget, progress=tick
        ))  # fmt: skip

    return _once(work, "Searching with the queries", compute)
