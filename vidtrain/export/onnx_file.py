"""ONNX files: written by torch.export and PyTorch's exporter, and asked through onnxruntime.

A file of anybody's is a graph of operators: it can compute, and neither import nor call anything. What it could still
do is checked before it runs: name files outside its folder as weights, or loop without end.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from vidtrain.errors import CheckpointError
from vidtrain.export.contract import EXPORTED, OUTPUTS, SECTION, STATE, StateArray, content_of
from vidtrain.export.network import Arrays, ExportedNetwork, Shapes, required
from vidtrain.export.stream import ExportedStream, State
from vidtrain.untrusted_data import check_regular, is_below

_LARGEST: Final = (1 << 31) - 1  # bytes: no protobuf is larger
_INSIDE: Final = 1_800_000_000  # bytes of weights that stay in the file itself
_LOOPS: Final = ("Loop", "Scan", "If", "SequenceMap")
_DOMAINS: Final = ("", "ai.onnx", "com.microsoft")
"""Of operators: ONNX's own, and those of onnxruntime's quantisation."""
_TYPES: Final = {"float32": "tensor(float)", "int64": "tensor(int64)"}


def write_onnx(
    program: torch.export.ExportedProgram,
    file: Path,
    text: str,
    inputs: tuple[str, ...],
    state: Sequence[StateArray] = (),
) -> None:
    """Write a program of `trace`, or with a state one of `trace_stream`. Weights beyond 1.8 GB go to FILE.data beside
    it, as a protobuf has an end.

    text: of `contract_text`. What the exporter notes of the machine that it ran on, paths of sources, is taken out.
    """
    names = [[*inputs, *(one.name for one in state)], [*OUTPUTS, *(one.next for one in state)]]
    with quiet():
        made: Any = torch.onnx.export(program, dynamo=True, input_names=names[0], output_names=names[1], verbose=False)
    model = made.model
    for graph in (model.graph, *model.functions.values()):
        graph.metadata_props.clear()
        for node in graph.all_nodes():
            node.metadata_props.clear()
            node.doc_string = None
        for value in (*graph.inputs, *graph.outputs):
            value.metadata_props.clear()
    model.metadata_props.clear()
    model.metadata_props[SECTION] = text
    held = sum(t.numel() * t.element_size() for t in program.state_dict.values())
    made.save(str(file), external_data=held > _INSIDE)


def read_onnx(path: Path) -> dict[str, Any]:
    """What a file of `vidtrain export` says of itself, as a checkpoint's content, see `content_of`.

    Raises:
        CheckpointError: no such file, no ONNX, one without the metadata, or one that may not run, see `_check`.
    """
    return content_of(_text(_read(path), path), str(path))


def open_onnx(path: Path, shapes: Shapes, classes: int) -> ExportedNetwork:
    """A session of onnxruntime on the CPU, with as many threads as PyTorch has.

    Args:
        shapes: of its inputs, as its metadata has them. classes: of its outputs.

    Raises:
        CheckpointError: as `read_onnx`; other inputs or outputs than these.
    """
    session = _session(path)
    _check_ends(session, shapes, classes, path)

    def run(arrays: Arrays) -> Any:
        clips = len(next(iter(arrays.values())))
        return _answered(session, [OUTPUTS[0]], arrays, (clips, classes), path)[0]

    return ExportedNetwork(run, shapes, str(path))


def open_stream(path: Path, shapes: Shapes, classes: int, state: Sequence[StateArray]) -> ExportedStream:
    """The same of a file that goes on from a state."""
    session = _session(path)
    _check_ends(session, shapes, classes, path, state)
    names, outputs = [one.name for one in state], [OUTPUTS[0], *(one.next for one in state)]

    def run(frames: Any, before: State) -> Any:
        arrays = {"rgb": frames, **dict(zip(names, before, strict=True))}
        logits, *after = _answered(session, outputs, arrays, (1, classes), path)
        return logits, after

    return ExportedStream(run, shapes["rgb"], state, str(path))


def _session(path: Path) -> Any:
    runtime: Any = required("onnxruntime", "an ONNX file", "export")
    model = _read(path)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    # the bytes that were checked; a file with its weights beside it is opened by its name
    content: Any = str(path) if _beside(model) else model.SerializeToString()
    del model
    try:
        session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's have no base of their own
        raise CheckpointError(f"{path}: onnxruntime does not take it: {' '.join(str(error).split())[:300]}") from None
    return session


def _answered(session: Any, outputs: list[str], arrays: Arrays, wanted: tuple[int, int], path: Path) -> list[Any]:
    """The outputs; the first are logits of the shape that is wanted."""
    try:
        found: list[Any] = session.run(outputs, dict(arrays))
    except Exception as error:  # see above
        raise CheckpointError(f"{path}: onnxruntime cannot run it: {' '.join(str(error).split())[:300]}") from None
    if found[0].shape != wanted or found[0].dtype != np.float32:
        raise CheckpointError(
            f"{path}: gives {OUTPUTS[0]} {found[0].dtype} {found[0].shape}, expected float32 {wanted}"
        )
    return found


def network_of(path: Path, content: Mapping[str, Any]) -> ExportedNetwork | ExportedStream:
    """The network of a file whose content `read_onnx` gave."""
    classes = len(content["class_names"])
    if STATE in content:
        return open_stream(path, content[EXPORTED], classes, content[STATE])
    return open_onnx(path, content[EXPORTED], classes)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without what the exporters print of their own work."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


# ---------------------------------------------------------------- a file of anybody's


def _read(path: Path) -> Any:
    """The protobuf of a file that may run, without the weights beside it.

    Raises:
        CheckpointError: it may not, or is none.
    """
    onnx: Any = required("onnx", "an ONNX file", "export")
    if not path.is_file():
        raise CheckpointError(f"{path}: {'is not a regular file' if path.exists() else 'no such file'}")
    try:
        check_regular(path)
        size = path.stat().st_size
        model = onnx.load_model(str(path), format="protobuf", load_external_data=False) if size <= _LARGEST else None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from None
    except Exception as error:  # of protobuf's own kinds, which differ between its versions
        raise CheckpointError(f"{path}: no ONNX file, or damaged ({type(error).__name__})") from None
    if model is None:
        raise CheckpointError(f"{path}: {size} bytes, no ONNX file has more than {_LARGEST}")
    _check(model, path)
    return model


def _text(model: Any, path: Path) -> str:
    found = [entry.value for entry in model.metadata_props if entry.key == SECTION]
    if len(found) != 1:
        raise CheckpointError(
            f"{path}: has no metadata {SECTION!r}, which says what clips it takes: `vidtrain export` has not written it"
        )
    return str(found[0])


def _check(model: Any, path: Path) -> None:
    """Raise CheckpointError for weights outside of the folder, functions, loops, operators that onnxruntime lacks."""
    if model.functions:  # 30 that call the next one twice are 2^30 nodes when they are inlined
        raise CheckpointError(f"{path}: has {len(model.functions)} functions of its own; vidtrain writes none")
    for part in _messages(model):
        kind = part.DESCRIPTOR.name
        if kind == "NodeProto":
            if part.op_type in _LOOPS and part.domain in _DOMAINS[:2]:
                raise CheckpointError(f"{path}: has a {part.op_type}, which may never end; vidtrain writes none")
            if part.domain not in _DOMAINS:
                raise CheckpointError(f"{path}: operators of {part.domain[:80]!r}, which onnxruntime does not have")
        elif kind == "TensorProto" and part.external_data:
            _check_beside({entry.key: entry.value for entry in part.external_data}.get("location"), path)


def _check_beside(location: Any, path: Path) -> None:
    inside = is_below(location) and (path.parent / location).resolve().is_relative_to(path.parent.resolve())
    if not inside:
        raise CheckpointError(f"{path}: names weights at {str(location)[:80]!r}, outside of its folder")
    if not (path.parent / location).is_file():
        raise CheckpointError(f"{path}: its weights {location[:80]!r} are not beside it")


def _beside(model: Any) -> bool:
    return any(part.DESCRIPTOR.name == "TensorProto" and part.external_data for part in _messages(model))


def _messages(model: Any) -> Iterator[Any]:
    """Every message within a protobuf, of graphs within graphs, too."""
    rest = [model]
    while rest:
        one = rest.pop()
        yield one
        for field, value in one.ListFields():
            if field.type == field.TYPE_MESSAGE:
                rest += value if hasattr(value, "append") or hasattr(value, "add") else [value]


def _check_ends(session: Any, shapes: Shapes, classes: int, path: Path, state: Sequence[StateArray] = ()) -> None:
    """Inputs and outputs are those that the metadata names."""
    states = {one.name: (_TYPES[one.dtype], one.shape) for one in state}
    inputs = {
        one.name: (one.type, tuple(one.shape if one.name in states else one.shape[1:])) for one in session.get_inputs()
    }
    wanted = {name: ("tensor(uint8)", tuple(shape)) for name, shape in shapes.items()} | states
    if inputs != wanted:
        raise CheckpointError(f"{path}: takes {str(inputs)[:200]}, its metadata says {str(wanted)[:200]}")
    outputs = {one.name: (one.type, tuple(one.shape)) for one in session.get_outputs()}
    if outputs.get(OUTPUTS[0], ("", ()))[1][1:] != (classes,):
        raise CheckpointError(f"{path}: gives {str(outputs)[:200]}, expected {OUTPUTS[0]} of {classes} classes")
    for one in state:
        if outputs.get(one.next) != states[one.name]:
            raise CheckpointError(f"{path}: gives {one.next} {outputs.get(one.next)}, expected {states[one.name]}")
