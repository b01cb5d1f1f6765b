"""The stored neighbourhoods of a gallery: after any changes they are those of a gallery built anew, or built anew."""

from __future__ import annotations

import copy
import gc
import os
import shutil
import weakref
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from local_reference import items
from PIL import Image

from pddm_lab.errors import RunError
from pddm_lab.gallery import changes
from pddm_lab.gallery.changes import NewItems
from pddm_lab.gallery.files import NEIGHBOURHOODS, changing, file_name, items_key
from pddm_lab.gallery.gallery import Gallery
from pddm_lab.gallery.reference import Reference
from pddm_lab.gallery.umap_layout import write_map
from pddm_lab.gallery.upkeep import keep_up, needs_upkeep
from pddm_lab.local.neighbourhoods import Neighbourhoods
from pddm_lab.local.unit import LocalStructure
from pddm_lab.progress import Stopped

POOL, FURTHER = items(400, seed=1).float().numpy(), items(400, seed=2).float().numpy()
PICTURE = b"jpeg"
EXAMPLES = int(os.environ.get("PDDM_LAB_CHURN_EXAMPLES", "0"))
"""Sequences of changes: `make churn` tries many, and others each time."""


@pytest.fixture(scope="module")
def structure() -> LocalStructure:
    """It uses pretrained features, and its S is no cosine."""
    torch.manual_seed(0)
    made = LocalStructure(8, pretrained=True, weight=0.5)
    for unit in (made.first, made.second):
        assert unit is not None
        torch.nn.init.normal_(unit.score.weight, std=0.3)
    return made.eval().requires_grad_(False)


def listed(rows: list[int], prefix: str = "item") -> pd.DataFrame:
    """Every fifth item is a query that isn't searched."""
    roles = ["query" if row % 5 == 4 else "both" for row in rows]
    ids = [f"{prefix} {row}" for row in rows]
    return pd.DataFrame({"id": ids, "label": [row % 7 for row in rows], "class_name": "a", "role": roles})


def new(rows: list[int], ids: list[str] | None = None) -> NewItems:
    table = listed(rows) if ids is None else listed(rows).assign(id=ids)
    return NewItems(table, POOL[rows], [PICTURE] * len(rows), pretrained=FURTHER[rows])


def written(path: Path, count: int) -> Gallery:
    rows = list(range(count))
    picture = Image.new("RGB", (4, 4))
    return Gallery.write(path, "unseen", POOL[rows], listed(rows), lambda row: picture, {}, pretrained=FURTHER[rows])


def anew(gallery: Gallery, structure: LocalStructure) -> Neighbourhoods:
    rows = gallery.rows("gallery")
    assert gallery.pretrained is not None
    return structure.reference(gallery.features[rows], gallery.pretrained[rows])


def assert_first_pass(actual: Neighbourhoods, expected: Neighbourhoods) -> None:
    """Lists may differ where two items are equally near but for rounding."""
    torch.testing.assert_close(actual.features, expected.features)
    for name in ("scores", "weights"):
        torch.testing.assert_close(getattr(actual, name), getattr(expected, name), atol=1e-5, rtol=1e-4, msg=name)
    listed, rows = expected.scores > -torch.inf, actual.neighbours.long()
    cosines = torch.einsum("id,ijd->ij", actual.features, actual.features[rows])
    torch.testing.assert_close(cosines[listed], expected.scores[listed], atol=1e-5, rtol=1e-4)
    assert all(len(set(row[own].tolist())) == own.sum() for row, own in zip(rows, listed, strict=True)), "none twice"
    same = (actual.neighbours == expected.neighbours).all(1)
    assert same.float().mean() > 0.9
    for name in ("squares", "onward"):
        ours, theirs = (getattr(of, name)[same] for of in (actual, expected))
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4, msg=name)
    moved = (actual.reverse[same].int() - expected.reverse[same].int()).abs()
    assert (moved <= 1).all() and (moved == 0).float().mean() > 0.95


def no_building(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Reference, "of", lambda *_: pytest.fail("the neighbourhoods were built anew"))


@settings(
    max_examples=EXAMPLES or 12, derandomize=not EXAMPLES, database=None, deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(
    start=st.integers(14, 80),
    steps=st.lists(
        st.tuples(
            st.sampled_from(["add", "remove", "update", "keep up", "map"]), st.integers(1, 9), st.integers(0, 9)
        ), max_size=5,
    ),
)  # fmt: skip
def test_any_changes_leave_the_first_pass_of_a_gallery_built_anew(
    start: int, steps: list[tuple[str, int, int]], structure: LocalStructure, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("pddm_lab.gallery.umap_layout._umap", lambda of, *_: of[:, :2])
    shutil.rmtree(tmp_path / "g", ignore_errors=True)
    gallery, used = keep_up(written(tmp_path / "g", start), structure), start
    for what, count, seed in steps:
        chosen = np.random.default_rng(seed).permutation(gallery.items["id"])[: min(count, len(gallery) - 13)].tolist()
        if what == "add":
            gallery = changes.add(gallery, new(list(range(used, used + count))), structure)
            used += count
        elif what == "remove" and chosen:
            gallery = changes.remove(gallery, chosen, structure)
        elif what == "update" and chosen:
            gallery = changes.update(gallery, new(list(range(used, used + len(chosen))), chosen), structure)
            used += len(chosen)
        elif what == "keep up":
            gallery = keep_up(gallery, structure)
            assert not gallery.reference(structure).stale
        elif what == "map":
            write_map(gallery.path)
    opened = Gallery.open(tmp_path / "g", verify=True).reference(structure)
    assert opened.is_stored or opened.note
    assert_first_pass(opened.neighbourhoods, anew(gallery, structure))


def test_stored_neighbourhoods_are_read_not_built(structure, tmp_path: Path, monkeypatch) -> None:
    gallery = written(tmp_path / "g", 60)
    assert needs_upkeep(gallery, structure) and not file_name(gallery.manifest, NEIGHBOURHOODS)
    kept = keep_up(gallery, structure)
    expected = gallery.reference(structure).neighbourhoods
    no_building(monkeypatch)
    again = Gallery.open(tmp_path / "g", verify=True)
    assert not needs_upkeep(again, structure) and keep_up(again, structure) is again
    assert torch.equal(again.reference(structure).neighbourhoods.scores, expected.scores)
    queries = torch.from_numpy(POOL[100:103]), torch.from_numpy(FURTHER[100:103])
    for row in range(3):
        results = [
            one.search_by(queries[0][row].numpy(), [], local=structure, pretrained=queries[1][row].numpy()).table
            for one in (gallery, kept)
        ]
        pd.testing.assert_frame_equal(*results)


def test_a_change_computes_only_what_it_touches_and_marks_what_is_stale(structure, tmp_path, monkeypatch) -> None:
    gallery = keep_up(written(tmp_path / "g", 300), structure)
    no_building(monkeypatch)
    before = gallery.reference(structure).neighbourhoods.scores.clone()
    more = changes.add(gallery, new([300]), structure)
    seen = more.reference(structure)
    assert seen.is_stored and 0 < seen.stale < len(seen.rows)
    assert f"{seen.stale} of {len(seen.rows)} neighbourhoods are still from before the last change" in seen.stale_note
    fresh = keep_up(more, structure)
    assert not fresh.reference(structure).stale and not fresh.reference(structure).stale_note
    assert fresh.manifest["change"] == more.manifest["change"] + 1
    assert torch.equal(gallery.reference(structure).neighbourhoods.scores, before), "an open gallery stays as it was"
    assert {file.name for file in fresh.path.iterdir()} == {"manifest.json", "history", *fresh.manifest["files"]}


def test_what_does_not_fit_is_built_anew(structure, tmp_path: Path) -> None:
    gallery = keep_up(written(tmp_path / "g", 60), structure)
    stored = gallery.path / file_name(gallery.manifest, NEIGHBOURHOODS)
    whole = stored.read_bytes()
    other = keep_up(written(tmp_path / "other", 61), structure)
    another = LocalStructure(8, pretrained=True, weight=0.5).requires_grad_(False)
    assert not gallery.reference(another).is_stored, "of other weights"
    for damaged in (b"", whole[:-1], b"x" * len(whole), (other.path / NEIGHBOURHOODS).read_bytes()):
        stored.unlink()
        stored.write_bytes(damaged)
        opened = Gallery.open(gallery.path)
        seen = opened.reference(structure)
        assert not seen.is_stored and not seen.stale
        assert_first_pass(seen.neighbourhoods, anew(gallery, structure))
    stored.unlink()
    assert keep_up(Gallery.open(gallery.path), structure).reference(structure).is_stored


def test_a_change_without_the_similarity_drops_them(structure, tmp_path: Path) -> None:
    gallery = keep_up(written(tmp_path / "g", 40), structure)
    fewer = changes.remove(gallery, ["item 3"])
    assert not file_name(fewer.manifest, NEIGHBOURHOODS) and not fewer.reference(structure).is_stored
    assert items_key(fewer.manifest) != items_key(gallery.manifest)


def test_a_gallery_that_changes_meanwhile_is_left_alone(structure, tmp_path: Path, monkeypatch) -> None:
    before = written(tmp_path / "g", 40)
    after = changes.remove(before, ["item 3"])
    assert keep_up(before, structure).manifest == after.manifest
    with changing(before.path), pytest.raises(RunError, match="being changed by another process"):
        keep_up(after, structure)


def test_a_gallery_that_was_too_small_gets_a_second_pass(structure, tmp_path: Path) -> None:
    few = keep_up(written(tmp_path / "g", 8), structure)
    assert few.reference(structure).note and not few.reference(structure).stale
    more = changes.add(few, new(list(range(8, 40))), structure)
    assert more.reference(structure).stale == len(more.reference(structure).rows)
    whole = keep_up(more, structure).reference(structure)
    assert whole.is_stored and whole.neighbourhoods.second is not None and not whole.stale
    assert_first_pass(whole.neighbourhoods, anew(more, structure))


def test_a_large_gallery_is_ranked_by_the_cosine_until_its_neighbourhoods_are_built(
    structure: LocalStructure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = keep_up(written(tmp_path / "exact", 250), structure).reference(structure).neighbourhoods
    monkeypatch.setenv("PDDM_LAB_INDEX", "ivf:250")  # all cells
    gallery = written(tmp_path / "large" / "gallery" / "unseen", 250)
    seen = gallery.reference(structure)
    assert not seen.is_built and not seen.stale and needs_upkeep(gallery, structure)
    assert "`pddm-lab gallery neighbourhoods large --protocol unseen`" in seen.note
    query, further = POOL[300], FURTHER[300]
    result = gallery.search_by(query, [], local=structure, pretrained=further)
    z = structure.space(query[None], further[None])[0]
    expected = (seen.neighbourhoods.features[seen.places(result.table["row"].to_numpy())] @ z).numpy()
    np.testing.assert_allclose(result.table["local"], expected, atol=1e-6)
    assert result.note == seen.note
    changed = changes.add(gallery, new([250]), structure)
    assert not changed.reference(structure).is_built and not file_name(changed.manifest, NEIGHBOURHOODS)
    changed = changes.remove(changed, ["item 250"], structure)

    monkeypatch.setattr("pddm_lab.local.large.PART", 64)

    def stop(done: int, *_: object) -> None:
        if done > 700:
            raise Stopped

    with pytest.raises(Stopped):
        keep_up(changed, structure, stop)
    assert (changed.path / "neighbourhoods.building").is_dir()
    built = keep_up(changed, structure)
    after = Gallery.open(built.path, verify=True).reference(structure)
    assert after.is_stored and not after.note and after.neighbourhoods.search is not None
    assert not (built.path / "neighbourhoods.building").exists()
    assert_first_pass(after.neighbourhoods, exact)
    assert len(built.search_by(query, [], local=structure, pretrained=further).table) == 100


def test_neighbourhoods_are_kept_for_one_similarity(structure: LocalStructure, tmp_path: Path) -> None:
    gallery, other = written(tmp_path / "g", 40), copy.deepcopy(structure)
    first = gallery.reference(structure)
    assert gallery.reference(structure) is first
    kept = weakref.ref(gallery.reference(other))
    assert gallery.reference(other) is kept()
    gallery.reference(structure)
    gc.collect()
    assert kept() is None


def test_a_search_by_distance_doesnt_wait_for_neighbourhoods(
    structure: LocalStructure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery, begun, go = written(tmp_path / "g", 40), Event(), Event()
    built = Reference.of

    def slow(*of: Any) -> Reference:
        begun.set()
        assert go.wait(600)
        return built(*of)

    monkeypatch.setattr(Reference, "of", slow)
    results: list[np.ndarray] = []
    threads = [
        Thread(target=gallery.reference, args=(structure,), daemon=True),
        Thread(target=lambda: results.append(gallery.search(POOL[:1], 3)[0]), daemon=True),
    ]
    threads[0].start()
    assert begun.wait(600)
    threads[1].start()
    threads[1].join(60)
    came_first = bool(results)
    go.set()
    for thread in threads:
        thread.join(600)
    assert came_first
