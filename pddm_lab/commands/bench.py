"""The commands `bench ...`: each benchmark prints a table of measurements, and writes it as JSON if asked."""

from __future__ import annotations

import os
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from annotated_types import Interval
from tyro.conf import Positional, arg

from pddm_lab.commands.change import Window
from pddm_lab.commands.terminal import DataRoot, RunName, RunsRoot, print_table, progress_bar, write_csv
from pddm_lab.config import OFFLINE_TRUNKS, Count, CountOrNone, Device, typed_path
from pddm_lab.config import data_root as data_root_of
from pddm_lab.similarities import SIMILARITIES
from pddm_lab.validation import checked

if TYPE_CHECKING:
    from pddm_lab.bench.report import Measure

bench = tyro.extras.SubcommandApp()
_Cores = Annotated[CountOrNone, arg(help="Processor cores to use; 0: all there are.")]
_Device = Annotated[Device, arg(help="auto: cuda where there is one, else cpu.")]
_Runs = Positional[Annotated[tuple[str, ...], arg(metavar="RUN [RUN ...]")]]
_Rate = Annotated[float, Interval(gt=0, le=100_000)]
_Json = Annotated[str, arg(help="File to write the measurements to.")]


@bench.command
@checked
def dashboard(
    items: Count = 10_000, sessions: Count = 20, memory_items: CountOrNone = 100_000, folder: str = "",
    cores: _Cores = 2, json: _Json = "",
) -> None:  # fmt: skip
    """Measure the dashboard against its targets. Browser measurements need Chromium on the PATH.

    Args:
        items: Items in the gallery for pages, reruns and sessions.
        sessions: Simultaneous sessions.
        memory_items: Items in the gallery for measuring memory; 0: leave that out.
        folder: Folder to keep the benchmark's run in, so that measuring again is faster; empty: a temporary one.
    """
    with tempfile.TemporaryDirectory() as temporary:
        kept = typed_path(folder) if folder else Path(temporary)
        _run("dashboard", "dashboard", cores, json, kept, items, sessions, memory_items)


@bench.command
@checked
def load(
    sessions: Count = 10, minutes: Annotated[float, Interval(gt=0, le=1440)] = 10.0, items: Count = 10_000,
    run: str = "", folder: str = "", cores: _Cores = 2, json: _Json = "",
) -> None:  # fmt: skip
    """Let sessions use the dashboard for minutes: time-outs, the slowest requests, and the server's memory over time.

    Args:
        sessions: Simultaneous sessions.
        minutes: How long they stay.
        items: Items in the gallery of the benchmark's own run.
        run: Path of a run to use instead of the benchmark's own.
        folder: Folder to keep the benchmark's run in, so that measuring again is faster; empty: a temporary one.
    """
    with tempfile.TemporaryDirectory() as temporary:
        kept = typed_path(folder) if folder else Path(temporary)
        path = str(typed_path(run)) if run else ""
        _run("load", "load", cores, json, kept, path, items, sessions, minutes)


@bench.command
@checked
def scoring(items: Count = 4096, device: _Device = "auto", cores: _Cores = 2, json: _Json = "") -> None:
    """Measure how fast S scores all pairs, compared with a large matrix product.

    Args:
        items: Items in each of the two sets.
    """
    _run("scoring", "scoring", cores, json, items, device)


@bench.command
@checked
def mining(largest: Count = 8192, cores: _Cores = 2, json: _Json = "") -> None:
    """Measure how mining scales with the batch, compared with pytorch-metric-learning's miners.

    Args:
        largest: Items in the largest batch.
    """
    _run("mining", "mining", cores, json, largest)


@bench.command
@checked
def evaluate(items: Count = 6000, many: CountOrNone = 60_000, cores: _Cores = 2, json: _Json = "") -> None:
    """Measure how long an evaluation takes: Euclidean and PDDM, over all pairs and within a shortlist.

    Args:
        items: Items whose pairs are all scored.
        many: Items for which PDDM ranks a shortlist; 0: leave that out.
    """
    _run("evaluate", "evaluation", cores, json, items, many)


@bench.command
@checked
def train(images: Count = 1500, device: _Device = "auto", cores: _Cores = 2, json: _Json = "") -> None:
    """Measure training steps compared with a library's, loading, feature extraction, and the lab's start-up time.

    Args:
        images: Picture files to generate and extract features of.
    """
    _run("train", "training", cores, json, images, device)


@bench.command
@checked
def engine(
    photos: Count = 500, added: Count = 1000, device: _Device = "auto", cores: _Cores = 2, json: _Json = ""
) -> None:
    """Measure how fast photos become features, compared with torch, and how long uploads and new items take.

    Args:
        photos: Photo files to generate and compute features of, in all views.
        added: Photos to add to a gallery.
    """
    _run("engine", "engine", cores, json, photos, added, device)


@bench.command
@checked
def search(items: Count = 1_000_000, cores: _Cores = 2, json: _Json = "") -> None:
    """Measure how fast a large gallery opens, is searched, re-ranked and changed.

    Args:
        items: Items in the gallery.
    """
    with tempfile.TemporaryDirectory() as temporary:
        _run("search", "search", cores, json, Path(temporary), items)


@bench.command
@checked
def churn(
    items: Count = 100_000, changes: Count = 1000, stores: tuple[str, ...] = ("flat", "ivf", "milvus"),
    quiet: Annotated[float, Interval(gt=0, le=3600)] = 10.0, chart: str = "", csv: str = "", cores: _Cores = 2,
    json: _Json = "",
) -> None:  # fmt: skip
    """Measure what random changes of a gallery do to its search: recall, the slowest answers, the time of a change.

    Args:
        items: Items in the gallery.
        changes: Changes, each of 1 to 5 items that are added, updated or removed.
        stores: Stores to compare with the first: flat, ivf, milvus (a file of milvus-lite) or milvus:URI.
        quiet: Seconds of searching without changes in each of ten rounds.
        chart: File to write a chart to, as HTML.
        csv: File to write the table to, after each round.
    """
    _limit(cores)
    from pddm_lab.bench.churn.measure import RECALL, SLOWER, measure, measures
    from pddm_lab.bench.report import machine
    from pddm_lab.figures.churn import churn as churn_figure

    facts = machine()
    with tempfile.TemporaryDirectory() as temporary:
        table = measure(
            Path(temporary), items, changes, stores, quiet, _log,
            lambda table: write_csv(table.drop(columns="first").round(4), csv),
        )  # fmt: skip
    show("churn", measures(table), facts, json)
    if chart:
        churn_figure(table, RECALL, SLOWER).write_html(typed_path(chart), include_plotlyjs=True)


@bench.command
@checked
def service(
    items: Count = 100_000, requests: Count = 10_000, pictures_rate: _Rate = 61.0, items_rate: _Rate = 405.0,
    workers: Count = 2, folder: str = "", cores: _Cores = 2, json: _Json = "",
) -> None:  # fmt: skip
    """Measure the service: searches a second by picture and by item, their times, and when a new class is found.

    Args:
        items: Items in the catalogue.
        requests: Searches by picture, and as many by item.
        pictures_rate: Searches by picture a second that are sent.
        items_rate: Searches by item a second that are sent.
        workers: Processes of the service.
        folder: Folder to keep the benchmark's run in, so that measuring again is faster; empty: a temporary one.
    """
    with tempfile.TemporaryDirectory() as temporary:
        kept = typed_path(folder) if folder else Path(temporary)
        # The load takes other cores than the service where there are any, so not the whole command is limited.
        _run("service", "service.measure", 0, json, kept, items, requests, pictures_rate, items_rate, workers, cores)


@bench.command
@checked
def updates(
    run: RunName, add: Annotated[str, arg(help="Folder of new pictures, FOLDER/<class>/<image>.")], rate: _Rate = 10.0,
    workers: Count = 1, cores: _Cores = 0, json: _Json = "", runs_root: RunsRoot = "",
) -> None:  # fmt: skip
    """Update a copy of a run while it is served, and take it back: failed searches, and how soon it is followed.

    Args:
        rate: Searches by picture a second that are sent.
        workers: Processes of the service.
    """
    from pddm_lab.training.notebook import run_named

    of = run_named(run, runs_root)
    with tempfile.TemporaryDirectory() as folder:
        _run("updates", "service.updates", 0, json, of, typed_path(add), Path(folder), rate, workers, cores)


@bench.command
@checked
def local(items: Count = 6000, cores: _Cores = 2, json: _Json = "") -> None:
    """Measure what local structure and its rivals cost a query beyond the search, on one core, and a gallery offline.

    Args:
        items: Items in the gallery. More than 50,000 are built in a file, on all of the cores.
    """
    _run("local", "local", cores, json, items)


@bench.command
@checked
def trunks(
    datasets: tuple[str, ...] = ("emoji",), trunks: tuple[str, ...] = OFFLINE_TRUNKS,
    sizes: tuple[Count, ...] = (128, 160, 192, 224), items: CountOrNone = 0,
    precision: Literal["auto", "32", "bf16"] = "auto", cores: _Cores = 2, csv: str = "", data_root: DataRoot = "",
) -> None:  # fmt: skip
    """Measure what pretrained trunks see at each size of picture, and the processor time it costs.

    Args:
        datasets: Data sets to search in.
        trunks: Trunks to compare.
        sizes: Sides of the square input, in pixels.
        items: Items of each protocol at most, whole classes chosen at random; 0: all.
        precision: Precision of the trunks; auto: bf16 where that is faster.
        csv: File to write the table to.
    """
    _limit(cores)
    from pddm_lab.bench.report import machine
    from pddm_lab.bench.trunks import measure

    facts = machine()
    table = measure(datasets, trunks, sizes, items, precision, data_root_of(data_root), _log)
    print_table(list(table.columns), table.astype(str).to_numpy().tolist())
    print("\n" + ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in facts.items()))
    write_csv(table, csv)


@bench.command
@checked
def formats(run: RunName, most: CountOrNone = 0, runs_root: RunsRoot = "") -> None:
    """Measure each format that a run can be exported in: size, time, retrieval. The table is kept with the run.

    Args:
        most: Items of each gallery to measure retrieval on at most, whole classes chosen at random; 0: all.
    """
    from pddm_lab.bench.formats import measure
    from pddm_lab.export.table import FILE, table_rows, write_formats
    from pddm_lab.runs.compare import find_run

    measured = find_run(run, runs_root)
    content = measure(measured, _log, most)
    write_formats(measured.path, content)
    print_table(*table_rows(content, SIMILARITIES[content["similarity"]].letter))
    print(f"\nms an image: on one core of {content['processor']}. All else but MB and bytes in %.")
    print(f"Written to {measured.path / FILE}")


@bench.command
@checked
def drift(
    runs: _Runs, foreign: tuple[str, ...] = ("fruits360",),
    window: Window = 200, splits: Count = 10, streams: Count = 50, pictures: Count = 700, seed: CountOrNone = 0,
    csv: str = "", data_root: DataRoot = "", runs_root: RunsRoot = "",
) -> None:  # fmt: skip
    """Measure how often `pddm-lab drift` raises a false alarm, and how soon it notices worse or foreign pictures.

    Args:
        runs: Names of the runs, or paths to their folders.
        foreign: Other data sets, whose pictures are queries; a run's own one is passed over.
        window: Queries that are compared at a time, 30 to 1000.
        splits: How often the held-out queries are divided.
        streams: Streams without drift in a split; there are a fifth as many of each kind with drift.
        pictures: Held-out pictures that are made worse, and pictures of each other data set, at most.
        seed: Seed of all draws.
        csv: File to write the table to.
    """
    import pandas as pd

    from pddm_lab.change import drift_power
    from pddm_lab.training.notebook import run_named

    tables = []
    for name in runs:
        run = run_named(name, runs_root)
        others = [other for other in foreign if other != run.info["dataset"]["name"]]
        with progress_bar() as report:
            table = drift_power.measure(
                run, others, data_root_of(data_root), window=window, splits=splits, streams=streams, pictures=pictures,
                seed=seed, progress=report,
            )  # fmt: skip
        table.insert(0, "run", run.name)
        print_table(list(table.columns), table.round(3).astype(str).to_numpy().tolist())
        tables.append(table)
    write_csv(pd.concat(tables), csv)


def _limit(cores: int) -> None:
    """Use only so many cores, where the system supports it."""
    # Before any import of a numerical library, and for the processes that are started too.
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])


def _run(name: str, module: str, cores: int, json: str, *arguments: Any) -> None:
    """Call `measure` of a module of `pddm_lab.bench` on so many cores."""
    _limit(cores)
    from pddm_lab.bench.report import machine

    facts = machine()  # before measuring, so that the load average is that of other processes
    show(name, import_module(f"pddm_lab.bench.{module}").measure(*arguments, _log), facts, json)


def show(name: str, measures: list[Measure], facts: dict[str, Any], json: str = "") -> None:
    """Print a benchmark's table with the facts of the machine below it, and write all of it as JSON if asked.

    Args:
        facts: of the machine, as `pddm_lab.bench.report.machine` returns them.
        json: file to write to; empty: none.
    """
    from pddm_lab.bench.report import HEAD, write_json

    print_table(HEAD, [measure.row() for measure in measures])
    missed = [measure.what for measure in measures if measure.verdict == "missed"]
    print(f"\n{'Missed: ' + '; '.join(missed) if missed else 'All targets were met'}.")
    print(", ".join(f"{key.replace('_', ' ')} {value}" for key, value in facts.items()))
    if json:
        write_json(Path(json), name, measures, facts)
        print(f"Written to {json}")


def _log(what: str) -> None:
    print(f"... {what}", file=sys.stderr, flush=True)
