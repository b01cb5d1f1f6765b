"""How fast pictures become features: the engine against torch in the same pipeline, an upload, and new items."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from pddm_lab.bench.report import Log, Measure
from pddm_lab.bench.synthetic import draw_photos, make_run
from pddm_lab.bench.timing import fastest
from pddm_lab.config import PRESETS, Device
from pddm_lab.data.images import verify
from pddm_lab.gallery.changes import add
from pddm_lab.model.engine import Engine
from pddm_lab.model.features import CENTRE, view_features
from pddm_lab.model.trunks import load_trunk
from pddm_lab.runs.model import ImageEmbedder, load_model
from pddm_lab.runs.new_items import to_add
from pddm_lab.runs.run import Run

SIDES = (500, 375)
"""Width and height of a photo, in pixels."""
_UPLOADED = (4000, 3000)
_UPLOADS = 9


def measure(photos: int, added: int, device: Device, log: Log) -> list[Measure]:
    """Measure bulk features, an upload and new items.

    Args:
        photos: photos in bulk, each in all views of the preset `quick`.
        added: photos that are added to a gallery.
        device: where torch computes the bulk features; OpenVINO is a processor's.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        log(f"{max(photos, added):,} photos of {SIDES[0]} x {SIDES[1]} pixels")
        (folder / "new" / "class").mkdir(parents=True)
        paths = draw_photos(folder / "new" / "class", max(photos, added), *SIDES)
        cuda = torch.cuda.is_available() if device == "auto" else device == "cuda"
        measures = _bulk(paths[:photos], torch.device("cuda" if cuda else "cpu"), log)
        for path in paths[added:]:
            path.unlink()
        run = make_run(folder, log)
        return [*measures, _upload(run, folder, log), _new_items(run, folder / "new", added, log)]


def _bulk(paths: list[Path], device: torch.device, log: Log) -> list[Measure]:
    """Photos per second from files to features, by the engine that is chosen and by torch, in turns."""
    config = PRESETS["quick"]
    trunk = load_trunk(config.trunk, "none")
    views = [[CENTRE, *((view, number) for view in range(1, config.views))] for number in range(len(paths))]

    def features(engine: Engine) -> Callable[[], object]:
        return lambda: sum(len(part) for part in view_features(engine, paths, views, resize=config.resize))

    measures = []
    for precision in ("32", "bf16"):
        log(f"{len(paths):,} photos in {config.views} views, {precision}")
        options: dict[str, Any] = {"size": config.image_size, "device": device, "precision": precision}
        chosen, by_torch = Engine(trunk, **options), Engine(trunk, **options, name="torch")
        chosen.start()
        works = {"torch": features(by_torch)} | ({"chosen": features(chosen)} if chosen.name != "torch" else {})
        rates = {name: len(paths) / seconds for name, seconds in fastest(works, rounds=2).items()}
        over = f"{config.views} views of {len(paths):,} photos, {config.image_size} px, best of 2"
        measures.append(Measure(f"photos/s, torch, {device}, {precision}", rates["torch"], "1/s", None, over))
        if "chosen" in rates:
            measures.append(Measure(f"photos/s, {chosen.name}, {precision}", rates["chosen"], "1/s", None, over))
            what = f"{chosen.name} / torch, {precision}"
            measures.append(Measure(what, rates["chosen"] / rates["torch"], "", 3, over, at_least=True))
    return measures


def _upload(run: Run, folder: Path, log: Log) -> Measure:
    """Seconds from the bytes of a picture to its results, with the model loaded."""
    log("uploads")
    content = draw_photos(folder, 1, *_UPLOADED)[0].read_bytes()
    embed, gallery, seconds = ImageEmbedder(run, load_model(run)), run.gallery("unseen"), []
    for _ in range(_UPLOADS + 1):
        start = time.perf_counter()
        feature = embed(verify(content, shorter=embed.shorter))
        gallery.search(feature[None], k=12)
        seconds.append(time.perf_counter() - start)
    over = f"median of {_UPLOADS}, a JPEG of {_UPLOADED[0]} x {_UPLOADED[1]} pixels"
    return Measure("upload to results, server", statistics.median(seconds[1:]), "s", 0.15, over)


def _new_items(run: Run, folder: Path, count: int, log: Log) -> Measure:
    """Seconds to add photos to a gallery, with loading the model."""
    log(f"{count:,} new items")
    gallery = run.gallery("unseen")
    start = time.perf_counter()
    add(gallery, to_add(run, gallery, folder).new)
    seconds = time.perf_counter() - start
    return Measure(f"gallery add of {count:,} photos", seconds, "s", 15 * count / 1000, "once, model loaded anew")
