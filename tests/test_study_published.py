"""The published numbers are as they were printed."""

from __future__ import annotations

from pddm_lab.study import published


def test_the_papers_rows() -> None:
    assert [row.method for row in published.of("cub200")] == [row.method for row in published.of("cars196")]
    assert published.of("cub200")[-1].recalls == (58.3, 69.2, 79.0, 88.4)
    assert published.of("cars196")[-1].recalls == (57.4, 68.6, 80.1, 89.4)
    assert published.of("grocery") == []
    for row in published.PUBLISHED:
        assert list(row.recalls) == sorted(row.recalls) and row.recalls[-1] < 100
