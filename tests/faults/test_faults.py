"""The harness itself: it finds what isn't atomic, and passes what is."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from faults import MODES, Operation, faults, sample, sweep

from pddm_lab.files import replacing


def prepare(folder: Path) -> None:
    (folder / "a.txt").write_text("old")


def state(folder: Path) -> str:
    return (folder / "a.txt").read_text()


def in_place(folder: Path) -> None:
    with open(folder / "a.txt", "w") as file:
        file.write("newer")


def renamed(folder: Path) -> None:
    with replacing(folder / "a.txt") as temporary:
        temporary.write_text("newer")


@pytest.mark.parametrize("mode", MODES)
def test_what_is_atomic_passes_and_what_is_not_fails(tmp_path: Path, mode: str) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    assert sweep(Operation("rename", prepare, renamed, state), mode, tmp_path / "one") == 5
    with pytest.raises(AssertionError, match="neither the old state nor the new one, but 'ne'"):
        sweep(Operation("in place", prepare, in_place, state), mode, tmp_path / "two")


def test_every_kind_of_call_is_a_point(tmp_path: Path) -> None:
    import shutil

    import pyarrow as pa
    import pyarrow.parquet as pq
    import safetensors.torch
    import torch

    with faults(tmp_path) as counted:
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder" / "stop").touch()
        with replacing(tmp_path / "a.json") as temporary:
            temporary.write_text("é")
        with open(tmp_path / "b.npy", "wb") as file:
            np.save(file, np.arange(3))
            file.flush()
            os.fsync(file.fileno())
        with open(tmp_path / "b.npy", "r+b") as again:
            again.truncate(10)
        pd.DataFrame({"x": [1]}).to_parquet(tmp_path / "c.parquet")
        pq.write_table(pa.table({"x": [1]}), tmp_path / "d.parquet")
        torch.save({"x": 1}, tmp_path / "e.ckpt")
        safetensors.torch.save_file({"x": torch.ones(3)}, tmp_path / "f.safetensors")
        shutil.copy(tmp_path / "b.npy", tmp_path / "g.npy")
        shutil.rmtree(tmp_path / "folder")
    kinds: dict[str, list[str]] = {}
    for name in counted.names:
        kind, _, file = name.partition(" ")
        kinds.setdefault(file.split(".json.")[0].lstrip("."), []).append(kind)
    assert kinds["folder"] == ["mkdir", "rmdir"]
    assert kinds["folder/stop"] == ["create", "unlink"]
    assert kinds["a"] == ["create", "write", "fsync", "rename", "unlink"]
    assert kinds["b.npy"][:2] == ["create", "write"] and kinds["b.npy"][-3:] == ["fsync", "create", "truncate"]
    for name in ("c.parquet", "d.parquet", "e.ckpt", "f.safetensors", "g.npy"):
        assert kinds[name] == ["create", "write", "write", "write"], name
    assert pd.read_parquet(tmp_path / "c.parquet")["x"].tolist() == [1]
    assert torch.load(tmp_path / "e.ckpt") == {"x": 1}


def test_the_dead_change_nothing(tmp_path: Path) -> None:
    with faults(tmp_path, 1, "kill") as points:
        try:
            with open(tmp_path / "a", "wb") as file:
                file.write(b"1234")
        finally:
            (tmp_path / "b").touch()
    assert points.names == ["create a", "write a"]
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("a", b"12")]


def test_a_full_disk_deletes_and_renames(tmp_path: Path) -> None:
    with faults(tmp_path, 1, "full"):
        with pytest.raises(OSError, match="No space left"), open(tmp_path / "a", "wb") as file:
            file.write(b"1234")
        with pytest.raises(OSError, match="No space left"):
            (tmp_path / "b").touch()
        (tmp_path / "a").rename(tmp_path / "c")
        (tmp_path / "c").unlink()
    assert not list(tmp_path.iterdir())


def test_a_sample_spreads_over_all_points() -> None:
    assert sample(4, 6) == [0, 1, 2, 3]
    some = sample(100, 6)
    assert (len(some), some[0], some[-1]) == (6, 0, 99)
    assert some == sorted(some) == sample(100, 6)
