"""Pictures are embedded in bulk as one by one, whatever stops the work, whatever can't be read, and by many workers."""

from __future__ import annotations

import csv
import socket
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from digit_pictures import write_digits
from no_maps import NoMaps
from PIL import Image

from pddm_lab import cli
from pddm_lab.bulk import embed as bulk
from pddm_lab.bulk import workers
from pddm_lab.bulk.job import Job
from pddm_lab.bulk.pictures import list_pictures
from pddm_lab.data.images import open_image
from pddm_lab.errors import DataError, RunError
from pddm_lab.runs.model import ImageEmbedder, load_model
from pddm_lab.runs.run import Run
from pddm_lab.training import finish, imports

PER_CLASS, SHARD = 4, 16
NEEDS_RAY = "needs the extra bulk: pip install 'pddm-lab[bulk]'"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 digits, and two files that can't be read."""
    root = write_digits(tmp_path_factory.mktemp("bulk") / "digits", PER_CLASS)
    (root / "3" / "0000.png").write_bytes(b"no picture")
    broken = root / "9" / "9999.jpg"
    Image.new("RGB", (40, 40)).save(broken)
    broken.write_bytes(broken.read_bytes()[:300])
    return root


@pytest.fixture(scope="module")
def loaded(digits_run: Run) -> ImageEmbedder:
    return ImageEmbedder(digits_run, load_model(digits_run))


@pytest.fixture(scope="module")
def expected(loaded: ImageEmbedder, pictures: Path) -> pd.DataFrame:
    """Each readable picture's feature, embedded alone as an upload is."""
    paths = [path for path in sorted(pictures.glob("*/*")) if path.name != "9999.jpg" and path.stat().st_size > 20]
    rows = {path.relative_to(pictures).as_posix(): loaded(open_image(path, loaded.shorter)) for path in paths}
    return pd.DataFrame({"path": list(rows), "feature": list(rows.values())}).set_index("path")


def embedded(run: Run, dataset: str | Path, out: Path, **choices: object) -> tuple[bulk.Merged, list[str]]:
    log: list[str] = []
    made = bulk.embed_pictures(
        run, dataset if isinstance(dataset, str) else f"folder:{dataset}", out, data_root=Path(), shard_size=SHARD,
        log=log.append, **choices,  # type: ignore[arg-type]
    )  # fmt: skip
    return made, log


def assert_as_one_by_one(made: bulk.Merged, expected: pd.DataFrame) -> None:
    features, items = np.load(made.features), pd.read_parquet(made.items)
    assert sorted(items["path"]) == sorted(expected.index) and features.dtype == np.float32
    assert items["label"].tolist() == [path.partition("/")[0] for path in items["path"]]
    np.testing.assert_allclose(features, np.stack(list(expected["feature"][items["path"]])), atol=1e-5)
    with open(made.skipped, encoding="utf-8", newline="") as file:
        skipped = dict(csv.reader(file))
    assert list(skipped) == ["path", "3/0000.png", "9/9999.jpg"]
    assert "is not a picture" in skipped["3/0000.png"] and "damaged" in skipped["9/9999.jpg"]
    assert (made.embedded, made.left_out) == (len(items), 2)


def test_all_are_embedded_and_what_is_unreadable_is_listed(
    digits_run: Run, pictures: Path, expected: pd.DataFrame, tmp_path: Path
) -> None:
    done: list[int] = []
    made, _ = embedded(digits_run, pictures, tmp_path / "out", progress=lambda *one: done.append(one[0]))
    assert_as_one_by_one(made, expected)
    assert done == [1, 2, 3, *range(1, 43), 1, 2, 3], "shards checked, each of 42 pictures, shards put together"


def test_a_killed_job_goes_on_and_a_damaged_shard_is_computed_again(
    digits_run: Run, pictures: Path, expected: pd.DataFrame, tmp_path: Path, loaded: ImageEmbedder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    out = tmp_path / "out"
    shards: list[int] = []
    monkeypatch.setattr(workers, "embedder", lambda *_: loaded)
    write = Job.write

    def killed(job: Job, shard: int, *values: object) -> None:
        if shard == 2:
            (out / "shards" / ".00002.npy.1-2.tmp").write_bytes(b"half")
            raise KeyboardInterrupt
        write(job, shard, *values)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Job, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            embedded(digits_run, pictures, out)
    assert not (out / "features.npy").exists()

    def noted(job: Job, shard: int, *values: object) -> None:
        shards.append(shard)
        write(job, shard, *values)  # type: ignore[arg-type]

    monkeypatch.setattr(Job, "write", noted)
    made, log = embedded(digits_run, pictures, out)
    assert shards == [2] and not log and not list(out.glob("shards/.*"))
    assert_as_one_by_one(made, expected)

    first, second = (out / "shards" / f"0000{number}.npy" for number in (0, 1))
    first.write_bytes(first.read_bytes()[:-1] + b"\x7f")
    (out / "shards" / "00002.json").write_text("{}")
    about = second.with_suffix(".json")
    about.write_text(about.read_text().replace('"pictures": 16', '"pictures": 15'))
    shards.clear()
    made, log = embedded(digits_run, pictures, out)
    assert shards == [0, 1, 2]
    assert "00000.npy is damaged" in log[0] and "is of another job" in log[1] and "00002.json" in log[2]
    assert_as_one_by_one(made, expected)


def test_a_folder_keeps_to_its_job(
    digits_run: Run, pictures: Path, tmp_path: Path, loaded: ImageEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    monkeypatch.setattr(workers, "embedder", lambda *_: loaded)
    embedded(digits_run, pictures, out)
    embedded(digits_run, pictures / "1" / "..", out)  # the same folder
    with pytest.raises(RunError, match="features of another model"):
        embedded(digits_run, pictures, out, model="another:one")
    with pytest.raises(RunError, match="features of another dataset"):
        embedded(digits_run, pictures / "1", out)
    with pytest.raises(RunError, match="is a file: expected a new or an empty folder"):
        embedded(digits_run, pictures, pictures / "3" / "0000.png")
    with pytest.raises(RunError, match=r"has other files, such as ."):
        embedded(digits_run, pictures, pictures)
    with bulk.FileLock(out / ".lock"), pytest.raises(RunError, match="Another process works on"):
        embedded(digits_run, pictures, out)
    (out / "pictures.parquet").write_bytes(b"")
    with pytest.raises(RunError, match="is damaged: expected the list"):
        embedded(digits_run, pictures, out)


def test_what_can_be_listed(pictures: Path, tmp_path: Path) -> None:
    loose = list_pictures(f"folder:{pictures / '1'}", tmp_path)
    assert list(loose.table) == ["path"] and len(loose.table) == PER_CLASS
    (tmp_path / "mixed" / "a").mkdir(parents=True)
    for name in ("x.png", "a/y.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / "mixed" / name)
    mixed = list_pictures(f"folder:{tmp_path / 'mixed'}", tmp_path)
    assert mixed.table.to_dict("records") == [{"path": "a/y.png", "label": "a"}]
    assert mixed.notes == ["Left out 1 picture outside of class folders."]
    (pictures / "list.csv").write_text("path;shelf\n1/0001.png;top\n2/none.png;low\n")
    table = list_pictures(f"manifest:{pictures / 'list.csv'}", tmp_path)
    (pictures / "list.csv").unlink()
    assert table.root == pictures and table.table["shelf"].tolist() == ["top", "low"]
    for line, message in (("../x.png", "inside of"), ("/x.png", "inside of"), ("", "the path of"), ("a\na", "once")):
        (tmp_path / "wrong.csv").write_text(f'path,n\n"{line}",1\n'.replace("a\na", 'a",1\n"a'))
        with pytest.raises(DataError, match=message):
            list_pictures(f"manifest:{tmp_path / 'wrong.csv'}", tmp_path)
    (tmp_path / "wrong.csv").write_text("id\n1\n")
    with pytest.raises(DataError, match="expected a column path"):
        list_pictures(f"manifest:{tmp_path / 'wrong.csv'}", tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        list_pictures(f"folder:{tmp_path / 'none'}", tmp_path)


def test_where_nothing_can_be_read(digits_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"None of 1 pictures can be read. The first error: .*a\.png"):
        embedded(digits_run, tmp_path / "pictures", tmp_path / "out")
    monkeypatch.setattr(Job, "root", tmp_path / "gone")
    (tmp_path / "out" / "shards" / "00000.json").unlink()
    with pytest.raises(DataError, match="is gone"):
        embedded(digits_run, tmp_path / "pictures", tmp_path / "out")


def test_a_cluster_that_does_not_answer(digits_run: Run, pictures: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason=NEEDS_RAY)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # and nobody listens there
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        with pytest.raises(RunError, match=rf"cluster at {address} doesn't answer \(.*refused\)\. Without --workers"):
            embedded(digits_run, pictures, tmp_path, workers=workers.Workers(1, 1, address))


@pytest.mark.slow
def test_workers_of_ray_embed_what_one_process_does_and_it_can_be_imported(
    digits_run: Run, pictures: Path, expected: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    ray = pytest.importorskip("ray", reason=NEEDS_RAY)
    words = ["--dataset", f"folder:{pictures}", "--out", str(tmp_path / "out"), "--shard", str(SHARD)]
    cli.main(["embed", str(digits_run.path), *words, "--workers", "2"])
    assert not ray.is_initialized()
    out = capsys.readouterr().out
    assert "40 pictures have features in" in out and "2 can't be read" in out
    features, items, skipped = (tmp_path / "out" / name for name in ("features.npy", "items.parquet", "skipped.csv"))
    assert_as_one_by_one(bulk.Merged(features, items, skipped, pictures, 40, 2), expected)

    monkeypatch.setattr(finish, "start_map", NoMaps)
    monkeypatch.setattr(imports, "MINED_STEPS", 2)
    line = out.splitlines()[-1].partition("pddm-lab ")[2].replace("NAME", "made").split()
    cli.main([*line, "--runs-root", str(tmp_path / "runs")])
    run = Run.open(tmp_path / "runs" / "made")
    assert run.status == "finished"
    gallery = run.gallery("unseen")
    np.testing.assert_allclose(gallery.features, np.load(features), atol=1e-6)
    assert gallery.items["class_name"].nunique() == 10
