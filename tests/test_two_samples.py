"""Two-sample statistics of windows against scipy and slow loops."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chi2_contingency, ks_2samp

from pddm_lab.change.two_samples import kernel, ks, mean_of_pairs, median_distance, mix, squared_mmd

SPANS = np.array([[0, 12], [0, 24], [7, 31], [16, 40]])


@pytest.mark.parametrize("digits", [1, 8], ids=["ties", "no ties"])
def test_ks_is_that_of_scipy(digits: int) -> None:
    draw = np.random.default_rng(0)
    reference, values = draw.normal(size=50).round(digits), draw.normal(0.4, 1.3, size=40).round(digits)
    expected = [ks_2samp(values[start:end], reference).statistic for start, end in SPANS]
    np.testing.assert_allclose(ks(reference, values, SPANS), expected)


def test_ks_is_0_for_equal_samples_and_1_for_separate_ones() -> None:
    whole = np.array([[0, 4]])
    assert ks(np.arange(4.0), np.array([3.0, 0, 2, 1]), whole).tolist() == [0.0]
    assert ks(np.arange(4.0), np.arange(4.0) + 9, whole).tolist() == [1.0]


def test_squared_mmd_is_that_of_a_slow_loop() -> None:
    points = np.random.default_rng(1).normal(size=(70, 5))
    reference, stream = np.arange(0, 60, 2), np.setdiff1d(np.arange(70), np.arange(0, 60, 2))
    width = median_distance(points)
    apart = [np.linalg.norm(points[a] - points[b]) for a in range(70) for b in range(a)]
    assert width == pytest.approx(np.median(apart))

    def k(a: int, b: int) -> float:
        return float(np.exp(-((points[a] - points[b]) ** 2).sum() / (2 * width**2)))

    def mean(pairs: list[tuple[int, int]]) -> float:
        return sum(k(a, b) for a, b in pairs) / len(pairs)

    expected = []
    for start, end in SPANS:
        window, others = stream[start:end].tolist(), reference.tolist()
        inside = [mean([(a, b) for a in part for b in part if a != b]) for part in (window, others)]
        expected.append(sum(inside) - 2 * mean([(a, b) for a in window for b in others]))
    own, toward = kernel(points[stream], points[stream], width), kernel(points[stream], points[reference], width)
    of_reference = mean_of_pairs(kernel(points[reference], points[reference], width))
    np.testing.assert_allclose(squared_mmd(own, toward.mean(1), of_reference, SPANS), expected, atol=1e-5)


def test_squared_mmd_is_0_on_average_without_a_difference() -> None:
    points = np.random.default_rng(2).normal(size=(400, 3))
    k, draw, values = kernel(points, points, median_distance(points)), np.random.default_rng(3), []
    for _ in range(200):
        reference, stream = np.split(draw.permutation(400), [300])
        toward, inside = k[stream][:, reference].mean(1), mean_of_pairs(k[reference][:, reference])
        values += squared_mmd(k[stream][:, stream], toward, inside, np.array([[0, 100]])).tolist()
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(200)
    assert np.min(values) < 0


def test_equal_points_have_a_bandwidth() -> None:
    assert median_distance(np.ones((3, 2))) == median_distance(np.ones((1, 2))) == 1.0


def test_mix_is_the_chi_square_of_two_samples() -> None:
    draw = np.random.default_rng(4)
    reference, classes = draw.integers(0, 5, 60) * 7, draw.integers(1, 6, 40) * 7
    for (start, end), value in zip(SPANS, mix(reference, classes, SPANS), strict=True):
        table = [[(part == name).sum() for name in range(0, 42, 7)] for part in (reference, classes[start:end])]
        kept = np.array(table)[:, np.array(table).sum(0) > 0]
        assert value == pytest.approx(chi2_contingency(kept, correction=False).statistic)
