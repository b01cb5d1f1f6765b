"""The command line's `bench`: each benchmark prints a table and keeps it as JSON where asked."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import tyro

bench = tyro.extras.SubcommandApp()


@bench.command
def dashboard(
    items: int = 10_000,
    sessions: int = 20,
    memory_items: int = 100_000,
    cores: int = 2,
    folder: str = "",
    json: str = "",
) -> None:
    """Measure the dashboard against its targets; what needs a browser needs Chromium on the PATH.

    Args:
        items: of the gallery that pages, reruns and sessions are measured with.
        sessions: at once.
        memory_items: of the gallery that memory is measured with; 0: leave that out.
        cores: processor cores that server, browser and sessions share; 0: all there are.
        folder: keeps the run that is made for it, to measure again sooner; empty: a temporary one.
        json: file that the measures go to as well.
    """
    _limit_cores(cores)
    from pddm_lab.bench.dashboard import measure
    from pddm_lab.bench.report import machine, show

    with tempfile.TemporaryDirectory() as temporary:
        place = Path(folder).expanduser() if folder else Path(temporary)
        facts = machine()  # before, so that the load is what others made of it
        show("dashboard", measure(place, items, sessions, memory_items, _say), facts, json)


@bench.command
def scoring(items: int = 4096, cores: int = 2, json: str = "") -> None:
    """Measure how fast S scores all pairs, beside a large matrix product.

    Args:
        items: of either set.
        cores: processor cores to use; 0: all there are.
        json: file that the measures go to as well.
    """
    _limit_cores(cores)
    from pddm_lab.bench.report import machine, show
    from pddm_lab.bench.scoring import measure

    facts = machine()
    show("scoring", measure(items, _say), facts, json)


@bench.command
def mining(largest: int = 8192, cores: int = 2, json: str = "") -> None:
    """Measure how mining grows with the batch, beside pytorch-metric-learning's miners.

    Args:
        largest: items of the largest batch.
        cores: processor cores to use; 0: all there are.
        json: file that the measures go to as well.
    """
    _limit_cores(cores)
    from pddm_lab.bench.mining import SIZES, measure
    from pddm_lab.bench.report import machine, show

    facts = machine()
    show("mining", measure([size for size in SIZES if size <= largest], _say), facts, json)


@bench.command
def evaluate(items: int = 6000, many: int = 60_000, cores: int = 2, json: str = "") -> None:
    """Measure how long measuring takes: Euclidean and PDDM, all pairs and within a shortlist.

    Args:
        items: whose pairs are all scored.
        many: items of which PDDM ranks a shortlist; 0: leave that out.
        cores: processor cores to use; 0: all there are.
        json: file that the measures go to as well.
    """
    _limit_cores(cores)
    from pddm_lab.bench.evaluation import measure
    from pddm_lab.bench.report import machine, show

    facts = machine()
    show("evaluate", measure(items, many, _say), facts, json)


@bench.command
def train(images: int = 1500, cores: int = 2, json: str = "") -> None:
    """Measure training steps beside a library's, loading, feature extraction, and how long the lab takes to start.

    Args:
        images: picture files, made for it.
        cores: processor cores to use; 0: all there are.
        json: file that the measures go to as well.
    """
    _limit_cores(cores)
    from pddm_lab.bench.report import machine, show
    from pddm_lab.bench.training import measure

    facts = machine()
    show("train", measure(images, _say), facts, json)


@bench.command
def search(items: int = 1_000_000, cores: int = 2, json: str = "") -> None:
    """Measure how soon a large gallery opens, is searched, re-ranked and changed.

    Args:
        items: of the gallery.
        cores: processor cores to use; 0: all there are.
        json: file that the measures go to as well.
    """
    _limit_cores(cores)
    from pddm_lab.bench.report import machine, show
    from pddm_lab.bench.search import measure

    facts = machine()
    with tempfile.TemporaryDirectory() as temporary:
        show("search", measure(Path(temporary), items, _say), facts, json)


def _say(what: str) -> None:
    print(f"... {what}", file=sys.stderr, flush=True)


def _limit_cores(cores: int) -> None:
    """Keep this process and all that it starts to so many cores, where the system can."""
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
