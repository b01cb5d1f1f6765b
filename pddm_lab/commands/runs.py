"""The commands of `runs`: list, remove, pack and unpack runs, and measure parts of their queries."""

from __future__ import annotations

import math
import sys
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from tyro.conf import Positional, arg

from pddm_lab import config
from pddm_lab.commands.terminal import RunName, RunsRoot, print_table, progress_bar
from pddm_lab.commands.training import in_digits
from pddm_lab.config import Count, typed_path
from pddm_lab.errors import LabError, RunError
from pddm_lab.similarities import PRETRAINED
from pddm_lab.validation import checked

if TYPE_CHECKING:
    from pddm_lab.runs.run import Run

runs = tyro.extras.SubcommandApp()
_Names = Positional[Annotated[tuple[str, ...], arg(metavar="RUN [RUN ...]", help="Names of the runs.")]]
_Protocol = Annotated[Literal["unseen", "known"], arg(help="Whose queries.")]
_Json = Annotated[bool, arg(help="Print JSON.")]
_File = Positional[Annotated[str, arg(metavar="FILE", help="A file that pddm-lab runs pack wrote.")]]


@runs.command(name="list", is_default=True)
def list_runs(runs_root: RunsRoot = "") -> None:
    """List the runs, newest first, with their final metrics and what they take on disk."""
    from pddm_lab.runs.compare import BrokenRun
    from pddm_lab.runs.compare import list_runs as runs_in

    listed = runs_in(runs_root)
    rows = [_run_row(run) for run in listed if not isinstance(run, BrokenRun)]
    if rows:
        print_table(("run", "status", "step", "dataset", "preset", "size", *_MEASURED), rows)
        print(_MEASURED_HOW)
        print("For more: pddm-lab dashboard")
    for run in listed:
        if isinstance(run, BrokenRun):
            print(f"{run.name} can't be read: {run.reason}")
            continue
        if run.reason:
            print(f"{run.name} {run.status}: {run.reason}")
        for warning in run.info.get("warnings", ()):
            print(f"{run.name} warning: {warning}")
        if run.notes.strip():
            print(f"{run.name} notes: {' '.join(run.notes.split())[:200]}")
    if not listed:
        print(f"There are no runs in {config.runs_root(runs_root)} yet. Train one: pddm-lab train quick")


@runs.command(name="remove")
def remove_runs(names: _Names, yes: bool = False, runs_root: RunsRoot = "") -> None:
    """Remove runs for good; one that is being trained or served stays.

    Their collections in Milvus go too, where PDDM_LAB_INDEX names its server.

    Args:
        yes: Remove without a question.
    """
    from pddm_lab.gallery import milvus
    from pddm_lab.gallery.store import IndexChoice
    from pddm_lab.runs.compare import run_folder
    from pddm_lab.runs.removal import check_ended, check_unserved, check_uploads, collections_of, disk_use, remove

    folders = list(dict.fromkeys(run_folder(name, runs_root) for name in names))
    if not folders:
        raise RunError("Name the runs to remove: `pddm-lab runs` lists all.")
    for folder in folders:
        check_ended(folder)
        check_unserved(folder)
        check_uploads(folder, folders)
    sizes = [disk_use(folder) for folder in folders]
    if not yes:
        _confirm(", ".join(f"{folder.name} ({in_bytes(size)})" for folder, size in zip(folders, sizes, strict=True)))
    for folder, size in zip(folders, sizes, strict=True):
        collections = collections_of(folder)
        is_deleted = remove(folder, folders)
        print(f"Removed {folder.name}, {in_bytes(size)}.")
        if not is_deleted:
            print(
                f"Some of its files can't be deleted: check the permissions of the hidden folders in {folder.parent}."
            )
        for collection in collections:
            try:
                milvus.drop(collection, IndexChoice.of())
            except LabError as error:
                print(f"The collection {collection} stays in Milvus. {error}")


@runs.command(name="pack")
def pack_run(run: RunName, out: str = "", runs_root: RunsRoot = "") -> None:
    """Write a run into one file, to keep it or to open it on another machine.

    Args:
        out: The file; empty: RUN.zip here.
    """
    from pddm_lab.runs.compare import find_run
    from pddm_lab.runs.pack import pack

    packed = find_run(run, runs_root)
    file = typed_path(out) if out else Path(f"{packed.name}.zip")
    with progress_bar() as report:
        pack(packed, file, report)
    print(
        f"Packed {packed.name} into {file}, {in_bytes(file.stat().st_size)}. Its pictures are in it as thumbnails only."
    )
    print(f"To open it elsewhere: pddm-lab runs unpack {file.name}")


@runs.command(name="unpack")
@checked
def unpack_run(file: _File, name: str = "", most_gb: Count = 16, runs_root: RunsRoot = "") -> None:
    """Make a run of a packed one; all of it is checked before it appears.

    Args:
        name: Name of the run; empty: the one that it was packed with.
        most_gb: Gigabytes that it may unpack to.
    """
    from pddm_lab.runs.pack import unpack

    with progress_bar() as report:
        run = unpack(typed_path(file), config.runs_root(runs_root), name, most_gb, report)
    print(f"Unpacked {run.path}. To look at it: pddm-lab dashboard {run.name}")


@runs.command
def slices(
    run: RunName, by: str = "class", protocol: _Protocol = "unseen", json: _Json = False, runs_root: RunsRoot = ""
) -> None:
    """Measure R@1 and MAP@R on parts of a run's queries: by class, tag, or a column of the data set's metadata.

    Args:
        by: class, tag, or the name of a column.
    """
    from pddm_lab.analysis import lead
    from pddm_lab.review.slices import as_table
    from pddm_lab.review.slices import slices as measure
    from pddm_lab.review.tags import read_tags, tags_file
    from pddm_lab.runs.compare import find_run, load_rivals

    of = find_run(run, runs_root)
    if not of.is_labelled:
        raise RunError(f"The items of {of.name} have no labels: nothing says which results are right.")
    gallery, rivals = of.gallery(protocol), load_rivals(of)
    tags = read_tags(tags_file(of.path.parent, of.config.dataset))
    with progress_bar() as report:
        table = as_table(measure(lead.judged(of, gallery, rivals, report), gallery.items, by, tags, report))
    if json:
        print(table.to_json(orient="records", force_ascii=False, indent=1))
        return
    rows = [
        (row["name"], row["similarity"], row["queries"], row["classes"],
         *(_between(row[part], row[f"{start}_low"], row[f"{start}_high"])
           for part, start in (("recall", "recall"), ("map_at_r", "map"))))
        for row in table.to_dict("records")
    ]  # fmt: skip
    print_table((by, "ranked by", "queries", "classes", "R@1 %", "MAP@R %"), rows)
    print(f"Queries of {protocol} classes; 95 % intervals are drawn from classes and their queries.")


@runs.command
def gain(before: RunName, after: RunName, json: _Json = False, runs_root: RunsRoot = "") -> None:
    """Compare a run with one that was trained with corrections of the data, on the same corrected queries."""
    from pddm_lab.files import plain
    from pddm_lab.review.gain import kept_gains, sentence
    from pddm_lab.runs.compare import find_run

    earlier, later = find_run(before, runs_root), find_run(after, runs_root)
    if not later.info["dataset"].get("corrections"):
        raise RunError(f"{later.name} was trained without corrections: name first the run without, then the one with.")
    with progress_bar() as report:
        measured = kept_gains(earlier, later, report)
    if json:
        print(dumps([plain(vars(one) | {"difference": one.difference}) for one in measured], indent=1))
        return
    for one in measured:
        print(sentence(one))


def _between(value: float, low: float, high: float) -> str:
    """A share in percent with its interval, if it has one."""
    ends = "" if math.isnan(low) else f" ({100 * low:.1f} to {100 * high:.1f})"
    return f"{100 * value:.1f}{ends}"


def in_bytes(size: int) -> str:
    """A size on disk for people: 950 B, 1.4 kB, 23 MB, 1.2 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            break
        size /= 1000  # type: ignore[assignment]
    return f"{size:.0f} {unit}" if size >= 10 or unit == "B" else f"{size:.1f} {unit}"


def _confirm(what: str) -> None:
    """Go on only if the user types yes.

    Raises:
        RunError: the user types something else, or there is no terminal to type at.
    """
    if not sys.stdin.isatty():
        raise RunError(f"Nothing was removed: add --yes to remove {what}.")
    if input(f"Remove {what}? This can't be undone. Type yes to remove: ").strip().lower() != "yes":
        raise RunError("Nothing was removed.")


_MEASURED = ("unseen R@1 / MAP@R", "- D", "known R@1 / MAP@R", "- D")
_MEASURED_HOW = """
R@1 and MAP@R in %: by Euclidean distance, by the trained similarity, by local structure if the run has it, and of the
pretrained features. - D: points of MAP@R that local structure, or else the trained similarity, is ahead of Euclidean
distance; the page Overview has the interval."""


def _run_row(run: Run) -> tuple[str, ...]:
    from pddm_lab.runs.removal import disk_use

    # Where nothing is trained, the steps are batches that quadruplets were mined from.
    step = f"{run.info.get('phase', '')} {run.info.get('step', '') if run.config.learns else ''}".strip()
    metrics = [text for protocol in ("unseen", "known") for text in (_summary(run, protocol), _lead(run, protocol))]
    return (run.name, run.status, step, run.config.dataset, run.config.preset, in_bytes(disk_use(run.path)), *metrics)


def _lead(run: Run, protocol: str) -> str:
    from pddm_lab.runs.compare import lead_over_d

    lead = lead_over_d(run, protocol)
    return "-" if lead is None else f"{100 * lead:+.1f}"


def _summary(run: Run, protocol: str) -> str:
    from pddm_lab.runs.compare import final_metrics

    values: dict[str, Any] = final_metrics(run).get(protocol, {})
    names = [
        name for name in dict.fromkeys(("euclidean", run.config.similarity, "local", PRETRAINED)) if name in values
    ]
    pairs = (
        f"{in_digits(values[name].get('recall@1'), 100)} / {in_digits(values[name].get('map@r'), 100)}"
        for name in names
    )
    return ", ".join(pairs) or "-"
