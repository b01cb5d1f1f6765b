"""Write a run's model as an export, after its graphs were compared with torch."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image

import pddm_lab
from pddm_lab.data.images import open_image
from pddm_lab.data.prepare import prepare, side_to_read
from pddm_lab.errors import ConfigError, DataError, LabError, RunError
from pddm_lab.export.engines import load_graph
from pddm_lab.export.folder import CONTENT, FEATURES, ITEMS, embed_in_parts
from pddm_lab.export.graphs import Graphs, as_executorch, as_onnx, torch_features
from pddm_lab.export.local import NEIGHBOURHOODS, WEIGHTS
from pddm_lab.export.schema import EMBEDDING, ENDINGS, KINDS, SCORE
from pddm_lab.files import TEMPORARY, fingerprint, plain, replacing, write_tensors, writing
from pddm_lab.local.store import save
from pddm_lab.progress import Progress
from pddm_lab.runs.local import load_local
from pddm_lab.runs.model import load_model
from pddm_lab.runs.run import Run

if TYPE_CHECKING:
    import onnx

    from pddm_lab.gallery.gallery import Gallery
    from pddm_lab.local.unit import LocalStructure

BATCHES = (1, 2, 7, 32)
"""Sizes of the batches that are compared with torch."""
TOLERANCE = {"32": 1e-4, "fp16": 1e-2, "int8": 0.1}
"""Largest difference from torch of a score, as a share of the deviation of the scores, and of a value of a feature. In
fewer bits it is 1 minus the mean cosine of the features: where they are square roots, a value near 0 may jump."""
CALIBRATION = 256
"""Pictures that give the ranges of values for int8."""
_GRAPH_FILES = [name + end for ends in ENDINGS.values() for end in ends for name in (EMBEDDING, SCORE)]
_NAMES = [FEATURES, ITEMS, WEIGHTS, NEIGHBOURHOODS, *_GRAPH_FILES]
_WORK = ("tracing the model", "fewer bits", "comparing with torch", "gallery")


@dataclass(frozen=True)
class Made:
    """The graphs of one format and precision, in a folder of their own, and how far they are from torch."""

    folder: Path
    features: float
    """As in `AgreementContent`."""
    scores: float


def export_run(
    run: Run, out: Path, engine: str = "onnx", precision: str = "32", protocol: str = "unseen",
    progress: Progress | None = None,
) -> Path:  # fmt: skip
    """Write an export; it replaces one that is there.

    Args:
        run: a finished run.
        out: folder to write.
        engine: onnx, openvino or executorch.
        precision: 32, fp16 or int8; with executorch 32.
        protocol: gallery whose searched items are copied; empty: none.
        progress: called before each part of the work.

    Raises:
        ConfigError: executorch in fewer than 32 bits.
        RunError: the run has no model or no such gallery, there are no pictures to calibrate int8 with, or the folder
            holds something else.
        LabError: the graphs differ from torch by more than `TOLERANCE`.
    """
    if out.exists() and not _may_replace(out):
        raise RunError(f"{out} exists and is no export: name another folder with --out.")
    if (engine, precision) not in KINDS:
        raise ConfigError(f"--format {engine} is written in 32 bits only, got --precision {precision}.")
    items = run.gallery(protocol) if protocol else None
    report = progress or (lambda *_: None)
    report(0, len(_WORK), _WORK[0])
    config = run.config
    local = load_local(run) if items is not None else None
    graphs = Graphs(load_model(run), config.similarity, config.image_size, None if local is None else local.part)
    with tempfile.TemporaryDirectory() as temporary, writing(Path(temporary)):
        ((_, made),) = make(
            run, graphs, [(engine, precision)], Path(temporary), lambda n: report(n, len(_WORK), _WORK[n])
        )
        report(3, len(_WORK), _WORK[3])
        with writing(out):
            out.mkdir(parents=True, exist_ok=True)
            (out / CONTENT).unlink(missing_ok=True)  # it is written last: if it is there, the export is complete
            for name in (*_NAMES, *(file.name for file in out.iterdir() if TEMPORARY.fullmatch(file.name))):
                (out / name).unlink(missing_ok=True)
        model_bytes = 0
        for file in made.folder.iterdir():
            with replacing(out / file.name) as target:
                model_bytes += target.write_bytes(file.read_bytes())
    if items is not None:
        rows = items.rows("gallery")
        with replacing(out / FEATURES) as target, open(target, "wb") as opened:
            np.save(opened, items.features[rows])
        with replacing(out / ITEMS) as target:
            items.items.iloc[rows][["id", "label", "class_name"]].to_parquet(target, index=False)
        if local is not None:
            _write_local(local.structure, items, out)
    content = {
        "format": 1, "run": run.name, "lab": pddm_lab.__version__, "engine": engine, "precision": precision,
        "image": {"resize": config.resize, "side": config.image_size}, "dim": graphs.dim,
        "pretrained_dim": graphs.pretrained_dim, "local": local is not None,
        "similarity": config.similarity, "parameters": graphs.parameters_count, "model_bytes": model_bytes,
        "agreement": {"features": made.features, "scores": made.scores}, "gallery": protocol,
        "files": {name: fingerprint(out / name) for name in sorted(_NAMES) if (out / name).is_file()},
    }  # fmt: skip
    with replacing(out / CONTENT) as target:
        target.write_text(json.dumps(plain(content), indent=1, ensure_ascii=False), encoding="utf-8")
    report(len(_WORK), len(_WORK), _WORK[3])
    return out


def _may_replace(out: Path) -> bool:
    """Whether a folder is empty, has an export, or nothing but the files of one that broke off: graphs come first."""
    if not out.is_dir() or (out / CONTENT).is_file():
        return out.is_dir()
    names = {file.name for file in out.iterdir() if not TEMPORARY.fullmatch(file.name)}
    return not names or (names <= set(_NAMES) and bool(names & set(_GRAPH_FILES)))


def _write_local(structure: LocalStructure, gallery: Gallery, out: Path) -> None:
    """The files of `ExportedLocal`: weights, and the neighbourhoods of the searched items, none of them stale."""
    reference = gallery.reference(structure)
    reference = reference.refreshed() if reference.stale else reference
    chosen = {"weight": structure.weight, "passes": 1 if reference.neighbourhoods.second is None else 2}
    write_tensors(out / WEIGHTS, structure.state_dict(), chosen)
    with replacing(out / NEIGHBOURHOODS) as target:
        save(reference.neighbourhoods, target)


def make(
    run: Run, graphs: Graphs, kinds: list[tuple[str, str]], folder: Path, report: Callable[[int], object]
) -> Iterator[tuple[tuple[str, str], Made]]:
    """The graphs in formats and precisions, each compared with torch.

    Args:
        run: whose pictures they are compared with, and calibrated with.
        graphs: of the run.
        kinds: format and precision of each.
        folder: gets a folder for each.
        report: called with 1 before bits are saved and with 2 before they are compared.
    """
    eight = any(precision == "int8" for _, precision in kinds)
    pictures = run_pictures(run, CALIBRATION + sum(BATCHES) if eight else sum(BATCHES), originals=eight)
    tested = np.resize(pictures, (sum(BATCHES), *pictures.shape[1:]))  # repeated, if there are fewer
    calibration = pictures[sum(BATCHES) :] if len(pictures) > sum(BATCHES) else pictures
    expected = torch_features(graphs, torch.from_numpy(tested)).numpy()
    exact = as_onnx(graphs) if any(engine != "executorch" for engine, _ in kinds) else {}
    reduced: dict[str, dict[str, onnx.ModelProto]] = {}
    for engine, precision in kinds:
        report(1)
        place = folder / f"{engine}-{precision}"
        place.mkdir()
        if engine == "executorch":
            for name, program in as_executorch(graphs).items():
                (place / f"{name}.pte").write_bytes(program)
        else:
            if precision not in reduced:
                reduced[precision] = _in_precision(exact, precision, calibration, tested, expected)
            for name, model in reduced[precision].items():
                _save(model, place / name, engine, precision)
        report(2)
        yield (engine, precision), _compared(place, engine, precision, graphs, tested, expected)


def run_pictures(run: Run, count: int, originals: bool = False) -> UInt8[np.ndarray, "n 3 side side"]:
    """Some of a run's pictures as its network sees them, chosen by a seed among the items of its galleries.

    Args:
        run: with galleries.
        count: how many; fewer if there are fewer.
        originals: take no thumbnail where the picture itself is not on this machine.

    Raises:
        RunError: there are none.
    """
    root, prepared = Path(run.info["dataset"].get("root") or ".").resolve(), []
    shorter = side_to_read(run.config.resize)
    chosen = [
        (gallery, row) for name in run.protocols() for gallery in [run.gallery(name)] for row in range(len(gallery))
    ]
    for place in np.random.default_rng(0).permutation(len(chosen)):
        gallery, row = chosen[place]
        file = (root / gallery.items["id"].iloc[row]).resolve()
        try:  # an id comes from a file, so it must not lead out of the data set's folder
            picture = open_image(file, shorter) if file.is_relative_to(root) and file.is_file() else None
        except DataError:
            picture = None
        if picture is None and not originals:
            picture = Image.open(BytesIO(gallery.thumb(row)), formats=["JPEG"]).convert("RGB")
        if picture is not None:
            prepared.append(prepare(picture, run.config.resize, run.config.image_size))
        if len(prepared) == count:
            break
    if not prepared:
        raise RunError(f"{run.name} has no pictures to calibrate with: expected its data set in {root}.")
    return np.stack(prepared)


def _in_precision(
    exact: dict[str, onnx.ModelProto], precision: str, calibration: np.ndarray, tested: np.ndarray, expected: np.ndarray
) -> dict[str, onnx.ModelProto]:
    """The graphs as `_save` takes them; of int8, the better of both kinds of scales. The score isn't quantised."""
    if precision != "int8":
        return exact
    from pddm_lab.export.precision import quantised

    agreements = []
    for model in quantised(exact[EMBEDDING], calibration):
        with tempfile.TemporaryDirectory() as temporary:
            _save(model, Path(temporary) / EMBEDDING, "onnx", precision)
            features = embed_in_parts(load_graph(Path(temporary) / f"{EMBEDDING}.onnx"), tested)
        agreements.append((_cosine(features, expected), model))
    return exact | {EMBEDDING: max(agreements, key=lambda pair: pair[0])[1]}


def _save(model: onnx.ModelProto, path: Path, engine: str, precision: str) -> None:
    """Write a graph; its weights in 32 bits get 16 where fewer bits are wanted."""
    import onnx

    if engine == "onnx":
        from pddm_lab.export.precision import with_half_weights

        onnx.save(model if precision == "32" else with_half_weights(model), path.with_suffix(".onnx"))
        return
    import openvino

    with tempfile.TemporaryDirectory() as temporary:
        source = Path(temporary) / "source.onnx"
        onnx.save(model, source)
        openvino.save_model(
            openvino.convert_model(source), path.with_suffix(".xml"), compress_to_fp16=precision != "32"
        )


def _compared(
    folder: Path, engine: str, precision: str, graphs: Graphs, tested: np.ndarray, expected: Float[np.ndarray, "n dim"]
) -> Made:
    """Raise LabError unless the graphs agree with torch at every size of a batch."""
    embedding, score = (load_graph(folder / (name + ENDINGS[engine][0])) for name in (EMBEDDING, SCORE))
    parts = [slice(end - size, end) for size, end in zip(BATCHES, np.cumsum(BATCHES), strict=True)]
    features = np.concatenate([embedding(tested[part]) for part in parts])
    of_features = float(np.abs(features - expected).max()) if precision == "32" else 1 - _cosine(features, expected)
    a, b = (rows[:, : graphs.dim] for rows in (expected, np.roll(expected, 1, axis=0)))
    wanted = graphs.score(torch.from_numpy(a), torch.from_numpy(b)).numpy()
    scores = np.concatenate([score(a[part], b[part]) for part in parts])
    made = Made(folder, of_features, float(np.abs(scores - wanted).max() / max(wanted.std(), 1e-6)))
    for what, difference in (("features", made.features), ("scores", made.scores)):
        if not difference <= TOLERANCE[precision]:
            raise LabError(
                f"The {what} of the export differ from torch's by {difference:.2g}, expected at most "
                f"{TOLERANCE[precision]:g}: nothing was written. Export it in more bits, or in another format."
            )
    return made


def _cosine(features: Float[np.ndarray, "n both"], expected: Float[np.ndarray, "n both"]) -> float:
    """Mean cosine of rows; both parts of a row, if it has two, count the same."""
    norms = np.linalg.norm(features, axis=1) * np.linalg.norm(expected, axis=1)
    return float(((features * expected).sum(1) / norms).mean())
