"""A small result of `pddm-lab drift`."""

from __future__ import annotations

from pddm_lab.change.drift_schema import DriftContent


def example(*, ratios: tuple[float, ...] = (0.4, 1.5), now: float = 0.9, outside: float = 0.5) -> DriftContent:
    """A result."""
    return DriftContent.model_validate({
        "format": 1, "created": "2026-01-01T00:00:00+00:00", "source": "new", "kind": "pictures", "is_ordered": True,
        "queries": 40, "skipped": 0, "window": 40, "reference": 80, "level": 0.05, "length": 1000, "ends": [20, 40],
        "signals": {
            "distance": {"ratios": list(ratios), "then": 0.5, "now": now, "edges": [0.0, 0.5, 1.0],
                         "share_then": [0.5, 0.5], "share_now": [0.0, 1.0]},
            "features": {"ratios": [0.1, 0.2]},
        },
        "outside_then": 0.1, "outside_now": outside, "classes": [{"name": "a", "then": 0.1, "now": 0.4}],
        "farthest": [{"name": "x.png", "class_name": "a", "distance": 0.9, "thumb": ""}],
    })  # fmt: skip
