"""The commands of `cache`: list what the lab keeps only to be faster, and delete it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, get_args

import tyro
from tyro.conf import arg

from pddm_lab import config
from pddm_lab.commands.runs import in_bytes
from pddm_lab.commands.terminal import RunsRoot, print_table
from pddm_lab.config import CountOrNone
from pddm_lab.validation import checked

cache = tyro.extras.SubcommandApp()
_Kind = Literal["features", "prints", "checks", "compiled"]
_Kinds = Annotated[tuple[_Kind, ...], arg(metavar="KIND [KIND ...]", help=f"{', '.join(get_args(_Kind))}; none: all.")]


@cache.command(name="list", is_default=True)
def list_caches(runs_root: RunsRoot = "") -> None:
    """List the caches, with their sizes and when they were last used."""
    from pddm_lab.runs.caches import KINDS, caches

    root, rows = config.runs_root(runs_root), []
    listed = caches(root)
    for kind, what in KINDS.items():
        files = [file for file in listed if file.kind == kind]
        used = f"{datetime.fromtimestamp(max(file.used for file in files)):%Y-%m-%d}" if files else "-"
        rows.append((kind, len(files), in_bytes(sum(file.bytes for file in files)), used, what))
    print_table(("cache", "files", "size", "used", "what"), rows)
    print(f"\nBeside the runs in {root}. To delete them: pddm-lab cache prune. Nothing but time is lost.")


@cache.command(name="prune")
@checked
def prune_caches(kinds: _Kinds = (), days: CountOrNone = 30, runs_root: RunsRoot = "") -> None:
    """Delete caches that were not used for some time. What a training needs is made again.

    Args:
        days: Days without use after which a file is deleted; 0: every file.
    """
    from pddm_lab.runs.caches import prune

    deleted = prune(config.runs_root(runs_root), kinds, days)
    size = in_bytes(sum(file.bytes for file in deleted))
    print(f"Deleted {len(deleted):,} {'file' if len(deleted) == 1 else 'files'} of caches, {size}.")
