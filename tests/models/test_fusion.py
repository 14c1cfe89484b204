"""The fusion ladder of document 003: what each rung does and does not see."""

from __future__ import annotations

import pytest
import torch

from vidtrain.models.early_fusion import early_fusion
from vidtrain.models.late_fusion import late_fusion
from vidtrain.models.layers.backbone2d import image_backbone
from vidtrain.models.single_frame import single_frame
from vidtrain.models.slow_fusion import slow_fusion
from vidtrain.models.weights.from_2d import fit_input

ORDER = torch.tensor([3, 0, 7, 5, 1, 2, 6, 4])


def moving_clips() -> torch.Tensor:
    return torch.randn(2, 3, 8, 32, 32, generator=torch.Generator().manual_seed(0))


def change(model: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    """Largest difference of the logits, in units of their spread over classes."""
    with torch.no_grad():
        a, b = model.eval()(x), model(y)
    return float((a - b).abs().max() / a.std())


@pytest.mark.parametrize("pool", ["avg", "max"])
def test_late_fusion_pool_is_blind_to_the_order_of_frames(pool: str) -> None:
    torch.manual_seed(0)
    model = late_fusion(num_classes=10, num_frames=8, size=32, pool=pool)
    x = moving_clips()
    assert change(model, x, x[:, :, ORDER]) < 1e-5
    assert change(model, x, moving_clips().flip(0)) > 0.1  # it does look at the frames


def test_late_fusion_pool_averages_or_takes_the_maximum() -> None:
    torch.manual_seed(0)
    x = moving_clips()
    for pool, over in (("avg", torch.mean), ("max", torch.amax)):
        model = late_fusion(num_classes=10, num_frames=8, size=32, pool=pool).eval()
        with torch.no_grad():
            maps = torch.stack([model.backbone(x[:, :, t]) for t in range(8)], 2)
            torch.testing.assert_close(model.forward_features(x), over(maps, (2, 3, 4)))


def test_late_fusion_fc_sees_the_order_and_flattens_frame_by_frame() -> None:
    torch.manual_seed(0)
    model = late_fusion(num_classes=10, num_frames=8, size=32, fusion="fc", hidden=32).eval()
    x = moving_clips()
    assert change(model, x, x[:, :, ORDER]) > 0.05
    with torch.no_grad():  # 003: T x D x H' x W' flattened
        flat = torch.cat([model.backbone(x[:, :, t]).flatten(1) for t in range(8)], 1)
        torch.testing.assert_close(model.forward_features(x), torch.relu(model.fc(flat)))


@pytest.mark.parametrize("name", ["early", "slow"])
def test_early_and_slow_fusion_see_the_order(name: str) -> None:
    torch.manual_seed(0)
    model = early_fusion(num_classes=10, num_frames=8) if name == "early" else slow_fusion(num_classes=10)
    x = moving_clips()
    assert change(model, x, x[:, :, ORDER]) > 0.05


def test_single_frame_of_equal_frames_is_that_of_one() -> None:
    torch.manual_seed(0)
    model = single_frame(num_classes=10).eval()
    frame = moving_clips()[:, :, :1]
    assert change(model, frame.expand(-1, -1, 8, -1, -1), frame) < 1e-5


def test_single_frame_averages_the_logits_of_the_frames() -> None:
    torch.manual_seed(0)
    model = single_frame(num_classes=10).eval()
    x = moving_clips()
    with torch.no_grad():
        frames = torch.stack([model(x[:, :, t : t + 1]) for t in range(8)])
        torch.testing.assert_close(model(x), frames.mean(0))


def test_single_frame_trains_on_one_random_frame_of_each_clip() -> None:
    torch.manual_seed(0)
    model = single_frame(backbone="lecture", num_classes=4).train()  # no BN: a clip is on its own
    x = moving_clips()
    with torch.no_grad():
        frames = torch.stack([model.eval()(x[:, :, t : t + 1]) for t in range(8)])
        model.train()
        drawn = torch.stack([torch.isclose(frames, model(x), atol=1e-6).all(2) for _ in range(60)])  # 60, T, B
    assert (drawn.sum(1) == 1).all()
    assert drawn.any(0).all()  # every frame of every clip comes up
    assert (drawn[:, :, 0] != drawn[:, :, 1]).any()  # each clip draws for itself
    torch.manual_seed(3)
    first = model(x)
    torch.manual_seed(3)
    assert torch.equal(first, model(x))


@pytest.mark.parametrize("name", ["lecture", "tiny"])
def test_early_fusion_with_repeated_weights_sees_a_still_clip_as_its_image(name: str) -> None:
    torch.manual_seed(0)
    flat, model = image_backbone(name), early_fusion(backbone=name, num_classes=4, num_frames=8).eval()
    state = flat.state_dict()
    state["net.0.weight"] = fit_input(state["net.0.weight"], 24, "frames")
    model.backbone.load_state_dict(state)
    image = moving_clips()[:, :, 0]
    still = image.unsqueeze(2).expand(-1, -1, 8, -1, -1)
    with torch.no_grad():
        expected = flat.eval()(image).mean((2, 3))
        torch.testing.assert_close(model.forward_features(still), expected, rtol=1e-4, atol=1e-5)
        # Only the colour order t * 3 + c makes that true: the other way round it must fail.
        wrong = model.backbone(still.flatten(1, 2)).mean((2, 3))
    assert (wrong - expected).abs().max() > 1e-2


def test_early_fusion_stacks_frame_by_frame() -> None:
    model = early_fusion(num_classes=4, num_frames=8, backbone="lecture")
    x = moving_clips()
    seen: list[torch.Tensor] = []
    model.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model(x)
    assert torch.equal(seen[0][:, 3 * 5 + 2], x[:, 2, 5])


def test_slow_fusion_width() -> None:
    thin, usual = slow_fusion(num_classes=4, width=4), slow_fusion(num_classes=4)
    assert (thin.num_features, usual.num_features) == (32, 128)
    assert slow_fusion(num_classes=4, net="lecture").num_features == 24
