"""How many searches a second the service answers, how long they take, and when a new class is found.

The load (load.py) comes from a process of its own, on cores of its own where there are any left; what the service's
processes compute is counted apart. The catalogue is a real one, of random features.
"""

from __future__ import annotations

import io
import json
import math
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import numpy as np
import pandas as pd
import psutil
from PIL import Image

from pddm_lab.bench.report import Log, Measure
from pddm_lab.bench.search import ITEMS_OF_A_CLASS, Features
from pddm_lab.bench.service.load import EDGE, form
from pddm_lab.bench.synthetic import draw_photos, make_run
from pddm_lab.errors import RunError
from pddm_lab.gallery.files import thumbnail, write_files
from pddm_lab.gallery.store import IndexChoice
from pddm_lab.runs.run import CATALOGUE, Run

PICTURES, ITEMS, NEW_CLASS, SLOWEST = 60, 400, 2.0, 150
"""Targets: searches a second by picture and by item, seconds until a new class is found, ms of the 99th percentile."""
SIDES = (512, 384)
"""Width and height of a searched photo, in pixels."""
_PHOTOS, _CLASSES, _WARM = 40, 5, 50
_START = 600  # seconds until the service must be ready


def measure(
    folder: Path, items: int, requests: int, pictures_rate: float, items_rate: float, workers: int, cores: int, log: Log
) -> list[Measure]:  # fmt: skip
    """Serve a catalogue and search it.

    Args:
        folder: for the benchmark's run, its photos and the service's log.
        items: in the catalogue.
        requests: searches by picture, and as many by item.
        pictures_rate, items_rate: searches a second that are sent.
        workers: processes of the service.
        cores: that the service uses; 0: all.
    """
    run = _run(folder, items, log)
    photos = _photos(folder)
    ids = [str(item) for item in run.gallery(CATALOGUE).items["id"].sample(min(items, 1000), random_state=0)]
    size = f"{items:,} items, {workers} workers, {_index(run)}"
    log("the service starts")
    with service(run, folder, workers, cores) as (server, port, seconds):
        measures = [Measure("from the start until ready", seconds, "s", over=size)]
        kinds: list[tuple[str, dict[str, Any], float, int]] = [
            ("picture", {"photos": [str(photo) for photo in photos]}, pictures_rate, PICTURES),
            ("item", {"ids": ids}, items_rate, ITEMS),
        ]
        for kind, of, rate, target in kinds:
            log(f"{requests:,} searches by {kind}, {rate:g} a second")
            plan: dict[str, Any] = of | {"port": port, "rate": rate}
            _load(plan | {"requests": min(_WARM, requests)}, cores)
            before = _seconds(server)
            loaded = _load(plan | {"requests": requests}, cores)
            measures += _report(kind, loaded, (_seconds(server) - before) / requests, rate, target, size, log)
        log("new classes")
        waits = [_new_class(port, number) for number in range(_CLASSES)]
    over = f"largest of {_CLASSES}, from the upload of its photo; median {statistics.median(waits):.2g} s"
    return [*measures, Measure("a new class is found after", max(waits), "s", NEW_CLASS, over)]


def _report(
    kind: str, loaded: dict[str, Any], cpu: float, rate: float, target: int, size: str, log: Log
) -> list[Measure]:  # fmt: skip
    times, errors = loaded["ms"], loaded["errors"]
    for error, count in errors.items():
        log(f"{count} errors: {error}")
    half, last = (float(np.percentile(times, share)) if times else math.nan for share in (50, 99))
    over = f"{rate:g} a second were sent, open loop; {size}"
    return [
        Measure(f"searches by {kind} a second", len(times) / loaded["seconds"], "", target, over, True),
        Measure(f"search by {kind}, median", half, "ms"),
        Measure(f"search by {kind}, 99th percentile", last, "ms", SLOWEST, f"of {len(times):,}"),
        Measure(f"searches by {kind} that failed", sum(errors.values()), "", 0, f"of {len(times):,}"),
        Measure(f"processor time of the service a search by {kind}", 1000 * cpu, "ms", over="all its processes"),
    ]


def _run(folder: Path, items: int, log: Log) -> Run:
    """The benchmark's run, with so many items in its catalogue; made where it is missing."""
    path = folder / "runs" / "bench"
    run = Run.open(path) if (path / "run.json").is_file() else make_run(folder, log)
    if CATALOGUE in run.galleries() and len(run.gallery(CATALOGUE)) == items:
        return run
    log(f"a catalogue of {items:,} items")
    labels = np.arange(items) // ITEMS_OF_A_CLASS
    thumbs = [thumbnail(Image.open(file)) for file in sorted((folder / "pictures").glob("class */*.jpg"))]
    table = pd.DataFrame({
        "id": [f"class {label:05d}/{row:07d}.jpg" for row, label in enumerate(labels)], "label": labels,
        "class_name": [f"class {label:05d}" for label in labels], "role": "both",
    })  # fmt: skip
    features = Features(items, run.config.dim).sample(labels, 3)
    write_files(
        run.path / "gallery" / CATALOGUE, CATALOGUE, features, table, lambda row: thumbs[row % len(thumbs)], {}, None
    )
    return run


def _index(run: Run) -> str:
    """Which index the service builds, which $PDDM_LAB_INDEX can choose."""
    gallery = run.gallery(CATALOGUE)
    return "flat index" if IndexChoice.of().flat(len(gallery)) else "inverted file"


def _photos(folder: Path) -> list[Path]:
    (folder / "photos").mkdir(exist_ok=True)
    return draw_photos(folder / "photos", _PHOTOS, *SIDES)


@contextmanager
def service(run: Run, folder: Path, workers: int, cores: int) -> Iterator[tuple[psutil.Process, int, float]]:
    """A service in processes of its own: its process, its port and the seconds until it was ready."""
    port, start = _free_port(), time.perf_counter()
    command = [sys.executable, "-m", "pddm_lab.cli", "serve", str(run.path), "--port", str(port), "--rate", "0"]
    with open(folder / "service.log", "wb") as log:
        server = psutil.Popen(
            [*command, "--workers", str(workers), "--at-once", "256"], stdout=log, stderr=log,
            preexec_fn=lambda: _stay_on(_cores(cores)),
        )  # fmt: skip
        try:
            while not _is_ready(port):
                if server.poll() is not None or time.perf_counter() - start > _START:
                    raise RunError(f"The service did not become ready: {folder / 'service.log'} says why.")
                time.sleep(0.2)
            yield server, port, time.perf_counter() - start
        finally:
            with suppress(psutil.NoSuchProcess):  # it has ended by itself
                server.terminate()
            server.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _is_ready(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/ready", timeout=60) as answer:
            return answer.status == 200
    except OSError:
        return False


def _cores(count: int) -> list[int]:
    """The first cores, so many; all of 0."""
    every = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return every[:count] if count else every


def _stay_on(cores: Sequence[int]) -> None:
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)


def _seconds(server: psutil.Process) -> float:
    """Processor time of a process and those it started."""
    every = [server, *server.children(recursive=True)]
    return sum(times.user + times.system for times in (one.cpu_times() for one in every))


def _load(plan: dict[str, Any], cores: int) -> dict[str, Any]:
    """Send requests from a process of its own, on cores that the service doesn't use where there are any."""
    others = sorted(set(_cores(0)) - set(_cores(cores)))
    command = [sys.executable, "-m", "pddm_lab.bench.service.load", json.dumps(plan)]
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=lambda: _stay_on(others))
    if done.returncode:
        raise RunError(f"The load ended with exit code {done.returncode}: {done.stderr.strip()[-1000:]}")
    return json.loads(done.stdout)


def _new_class(port: int, number: int) -> float:
    """Seconds from the upload of a new class's photo until a search has found it."""
    rng = np.random.default_rng(int(time.time()) + number)
    small = Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    small.resize(SIDES, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    name = f"new-{time.time_ns()}"
    start = time.perf_counter()
    fields = {"class_name": name}
    added = post(port, "/v1/items", form("pictures", f"{number}.jpg", buffer.getvalue(), fields))
    hits = post(port, "/v1/search?k=1", form("picture", "a.jpg", buffer.getvalue()))["hits"]
    seconds = time.perf_counter() - start
    if hits[0]["id"] != added["ids"][0]:
        raise RunError(f"The search after {name} was added did not find it, but {hits[0]['id']}.")
    return seconds


def post(port: int, path: str, body: bytes) -> dict[str, Any]:
    """Send a form to the service; its answer."""
    kind = {"Content-Type": f"multipart/form-data; boundary={EDGE}"}
    with urlopen(Request(f"http://127.0.0.1:{port}{path}", body, kind), timeout=120) as answer:
        return json.loads(answer.read())
