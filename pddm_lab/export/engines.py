"""Run an exported graph with the library of its format, on the CPU. Only ExecuTorch's needs torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pddm_lab.errors import RunError
from pddm_lab.export.schema import MOST_AT_ONCE
from pddm_lab.model.openvino_core import openvino_core

Graph = Callable[..., np.ndarray]
"""Arrays in, in the order of the graph's inputs; one array out."""


def load_graph(file: Path, threads: int = 0) -> Graph:
    """The graph in a file: .onnx for onnxruntime, .xml for OpenVINO, or .pte for ExecuTorch, whose runtime needs torch.

    Args:
        file: its path.
        threads: cores to use; 0: all there are. ExecuTorch decides itself.

    Raises:
        RunError: the library can't read it.
        ModuleNotFoundError: the library is not installed.
    """
    load = {".onnx": _onnx, ".xml": _openvino, ".pte": _executorch}[file.suffix]
    try:
        return load(file, threads)
    except ImportError:
        raise
    except Exception as error:  # both raise several kinds for a damaged file; all mean the same here
        reason = " ".join(str(error).split())[:200]
        raise RunError(f"{file} is damaged, or is no graph that this version can run: {reason}") from error


def _onnx(file: Path, threads: int) -> Graph:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]
    return lambda *arrays: session.run(None, dict(zip(names, arrays, strict=True)))[0]


def _openvino(file: Path, threads: int) -> Graph:
    # Without this hint some processors compute in 16 bits, whatever the precision of the file.
    options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    if threads:
        options["INFERENCE_NUM_THREADS"] = threads
    core = openvino_core()
    compiled = core.compile_model(core.read_model(file), "CPU", options)
    # Copied: the result would be overwritten by the next call.
    return lambda *arrays: np.array(compiled(list(arrays))[0])


def _executorch(file: Path, threads: int) -> Graph:
    import torch
    from executorch.runtime import Runtime

    method = Runtime.get().load_program(file).load_method("forward")

    def run(*arrays: np.ndarray) -> np.ndarray:
        inputs = [torch.from_numpy(array).split(MOST_AT_ONCE) for array in arrays]
        # Copied: the result would be overwritten by the next call.
        return np.concatenate([method.execute(part)[0].numpy().copy() for part in zip(*inputs, strict=True)])

    return run
