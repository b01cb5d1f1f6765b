"""Two regions of a plane: what was learned of coordinates holds in one, what was learned of neighbourhoods in both."""

from __future__ import annotations

import pytest
import torch

from pddm_lab.local import fit
from pddm_lab.teaching import regions


def test_the_cosine_of_features_is_a_bell_curve_of_the_distance_everywhere() -> None:
    random = torch.Generator().manual_seed(1)
    points = torch.rand(60, 2, generator=random) * 3
    expected = torch.exp(-(torch.cdist(points, points) ** 2) / (2 * 0.25**2))
    z = regions.features(points)
    torch.testing.assert_close(z.norm(dim=1), torch.ones(60))
    assert (z @ z.T - expected).abs().mean() < 0.06
    moved = regions.features(points + torch.tensor([2.0, -1.0]))
    torch.testing.assert_close(moved @ moved.T, z @ z.T, atol=1e-4, rtol=0)


def test_only_neighbourhoods_hold_in_another_region(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "CANDIDATES", 100)
    first, second = regions.make_regions(0)
    assert first.points.shape == second.points.shape == (288, 2)
    assert first.points[:, 0].max() < second.points[:, 0].min()
    learned = regions.train_on(first, 100, 0)
    of = [
        {name: regions.quality(at, s) for name, s in regions.scores_in(at, *learned).items()} for at in (first, second)
    ]
    assert tuple(of[0]) == regions.METHODS
    assert of[0]["unit on coordinates"] > of[0]["distance"] + 0.1
    assert of[1]["unit on coordinates"] < of[1]["distance"] - 0.1
    assert all(region["unit on neighbourhoods"] > region["distance"] + 0.02 for region in of)


def test_the_nearest_of_a_point_are_the_best_others() -> None:
    scores = torch.tensor([[9.0, 1.0, 3.0, 2.0]])
    assert regions.nearest(scores, 0, 2).tolist() == [2, 3]
