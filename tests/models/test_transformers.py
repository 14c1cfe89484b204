"""The video transformers: size and cost, what their attention sees, their positions, their layers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchvision
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import vidtrain
from tests.sampled import sampled
from vidtrain.engine.parameters import Layered, parameter_groups
from vidtrain.errors import ConfigError
from vidtrain.models.layers.position_tables import sincos_table, wave_shift, wave_table
from vidtrain.models.layers.transformer import Attention, Block, StochasticDepth, _turned
from vidtrain.models.mvit import mvit_v1_b
from vidtrain.models.swin3d import swin3d_t
from vidtrain.models.timesformer import DividedBlock, start_as_differences, timesformer
from vidtrain.models.uniformerv2 import uniformerv2_b16
from vidtrain.models.videomae import videomae_vit_b
from vidtrain.models.vivit import vivit, vivit_fe
from vidtrain.models.vjepa2 import rotation

# Parameters and GMAC, at 400 classes if no other number is given; vivit_fe: the paper's 115.1M and 284.4 to their
# digits, and its layers' sum.
PUBLISHED: list[tuple[str, dict[str, Any], int, int, float]] = [
    ("timesformer", {}, 8, 121_566_352, 195.8),
    ("timesformer", {"attention": "joint"}, 8, 86_112_400, 179.6),
    ("timesformer", {"attention": "space"}, 8, 86_106_256, 140.5),
    ("vivit", {}, 32, 88_954_000, 451.5),
    ("vivit_fe", {}, 32, 115_062_928, 284.4),
    ("videomae_vit_s", {}, 16, 22_033_936, 56.9),
    ("videomae_vit_b", {}, 16, 86_534_800, 180.3),
    ("videomae_vit_l", {}, 16, 304_270_736, 596.8),
    ("videomae_vit_h", {}, 16, 632_119_440, 1190.99),
    ("videomaev2_vit_s", {"num_classes": 710}, 16, 22_153_286, 56.9),
    ("videomaev2_vit_b", {"num_classes": 710}, 16, 86_773_190, 180.3),
    ("videomaev2_vit_g", {}, 16, 1_012_174_352, 2542.79),
    ("uniformerv2_b16", {}, 8, 114_552_208, 148.105),
    ("uniformerv2_b16", {}, 16, 114_552_208, 296.185),
    ("uniformerv2_l14", {}, 8, 354_099_600, 665.629),
    ("uniformerv2_l14", {"size": 336}, 8, 354_427_280, 1566.98),
    ("uniformerv2_b16_ssv2", {"num_classes": 174}, 16, 162_992_814, 187.207),
    ("vjepa2_vit_l", {"size": 256}, 16, 353_631_632, 935.24),
    ("vjepa2_vit_h", {"size": 256}, 16, 709_231_760, 1795.9),
    ("vjepa2_vit_g", {"size": 256}, 16, 1_105_986_576, 2733.6),
    ("vjepa21_vit_b", {"size": 384}, 16, 114_902_416, 989.3),
    ("vjepa21_vit_l", {"size": 384}, 16, 354_427_280, 2756.6),
    ("hiera_b", {}, 16, 51_092_560, 101.726),
    ("hiera_b_plus", {}, 16, 69_392_240, 132.302),
    ("hiera_l", {}, 16, 213_091_600, 412.130),
    ("hiera_h", {}, 16, 671_627_664, 1157.80),
    ("mvit_v1_b", {}, 16, 36_610_672, 70.60),
    ("mvit_v2_s", {}, 16, 34_537_744, 64.22),
    ("swin3d_t", {}, 16, 28_158_070, 43.9),
    ("swin3d_s", {}, 16, 49_816_678, 82.8),
    ("swin3d_b", {}, 16, 88_048_984, 140.7),
]
CLIP = {"num_classes": 5, "num_frames": 4, "size": 32}
SMALL = {**CLIP, "patch": 16, "width": 32, "depth": 2, "heads": 4}


def clips(batch: int = 2, frames: int = 4, size: int = 32) -> torch.Tensor:
    return torch.randn(batch, 3, frames, size, size, generator=torch.Generator().manual_seed(1))


def stirred(model: nn.Module) -> nn.Module:
    """With weights so large that every part counts, temporal_fc too."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


@pytest.mark.parametrize(
    ("name", "options", "frames", "params", "gmac"),
    sampled(PUBLISHED, ["vivit", "vjepa21_vit_b", "mvit_v1_b"]),
)
def test_parameters_and_multiply_adds(
    name: str, options: dict[str, Any], frames: int, params: int, gmac: float
) -> None:
    with torch.device("meta"):
        clip = {"num_classes": 400, "num_frames": frames, "size": 224, **options}
        model = vidtrain.create_model(name, **clip).eval()
    assert sum(p.numel() for p in model.parameters()) == params
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model(torch.empty(1, 3, frames, clip["size"], clip["size"], device="meta"))
    assert counter.get_total_flops() / 2e9 == pytest.approx(gmac, rel=5e-3)


# ---------------------------------------------------------------- what attention sees


def test_attention_is_that_of_nn_multihead_attention() -> None:
    ours, theirs = Attention(12, 3), nn.MultiheadAttention(12, 3, batch_first=True)
    with torch.no_grad():
        ours.qkv.bias.normal_()
        theirs.in_proj_weight.copy_(ours.qkv.weight)
        theirs.in_proj_bias.copy_(ours.qkv.bias)
        theirs.out_proj.load_state_dict(ours.proj.state_dict())
        x = torch.randn(2, 7, 12)
        torch.testing.assert_close(ours(x), theirs(x, x, x, need_weights=False)[0], rtol=1e-5, atol=1e-6)


def test_keys_without_bias_are_keys_with_a_bias_of_zero() -> None:
    plain, without = Attention(12, 3), Attention(12, 3, key_bias=False)
    assert without.qkv.bias is None
    with torch.no_grad():
        without.q_bias.normal_()
        without.v_bias.normal_()
        without.qkv.weight.copy_(plain.qkv.weight)
        without.proj.load_state_dict(plain.proj.state_dict())
        plain.qkv.bias.copy_(torch.cat([without.q_bias, torch.zeros(12), without.v_bias]))
        x = torch.randn(2, 7, 12)
        torch.testing.assert_close(without(x), plain(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("attention", "blind"), [("space", True), ("joint", False), ("divided", False)])
def test_only_space_attention_is_blind_to_the_order_of_frames(attention: str, blind: bool) -> None:
    model = stirred(timesformer(**SMALL, attention=attention))
    x = clips()
    with torch.no_grad():
        moved = (model(x[:, :, [2, 0, 3, 1]]) - model(x)).abs().max()
    assert (moved < 1e-5) if blind else (moved > 1e-3)


def test_space_attention_averages_the_frames() -> None:
    model = stirred(timesformer(**SMALL, attention="space", norm_eps=1e-6))
    tokens: list[torch.Tensor] = []
    model.norm.register_forward_pre_hook(lambda _, inputs: tokens.append(inputs[0]))
    one = timesformer(**{**SMALL, "num_frames": 1}, attention="space").eval()
    one.load_state_dict(model.state_dict())
    one.norm.register_forward_pre_hook(lambda _, inputs: tokens.append(inputs[0]))
    x = clips()
    with torch.no_grad():
        model(x)
        for frame in range(4):
            one(x[:, :, frame : frame + 1])
    torch.testing.assert_close(tokens[0], torch.stack(tokens[1:]).mean(0), rtol=1e-4, atol=1e-5)


def _divided_and_space() -> tuple[nn.Module, nn.Module]:
    divided, space = (timesformer(**SMALL, attention=attention).eval() for attention in ("divided", "space"))
    own = space.state_dict()
    space.load_state_dict({key: tensor for key, tensor in divided.state_dict().items() if key in own})
    return divided, space


def test_divided_attention_starts_as_an_image_transformer() -> None:
    """temporal_fc and the times start at zero. One class token walks through all frames there, so the two nets agree
    where the frames do not differ."""
    divided, space = _divided_and_space()
    assert sum(isinstance(block, DividedBlock) for block in divided.blocks) == 2
    assert all(not block.temporal_fc.weight.any() and not block.temporal_fc.bias.any() for block in divided.blocks)
    x = clips()
    still = x[:, :, :1].expand(-1, -1, 4, -1, -1)
    with torch.no_grad():
        torch.testing.assert_close(divided(still), space(still), rtol=1e-4, atol=1e-6)
        assert (divided(x[:, :, [3, 2, 1, 0]]) - divided(x)).abs().max() < 1e-6
        assert (divided(x) - space(x)).abs().max() > 1e-5
        divided.blocks[0].temporal_fc.weight.normal_(std=0.2)
        divided.time_embed.normal_(std=0.2)
        assert (divided(still) - space(still)).abs().max() > 1e-3


def test_waves_tell_neighbouring_frames_apart() -> None:
    table = wave_table(16, 32, std=0.5)[0]
    assert table.shape == (16, 32)
    torch.testing.assert_close((table.view(16, 16, 2) ** 2).mean(-1).sqrt(), torch.full((16, 16), 0.5))
    torch.testing.assert_close(table[3:, :2], table[:-3, :2], rtol=0, atol=1e-5)  # the fastest: a period of 3 frames
    torch.testing.assert_close(table[8:, -2], table[:8, -1], rtol=0, atol=1e-5)  # the slowest: 8 rows are a quarter

    def likeness(rows: torch.Tensor) -> float:
        return torch.cosine_similarity(rows[1:], rows[:-1]).max().item()

    assert likeness(table) < 0.6 < 0.9 < likeness(sincos_table(16, 32)[0])
    assert wave_table(1, 3, std=0.5).isfinite().all()


@pytest.mark.parametrize("width", [32, 33])
@pytest.mark.parametrize("steps", [-2, 0, 3])
def test_a_matrix_shifts_the_waves_in_time(width: int, steps: int) -> None:
    table = wave_table(16, width, std=0.5)[0, :, : width // 2 * 2]
    shift = wave_shift(16, width, steps)
    there = range(max(0, steps), min(16, 16 + steps))
    moved = table @ shift[: table.shape[1], : table.shape[1]].t()
    torch.testing.assert_close(moved[[n - steps for n in there]], table[there], rtol=0, atol=1e-6)
    assert shift[-1].argmax() == width - 1 or width % 2 == 0


@pytest.mark.parametrize("attention", ["divided", "joint", "space"])
def test_a_net_from_scratch_sees_the_order_of_frames_at_once(attention: str) -> None:
    model = timesformer(**SMALL, attention=attention, init="scratch").eval()
    assert 0.3 < model.pos_embed.std() < 0.7
    x = clips()
    with torch.no_grad():
        moved = (model.forward_features(x[:, :, [3, 2, 1, 0]]) - model.forward_features(x)).abs().max()
    assert (moved < 1e-5) if attention == "space" else (moved > 0.01)


def test_attention_over_time_starts_as_differences_of_frames() -> None:
    torch.manual_seed(0)
    attention, waves = Attention(120, 5), wave_table(16, 120, std=0.6)
    fifth = attention.proj.weight[:, -24:].clone()
    start_as_differences(attention, 16)
    query, key, _ = attention.qkv(waves).view(16, 3, 5, 24).permute(1, 2, 0, 3)
    looks = (query @ key.transpose(1, 2)).argmax(-1)  # (head, frame)
    for head, steps in enumerate((1, -1, 2, -2)):
        assert looks[head, 2:-2].tolist() == [frame + steps for frame in range(2, 14)]
    assert torch.equal(attention.proj.weight[:, -24:], fifth)  # it has no partner

    pairs = Attention(96, 4)
    nn.init.zeros_(pairs.qkv.bias)
    nn.init.zeros_(pairs.proj.bias)
    start_as_differences(pairs, 16)
    waves = wave_table(16, 96, std=0.6)
    content = 0.3 * torch.randn(1, 1, 96)
    ramp = 0.1 * content * torch.arange(-8, 8)[:, None]
    with torch.no_grad():
        table, still, rising, falling = (pairs(waves + x) for x in (0.0, content, ramp, -ramp))
    inside = (slice(None), slice(5, -5))
    assert (still - table)[inside].norm() < 0.2 * content.norm() * 6**0.5  # what stands still is taken out
    assert (rising - table)[inside].norm() > 0.15 * content.norm() * 6**0.5  # 0.22 if heads saw one frame
    assert (rising + falling - 2 * table)[inside].norm() < 0.2 * (rising - table)[inside].norm()


def test_an_unknown_start_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"model.init: got 'scrach' \(did you mean scratch"):
        timesformer(**SMALL, init="scrach")


def test_attention_over_time_sees_its_own_place_only() -> None:
    block = stirred(DividedBlock(16, 4, grid=(3, 2, 2), mlp_ratio=2.0, norm_eps=1e-6, drop_path=0.0))
    x = torch.randn(1, 12, 16)
    changed = x.clone()
    changed[0, 5] += torch.randn(16)  # frame 1, place 1
    with torch.no_grad():
        moved = (block._over_time(changed) - block._over_time(x)).abs().amax(-1)[0].view(3, 4) > 1e-6
    assert moved.tolist() == [[False, True, False, False]] * 3


def test_factorised_encoder_looks_at_each_time_step_alone_first() -> None:
    model = stirred(vivit_fe(**SMALL, temporal_depth=1))
    seen: list[torch.Tensor] = []
    model.space_norm.register_forward_hook(lambda _, __, output: seen.append(output))
    x = clips(1)
    changed = x.clone()
    changed[:, :, 2:] *= -1  # the second tubelet
    with torch.no_grad():
        first, second = model(x), model(changed)
    assert torch.equal(seen[0][0], seen[1][0])
    assert (seen[0][1] - seen[1][1]).abs().max() > 1e-3
    assert (first - second).abs().max() > 1e-4
    with torch.no_grad():
        assert (model(x[:, :, [2, 3, 0, 1]]) - first).abs().max() > 1e-4  # the time steps have positions


def test_drop_path_skips_branches_in_training_only() -> None:
    block = Block(16, 4, mlp_ratio=2.0, norm_eps=1e-6, drop_path=0.999)
    x = torch.randn(8, 5, 16)
    with torch.no_grad():
        assert torch.equal(block(x), x)
        assert not torch.allclose(block.eval()(x), x)
    model = timesformer(**{**SMALL, "depth": 3}, drop_path=0.4)
    assert [block.drop_path.p for block in model.blocks] == pytest.approx([0, 0.2, 0.4])
    rates = [m.p for m in mvit_v1_b(**CLIP, width=8, drop_path=0.3).modules() if hasattr(m, "mode") and hasattr(m, "p")]
    assert (rates[0], rates[-1]) == pytest.approx((0, 0.3))


def test_stochastic_depth_is_torchvisions() -> None:
    x = torch.randn(64, 3, 4, dtype=torch.float64)
    for p in (0.0, 0.3, 1.0):
        ours, theirs = StochasticDepth(p), torchvision.ops.StochasticDepth(p, "row")
        torch.manual_seed(1)
        got = ours(x)
        torch.manual_seed(1)
        assert torch.equal(got, theirs(x))
        assert torch.equal(ours.eval()(x), x)


# ---------------------------------------------------------------- positions


def test_the_sine_cosine_table() -> None:
    table = sincos_table(50, 8)
    assert table.shape == (1, 50, 8)
    assert table.dtype == torch.float32
    for row in (0, 1, 49):
        for i in range(4):
            angle = torch.tensor(row / 10000 ** (2 * i / 8), dtype=torch.float64)
            assert table[0, row, 2 * i].item() == pytest.approx(angle.sin().item(), abs=1e-6)
            assert table[0, row, 2 * i + 1].item() == pytest.approx(angle.cos().item(), abs=1e-6)


def test_videomae_keeps_its_table_out_of_the_weights() -> None:
    model = videomae_vit_b(**SMALL)
    assert "pos_embed" not in model.state_dict()
    assert torch.equal(model.pos_embed, sincos_table(2 * 2 * 2, 32))
    assert torch.equal(videomae_vit_b(**SMALL, table_frames=4, table_size=32).pos_embed, model.pos_embed)
    wide = videomae_vit_b(**SMALL, table_frames=8, table_size=64).pos_embed
    assert wide.shape == model.pos_embed.shape
    # tubelets are numbered through: the second time step begins with number 4 here, with 16 x 1.5 there
    assert (wide - model.pos_embed).abs().max() > 0.5


@pytest.mark.parametrize(
    ("build", "options", "message"),
    [
        (timesformer, {"size": 40}, r"model\.size: got 40, timesformer cuts .* 16 pixels: 32 and 48 would fit, .*=48"),
        (timesformer, {"size": 8}, r"model\.size: got 8, .*: 16 would fit, for instance transform\.size=16"),
        (timesformer, {"attention": "devided"}, r"got 'devided' \(did you mean divided\?\), expected divided, joint"),
        (timesformer, {"width": 30}, r"model\.heads: got 4, expected a divisor of model\.width=30"),
        (timesformer, {"drop_path": 1.0}, r"model\.drop_path: got 1\.0"),
        (timesformer, {"depth": 0}, r"model\.depth: got 0, expected 1 or more"),
        (vivit, {"num_frames": 5}, r"model\.num_frames: got 5, vivit .* 2 frames: 4 and 6 would fit, .*num_frames=6"),
        (vivit, {"num_frames": 0}, r"model\.num_frames: got 0, .* 2 would fit"),
        (vivit_fe, {"temporal_depth": 0}, r"model\.temporal_depth: got 0"),
        (uniformerv2_b16, {"read_after": 0}, r"model\.read_after: got 0, expected .* from 0 to 1"),
        (uniformerv2_b16, {"read_after": [1, 0]}, r"model\.read_after: got \[1, 0\], expected .*rising numbers"),
        (uniformerv2_b16, {"local": "after"}, r"model\.local: got 'after', expected none, before, both"),
        (uniformerv2_b16, {"reduction": 0.5}, r"model\.reduction: got 0\.5, expected 1 to model\.width=32"),
        (uniformerv2_b16, {"decoder_heads": 5}, r"model\.decoder_heads: got 5, expected a divisor of"),
        (
            uniformerv2_b16,
            {"decoder_drop_path": 1.0},
            r"model\.decoder_drop_path: got 1\.0, expected 0 <= decoder_drop",
        ),
        (videomae_vit_b, {"table_size": 224}, r"model\.table_frames=None and model\.table_size=224: both"),
    ],
)
def test_options_that_do_not_fit(build: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        build(**{**{k: v for k, v in SMALL.items() if build is not uniformerv2_b16 or k != "num_frames"}, **options})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("build", "options", "message"),
    [
        (mvit_v1_b, {"size": 30}, r"model\.size: got 30, mvit_v1 cuts .* 4 pixels: 28 and 32 would fit"),
        (mvit_v1_b, {"version": "2", "num_frames": 3}, r"model\.num_frames: got 3, .* 2 frames: 2 and 4 would fit"),
        (mvit_v1_b, {"version": "3"}, r"model\.version: got '3', expected 1, 2"),
        (mvit_v1_b, {"depths": [1, 2]}, r"model\.depths: got \[1, 2\], expected four"),
        (mvit_v1_b, {"heads": 5}, r"model\.heads: got 5, expected a divisor of model\.width=96"),
    ],
)
def test_options_of_mvit_that_do_not_fit(build: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(**{**CLIP, **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depths": []}, r"model\.depths: got \[\]"),
        ({"heads": [3, 6]}, r"model\.heads: got \[3, 6\], expected one number for each of the 4 stages"),
        ({"heads": [3, 6, 12, 25]}, r"model\.heads: .* divides its channels, \[96, 192, 384, 768\]"),
        ({"window": [8, 7]}, r"model\.window: got \[8, 7\]"),
    ],
)
def test_options_of_swin_that_do_not_fit(options: dict[str, Any], message: str) -> None:
    with torch.device("meta"), pytest.raises(ConfigError, match=message):
        swin3d_t(num_classes=5, **options)


def test_clips_of_another_size_are_refused_by_name() -> None:
    model = vivit(**SMALL)
    with pytest.raises(
        ConfigError, match=r"vivit: got clips of 8 frames, but .* built for 4: set sampler\.num_frames=4"
    ):
        model(torch.zeros(1, 3, 8, 32, 32))
    with pytest.raises(ConfigError, match="64 x 64 pixels, but the model was built for 32 x 32"):
        mvit_v1_b(**CLIP, width=8)(torch.zeros(1, 3, 4, 64, 64))


@pytest.mark.parametrize("frames", [1, 5])
def test_swin_takes_any_clip(frames: int) -> None:
    model = vidtrain.create_model("swin3d_t", num_classes=5, width=8, heads=[1, 2, 4, 8], depths=[1, 1, 1, 1]).eval()
    with torch.no_grad():
        assert model(torch.zeros(1, 3, frames, 40, 26)).shape == (1, 5)


@pytest.mark.parametrize(
    "name",
    sampled(["mvit_v1_b", "mvit_v2_s", "swin3d_t", "swin3d_s", "swin3d_b"], ["mvit_v1_b", "mvit_v2_s", "swin3d_t"]),
)
def test_torchvisions_nets_are_torchvisions(name: str) -> None:
    clip = {"num_frames": 16, "size": 224} if name.startswith("mvit") else {}
    with torch.device("meta"):
        theirs = torchvision.models.get_model(name, num_classes=7)
        ours = vidtrain.create_model(name, num_classes=7, **clip)
    assert repr(ours.blocks if clip else ours.features) == repr(theirs.blocks if clip else theirs.features)
    shapes = {key.replace("head.1.", "head."): t.shape for key, t in theirs.state_dict().items()}
    own = {key: tensor.shape for key, tensor in ours.state_dict().items()}
    assert own == {key: shape for key, shape in shapes.items() if not key.endswith("relative_position_index")}


# ---------------------------------------------------------------- V-JEPA 2


@pytest.mark.parametrize("version", ["2", "2.1"])
def test_rotation_turns_queries_and_keys_by_their_position(version: str) -> None:
    grid, width = (3, 4, 5), 16
    cosines, sines = rotation(grid, width, version, torch.device("cpu"))
    assert cosines.shape == sines.shape == (60, width)
    x = torch.randn(2, 60, width)
    turned = _turned(x, (cosines, sines))
    assert torch.equal(turned[:, 0], x[:, 0])  # the token at the origin
    part = 2 * (width // 3 // 2)
    torch.testing.assert_close(turned[..., 3 * part :], x[..., 3 * part :])
    # the two of a pair turn by one angle in version 2.1 only, so only there lengths stay
    same_length = torch.allclose(turned.square().sum(-1), x.square().sum(-1), rtol=1e-4)
    assert same_length == (version == "2.1")
    last = {"2": 3.0, "2.1": 15.0}[version]  # of the fourth row, at the frequency 1
    torch.testing.assert_close(cosines.view(*grid, width)[0, -1, 0, part], torch.tensor(last).cos())
    longer = rotation((6, 4, 5), width, version, torch.device("cpu"))[0]
    assert torch.equal(longer[:60], cosines)  # more frames leave the positions of the first ones


def test_v_jepa_takes_any_clip_of_whole_patches_and_one_frame() -> None:
    options = {"width": 32, "depth": 1, "heads": 4, "probe_depth": 0, "probe_heads": 4}
    for version in ("2", "2.1"):
        model = stirred(vidtrain.create_model("vjepa2_vit_l", num_classes=3, version=version, **options))
        with torch.no_grad():
            assert model(torch.zeros(2, 3, 6, 32, 48)).shape == (2, 3)
            assert model(torch.zeros(1, 3, 1, 16, 16)).isfinite().all()
            image = torch.randn(1, 3, 1, 32, 32)
            one, two = model.tokens(image), model.tokens(image.expand(-1, -1, 2, -1, -1))
        assert torch.allclose(one, two, atol=1e-5) == (version == "2")
        for shape in ((1, 3, 3, 32, 32), (1, 3, 4, 24, 32)):
            with pytest.raises(ConfigError, match=r"expected an even number of frames and sides .* multiples of 16"):
                model(torch.zeros(shape))


# ---------------------------------------------------------------- UniFormerV2


def test_uniformerv2_sees_time_in_its_decoder_or_in_its_blocks() -> None:
    """Without convolutions in time the blocks look at each frame alone: only the decoder knows the order."""
    options = {"num_classes": 3, "size": 32, "patch": 16, "width": 32, "depth": 2, "heads": 4, "read_after": 1}
    x = clips(1, 6)
    for local, alone in (("none", True), ("before", False)):
        model = stirred(uniformerv2_b16(**options, local=local))
        seen: list[torch.Tensor] = []
        model.blocks[1].register_forward_hook(lambda _, __, output, seen=seen: seen.append(output))
        with torch.no_grad():
            forward, backward = model(x), model(x.flip(2))
        assert torch.allclose(seen[1].flip(0), seen[0], atol=1e-5) == alone
        assert (forward - backward).abs().max() > 1e-3


def test_uniformerv2_halves_time_where_it_is_told_to() -> None:
    options = {"num_classes": 3, "size": 32, "patch": 16, "width": 32, "depth": 1, "heads": 4, "read_after": 1}
    model = uniformerv2_b16(**options, temporal_downsample=True).eval()
    steps: list[int] = []
    model.conv1.register_forward_hook(lambda _, __, output: steps.append(output.shape[2]))
    with torch.no_grad():
        for frames in (1, 2, 5, 8):
            assert model(clips(1, frames)).shape == (1, 3)
    assert steps == [1, 1, 3, 4]


# ---------------------------------------------------------------- layers

_LAYERED = {
    "timesformer": ({"depth": 3}, 5, ("cls_token", "pos_embed", "time_embed", "patch_embed.proj.weight")),
    "vivit_fe": ({"depth": 2, "temporal_depth": 3}, 7, ("cls_token", "pos_embed", "patch_embed.proj.bias")),
    "videomae_vit_b": ({"depth": 3}, 5, ("patch_embed.proj.weight",)),
    "vjepa2_vit_l": ({"depth": 3, "probe_heads": 4}, 5, ("patch_embed.proj.weight",)),
    "uniformerv2_b16": (
        {"depth": 3, "local": "both"},
        5,
        ("cls_token", "pos_embed", "conv1.weight", "norm_pre.weight"),
    ),
    "hiera_b": (
        {"stages": [1, 2, 1, 1], "width": 16},
        7,
        ("patch_embed.proj.weight", "pos_embed_spatial", "pos_embed_temporal"),
    ),
    "mvit_v2_s": ({"depths": [1, 1, 2, 1], "width": 8}, 7, ("conv_proj.weight", "pos_encoding.class_token")),
    "swin3d_t": (
        {"depths": [1, 2], "heads": [1, 2], "width": 8},
        5,
        ("patch_embed.proj.weight", "patch_embed.norm.bias"),
    ),
}


@pytest.mark.parametrize("name", _LAYERED)
def test_layers_are_numbered_from_the_patches_to_the_head(name: str) -> None:
    options, count, embedding = _LAYERED[name]
    if "depth" in options:
        options = {**options, "width": 32, "heads": 4}
    with torch.device("meta"):
        model = vidtrain.create_model(name, num_classes=5, num_frames=4, size=32, **options)
    assert isinstance(model, Layered)
    assert model.num_layers == count
    layers = {key: model.layer_of(key) for key, _ in model.named_parameters()}
    assert sorted(set(layers.values())) == list(range(count))
    assert {key for key, layer in layers.items() if layer == 0} >= set(embedding)
    assert {key.split(".")[0] for key, layer in layers.items() if layer == 0} == {
        key.split(".")[0] for key in embedding
    }
    assert {key.split(".")[0] for key, layer in layers.items() if layer == count - 1} <= {
        "norm",
        "fc_norm",
        "pooler",
        "query_token",
        "decoder",
        "balance",
        "head",
    }
    assert layers["head.weight"] == count - 1
    rates = {group["lr"] for group in parameter_groups(model, lr=1.0, weight_decay=0.1, layer_decay=0.5)}
    assert rates == {0.5**depth for depth in range(count)}


def test_layers_of_the_hierarchical_nets() -> None:
    with torch.device("meta"):
        swin = vidtrain.create_model("swin3d_t", num_classes=5)
        fe = vivit_fe(**SMALL, temporal_depth=2)
    assert swin.layer_of("features.0.1.attn.qkv.weight") == swin.layer_of("features.1.reduction.weight") == 2
    assert swin.layer_of("features.2.0.norm1.weight") == 3
    assert swin.layer_of("features.6.1.mlp.0.bias") == swin.num_layers - 2 == 12
    assert fe.layer_of("space_norm.weight") == fe.layer_of("time_embed") == fe.layer_of("blocks.1.norm1.weight") == 2
    assert fe.layer_of("temporal_blocks.0.norm1.weight") == 3
