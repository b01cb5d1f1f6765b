"""Odd files, choices and pictures, made at random: whatever they hold, only the lab's own errors come out.

A few hundred of each kind in the normal tests; `make fuzz` tries 100,000.
"""

from __future__ import annotations

import copy
import io
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from pddm_lab.commands.runs import _run_row
from pddm_lab.config import TrainConfig, data_root, runs_root
from pddm_lab.data.images import open_image, verify, why_unreadable
from pddm_lab.errors import LabError, RunError
from pddm_lab.files import fingerprint
from pddm_lab.gallery.gallery import Gallery
from pddm_lab.metrics.separation import Distribution
from pddm_lab.runs.compare import BrokenRun, compare_runs, groups, list_runs, spread
from pddm_lab.runs.log import PHASES
from pddm_lab.runs.quadruplets import Mined
from pddm_lab.runs.run import Run
from pddm_lab.study.cells import Study, table
from pddm_lab.study.findings import Findings, Reading, progress

INPUTS = int(os.environ.get("PDDM_LAB_FUZZ_INPUTS", "0"))
"""Inputs of all tests here together; 0: a sample."""
_SHARE = {"json": 0.14, "bytes": 0.07, "table": 0.04, "config": 0.18, "image": 0.06}
_SAMPLE = {"json": 40, "bytes": 20, "table": 15, "config": 100, "image": 40}


def fuzz(kind: str, **strategies: Any) -> Callable:
    """Run a test with many inputs, the same in each run of a sample."""
    count = math.ceil(INPUTS * _SHARE[kind]) or _SAMPLE[kind]
    checks = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
    choices = settings(max_examples=count, deadline=None, derandomize=not INPUTS, database=None,
                       suppress_health_check=checks)  # fmt: skip
    return lambda test: choices(given(**strategies)(test))


_BIG = "a number of 5000 digits"
_ODD = st.one_of(
    st.sampled_from([
        None, True, False, -1, 0, 1, 7, 10**9, 2**31, 2**63, 2**64, 10**18, 10**400, 0.5, -0.5, 1e308, -1e308, 1e-320,
        math.nan, math.inf, -math.inf, "", "x", "0", "nan", "1e999", "\0", "a\0b", "\ud800", "../../x", "/", "x" * 9000,
        "~nobody/x", "2026-11-28", "0001-01-01T00:00:00+00:00", "9999-12-31T23:59:59-12:00", "running", "finished",
        "unseen", "euclidean", "pddm", "folder:", [], {}, [[]], [None], {"": None}, {"a": {"b": {"c": 1}}},
        {"euclidean": []}, _BIG,
    ]),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats()
        | st.text(st.characters(exclude_categories=()), max_size=9),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=5,
    ),
)  # fmt: skip


def places(value: Any, at: tuple = ()) -> Iterator[tuple]:
    """The place of every value inside a document."""
    yield at
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(inner, (*at, key))


@st.composite
def mutants(draw: st.DrawFn, document: Any) -> bytes:
    """A document in which one or two values are replaced, removed, or joined by another."""
    document = json.loads(json.dumps(document))
    for _ in range(draw(st.integers(1, 2))):
        *way, last = draw(st.sampled_from(list(places(document))[1:] or [(0,)]))
        odd = copy.deepcopy(draw(_ODD))  # the document that holds it is changed once more
        inside, how = document, draw(st.sampled_from(("replace", "replace", "remove", "add")))
        for key in way:
            inside = inside[key]
        if how == "replace":
            inside[last] = odd
        elif how == "remove":
            del inside[last]
        elif isinstance(inside, dict):
            inside[draw(st.sampled_from(["extra", "notes", "warnings", "", "place"]))] = odd
        else:
            inside.append(odd)
    return json.dumps(document).replace(f'"{_BIG}"', "9" * 5000).encode()


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """Bytes of which some are cut, overwritten or doubled."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        start, length = draw(st.integers(0, max(len(data) - 1, 0))), draw(st.integers(0, 40))
        how = draw(st.sampled_from(("cut", "end", "write", "write", "insert")))
        new = b"" if how == "cut" else draw(st.binary(min_size=1, max_size=8))
        data[
            start : None if how == "end" else start + (0 if how == "insert" else length if how == "cut" else len(new))
        ] = new
    return bytes(data)


def only_lab_errors(work: Callable[[], object]) -> bool:
    """Whether the work was done; a documented error is fine, any other fails the test."""
    try:
        work()
        return True
    except LabError as error:
        message = str(error)
        assert message.isprintable() or "\n" not in message
        message.encode()
        return False


def make_run(root: Path) -> Run:
    """A finished run as a training leaves it, without training one."""
    config = TrainConfig(dataset="digits", runs_root=str(root), run_name="odd", dim=8)
    info = {"name": "digits", "fingerprint": "ab", "items": 20, "classes": 4, "skipped": [{"name": "a", "reason": "b"}],
            "licence": "CC", "attribution": "", "root": str(root)}  # fmt: skip
    run = Run.create(config, info, "cpu", "32")
    for protocol in ("unseen", "known"):
        run.set_metrics(protocol, "pddm", {"recall@1": 0.5, "map@r": 0.25})
    run.log_metrics(1, "select", "train", "pddm", {"loss": 1.0, "lr": 0.1})
    ids = np.array([f"c/{n}.png" for n in range(8)], dtype=object)
    texts = dict(
        zip(("i", "j", "k", "l", "class_i", "class_k", "class_l"), ids.reshape(-1, 1).repeat(4, 1), strict=False)
    )
    values = {
        name: np.linspace(0, 1, 4) for name in ("s_ij", "s_ik", "s_jl", "d_ij", "d_ik", "d_jl", "slack_ik", "slack_jl")
    }
    run.log_quadruplets({"phase": "select", "step": np.arange(4), **texts, **values})
    run.flush()
    run.update(status="finished", phase="done", best_step=1)
    rng = np.random.default_rng(0)
    items = pd.DataFrame({"id": [f"c{n % 4}/{n}.png" for n in range(20)], "label": np.arange(20) % 4})
    items = items.assign(class_name=[f"c{n}" for n in items["label"]], role="both")
    bins = Distribution(np.linspace(0, 1, 5), np.arange(4), np.arange(4), 12, 12)
    gallery = run.path / "gallery" / "unseen"
    Gallery.write(
        gallery, "unseen", rng.normal(size=(20, 8)), items, lambda row: Image.new("RGB", (8, 8)), {"pddm": bins}
    )
    columns = {"id": items["id"], **{name: rng.random(20).astype("f4") for name in ("x", "y", "radius", "overlap")}}
    pd.DataFrame(columns).to_parquet(gallery / "map.parquet", index=False)
    manifest = json.loads((gallery / "manifest.json").read_text())
    manifest["map"] = {"method": "umap", "reason": "", "seed": 0}
    (gallery / "manifest.json").write_text(json.dumps(manifest))
    return run


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A healthy run, not to be changed."""
    return make_run(tmp_path_factory.mktemp("sound"))


@pytest.fixture(scope="module")
def odd(sound: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of it, in a root with a healthy neighbour; each input overwrites one of its files."""
    root = tmp_path_factory.mktemp("odd")
    for name in ("odd", "neighbour"):
        shutil.copytree(sound.path, root / name)
    return root / "odd"


def read_run(path: Path) -> None:
    """All that a list and a page read of a run's run.json."""
    run = Run.open(path)
    _ = run.status, run.reason, run.created.astimezone(), run.notes, run.protocols(), run.seconds, run.stop_requested()
    _run_row(run)
    compare_runs([run])
    spread(groups([run]))
    run.update(reason="")
    assert Run.open(path).info


def write_and_list(path: Path, content: bytes) -> None:
    (path / "run.json").write_bytes(content)
    readable = only_lab_errors(lambda: read_run(path))
    (path / "run.json").write_bytes(content)
    (row,) = [one for one in list_runs(path.parent) if one.path == path]
    assert isinstance(row, Run) == readable or readable is False
    for one in list_runs(path.parent):
        if isinstance(one, Run):
            _run_row(one)
    assert any(isinstance(one, Run) and one.name == "neighbour" for one in list_runs(path.parent))
    assert isinstance(row, Run) or str(path) in row.reason


@fuzz("json", data=st.data())
def test_an_odd_run_json_is_one_error_and_one_row(sound: Run, odd: Path, data: st.DataObject) -> None:
    write_and_list(odd, data.draw(mutants(json.loads((sound.path / "run.json").read_text()))))


@fuzz("bytes", data=st.data())
def test_a_damaged_run_json_is_one_error_and_one_row(sound: Run, odd: Path, data: st.DataObject) -> None:
    write_and_list(odd, data.draw(damaged((sound.path / "run.json").read_bytes())))


def read_gallery(path: Path) -> None:
    gallery = Gallery.open(path)
    for row in range(len(gallery)):
        gallery.thumb(row)
    _ = gallery.map, gallery.features.sum(), gallery.rows("query")
    for distribution in gallery.distributions.values():
        distribution.auc()
    gallery.index_of(str(gallery.items["id"].iloc[0]))
    gallery.search(gallery.features[:1], 5, exclude=0)


@fuzz("json", data=st.data())
def test_an_odd_manifest_is_an_error(sound: Run, odd: Path, data: st.DataObject) -> None:
    whole = (sound.path / "gallery" / "unseen" / "manifest.json").read_bytes()
    file = odd / "gallery" / "unseen" / "manifest.json"
    file.write_bytes(data.draw(st.one_of(mutants(json.loads(whole)), damaged(whole))))
    try:
        only_lab_errors(lambda: read_gallery(file.parent))
        only_lab_errors(lambda: Gallery.open(file.parent, verify=True))
    finally:
        file.write_bytes(whole)


_COLUMN = st.sampled_from(
    ["null", "text", "bytes", "float", "int", "nan", "huge", "list", "bool", "time", "coded", "one"]
)


def odd_column(kind: str, column: pa.ChunkedArray) -> pa.Array:
    """Values of another type, or other values of the same type, as many as a column has."""
    count = len(column)
    if kind == "one":  # one value becomes a null
        return pa.array([None, *column.to_pylist()[1:]], column.type)
    if kind == "coded":
        return column.combine_chunks().dictionary_encode()
    if kind == "bytes":  # text that isn't UTF-8
        return pa.Array.from_buffers(pa.string(), count, pa.array([b"\xff\xfe"] * count, pa.binary()).buffers())
    values = {"null": None, "text": "1", "float": 0.5, "int": -3, "nan": math.nan, "huge": 2**62, "list": [1],
              "bool": True, "time": pd.Timestamp(0)}  # fmt: skip
    return pa.array([values[kind]] * count)


@st.composite
def odd_tables(draw: st.DrawFn, file: Path) -> bytes:
    """A parquet file of which a column or its bytes differ."""
    if draw(st.booleans()):
        return draw(damaged(file.read_bytes()))
    content = pq.read_table(file)
    place = draw(st.integers(0, content.num_columns - 1))
    name, how = content.column_names[place], draw(st.sampled_from(("odd", "odd", "drop", "twice", "short")))
    if how == "odd":
        content = content.set_column(place, name, odd_column(draw(_COLUMN), content[name]))
    elif how == "drop":
        content = content.drop_columns(name)
    elif how == "twice":
        content = content.append_column(name, content[name])
    else:
        content = content.slice(draw(st.integers(0, len(content))), 1)
    buffer = io.BytesIO()
    pq.write_table(content, buffer)
    return buffer.getvalue()


@fuzz("table", data=st.data(), name=st.sampled_from(["items.parquet", "map.parquet", "distributions.parquet"]))
def test_an_odd_table_of_a_gallery_is_an_error(sound: Run, odd: Path, data: st.DataObject, name: str) -> None:
    healthy, gallery = sound.path / "gallery" / "unseen", odd / "gallery" / "unseen"
    manifest = json.loads((healthy / "manifest.json").read_text())
    (gallery / name).write_bytes(data.draw(odd_tables(healthy / name)))
    manifest["files"][name] = fingerprint(gallery / name)
    (gallery / "manifest.json").write_text(json.dumps(manifest))
    try:
        only_lab_errors(lambda: read_gallery(gallery))
    finally:
        shutil.copyfile(healthy / name, gallery / name)
        shutil.copyfile(healthy / "manifest.json", gallery / "manifest.json")


@fuzz("table", data=st.data(), name=st.sampled_from(["features.npy", "thumbs.npy"]))
def test_an_odd_array_of_a_gallery_is_an_error(sound: Run, odd: Path, data: st.DataObject, name: str) -> None:
    healthy, gallery = sound.path / "gallery" / "unseen", odd / "gallery" / "unseen"
    manifest = json.loads((healthy / "manifest.json").read_text())
    content = data.draw(damaged((healthy / name).read_bytes()))
    (gallery / name).unlink()  # a gallery that is open keeps its own
    (gallery / name).write_bytes(content)
    manifest["files"][name] = fingerprint(gallery / name)
    (gallery / "manifest.json").write_text(json.dumps(manifest))
    try:
        only_lab_errors(lambda: read_gallery(gallery))
    finally:
        (gallery / name).unlink()
        shutil.copyfile(healthy / name, gallery / name)
        shutil.copyfile(healthy / "manifest.json", gallery / "manifest.json")


def read_logs(path: Path) -> None:
    run = Run.open(path)
    only_lab_errors(run.metrics)
    only_lab_errors(run.quadruplets)
    mined = Mined.of(run.mined())
    for phase in mined.phases:
        mined.span(phase)
        rows = mined.pick(phase, item="c/1.png", only="violated")
        mined.frame(mined.ordered(rows, "violation"))
        mined.most_violated(mined.pick(phase), 3)
        mined.positives(mined.pick(phase))


@fuzz("table", data=st.data(), log=st.sampled_from(["metrics", "quadruplets"]))
def test_an_odd_log_is_an_error(sound: Run, odd: Path, data: st.DataObject, log: str) -> None:
    (whole,) = (sound.path / f"{log}.parquet").iterdir()
    file = odd / f"{log}.parquet" / whole.name
    file.write_bytes(data.draw(odd_tables(whole)))
    shutil.copyfile(sound.path / "run.json", odd / "run.json")
    try:
        only_lab_errors(lambda: read_logs(odd))
        only_lab_errors(lambda: Run.open(odd)._metrics.truncate_after(PHASES[0], 0))
    finally:
        shutil.copyfile(whole, file)


@fuzz("table", data=st.data(), name=st.sampled_from(["model.safetensors", "last.ckpt"]))
def test_a_damaged_model_or_checkpoint_is_an_error(sound: Run, odd: Path, data: st.DataObject, name: str) -> None:
    import torch

    if not (sound.path / name).is_file():
        shapes = {"learned.pddm.unit.x": torch.zeros(3, 4)}
        sound.save_model(shapes, {"step": 3, "config": {}})
        sound.save_checkpoint({"phase": "select", "step": 1, "best_step": 1, "best_value": -math.inf, "error": 0.0,
                               "model": shapes, "kept": shapes, "optimizer": {"state": {}}})  # fmt: skip
    (odd / name).write_bytes(data.draw(damaged((sound.path / name).read_bytes())))
    shutil.copyfile(sound.path / "run.json", odd / "run.json")
    run = Run.open(odd)
    only_lab_errors(run.load_checkpoint if name == "last.ckpt" else run.model_state)
    if name != "last.ckpt":
        only_lab_errors(run.model_metadata)


@fuzz("json", data=st.data())
def test_an_odd_study_is_an_error(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    shutil.rmtree(tmp_path_factory.getbasetemp() / "studies", ignore_errors=True)
    study = Study.create("odd", str(tmp_path_factory.getbasetemp() / "studies"))
    point = {"map@r": 0.5, "error": 0.1, "folds": [0.5]}
    shared: dict[str, Any] = {"dataset": "digits", "method": "pddm", "seed": 0, "settings": {"lr": 0.1}, "seconds": 1.0,
              "metrics": {"unseen": {"pddm": {"map@r": 0.5}}}}  # fmt: skip
    curve = [{"step": 1, "seconds": 0.1, "pddm": point}]
    chosen = {"chosen": {"step": 1, "similarity": "pddm", **point}}
    cells: dict[str, dict[str, Any]] = {"search-methods-digits-pddm-0": {"part": "search", "curve": curve} | chosen,
             "methods-digits-pddm-0": {"part": "methods", "curve": curve}}  # fmt: skip
    files: dict[Path, Any] = {
        study.path / "cells" / f"{key}.json": shared | cell | {"key": key} for key, cell in cells.items()
    }
    settings_of = {"methods": {"configurations": {"pddm": [{"lr": 0.1}]}}, "data": {"digits": {"items": 3}}}
    files[study.path / "study.json"] = study.info | {"settings": settings_of}
    broken = data.draw(st.sampled_from(sorted(files)))
    for file, content in files.items():
        text = json.dumps(content).encode()
        file.write_bytes(data.draw(mutants(content) | damaged(text)) if file == broken else text)

    def read() -> None:
        findings = Findings.of(Reading(study.path))
        progress(findings.study)
        for dataset in findings.datasets():
            for metric in findings.metrics(dataset):
                findings.results(dataset, "unseen", metric)

    only_lab_errors(read)
    only_lab_errors(lambda: table(study.path))


@fuzz("config", data=st.data())
def test_odd_choices_are_an_error(data: st.DataObject) -> None:
    names = st.sampled_from([*TrainConfig().to_dict(), "tempo", "", "lr_"])
    parameters = data.draw(st.dictionaries(names, _ODD, min_size=1, max_size=3))

    def use() -> None:
        config = TrainConfig.from_parameters(parameters)
        json.dumps(config.to_dict(), allow_nan=False).encode()
        _ = data_root(config.data_root).exists(), runs_root(config.runs_root).exists(), config.options_of_loss()
        _ = config.trained_by, config.notes.encode(), hash(config)

    only_lab_errors(use)


def _picture(mode: str, kind: str, **options: Any) -> bytes:
    rng, buffer = np.random.default_rng(0), io.BytesIO()
    values = rng.integers(0, 255, (12, 9, 3), dtype=np.uint8)
    image = Image.fromarray(values).convert("L" if mode == "I;16" else mode)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
    image.save(buffer, kind, **options)
    return buffer.getvalue()


_EXIF = Image.Exif()
_EXIF[0x0112] = 6
PICTURES = [
    _picture("RGB", "JPEG", exif=_EXIF), _picture("L", "JPEG"), _picture("CMYK", "JPEG"), _picture("RGB", "PNG"),
    _picture("RGBA", "PNG"), _picture("P", "PNG"), _picture("I;16", "PNG"), _picture("1", "PNG"), _picture("LA", "PNG"),
    _picture("F", "TIFF"), _picture("RGB", "WEBP"), _picture("P", "GIF"), _picture("RGB", "BMP"),
    _picture("RGB", "PPM"),
]  # fmt: skip


@fuzz("image", data=st.data())
def test_damaged_pictures_are_an_error(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    content = data.draw(damaged(data.draw(st.sampled_from(PICTURES))))
    file = tmp_path_factory.getbasetemp() / "odd.png"
    file.write_bytes(content)

    def read() -> None:
        image = verify(content)
        assert image.mode == "RGB" and np.asarray(image).shape[2] == 3
        open_image(file)

    only_lab_errors(read)
    assert isinstance(why_unreadable(file), str)


@pytest.mark.parametrize("name", ["~nobody-here/x", "a\0b", "x" * 300, "\udcff"])
def test_a_name_that_no_folder_has_is_an_error(name: str, tmp_path: Path) -> None:
    from pddm_lab.runs.compare import find_run

    with pytest.raises(RunError):
        find_run(name, tmp_path)


def test_a_folder_whose_name_is_no_text_is_one_row(sound: Run, tmp_path: Path) -> None:
    shutil.copytree(sound.path, tmp_path / "a\udcffb")
    (row,) = list_runs(tmp_path)
    assert isinstance(row, BrokenRun) and row.name == "a?b"
    row.reason.encode()
