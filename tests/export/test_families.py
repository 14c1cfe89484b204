"""Every architecture as an ONNX file: the same logits for any number of clips, to 1e-4 of their deviation; those with a
state frame by frame, to 1e-5."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from tests.models.parity import drawn_weights
from vidtrain import build
from vidtrain.errors import CheckpointError
from vidtrain.export import onnx_file
from vidtrain.export.contract import contract_text
from vidtrain.export.network import Deployable, DeployableStream, OriginalNetwork
from vidtrain.export.onnx_file import open_onnx, open_stream, write_onnx
from vidtrain.export.parity import Ask, Parity, compare
from vidtrain.export.stream import OriginalStream, compare_streams
from vidtrain.export.trace import random_frames, trace, trace_stream
from vidtrain.live.streaming_models import samples_at_once
from vidtrain.options.presets import list_models, section_as_written

CLASSES = 8
FRAMES: dict[str, int] = {"c3d": 16}
"""Of networks that need more than eight."""
SIZES: dict[str, int] = {"mvit_v1_b": 32, "swin3d_t": 64}
OPTIONS: dict[str, dict[str, Any]] = {
    "swin3d_t": {"width": 12, "depths": [1, 2, 1, 1], "heads": [1, 2, 2, 4]},
    "mvit_v1_b": {"width": 12, "depths": [1, 1, 2, 1]},
    "mvit_v2_s": {"width": 12, "depths": [1, 1, 2, 1]},
    "hiera_tiny": {},
    "inflated": {"backbone": "tiny"},
    "i3d_r50_nonlocal": {"width": 8},
    "timm_frames": {"head": "attentive"},
}
WRITTEN = (
    *("slow_fusion", "early_fusion", "late_fusion", "single_frame", "alternating3d"),
    *("c3d", "i3d_tiny", "s3d_tiny", "r2plus1d_tiny", "i3d_resnet_tiny", "i3d_r50_nonlocal", "slow_tiny", "csn_tiny"),
    *("x3d_tiny", "slowfast_tiny", "movinet_tiny", "movinet_tiny_stream", "inflated", "two_stream_tiny"),
    *("r3d_18", "r2plus1d_34", "c2d_r50", "csn_r101"),
    *("tsn_tiny", "tsm_tiny", "timm_frames"),
    *("cnn_lstm_tiny", "rcn_tiny", "st_lstm_tiny", "convlstm_tiny", "convlstm_attention_tiny", "convlstm_dilated_tiny"),
    *("convlstm_deformable_tiny", "convlstm_hierarchical_tiny"),
    *("timesformer_tiny", "vivit_tiny", "videomae_tiny", "vjepa2_tiny", "hiera_tiny", "uniformerv2_tiny"),
    *("swin3d_t", "mvit_v1_b", "mvit_v2_s"),
)
TRACED = ("convlstm_tiny", "uniformerv2_tiny", "vivit_tiny")


def deployable(model: str, options: Mapping[str, Any] | None = None) -> tuple[Deployable, dict[str, tuple[int, ...]]]:
    """A thin network with drawn weights, and the shapes of its inputs."""
    frames, size = FRAMES.get(model, 8), SIZES.get(model, 32)
    net = build.create_model(
        model, num_classes=CLASSES, num_frames=frames, size=size, **(options or OPTIONS.get(model, {}))
    )
    drawn_weights(net)
    network = Deployable(net.eval(), [0.45] * 3, [0.225] * 3, multi_label=False).eval()
    shapes = {"rgb": (frames, size, size, 3), "flow": (frames - 1, size, size, 2)}
    return network, {name: shapes[name] for name in network.inputs}


def parity(network: Deployable, shapes: Mapping[str, tuple[int, ...]], exported: Ask) -> Parity:
    return compare(OriginalNetwork(network), exported, random_frames(shapes, 7), multi_label=False)


@pytest.mark.parametrize("model", ["vjepa2_tiny", *(pytest.param(name, marks=pytest.mark.slow) for name in TRACED)])
def test_a_program_takes_any_number_of_clips(model: str) -> None:
    """Where that number was once taken for a constant: len(x) is one to torch.export, x.shape[0] is none."""
    network, shapes = deployable(model)
    module = trace(network, shapes).module()

    def exported(inputs: Mapping[str, Tensor]) -> Tensor:
        logits: Tensor = module(*(inputs[name] for name in shapes))[0]
        return logits

    assert parity(network, shapes, exported).within(1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("model", WRITTEN)
def test_an_onnx_file_gives_the_networks_logits(model: str, tmp_path: Path) -> None:
    network, shapes = deployable(model)
    content = {"class_names": list("abcdefgh"), "config": {}}
    write_onnx(trace(network, shapes), tmp_path / "model.onnx", contract_text(content, shapes), network.inputs)
    found = parity(network, shapes, open_onnx(tmp_path / "model.onnx", shapes, CLASSES))
    print(f"\n| `{model}` | {found.relative:.1e} |")
    assert found.within(1e-4), str(found)
    assert found.std > 1e-3  # drawn weights make it depend on the clip


STREAMED: dict[str, dict[str, Any]] = {
    **{name: {} for name in WRITTEN if "lstm" in name},
    "rcn_tiny": {},
    "movinet_tiny_stream": {},
    "feature_rnn_tiny": {"clip": 2, "network": "slow_fusion"},
    "timm_frames": {"head": "recurrent"},
}


@pytest.mark.slow
@pytest.mark.parametrize("model", STREAMED)
def test_a_file_with_a_state_gives_the_networks_logits(model: str, tmp_path: Path) -> None:
    """After each step of streams of 8 and of 48 frames."""
    network = deployable(model, STREAMED[model])[0]
    step = samples_at_once(network.model) * getattr(network.model, "period", 1)
    clips = random_frames({"rgb": (8, 32, 32, 3)}, 7)
    first, shapes = clips["rgb"][:1, :step], {"rgb": (step, 32, 32, 3)}
    deployed = DeployableStream(network, first)
    content, state = {"class_names": list("abcdefgh"), "config": {}}, deployed.described()
    text = contract_text(content, shapes, state=state)
    write_onnx(trace_stream(deployed, first), tmp_path / "model.onnx", text, network.inputs, state)
    exported = open_stream(tmp_path / "model.onnx", shapes, CLASSES, state)
    found = compare_streams(OriginalStream(network, step), exported, clips, multi_label=False)
    print(f"\n| `{model}` | {step} | {len(state)} | {found.relative:.1e} |")
    assert found.within(1e-5), str(found)
    assert found.clips == 56 // step
    assert found.std > 1e-3


@pytest.mark.slow
def test_weights_that_a_protobuf_has_no_room_for_lie_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_file, "_INSIDE", 1000)
    network, shapes = deployable("early_fusion")
    content = {"class_names": list("abcdefgh"), "config": {}}
    write_onnx(trace(network, shapes), tmp_path / "model.onnx", contract_text(content, shapes), network.inputs)
    weights = tmp_path / "model.onnx.data"
    assert weights.stat().st_size > 10 * (tmp_path / "model.onnx").stat().st_size
    assert parity(network, shapes, open_onnx(tmp_path / "model.onnx", shapes, CLASSES)).within(1e-4)
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="onnxruntime does not take it"):
        open_onnx(tmp_path / "model.onnx", shapes, CLASSES)


def test_every_architecture_is_listed() -> None:
    """A new file in models/ is exported here, too, or named in docs/export.md with the reason."""

    def home(model: str) -> str:
        return str(section_as_written(model)["_target_"]).split(".")[-2]

    written = {home(model) for model in WRITTEN}
    text = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")
    assert not sorted(name for name in {home(model) for model in list_models()} - written if f"`{name}`" not in text)
