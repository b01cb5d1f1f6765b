"""Write the folder of an updated run: the new model, and all galleries embedded and measured with it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from pddm_lab.analysis import saved_queries
from pddm_lab.data.images import open_image
from pddm_lab.data.uploads import taken_over
from pddm_lab.files import replacing
from pddm_lab.gallery.files import THUMB_SIDE, thumbnail, write_files
from pddm_lab.gallery.gallery import Gallery
from pddm_lab.gallery.upkeep import keep_up
from pddm_lab.metrics.retrieval import evaluate
from pddm_lab.metrics.separation import Distribution
from pddm_lab.model.embedding import MetricModel
from pddm_lab.progress import Bar
from pddm_lab.runs.local import RunLocal
from pddm_lab.runs.model import TRAINED
from pddm_lab.runs.run import PROTOCOLS, Run
from pddm_lab.runs.versions import model_stamp
from pddm_lab.training.finish import measured_similarities
from pddm_lab.training.local_evaluation import Sides, evaluate_local
from pddm_lab.update.material import Material, Stored

_LOGS = ("metrics.parquet", "quadruplets.parquet")


class Learned(NamedTuple):
    """An updated model."""

    model: MetricModel
    local: RunLocal | None

    @torch.no_grad()
    def embed(
        self, pooled: Float[Tensor, "items trunk_dim"]
    ) -> tuple[Float[Tensor, "items dim"], Float[Tensor, "items pretrained"] | None]:
        """Features of the frozen trunk's, and pretrained ones where local structure uses them."""
        return self.model.embedding.project(pooled), None if self.local is None else self.local.pretrained(pooled)


def write_run(
    folder: Path, before: Run, info: Mapping[str, Any], learned: Learned, material: Material, trained: set[str],
    bar: Bar,
) -> Run:  # fmt: skip
    """Write all of an updated run but its maps, which are drawn later.

    Args:
        folder: new, hidden until it is whole.
        before: the run that was updated; its logs of training are kept.
        info: content of the new run.json without metrics.
        trained: ids of the items that have trained the model.
        bar: opens a progress bar.
    """
    folder.mkdir()
    run = Run(folder, {**info, "metrics": {}, "local": None})
    run.save_model(learned.model.state_dict(), {"step": info["step"], "config": info["config"]})
    if learned.local is not None:
        learned.local.save(run)
    with replacing(folder / TRAINED) as file:
        pd.DataFrame({"id": sorted(trained)}, dtype="string").to_parquet(file, index=False)
    for name in _LOGS:
        if (before.path / name).is_dir():
            shutil.copytree(before.path / name, folder / name)
    for name, stored in material.stored.items():
        _write_gallery(run, name, stored, learned, material, bar)
    run.update()
    return run


def _write_gallery(run: Run, name: str, stored: Stored, learned: Learned, material: Material, bar: Bar) -> None:
    grows = stored is material.catalogue
    items, files, gallery = stored.items.drop(columns="place"), stored.files, stored.gallery
    if grows:
        items, files = pd.concat([items, material.new], ignore_index=True), material.files
        metadata = [column for column in items if column.startswith("metadata.")]
        items[metadata] = items[metadata].fillna("")
    sources, to = items["picture"].tolist(), run.path.with_name(run.info["name"])
    own = [str(taken_over(Path(file), run.path, to)) if isinstance(file, str) and file else file for file in sources]
    items["picture"] = pd.Series(own, items.index, items["picture"].dtype)
    if items["picture"].isna().all():
        items = items.drop(columns="picture")
    features, pretrained = learned.embed(material.pooled[torch.from_numpy(files)])

    def thumb(row: int) -> bytes:
        if row < len(gallery):
            return gallery.thumb(row)
        return thumbnail(open_image(Path(sources[row]), 2 * THUMB_SIDE))

    distributions: dict[str, Distribution] = {}
    if name in PROTOCOLS:
        with bar(f"evaluate {name}") as report:
            report(0, 1, name)
            distributions = _measured(run, name, items, features, pretrained, learned)
            report(1, 1, name)
    counts = gallery.manifest.get("changed")
    if grows and name in PROTOCOLS:
        counts = {"added": len(material.new), "removed": 0}
    with bar(f"gallery {name}") as report:
        write_files(
            run.path / "gallery" / name, name, features.numpy(), items, thumb, distributions, report, counts,
            None if pretrained is None else pretrained.numpy(), model_stamp(run.path),
        )  # fmt: skip
        written = Gallery.open(run.path / "gallery" / name)
        if learned.local is not None:
            keep_up(written, learned.local.structure, report)
    if (kept := saved_queries.read(gallery)) is not None:
        _keep_queries(written, kept.items["id"].tolist(), material if grows else None)


def _measured(
    run: Run, name: str, items: pd.DataFrame, features: Tensor, pretrained: Tensor | None, learned: Learned
) -> dict[str, Distribution]:
    """Measure a protocol with all similarities, and note the metrics in the run."""
    query, gallery = (np.flatnonzero(items["role"].isin([role, "both"])) for role in ("query", "gallery"))
    labels, leave_one_out = items["label"].to_numpy(copy=True), np.array_equal(query, gallery)
    evaluations = {
        similarity: evaluate(
            learned.model.similarity(similarity), features[query], features[gallery], labels[query], labels[gallery],
            leave_one_out, nmi=similarity == "euclidean",
        )
        for similarity in measured_similarities(run)
    }  # fmt: skip
    if learned.local is not None:
        of_items, of_query, of_gallery = (torch.from_numpy(part) for part in (labels, query, gallery))
        sides = Sides(features, pretrained, of_items, of_query, of_gallery, leave_one_out)
        evaluations |= dict(evaluate_local(learned.local, sides))
    for similarity, evaluation in evaluations.items():
        run.set_metrics(name, similarity, evaluation.metrics)
    return {similarity: evaluation.distribution for similarity, evaluation in evaluations.items()}


def _keep_queries(gallery: Gallery, ids: list[str], material: Material | None) -> None:
    """Keep the saved queries that are still there, and new pictures that didn't train, as the new model sees them."""
    if material is not None:
        ids = ids + material.new["id"].iloc[material.held - len(material.catalogue.items)].tolist()
    rows = np.flatnonzero(gallery.items["id"].isin(ids))
    if not len(rows):
        return  # all of them have left
    chosen = gallery.items.iloc[rows][["id", "label", "class_name"]].reset_index(drop=True)
    further = None if gallery.pretrained is None else np.array(gallery.pretrained[rows])
    saved_queries.keep(gallery, chosen, np.array(gallery.features[rows]), further)
