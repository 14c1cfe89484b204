"""What an exported file says of itself, as JSON inside it: its classes, their calibration, and the clips that it takes.

The text stands in the metadata of an ONNX file under SECTION, in the other formats where these keep such things. It has
the keys of a checkpoint, without weights: one file is enough to ask the network. It is a stranger's data.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from vidtrain.engine.checkpoints.checkpoint import FORMAT
from vidtrain.engine.checkpoints.content_checks import check_content
from vidtrain.errors import CheckpointError
from vidtrain.untrusted_data import are_texts, check_plain, parse_json

SECTION: Final = "vidtrain"
"""The name under which a file has the text."""
EXPORTED: Final = "exported"
"""Key of a checkpoint's content that came out of an exported file: its inputs, see `content_of`."""
STATE: Final = "state"
"""Key of such a content, and of the JSON, of a file that goes on from a state: its arrays, see StateArray."""
INPUTS: Final = ("rgb", "flow")
"""What an exported network can read: frames as they are decoded, uint8 (clips, frames, height, width, channels)."""
OUTPUTS: Final = ("logits", "probs")
_EXPORT_FORMAT: Final = 1
_STREAM_FORMAT: Final = 2
"""Of files with a state, which a vidtrain that knows none of them must refuse."""
_LONGEST: Final = 1 << 24  # characters
_MOST_STATE: Final = 1 << 28  # elements of a state
_AXES: Final = "clips, frames, height, width, channels"


@dataclass(frozen=True)
class StateArray:
    """One array of a state.

    name, next: of the input before a step and of the output after it. dtype: float32 or int64. start: what the input
    is filled with before the first frame, 0 or -inf.
    """

    name: str
    next: str
    shape: tuple[int, ...]
    dtype: str
    start: float


def contract_text(
    content: Mapping[str, Any],
    inputs: Mapping[str, Sequence[int]],
    *,
    background: bool = False,
    state: Sequence[StateArray] = (),
) -> str:
    """The JSON of a file.

    Args:
        content: plain values as a checkpoint has them: config, class_names, multi_label, calibration.
        inputs: shape of each without the clips, (T, H, W, C).
        background: of the probabilities, see Deployable.
        state: of a file that goes on from one.
    """
    several = bool(content.get("multi_label"))
    kind = "sigmoid of the logits" if several else "softmax of the logits"
    if background:
        kind = "softmax of the logits and 0, which stands for nothing, without its probability"
    described = {
        name: {"shape": [1 if state else None, *shape], "dtype": "uint8", "axes": _AXES, "channels": _channels(name)}
        for name, shape in inputs.items()
    }
    about = {
        "export_format": _STREAM_FORMAT if state else _EXPORT_FORMAT,
        "inputs": described,
        "outputs": {
            "logits": "float32 (clips, classes)",
            "probs": f"{kind}, before any calibration",
        },
        "class_names": list(content["class_names"]),
        "multi_label": several,
        "calibration": content.get("calibration"),
        "config": content["config"],
    }
    if state:
        about[STATE] = [
            {**vars(one), "shape": list(one.shape), "start": "-inf" if one.start == -math.inf else 0} for one in state
        ]
    text = json.dumps(about, ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")  # names that are no UTF-8, as JSON has them: \udcff


def _channels(name: str) -> str:
    return "R, G, B as decoded; the graph normalises them" if name == "rgb" else "codes of the flow, right and down"


def content_of(text: str, source: str) -> dict[str, Any]:
    """What a checkpoint's content would be, of the text of a file; its weights are none.

    Under EXPORTED stand its inputs, by name the shape of each without the clips; under STATE its arrays, if any.

    Raises:
        CheckpointError: another text than `contract_text` makes.
    """
    if len(text) > _LONGEST:
        raise CheckpointError(f"{source}: its metadata has {len(text)} characters, at most {_LONGEST} are read")
    try:
        about = parse_json(text)
        check_plain(about, "its metadata")
        return _content(about, source)
    except CheckpointError:
        raise
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise CheckpointError(f"{source}: its metadata is not what `vidtrain export` writes: {reason}") from None


def _content(about: Any, source: str) -> dict[str, Any]:
    if not isinstance(about, dict):
        raise ValueError(f"expected a mapping, got {type(about).__name__}")  # noqa: TRY004 - one type for all
    kind = about.get("export_format")
    if type(kind) is not int or kind not in (_EXPORT_FORMAT, _STREAM_FORMAT):
        raise CheckpointError(
            f"{source}: export_format {str(kind)[:40]}, this vidtrain reads {_EXPORT_FORMAT} and {_STREAM_FORMAT}: "
            "update vidtrain, or export the checkpoint again"
        )
    names = about.get("class_names")
    if not are_texts(names) or not names or len(set(names)) != len(names):
        raise ValueError("class_names: expected a list of different names")
    if type(about.get("multi_label")) is not bool:
        raise ValueError("multi_label: expected true or false")
    inputs = {name: _shape(name, value) for name, value in about["inputs"].items()}
    if tuple(inputs) not in (INPUTS[:1], INPUTS):
        raise ValueError(f"inputs: expected rgb, or rgb and flow, got {', '.join(inputs)[:80]}")
    kept = {key: about.get(key) for key in ("config", "class_names", "multi_label", "calibration")}
    content = {"format": FORMAT, "model": {}, EXPORTED: inputs, **kept}
    if kind == _STREAM_FORMAT:
        if tuple(inputs) != INPUTS[:1]:
            raise ValueError("inputs: a file with a state reads rgb alone")
        content[STATE] = _state(about[STATE])
    check_content(content)
    return content


def _shape(name: str, value: Any) -> tuple[int, ...]:
    shape = value["shape"]
    if type(shape) is not list or len(shape) != 5 or not all(type(n) is int and 0 < n < 1 << 16 for n in shape[1:]):
        raise ValueError(f"inputs.{name}.shape: expected [null, frames, height, width, channels]")
    return tuple(shape[1:])


def _state(value: Any) -> tuple[StateArray, ...]:
    if type(value) is not list or not value:
        raise ValueError("state: expected a list of arrays")
    arrays = []
    for n, one in enumerate(value):
        shape, dtype, start = one["shape"], one["dtype"], one["start"]
        if type(shape) is not list or len(shape) > 8 or not all(type(size) is int and size > 0 for size in shape):
            raise ValueError(f"state.{n}.shape: expected a list of sizes")
        if dtype not in ("float32", "int64") or start not in ((0, "-inf") if dtype == "float32" else (0,)):
            raise ValueError(f"state.{n}: expected float32 from 0 or -inf, or int64 from 0")
        if not are_texts([one["name"], one["next"]]):
            raise ValueError(f"state.{n}: expected the names of an input and an output")
        arrays.append(StateArray(one["name"], one["next"], tuple(shape), dtype, float(start)))
    if sum(math.prod(one.shape) for one in arrays) > _MOST_STATE:
        raise ValueError(f"state: more than {_MOST_STATE} numbers")
    if len({name for one in arrays for name in (one.name, one.next)} | {*INPUTS, *OUTPUTS}) != 2 * len(arrays) + 4:
        raise ValueError("state: expected different names")
    return tuple(arrays)
