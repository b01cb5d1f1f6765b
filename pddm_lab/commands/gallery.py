"""The command line's `gallery`: keep a run's gallery in step with a range of products that changes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import tyro
from tyro.conf import Positional

from pddm_lab.config import runs_root as root_of
from pddm_lab.errors import RunError

if TYPE_CHECKING:
    from pddm_lab.gallery.gallery import Gallery
    from pddm_lab.runs.run import Run

gallery = tyro.extras.SubcommandApp()
_NAMED = 3


@gallery.command
def add(run: Positional[str], folder: Positional[str], protocol: str = "unseen", runs_root: str = "") -> None:
    """Add the pictures FOLDER/<class>/<image> as items <class>/<image>, embedded by the run's model.

    Args:
        run: name of the run, or path of its folder.
        folder: that holds a folder of pictures per class.
        protocol: of the gallery: unseen or known.
        runs_root: folder that holds the runs; empty: $PDDM_LAB_RUNS, else ./runs.
    """
    from pddm_lab.gallery import changes
    from pddm_lab.progress import progress_bars
    from pddm_lab.runs import new_items

    of = _find_run(run, runs_root)
    before = of.gallery(protocol)
    with progress_bars(True)("embed") as report:
        found = new_items.to_add(of, before, Path(folder).expanduser(), report)
    after = changes.add(before, found.new)
    classes, new = found.new.items["class_name"].nunique(), len(found.new_classes)
    what = f"{_count(classes, 'class', 'classes')}, {new or 'none'} of them new"
    _report(of, f"Added {_count(len(found.new.items), 'item')} of {what}.", before, after, found.passed_over)


@gallery.command
def update(run: Positional[str], folder: Positional[str], protocol: str = "unseen", runs_root: str = "") -> None:
    """Give items new pictures: FOLDER/<id of the item>, embedded by the run's model.

    Args:
        run: name of the run, or path of its folder.
        folder: that holds the pictures under the items' ids.
        protocol: of the gallery: unseen or known.
        runs_root: folder that holds the runs; empty: $PDDM_LAB_RUNS, else ./runs.
    """
    from pddm_lab.gallery import changes
    from pddm_lab.progress import progress_bars
    from pddm_lab.runs import new_items

    of = _find_run(run, runs_root)
    before = of.gallery(protocol)
    with progress_bars(True)("embed") as report:
        found = new_items.to_update(of, before, Path(folder).expanduser(), report)
    after = changes.update(before, found.new)
    _report(of, f"Updated {_count(len(found.new.items), 'item')}.", before, after, found.passed_over)


@gallery.command
def remove(
    run: Positional[str], ids: Positional[tuple[str, ...]], protocol: str = "unseen", runs_root: str = ""
) -> None:
    """Remove items by their ids.

    Args:
        run: name of the run, or path of its folder.
        ids: of the items.
        protocol: of the gallery: unseen or known.
        runs_root: folder that holds the runs; empty: $PDDM_LAB_RUNS, else ./runs.
    """
    from pddm_lab.gallery import changes

    if not ids:
        raise RunError("Name the items to remove by their ids.")
    of = _find_run(run, runs_root)
    before = of.gallery(protocol)
    after = changes.remove(before, ids)
    _report(of, f"Removed {_count(len(set(ids)), 'item')}.", before, after)


@gallery.command(name="map")
def draw_map(run: Positional[str], protocol: str = "unseen", runs_root: str = "") -> None:
    """Draw a gallery's map anew, as after a change.

    Args:
        run: name of the run, or path of its folder.
        protocol: of the gallery: unseen or known.
        runs_root: folder that holds the runs; empty: $PDDM_LAB_RUNS, else ./runs.
    """
    from pddm_lab.gallery.umap_layout import write_map

    of = _find_run(run, runs_root).gallery(protocol)
    method = write_map(of.path)
    print(f"Drew the map of {_count(len(of), 'item')} of {protocol} ({method.upper()}).")


def _find_run(run: str, runs_root: str) -> Run:
    from pddm_lab.runs.run import Run

    path = Path(run).expanduser()
    found = Run.open(path if (path / "run.json").is_file() else root_of(runs_root) / run)
    if found.status == "running":
        raise RunError(f"{found.name} is still at work: its galleries can be changed when that has ended.")
    return found


def _report(run: Run, done: str, before: Gallery, after: Gallery, passed_over: list[str] | None = None) -> None:
    print(f"{done} The gallery {after.protocol} has {_count(len(after), 'item')}.")
    if passed_over:
        more = f" and {len(passed_over) - _NAMED} more" if len(passed_over) > _NAMED else ""
        print(f"Passed over {_count(len(passed_over), 'picture')}: {' '.join(passed_over[:_NAMED])}{more}")
    dropped = ""
    if before.manifest["map"]:
        command = f"pddm-lab gallery map {run.name} --protocol {after.protocol}"
        dropped = f", and its map is dropped: `{command}` draws it anew"
    print(f"Its metrics and distributions are those of the items it was measured with{dropped}.")


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"
