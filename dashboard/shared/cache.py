"""A cache of results computed from a run, kept until a file they depend on changes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import Any, ParamSpec, TypeVar

import streamlit as st

from pddm_lab.runs.run import CATALOGUE, PROTOCOLS, Run

P = ParamSpec("P")
R = TypeVar("R")
Stamp = tuple[tuple[str, int], ...]
GALLERIES = tuple(f"gallery/{protocol}" for protocol in (CATALOGUE, *PROTOCOLS))
MODEL = "model.safetensors"
LOCAL = "local.safetensors"


def stamp(path: Path) -> Stamp:
    """When a file, or each file in a folder, last changed. Of many files a digest: keys are hashed at every call."""
    times = []
    files: list[Any] = sorted(os.scandir(path), key=lambda file: file.name) if path.is_dir() else [path]
    for file in files:
        try:
            times.append((file.name, file.stat().st_mtime_ns))
        except OSError:
            continue  # missing, or replaced at this moment
    if len(times) > 8:
        return ((hashlib.blake2b(repr(times).encode(), digest_size=16).hexdigest(), len(times)),)
    return tuple(times)


def _name_of(function: FunctionType) -> str:
    return f"{function.__module__}.{function.__qualname__}"


def cached(*files: str, copied: bool = False, **options: Any) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Cache a function of runs or paths; its other arguments are part of the key as Streamlit hashes them.

    Args:
        files: names inside the folder of a run (or of a study, given as a path); when one of them changes, the result
            is computed again. A path to a file, or a path where no names are given, is watched itself.
        copied: give each caller a copy of its own (`st.cache_data`); else all share one object, not to be changed.
        options: of Streamlit's cache, such as `max_entries` or `show_spinner`.
    """

    def run_key(run: Run) -> tuple[str, list[Stamp]]:
        return str(run.path), [stamp(run.path / file) for file in files]

    def path_key(path: Path) -> tuple[str, list[Stamp]]:
        return str(path), [stamp(path / file) for file in files] if files and path.is_dir() else [stamp(path)]

    cache = st.cache_data if copied else st.cache_resource
    keys: dict[str | type, Callable] = {Run: run_key, type(Path()): path_key, FunctionType: _name_of}
    return cache(hash_funcs=keys, **{"max_entries": 8, "show_spinner": False, **options})  # type: ignore[return-value,call-overload]
