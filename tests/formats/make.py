"""Make a small packed run, from which tests/test_formats.py sees that runs of its format can be read.

    python tests/formats/make.py tests/formats/2.zip              # trains a run of today's format on some digits
    python tests/formats/make.py tests/formats/1-first.zip RUN    # of a run that an earlier version trained

Weights of pretrained networks become zeros, which pack well, histograms keep their first bins, and paths of this
machine become others. All else stays as it was written.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
import zipfile
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import save_file

sys.path.insert(0, str(Path(__file__).parents[1]))
from digit_pictures import write_digits
from run_shape import shape

from pddm_lab.analysis.saved_queries import save
from pddm_lab.config import TrainConfig
from pddm_lab.files import fingerprint
from pddm_lab.gallery import changes
from pddm_lab.gallery.files import file_name
from pddm_lab.gallery.umap_layout import write_map
from pddm_lab.local import episodes, fit
from pddm_lab.runs import pack
from pddm_lab.runs.local import load_local
from pddm_lab.runs.new_items import to_add
from pddm_lab.runs.run import Run
from pddm_lab.runs.schema import FORMAT
from pddm_lab.runs.versions import model_stamp
from pddm_lab.training.trainer import train

EACH, BINS = 6, 20
CHOICES = {
    "preset": "lab", "image_size": 32, "resize": 32, "views": 1, "dim": 8, "unit_hidden": 8, "steps": 4,
    "eval_every": 2, "classes_per_batch": 3, "images_per_class": 2, "device": "cpu", "run_name": "digits",
}  # fmt: skip


def of_today(folder: Path) -> Run:
    """A run of today's format, with a class that was added to its catalogue, an item removed, and saved queries."""
    pictures = write_digits(folder / "digits", EACH)
    roots = {"dataset": f"folder:{pictures}", "data_root": str(folder), "runs_root": str(folder / "runs")}
    with patch.object(fit, "STEPS", 10), patch.object(episodes, "PAIRS", 500):
        run = train(TrainConfig.from_parameters(CHOICES | roots), progress=False)
    new = folder / "new" / "a new class"
    new.mkdir(parents=True)
    for number in range(3):
        Image.new("RGB", (32, 32), (80 * number, 0, 200)).save(new / f"{number}.png")
    catalogue, local = run.gallery("catalogue"), load_local(run)
    assert local is not None
    save(catalogue, 10)
    made = to_add(run, catalogue, folder / "new").new
    made = dataclasses.replace(made, pictures=[Path("/pictures") / item for item in made.items["id"]])
    after = changes.add(catalogue, made, local.structure, "a test")
    changes.remove(after, [after.items["id"].iloc[0]], local.structure, "another test")
    return run


def shrink(run: Run) -> None:
    """Zero the weights of pretrained networks, and forget where the run was made."""
    roots = {"dataset": "folder:digits", "data_root": "", "runs_root": "", "run_name": "digits"}
    for file in run.path.glob("*.safetensors"):
        with safe_open(file, framework="np") as opened:
            metadata = opened.metadata()
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a dict
        large = {
            name: np.zeros_like(value) for name, value in tensors.items() if ".trunk." in name or "pretrained" in name
        }
        if "config" in metadata:
            metadata["config"] = json.dumps(json.loads(metadata["config"]) | roots)
        save_file(tensors | large, file, metadata)
    info = run.info | {"host": "", "pid": 0, "config": run.info["config"] | roots}
    info["dataset"] |= {"root": "digits", "name": "folder:digits"}
    (run.path / "run.json").write_text(json.dumps(info, indent=1))


def shorten(gallery: Path, stamp: str) -> None:
    """Keep the first bins of its histograms, which take most of a small gallery, and stamp its vectors anew."""
    manifest = json.loads((gallery / "manifest.json").read_text())
    if manifest.get("model"):
        manifest["model"] = stamp
    file = gallery / file_name(manifest, "distributions.parquet")
    pd.read_parquet(file).groupby("similarity", sort=False).head(BINS).to_parquet(file, index=False)
    manifest["files"][file.name] = fingerprint(file)
    (gallery / "manifest.json").write_text(json.dumps(manifest, indent=1))


def main(out: Path, of: str = "") -> None:
    """Write the fixture."""
    with tempfile.TemporaryDirectory() as folder:
        run = Run.open(of) if of else of_today(Path(folder))
        if "catalogue" in run.galleries():
            write_map(run.gallery("catalogue").path)
        shrink(run)
        for name in run.galleries():
            shorten(run.path / "gallery" / name, model_stamp(run.path))
        small = lambda file: zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=9)  # noqa: E731
        with patch.object(pack, "_new_zip", small):
            pack.pack(Run.open(run.path), out)
        if not of:
            written = {"format": FORMAT, **shape()}
            (out.parent / "shape.json").write_text(json.dumps(written, indent=1) + "\n")
        print(f"{out}: {out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:3])
