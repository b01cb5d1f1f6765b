"""What an export's export.json and a run's formats.json must hold."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pddm_lab.files import Content, Count, Text
from pddm_lab.similarities import SIMILARITIES

FORMATS = ("onnx", "openvino", "executorch")
PRECISIONS = ("32", "fp16", "int8")
KINDS = [(name, bits) for name in FORMATS for bits in PRECISIONS if name != "executorch" or bits == "32"]
"""Every format with its precisions."""
MOST_AT_ONCE = 8
"""Images or pairs in a call of an ExecuTorch program, which reserves the memory for them."""
EMBEDDING, SCORE = "embedding", "score"
"""Names of the two graphs, and of their files without the ending."""
ENDINGS = {"onnx": (".onnx",), "openvino": (".xml", ".bin"), "executorch": (".pte",)}
"""Endings of a graph's files by format, the one to open first."""

_FileName = Annotated[str, Field(pattern=r"^\w[\w.-]*$")]
"""A file beside export.json: no path leads out of the folder."""
_Size = Annotated[int, Field(ge=1, le=2**20)]
_Finite = Annotated[float, Field(allow_inf_nan=False)]


class FileContent(Content):
    """Size and hash of a file."""

    bytes: Count
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class ImageContent(Content):
    """How a picture becomes the input of the embedding: RGB, uint8, (n, 3, side, side). The graph normalises it."""

    resize: _Size
    """Length of the shorter side after scaling, in pixels."""
    side: _Size
    """Side of the square that is cut from the middle, in pixels."""


class AgreementContent(Content):
    """How far the graphs were from torch when they were written."""

    features: _Finite
    """In 32 bits the largest difference of a value of a feature, in fewer 1 minus the mean cosine."""
    scores: _Finite
    """Largest difference of a score, as a share of the deviation of the scores."""


class ExportContent(Content):
    """export.json. None of it depends on the number of classes, except the copy of the gallery."""

    format: Literal[1]
    run: Text
    lab: Text
    """Version of the lab."""
    engine: Literal[FORMATS]  # type: ignore[valid-type]
    precision: Literal[PRECISIONS]  # type: ignore[valid-type]
    image: ImageContent
    dim: _Size
    """Dimensions of a feature; it has unit length. They are the first in a row of the embedding's output."""
    similarity: Literal[tuple(SIMILARITIES)]  # type: ignore[valid-type]
    """The similarity of the score: two batches of features to one value a pair; larger is more similar."""
    parameters: Count
    """Of both graphs."""
    model_bytes: Count
    """Of both graphs' files."""
    agreement: AgreementContent
    local: bool = False
    """Whether the files of the similarity on local structure are beside the graphs, see export/local.py."""
    pretrained_dim: Annotated[int, Field(ge=0, le=2**20)] = 0
    """Values that follow a feature in a row of the embedding's output: p, of unit length, for that similarity."""
    gallery: Text
    """Protocol of the gallery beside the graphs; empty if there is none."""
    files: dict[_FileName, FileContent]


class FormatRow(Content):
    """One measured format of a run's model."""

    engine: Text
    precision: Text
    model_bytes: Count
    milliseconds: _Finite
    """For one picture on one core, without decoding."""
    protocols: dict[Text, dict[Text, float]]
    """protocol -> metric -> value: recall@1 and map@r by D, score_recall@1 and score_map@r by the run's similarity, and
    unchanged@10, the share of each query's ten nearest that are torch's too."""


class FormatsContent(Content):
    """formats.json of a run."""

    format: Literal[1]
    measured: Text
    """When, as an ISO time."""
    processor: Text
    similarity: Literal[tuple(SIMILARITIES)]  # type: ignore[valid-type]
    parameters: Count
    rows: list[FormatRow]
