"""The published numbers match the printed ones."""

from __future__ import annotations

from pddm_lab.study.published import PUBLISHED, published_rows


def test_the_papers_rows() -> None:
    assert [row.method for row in published_rows("cub200")] == [row.method for row in published_rows("cars196")]
    assert published_rows("cub200")[-1].recalls == (58.3, 69.2, 79.0, 88.4)
    assert published_rows("cars196")[-1].recalls == (57.4, 68.6, 80.1, 89.4)
    assert published_rows("grocery") == []
    for row in PUBLISHED:
        assert list(row.recalls) == sorted(row.recalls) and row.recalls[-1] < 100
