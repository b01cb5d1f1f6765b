"""Fewer bits for an ONNX graph: weights in 16 bits, or weights and values in 8.

16 bits are for the weights alone: processors compute in 32, and converting values back and forth at every layer would
take time and digits. 8 bits are static: the ranges of values come from pictures, since dynamic ranges break networks
with depthwise convolutions. A scale per channel or one per layer: both are made, and the better one is kept.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from jaxtyping import UInt8
from onnx import TensorProto, helper, numpy_helper

from pddm_lab.export.graphs import quiet

SMALL = 256
"""Fewer numbers than this stay in 32 bits."""
_QUANTISED = ["Conv", "Clip", "Relu", "MatMul", "Gemm", "Add", "AveragePool", "MaxPool", "Concat"]
"""Clip and Relu are here because a layer's range is that of its values after them."""
_CALIBRATED_AT_ONCE = 16


def with_half_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a model with its weights stored in 16 bits, and converted to 32 when it is loaded."""
    halved = onnx.ModelProto()
    halved.CopyFrom(model)
    casts = []
    for weight in halved.graph.initializer:
        if weight.data_type != TensorProto.FLOAT or np.prod(weight.dims) < SMALL:
            continue
        values, name = numpy_helper.to_array(weight), weight.name
        if np.abs(values).max() > np.finfo(np.float16).max:
            continue
        weight.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}_16"))
        casts.append(helper.make_node("Cast", [f"{name}_16"], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *halved.graph.node]
    del halved.graph.node[:]
    halved.graph.node.extend(nodes)
    return halved


def quantised(model: onnx.ModelProto, images: UInt8[np.ndarray, "n 3 side side"]) -> Iterator[onnx.ModelProto]:
    """An embedding in 8 bits: with one scale a layer, then with a scale a channel.

    Its head is left as it is: it is small, and what follows the signed power spreads over a wide range.

    Args:
        model: of an embedding, in 32 bits.
        images: prepared pictures that give the ranges of values.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Pictures(CalibrationDataReader):
        def __init__(self) -> None:
            self._parts = iter(np.array_split(images, -(-len(images) // _CALIBRATED_AT_ONCE)))

        def get_next(self) -> dict[str, np.ndarray] | None:
            part = next(self._parts, None)
            return None if part is None else {"images": part}

    head = [node.name for node in model.graph.node if node.op_type in ("MatMul", "Gemm")][-1:]
    with tempfile.TemporaryDirectory() as folder:
        source, target = (str(Path(folder) / name) for name in ("32.onnx", "8.onnx"))
        for per_channel in (False, True):
            onnx.save(model, source)
            with quiet():
                quantize_static(
                    source, target, Pictures(), quant_format=QuantFormat.QDQ, per_channel=per_channel,
                    activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, op_types_to_quantize=_QUANTISED,
                    nodes_to_exclude=head,
                )  # fmt: skip
            yield onnx.load(target)
