"""Reading files of weights: what they are wrapped in, what is refused, and what the account of a loading says."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import vidtrain
from tests.models import parity
from vidtrain.errors import CheckpointError
from vidtrain.models.weights.image_network_names import _efficientnet
from vidtrain.models.weights.layout import any_key, classes, count, rename
from vidtrain.models.weights.load import describe_weights, load_weights
from vidtrain.models.weights.read import without_prefix
from vidtrain.models.weights.recognise import LAYOUTS

OPTIONS = {"depth": 14, "width": 4}


@pytest.fixture(scope="module")
def net() -> nn.Module:
    torch.manual_seed(0)
    return vidtrain.create_model("slow_r50", num_classes=7, **OPTIONS)


def fresh(num_classes: int = 7) -> nn.Module:
    torch.manual_seed(1)
    return vidtrain.create_model("slow_r50", num_classes=num_classes, **OPTIONS)


def same(a: nn.Module, b: nn.Module) -> bool:
    other = b.state_dict()
    return all(torch.equal(tensor, other[key]) for key, tensor in a.state_dict().items())


@pytest.mark.parametrize("wrapper", ["state_dict", "model_state", "model", "module", "model_state_dict"])
def test_wrappers_and_prefixes_fall_away(net: nn.Module, wrapper: str, tmp_path: Path) -> None:
    state = {f"module._orig_mod.{key}": value for key, value in net.state_dict().items()}
    torch.save({"epoch": 3, "cfg": "TRAIN:\n", wrapper: state, "optimizer_state": {"state": {}}}, tmp_path / "a.pyth")
    model = fresh()
    report = load_weights(model, tmp_path / "a.pyth")
    assert same(model, net)
    assert (report.head, report.left_out, report.loaded) == (None, (), len(state))
    assert report.to_text() == f"{tmp_path / 'a.pyth'}: vidtrain 3D ResNet weights, {len(state)} tensors loaded"


def test_nested_wrappers(net: nn.Module) -> None:
    model = fresh()
    load_weights(model, {"model": {"state_dict": net.state_dict()}})
    assert same(model, net)


@pytest.mark.parametrize("name", ["w.pt", "w.pth", "w.pth.tar", "w.bin"])
def test_files_of_any_name(net: nn.Module, name: str, tmp_path: Path) -> None:
    old = name == "w.pth"
    torch.save(net.state_dict(), tmp_path / name, _use_new_zipfile_serialization=not old)
    model = fresh()
    load_weights(model, str(tmp_path / name))
    assert same(model, net)


def test_safetensors_and_folders_of_the_hub(net: nn.Module, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save_file(net.state_dict(), file)
    for source in (file, tmp_path):
        model = fresh()
        assert load_weights(model, source).source == str(file)
        assert same(model, net)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="cannot be read as safetensors"):
        load_weights(fresh(), file)


class Code:
    """Something that unpickling would build."""


def test_a_file_that_could_run_code_is_refused_and_says_what_it_holds(net: nn.Module, tmp_path: Path) -> None:
    torch.save({"state_dict": net.state_dict(), "trainer": Code()}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"Python objects \(.*Code\).*save its state_dict alone") as caught:
        load_weights(fresh(), tmp_path / "a.pth")
    assert "\n" not in str(caught.value)


def test_plain_arguments_beside_the_weights_do_no_harm(net: nn.Module, tmp_path: Path) -> None:
    torch.save({"model": net.state_dict(), "args": argparse.Namespace(lr=0.1)}, tmp_path / "a.pth")
    model = fresh()
    load_weights(model, tmp_path / "a.pth")
    assert same(model, net)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"epoch": 1, "loss": 0.5}, r"no tensors in it, its keys: epoch, loss; expected a state dict"),
        ({"state_dict": {"epoch": 1}}, r"no tensors in it under state_dict, its keys: epoch"),
        ([1, 2], r"no tensors in it, list; expected"),
    ],
)
def test_files_without_weights(content: Any, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=message):
        load_weights(fresh(), tmp_path / "a.pt")


def test_files_that_are_not_there_or_damaged(net: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="none\\.pt: no such file"):
        load_weights(fresh(), tmp_path / "none.pt")
    with pytest.raises(CheckpointError, match=r"a folder without model\.safetensors, pytorch_model\.bin or best\.pt"):
        load_weights(fresh(), tmp_path)
    torch.save(net.state_dict(), tmp_path / "a.pt")
    (tmp_path / "a.pt").write_bytes((tmp_path / "a.pt").read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"cannot be read as weights \(1000 bytes\)"):
        load_weights(fresh(), tmp_path / "a.pt")


def test_what_is_no_tensor_is_left_out_and_said(net: nn.Module) -> None:
    report = load_weights(fresh(), {**net.state_dict(), "best": 0.5})
    assert report.left_out == (("best", "not a tensor"),)
    assert "skipped (not a tensor): best" in report.to_text()


# ---------------------------------------------------------------- the head


def test_a_head_of_another_size_stays_fresh(net: nn.Module) -> None:
    model, before = fresh(5), fresh(5).fc.weight.clone()
    report = load_weights(model, net.state_dict())
    assert torch.equal(model.fc.weight, before)
    assert torch.equal(model.conv1.weight, net.conv1.weight)
    assert report.head == "checkpoint has 7 classes, model has 5"
    assert set(report.left_out) == {("fc.weight", "another last layer"), ("fc.bias", "another last layer")}
    assert "classification head re-initialised: checkpoint has 7 classes, model has 5" in report.to_text()


def test_a_file_without_a_head(net: nn.Module) -> None:
    state = {f"backbone.{key}": value for key, value in net.state_dict().items() if not key.startswith("fc.")}
    model = fresh()
    report = load_weights(model, state)
    assert report.head == "the file has none"
    assert torch.equal(model.conv1.weight, net.conv1.weight)


def test_a_head_of_other_features_is_an_error(net: nn.Module) -> None:
    state = {**net.state_dict(), "fc.weight": torch.zeros(7, 5)}
    with pytest.raises(CheckpointError, match=r"1 of another shape \(fc\.weight is \(7, 5\), here \(7, 128\)\)"):
        load_weights(fresh(), state)


def test_counters_may_be_missing(net: nn.Module) -> None:
    state = {key: value for key, value in net.state_dict().items() if not key.endswith("num_batches_tracked")}
    model = fresh()
    load_weights(model, state)
    assert torch.equal(model.layer4[0].bn3.running_var, net.layer4[0].bn3.running_var)


def test_half_precision_files_fill_a_full_precision_net(net: nn.Module) -> None:
    model = fresh()
    load_weights(model, {key: value.half() if value.is_floating_point() else value
                         for key, value in net.state_dict().items()})  # fmt: skip
    assert model.conv1.weight.dtype == torch.float32
    torch.testing.assert_close(model.conv1.weight, net.conv1.weight, rtol=1e-3, atol=1e-3)


# ---------------------------------------------------------------- recognising


def test_an_unknown_layout_is_named_by_its_keys() -> None:
    state = {"a.weight": torch.zeros(2, 3), "b.bias": torch.zeros(4)}
    with pytest.raises(CheckpointError, match=r"keys of no layout known here: a\.weight, b\.bias; ResNet3d's own are"):
        load_weights(fresh(), state)
    info = describe_weights(state)
    assert (info.layout, info.model, info.options, info.num_classes) == (None, None, {}, None)
    assert (info.tensors, info.parameters, info.first_keys) == (2, 10, ("a.weight", "b.bias"))
    assert "not known here; its first keys: a.weight, b.bias" in info.to_text()
    assert "none of the catalogue takes it" in info.to_text()


def test_a_description_says_how_to_build_the_model(net: nn.Module) -> None:
    info = describe_weights(net.state_dict())
    assert (info.layout, info.model, info.num_classes) == ("vidtrain 3D ResNet", "slow_r50", 7)
    assert info.options == OPTIONS
    text = info.to_text()
    assert "model    model=slow_r50" in text
    assert "options  model.depth=14 model.width=4" in text
    assert info.parameters == sum(t.numel() for t in net.state_dict().values() if t.is_floating_point())


def test_our_own_checkpoints_say_what_they_are(tmp_path: Path) -> None:
    model = vidtrain.create_model("csn_tiny", num_classes=3, num_frames=8, size=32)
    config = {"model": {"_target_": "vidtrain.models.csn_tiny.csn_tiny", "num_frames": 8, "size": 32, "width": 16}}
    content = {"format": 1, "model": model.state_dict(), "config": config, "class_names": ["a", "b", "c"]}
    torch.save(content, tmp_path / "best.pt")
    info = describe_weights(tmp_path / "best.pt")
    assert (info.layout, info.model) == ("vidtrain checkpoint", "csn_tiny")
    assert info.options == {"num_frames": 8, "size": 32, "width": 16}
    other = vidtrain.create_model("csn_tiny", num_classes=3, num_frames=8, size=32)
    load_weights(other, tmp_path / "best.pt")
    assert same(model, other)


def test_every_published_key_layout_is_recognised_by_one_layout() -> None:
    parity.rules()
    files = sorted((parity.FOLDER / "key_layouts").glob("*.txt"))
    assert files
    for file in files:
        shapes = {key: tuple(tensor.shape) for key, tensor in parity.key_layout(file.stem).items()}
        found = [layout.name for layout in LAYOUTS if layout.matches(shapes)]
        assert len(found) == 1, (file.stem, found)


@pytest.mark.parametrize(
    "name", ["movinet_a0_base", "hf_videomae_tiny", "tsm_resnet18", "uniformerv2_tiny_lmhra", "hiera_tiny_video"]
)
@pytest.mark.parametrize("shape", [None, (), (0, 0), (3,)])
def test_tensors_that_are_missing_or_of_other_shapes(name: str, shape: tuple[int, ...] | None, net: nn.Module) -> None:
    parity.rules()
    for first in range(3):
        state = dict(parity.key_layout(name))
        for key in list(state)[first::3]:
            if shape is None:
                del state[key]
            else:
                state[key] = torch.empty(shape)
        assert describe_weights(state).tensors == len(state)
        with pytest.raises(CheckpointError):
            load_weights(net, state)


def test_a_number_of_a_block_that_python_does_not_read() -> None:
    state = {f"blocks.{'1' * 5000}.res_blocks.0.branch1_conv.weight": torch.zeros(1)}
    assert describe_weights(state).layout is None
    key = f"_blocks.{'1' * 5000}.x"
    assert _efficientnet({key: torch.zeros(1)}, nn.Identity()).keys() == {key}


def test_layouts_have_names_of_their_own() -> None:
    names = [layout.name for layout in LAYOUTS]
    assert len(set(names)) == len(names)


def test_without_prefix_takes_one_off_when_all_have_it() -> None:
    a, b = torch.zeros(1), torch.zeros(1)
    assert without_prefix({"module.x": a, "module.y": b}).keys() == {"x", "y"}
    assert without_prefix({"module.x": a, "y": b}).keys() == {"module.x", "y"}
    assert without_prefix({}) == {}


def test_helpers_of_layouts() -> None:
    shapes = {"layer1.0.w": (1,), "layer1.1.w": (1,), "layer2.0.w": (1,), "head.weight": (9, 2)}
    assert any_key(shapes, r"layer2\.")
    assert not any_key(shapes, r"ayer2\.")
    assert count(shapes, r"layer1\.(\d+)\.") == 2
    assert classes(shapes, "head.weight") == {"num_classes": 9}
    assert classes(shapes, "fc.weight") == {}
    state = {"a.x": torch.zeros(1), "b.x": torch.zeros(2)}
    assert rename(state, [(r"^a\.", "c."), (r"^c\.", "d.")]).keys() == {"d.x", "b.x"}
    with pytest.raises(CheckpointError, match=r"mean the same here, b\.x: a\.x and b\.x"):
        rename(state, [(r"^a\.", "b.")])
