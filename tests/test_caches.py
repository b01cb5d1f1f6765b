"""Caches are listed with their sizes, and pruned by kind and by age; what isn't a cache stays."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from filelock import FileLock, Timeout

from pddm_lab import cli
from pddm_lab.data.by_content import ContentCache
from pddm_lab.local import compiled
from pddm_lab.runs.caches import KINDS, caches, prune


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of runs with a cache of each kind, one of them old, and a run."""

    class Stats:
        cache_path = str(tmp_path / "numba")

    monkeypatch.setattr(compiled, "collect", type("Compiled", (), {"stats": Stats}))
    monkeypatch.setenv("PDDM_LAB_RUNS", str(tmp_path / "runs"))
    for name in ("new", "old", "prints-32"):
        cache = ContentCache(tmp_path / "runs" / ".features" / f"{name}.safetensors", "features", (4,), np.float32)
        cache.add(bytes(16), np.ones(4, np.float32))
        cache.write()
    for file in ("runs/.checked/digits.json", "numba/compiled.collect-1.nbi", "numba/another.py", "runs/one/run.json"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("{}")
    days_ago = time.time() - 40 * 86_400
    os.utime(tmp_path / "runs" / ".features" / "old.safetensors", (days_ago, days_ago))
    return tmp_path / "runs"


def test_one_process_at_a_time_keeps_what_it_has_compiled(tmp_path: Path) -> None:
    kept: list[object] = []

    def save(*overload: object) -> None:
        with pytest.raises(Timeout):
            FileLock(tmp_path / compiled.LOCK, timeout=0).acquire()
        kept.extend(overload)

    assert compiled.collect._cache.save_overload.__qualname__.startswith("_alone")
    compiled._alone(SimpleNamespace(cache_path=str(tmp_path), save_overload=save))("signature", "code")
    assert kept == ["signature", "code"]


def test_every_cache_is_listed(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listed = caches(root)
    assert sorted(file.kind for file in listed) == ["checks", "compiled", "features", "features", "prints"]
    assert all(file.bytes == file.path.stat().st_size for file in listed)
    cli.main(["cache"])
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line.split()[:1] and line[0] != " "]
    assert {row[0]: row[1] for row in rows if row[0] in KINDS} == {
        "features": "2", "prints": "1", "checks": "1", "compiled": "1"
    }  # fmt: skip


def test_old_ones_are_pruned_then_a_kind_then_all(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["cache", "prune"])
    assert "Deleted 1 file of caches, " in capsys.readouterr().out
    assert sorted(file.path.stem for file in caches(root) if file.kind == "features") == ["new"]
    assert [file.kind for file in prune(root, ["prints"])] == ["prints"]
    cli.main(["cache", "prune", "--days", "0"])
    assert "Deleted 3 files" in capsys.readouterr().out
    assert caches(root) == [] and (root / "one" / "run.json").exists()
    assert (root.parent / "numba" / "another.py").exists()


def test_the_caches_that_trainings_write_are_those_that_are_known(digits_run) -> None:
    beside = {path.name for path in digits_run.path.parent.iterdir() if path.name.startswith(".")}
    assert beside <= {".features", ".checked", ".launches"}


def test_only_a_damaged_cache_of_arrays_is_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, key = tmp_path / "arrays.safetensors", bytes(range(16))

    def opened() -> ContentCache:
        return ContentCache(file, "features", (4,), np.float32)

    def fails(kind: type[BaseException]) -> None:
        def fail(*_: object) -> None:
            raise kind

        monkeypatch.setattr("safetensors.numpy.load_file", fail)

    cache = opened()
    cache.add(key, np.ones(4, np.float32))
    cache.write()
    whole = file.read_bytes()
    for kind in (MemoryError, PermissionError):
        fails(kind)
        cache = opened()
        assert key not in cache
        cache.add(bytes(16), np.zeros(4, np.float32))
        cache.write()
        monkeypatch.undo()
        assert file.read_bytes() == whole and key in opened(), "it may be whole, so it stays"
    for damaged in (whole[:-3], b"", whole.replace(b"hashes", b"others")):
        file.write_bytes(damaged)
        assert key not in opened() and not file.exists()
