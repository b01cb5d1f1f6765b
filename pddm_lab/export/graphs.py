"""A run's model as two modules that torch can export, and their graphs in ONNX or as programs of ExecuTorch.

The embedding: uint8 images to features, with the normalisation, the signed power and the scaling to unit length inside.
Where a similarity on local structure needs pretrained features too, they follow in the same row.
The score: features of both ends of pairs to their similarity. Both take any number of images or pairs.
"""

from __future__ import annotations

import copy
import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from pddm_lab.export.schema import EMBEDDING, MOST_AT_ONCE, SCORE
from pddm_lab.model.embedding import EmbeddingNet, MetricModel, signed_power
from pddm_lab.model.familiarity import STEEPNESS, FamiliarPDDM, PretrainedPart, split_parts
from pddm_lab.model.similarity import Similarity
from pddm_lab.model.trunks import fuse_batch_norms

if TYPE_CHECKING:
    import onnx

TRACED = 2
"""Images or pairs that a module is traced with: with 1 the batch would be fixed."""


class Graphs(nn.Module):
    """What leaves the lab of a model: its embedding, with batch norms fused, and one similarity.

    Args:
        model: of a run, in evaluation mode; not changed.
        similarity: name of the similarity.
        side: of the images, in pixels.
        part: of the run's similarity on local structure; None: no pretrained features.
    """

    def __init__(self, model: MetricModel, similarity: str, side: int, part: PretrainedPart | None = None) -> None:
        super().__init__()
        network = model.embedding
        embedding = EmbeddingNet(fuse_batch_norms(network.trunk), network.head.out_features, network.power)
        embedding.head, embedding.pretrained = copy.deepcopy(network.head), copy.deepcopy(network.pretrained)
        self.dim, self.pretrained_dim = embedding.dim, 0 if part is None else part.directions.shape[1]
        self.embedding: nn.Module = embedding if part is None else _BothFeatures(embedding, copy.deepcopy(part))
        self.score = _score_module(copy.deepcopy(model.similarity(similarity)))
        self.side = side
        self.eval().requires_grad_(False)

    @property
    def parameters_count(self) -> int:
        """Numbers that the graphs hold: weights, and what was computed from the training items."""
        return sum(value.numel() for value in self.state_dict().values())

    def examples(self) -> dict[str, tuple[Tensor, ...]]:
        """Inputs to trace each module with, by its name."""
        random = torch.Generator().manual_seed(0)
        images = torch.randint(256, (TRACED, 3, self.side, self.side), dtype=torch.uint8, generator=random)
        features = torch.nn.functional.normalize(torch.randn(2, TRACED, self.dim, generator=random), dim=-1)
        return {"embedding": (images,), "score": (features[0], features[1])}


class _BothFeatures(nn.Module):
    """The features of images and their pretrained features, side by side, each of unit length."""

    def __init__(self, embedding: EmbeddingNet, part: PretrainedPart) -> None:
        super().__init__()
        self.embedding, self.part = embedding, part

    def forward(self, images: UInt8[Tensor, "n 3 side side"]) -> Float[Tensor, "n both"]:
        """Rows of both."""
        pooled = self.embedding.trunk(images)
        further = self.part(signed_power(pooled, self.embedding.power))
        return torch.cat([self.embedding.project(pooled), further], dim=-1)


class FamiliarScore(nn.Module):
    """S of `FamiliarPDDM` for pairs, with nothing that depends on the values of its buffers.

    All rows for centres are kept, the unused ones filled with the first, so that the size is the same for any number of
    classes.
    """

    centres: Tensor

    def __init__(self, familiar: FamiliarPDDM) -> None:
        super().__init__()
        self.familiar = familiar
        centres = familiar.centres.clone()
        centres[int(familiar.used) :] = centres[0]
        self.register_buffer("centres", centres)
        del familiar.centres, familiar.used

    def forward(self, a: Float[Tensor, "pairs joined"], b: Float[Tensor, "pairs joined"]) -> Float[Tensor, " pairs"]:
        """Scores of pairs; larger is more similar."""
        (x_a, p_a), (x_b, p_b) = split_parts(a), split_parts(b)
        familiar = (self._familiarity(x_a) + self._familiarity(x_b)) / 2
        d, p = (x_a - x_b).norm(dim=-1), (p_a - p_b).norm(dim=-1)
        return self.familiar._faded(self.familiar.unit(x_a, x_b), d, p, familiar)

    def _familiarity(self, x: Float[Tensor, "pairs dim"]) -> Float[Tensor, " pairs"]:
        return torch.sigmoid(STEEPNESS * ((x @ self.centres.T).amax(1) - self.familiar.threshold))


class _LocalScore(nn.Module):
    """S of `FamiliarPDDM` before it knows any class: the unit's score of the embedding's part of the features."""

    def __init__(self, familiar: FamiliarPDDM) -> None:
        super().__init__()
        self.unit = familiar.unit

    def forward(self, a: Float[Tensor, "pairs joined"], b: Float[Tensor, "pairs joined"]) -> Float[Tensor, " pairs"]:
        return self.unit(split_parts(a)[0], split_parts(b)[0])


def _score_module(similarity: Similarity) -> nn.Module:
    if isinstance(similarity, FamiliarPDDM):
        return FamiliarScore(similarity) if int(similarity.used) else _LocalScore(similarity)
    return similarity


def to_onnx(module: nn.Module, example: tuple[Tensor, ...], inputs: list[str], output: str) -> onnx.ModelProto:
    """A module as an ONNX model whose first dimension may have any size.

    Args:
        module: in evaluation mode.
        example: inputs to trace it with, `TRACED` in each.
        inputs, output: names in the model.
    """
    batch = torch.export.Dim("batch")
    with quiet():
        program = torch.onnx.export(
            module, example, dynamo=True, dynamic_shapes=[{0: batch} for _ in example], input_names=inputs,
            output_names=[output], external_data=False, verbose=False,
        )  # fmt: skip
    assert program is not None
    model = program.model_proto
    for described in (model, model.graph, *model.graph.node, *model.graph.value_info):
        del described.metadata_props[:]  # where in which file a node comes from: large, and of no use elsewhere
    return model


def to_executorch(module: nn.Module, example: tuple[Tensor, ...]) -> bytes:
    """A module as a program of ExecuTorch, computed by XNNPACK, for 1 to `MOST_AT_ONCE` images or pairs at a time.

    Args:
        module: in evaluation mode.
        example: inputs to trace it with, `TRACED` in each.

    Raises:
        ModuleNotFoundError: ExecuTorch is not installed.
    """
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    batch = torch.export.Dim("batch", min=1, max=MOST_AT_ONCE)
    module = copy.deepcopy(module).to(memory_format=torch.contiguous_format)  # as XNNPACK's passes expect it
    with quiet():
        program = torch.export.export(module, example, dynamic_shapes=tuple({0: batch} for _ in example))
        lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
        return bytes(lowered.to_executorch().buffer)


@contextmanager
def quiet() -> Iterator[None]:
    """Without the output of exporters, which report their progress and warn of what they decide themselves."""
    level, streams = logging.root.manager.disable, io.StringIO()
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(streams), redirect_stderr(streams):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def as_onnx(graphs: Graphs) -> dict[str, onnx.ModelProto]:
    """Both graphs in 32 bits, by name."""
    examples = graphs.examples()
    return {
        "embedding": to_onnx(graphs.embedding, examples["embedding"], ["images"], "features"),
        "score": to_onnx(graphs.score, examples["score"], ["a", "b"], "scores"),
    }


def as_executorch(graphs: Graphs) -> dict[str, bytes]:
    """Both graphs as programs of ExecuTorch, by name."""
    examples = graphs.examples()
    return {name: to_executorch(getattr(graphs, name), examples[name]) for name in (EMBEDDING, SCORE)}


@torch.inference_mode()
def torch_features(graphs: Graphs, images: UInt8[Tensor, "n 3 side side"]) -> Float[Tensor, "n both"]:
    """Features as torch computes them in 32 bits, with pretrained ones where there are."""
    return torch.cat([graphs.embedding(part) for part in images.split(32)])
