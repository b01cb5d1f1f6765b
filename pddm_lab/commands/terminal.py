"""What the commands share: arguments that mean the same everywhere, tables, reports, and progress bars."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

from annotated_types import Interval
from tyro.conf import Positional, arg

from pddm_lab.config import typed_path
from pddm_lab.wording import counted

if TYPE_CHECKING:
    import pandas as pd

    from pddm_lab.progress import Progress
    from pddm_lab.runs.file_reports import FileReport

RunName = Positional[Annotated[str, arg(metavar="RUN", help="Name of the run, or path to its folder.")]]
AnyRun = Positional[Annotated[str, arg(metavar="[RUN]")]]
"""A run that may be left out; the command says which it takes then."""
RunsRoot = Annotated[str, arg(help="Folder that holds the runs; empty: $PDDM_LAB_RUNS, else ./runs.")]
Port = Annotated[int, Interval(ge=1, le=65_535)]
DataRoot = Annotated[str, arg(help="Folder that holds the data sets; empty: $PDDM_LAB_DATA, else ./data.")]


def print_table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows under their column names, left-aligned."""
    lines = [head, *([str(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """A progress bar on standard error, fed by (done, total, what)."""
    from tqdm import tqdm

    with tqdm(leave=False, delay=0.3) as bar:

        def report(done: int, total: int, what: str) -> None:
            bar.total = total
            bar.set_description(what, refresh=False)
            bar.update(done - bar.n)

        yield report


def write_csv(table: pd.DataFrame, csv: str) -> None:
    """Write a table to a file; an empty name writes nothing. Last of a command, whose results are on screen then.

    Raises:
        RunError: it can't be written.
    """
    if csv:
        from pddm_lab.files import writing

        with writing(typed_path(csv)):
            table.to_csv(typed_path(csv), index=False)


@contextmanager
def reporting(report: str) -> Iterator[None]:
    """Around a change by a folder's pictures: that the gallery has all of them already is printed, and no error.

    Args:
        report: as for `write_report`; also written where nothing changes.

    Raises:
        RunError: the report can't be written.
    """
    from pddm_lab.files import check_writable
    from pddm_lab.runs.new_items import NothingNewError

    if report:
        check_writable(typed_path(report))
    try:
        yield
    except NothingNewError as nothing:
        if not nothing.is_failure:
            print(nothing, *nothing.notes, sep="\n")
        write_report(nothing.reports, report)
        if nothing.is_failure:
            raise


def write_report(reports: Sequence[FileReport], report: str) -> None:
    """Write what was done with each file to a table, .csv; an empty name writes nothing.

    Raises:
        RunError: it can't be written.
    """
    if report:
        from pddm_lab.runs.file_reports import write_reports

        write_reports(reports, typed_path(report))
        print(f"What was done with each of {counted(len(reports), 'file')} is in {report}.")


def printable(text: str) -> str:
    """A name from a file, without what would steer the terminal."""
    return "".join(sign if sign.isprintable() else "?" for sign in text)
