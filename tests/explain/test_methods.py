"""The arithmetic of Grad-CAM and rollout against what they are defined by, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.explain.made import score_of
from vidtrain import create_model
from vidtrain.errors import ConfigError
from vidtrain.explain.deletion import deletion, marked
from vidtrain.explain.gradcam import _cam, gradcams
from vidtrain.explain.methods import MapOptions, Method, evidence_map
from vidtrain.explain.rollout import _Weights, rollout
from vidtrain.explain.score import ClassScore, Fill, filling, to_unit_range, without
from vidtrain.explain.traced import TracedPass
from vidtrain.models.layers.layer_outputs import channels_second

T, SIZE = 8, 32


def clip(seed: int = 0) -> Tensor:
    return torch.randn(1, 3, T, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


def net(name: str, **options: object) -> nn.Module:
    torch.manual_seed(0)
    return create_model(name, num_classes=5, num_frames=T, size=SIZE, **options).eval()


def test_where_the_head_reads_a_mean_the_map_adds_up_to_the_logit() -> None:
    model = net("r2plus1d_tiny")
    score, inputs = score_of(model, 3), {"rgb": clip()}
    traced = TracedPass(score, inputs)
    cam = _cam(traced, traced.layers["layer4"])
    assert cam is not None
    assert torch.allclose(cam.sum(), traced.logit[0] - model.fc.bias[3], atol=1e-5)


@pytest.mark.parametrize(
    ("name", "options", "layer", "grid"),
    [
        ("slow_fusion", {}, "net", (1, 2, 2)),
        ("i3d_tiny", {}, "Mixed_4f", (2, 2, 2)),
        ("tsm_tiny", {}, "base_model.layer2", (8, 4, 4)),
        ("convlstm_tiny", {}, "layers.1.conv_x", (8, 4, 4)),
        ("cnn_lstm_tiny", {}, "backbone", (8, 2, 2)),
        ("videomae_tiny", {"tubelet": 2}, "blocks.2", (4, 4, 4)),
        ("vivit_tiny", {"tubelet": 2}, "blocks.1", (4, 4, 4)),
        ("timesformer_tiny", {"patch": 8}, "blocks.1", (8, 4, 4)),
        ("uniformerv2_tiny", {"patch": 8}, "blocks.1", (8, 4, 4)),
        ("hiera_tiny", {}, "blocks.1", (4, 4, 4)),
        ("swin3d_t", {"width": 12, "depths": [1, 1], "heads": [1, 1]}, "features.2", (4, 4, 4)),
    ],
)
def test_layers_as_maps(name: str, options: dict[str, object], layer: str, grid: tuple[int, int, int]) -> None:
    model = net(name, **options)
    traced = TracedPass(score_of(model, 0), {"rgb": clip()})
    assert traced.layers[layer].grid(traced.clip, traced.patches) == grid


@pytest.mark.parametrize("name", ["slow_fusion", "convlstm_attention_tiny", "vivit_tiny", "timesformer_tiny"])
def test_the_chosen_layer_is_passed_by_all_that_reaches_the_class(name: str) -> None:
    """Replaced by a constant it leaves the logit without a trace of the clip."""
    model = net(name, **({"patch": 8} if "former" in name else {"tubelet": 2} if name == "vivit_tiny" else {}))
    score = score_of(model, 2)
    layers = [layer for _, layer in gradcams(score, {"rgb": clip()})]
    assert len(layers) == len(set(layers)) == (1 if name in ("slow_fusion", "convlstm_attention_tiny") else 3)
    for layer in layers:
        kept: list[Any] = []
        handle = model.get_submodule(layer).register_forward_hook(lambda *call: kept.append(call[2]))  # noqa: B023
        first = score.logit({"rgb": clip()})
        handle.remove()
        handle = model.get_submodule(layer).register_forward_hook(lambda *_: kept[0])  # noqa: B023
        assert torch.equal(score.logit({"rgb": clip(1)}), first), layer
        handle.remove()
        assert not torch.equal(score.logit({"rgb": clip(1)}), first)


def test_of_several_layers_the_one_whose_deletion_costs_most_is_shown() -> None:
    score, inputs = score_of(net("vivit_tiny", tubelet=2), 2), {"rgb": clip()}
    gains = {}
    for values, layer in gradcams(score, inputs):
        found = deletion(score, inputs, to_unit_range(values))
        gains[layer] = found.without_random - found.without_marked
    assert len(gains) == 3
    shown = evidence_map(score, inputs, MapOptions(Method.gradcam))
    assert gains[shown.layer or ""] == max(gains.values()) > min(gains.values())
    worst = min(gains, key=lambda layer: gains[layer])
    assert evidence_map(score, inputs, MapOptions(Method.gradcam, layer=worst)).layer == worst  # as the user says


def test_two_towers_have_a_layer_each() -> None:
    _, layers = gradcams(score_of(net("slowfast_tiny"), 1), {"rgb": clip()})[0]
    slow, fast = layers.split(", ")
    assert (slow.partition(".")[0], fast.partition(".")[0]) == ("slow", "fast")


def test_flow_and_rgb_are_both_explained() -> None:
    model = net("two_stream_tiny")
    inputs = {"rgb": clip(), "flow": torch.rand(1, 2, T - 1, SIZE, SIZE) * 2 - 1}
    score = ClassScore(model, lambda both: model({name: both[name] for name in model.inputs}), 1)
    _, layers = gradcams(score, inputs)[0]
    assert [layer.partition(".")[0] for layer in layers.split(", ")] == ["rgb", "flow"]
    mask = torch.zeros(1, T, SIZE, SIZE, dtype=torch.bool)
    mask[0, 2, :4] = True
    gone = without(inputs, mask, filling(inputs, Fill.mean))
    assert not gone["flow"][0, :, 2, :4].any()
    assert torch.equal(gone["flow"][0, :, 3:], inputs["flow"][0, :, 3:])
    assert torch.allclose(gone["rgb"][0, :, 2, :4].std((1, 2)), torch.zeros(3), atol=1e-6)
    assert evidence_map(score, inputs, MapOptions(Method.occlusion, window=(4, 16), batch_size=32)).values.max() == 1


def _all_tokens(weights: Tensor, places: int) -> Tensor:
    """Attention of TimeSformer as one matrix over the class token and all T P patches, frame by frame."""
    whole = torch.zeros(1 + T * places, 1 + T * places)
    patch = 1 + torch.arange(T * places).view(T, places)
    if len(weights) == places:
        for p in range(places):
            whole[patch[:, p][:, None], patch[:, p]] = weights[p]
        return whole
    for t in range(T):
        own = torch.cat([torch.zeros(1, dtype=torch.int64), patch[t]])
        part = weights[t].clone()
        part[0] /= T  # the class token is the mean of what it got in the frames
        whole[own[:, None], own] += part
    return whole


def test_rollout_of_divided_attention_is_that_of_the_whole_matrices() -> None:
    """Chefer et al. 2021, equation 6: R <- R + A R over all tokens, of which the class token's row is the map."""
    model = net("timesformer_tiny", patch=8)
    score, inputs = score_of(model, 4), {"rgb": clip()}
    found = rollout(score, inputs)
    with _Weights() as attention:
        traced = TracedPass(score, inputs)
    slopes = torch.autograd.grad(traced.logit.sum(), [one.weights for one in attention.found])
    relevance = torch.eye(1 + T * 16)
    for one, slope in zip(attention.found, slopes, strict=True):
        relevance = relevance + _all_tokens((one.weights * slope).clamp_min(0).mean(1).detach(), 16) @ relevance
    wanted = relevance[0, 1:].view(T, 4, 4)
    assert len(attention.found) == 6
    small = nn.functional.interpolate(wanted[None, None], size=(T, SIZE, SIZE), mode="trilinear")[0, 0]
    assert torch.allclose(found, small, rtol=1e-4, atol=1e-9)


def test_rollout_ends_in_a_reader() -> None:
    """V-JEPA 2: attention over all patches, then one query that reads them."""
    model = create_model("vjepa2_tiny", num_classes=5, num_frames=T, size=64).eval()
    inputs = {"rgb": torch.randn(1, 3, T, 64, 64, generator=torch.Generator().manual_seed(0))}
    score = score_of(model, 2)
    with _Weights() as attention:
        traced = TracedPass(score, inputs)
    slopes = torch.autograd.grad(traced.logit.sum(), [one.weights for one in attention.found])
    *blocks, reader = [
        (o.weights * s).clamp_min(0).mean(1)[0].detach() for o, s in zip(attention.found, slopes, strict=True)
    ]
    relevance = torch.eye(64)
    for weights in blocks:
        relevance = relevance + weights @ relevance
    assert (len(blocks), len(reader)) == (4, 1)
    wanted = (reader @ relevance).view(1, 1, 4, 4, 4)
    wanted = nn.functional.interpolate(wanted, size=(T, 64, 64), mode="trilinear")[0, 0]
    assert torch.allclose(rollout(score, inputs), wanted, rtol=1e-4, atol=1e-9)


def test_rollout_of_joint_attention_is_that_of_the_whole_matrices() -> None:
    model = net("vivit_tiny", tubelet=2)
    score, inputs = score_of(model, 4), {"rgb": clip()}
    with _Weights() as attention:
        traced = TracedPass(score, inputs)
    slopes = torch.autograd.grad(traced.logit.sum(), [one.weights for one in attention.found])
    relevance = torch.eye(1 + 64)
    for one, slope in zip(attention.found, slopes, strict=True):
        relevance = relevance + (one.weights * slope).clamp_min(0).mean(1)[0].detach() @ relevance
    wanted = nn.functional.interpolate(relevance[0, 1:].view(1, 1, 4, 4, 4), size=(T, SIZE, SIZE), mode="trilinear")
    assert torch.allclose(rollout(score, inputs), wanted[0, 0], rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("timesformer_tiny", {"patch": 8, "attention": "space"}),
        ("timesformer_tiny", {"patch": 8, "attention": "joint"}),
        ("vivit_fe", {"width": 24, "depth": 2, "heads": 2, "temporal_depth": 2}),
        ("videomae_tiny", {"tubelet": 2}),
        ("uniformerv2_tiny", {"patch": 8}),
        ("vjepa2_tiny", {}),
    ],
)
def test_rollout_sees_attention_as_the_network_computes_it(name: str, options: dict[str, object]) -> None:
    model = net(name, **options)
    with torch.no_grad():
        plain = model(clip())
        with _Weights() as attention:
            seen = model(clip())
    assert attention.found
    assert torch.allclose(plain, seen, atol=1e-5)
    found = rollout(score_of(model, 0), {"rgb": clip()})
    assert found.min() >= 0
    assert found.std() > 0


def refused(score: ClassScore, inputs: dict[str, Tensor], options: MapOptions) -> str:
    with pytest.raises(ConfigError) as error:
        evidence_map(score, inputs, options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_does_not_fit_is_said() -> None:
    score, inputs = score_of(net("slow_fusion"), 0), {"rgb": clip()}
    assert "SlowFusion has no attention" in refused(score, inputs, MapOptions(Method.rollout))
    assert "(did you mean net.4?)" in refused(score, inputs, MapOptions(Method.gradcam, layer="nets.4"))
    assert "has no positions" in refused(score, inputs, MapOptions(Method.gradcam, layer="head"))
    assert "goes with method=gradcam" in refused(score, inputs, MapOptions(Method.occlusion, layer="net"))
    assert "window=[9, 8]" in refused(score, inputs, MapOptions(Method.occlusion, window=(9, 8)))
    hiera = score_of(net("hiera_tiny"), 0)
    assert "attends within windows, or to pooled tokens" in refused(hiera, inputs, MapOptions(Method.rollout))


def test_a_frozen_network_is_explained_by_occlusion() -> None:
    model = net("feature_rnn_tiny")
    score, inputs = score_of(model, 0), {"rgb": clip()}
    assert "method=occlusion needs none" in refused(score, inputs, MapOptions(Method.gradcam))
    found = evidence_map(score, inputs, MapOptions(window=(4, 16), batch_size=32))
    assert found.method == Method.occlusion
    assert found.values.max() == 1


def test_deletion_takes_the_share_that_is_marked() -> None:
    values = torch.arange(T * 4 * 4, dtype=torch.float32).view(T, 4, 4)
    mask = marked(values, 0.25)
    assert mask.sum() == T * 4
    assert mask[6:].all()
    rgb = torch.zeros(1, 3, T, 4, 4)
    rgb[0, :, 7] = 4.0  # all that the class depends on

    def call(inputs: dict[str, Tensor]) -> Tensor:
        last = inputs["rgb"][:, :, 7].mean((1, 2, 3))
        return torch.stack([last, torch.zeros_like(last)], 1)

    score = ClassScore(nn.Identity(), call, 0)
    found = deletion(score, {"rgb": rgb}, values, share=0.25)
    assert found.whole == pytest.approx(torch.tensor(4.0).sigmoid().item())
    assert found.without_marked == pytest.approx(torch.tensor(0.5).sigmoid().item())  # 4 / 8, the mean of the clip
    assert found.without_marked < found.without_random < found.whole
    assert found.faithful
    still = deletion(score, {"rgb": rgb.mean(2, keepdim=True).expand_as(rgb)}, values, fill=Fill.still)
    assert still.without_marked == pytest.approx(still.whole)  # nothing moves, so nothing is taken away


def test_multi_label_scores_are_sigmoids() -> None:
    logits = torch.tensor([[2.0, 5.0]])
    one, several = (ClassScore(nn.Identity(), lambda _: logits, 0, multi_label=m) for m in (False, True))
    assert one.log_prob({}).exp().item() == pytest.approx(torch.tensor(-3.0).sigmoid().item())
    assert several.log_prob({}).exp().item() == pytest.approx(torch.tensor(2.0).sigmoid().item())


def test_blocks_that_keep_channels_last() -> None:
    """A Swin block gives (N, T, H, W, C), which features of it once averaged as if it were (N, C, T, H, W)."""
    model = net("swin3d_t", width=12, depths=[1, 1], heads=[1, 1])
    for name in ("features.0.0", "features.0", "features.2", "norm"):
        seen: list[Tensor] = []
        module = model.get_submodule(name)
        handle = module.register_forward_hook(lambda m, _, out: seen.append(channels_second(m, out)))  # noqa: B023
        model(clip())
        handle.remove()
        assert seen[0].shape[1] in (12, 24), name
