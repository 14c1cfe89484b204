"""Receptive fields against autograd: where the gradient of the central output is not zero, the input is seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from vidtrain.models.inspect.receptive_field import Field, receptive_fields
from vidtrain.models.layers.backbone2d import image_backbone
from vidtrain.models.layers.layer_outputs import channels_second, first_tensor
from vidtrain.models.torchvision_video import mc3_18, r2plus1d_18

T, SIZE = 9, 23


def traced(model: nn.Module, paths: set[str], *, strict: bool = True) -> dict[str, Field]:
    """For modules that are called once."""
    return receptive_fields(model, T, SIZE, dict.fromkeys(paths, 1), strict=strict)


def by_autograd(model: nn.Module, paths: set[str]) -> dict[str, Field]:
    """Extent of the non-zero gradient of the central output of each module, in float64 and eval mode."""
    outputs: dict[str, torch.Tensor] = {}

    def keep(path: str) -> Callable[..., None]:
        def hook(module: nn.Module, _: Any, output: Any) -> None:
            tensor = first_tensor(output)
            assert tensor is not None
            outputs[path] = channels_second(module, tensor).clone()  # before anything is written into it

        return hook

    handles = [m.register_forward_hook(keep(p)) for p, m in model.named_modules() if p in paths]
    x = torch.rand(1, 3, T, SIZE, SIZE, dtype=torch.float64, requires_grad=True)
    model.double().eval()(x)
    for handle in handles:
        handle.remove()
    fields = {}
    for path, centre in outputs.items():
        centre = centre[len(centre) // 2]
        for extent in centre.shape[1:]:
            centre = centre.select(1, extent // 2)
        (gradient,) = torch.autograd.grad(centre.sum(), x, retain_graph=True)
        seen = gradient[0].ne(0).any(0)
        along = [seen.flatten(1).any(1), seen.transpose(0, 1).flatten(1).any(1), seen.flatten(0, 1).any(0)]
        t, h, w = (int(axis.nonzero().max() - axis.nonzero().min()) + 1 for axis in along)
        fields[path] = (t, h, w)
    return fields


def positive(model: nn.Module) -> nn.Module:
    """Weights without zeros and signs: nothing cancels, no ReLU is shut."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        nn.init.uniform_(parameter, 0.1, 1.0)
    for module in model.modules():
        if isinstance(module, nn.Conv3d | nn.Conv2d | nn.Linear):
            module.weight.data /= module.weight[0].numel()  # 18 layers must not overflow
    return model


class Branches(nn.Module):
    """Inception-like: four branches of other strides, dilations and asymmetries, concatenated, then grouped."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv3d(3, 8, (2, 5, 4), stride=(1, 2, 1), padding=(1, 0, 3))
        self.point = nn.Conv3d(8, 4, 1)
        self.dilated = nn.Conv3d(8, 4, 3, padding=(1, 2, 2), dilation=(1, 2, 2))
        self.pool = nn.AvgPool3d(3, stride=1, padding=1)
        self.tall = nn.Conv3d(8, 4, (1, 5, 1), padding=(0, 2, 0))
        self.grouped = nn.Conv3d(20, 20, (3, 1, 1), groups=5, padding=(1, 0, 0))
        self.depthwise = nn.Conv3d(20, 40, (1, 1, 3), groups=20, padding=(0, 0, 1), stride=(2, 1, 2))
        self.last = nn.AvgPool3d((2, 3, 2), stride=2, ceil_mode=True)
        self.first_group = nn.Conv3d(8, 4, 1)  # sees the first branch only

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.stem(x))
        x = torch.cat([self.point(x), self.dilated(x), self.pool(x), self.tall(x)], 1)
        x = self.depthwise(self.grouped(x))
        return self.last(x).sum((1, 2, 3, 4)) + self.first_group(x[:, :8]).sum((1, 2, 3, 4))


class Residual(nn.Module):
    """A strided shortcut, sums in place, batch norm, a symmetric crop, TF-like asymmetric padding."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Sequential(nn.Conv3d(3, 6, 3, stride=2, padding=1), nn.BatchNorm3d(6), nn.ReLU(inplace=True))
        self.b = nn.Sequential(nn.Conv3d(6, 6, 3, padding=1), nn.BatchNorm3d(6))
        self.short = nn.Conv3d(3, 6, 1, stride=2)
        self.crop = nn.Conv3d(6, 6, 1)
        self.same = nn.Conv3d(6, 6, (1, 4, 4), stride=(1, 2, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.b(self.a(x))
        y += self.short(x)
        y = self.crop(y[:, :, 1:-1].relu_())
        return self.same(F.pad(y, (1, 2, 2, 1)))


class SqueezeExcite(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.before = nn.Conv3d(3, 4, 3, padding=1)
        self.pool = nn.AdaptiveAvgPool3d((T, 1, 1))  # squeezes space, not time
        self.gate = nn.Conv3d(4, 4, 1)
        self.after = nn.Conv3d(4, 4, (3, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.before(x)
        return self.after(x * torch.sigmoid(self.gate(self.pool(x))))


class Folded(nn.Module):
    """Time in the batch, then space in the batch, then time in the channels; a temporal shift by slices."""

    def __init__(self) -> None:
        super().__init__()
        self.space = nn.Conv2d(3, 8, 3, stride=2)
        self.shifted = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.mixed = nn.Conv2d(8, 6, 1, groups=2)
        self.time = nn.Conv1d(6, 6, 3, padding=2, dilation=2)
        self.stacked = nn.Conv2d(6 * T, 5, 2)
        self.bins = nn.AdaptiveAvgPool2d((3, 2))
        self.head = nn.Linear(30, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b = len(x)
        y = self.space(x.transpose(1, 2).flatten(0, 1)).unflatten(0, (b, T))
        moved = torch.zeros_like(y)
        moved[:, :-1, :2] = y[:, 1:, :2]
        moved[:, 1:, 2:4] = y[:, :-1, 2:4]
        moved[:, :, 4:] = y[:, :, 4:]
        y = self.mixed(self.shifted(moved.flatten(0, 1)))
        c, h, w = y.shape[1:]
        y = y.view(b, T, c, h, w).permute(0, 3, 4, 2, 1).reshape(b * h * w, c, T)
        y = self.time(y).view(b, h, w, c, T).permute(0, 4, 3, 1, 2).reshape(b, T * c, h, w)
        return self.head(self.bins(self.stacked(y)).flatten(1))


class Viewed(nn.Module):
    """Writes into a view of what a convolution gave, and into the whole after views were taken."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv3d(3, 4, 1)
        self.b = nn.Conv3d(3, 2, 3, padding=1)
        self.c = nn.Conv3d(3, 4, (1, 5, 5), padding=(0, 2, 2))
        self.after = nn.ModuleList([nn.Conv3d(4, 4, 1), nn.Conv3d(4, 4, 1), nn.Conv3d(2, 2, 1)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.a(x)
        part, rest = y[:, :2], y[:, 2:]
        part += self.b(x)
        copied = y * 2  # not a view: it must not see what is written now
        y += self.c(x)
        return sum(layer(z).sum((1, 2, 3, 4)) for layer, z in zip(self.after, (y, copied, rest), strict=True))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = image_backbone("lecture")
        self.gru = nn.GRU(24, 5, num_layers=2)
        self.both = nn.LSTM(5, 3, bidirectional=True, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        frames = self.backbone(x.permute(2, 0, 1, 3, 4).flatten(0, 1))
        steps, _ = self.gru(frames.mean((2, 3)).unflatten(0, (T, -1)))
        return self.both(steps.transpose(0, 1))[0][:, 0]


class Tokens(nn.Module):
    """Attention along time only, then along space only, and a map that is normalised along its channels."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv3d(3, 8, (1, 5, 5), stride=(1, 5, 5))
        self.norm = nn.LayerNorm(8)
        self.time = nn.MultiheadAttention(8, 2, batch_first=True)
        self.space = nn.MultiheadAttention(8, 2)
        self.point = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.patch(x).permute(0, 2, 3, 4, 1))
        b, t, h, w, c = x.shape
        x = x.permute(0, 2, 3, 1, 4).reshape(b * h * w, t, c)
        x = x + self.time(x, x, x, need_weights=False)[0]
        x = self.point(F.gelu(x))
        x = x.reshape(b, h * w, t, c).transpose(1, 2).reshape(b * t, h * w, c).transpose(0, 1)
        return self.space(x, x, x)[0].mean((0, 2))


NETS: dict[str, Callable[[], nn.Module]] = {
    "branches": Branches,
    "residual": Residual,
    "squeeze_excite": SqueezeExcite,
    "folded": Folded,
    "viewed": Viewed,
    "recurrent": Recurrent,
    "tokens": Tokens,
    "r2plus1d_18": lambda: r2plus1d_18(num_classes=3),
    "mc3_18": lambda: mc3_18(num_classes=3),
}
SIGNED = ("recurrent", "tokens")  # gates and softmax: positive weights would saturate them


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in ("r2plus1d_18", "mc3_18") else n for n in NETS]
)
def test_fields_are_where_the_gradient_is(name: str) -> None:
    torch.manual_seed(0)
    model = NETS[name]().eval()
    if name not in SIGNED:
        positive(model)
    layers = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear, nn.AvgPool3d, nn.AdaptiveAvgPool2d, nn.RNNBase)
    paths = {p for p, m in model.named_modules() if isinstance(m, (*layers, nn.MultiheadAttention))}
    paths -= {p for p in paths if p.endswith("out_proj")}  # kept by MultiheadAttention, never called
    fields = traced(model, paths)
    assert fields == by_autograd(model, paths)
    assert fields.keys() == paths
    assert len(set(fields.values())) > 1


def test_max_pools_see_their_window() -> None:
    """A maximum has a gradient at one place only, so the same windows as averages are the reference."""

    def net(pool: Callable[..., nn.Module], last: nn.Module) -> nn.Module:
        return nn.Sequential(
            nn.Conv3d(3, 4, 3, padding=1), pool((1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1)),
            pool(2, ceil_mode=True), nn.Conv3d(4, 4, 3), last,
        )  # fmt: skip

    paths = {"0", "1", "2", "3", "4"}
    average = traced(net(nn.AvgPool3d, nn.AdaptiveAvgPool3d(2)), paths)
    assert traced(net(nn.MaxPool3d, nn.AdaptiveMaxPool3d(2)), paths) == average
    assert average["1"] == (3, 5, 5)


def test_dilated_max_pool() -> None:
    net = nn.Sequential(nn.MaxPool3d((1, 3, 3), stride=1, dilation=(1, 3, 3)))
    assert traced(net, {"0"}) == {"0": (1, 7, 7)}


def test_the_clip_is_the_largest_field() -> None:
    net = nn.Sequential(*(nn.Conv3d(3, 3, 7, padding=3) for _ in range(3)))
    fields = receptive_fields(net, 5, 16, {"0": 1, "1": 1, "2": 1}, strict=True)
    assert fields == {"0": (5, 7, 7), "1": (5, 13, 13), "2": (5, 16, 16)}


def test_what_no_rule_covers_is_unknown_from_there_on() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv3d(3, 4, 3, padding=1), nn.Conv3d(4, 4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(torch.sort(self.a(x), 2).values)

    assert traced(Odd(), {"a", "b"}) == {"a": (3, 3, 3)}


def test_what_depends_on_values_stops_the_pass_and_only_that() -> None:
    class ByValue(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = (nn.Conv3d(3, 3, 3, padding=1) for _ in range(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.b(self.a(x))
            return self.b(x) if x.sum().item() > 0 else self.c(x)

    fields = receptive_fields(ByValue(), T, SIZE, {"a": 1, "b": 2, "c": 1})
    assert fields == {"a": (3, 3, 3)}  # not b: what it sees the second time was not reached
