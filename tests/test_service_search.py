"""A search of the service by an item that is itself not searched, as the queries of the known classes are not."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from test_gallery import make

pytest.importorskip("fastapi")

from pddm_lab.service.catalogue import Snapshot
from pddm_lab.service.search import Search
from pddm_lab.service.searches import by_item


@pytest.mark.parametrize(("row", "hits"), [(0, 10), (5, 9)])
def test_all_searched_items_are_hits_but_the_query_itself(tmp_path: Path, row: int, hits: int) -> None:
    snapshot = Snapshot(make(tmp_path, 12, queries=2), ()).warm()
    decisions: Any = SimpleNamespace(follow=lambda _: None, of=lambda _: (None, "none is fitted"))

    async def now() -> Snapshot:
        return snapshot

    with ThreadPoolExecutor(1) as pool:
        search = Search("run", {}, None, decisions, pool, 1)
        served: Any = SimpleNamespace(
            similarities=["euclidean"], catalogue=SimpleNamespace(now=now), decisions=decisions, search=search
        )
        answer = asyncio.run(by_item(served, snapshot.ids[row], 100, "euclidean", None))
    assert len(answer.hits) == hits
    assert snapshot.ids[row] not in {hit.id for hit in answer.hits}
