"""What the Audit page computes: once a server for all its sessions, with progress, and broken off by any click."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import streamlit as st
from shared import loaders

from pddm_lab.errors import LabError
from pddm_lab.figures import in_order, style_of
from pddm_lab.gallery.gallery import Gallery
from pddm_lab.runs.run import Run
from pddm_lab.similarities import SIMILARITIES

if TYPE_CHECKING:
    import pandas as pd

    from pddm_lab.analysis.calibration import Calibration
    from pddm_lab.analysis.duplicate_effect import Matches
    from pddm_lab.analysis.duplicates import DuplicatePairs, Pictures
    from pddm_lab.analysis.metric_axioms import Axioms

Report = Callable[[float, str], None]
"""Called with the share done and what is being done."""
Result = TypeVar("Result")

COMPARED_AT_ONCE = 20_000
"""Pictures that are compared with one another unasked: beyond, the near ones are looked for on request only."""


class _Work:
    """One result, and who is at it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.ready = False
        self.result: Any = None
        self.share, self.told = 0.0, ""


@st.cache_resource(max_entries=32, show_spinner=False)
def _work(name: str, key: tuple) -> _Work:
    return _Work()


def _once(name: str, key: tuple, title: str, compute: Callable[[Report], Result]) -> Result:
    """What `compute` returns, computed once. Ends the page where a person has stopped it.

    It runs in the script's own thread, so that Stop, any other choice and leaving the page end it at its next report; a
    session that wants what another is computing watches that one's progress, and takes over where it was left.
    """
    work = _work(name, key)
    if work.ready:
        return work.result
    place, token = st.empty(), f"{name}{hash(key)}"
    with place.container(border=True):
        if st.session_state.get("audit_stopped") == token:
            st.markdown(f"**Stopped.** {title} was broken off; nothing of it is kept.")
            st.button(
                "Start again", icon=":material/play_arrow:", on_click=st.session_state.pop, args=("audit_stopped",)
            )
            st.stop()
        bar = st.progress(0.0, title)
        st.button("Stop", icon=":material/stop_circle:", key=f"stop_{name}", on_click=_stop, args=(token,))
    shown = 0.0

    def report(share: float, told: str) -> None:
        nonlocal shown
        work.share, work.told = min(share, 1.0), told
        if time.monotonic() - shown > 0.1:
            shown = time.monotonic()
            bar.progress(work.share, f"{title}: {told}")

    while not work.lock.acquire(timeout=0.25):
        bar.progress(work.share, f"{title}: {work.told}")
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


def _stop(token: str) -> None:
    st.session_state["audit_stopped"] = token


def _ticker(report: Report, part: int, parts: int, of: str) -> Callable[[int, int, str], None]:
    """Progress of one part as a share of all of them."""
    return lambda done, total, what: report((part + done / max(total, 1)) / parts, f"{of}{done:,} of {total:,} {what}")


def axioms(run: Run, protocol: str, rows: int) -> dict[str, Axioms]:
    """Every similarity put to the test on a protocol's gallery. Raises RunError as `loaders.gallery` does."""
    gallery = loaders.gallery(run, protocol)

    def compute(report: Report) -> dict[str, Axioms]:
        from pddm_lab.analysis.metric_axioms import examine

        similarities, distributions = loaders.similarities(run), gallery.distributions
        names = in_order(similarities)
        return {
            name: examine(
                similarities[name],
                gallery.features,
                distributions[name].threshold_at_fpr(0.01),
                rows=rows,
                progress=_ticker(report, part, len(names), f"{style_of(name).title}, "),
            )
            for part, name in enumerate(names)
        }

    return _once("axioms", (*_key(run, protocol), rows), "Putting the similarities to the test", compute)


def calibrations(run: Run, protocol: str, share: float) -> dict[str, Calibration | None]:
    """Every similarity calibrated on a protocol's pairs; None where a half of the classes has too few."""

    def compute(report: Report) -> dict[str, Calibration | None]:
        from pddm_lab.analysis.calibration import calibrate

        report(0.0, "scoring pairs")
        pairs, found = loaders.sampled_pairs(run, protocol), {}
        for part, name in enumerate(SIMILARITIES):
            report((1 + part) / (1 + len(SIMILARITIES)), style_of(name).title)
            found[str(name)] = calibrate(pairs, name, share=share)
        return found

    return _once("calibrations", (*_key(run, protocol), share), "Calibrating the similarities", compute)


def galleries(run: Run) -> dict[str, Gallery]:
    """All galleries of a run, by protocol. Raises RunError as `loaders.gallery` does."""
    return {protocol: loaders.gallery(run, protocol) for protocol in run.protocols()}


def pictures(run: Run, near: bool) -> Pictures:
    """All pictures of a run's galleries, with what it takes to compare them."""
    found = galleries(run)

    def compute(report: Report) -> Pictures:
        from pddm_lab.analysis.duplicates import read_pictures

        return read_pictures(found, near, progress=_ticker(report, 0, 1, ""))

    return _once("pictures", (*_keys(run), near), "Reading the pictures", compute)


def listed(run: Run) -> pd.DataFrame:
    """All items of a run's galleries with their splits; nothing is read of the pictures."""
    from pddm_lab.analysis.duplicates import items_of

    return items_of(galleries(run))


def alike(run: Run, near: bool) -> DuplicatePairs:
    """Pictures of a run that are alike, or identical only."""
    of = pictures(run, near)

    def compute(report: Report) -> DuplicatePairs:
        from pddm_lab.analysis.duplicates import LEAST_LIKENESS, find_duplicates

        return find_duplicates(of, LEAST_LIKENESS if near else 1.0, progress=_ticker(report, 0, 1, ""))

    return _once("alike", (*_keys(run), near), "Comparing every picture with every other", compute)


def matches(run: Run, protocol: str, every: bool) -> dict[str, Matches]:
    """What each query of a protocol finds first, by every similarity; of many queries a part, unless all are asked."""
    gallery = loaders.gallery(run, protocol)

    def compute(report: Report) -> dict[str, Matches]:
        from pddm_lab.analysis.duplicate_effect import BUDGET, best_matches

        similarities = loaders.similarities(run)
        names = in_order(similarities)
        return {
            name: best_matches(
                similarities[name],
                gallery,
                budget=len(gallery) ** 2 if every else BUDGET,
                progress=_ticker(report, part, len(names), f"{style_of(name).title}, "),
            )
            for part, name in enumerate(names)
        }

    return _once("matches", (*_key(run, protocol), every), "Searching with the queries", compute)


def _key(run: Run, protocol: str) -> tuple:
    of, weights = loaders.pair_stamps(run, protocol)
    return str(run.path), protocol, of, weights


def _keys(run: Run) -> tuple:
    return tuple(_key(run, protocol)[:3] for protocol in run.protocols())
