"""Images to features in bulk: images are decoded while the network runs; a frozen trunk's features are cached."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from pddm_lab.data.images import open_image
from pddm_lab.data.prepare import prepare
from pddm_lab.errors import DataError
from pddm_lab.files import write_file
from pddm_lab.model.trunks import Trunk, fuse_batch_norms, weights_fingerprint
from pddm_lab.progress import Progress

INFERENCE_BATCH = 32
VIEW_ZOOM = 9 / 8
"""Factor that an image is scaled up by before a random crop, for views of a frozen trunk."""
AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


class ImageFiles(Dataset[Tensor]):
    """Prepared images by position; the key (number, ..., position) gives a random crop, seeded by the numbers."""

    def __init__(self, paths: Sequence[Path], resize: int, size: int, seed: int = 0) -> None:
        self._paths, self._resize, self._size, self._seed = list(map(str, paths)), resize, size, seed

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, key: int | tuple[int, ...]) -> UInt8[Tensor, "3 size size"]:
        *seeds, position = key if isinstance(key, tuple) else (key,)
        rng = np.random.default_rng([self._seed, *seeds]) if seeds else None
        path = self._paths[position]
        try:
            return torch.from_numpy(prepare(open_image(path), self._resize, self._size, rng))
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


def run_network(network: nn.Module, paths: Sequence[Path], **options: Any) -> Float[np.ndarray, "images dim"]:
    """Outputs of a network for image files, (images, dim) float32, in order; arguments as for `network_outputs`.

    Raises:
        DataError: an image can no longer be read.
    """
    outputs = list(network_outputs(network, paths, **options))
    return np.concatenate(outputs) if outputs else np.empty((0, 0), np.float32)


@torch.inference_mode()
def network_outputs(
    network: nn.Module, paths: Sequence[Path], *, resize: int, size: int, device: torch.device, precision: str = "32",
    workers: int = -1, progress: Progress | None = None, what: str = "images",
    crops: Sequence[tuple[int, ...]] | None = None,
) -> Iterator[Float[np.ndarray, "batch dim"]]:  # fmt: skip
    """Outputs of a network for image files, batch by batch, so that the caller can keep them if it is stopped.

    Args:
        network: takes uint8 images (n, 3, size, size); in evaluation mode.
        resize: shorter side before the crop, in pixels.
        size: side of the crop, in pixels.
        precision: 32, bf16 or fp16.
        workers: processes that load images.
        progress: called after each batch.
        what: name of the work for `progress`.
        crops: numbers that seed each image's random crop and mirror; None for the centre.
    """
    of_image = range(len(paths)) if crops is None else [(*crop, n) for n, crop in enumerate(crops)]
    keys = [of_image[start : start + INFERENCE_BATCH] for start in range(0, len(paths), INFERENCE_BATCH)]
    done = 0
    for images in image_loader(ImageFiles(paths, resize, size), keys, workers if len(keys) > 2 else 0, device):
        with torch.autocast(device.type, AUTOCAST.get(precision), enabled=precision in AUTOCAST):
            output = network(images.to(device, non_blocking=True)).float().cpu().numpy()
        yield output
        done += len(images)
        if progress:
            progress(done, len(paths), what)


def trunk_features(
    trunk: Trunk, paths: Sequence[Path], folder: Path, *, resize: int, size: int, device: torch.device,
    precision: str = "32", workers: int = -1, progress: Progress | None = None, view: int = 0,
) -> Float[np.ndarray, "images trunk_dim"]:  # fmt: skip
    """Features of a frozen trunk, (images, trunk.dim) float32, cached by the content of the files.

    Args:
        paths, resize, size, device, precision, workers: as for `network_outputs`.
        folder: of the cache: one file per trunk, weights, size, precision and view.
        progress: called as images are done; if it raises, the features computed so far are kept.
        view: 0 for the centred crop; 1, 2, ... for random crops with a mirror, from images scaled up by `VIEW_ZOOM`.
    """
    from safetensors.numpy import load_file, save

    with ThreadPoolExecutor() as pool:
        wanted = list(pool.map(_content_hash, paths))
    file = folder / f"{weights_fingerprint(trunk)}-{resize}-{size}-{precision}-{view}.safetensors"
    kept: dict[str, np.ndarray] = {}
    try:
        kept = load_file(file)
    except FileNotFoundError:
        pass
    except Exception:  # damaged: compute the features again
        file.unlink(missing_ok=True)
    hashes = kept.get("hashes", np.empty((0, 16), np.uint8))
    features = kept.get("features", np.empty((0, trunk.dim), np.float32))
    row_of = {row.tobytes(): number for number, row in enumerate(hashes)}
    missing = {content: path for content, path in zip(wanted, paths, strict=True) if content not in row_of}
    if missing:
        # The content seeds the crops, so that they don't depend on the other images.
        crops = [(view, int.from_bytes(content[:8], "big")) for content in missing] if view else None
        row_of |= {content: len(features) + number for number, content in enumerate(missing)}
        parts = [features]
        try:
            for output in network_outputs(
                fuse_batch_norms(trunk).to(device), list(missing.values()),
                resize=round(resize * VIEW_ZOOM) if view else resize, size=size, device=device, precision=precision,
                workers=workers, progress=progress, what="trunk features", crops=crops,
            ):  # fmt: skip
                parts.append(output)
        finally:  # keep what is done, even if the training is stopped here
            features = np.concatenate(parts)
            contents = np.frombuffer(b"".join(missing), np.uint8).reshape(-1, 16)
            hashes = np.concatenate([hashes, contents])[: len(features)]
            folder.mkdir(parents=True, exist_ok=True)
            write_file(file, save({"hashes": hashes, "features": features}))
    return features[[row_of[content] for content in wanted]]


def _content_hash(path: Path) -> bytes:
    return hashlib.blake2b(path.read_bytes(), digest_size=16).digest()
