"""What the Catalogue page reads of a run and changes in it."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from shared import catalogue, loaders
from shared.cache import GALLERIES, LOCAL, cached
from shared.catalogue import Done

from pddm_lab.gallery.history import Change
from pddm_lab.runs.run import CATALOGUE, Run
from pddm_lab.wording import counted, natural


@cached(*GALLERIES)
def classes(run: Run) -> pd.Series:
    """Class name -> number of its items, in the names' natural order."""
    counts = loaders.gallery(run, CATALOGUE).items.groupby("class_name").size()
    return counts.loc[sorted(counts.index, key=natural)]


@cached(*GALLERIES)
def changes(run: Run) -> list[Change]:
    """The changes that can be undone, the last one first. Raises RunError if the history is damaged."""
    from pddm_lab.gallery.history import changes

    gallery = loaders.gallery(run, CATALOGUE)
    return changes(gallery.path, gallery.manifest)


@cached(*GALLERIES, LOCAL, show_spinner="Searching with the saved queries")
def saved(run: Run) -> tuple[int, dict[str, float]]:
    """The number of saved queries, and their R@1 by similarity; none of either if there are none.

    Raises:
        RunError: they are damaged.
    """
    from pddm_lab.analysis.saved_queries import read, recall_of

    gallery = loaders.gallery(run, CATALOGUE)
    kept = read(gallery)
    return (0, {}) if kept is None else (len(kept), recall_of(gallery, kept, catalogue.structure_of(run)))


def save_queries(run: Run, count: int) -> None:
    """Keep a sample of the catalogue's items as queries. Raises RunError if no item has another one of its class."""
    from pddm_lab.analysis.saved_queries import save

    save(loaders.gallery(run, CATALOGUE), count)


def add(run: Run, class_name: str, pictures: Sequence[tuple[str, bytes]], reason: str) -> Done:
    """Add pictures to a class, which may be new.

    Args:
        pictures: (file name, content).

    Raises:
        LabError: none can be read, or a name can't be used.
    """
    from pddm_lab.data import uploads
    from pddm_lab.gallery import changes
    from pddm_lab.runs import new_items

    before = loaders.gallery(run, CATALOGUE)
    with uploads.kept(run.path, class_name, pictures) as folder:
        made = new_items.to_add(run, before, folder)
        after = changes.add(before, made.new, catalogue.structure_of(run), reason)
    count, name = len(made.new.items), class_name.strip()
    text = f"Added {counted(count, 'picture')} to {name}" + (", a new class." if made.new_classes else ".")
    item = str(made.new.items["id"].iloc[0])
    return catalogue.done(text, run, before, after, item, (*made.skipped, *made.notes))


def rename(run: Run, old: str, name: str, reason: str) -> Done:
    """Rename a class, or merge it with the one that has the name. Raises RunError as `changes.rename_class`."""
    from pddm_lab.data.uploads import checked_name
    from pddm_lab.gallery import changes

    before = loaders.gallery(run, CATALOGUE)
    merged = checked_name(name, "class") in classes(run).index
    after = changes.rename_class(before, old, name.strip(), catalogue.structure_of(run), reason)
    text = f"{old} is now part of {name.strip()}." if merged else f"{old} is now called {name.strip()}."
    return catalogue.done(text, run, before, after)
