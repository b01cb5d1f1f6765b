"""How far the local similarity of a run is ahead of D, and on which queries: cached, and kept with the run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from shared import loaders
from shared.cache import GALLERIES, LOCAL, MODEL, cached
from shared.work import once, work_of

from pddm_lab.cards import Answer, Line
from pddm_lab.errors import LabError
from pddm_lab.runs.compare import rivals_of
from pddm_lab.runs.run import PROTOCOLS, Run

if TYPE_CHECKING:
    from pddm_lab.analysis.lead import Judged, Lead, Rivals

KEPT = tuple(f"lead-{protocol}.safetensors" for protocol in PROTOCOLS)
FIRST = 6
"""Results shown of each ranking."""
CANDIDATES = 200
"""Queries among which Search looks for one to begin with, where none have been ranked yet."""


def rivals(run: Run) -> Rivals:
    """What a run can compare with D, the best first. Raises RunError if a file is missing or damaged."""
    local, names = loaders.local(run), rivals_of(run)
    of = loaders.similarities(run) if set(names) - {"local"} else {}
    return {name: local.structure if name == "local" and local is not None else of[name] for name in names}


@cached(*GALLERIES, MODEL, LOCAL, *KEPT, max_entries=16)
def kept(run: Run, protocol: str) -> Judged | None:
    """How the queries of a protocol ended, if that is kept with the run. Raises RunError as `loaders.gallery` does."""
    from pddm_lab.analysis import lead

    return lead.kept(run, loaders.gallery(run, protocol), rivals(run))


def judged(run: Run, protocol: str) -> Judged:
    """How the queries of a protocol ended; what isn't kept with the run is computed, with progress."""
    from pddm_lab.analysis import lead

    if before := kept(run, protocol):
        return before
    gallery, of = loaders.gallery(run, protocol), rivals(run)
    return once(
        work_of("lead", run, protocol),
        "Ranking every query, once for this run",
        lambda report: lead.judged(
            run, gallery, of, lambda done, total, what: report(done / max(total, 1), f"{done:,} of {total:,} {what}")
        ),
    )


@cached(*GALLERIES, MODEL, LOCAL, max_entries=64)
def lead_of(run: Run, protocol: str, name: str, measure: str, _judged: Judged) -> Lead:
    """The lead of one similarity over D, with its interval."""
    from pddm_lab.analysis.lead import lead

    return lead(_judged, loaders.gallery(run, protocol).items["label"].to_numpy(), name, measure)


def table_leads(run: Run, protocols: Sequence[str]) -> dict[tuple[str, str, str], tuple[float, float, float]]:
    """The leads in MAP@R of a run whose queries are ranked, as `cards.metrics_table` takes them."""
    leads = {}
    for protocol in protocols:
        try:
            before = kept(run, protocol)
        except LabError:
            continue  # the pages that need the gallery report it
        if before is None:
            continue
        for name in before.precision:
            if name != "euclidean":
                lead = lead_of(run, protocol, name, "map@r", before)
                leads[run.name, protocol, name] = (lead.difference, lead.low, lead.high)
    return leads


@cached(*GALLERIES, MODEL, LOCAL, max_entries=32)
def ahead(run: Run, other: Run, protocol: str, _judged: Sequence[Judged]) -> Lead:
    """How far one run is ahead of another on the queries that both have, each by its own local similarity."""
    from pddm_lab.analysis.lead import between

    galleries = [loaders.gallery(one, protocol).items for one in (run, other)]
    ids = galleries[0]["id"].tolist(), galleries[1]["id"].tolist()
    return between(_judged[0], _judged[1], ids, (best_of(run), best_of(other)), galleries[0]["class_name"].tolist())


def best_of(run: Run) -> str:
    """The similarity by which a run is compared with others: its first local one, or D."""
    return next(iter(rivals_of(run)), "euclidean")


@cached(*GALLERIES, MODEL, LOCAL, copied=True, max_entries=32, show_spinner="Searching with the strongest queries")
def answers(
    run: Run, protocol: str, name: str, places: Sequence[int], _judged: Judged
) -> tuple[list[Answer], dict[str, bytes]]:  # fmt: skip
    """What D and a similarity find first for some of the judged queries, and the pictures of all.

    Args:
        places: of the queries among the judged ones.
    """
    from pddm_lab.analysis.lead import D
    from pddm_lab.local.episodes import SHORTLIST

    gallery, local = loaders.gallery(run, protocol), loaders.local(run) if name == "local" else None
    own = [] if name in (D, "local") else [loaders.similarities(run)[name]]
    ids, classes = (gallery.items[column].astype(str) for column in ("id", "class_name"))
    result, shown = [], set()
    for place in places:
        row = int(_judged.rows[place])
        of = gallery.search_by(
            np.array(gallery.features[row]), own, SHORTLIST, row, local.structure if local else None
        )  # fmt: skip
        lines = []
        for by in dict.fromkeys((D, name)):
            first = of.ranked(by, FIRST)
            shown |= {row, *first["row"]}
            results = list(zip(first["id"].astype(str), first["class_name"].astype(str), strict=True))
            lines.append(Line(by, float(_judged.precision[by][place]), results))
        result.append(Answer(ids.iloc[row], classes.iloc[row], lines))
    return result, loaders.thumbs(gallery, sorted(shown))


@cached(*GALLERIES, MODEL, LOCAL, *KEPT, max_entries=16, show_spinner="Looking for a query to begin with")
def first_query(run: Run, protocol: str) -> int | None:
    """The row of the query on which the run's local similarity is furthest ahead of D in a gallery.

    It is chosen among the strongest queries of the measured galleries, or a sample where these aren't ranked yet.
    None where nothing can be compared, or no query gains.
    """
    from pddm_lab.analysis.lead import judge_queries, sample, strongest

    try:
        of = dict(list(rivals(run).items())[:1])
        gallery = loaders.gallery(run, protocol)
        if not of or not run.is_labelled or not len(gallery.rows("query")):
            return None
        (name,) = of
        rows, labels = sample(gallery, CANDIDATES), gallery.items["label"].to_numpy()
        for measured in [protocol] if protocol in PROTOCOLS else run.protocols():
            if before := kept(run, measured):
                other = loaders.gallery(run, measured)
                best = strongest(before, other.items["label"].to_numpy(), name, True, one_a_class=True)
                there = [loaders.row_of(gallery, str(other.items["id"].iloc[row])) for row in before.rows[best]]
                rows = np.array([row for row in there if row is not None], dtype=np.int64)
                break
        ranked = judge_queries(gallery, of, queries=np.intersect1d(rows, gallery.rows("query")))
        best = strongest(ranked, labels, name, True, 1)
        return int(ranked.rows[best[0]]) if len(best) else None
    except LabError:
        return None  # the page reports it
