"""The table of augmentations (augmentations.py): what each costs on pictures as they are, and gains on corrupted ones.

    removed       share of the error that corruptions add which an augmentation takes away, of the error E = 1 - R@1 in
                  the sample: (E(crops) - E(own)) / (E(crops) - E(crops, clean)); what it loses on clean queries counts
    mce           mean over corruptions of E relative to the pretrained features, 1 for these (findings.py)
    mce of crops  the same relative to the training without augmentation

Seeds are averaged first. The interval of `removed` is a 95 % bootstrap interval over the queries' classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from pddm_lab.config import AUGMENTATIONS
from pddm_lab.metrics.intervals import percentile_interval
from pddm_lab.robustness.cells import CLEAN
from pddm_lab.robustness.corruptions import CORRUPTIONS
from pddm_lab.similarities import PRETRAINED
from pddm_lab.study.cells import Study

WITHOUT = "crops"
"""The augmentation with which the others are compared."""
EVERY, FOREIGN = "corrupted", "foreign"
"""All corruptions, and those that no augmentation resembles."""
GROUPS: Mapping[str, tuple[str, ...]] = {
    "light": ("brightness", "contrast", "saturate", "illumination"),
    "blur-noise": (
        "gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise", "defocus_blur", "gaussian_blur", "pixelate",
    ),
    "geometry": ("scale", "rotation", "occlusion", "crop"),
}  # fmt: skip
"""Corruptions that resemble what the augmentation of this name does."""
MOST_LOST, LEAST_REMOVED = 0.005, 0.2
"""An augmentation pays if it costs no more MAP@R of pictures as they are, and removes so much of the added error."""
DRAWS = 2000
COLUMNS = (
    "dataset", "similarity", "augmentation", "condition", "seeds", "recall@1", "map@r", "mce", "mce of crops",
    "removed", "low", "high",
)  # fmt: skip


def augmentation_table(study: Study, part: str) -> pd.DataFrame:
    """A row per data set, similarity, augmentation and condition: `COLUMNS`, as shares.

    Conditions: unseen and known, all pictures as they are; clean, the sampled queries as they are; corrupted, the mean
    over all corruptions; light, blur-noise, geometry and foreign, over some (`GROUPS`); and each corruption, the mean
    over its strengths. Of the pretrained features there is one training.
    """
    rows = _measurements(study, part)
    of_cell = ["dataset", "similarity", "augmentation"]
    hits, table = _hits(study, part), []
    for (dataset, similarity, augmentation), own in rows.groupby(of_cell, sort=False):
        if similarity == PRETRAINED and augmentation != WITHOUT:
            continue
        values = _values(own)
        without, before = (
            _values(
                rows[(rows["dataset"] == dataset) & (rows["similarity"] == one) & (rows["augmentation"] == WITHOUT)]
            )
            for one in (similarity, PRETRAINED)
        )
        for condition, members in _conditions(values.index).items():
            row = {"dataset": dataset, "similarity": similarity, "augmentation": augmentation, "condition": condition,
                   "seeds": own["seed"].nunique(), **values.loc[members].mean()}  # fmt: skip
            if condition in (EVERY, FOREIGN, *GROUPS, *CORRUPTIONS) and len(without):
                row |= _errors(values, without, before, members)
            if condition == EVERY and augmentation != WITHOUT and len(without):
                keys = [(dataset, one, similarity) for one in (augmentation, WITHOUT)]
                row["low"], row["high"] = _interval(*(hits[key] for key in keys))
            table.append(row)
    return pd.DataFrame(table, columns=list(COLUMNS))


def verdicts(table: pd.DataFrame) -> pd.DataFrame:
    """Whether each augmentation pays: dataset, similarity, augmentation, lost (MAP@R, as a share), removed, pays."""
    wide = table.pivot_table(index=["dataset", "similarity", "augmentation"], columns="condition", values="map@r")
    removed = table[table["condition"] == EVERY].set_index(["dataset", "similarity", "augmentation"])["removed"]
    rows = []
    for key in wide.index:
        dataset, similarity, augmentation = key
        if augmentation == WITHOUT or (dataset, similarity, WITHOUT) not in wide.index:
            continue
        lost = (wide.loc[(dataset, similarity, WITHOUT)] - wide.loc[key])[["unseen", "known"]].max()
        pays = bool(lost <= MOST_LOST and removed[key] >= LEAST_REMOVED)
        rows.append({"dataset": dataset, "similarity": similarity, "augmentation": augmentation, "lost": lost,
                     "removed": removed[key], "pays": pays})  # fmt: skip
    return pd.DataFrame(rows, columns=["dataset", "similarity", "augmentation", "lost", "removed", "pays"])


def _measurements(study: Study, part: str) -> pd.DataFrame:
    """A row per cell, condition with its strength, and similarity."""
    rows: list[dict[str, Any]] = [
        {"dataset": cell["dataset"], "similarity": similarity, "augmentation": cell["method"], "seed": cell["seed"],
         "condition": condition.partition(" ")[0], **values}
        for cell in study.cells(part) for condition, similarities in cell["metrics"].items()
        for similarity, values in similarities.items()
    ]  # fmt: skip
    columns = ["dataset", "similarity", "augmentation", "seed", "condition", "recall@1", "map@r"]
    order = [AUGMENTATIONS.index(row["augmentation"]) for row in rows]
    return pd.DataFrame(rows, columns=columns).iloc[np.argsort(order, kind="stable")]


def _values(rows: pd.DataFrame) -> pd.DataFrame:
    """R@1 and MAP@R of each condition, means over seeds and strengths."""
    return rows.groupby("condition", sort=False)[["recall@1", "map@r"]].mean()


def _conditions(measured: pd.Index) -> dict[str, list[str]]:
    """Condition of the table -> the measured conditions over which it is a mean."""
    corruptions = [name for name in CORRUPTIONS if name in measured]
    grouped = {name for group in GROUPS.values() for name in group}
    some = {
        EVERY: corruptions, **{name: [one for one in group if one in measured] for name, group in GROUPS.items()},
        FOREIGN: [name for name in corruptions if name not in grouped],
    }  # fmt: skip
    plain = {name: [name] for name in ("unseen", "known", CLEAN[1]) if name in measured}
    return plain | {name: of for name, of in some.items() if of} | {name: [name] for name in corruptions}


def _errors(
    values: pd.DataFrame, without: pd.DataFrame, before: pd.DataFrame, corruptions: list[str]
) -> dict[str, float]:  # fmt: skip
    own, crops, pretrained = (1 - one.loc[corruptions, "recall@1"] for one in (values, without, before))
    added = crops.mean() - (1 - without.loc[CLEAN[1], "recall@1"])
    return {
        "mce": (own / pretrained.replace(0, np.nan)).mean(), "mce of crops": (own / crops.replace(0, np.nan)).mean(),
        "removed": (crops.mean() - own.mean()) / added if added > 0 else np.nan,
    }  # fmt: skip


def _hits(study: Study, part: str) -> dict[tuple[str, str, str], pd.DataFrame]:
    """(Data set, augmentation, similarity) -> class, clean, corrupted of each query and seed."""
    parts: dict[tuple[str, str, str], list[pd.DataFrame]] = {}
    for cell in study.cells(part):
        for similarity, hits in cell["queries"]["hits"].items():
            rows = pd.DataFrame({"class": cell["queries"]["classes"], "seed": cell["seed"], **hits})
            parts.setdefault((cell["dataset"], cell["method"], similarity), []).append(rows)
    return {key: pd.concat(some, ignore_index=True) for key, some in parts.items()}


def _interval(own: pd.DataFrame, crops: pd.DataFrame) -> tuple[float, float]:
    """Both ends of the interval of `removed`; only seeds that both have count."""
    seeds = np.intersect1d(own["seed"], crops["seed"])
    own, crops = (one[one["seed"].isin(seeds)] for one in (own, crops))
    gained = own.groupby("class")["corrupted"].sum() - crops.groupby("class")["corrupted"].sum()
    added = crops.groupby("class")["clean"].sum() - crops.groupby("class")["corrupted"].sum()
    rng = np.random.default_rng(0)
    drawn: Float[np.ndarray, "draws classes"] = rng.multinomial(len(added), np.full(len(added), 1 / len(added)), DRAWS)
    totals = drawn @ added.to_numpy(float)
    shares = np.divide(drawn @ gained.to_numpy(float), totals, out=np.full(DRAWS, np.nan), where=totals > 0)
    low, high = percentile_interval(shares)
    return float(low), float(high)
