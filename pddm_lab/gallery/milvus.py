"""A gallery's features in Milvus, for what outgrows one machine: on a server, or in a file of milvus-lite.

Each gallery has a collection of its own, which holds the place and the feature of every searched item. It is filled
from features.npy, and brought up to date at the first search after a change: places that came are inserted, places that
went are deleted. It is read at Milvus's consistency level Strong, so a search sees what was written before it.

milvus-<server>.json in the gallery's folder names the collection and the change of the gallery that it holds. While the
collection is written to, it names no change: so an update that was broken off is noticed, and the next opening compares
all places. A copy of the folder has a file with another inode, and gets a collection of its own.

Milvus returns places, and distances are computed here from the files: servers return squares, and approximate ones. A
gallery that was opened before the last change keeps to its own items; of these it misses what was removed since.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from jaxtyping import Float, Int

from pddm_lab.errors import ConfigError, RunError
from pddm_lab.files import Content, Count, Text, read_json, replacing
from pddm_lab.gallery.files import file_name, items_key, read_manifest
from pddm_lab.gallery.store import VARIABLE, Contents, IndexChoice, without_password
from pddm_lab.progress import progress_bars

PLACE, FEATURE = "place", "feature"
MOST = 16_384
"""Results a query and queries a call that Milvus takes at most; more are computed here."""
BREADTH = 256
"""Candidates that a search of the graph (HNSW) keeps at least, and twice as many as it returns."""
GRAPH = {"M": 32, "efConstruction": 200}
SECONDS = 60.0
"""After so long a call has failed; to connect to a server, a tenth."""
_BYTES = 16 << 20
"""Of features in one call; the server takes 64 MB."""
_RESULTS = 1 << 18
"""In one call."""
_SHOWN = 20_000
"""From so many items on, filling a collection shows its progress."""


class _Note(Content):
    """milvus-<server>.json."""

    collection: Text
    inode: Text
    """Of this file."""
    writing: Text
    """The features.npy it was filled from, as it was first written."""
    index: Text
    key: Text
    """Of the items it holds (`items_key`)."""
    change: Count | None
    """Of the gallery, whose items it holds; None: it is being written to."""


class MilvusStore:
    """Nearest items by Euclidean distance. Open one with `MilvusStore.of`."""

    def __init__(self, contents: Contents, choice: IndexChoice, client: Any, collection: str, index: str) -> None:
        self._contents, self._choice, self._client = contents, choice, client
        self.collection = collection
        self._index = index
        self.places = contents.places

    @staticmethod
    def of(contents: Contents, choice: IndexChoice) -> MilvusStore:
        """Connect, and bring the gallery's collection up to date.

        Raises:
            ConfigError: pymilvus is not installed.
            RunError: the server can't be reached, another process is writing to the collection, or the gallery was
                changed since it was opened and the collection can't answer for it.
        """
        return _up_to_date(contents, choice, _connected(choice.uri), None)

    def changed(self, contents: Contents) -> MilvusStore | None:
        """The same collection, brought up to date; None if it can't be: then the next search says why."""
        try:
            return (
                None if not len(contents.places) else _up_to_date(contents, self._choice, self._client, self._contents)
            )
        except RunError:
            return None

    def search(
        self, queries: Float[np.ndarray, "queries dim"], k: int
    ) -> tuple[Float[np.ndarray, "queries k"], Int[np.ndarray, "queries k"]]:
        """Euclidean distances and places of the k nearest, nearest first; k is at most the number of items."""
        distances = np.empty((len(queries), k), np.float32)
        places = np.empty((len(queries), k), np.int64)
        at_once = max(min(_RESULTS // k, MOST), 1)
        for start in range(0, len(queries), at_once):
            part = slice(start, start + at_once)
            near = self._candidates(queries[part], k) if k <= MOST else [np.empty(0, np.int64)] * len(queries[part])
            for row, (query, candidates) in enumerate(zip(queries[part], near, strict=True), start):
                if len(candidates) < k:  # more than Milvus returns, or some were removed since
                    candidates = self.places
                distances[row], places[row] = _nearest(query, self._contents.features, candidates, k)
        return distances, places

    def _candidates(self, queries: Float[np.ndarray, "queries dim"], k: int) -> list[Int[np.ndarray, " candidates"]]:
        """Places that Milvus returns for each query, as far as they are this gallery's."""
        breadth = {} if self._index == "FLAT" else {"ef": max(2 * k, BREADTH)}
        with _reaching(self._choice.uri):
            hits = self._client.search(
                self.collection, data=list(queries), limit=k, anns_field=FEATURE, timeout=SECONDS,
                search_params={"metric_type": "L2", "params": breadth},
            )  # fmt: skip
        near = [np.unique(np.fromiter(one.ids, np.int64)) for one in hits]
        return [
            one[self.places[np.searchsorted(self.places, one).clip(max=len(self.places) - 1)] == one] for one in near
        ]


def _nearest(
    query: Float[np.ndarray, " dim"], features: Float[np.ndarray, "places dim"], places: Int[np.ndarray, " some"],
    k: int,
) -> tuple[Float[np.ndarray, " k"], Int[np.ndarray, " k"]]:  # fmt: skip
    """Distances and places of the k nearest among some places."""
    parts = [places[start : start + MOST] for start in range(0, len(places), MOST)]
    distances = np.concatenate([np.linalg.norm(features[part] - query, axis=1) for part in parts])
    order = np.argsort(distances, kind="stable")[:k]
    return distances[order], places[order]


def _up_to_date(contents: Contents, choice: IndexChoice, client: Any, before: Contents | None) -> MilvusStore:
    """The collection of a gallery, after what it lacks was written to it.

    Args:
        contents: of the gallery.
        choice: names the server.
        client: connected to it.
        before: of an earlier state, which the collection held; None: not known.
    """
    path, manifest = contents.path, contents.manifest
    file, key, writing = _note_file(path, choice), items_key(manifest), _writing(contents)
    change, index = int(manifest.get("change", 0)), "FLAT" if choice.flat(len(contents.places)) else "HNSW"
    with _writing_alone(path), _reaching(choice.uri):
        note = _read(file)
        name = note["collection"] if note else f"pddm_lab_{uuid.uuid4().hex}"
        store = MilvusStore(contents, choice, client, name, note["index"] if note else index)
        is_there = note is not None and client.has_collection(name, timeout=SECONDS)
        if is_there:
            client.load_collection(name, timeout=SECONDS)
        fits = is_there and note is not None and (note["writing"], note["index"]) == (writing, index)
        at = note["change"] if fits and note else None
        is_current = items_key(read_manifest(path)) == key
        if at is not None and note and (note["key"] == key or (at > change and not is_current)):
            if not is_current or _count(client, name) == len(contents.places):
                return store
            before = None  # the server lost some
        elif not is_current:
            raise RunError(f"{path} was changed since it was opened: open it again.")
        elif at is not None and at >= change:  # the gallery was put back to an earlier state
            fits = False
        state = {"collection": name, "writing": writing, "index": index, "key": key}
        _write(file, {**state, "change": None})
        if fits:
            known = before is not None and note is not None and note["key"] == items_key(before.manifest)
            held = before.places if before is not None and known else _places(client, name, len(contents.features))
        else:
            _create(client, name, contents.features.shape[1], index)
            held = np.empty(0, np.int64)
        _replace(client, name, held, contents, fresh=not fits)
        _write(file, {**state, "change": change})
        return MilvusStore(contents, choice, client, name, index)


def collection_of(path: Path, choice: IndexChoice) -> str:
    """The name of a gallery's collection on a server; empty if it has none."""
    note = _read(_note_file(path, choice))
    return note["collection"] if note else ""


def drop(collection: str, choice: IndexChoice) -> None:
    """Delete a collection from a server.

    Raises:
        RunError: the server doesn't answer.
        ConfigError: pymilvus is not installed.
    """
    with _reaching(choice.uri):
        _connected(choice.uri).drop_collection(collection, timeout=SECONDS)


def _note_file(path: Path, choice: IndexChoice) -> Path:
    return path / f"milvus-{hashlib.sha256(without_password(choice.uri).encode()).hexdigest()[:12]}.json"


def _writing(contents: Contents) -> str:
    """What stands for a features.npy as it was first written: what is appended later doesn't move a place."""
    name = file_name(contents.manifest, "features.npy")
    return f"{name} {contents.manifest['files'][name]['sha256']}"


def _read(file: Path) -> dict[str, Any] | None:
    """What is noted of a collection; None if nothing is, or if the file is a copy."""
    with suppress(RunError, OSError):
        note, status = read_json(file, _Note, "", ""), file.stat()
        if note["inode"] == str(status.st_ino) and status.st_nlink == 1:
            return note
    return None


def _write(file: Path, note: dict[str, Any]) -> None:
    with replacing(file) as temporary:
        temporary.touch()
        temporary.write_text(json.dumps(note | {"inode": str(temporary.stat().st_ino)}))


def _create(client: Any, name: str, dim: int, index: str) -> None:
    from pymilvus import DataType, MilvusClient

    client.drop_collection(name, timeout=SECONDS)
    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field(PLACE, DataType.INT64, is_primary=True)
    schema.add_field(FEATURE, DataType.FLOAT_VECTOR, dim=dim)
    indexes = MilvusClient.prepare_index_params()
    indexes.add_index(FEATURE, index_type=index, metric_type="L2", params={} if index == "FLAT" else GRAPH)
    client.create_collection(
        name, schema=schema, index_params=indexes, consistency_level="Strong", timeout=SECONDS
    )  # fmt: skip


def _replace(
    client: Any, name: str, held: Int[np.ndarray, " held"], contents: Contents, fresh: bool
) -> None:  # fmt: skip
    """Delete the places that a collection holds and should not, and insert those that it should and doesn't."""
    gone = np.setdiff1d(held, contents.places, assume_unique=True)
    new = np.setdiff1d(contents.places, held, assume_unique=True)
    for start in range(0, len(gone), MOST):
        client.delete(name, ids=gone[start : start + MOST].tolist(), timeout=SECONDS)
    # Milvus inserts a place twice if told so: only an empty collection is safe from what an earlier process had sent.
    write = client.insert if fresh else client.upsert
    at_once = max(_BYTES // (4 * contents.features.shape[1]), 1)
    with progress_bars(len(new) >= _SHOWN and sys.stderr.isatty())("filling Milvus") as report:
        for start in range(0, len(new), at_once):
            part = new[start : start + at_once]
            rows = zip(part.tolist(), contents.features[part], strict=True)
            write(name, [{PLACE: place, FEATURE: feature} for place, feature in rows], timeout=SECONDS)
            report(start + len(part), len(new), "items")
    if fresh:
        client.flush(name, timeout=SECONDS)


def _places(client: Any, name: str, count: int) -> Int[np.ndarray, " held"]:
    """The places that a collection holds, ascending."""
    held: list[int] = []
    for start in range(0, count, MOST):
        condition = f"{PLACE} >= {start} and {PLACE} < {start + MOST}"
        held += (row[PLACE] for row in client.query(name, condition, output_fields=[PLACE], timeout=SECONDS))
    return np.unique(np.array(held, np.int64))


def _count(client: Any, name: str) -> int:
    return int(client.query(name, "", output_fields=["count(*)"], timeout=SECONDS)[0]["count(*)"])


def _connected(uri: str) -> Any:
    """A client of the server."""
    try:
        from pymilvus import MilvusClient
    except ImportError:
        raise ConfigError(
            f"{VARIABLE}=milvus:... needs pymilvus: install it with `pip install 'pddm-lab[milvus]'`."
        ) from None
    for logger in ("pymilvus", "milvus_lite", "grpc._server"):  # what they log is raised too, and becomes a sentence
        logging.getLogger(logger).setLevel(logging.CRITICAL + 1)
    is_file = uri.endswith(".db")  # served by a thread of this process, which may be slow to start
    with _reaching(uri):
        return MilvusClient(uri, timeout=SECONDS if is_file else SECONDS / 10)


@contextmanager
def _writing_alone(path: Path) -> Iterator[None]:
    """Keep other processes from writing to a gallery's collections."""
    try:
        with FileLock(path.with_name(f".{path.name}.milvus.lock"), timeout=SECONDS):
            yield
    except Timeout:
        raise RunError(f"Another process is filling Milvus with {path}: try again when that has finished.") from None
    except OSError as error:
        raise RunError(f"{path} can't hold a note of its collection in Milvus: {error.strerror or error}.") from error


@contextmanager
def _reaching(uri: str) -> Iterator[None]:
    """Turn what pymilvus raises into one sentence."""
    import grpc
    from pymilvus import MilvusException

    try:
        yield
    except (MilvusException, grpc.RpcError) as error:
        reason = str(getattr(error, "message", "") or type(error).__name__).partition("\n")[0].rstrip(".")
        what = "start it"
        if "torch_replacement" in reason:
            raise RunError(
                f"milvus-lite can't search so many items in this process, where another library has changed FAISS: use "
                f"a Milvus server, or unset {VARIABLE} to search in files."
            ) from error
        if uri.endswith(".db"):
            what = "its folder must exist, and one process at a time can open it: end the other, or use a server"
        raise RunError(
            f"Milvus at {without_password(uri)} doesn't answer ({reason}): {what}, or unset {VARIABLE} to search "
            "with FAISS."
        ) from error
