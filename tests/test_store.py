"""The contract of every store: after any changes a search is as one in float64 over what is in the gallery then."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_changes import new_items
from test_gallery import make, make_features, picture

from pddm_lab.errors import ConfigError, RunError
from pddm_lab.gallery import index, store
from pddm_lab.gallery.changes import NewItems, add, remove, undo, update
from pddm_lab.gallery.gallery import Gallery
from pddm_lab.gallery.store import IndexChoice

TOLERANCE = 2e-3
"""Of a distance: FAISS adds up squares for many queries at once, and an inverted file holds half precision."""
BLANK = picture(0)
STEPS = st.lists(st.sampled_from(["add", "update", "remove", "undo", "back"]), min_size=1, max_size=6)
EXAMPLES = int(os.environ.get("PDDM_LAB_CHURN_EXAMPLES", "0"))
"""Sequences of changes for each store: `make churn` tries many, and others each time."""
CHURN = settings(
    max_examples=EXAMPLES or 5, derandomize=not EXAMPLES, database=None, deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip


@pytest.fixture(params=["flat", "ivf", "milvus"])
def exact(request: pytest.FixtureRequest, milvus_uri: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each store with an index that looks at all items."""
    monkeypatch.setattr(index, "RECALL", 2)
    monkeypatch.setenv("PDDM_LAB_INDEX", f"milvus:{milvus_uri}" if request.param == "milvus" else request.param)
    return request.param


@pytest.fixture(params=["ivf", "milvus"])
def approximate(request: pytest.FixtureRequest, milvus_uri: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each store with an index that looks at some."""
    monkeypatch.setattr(store, "FLAT_ITEMS", 400)
    monkeypatch.setenv("PDDM_LAB_INDEX", f"milvus:{milvus_uri}" if request.param == "milvus" else request.param)
    return request.param


def distances_of(gallery: Gallery, query: np.ndarray) -> dict[int, float]:
    """Row -> distance of every searched item, in float64."""
    difference = gallery.features.astype(np.float64) - query.astype(np.float64)
    distances = (difference**2).sum(1) ** 0.5
    return {row: float(distances[row]) for row, role in enumerate(gallery.items["role"]) if role != "query"}


def assert_exact(gallery: Gallery, query: np.ndarray, k: int, exclude: int | None = None) -> None:
    """The k nearest, whatever the order of equal ones."""
    every = distances_of(gallery, query)
    every.pop(-1 if exclude is None else exclude, None)
    rows, distances = (values[0] for values in gallery.search(query[None], k, exclude))
    assert len(rows) == len(set(rows.tolist())) == min(k, len(every))
    np.testing.assert_allclose(distances, sorted(every.values())[:k], atol=TOLERANCE)
    np.testing.assert_allclose(distances, [every[row] for row in rows.tolist()], atol=TOLERANCE)


def assert_all_exact(gallery: Gallery, ids: list[str]) -> None:
    """A gallery holds these items and no other, and each search of it is exact."""
    assert gallery.items["id"].tolist() == ids
    queries = [*make_features(2, seed=77), gallery.features[0], gallery.features[len(ids) - 1]]
    for query, k in zip(queries, (3, len(ids) + 9, 1, len(ids)), strict=True):
        assert_exact(gallery, query, k)
    searched = gallery.rows("gallery")
    first, distances = gallery.search(gallery.features[searched], 1)
    assert (distances < TOLERANCE).all() and np.array_equal(gallery.features[first[:, 0]], gallery.features[searched])
    assert_exact(gallery, gallery.features[searched[0]], 5, exclude=int(searched[0]))
    assert_exact(gallery, gallery.features[searched[-1]], len(ids), exclude=int(searched[-1]))


@CHURN
@given(steps=STEPS, seed=st.integers(0, 99))
def test_after_any_changes_a_search_is_exact(
    tmp_path_factory: pytest.TempPathFactory, exact: str, steps: list[str], seed: int
) -> None:
    gallery, rng = make(tmp_path_factory.mktemp("gallery"), 24, queries=3), np.random.default_rng(seed)
    gallery.search(gallery.features[:1], 1)
    states, gone = [gallery.items["id"].tolist()], list[tuple[NewItems, str]]()
    for number, step in enumerate(steps):
        ids = states[-1]
        rows = sorted(rng.choice(len(ids), 4, replace=False).tolist())
        if step == "add":
            new = new_items(3, seed=100 + number, first=10 * number)
            gallery = add(gallery, new)
            states.append([*ids, *new.items["id"]])
        elif step == "update":
            kept = gallery.items.iloc[rows].reset_index(drop=True)
            gallery = update(gallery, NewItems(kept, make_features(4, seed=200 + number), [b""] * 4))
            states.append([*(item for item in ids if item not in set(kept["id"])), *kept["id"]])
        elif step == "remove" and len(ids) > 12:
            items = gallery.items.iloc[rows].reset_index(drop=True)
            gone = [(NewItems(items, np.array(gallery.features[rows]), [b""] * 4), "")]
            gallery = remove(gallery, items["id"].tolist())
            states.append([item for item in ids if item not in set(items["id"])])
        elif step == "back" and gone and not set(gone[0][0].items["id"]) & set(ids):
            gallery = add(gallery, gone[0][0])
            states.append([*ids, *gone[0][0].items["id"]])
        elif step == "undo" and len(states) > 1:
            gallery, _ = undo(gallery)
            states.pop()
        if number % 2:
            assert_all_exact(gallery, states[-1])
    assert_all_exact(gallery, states[-1])
    assert_all_exact(Gallery.open(gallery.path), states[-1])


def test_an_approximate_index_keeps_its_recall_under_changes(tmp_path: Path, approximate: str) -> None:
    if approximate == "milvus" and hasattr(faiss.IndexFlatL2, "search_numpy"):
        pytest.skip("a test before this one loaded pytorch-metric-learning, whose FAISS milvus-lite can't use")
    gallery = make(tmp_path, 600, features=make_features(600, dim=16), load_image=lambda _: BLANK)
    gallery.search(gallery.features[:1], 1)
    queries = make_features(20, dim=16, seed=5)
    for number in range(2):
        gallery = remove(gallery, gallery.items["id"].iloc[number::12].tolist())
        features = make_features(60, dim=16, seed=50 + number)
        gallery = add(gallery, NewItems(new_items(60, first=100 * number).items, features, [b""] * 60))
        assert gallery._index is not None
        rows, _ = gallery.search(queries, 50)
        nearest = [sorted(of := distances_of(gallery, query), key=of.__getitem__)[:50] for query in queries]
        assert np.mean([len(set(a) & set(b)) / 50 for a, b in zip(rows.tolist(), nearest, strict=True)]) > 0.95
        first, distances = gallery.search(gallery.features[::4], 1)
        assert (first[:, 0] == np.arange(len(gallery))[::4]).mean() > 0.99 and distances.max() < TOLERANCE


def test_little_and_nothing_to_return(tmp_path: Path, exact: str) -> None:
    gallery = make(tmp_path, 4, queries=3)
    query = gallery.features[:2]
    assert gallery.search(query, 0)[0].shape == gallery.search(query, 5, exclude=3)[0].shape == (2, 0)
    assert gallery.search(query[:0], 5)[0].shape == (0, 1)
    assert gallery.search(query, 5)[0].tolist() == [[3], [3]]
    with pytest.raises(RunError, match="no item to search"):
        make(tmp_path, 4, queries=4).search(query, 1)


def test_an_older_view_keeps_to_its_own_items(tmp_path: Path, exact: str) -> None:
    old = make(tmp_path, 30)
    old.search(old.features[:1], 1)
    twin = NewItems(new_items(1).items, np.array(old.features[5:6]), [b""])
    new = remove(add(old, twin), old.items["id"].iloc[[7]].tolist())
    assert set(new.items["id"].iloc[new.search(new.features[5:6], 2)[0][0]]) == {old.items["id"][5], "new/0.png"}
    rows, distances = old.search(old.features[5:6], 30)
    assert sorted(rows[0].tolist()) == list(range(30)) and rows[0, 0] == 5
    assert (np.diff(distances[0]) >= 0).all()


@pytest.mark.parametrize(
    "text", ["milvus", "milvus:", "milvus:localhost", "milvus:file.txt", "faiss", "ivf:x", "flat:1"]
)
def test_an_unknown_store_is_named(text: str) -> None:
    with pytest.raises(ConfigError, match=r"ivf:CELLS, milvus:http://HOST:PORT or milvus:FILE\.db, got"):
        IndexChoice.of(text)


def test_a_choice_names_store_and_index(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "FLAT_ITEMS", 10)
    is_flat: Callable[[str], list[bool]] = lambda text: [IndexChoice.of(text).flat(items) for items in (10, 11)]  # noqa: E731
    assert (is_flat("flat"), is_flat("ivf"), is_flat("auto")) == ([True, True], [False, False], [True, False])
    assert is_flat("milvus:http://localhost:19530") == [True, False]
    assert IndexChoice.of("milvus:some.db").uri == str(Path.cwd() / "some.db")
    assert IndexChoice.of("milvus:https://me:secret@host").uri == "https://me:secret@host"
    with pytest.raises(ConfigError) as raised:
        IndexChoice.of("milvus:htp://me:secret@host")
    assert "secret" not in str(raised.value)
