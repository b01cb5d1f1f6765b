"""The paper's equations in plain Python loops over float64 numbers: slow, and simple enough to check by reading."""

from __future__ import annotations

import math

import torch


def _linear(weight, bias, x):
    return [sum(w * v for w, v in zip(row, x, strict=True)) + b for row, b in zip(weight, bias, strict=True)]


def _relu(x):
    return [max(0.0, v) for v in x]


def _unit_length(x):
    length = max(math.sqrt(sum(v * v for v in x)), 1e-12)
    return [v / length for v in x]


def pddm_score(unit, a, b) -> float:
    """S of one pair; `a` and `b` are lists of floats."""
    weights = {name: value.double().tolist() for name, value in unit.state_dict().items()}
    u = [abs(x - y) for x, y in zip(a, b, strict=True)]
    v = [(x + y) / 2 for x, y in zip(a, b, strict=True)]
    if unit.normalize_input:
        u, v = _unit_length(u), _unit_length(v)
    u_hidden = _unit_length(_relu(_linear(weights["difference.weight"], weights["difference.bias"], u)))
    v_hidden = _unit_length(_relu(_linear(weights["position.weight"], weights["position.bias"], v)))
    joint = _relu(_linear(weights["joint.weight"], weights["joint.bias"], u_hidden + v_hidden))
    score = _linear(weights["score.weight"], weights["score.bias"], joint)[0]
    return score - weights.get("global_weight", [0.0])[0] * math.sqrt(
        sum((x - y) ** 2 for x, y in zip(a, b, strict=True))
    )


def score_matrix(similarity, features):
    """S of all pairs, as nested lists, from the similarity's forward on one pair at a time."""
    return [[similarity(a[None], b[None]).item() for b in features] for a in features]


def hardest_of_batch(scores, labels):
    """(i, j, k, l) of the paper, or None."""
    n = len(labels)
    positives = [(scores[i][j], i, j) for i in range(n) for j in range(i + 1, n) if labels[i] == labels[j]]
    if not positives or len(set(labels)) < 2:
        return None
    _, i, j = min(positives)
    return i, j, _hardest_negative(scores, labels, i), _hardest_negative(scores, labels, j)


def hardest_of_anchors(scores, labels):
    """One (i, j, k, l) for every i that has a positive and a negative."""
    n = len(labels)
    quadruplets = []
    for i in range(n):
        positives = [(scores[i][j], j) for j in range(n) if j != i and labels[j] == labels[i]]
        if positives and len(set(labels)) > 1:
            j = min(positives)[1]
            quadruplets.append((i, j, _hardest_negative(scores, labels, i), _hardest_negative(scores, labels, j)))
    return quadruplets


def _hardest_negative(scores, labels, anchor):
    return max((scores[anchor][n], -n) for n in range(len(labels)) if labels[n] != labels[anchor])[1] * -1


def joint_objective(quads, alpha, beta, weight):
    """E averaged over quadruplets given as (s_ij, s_ik, s_jl, d_ij, d_ik, d_jl)."""
    total = 0.0
    for s_ij, s_ik, s_jl, d_ij, d_ik, d_jl in quads:
        e_m = max(0.0, alpha + s_ik - s_ij) + max(0.0, alpha + s_jl - s_ij)
        e_e = max(0.0, beta + d_ij - d_ik) + max(0.0, beta + d_ij - d_jl)
        total += e_m + weight * e_e
    return total / max(len(quads), 1)


def unit_features(count: int, dim: int, seed: int = 0, dtype=torch.float64):
    """Random unit-length features."""
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(count, dim, generator=generator, dtype=dtype), dim=1)
