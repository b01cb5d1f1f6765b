"""What the Drift page shows and computes, without Streamlit: its tables, and the comparison of a folder or a log."""

from __future__ import annotations

from collections.abc import Callable

from pddm_lab.cards import Cell, Head
from pddm_lab.change import drift_text
from pddm_lab.change.drift_schema import DriftContent
from pddm_lab.change.signals import SIGNALS
from pddm_lab.config import typed_path
from pddm_lab.runs.run import Run


def drift_of(run: Run, source: str, report: Callable[[float, str], None]) -> DriftContent:
    """The drift of a folder of pictures, or of a log. Raises DataError or RunError as `drift_of_folder` does."""
    from pddm_lab.change.drift import drift_of_folder, drift_of_log

    path = typed_path(source)
    drift = drift_of_log if path.is_file() else drift_of_folder
    return drift(
        run, path, progress=lambda done, total, what: report(done / max(total, 1), f"{done:,} of {total:,} {what}")
    )[0]


def signals_table(content: DriftContent) -> tuple[list[Head], list[list[Cell]]]:
    """Every signal, then and now, and how far it is from its threshold."""
    last = min(content.window, content.queries)
    heads = [
        Head("Signal"), Head("Then", "Median of the run's own queries."),
        Head("Now", f"Median of the last {last} queries."),
        Head("Of its threshold", f"Of the last {last} queries; above 100 % is an alarm."),
        Head("First alarm", "Queries until then."),
    ]  # fmt: skip
    rows = []
    for (name, of), row in zip(content.signals.items(), drift_text.table_rows(content), strict=True):
        title, *numbers, ratio, alarm = row
        mark = "fails" if of.ratios[-1] > 1 else "holds"
        rows.append([
            Cell(title, hint=f"{SIGNALS[name][1]}."), *(Cell(one.replace("-", "–", one == "-")) for one in numbers),
            Cell(ratio, mark), Cell("–" if alarm == "-" else alarm),
        ])  # fmt: skip
    return heads, rows


def classes_table(content: DriftContent) -> tuple[list[Head], list[list[Cell]]]:
    """Classes that clearly gain or lose."""
    rows = [
        [Cell(row.name), Cell(f"{100 * row.then:.1f}"), Cell(f"{100 * row.now:.1f}"),
         Cell(f"{100 * (row.now - row.then):+.1f}".replace("-", "−"))]
        for row in content.classes
    ]  # fmt: skip
    return [Head("Class"), Head("Then", small="%"), Head("Now", small="%"), Head("Change", small="points")], rows
