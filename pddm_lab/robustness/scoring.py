"""A run's features of corrupted pictures, and how well each of its similarities ranks by them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from pddm_lab.local.episodes import shortlist_size
from pddm_lab.local.neighbourhoods import Neighbourhoods
from pddm_lab.local.unit import LocalStructure
from pddm_lab.metrics.retrieval import outcomes
from pddm_lab.metrics.separation import separation
from pddm_lab.model.embedding import signed_power
from pddm_lab.model.engine import Engine
from pddm_lab.model.features import in_threads
from pddm_lab.model.similarity import Euclidean, Similarity
from pddm_lab.model.trunks import load_trunk
from pddm_lab.progress import Progress
from pddm_lab.robustness.pictures import Pictures
from pddm_lab.robustness.sample import PAIRS, Features, Sample
from pddm_lab.runs.local import load_local
from pddm_lab.runs.model import ImageEmbedder, embedder, load_model, load_similarities
from pddm_lab.runs.run import Run
from pddm_lab.similarities import PRETRAINED


class Embedding:
    """Makes a run's features of what its network sees of pictures.

    Args:
        run: finished.
        model: of imported features: what made them, as for `embedder`.

    Raises:
        RunError: the run has no model, or one that must be named.
    """

    def __init__(self, run: Run, model: str = "") -> None:
        self._foreign = embedder(run, model) if run.config.is_imported else None
        self.network: tuple[int, int] | None = None
        """As for `Pictures`."""
        self.threads = 1
        if self._foreign is None:
            own = load_model(run)
            self._embedding, self._local, self._power = own.embedding, load_local(run), run.config.pool_power
            self._engine = ImageEmbedder(run, own).engine
            self._engine.start()
            self._before: Engine | None = None
            if not run.config.freeze_trunk:
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(run.config.seed)
                    self._before = self._engine.of(load_trunk(run.config.trunk, run.config.weights))
                self._before.start()
            self.network, self.threads = (run.config.resize, run.config.image_size), self._engine.threads

    @torch.inference_mode()
    def __call__(self, pictures: np.ndarray) -> Features:
        """Features of pictures as `Pictures.corrupted` yields them."""
        if self._foreign is not None:
            features, _ = self._foreign.embed_all([Image.fromarray(picture) for picture in pictures])
            return Features(torch.from_numpy(features), None, None)
        pooled = torch.from_numpy(self._engine(pictures))
        before = pooled if self._before is None else torch.from_numpy(self._before(pictures))
        further = None if self._local is None else self._local.pretrained(pooled)
        pretrained = F.normalize(signed_power(before, self._power), dim=1)
        return Features(self._embedding.project(pooled), further, pretrained)

    def of(
        self, pictures: Pictures, rows: np.ndarray, name: str, strength: int, progress: Progress | None = None
    ) -> Features:  # fmt: skip
        """Features of corrupted pictures; arguments as for `Pictures.corrupted`.

        Args:
            progress: called with (pictures done, pictures, corruption and strength).
        """
        parts: list[Features] = []
        done = 0
        for part in self._parts(pictures.corrupted(rows, name, strength)):
            parts.append(part)
            done += len(part.features)
            if progress:
                progress(done, len(rows), f"{name} {strength}")
        return Features.join(parts)

    def _parts(self, pictures: Iterator[np.ndarray]) -> Iterator[Features]:
        return in_threads(self, pictures, self.threads)


class Ranking:
    """How well similarities rank.

    Args:
        similarities: name -> similarity of two features.
        structure: the similarity on local structure; None: there is none.
    """

    def __init__(self, similarities: Mapping[str, Similarity], structure: LocalStructure | None) -> None:
        self._similarities, self._structure = similarities, structure
        self._listed: tuple[Features, Neighbourhoods] | None = None

    @classmethod
    def of(cls, run: Run) -> Ranking:
        """The similarities of a finished run."""
        learned, local = load_similarities(run), load_local(run)
        # At unit length the cosine ranks like D.
        return cls({name: learned[name] for name in ("euclidean", *run.learned)}, local and local.structure)

    @torch.inference_mode()
    def outcomes(
        self, sample: Sample, queries: Features, gallery: Features
    ) -> Iterator[tuple[str, Bool[np.ndarray, " queries"], Float[np.ndarray, " queries"], dict[str, float]]]:
        """Rank by each similarity, the pretrained features included.

        Args:
            sample: what is searched among what.
            queries: features of the sample's queries.
            gallery: features of its searched items; neighbourhoods are kept for the next call with the same object.

        Yields:
            Name, whether each query's first result is right, its AP@R, and the metrics: recall@1, map@r, and of the
            distributions of positive and negative pairs auc and each mean and deviation.
        """
        for name, similarity in self._similarities.items():
            scores = similarity.matrix(queries.features, gallery.features).float()
            yield _measure(sample, name, scores, scores.gather(1, sample.pairs))
        if self._structure is not None:
            yield _measure(sample, "local", *self._by_neighbours(sample, queries, gallery))
        if queries.pretrained is not None and gallery.pretrained is not None:
            scores = Euclidean().matrix(queries.pretrained, gallery.pretrained)
            yield _measure(sample, PRETRAINED, scores, scores.gather(1, sample.pairs))

    def _by_neighbours(
        self, sample: Sample, queries: Features, gallery: Features
    ) -> tuple[Float[Tensor, "queries searched"], Float[Tensor, "queries pairs"]]:
        """L of each query's shortlist, with the order of D below it; and of the pairs."""
        assert self._structure is not None
        if self._listed is None or self._listed[0] is not gallery:
            self._listed = gallery, self._structure.reference(gallery.features, gallery.further)
        reference = self._listed[1]
        distances = -torch.cdist(queries.features, gallery.features)
        largest = int(sample.searched_labels.unique(return_counts=True)[1].max())
        near = min(shortlist_size(largest), len(reference))
        nearest, space = distances.topk(near, dim=1).indices, self._structure.space(queries.features, queries.further)
        rows = torch.cat([nearest, sample.pairs], dim=1)
        scores, of_pairs = self._structure.candidates(reference, space, rows).tensor_split([near], dim=1)
        return distances.add_(scores.min() - 1).scatter_(1, nearest, scores), of_pairs


def _measure(
    sample: Sample, name: str, scores: Float[Tensor, "queries searched"], of_pairs: Float[Tensor, "queries pairs"]
) -> tuple[str, Any, Any, dict[str, float]]:
    hits, precisions = outcomes(scores, sample.query_labels, sample.searched_labels)
    positive, negative = (np.sort(part.ravel()) for part in np.split(of_pairs.numpy(), [PAIRS[0]], axis=1))
    metrics = {
        "recall@1": float(hits.double().mean()), "map@r": float(precisions.mean()),
        "auc": separation(positive, negative)["auc"],
        "positive_mean": float(positive.mean(dtype=float)), "positive_deviation": float(positive.std(dtype=float)),
        "negative_mean": float(negative.mean(dtype=float)), "negative_deviation": float(negative.std(dtype=float)),
    }  # fmt: skip
    return name, hits.numpy(), precisions.numpy(), metrics
