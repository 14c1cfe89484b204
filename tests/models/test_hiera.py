"""Hiera: what its windows and its pooling see, its options, files of pre-training and of other clips."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

import vidtrain
from tests.models.parity import drawn_weights
from vidtrain.errors import CheckpointError, ConfigError
from vidtrain.models.hiera import Hiera, _joined, _pooled, _windows, hiera_b
from vidtrain.models.weights.load import describe_weights, load_weights

SMALL: dict[str, Any] = {
    "num_classes": 5,
    "num_frames": 4,
    "size": 32,
    "width": 16,
    "heads": 2,
    "stages": [1, 2, 1, 1],
}


def drawn(**options: Any) -> Hiera:
    model = hiera_b(**{**SMALL, **options}).eval()
    drawn_weights(model)
    return model


def test_windows_and_pooling_in_the_order_t_y_x() -> None:
    grid = (2, 4, 6)
    x = torch.randn(3, 48, 5)
    windows = _windows(x, grid, 2)
    assert windows.shape == (3 * 2 * 2 * 3, 4, 5)
    maps = x.view(3, *grid, 5)
    torch.testing.assert_close(windows[0].view(2, 2, 5), maps[0, 0, :2, :2])
    torch.testing.assert_close(windows[1].view(2, 2, 5), maps[0, 0, :2, 2:4])
    torch.testing.assert_close(windows[-1].view(2, 2, 5), maps[2, 1, 2:, 4:])
    assert torch.equal(_joined(windows, grid, 2), x)
    expected = F.max_pool3d(maps.movedim(-1, 1), (1, 2, 2)).flatten(2).transpose(1, 2)
    assert torch.equal(_pooled(x, grid), expected)


def test_windows_grow_to_all_tokens_a_block_later_than_the_stages() -> None:
    """Which tokens move when one patch does: its window of 8 x 8 at its own time step, its 4 x 4 of pooled tokens, the
    2 x 2 that the first global stage's first block still sees, then everything."""
    model, maps = drawn(num_frames=4, size=64), []
    for block in model.blocks:
        block.register_forward_hook(lambda module, given, out: maps.append(out))
    x = torch.zeros(1, 3, 4, 64, 64)
    changed = x.clone()
    changed[:, :, 3, 20, 20] = 5.0  # read by the second time step alone, and by patches of the first window alone
    with torch.no_grad():
        model(x), model(changed)
    half = len(maps) // 2
    moved = [
        ((a - b).abs().amax(-1)[0] > 1e-6).view(2, side, side)
        for a, b, side in zip(maps[:half], maps[half:], (16, 8, 8, 4, 2), strict=True)
    ]
    for tokens, side in zip(moved[:4], (8, 4, 4, 2), strict=True):
        assert not tokens[0].any()
        assert tokens[1, :side, :side].all()
        assert tokens[1].sum() == side * side
    assert moved[4].all()


def test_clips_and_options_that_do_not_fit() -> None:
    for options, message in (
        ({"size": 48}, r"model\.size: got 48, hiera cuts .* 32 pixels: 32 and 64 would fit"),
        ({"num_frames": 3}, r"model\.num_frames: got 3, .* 2 frames: 2 and 4 would fit"),
        ({"heads": 3}, r"model\.heads: got 3, expected a divisor of model\.width=16"),
        ({"stages": []}, r"model\.stages: got \[\], expected the blocks of each stage"),
        ({"stages": [1, 0]}, r"model\.stages: got \[1, 0\]"),
        ({"pools": 4}, r"model\.pools: got 4, expected 0 to 3"),
        ({"window_stages": 5}, r"model\.window_stages: got 5, expected 0 to 4"),
        ({"window": 2}, r"model\.window: got 2, expected a multiple of 4"),
        ({"window": 0}, r"model\.window: got 0, expected 1 or more"),
        ({"drop_path": 1.0}, r"model\.drop_path: got 1\.0"),
    ):
        with pytest.raises(ConfigError, match=message) as caught:
            hiera_b(**{**SMALL, **options})
        assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"hiera: got clips of 6 frames, but .* built for 4"):
        hiera_b(**SMALL)(torch.zeros(1, 3, 6, 32, 32))


def test_without_windows_any_side_of_whole_patches_after_pooling_fits() -> None:
    with torch.no_grad():
        assert drawn(window_stages=0, pools=1, size=24)(torch.zeros(1, 3, 4, 24, 24)).shape == (1, 5)


def test_files_of_pretraining() -> None:
    net, fresh = drawn(), hiera_b(**SMALL)
    state = net.state_dict()
    file = {key: tensor for key, tensor in state.items() if not key.startswith(("norm.", "head."))}
    extra = ("encoder_norm.weight", "mask_token", "decoder_pos_embed", "decoder_blocks.0.norm1.weight")
    file |= {key: torch.ones(3) for key in (*extra, "decoder_pred.bias", "multi_scale_fusion_heads.0.weight")}
    report = load_weights(fresh, {"model_state": file})
    assert (report.layout, report.head) == ("facebookresearch Hiera", "the file has none")
    assert any("decoder and its norm are skipped" in note for note in report.notes)
    assert torch.equal(fresh.norm.weight, torch.ones(128))
    assert torch.equal(fresh.blocks[1].proj.weight, state["blocks.1.proj.weight"])


def published_names(model: Hiera) -> dict[str, torch.Tensor]:
    return {key.replace("head.", "head.projection."): tensor for key, tensor in model.state_dict().items()}


def test_the_number_of_heads_is_asked_for() -> None:
    report = load_weights(hiera_b(**SMALL), published_names(drawn()))
    assert any("assumed is model.heads=2" in note for note in report.notes)
    with torch.device("meta"):
        base = vidtrain.create_model("hiera_b", num_classes=5, size=224)
        wrong = vidtrain.create_model("hiera_b", num_classes=5, size=224, heads=2)
    assert not load_weights(base, published_names(base)).notes
    assert any("assumed is model.heads=2" in note for note in load_weights(wrong, published_names(base)).notes)


def test_options_of_a_file() -> None:
    file = published_names(drawn(mlp_ratio=2.5))
    info = describe_weights(file)
    told = {"width": 16, "stages": [1, 2, 1, 1], "mlp_ratio": 2.5, "num_frames": 4, "size": 32}
    assert (info.model, info.options) == ("hiera_b", told)
    assert load_weights(hiera_b(**{**SMALL, **told}), file).head is None
    with pytest.raises(CheckpointError, match=r"they fit create_model\('hiera_b'"):
        load_weights(hiera_b(**SMALL), file)


def test_weights_of_other_clips() -> None:
    file = published_names(drawn())
    bigger = hiera_b(**{**SMALL, "num_frames": 8, "size": 64}).eval()
    report = load_weights(bigger, file)
    assert any("pos_embed_spatial from 8 x 8 to 16 x 16 (bicubic)" in note for note in report.notes)
    assert any("pos_embed_temporal from 2 to 4 (linear)" in note for note in report.notes)
    with torch.no_grad():
        assert bigger(torch.randn(1, 3, 8, 64, 64)).isfinite().all()
