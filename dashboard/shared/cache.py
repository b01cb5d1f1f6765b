"""A cache of what is computed from a run: kept until one of the files it comes from changes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import streamlit as st

from pddm_lab.runs.run import PROTOCOLS, Run

P = ParamSpec("P")
R = TypeVar("R")
Stamp = tuple[tuple[str, int], ...]
GALLERIES = tuple(f"gallery/{protocol}" for protocol in PROTOCOLS)
MODEL = "model.safetensors"


def stamp(path: Path) -> Stamp:
    """When a file, or each file of a folder, last changed; of many a digest, since a key is hashed at every call."""
    times = []
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        try:
            times.append((file.name, file.stat().st_mtime_ns))
        except OSError:
            continue  # missing, or replaced at this moment
    if len(times) > 8:
        return ((hashlib.blake2b(repr(times).encode(), digest_size=16).hexdigest(), len(times)),)
    return tuple(times)


def cached(*files: str, copied: bool = False, **options: Any) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Cache a function of runs; arguments other than runs are part of the key as Streamlit hashes them.

    Args:
        files: names inside the run's folder; when one of them changes, the result is computed again.
        copied: give each caller a copy of its own (`st.cache_data`); else all share one object, not to be changed.
        options: of Streamlit's cache, such as `max_entries` or `show_spinner`.
    """

    def key(run: Run) -> tuple[str, list[Stamp]]:
        return str(run.path), [stamp(run.path / file) for file in files]

    cache = st.cache_data if copied else st.cache_resource
    return cache(hash_funcs={Run: key}, **{"max_entries": 8, "show_spinner": False, **options})  # type: ignore[return-value,call-overload]
