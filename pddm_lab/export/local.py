"""The similarity on local structure of an export, for a query that is not in the gallery. numpy alone, no torch.

The formulas are those of evidence.py and unit.py in pddm_lab/local, where they are explained; tests compare both. Here
nothing is taken out of a neighbourhood, so they are shorter.

FOLDER/
  local.safetensors           the whitening, the weights of the units of both passes, and w
  neighbourhoods.safetensors  z of the searched items, and their neighbourhoods in both passes
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from pddm_lab.errors import RunError
from pddm_lab.local.sizes import (
    FEWEST,
    LENGTH,
    LIMIT,
    LISTS,
    NEAR,
    POWER,
    RECIPROCAL,
    SCALES,
    SECOND_SCALES,
    SHARED,
)

WEIGHTS, NEIGHBOURHOODS = "local.safetensors", "neighbourhoods.safetensors"
Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Listed:
    """The best items of a query by a score, best first; `LENGTH`, or fewer where there are fewer."""

    rows: Int[np.ndarray, " listed"]
    scores: Float[np.ndarray, " listed"]
    weights: Float[np.ndarray, " listed"]


class ExportedLocal:
    """L of a query and searched items.

    Args:
        folder: of the export.
        hint: what to do about a damaged file.

    Raises:
        RunError: a file is missing, damaged, or doesn't match the other.
    """

    def __init__(self, folder: Path, hint: str) -> None:
        self._weights, chosen = _read(folder / WEIGHTS, hint)
        arrays, content = _read(folder / NEIGHBOURHOODS, hint)
        self._first = {name: arrays.get(name, np.empty(0)) for name in ("features", *LISTS)}
        self._second = {name: arrays.get(f"second.{name}", np.empty(0)) for name in LISTS}
        try:
            self._weight, self._has_second = float(chosen["weight"]), int(chosen["passes"]) == 2
            self._first_part = int(content["first_part"])
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(f"{folder} was not written by this lab: expected sizes of L. {hint}") from error
        passes = [(self._first, SCALES), *([(self._second, SECOND_SCALES)] if self._has_second else [])]
        z = self._first["features"]
        if z.ndim != 2 or not np.isfinite(z).all() or not all(_is_valid(each, len(z), of) for each, of in passes):
            raise RunError(f"{folder / NEIGHBOURHOODS} is damaged: expected neighbourhoods of each item. {hint}")

    def __len__(self) -> int:
        return len(self._first["features"])

    def scores(
        self, feature: Float[np.ndarray, " dim"], pretrained: Float[np.ndarray, " pretrained"] | None,
        rows: Int[np.ndarray, " candidates"],
    ) -> Float[np.ndarray, " candidates"]:  # fmt: skip
        """L of a query with some of the searched items; larger is more similar.

        Args:
            feature: of the query.
            pretrained: its pretrained features, if L uses them.
            rows: of the items.
        """
        z, gallery = self._space(feature, pretrained), self._first["features"]
        cosines = gallery @ z
        if len(gallery) < FEWEST:
            return cosines[rows]
        near = np.argsort(-cosines, kind="stable")[:NEAR]
        closest = near[:LENGTH]
        listed = Listed(closest, cosines[closest], np.maximum(cosines[closest], 0) ** POWER)
        if not self._has_second:
            return self._unit("first", *self._first_inputs(z, listed, rows))
        scores, parts = self._both(z, listed, rows)
        of_near = self._both(z, listed, near)[0]
        best = np.argsort(-of_near, kind="stable")[:LENGTH]
        slope, shift = self._weights["calibration"]
        chances = 1 / (1 + np.exp(-(slope * of_near[best] + shift)))
        again = Listed(near[best], of_near[best], chances.astype(np.float32))
        more_u, more_v = _evidence(self._second, gallery, SECOND_SCALES, z, again, rows, scores)[1:]
        return self._unit("second", [scores, *parts[0], *more_u], [*parts[1], *more_v])

    def _space(self, feature: np.ndarray, pretrained: np.ndarray | None) -> Float[np.ndarray, " z"]:
        x = _unit_length((feature - self._weights["whitening.mean"]) @ self._weights["whitening.matrix"])
        if not self._weight:
            return x
        assert pretrained is not None
        return np.concatenate([x, self._weight * _unit_length(pretrained)]) / np.sqrt(1 + self._weight**2)

    def _both(self, z: np.ndarray, listed: Listed, rows: np.ndarray) -> tuple[np.ndarray, tuple]:
        """S of the first pass, and its inputs."""
        inputs = self._first_inputs(z, listed, rows)
        return self._unit("first", *inputs), inputs

    def _first_inputs(self, z: np.ndarray, listed: Listed, rows: np.ndarray) -> tuple[list, list]:
        gallery, part = self._first["features"], self._first_part
        cosine, u, v = _evidence(self._first, gallery, SCALES, z, listed, rows, None)
        of_part = [gallery[rows, :part] @ z[:part] / (z[:part] @ z[:part])] if part else []
        return [cosine, *of_part, *u], v

    def _unit(self, name: str, u: list[np.ndarray], v: list[np.ndarray]) -> Float[np.ndarray, " candidates"]:
        of = {key.removeprefix(f"{name}."): value for key, value in self._weights.items() if key.startswith(f"{name}.")}

        def layer(key: str, inputs: np.ndarray) -> np.ndarray:
            return np.maximum(inputs @ of[f"{key}.weight"].T + of[f"{key}.bias"], 0)

        agreement, place = (
            np.clip((np.stack(values, axis=1) - of[f"{key}_mean"]) / of[f"{key}_deviation"], -LIMIT, LIMIT)
            for key, values in (("u", u), ("v", v))
        )  # fmt: skip
        both = [_unit_length(layer("agreement", agreement)), _unit_length(layer("place", place))]
        joint = layer("joint", np.concatenate(both, axis=1))
        return agreement @ of["skip"] + joint @ of["score.weight"][0]


def _evidence(
    of: Arrays, gallery: Float[np.ndarray, "items z"], scales: tuple[int, ...], z: Float[np.ndarray, " z"],
    listed: Listed, rows: Int[np.ndarray, " candidates"], scores: Float[np.ndarray, " candidates"] | None,
) -> tuple[np.ndarray, list[np.ndarray], list[np.ndarray]]:  # fmt: skip
    """The cosines of a query with candidates, then u and v without them.

    Args:
        of: the lists of one pass.
        gallery: z of all items.
        scales: k of the expansions.
        z: of the query.
        listed: its neighbours.
        rows: the candidates.
        scores: of the candidates, by which the lists were made; None: the cosine.
    """
    width, kept, reach = max(*scales, *SHARED, *RECIPROCAL), of["neighbours"].shape[1], len(listed.rows)
    weights, own = np.zeros(LENGTH, np.float32), np.full(LENGTH, kept)  # own: where the query would be in their lists
    weights[:reach] = listed.weights
    own[:reach] = np.minimum((of["scores"][listed.rows] > listed.scores[:, None]).sum(1), LENGTH)
    place = np.full(len(gallery), LENGTH)
    place[listed.rows] = np.arange(reach)
    near, w, back = (of[name][rows, :width] for name in ("neighbours", "weights", "reverse"))
    at = place[near]

    steps = np.concatenate([z[None], weights[:reach, None] * gallery[listed.rows]]).cumsum(0)
    expansions = _unit_length(steps[[min(k, reach) for k in scales]])
    used, where = np.unique(np.append(near.ravel(), rows), return_inverse=True)
    products = np.concatenate([z[None], expansions]) @ gallery[used].T
    of_near, of_rows = where[: near.size].reshape(near.shape), where[near.size :]

    cosine = products[0, of_rows]
    there = place[rows]
    back_there = np.minimum((of["scores"][rows] > (cosine if scores is None else scores)[:, None]).sum(1), LENGTH)
    summed = cosine[:, None] + (w * products[0, of_near]).cumsum(1)
    forth = [products[1 + n, of_rows] for n in range(len(scales))]
    norms = [np.sqrt(of["squares"][rows, n]) for n in range(len(scales))]
    backward = [summed[:, k - 1] / norms[n] for n, k in enumerate(scales)]
    both = [
        (forth[n] + (w[:, :k] * products[1 + n, of_near[:, :k]]).sum(1)) / norms[n] for n, k in enumerate(scales)
    ]  # fmt: skip
    padded = np.append(weights, 0)
    shared = [
        (np.where(there < k, padded[there], 0) + (w[:, :k] * np.where(at[:, :k] < k, padded[at[:, :k]], 0)).sum(1))
        / np.sqrt((1 + (weights[:k] ** 2).sum()) * (1 + (w[:, :k] ** 2).sum(1)))
        for k in SHARED
    ]  # fmt: skip
    reciprocal = [_jaccard(k, there, back_there, np.append(own, kept), back, at) for k in RECIPROCAL]
    ranks = np.log1p(there), np.log1p(back_there)
    densities = [(weights[:k].sum() / k, w[:, :k].sum(1) / k) for k in (scales[0], scales[-1])]

    toward = [(one + other) / 2 for one, other in zip(forth, backward, strict=True)]
    u = [*toward, *both, *shared, *reciprocal, -(ranks[0] + ranks[1]) / 2]
    asymmetry = [np.abs(one - other) for one, other in zip(forth, backward, strict=True)]
    means, differences = [(q + g) / 2 for q, g in densities], [np.abs(q - g) for q, g in densities]
    return cosine, u, [*asymmetry, np.abs(ranks[0] - ranks[1]), *means, *differences]


def _jaccard(
    k: int, there: np.ndarray, back_there: np.ndarray, own: np.ndarray, back: np.ndarray, at: np.ndarray
) -> np.ndarray:
    """The Jaccard index of the k-reciprocal sets of the query and of the candidates."""
    mutual = (there < k) & (back_there < k)
    returned, of_query = back[:, :k] < k, (at[:, :k] < k) & (own[at[:, :k]] < k)
    sizes = 2 + mutual + (own[:k] < k).sum() + returned.sum(1)
    common = 2 * mutual + (returned & of_query).sum(1)
    return common / (sizes - common)


def _unit_length(values: np.ndarray) -> np.ndarray:
    return values / np.maximum(np.linalg.norm(values, axis=-1, keepdims=True), 1e-12)


def _is_valid(of: Arrays, items: int, scales: tuple[int, ...]) -> bool:
    shapes = dict.fromkeys(LISTS, (items, LENGTH + 1)) | dict.fromkeys(("squares", "onward"), (items, len(scales)))
    if any(of[name].shape != shape or np.isnan(of[name]).any() for name, shape in shapes.items()):
        return False
    rows = of["neighbours"]
    return np.issubdtype(rows.dtype, np.integer) and bool(((rows >= 0) & (rows < items)).all())


def _read(file: Path, hint: str) -> tuple[dict[str, np.ndarray], dict]:
    """The arrays of a safetensors file, and its metadata."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="np") as opened:
            content = {key: json.loads(value) for key, value in (opened.metadata() or {}).items()}
            return {name: opened.get_tensor(name) for name in opened.keys()}, content  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError, ValueError) as error:
        raise RunError(f"{file} can't be read: {error}. {hint}") from error
