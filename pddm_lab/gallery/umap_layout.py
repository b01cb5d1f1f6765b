"""Maps: a gallery's features laid out in two dimensions by UMAP and stored as coordinates.

`start_map` draws in its own process: importing UMAP takes some 12 seconds, and other work can go on meanwhile.
A gallery too small or too uniform for UMAP gets its two principal components instead, and its manifest says why.

No map keeps every neighbourhood. `overlap` is stored for each item: the share of its nearest neighbours by features
that are its nearest neighbours on the map too.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from pddm_lab.errors import RunError
from pddm_lab.files import read_table
from pddm_lab.gallery.files import (
    as_next,
    changing,
    commit,
    file_name,
    items_key,
    map_array,
    new_file,
    read_items,
    read_manifest,
)
from pddm_lab.gallery.map_upkeep import aligned, carried
from pddm_lab.gallery.schema import MAP
from pddm_lab.metrics.density import nearest, radius_from, shared

NEIGHBOURS = 15
"""Neighbours that UMAP connects and `overlap` compares."""
SEED = 0

_WAIT = 60.0
"""Seconds to wait for other changes before a map is written, which took longer to draw."""
_FEW_ITEMS = 5
_FAST_EPOCHS = 200  # less than UMAP's own 500 up to 10 000 items: half the time, and the layout no longer changes much


def write_map(path: str | Path) -> str:
    """Draw the map of a gallery: write map.parquet (id, x, y, radius, overlap), and the method in the manifest.

    Items that another process adds meanwhile are put between their neighbours.

    Args:
        path: the gallery's folder.

    Returns:
        "umap" or "pca".

    Raises:
        RunError: the folder has no complete gallery, or another process wrote it anew meanwhile.
    """
    path = Path(path)
    manifest = read_manifest(path)
    items, places_of = read_items(path, manifest), _places_of(path, manifest)
    features = np.array(_stored(path, manifest)[places_of])
    neighbours = nearest(features, NEIGHBOURS)
    places, method, reason = _lay_out(features, *neighbours)
    radius, overlap = trust(places, *neighbours)
    places = aligned(places, items["id"], _map_before(path, manifest))
    columns = {"id": items["id"], "x": places[:, 0], "y": places[:, 1], "radius": radius, "overlap": overlap}
    frame, before = pd.DataFrame(columns), manifest
    with changing(path, wait=_WAIT):
        manifest, new = read_manifest(path), 0
        if items_key(manifest) != items_key(before):
            if not _grew(before, manifest):
                raise RunError(f"{path} was changed while its map was drawn: draw it again.")
            frame, new = _carried(path, manifest, frame, features, places_of)
        if file_name(manifest, "map.parquet"):  # the one that readers may have open keeps its name
            as_next(path, manifest)
        manifest["map"] = {"method": method, "reason": reason, "seed": SEED, **({"placed": new} if new else {})}
        with new_file(path, manifest, "map.parquet") as temporary:
            frame.to_parquet(temporary, index=False)
        commit(path, manifest)
    return method


def _map_before(path: Path, manifest: Mapping[str, Any]) -> pd.DataFrame | None:
    """The map that a gallery has, without items that were put there; None if it has none that can be read."""
    name = file_name(manifest, "map.parquet")
    if not name:
        return None
    try:
        frame = read_table(path / name, MAP, "", optional=("radius", "overlap"), finite=True).to_pandas()
    except RunError:
        return None
    drawn = frame["overlap"].notna()  # nowhere in a map of an older version
    return frame[drawn] if drawn.any() else frame


def _places_of(path: Path, manifest: Mapping[str, Any]) -> Int[np.ndarray, " items"]:
    """Where the features of each item are stored."""
    items = read_items(path, manifest)
    return items["place"].to_numpy() if "place" in items else np.arange(len(items))


def _stored(path: Path, manifest: Mapping[str, Any]) -> Float[np.ndarray, "places dim"]:
    name = file_name(manifest, "features.npy")
    return map_array(path / name, manifest["files"][name]["bytes"])


def _grew(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether the features of a gallery are those from before, and perhaps more: then places mean the same."""
    was, is_ = (manifest["files"][file_name(manifest, "features.npy")] for manifest in (before, now))
    appended = was.get("appended", [])
    return was["sha256"] == is_["sha256"] and is_.get("appended", [])[: len(appended)] == appended


def _carried(
    path: Path, manifest: Mapping[str, Any], drawn: pd.DataFrame, features: Float[np.ndarray, "before dim"],
    places: Int[np.ndarray, " before"],
) -> tuple[pd.DataFrame, int]:  # fmt: skip
    """The map for the items that a gallery has by now, and how many of them were not drawn."""
    row_of = {int(place): row for row, place in enumerate(places)}
    now = _places_of(path, manifest)
    origin = np.array([row_of.get(int(place), -1) for place in now])
    new = np.array(_stored(path, manifest)[now[origin < 0]])
    return carried(drawn, features, origin, read_items(path, manifest)["id"], new), len(new)


def trust(
    places: Float[np.ndarray, "items 2"], distances: Float[np.ndarray, "rows neighbours"],
    neighbours: Int[np.ndarray, "rows neighbours"], rows: Int[np.ndarray, " rows"] | None = None,
) -> tuple[Float[np.ndarray, " rows"], Float[np.ndarray, " rows"]]:  # fmt: skip
    """The density around each item by features, and how well the map keeps its neighbourhood.

    Args:
        places: of all items on the map.
        distances: to the nearest neighbours by features, as `nearest` in metrics/density.py returns them.
        neighbours: rows of these neighbours.
        rows: the items; None for all.

    Returns:
        Local radius, and overlap: the share of the neighbours that are nearest on the map too, 0 to 1.
    """
    on_map = nearest(places, neighbours.shape[1], rows)[1]
    return radius_from(distances), shared(neighbours, on_map)


class MapDrawing:
    """A process that draws the maps of galleries, one after the other."""

    def __init__(self, paths: Iterable[str | Path] = ()) -> None:
        """Start the process, which imports UMAP at once."""
        command = [sys.executable, "-m", "pddm_lab.gallery.umap_layout"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for path in paths:
            self.add(path)

    def add(self, path: str | Path) -> None:
        """Draw the map of a complete gallery."""
        assert self._process.stdin
        try:
            self._process.stdin.write(f"{Path(path).resolve()}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            self.wait()

    def wait(self) -> None:
        """Wait until all maps are drawn.

        Raises:
            RunError: the process failed.
        """
        _, errors = self._process.communicate()
        if self._process.returncode:
            last = (errors.strip().splitlines() or ["killed"])[-1]
            raise RunError(f"The map could not be drawn: its process failed with {self._process.returncode}, {last}")


def start_map(*paths: str | Path) -> MapDrawing:
    """Draw the maps of galleries in another process; see `MapDrawing`."""
    return MapDrawing(paths)


def _lay_out(
    features: Float[np.ndarray, "items dim"], distances: Float[np.ndarray, "items neighbours"],
    neighbours: Int[np.ndarray, "items neighbours"],
) -> tuple[Float[np.ndarray, "items 2"], str, str]:  # fmt: skip
    """Coordinates, the method, and why it isn't UMAP."""
    different = len(np.unique(features, axis=0))
    if different < _FEW_ITEMS:
        reason = f"UMAP needs {_FEW_ITEMS} different items or more, got {different}."
        return _principal_components(features), "pca", reason
    try:
        return _umap(features, distances, neighbours), "umap", ""
    except Exception as error:  # whatever failed in UMAP or its compiler, a simpler map is better than none
        return _principal_components(features), "pca", f"UMAP failed: {error}"


def _umap(
    features: Float[np.ndarray, "items dim"], distances: Float[np.ndarray, "items neighbours"],
    neighbours: Int[np.ndarray, "items neighbours"],
) -> Float[np.ndarray, "items 2"]:  # fmt: skip
    import warnings

    import umap

    # UMAP counts the item itself as its first neighbour.
    itself = np.arange(len(features))[:, None]
    neighbours = np.hstack([itself, neighbours[:, : NEIGHBOURS - 1]])
    distances = np.hstack([np.zeros_like(itself, np.float32), distances[:, : NEIGHBOURS - 1]])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it can't transform further items with given neighbours: not needed here
        layout = umap.UMAP(
            n_neighbors=neighbours.shape[1], init="pca", n_epochs=_FAST_EPOCHS, random_state=SEED, n_jobs=1,
            precomputed_knn=(neighbours, distances, None),
        ).fit_transform(features)  # fmt: skip
    if not np.isfinite(layout).all():
        raise ValueError("it gave coordinates that are not finite")
    return layout.astype(np.float32)


def _principal_components(features: Float[np.ndarray, "items dim"]) -> Float[np.ndarray, "items 2"]:
    """The first two; 0 if there are fewer."""
    places = np.zeros((len(features), 2), dtype=np.float32)
    if len(features):
        left, sizes, _ = np.linalg.svd(features - features.mean(0), full_matrices=False)
        places[:, : min(2, len(sizes))] = (left * sizes)[:, :2]
    return places


def _draw_from_stdin() -> None:
    import contextlib

    with contextlib.suppress(ImportError):  # the manifest of the first map reports it instead
        import umap  # noqa: F401 - slow: done before the first path arrives
    for line in sys.stdin:
        write_map(line.rstrip("\n"))


if __name__ == "__main__":
    _draw_from_stdin()
