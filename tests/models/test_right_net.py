"""The right net from a file, or a question: what no tensor shows comes from the configuration beside them, and what
nothing shows is said with the key that changes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import yaml  # type: ignore[import-untyped]
from torch import nn

import vidtrain
from tests.models import parity
from tests.models.test_parity_resnets import MMA, PSF, renamed, thin
from tests.models.test_parity_transformers import _hub_vivit, small
from vidtrain.errors import CheckpointError
from vidtrain.models.weights.load import describe_weights, load_weights
from vidtrain.models.weights.read import read_weights

THIN = {"depth": 14, "width": 8}
NLN = {**THIN, "fusion_kernel": 5, "nonlocal_blocks": ["layer3.0"]}


def same_logits(a: nn.Module, b: nn.Module, frames: int = 16, size: int = 32) -> None:
    x = torch.randn(1, 3, frames, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(a.eval()(x), b.eval()(x), rtol=1e-4, atol=1e-4)


# ---------------------------------------------------------------- PySlowFast


@pytest.mark.parametrize(("alpha", "mode"), [(4, "dot_product"), (8, "softmax")])
def test_a_checkpoint_of_pyslowfast_says_it_in_its_configuration(alpha: int, mode: str, tmp_path: Path) -> None:
    """Both nets have the same tensors."""
    ours = {"softmax": "embedded_gaussian"}.get(mode, mode)
    net = thin("slowfast_r50", **NLN, alpha=alpha, nonlocal_mode=ours)
    cfg = {
        "DATA": {"NUM_FRAMES": 16, "SAMPLING_RATE": 3, "TEST_CROP_SIZE": 128, "TRAIN_JITTER_SCALES": [160, 200],
                 "MEAN": [0.4, 0.5, 0.6], "STD": [0.2, 0.2, 0.2]},
        "TEST": {"NUM_SPATIAL_CROPS": 1},
        "SLOWFAST": {"ALPHA": alpha},
        "NONLOCAL": {"INSTANTIATION": mode, "LOCATION": [[[], []], [[], []], [[0], []], [[], []]]},
    }  # fmt: skip
    torch.save({"model_state": renamed(net, PSF), "cfg": yaml.safe_dump(cfg), "epoch": 1}, tmp_path / "a.pyth")
    info = describe_weights(tmp_path / "a.pyth")
    copy = vidtrain.create_model(str(info.model), num_classes=7, **info.options)
    report = load_weights(copy, tmp_path / "a.pyth")
    assert not [note for note in report.notes if "assumed" in note]
    same_logits(copy, net)
    expected = "16 frames every 3 of the source, scaled to a short side of 160, crops of 128, mean 0.4 0.5 0.6, std 0.2"
    assert report.expects.to_text().startswith(expected)


def test_without_it_the_published_net_is_assumed_and_said() -> None:
    """SLOWFAST_NLN_8x8_R50: 4 fast frames for a slow one, although its lateral convolutions are those of 4x16."""
    net = thin("slowfast_r50", **NLN, alpha=4, nonlocal_mode="dot_product")
    state = renamed(net, PSF)
    info = describe_weights(state)
    assert info.options["nonlocal_mode"] == "dot_product"
    assert "alpha" not in info.options
    copy = vidtrain.create_model("slowfast_r50", num_classes=7, **info.options)
    notes = load_weights(copy, state).notes
    assert any("assumed is model.alpha=4; published are 8 (4x16)" in note for note in notes)
    assert any("assumed is model.nonlocal_mode=dot_product" in note for note in notes)
    same_logits(copy, net)
    plain = thin("slowfast_r50", **THIN, fusion_kernel=5, alpha=8)
    assert describe_weights(renamed(plain, PSF)).options["alpha"] == 8
    i3d = thin("i3d_r50", depth=26, width=8, nonlocal_blocks=["layer2.1"])
    assert "nonlocal_mode" not in describe_weights(renamed(i3d, PSF)).options


@pytest.mark.parametrize("cfg", ["a: [1, 2", "- 1", "!!python/object/apply:os.system ['true']", 7, "x: " + "[" * 600])
def test_a_configuration_that_is_none_says_nothing(cfg: Any, tmp_path: Path) -> None:
    torch.save({"model_state": renamed(thin("slow_r50", **THIN), PSF), "cfg": cfg}, tmp_path / "a.pyth")
    assert read_weights(tmp_path / "a.pyth").said == {}
    assert describe_weights(tmp_path / "a.pyth").model == "slow_r50"


# ---------------------------------------------------------------- MMAction2


class Pooled(nn.Module):
    """MMAction2's C2D: the stem's pooling without padding, and every two frames pooled after the first stage."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        net = self.net
        x = F.max_pool3d(net.relu(net.bn1(net.conv1(x))), (1, 3, 3), (1, 2, 2))
        x = F.max_pool3d(net.layer1(x), (2, 1, 1))
        return net.fc(net.layer4(net.layer3(net.layer2(x))).mean((2, 3, 4)))


@pytest.mark.filterwarnings("ignore:.*which is a no-op")  # nothing is copied on the meta device
def test_c2d_with_pooling_in_time_is_what_the_user_means_by_naming_it() -> None:
    net = thin("c2d_r50", depth=50, width=64, pool_padding=0)
    state = {key: tensor.squeeze(2) if tensor.ndim == 5 else tensor for key, tensor in renamed(net, MMA).items()}
    assert describe_weights(state).model == "tsn_r50"
    info = describe_weights(state, "c2d_r50")
    assert (info.model, info.options) == ("c2d_r50", {"pool_padding": 0})
    assert info.expects.stride == 8
    with torch.device("meta"):
        tsn = vidtrain.create_model("tsn_r50", num_classes=7)
    assert any("model=c2d_r50 model.pool_padding=0" in note for note in load_weights(tsn, state).notes)
    copy = vidtrain.create_model("c2d_r50", num_classes=7, **info.options).eval()
    load_weights(copy, state)
    x = torch.randn(1, 3, 4, 48, 48)
    with torch.no_grad():
        torch.testing.assert_close(copy(x), Pooled(net)(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("mode", ["gaussian", "dot_product", "embedded_gaussian"])
def test_tsm_with_non_local_blocks_of_any_kind(mode: str) -> None:
    options = {"backbone": "resnet18", "nonlocal_blocks": ["layer2.0", "layer3.1"], "nonlocal_mode": mode}
    net = vidtrain.create_model("tsm_r50", num_classes=7, **options).eval()
    parity.drawn_weights(net)
    rules = [
        (r"^new_fc\.", "fc."),
        (r"^base_model\.", ""),
        (r"(layer\d\.\d+)\.conv1\.", r"\1.conv1.conv.net."),
        *[rule for rule in MMA if "conv(\\d)" not in rule[0]],
        (r"(layer\d\.\d+)\.conv2\.(?!bn)", r"\1.conv2.conv."),
    ]
    state = renamed(net, rules)
    info = describe_weights(state)
    assert info.model == "tsm_r50"
    assert info.options.get("nonlocal_mode") == ("gaussian" if mode == "gaussian" else None)
    copy = vidtrain.create_model(
        "tsm_r50", num_classes=7, **info.options, **({"nonlocal_mode": mode} if mode != "gaussian" else {})
    )
    report = load_weights(copy, state)
    same_logits(copy, net, frames=8)
    assert any(f"assumed is model.nonlocal_mode={mode}" in note for note in report.notes) == (mode != "gaussian")


# ---------------------------------------------------------------- transformers


@pytest.mark.parametrize("model", ["timesformer", "vivit", "videomae_vit_b"])
def test_a_net_without_biases_of_queries_and_keys(model: str) -> None:
    net = small(model)
    parity.drawn_weights(net)
    state = {k: v for k, v in net.state_dict().items() if not k.endswith(("qkv.bias", "q_bias", "v_bias"))}
    for key, tensor in net.state_dict().items():
        if key not in state:
            tensor.zero_()
    if model == "vivit":
        state = _hub_vivit(state)
    if model == "videomae_vit_b":  # without q_bias the names tell nothing, but in the model they are its own
        state = {f"videomae.{k}" if not k.startswith(("head", "fc_norm")) else k: v for k, v in state.items()}
        state = {k.replace("videomae.patch_embed.proj", "videomae.embeddings.patch_embeddings.projection"): v
                 for k, v in state.items()}  # fmt: skip
        state = {k.replace("videomae.blocks.", "videomae.encoder.layer."): v for k, v in state.items()}
    copy = small(model)
    report = load_weights(copy, state)
    assert "qkv_bias=false" in report.to_text()
    same_logits(copy, net, frames=4)
    lost = next(key for key in net.state_dict() if key.endswith(("qkv.bias", "q_bias")))
    whole = small(model).state_dict()
    with pytest.raises(CheckpointError, match=r"1 missing|of no layout"):  # one that is lost is no such net
        load_weights(small(model), {key: tensor for key, tensor in whole.items() if key != lost})


@pytest.mark.filterwarnings("ignore:.*which is a no-op")
def test_vivits_tubelets_are_those_of_its_configuration(tmp_path: Path) -> None:
    """64 positions are 4 x 4 x 4 or 16 x 2 x 2 or 1 x 8 x 8."""
    clip = {"num_frames": 16, "size": 32, "tubelet": 1, "heads": 2}
    net = vidtrain.create_model("vivit", num_classes=5, width=32, depth=2, **clip).eval()
    parity.drawn_weights(net)
    torch.save(_hub_vivit(net.state_dict()), tmp_path / "pytorch_model.bin")
    info = describe_weights(tmp_path)
    assert (info.options["num_frames"], info.options["size"]) == (4, 64)
    with torch.device("meta"):
        guessed = vidtrain.create_model("vivit", num_classes=5, **info.options, heads=2)
    notes = load_weights(guessed, tmp_path).notes
    assert any("64 positions lie: assumed are 4 x 4 x 4, of clips with sampler.num_frames=4" in note for note in notes)
    config = {"num_frames": 16, "image_size": 32, "tubelet_size": [1, 16, 16], "num_attention_heads": 2}
    (tmp_path / "config.json").write_text(json.dumps(config))
    info = describe_weights(tmp_path)
    assert (info.options["num_frames"], info.options["size"], info.options["heads"]) == (16, 32, 2)
    copy = vidtrain.create_model("vivit", num_classes=5, **info.options)
    assert not [note for note in load_weights(copy, tmp_path).notes if "assumed" in note]
    same_logits(copy, net)
    other = vidtrain.create_model("vivit", num_classes=5, **{**info.options, "heads": 4})
    with pytest.raises(CheckpointError, match=r"says 2 attention heads, this model has 4: model\.heads=2"):
        load_weights(other, tmp_path)
