"""Images to features in bulk: threads decode images and run the network; a frozen trunk's features are cached.

Each thread takes a part of the images through all stages, so that as many threads as cores are busy, and no thread
waits for another. A file is decoded once for all its views.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import joblib
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pddm_lab.data.augmentation import augment
from pddm_lab.data.by_content import ContentCache, content_hash
from pddm_lab.data.images import open_image
from pddm_lab.data.prepare import VIEW_ZOOM, cut, scale, side_to_read
from pddm_lab.errors import DataError
from pddm_lab.model.engine import Engine
from pddm_lab.model.trunks import weights_fingerprint
from pddm_lab.progress import Progress

INFERENCE_BATCH = 32
"""Images that a thread takes at once."""
CENTRE: tuple[int, ...] = (0,)
"""The view that is the centred crop; another one is (number, seeds ...)."""

Task = TypeVar("Task")
Result = TypeVar("Result")


class ImageFiles(Dataset[Tensor]):
    """Prepared images by position; the key (number, ..., position) gives a random view, seeded by the numbers."""

    def __init__(
        self, paths: Sequence[Path], resize: int, size: int, seed: int = 0, augmentation: str = "crops"
    ) -> None:
        self._paths, self._resize, self._size, self._seed = list(map(str, paths)), resize, size, seed
        self._augmentation = augmentation

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, key: int | tuple[int, ...]) -> UInt8[Tensor, "3 size size"]:
        *seeds, position = key if isinstance(key, tuple) else (key,)
        rng = np.random.default_rng([self._seed, *seeds]) if seeds else None
        path, shorter = Path(self._paths[position]), side_to_read(self._resize)
        return torch.from_numpy(_prepared(path, [(self._resize, rng)], self._size, shorter, self._augmentation)[0])


def _prepared(
    path: Path, crops: Sequence[tuple[int, np.random.Generator | None]], size: int, shorter: int,
    augmentation: str = "crops",
) -> UInt8[np.ndarray, "crops 3 size size"]:  # fmt: skip
    """Crops of an image file, which is read once, and scaled once for each shorter side, then cut as `prepare` does.

    Random ones are augmented.
    """
    try:
        image = open_image(path, shorter)
        scaled = {resize: scale(image, resize, size) for resize in {resize for resize, _ in crops}}
        views = [(cut(scaled[resize], size, rng), rng) for resize, rng in crops]
        return np.stack([view if rng is None else augment(view, augmentation, rng) for view, rng in views])
    except MemoryError as error:
        raise DataError(f"{path} needs more memory than is free: close other programs.") from error


def image_loader(images: ImageFiles, batches: Any, workers: int, device: torch.device) -> DataLoader[Tensor]:
    """Batches of prepared images, loaded by worker processes, into pinned memory for a GPU.

    Args:
        batches: iterable of lists of keys, one list per batch.
        workers: processes; -1 for `default_workers`.
        device: target of the batches.
    """
    workers = default_workers() if workers < 0 else workers
    return DataLoader(
        images, batch_sampler=batches, num_workers=workers, pin_memory=device.type == "cuda",
        prefetch_factor=4 if workers else None,
    )  # fmt: skip


def default_workers() -> int:
    """One process per core except one, at most 8."""
    return min(max(joblib.cpu_count() - 1, 1), 8)


def in_threads(work: Callable[[Task], Result], tasks: Iterable[Task], threads: int) -> Iterator[Result]:
    """Results of tasks in their order, worked on by threads that are at most a task each ahead of what is taken."""
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for task in tasks:
                waiting.append(pool.submit(work, task))
                if len(waiting) > 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def parts_of(count: int, threads: int) -> list[slice]:
    """Equal parts of a number of images for threads, with at most `INFERENCE_BATCH` images each."""
    step = max(1, min(INFERENCE_BATCH, -(-count // threads)))
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]


def view_features(
    engine: Engine, paths: Sequence[Path], views: Sequence[Sequence[tuple[int, ...]]], *, resize: int,
    progress: Progress | None = None, what: str = "images", augmentation: str = "crops",
) -> Iterator[list[Float[np.ndarray, "views dim"]]]:  # fmt: skip
    """Features of views of image files, some files at a time, so that the caller can keep them if it is stopped.

    Args:
        paths: of the images.
        views: of each image: `CENTRE`, or numbers that seed a random crop and mirror of the image scaled up by
            `VIEW_ZOOM`.
        resize: shorter side before the centred crop, in pixels.
        progress: called as images are done.
        what: name of the work for `progress`.
        augmentation: of the random views, see `augment`.

    Yields:
        One array an image, in their order.

    Raises:
        DataError: an image can no longer be read.
    """
    engine.start()

    def work(part: slice) -> list[np.ndarray]:
        crops = []
        for path, of_image in zip(paths[part], views[part], strict=True):
            rngs = [None if view == CENTRE else np.random.default_rng([0, *view]) for view in of_image]
            sides = [resize if rng is None else round(resize * VIEW_ZOOM) for rng in rngs]
            both = list(zip(sides, rngs, strict=True))
            crops.append(_prepared(path, both, engine.size, side_to_read(resize), augmentation))
        ends = np.cumsum([len(one) for one in crops])
        return np.split(engine(np.concatenate(crops)), ends[:-1])

    done = 0
    for features in in_threads(work, parts_of(len(paths), engine.threads), engine.threads):
        yield features
        done += len(features)
        if progress:
            progress(done, len(paths), what)


def file_features(
    engine: Engine, paths: Sequence[Path], *, resize: int, progress: Progress | None = None, what: str = "embedding"
) -> Float[np.ndarray, "images dim"]:
    """Features of the centred crops of image files; arguments and errors as for `view_features`."""
    parts = view_features(engine, paths, [[CENTRE]] * len(paths), resize=resize, progress=progress, what=what)
    features = [one for part in parts for one in part]
    return np.concatenate(features) if features else np.empty((0, engine.trunk.dim), np.float32)


def trunk_features(
    engine: Engine, paths: Sequence[Path], folder: Path, *, resize: int, progress: Progress | None = None,
    views: Mapping[int, Sequence[int] | np.ndarray] | None = None, augmentation: str = "crops",
) -> dict[int, Float[np.ndarray, "images dim"]]:  # fmt: skip
    """Features of a frozen trunk, cached by the content of the files.

    Args:
        engine: of the trunk.
        paths: of the images.
        folder: of the cache: one file per trunk, weights, size, engine, precision, view and augmentation.
        resize: shorter side before the centred crop, in pixels.
        progress: called as images are done; if it raises, the features computed so far are kept.
        views: view -> positions of the images whose features to return; 0 is the centred crop; 1, 2, ... are random
            crops with a mirror. None: the centred crop of all images.
        augmentation: of the random crops, see `augment`.

    Returns:
        view -> features (images of the view, dim) float32.
    """
    views = {0: range(len(paths))} if views is None else views
    with ThreadPoolExecutor() as pool:
        contents = list(pool.map(content_hash, paths))
    caches = {view: _cache(folder, engine, resize, view, augmentation if view else "crops") for view in views}
    missing: dict[bytes, list[int]] = {}
    path_of = dict(zip(contents, paths, strict=True))
    for view, positions in views.items():
        for content in dict.fromkeys(contents[position] for position in positions):
            if content not in caches[view]:
                missing.setdefault(content, []).append(view)
    if missing:
        planned = engine.name
        engine.start()
        if engine.name != planned:  # its features have other files
            again: dict[str, Any] = {"resize": resize, "progress": progress, "views": views}
            return trunk_features(engine, paths, folder, **again, augmentation=augmentation)
        # The content seeds the crops, so that they don't depend on the other images.
        seeds = [
            [(view, int.from_bytes(content[:8], "big")) if view else CENTRE for view in of_content]
            for content, of_content in missing.items()
        ]
        todo, files = iter(missing.items()), [path_of[content] for content in missing]
        try:
            options: dict[str, Any] = {"what": "trunk features", "augmentation": augmentation}
            for part in view_features(engine, files, seeds, resize=resize, progress=progress, **options):
                for features in part:
                    content, of_content = next(todo)
                    for view, row in zip(of_content, features, strict=True):
                        caches[view].add(content, row)
        finally:  # keep what is done, even if the training is stopped here
            for cache in caches.values():
                cache.write()
    return {view: caches[view].of([contents[at] for at in positions]) for view, positions in views.items()}


def _cache(folder: Path, engine: Engine, resize: int, view: int, augmentation: str) -> ContentCache:
    """Features of one view by the content of the file."""
    name = f"{weights_fingerprint(engine.trunk)}-{resize}-{engine.size}-{engine.name}-{engine.precision}-{view}"
    name += "" if augmentation == "crops" else f"-{augmentation}"
    return ContentCache(folder / f"{name}.safetensors", "features", (engine.trunk.dim,), np.float32)
