"""An ONNX file whose convolutions and matrix products compute in 8 bits, by onnxruntime's static quantisation."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy.typing as npt
from torch import Tensor

from vidtrain.errors import VidtrainError
from vidtrain.export.contract import SECTION
from vidtrain.export.network import required
from vidtrain.export.onnx_file import quiet
from vidtrain.types import split_inputs

_OPERATORS: Final = ["Conv", "MatMul", "Gemm"]
"""What is quantised: where the work is. Norms, softmaxes and the preprocessing stay in float32."""
_AT_ONCE: Final = 8


def write_int8(source: Path, file: Path, clips: Mapping[str, Tensor], text: str) -> None:
    """Quantise `source` for the ranges that its tensors have on the clips: weights per channel, activations per tensor,
    as QuantizeLinear and DequantizeLinear (QDQ), which other runtimes read, too.

    clips: uint8 (N, T, H, W, C) of each input. text: of `contract_text`.

    Raises:
        VidtrainError: the file has nothing to quantise, or onnxruntime cannot.
    """
    onnx: Any = required("onnx", "int8=true", "export")
    tools: Any = required("onnxruntime.quantization", "int8=true", "export")
    prepare: Any = required("onnxruntime.quantization.shape_inference", "int8=true", "export").quant_pre_process
    with tempfile.TemporaryDirectory(dir=file.parent, prefix=".int8") as folder, quiet():
        prepared = Path(folder) / "prepared.onnx"
        try:
            # norms are folded into convolutions first: what is quantised are then the weights that are used
            prepare(str(source), str(prepared), skip_symbolic_shape=True)
            tools.quantize_static(
                str(prepared),
                str(file),
                _reader(tools, clips),
                quant_format=tools.QuantFormat.QDQ,
                op_types_to_quantize=_OPERATORS,
                per_channel=True,
                activation_type=tools.QuantType.QUInt8,
                weight_type=tools.QuantType.QInt8,
            )
        except Exception as error:  # onnxruntime's have no base of their own
            reason = " ".join(str(error).split())[:300]
            raise VidtrainError(f"int8=true: onnxruntime cannot quantise this network: {reason}") from error
    model = onnx.load_model(str(file))
    if not any(node.op_type == "QuantizeLinear" for node in model.graph.node):
        raise VidtrainError("int8=true: this network has no convolution or matrix product that could be quantised")
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {SECTION: text})
    onnx.save_model(model, str(file))


def _reader(tools: Any, clips: Mapping[str, Tensor]) -> Any:
    """The clips, several at once, as onnxruntime's calibration asks for them."""

    class _Clips(tools.CalibrationDataReader):
        def __init__(self) -> None:
            self._parts: Iterator[dict[str, npt.NDArray[Any]]] = (
                {name: value.numpy() for name, value in part.items()} for part in split_inputs(clips, _AT_ONCE)
            )

        def get_next(self) -> dict[str, npt.NDArray[Any]] | None:
            return next(self._parts, None)

    return _Clips()
