"""An ONNX file is a stranger's data: what it says is bounded and checked, and it reaches nothing outside its folder."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from vidtrain.errors import CheckpointError, ConfigError
from vidtrain.export.contract import EXPORTED, SECTION, STATE, StateArray, content_of, contract_text
from vidtrain.export.onnx_file import network_of, read_onnx
from vidtrain.export.stream import ExportedStream
from vidtrain.live.settings import StateName
from vidtrain.live.streaming_models import CarriedState, samples_at_once

SHAPES = {"rgb": (2, 4, 4, 3)}
CONTENT: dict[str, Any] = {
    "config": {"sampler": {"num_frames": 2}},
    "class_names": ["walk", "run", "fall"],
    "multi_label": False,
    "calibration": {"temperature": 1.5},
}


def model_of(*, more: list[Any] | None = None, **metadata: str) -> onnx.ModelProto:
    """The mean colour of a clip, and nothing else, with other nodes beside it."""
    nodes = [
        helper.make_node("Cast", ["rgb"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["numbers", "axes"], ["logits"], keepdims=0),
        *(more or []),
    ]
    axes = helper.make_tensor("axes", TensorProto.INT64, [3], [1, 2, 3])
    rgb = helper.make_tensor_value_info("rgb", TensorProto.UINT8, ["clips", 2, 4, 4, 3])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["clips", 3])
    graph = helper.make_graph(nodes, "mean", [rgb], [logits], [axes])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, metadata or {SECTION: contract_text(CONTENT, SHAPES)})
    return model


def test_what_it_says_becomes_a_content_and_a_network(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    onnx.save_model(model_of(), str(file))
    content = read_onnx(file)
    assert {key: content[key] for key in CONTENT} == CONTENT
    assert content[EXPORTED] == SHAPES
    network = network_of(file, content)
    clips = torch.randint(0, 256, (3, 2, 4, 4, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(network(clips), clips.float().mean((1, 2, 3)), rtol=1e-5)
    with pytest.raises(ConfigError, match="takes rgb of 2 frames of 4 x 4, got 1 of 4 x 4"):
        network(clips[:, :1])


def test_classes_may_have_names_that_are_no_utf_8(tmp_path: Path) -> None:
    names = ["caf\udce9", "喧嘩", "c"]
    onnx.save_model(
        model_of(**{SECTION: contract_text({**CONTENT, "class_names": names}, SHAPES)}), str(tmp_path / "m.onnx")
    )
    assert read_onnx(tmp_path / "m.onnx")["class_names"] == names


def changed(**values: Any) -> str:
    return json.dumps({**json.loads(contract_text(CONTENT, SHAPES)), **values})


TEXTS = {
    "no JSON": ("{", "is not what `vidtrain export` writes"),
    "a list": ("[]", "expected a mapping, got list"),
    "deep": ("[" * 100_000 + "]" * 100_000, "is not what `vidtrain export` writes"),
    "newer": (changed(export_format=3), "export_format 3, this vidtrain reads 1 and 2: update vidtrain"),
    "long": (changed(note="x" * (1 << 24)), "characters, at most 16777216 are read"),
    "no classes": (changed(class_names=[]), "class_names: expected a list of different names"),
    "one twice": (changed(class_names=["a", "a", "b"]), "class_names: expected a list of different names"),
    "multi_label": (changed(multi_label=1), "multi_label: expected true or false"),
    "config": (changed(config=[]), "its config is no mapping"),
    "other input": (changed(inputs={"audio": {"shape": [None, 1, 1, 1, 1]}}), "expected rgb, or rgb and flow"),
    "huge input": (changed(inputs={"rgb": {"shape": [None, 1 << 16, 4, 4, 3]}}), "inputs.rgb.shape: expected"),
    "true is no 1": (changed(inputs={"rgb": {"shape": [None, True, 4, 4, 3]}}), "inputs.rgb.shape: expected"),
    "no inputs": (changed(inputs=None), "is not what `vidtrain export` writes"),
    "nan": (changed(calibration={"temperature": float("nan")}), "not a number"),
}


@pytest.mark.parametrize(("text", "message"), TEXTS.values(), ids=TEXTS)
def test_another_text_is_refused(text: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=r"model\.onnx") as error:
        content_of(text, "model.onnx")
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


def outside(location: str) -> onnx.ModelProto:
    model = model_of()
    tensor = model.graph.initializer.add()
    tensor.CopyFrom(helper.make_tensor("far", TensorProto.FLOAT, [4], np.zeros(4, np.float32)))
    tensor.ClearField("float_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", location
    return model


def hidden(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same tensor in a constant of a graph within a node's attribute."""
    tensor = model.graph.initializer.pop()
    node = helper.make_node("Constant", [], ["far"], value=tensor)
    inner = helper.make_graph([node], "inner", [], [])
    model.graph.node.append(helper.make_node("Other", [], ["x"], body=inner))
    return model


def looping() -> onnx.ModelProto:
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["again"])],
        "body",
        [helper.make_tensor_value_info(n, k, []) for n, k in (("i", TensorProto.INT64), ("go", TensorProto.BOOL))],
        [helper.make_tensor_value_info("again", TensorProto.BOOL, [])],
    )
    return model_of(more=[helper.make_node("Loop", ["", ""], [], body=body)])


def unfolding() -> onnx.ModelProto:
    """30 functions that each call the next one twice: 5 kB that are 2^30 nodes once they are inlined."""
    model = model_of(more=[helper.make_node("F0", ["numbers"], ["x"], domain="own")])
    model.opset_import.append(helper.make_opsetid("own", 1))
    for n in range(30):
        kind, domain = (f"F{n + 1}", "own") if n < 29 else ("Neg", "")
        nodes = [helper.make_node(kind, [a], [b], domain=domain) for a, b in ("xy", "yz")]
        needed = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
        model.functions.append(helper.make_function("own", f"F{n}", ["x"], ["z"], nodes, needed))
    return model


MODELS: dict[str, tuple[Callable[[], onnx.ModelProto], str]] = {
    "no metadata": (lambda: model_of(other="x"), "has no metadata 'vidtrain'"),
    "absolute": (lambda: outside("/etc/passwd"), "names weights at '/etc/passwd', outside of its folder"),
    "above": (lambda: outside("../far.bin"), "names weights at '../far.bin', outside of its folder"),
    "a link": (lambda: outside("link.bin"), "names weights at 'link.bin', outside of its folder"),
    "not there": (lambda: outside("lost.bin"), "its weights 'lost.bin' are not beside it"),
    "within a node": (lambda: hidden(outside("/etc/passwd")), "names weights at '/etc/passwd'"),
    "a loop": (looping, "has a Loop, which may never end"),
    "a loop by another name": (
        lambda: model_of(more=[helper.make_node("SequenceMap", ["s"], ["x"])]),
        "has a SequenceM",
    ),
    "functions": (unfolding, "has 30 functions of its own; vidtrain writes none"),
    "of elsewhere": (
        lambda: model_of(more=[helper.make_node("Run", ["rgb"], ["x"], domain="evil")]),
        "operators of 'evil', which onnxruntime does not have",
    ),
}


@pytest.mark.parametrize(("make", "message"), MODELS.values(), ids=MODELS)
def test_another_graph_is_refused(make: Callable[[], onnx.ModelProto], message: str, tmp_path: Path) -> None:
    file = tmp_path / "here" / "model.onnx"
    file.parent.mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(16))
    (file.parent / "link.bin").symlink_to(tmp_path / "secret.bin")
    file.write_bytes(make().SerializeToString())
    with pytest.raises(CheckpointError) as error:
        read_onnx(file)
    assert message in str(error.value)
    if "metadata" in message:
        return
    with pytest.raises(CheckpointError, match=re.escape(message)):  # nor is it run without having been read
        network_of(file, {EXPORTED: SHAPES, "class_names": ["a", "b", "c"]})


def test_weights_beside_the_file_are_read(tmp_path: Path) -> None:
    (tmp_path / "near.bin").write_bytes(bytes(16))
    file = tmp_path / "model.onnx"
    file.write_bytes(outside("near.bin").SerializeToString())
    assert network_of(file, read_onnx(file)).inputs == ("rgb",)


def test_no_file_of_onnx(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    with pytest.raises(CheckpointError, match="no such file"):
        read_onnx(file)
    file.write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(CheckpointError, match="no ONNX file, or damaged"):
        read_onnx(file)
    whole = model_of().SerializeToString()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=r"no ONNX file, or damaged|has no metadata"):
        read_onnx(file)
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(CheckpointError, match="is not a regular file"):
        read_onnx(tmp_path / "folder.onnx")


def test_the_graph_takes_and_gives_what_the_metadata_says(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    for shapes, names, message in (
        ({"rgb": (2, 8, 8, 3)}, ["a", "b", "c"], "its metadata says"),
        (SHAPES, ["a", "b"], "expected logits of 2 classes"),
    ):
        text = contract_text({**CONTENT, "class_names": names}, shapes)
        onnx.save_model(model_of(**{SECTION: text}), str(file))
        with pytest.raises(CheckpointError, match=message):
            network_of(file, read_onnx(file))


@pytest.mark.parametrize(
    ("shape", "message"),
    [([1, 3], r"gives logits float32 \(1, 3\), expected float32 \(2, 3\)"), ([7, 3], "onnxruntime cannot run it: ")],
)
def test_what_it_gives_is_a_row_per_clip(shape: list[int], message: str, tmp_path: Path) -> None:
    model = model_of()
    model.graph.node[1].output[0] = "means"
    model.graph.node.append(helper.make_node("ReduceMean", ["means", "first"], ["mean"], keepdims=1))
    model.graph.node.append(helper.make_node("Reshape", ["mean", "shape"], ["logits"]))
    model.graph.initializer.append(helper.make_tensor("first", TensorProto.INT64, [1], [0]))
    model.graph.initializer.append(helper.make_tensor("shape", TensorProto.INT64, [2], shape))
    file = tmp_path / "model.onnx"
    onnx.save_model(model, str(file))
    network = network_of(file, read_onnx(file))
    with pytest.raises(CheckpointError, match=message):
        network(torch.zeros(2, 2, 4, 4, 3, dtype=torch.uint8))


# ---------------------------------------------------------------- files with a state

STATE_OF = StateArray("state_0", "next_state_0", (1, 3), "float32", 0.0)


def stream_of(state: StateArray = STATE_OF, *, step: int = 2, given: StateArray = STATE_OF) -> onnx.ModelProto:
    """The sum of the mean colours of all steps so far. given: what the graph has, in place of what is said."""
    nodes = [
        helper.make_node("Cast", ["rgb"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["numbers", "axes"], ["mean"], keepdims=0),
        helper.make_node("Add", ["mean", given.name], ["logits"]),
        helper.make_node("Identity", ["logits"], [given.next]),
    ]
    axes = helper.make_tensor("axes", TensorProto.INT64, [3], [1, 2, 3])
    rgb = helper.make_tensor_value_info("rgb", TensorProto.UINT8, [1, step, 4, 4, 3])
    float32 = TensorProto.FLOAT
    before, logits, after = (
        helper.make_tensor_value_info(name, float32, list(given.shape)) for name in (given.name, "logits", given.next)
    )
    graph = helper.make_graph(nodes, "sum", [rgb, before], [logits, after], [axes])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, {SECTION: contract_text(CONTENT, {"rgb": (step, 4, 4, 3)}, state=[state])})
    return model


def test_a_file_with_a_state_goes_on_where_it_was(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    onnx.save_model(stream_of(), str(file))
    content = read_onnx(file)
    assert content[STATE] == (STATE_OF,)
    network = network_of(file, content)
    assert isinstance(network, ExportedStream)
    assert samples_at_once(network) == 2
    clips = torch.randint(0, 256, (3, 6, 4, 4, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    wanted = clips.float().unflatten(1, (3, 2)).mean((2, 3, 4)).cumsum(1)
    assert torch.allclose(network.answers(clips[0]), wanted[0], rtol=1e-5)
    assert torch.allclose(network(clips), wanted[:, -1], rtol=1e-5)
    first, state = network.stream(clips[:1, :2])
    again, _ = network.stream(clips[:1, 2:4], state)
    assert torch.allclose(torch.cat([first, again]), wanted[0, :2], rtol=1e-5)
    with pytest.raises(ConfigError, match=r"sampler\.num_frames=5: .* takes 2 frames of a stream at once: .* as 6"):
        network(clips[:, :5])
    with pytest.raises(ConfigError, match="takes 2 frames of 4 x 4 of one stream, got"):
        network.stream(clips[:2, :2])
    carried = CarriedState(network, StateName.renewed, 2)
    found = torch.cat([carried(clips[:1, n : n + 2]) for n in (0, 2, 4)])
    assert torch.allclose(found, torch.stack([wanted[0, 0], wanted[0, 1], wanted[0, 2] - wanted[0, 0]]), rtol=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "other"}, r"takes .*, its metadata says .*other"),
        ({"shape": (1, 4)}, r"takes .*, its metadata says .*\(1, 4\)"),
        ({"dtype": "int64"}, r"takes .*, its metadata says .*tensor\(int64\)"),
        ({"next": "other"}, r"gives other None, expected \('tensor\(float\)', \(1, 3\)\)"),
    ],
)
def test_a_state_is_what_the_metadata_says(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    onnx.save_model(stream_of(replace(STATE_OF, **changes)), str(file))
    with pytest.raises(CheckpointError, match=message):
        network_of(file, read_onnx(file))


def state_text(**values: Any) -> str:
    about = json.loads(contract_text(CONTENT, SHAPES, state=[replace(STATE_OF, start=-math.inf)]))
    about["state"][0] |= values
    return json.dumps(about)


def test_the_state_of_a_text() -> None:
    assert content_of(state_text(), "m.onnx")[STATE] == (replace(STATE_OF, start=-math.inf),)
    assert STATE not in content_of(changed(), "m.onnx")


STATES = {
    "no list": (changed(export_format=2, state={}), "state: expected a list of arrays"),
    "no state": (changed(export_format=2), "is not what `vidtrain export` writes"),
    "shape": (state_text(shape=[0]), "state.0.shape: expected a list of sizes"),
    "dtype": (state_text(dtype="object"), "state.0: expected float32 from 0 or -inf, or int64 from 0"),
    "start": (state_text(start=1), "state.0: expected float32 from 0"),
    "-inf is no int": (state_text(dtype="int64"), "state.0: expected float32 from 0"),
    "huge": (state_text(shape=[1 << 20, 1 << 20]), "state: more than 268435456 numbers"),
    "name": (state_text(name="rgb"), "state: expected different names"),
    "no text": (state_text(next=1), "state.0: expected the names"),
}


@pytest.mark.parametrize(("text", "message"), STATES.values(), ids=STATES)
def test_another_state_is_refused(text: str, message: str) -> None:
    with pytest.raises(CheckpointError) as error:
        content_of(text, "model.onnx")
    assert message in str(error.value)
