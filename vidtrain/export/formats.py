"""The formats beside ONNX: torch.export's own, OpenVINO's, ExecuTorch's. vidtrain writes and compares them; programs
that have these runtimes ask them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from vidtrain.export.contract import SECTION
from vidtrain.export.network import Arrays, ExportedNetwork, Shapes, required
from vidtrain.export.onnx_file import quiet
from vidtrain.export.trace import NotExportableError

PT2_TEXT: Final = f"{SECTION}.json"
"""Name of the text within a .pt2 file."""


def write_pt2(program: torch.export.ExportedProgram, file: Path, text: str) -> None:
    """For torch.export.load, which gives the text by extra_files={PT2_TEXT: ""}."""
    with quiet(), file.open("wb") as out:  # a path is written by C++, to which a full disk is a mistake of ours
        torch.export.save(program, out, extra_files={PT2_TEXT: text})


def open_pt2(file: Path, shapes: Shapes) -> ExportedNetwork:
    """A file that this very command has written: torch.export.load unpickles."""
    with quiet():
        module: Any = torch.export.load(file).module()

    def run(arrays: Arrays) -> Any:
        return module(*(torch.from_numpy(arrays[name]) for name in shapes))[0].detach().numpy()

    return ExportedNetwork(run, shapes, str(file))


def write_openvino(onnx: Path, file: Path, text: str) -> None:
    """An .xml and a .bin beside it, of an ONNX file, in float32; the text is in the model's rt_info."""
    openvino: Any = required("openvino", "format=openvino", "openvino")
    model = openvino.convert_model(str(onnx))
    model.set_rt_info(text, [SECTION])
    openvino.save_model(model, str(file), compress_to_fp16=False)


def open_openvino(file: Path, shapes: Shapes) -> ExportedNetwork:
    """On the CPU in float32; by itself OpenVINO takes bfloat16 where the processor has it."""
    openvino: Any = required("openvino", "format=openvino", "openvino")
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    compiled = openvino.compile_model(str(file), "CPU", options)

    def run(arrays: Arrays) -> Any:
        return np.array(compiled(dict(arrays))[0])  # a copy: the next answer takes the same memory

    return ExportedNetwork(run, shapes, str(file))


def write_executorch(program: torch.export.ExportedProgram, file: Path, text: str) -> None:
    """A .pte for XNNPACK, what that lacks on the portable kernels; the text is its constant method SECTION."""
    edge: Any = required("executorch.exir", "format=executorch", "executorch")
    xnnpack: Any = required(
        "executorch.backends.xnnpack.partition.xnnpack_partitioner", "format=executorch", "executorch"
    )
    try:
        with quiet():
            lowered = edge.to_edge_transform_and_lower(
                program, partitioner=[xnnpack.XnnpackPartitioner()], constant_methods={SECTION: text}
            ).to_executorch()
    except Exception as error:  # of a dozen kinds
        reason = " ".join(str(error).split())[:300]
        raise NotExportableError(
            f"ExecuTorch has no program of this network: {type(error).__name__}: {reason}"
        ) from error
    with file.open("wb") as out:
        lowered.write_to_file(out)


def open_executorch(file: Path, shapes: Shapes) -> ExportedNetwork:
    """A file that this command has written, by ExecuTorch's Python bindings."""
    runtime: Any = required("executorch.runtime", "format=executorch", "executorch")
    method = runtime.Runtime.get().load_program(str(file)).load_method("forward")

    def run(arrays: Arrays) -> Any:
        try:
            found = method.execute([torch.from_numpy(arrays[name]) for name in shapes])
        except RuntimeError as error:
            raise NotExportableError(
                f"format=executorch: ExecuTorch cannot run the network: {error}; it lacks kernels, such as "
                "that of 3D convolutions"
            ) from None
        return found[0].numpy().copy()

    return ExportedNetwork(run, shapes, str(file))
