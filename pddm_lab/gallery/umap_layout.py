"""Maps: a gallery's features laid out in two dimensions by UMAP, drawn once and stored as coordinates.

`start_map` draws in a process of its own: importing UMAP compiles for some 12 seconds, which other work can overlap.
A gallery too small or too uniform for UMAP gets the two principal components instead, and its manifest says why.

A map can't keep every neighbourhood. How far it did is stored with it, item by item: `overlap`, the share of the item's
nearest others by features that are its nearest others on the map too.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from pddm_lab.errors import RunError
from pddm_lab.files import replacing
from pddm_lab.gallery.files import fingerprint, map_array, read_items, read_manifest, write_manifest
from pddm_lab.metrics.density import nearest, radius_from, shared

NEIGHBOURS = 15
"""Neighbours that UMAP joins, and that `overlap` compares."""
SEED = 0

_FEW_ITEMS = 5
_FAST_EPOCHS = 200  # less than UMAP's own 500 up to 10 000 items: half the time, and the layout has settled


def write_map(path: str | Path) -> str:
    """Draw the map of a gallery: map.parquet with id, x, y, radius, overlap, and how it was drawn in the manifest.

    Args:
        path: the gallery's folder.

    Returns:
        "umap" or "pca".

    Raises:
        RunError: no complete gallery there.
    """
    path = Path(path)
    manifest = read_manifest(path)
    items, places_of = read_items(path, manifest)
    features = map_array(path / "features.npy", manifest["files"]["features.npy"]["bytes"])
    features = np.array(features if places_of is None else features[places_of])
    neighbours = nearest(features, NEIGHBOURS)
    places, method, reason = _lay_out(features, *neighbours)
    radius, overlap = trust(places, *neighbours)
    with replacing(path / "map.parquet") as temporary:
        columns = {"id": items["id"], "x": places[:, 0], "y": places[:, 1], "radius": radius, "overlap": overlap}
        pd.DataFrame(columns).to_parquet(temporary, index=False)
    manifest["map"] = {"method": method, "reason": reason, "seed": SEED}
    manifest["files"]["map.parquet"] = fingerprint(path / "map.parquet")
    write_manifest(path, manifest)
    return method


def trust(
    places: Float[np.ndarray, "items 2"],
    distances: Float[np.ndarray, "rows neighbours"],
    neighbours: Int[np.ndarray, "rows neighbours"],
    rows: Int[np.ndarray, " rows"] | None = None,
) -> tuple[Float[np.ndarray, " rows"], Float[np.ndarray, " rows"]]:
    """How dense the place of each item is among the features, and how far the map kept its neighbourhood.

    Args:
        places: of all items on the map.
        distances: to the nearest others by features, as `neighbourhoods.nearest` gives them.
        neighbours: rows of these.
        rows: the items they are of; None for all.

    Returns:
        Local radius, and overlap: the share of the neighbours that are as near on the map, 0 to 1.
    """
    on_map = nearest(places, neighbours.shape[1], rows)[1]
    return radius_from(distances), shared(neighbours, on_map)


class MapDrawing:
    """A process that draws the maps of the galleries it is given, one after the other."""

    def __init__(self, paths: Iterable[str | Path] = ()) -> None:
        """Start it: it prepares at once, and draws what comes."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "pddm_lab.gallery.umap_layout"],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for path in paths:
            self.add(path)

    def add(self, path: str | Path) -> None:
        """Have a complete gallery's map drawn."""
        assert self._process.stdin
        try:
            self._process.stdin.write(f"{Path(path).resolve()}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            self.wait()

    def wait(self) -> None:
        """Wait until all are drawn.

        Raises:
            RunError: the process failed.
        """
        _, errors = self._process.communicate()
        if self._process.returncode:
            last = (errors.strip().splitlines() or ["killed"])[-1]
            raise RunError(f"The map could not be drawn: its process ended with {self._process.returncode}, {last}")


def start_map(*paths: str | Path) -> MapDrawing:
    """Draw the maps of galleries in a process of its own; `add` gives it more, `wait` waits for it."""
    return MapDrawing(paths)


def _lay_out(
    features: Float[np.ndarray, "items dim"],
    distances: Float[np.ndarray, "items neighbours"],
    neighbours: Int[np.ndarray, "items neighbours"],
) -> tuple[Float[np.ndarray, "items 2"], str, str]:
    """Coordinates, how they were made, and why not by UMAP."""
    different = len(np.unique(features, axis=0))
    if different < _FEW_ITEMS:
        return (
            _principal_components(features),
            "pca",
            f"UMAP needs {_FEW_ITEMS} different items or more, got {different}.",
        )
    try:
        return _umap(features, distances, neighbours), "umap", ""
    except Exception as error:  # whatever UMAP or its compiler met, a plainer map is better than none
        return _principal_components(features), "pca", f"UMAP failed: {error}"


def _umap(
    features: Float[np.ndarray, "items dim"],
    distances: Float[np.ndarray, "items neighbours"],
    neighbours: Int[np.ndarray, "items neighbours"],
) -> Float[np.ndarray, "items 2"]:
    import warnings

    import umap

    # UMAP counts the item itself as its first neighbour.
    itself = np.arange(len(features))[:, None]
    neighbours = np.hstack([itself, neighbours[:, : NEIGHBOURS - 1]])
    distances = np.hstack([np.zeros_like(itself, np.float32), distances[:, : NEIGHBOURS - 1]])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of given neighbours it can't transform further items: not asked for
        layout = umap.UMAP(
            n_neighbors=neighbours.shape[1],
            init="pca",
            n_epochs=_FAST_EPOCHS,
            random_state=SEED,
            n_jobs=1,
            precomputed_knn=(neighbours, distances, None),
        ).fit_transform(features)
    if not np.isfinite(layout).all():
        raise ValueError("it gave coordinates that are not finite")
    return layout.astype(np.float32)


def _principal_components(features: Float[np.ndarray, "items dim"]) -> Float[np.ndarray, "items 2"]:
    """The first two, 0 where there are fewer."""
    places = np.zeros((len(features), 2), dtype=np.float32)
    if len(features):
        left, sizes, _ = np.linalg.svd(features - features.mean(0), full_matrices=False)
        places[:, : min(2, len(sizes))] = (left * sizes)[:, :2]
    return places


def _draw_what_comes() -> None:
    import contextlib

    with contextlib.suppress(ImportError):  # said in the manifest of the first map instead
        import umap  # noqa: F401 - takes long: before the first path arrives
    for line in sys.stdin:
        write_map(line.rstrip("\n"))


if __name__ == "__main__":
    _draw_what_comes()
