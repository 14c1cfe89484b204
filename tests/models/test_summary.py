"""Tables of models: document 003's literally, parameters and multiply-adds against counts made by hand."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from vidtrain.errors import ConfigError
from vidtrain.models.c3d import c3d
from vidtrain.models.early_fusion import early_fusion
from vidtrain.models.inspect.operations import OperationCounter
from vidtrain.models.inspect.summary import Summary, summarise, times
from vidtrain.models.late_fusion import late_fusion
from vidtrain.models.layers.backbone2d import image_backbone
from vidtrain.models.slow_fusion import slow_fusion

Call = Callable[[], torch.Tensor]

# Document 003, at 20 x 64 x 64. Its slips are mended: early fusion reads 3*20 channels (not 3*10) and ends in 24
# (not 4), and the 3D net's rows are Conv3D and Pool3D, its average a single point in all of T, H and W.
TABLES: dict[str, tuple[Callable[[], nn.Module], list[tuple[str, str, str]]]] = {
    "late": (
        lambda: late_fusion(num_classes=10, num_frames=20, size=64, backbone="lecture"),
        [
            ("Input", "3 x 20 x 64 x 64", ""),
            ("Conv2D(3x3, 3->12)", "12 x 20 x 64 x 64", "1 x 3 x 3"),
            ("Pool2D(4x4)", "12 x 20 x 16 x 16", "1 x 6 x 6"),
            ("Conv2D(3x3, 12->24)", "24 x 20 x 16 x 16", "1 x 14 x 14"),
            ("GlobalAvgPool", "24 x 1 x 1 x 1", "20 x 64 x 64"),
        ],
    ),
    "early": (
        lambda: early_fusion(num_classes=10, num_frames=20, backbone="lecture"),
        [
            ("Input", "3 x 20 x 64 x 64", ""),
            ("Conv2D(3x3, 3*20->12)", "12 x 64 x 64", "20 x 3 x 3"),
            ("Pool2D(4x4)", "12 x 16 x 16", "20 x 6 x 6"),
            ("Conv2D(3x3, 12->24)", "24 x 16 x 16", "20 x 14 x 14"),
            ("GlobalAvgPool", "24 x 1 x 1", "20 x 64 x 64"),
        ],
    ),
    "3d": (
        lambda: slow_fusion(num_classes=10, net="lecture"),
        [
            ("Input", "3 x 20 x 64 x 64", ""),
            ("Conv3D(3x3x3, 3->12)", "12 x 20 x 64 x 64", "3 x 3 x 3"),
            ("Pool3D(4x4x4)", "12 x 5 x 16 x 16", "6 x 6 x 6"),
            ("Conv3D(3x3x3, 12->24)", "24 x 5 x 16 x 16", "14 x 14 x 14"),
            ("GlobalAvgPool", "24 x 1 x 1 x 1", "20 x 64 x 64"),
        ],
    ),
}


@pytest.mark.parametrize("name", TABLES)
def test_the_tables_of_003(name: str) -> None:
    build, table = TABLES[name]
    summary = summarise(build(), 20, 64)
    rows = [(r.label, times(r.size), times(r.field) if r.field else "") for r in summary.rows]
    assert rows == [*table, ("Linear(24->10)", "10", "20 x 64 x 64")]
    lines = summary.to_text().splitlines()
    for (label, size, field), line in zip(table, lines[2:], strict=False):
        assert line.startswith(label + " ")
        assert f"  {size}" in line
        assert f"  {field}" in line


def test_rows_count_parameters_and_multiply_adds() -> None:
    summary = summarise(late_fusion(num_classes=10, num_frames=20, size=64, backbone="lecture"), 20, 64)
    conv = summary.rows[1]
    assert conv.path == "backbone.net.0"
    assert conv.params == 3 * 12 * 9 + 12
    assert conv.macs == 20 * 64 * 64 * 12 * 3 * 9
    assert summary.rows[-1].macs == 240
    assert summary.params == summary.trainable_params == sum(r.params for r in summary.rows) == 3202
    assert summary.macs == sum(r.macs for r in summary.rows)
    assert summary.gmac == pytest.approx(summary.macs / 1e9)


def test_the_model_stays_as_it_was() -> None:
    model = late_fusion(num_classes=10, num_frames=8, size=32, backbone="resnet18").train()
    model.backbone.eval()
    for parameter in model.backbone.parameters():
        parameter.requires_grad_(False)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    random = torch.get_rng_state()
    summary = summarise(model, 8, 32)
    assert summary.trainable_params == 512 * 10 + 10 < summary.params
    assert f"{512 * 10 + 10:,} trainable" in summary.to_text()
    assert modes == [module.training for module in model.modules()]
    assert torch.equal(random, torch.get_rng_state())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key


class Recurrent(nn.Module):
    """Frames through a 2D net, then an LSTM; and a cell by hand, frames first in the batch."""

    def __init__(self, *, batch_first: bool) -> None:
        super().__init__()
        self.batch_first = batch_first
        self.backbone = image_backbone("lecture")
        self.lstm = nn.LSTM(24, 8, num_layers=2, batch_first=batch_first)
        self.cell = nn.GRUCell(8, 6)
        self.head = nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        frames = x.shape[2]
        if self.batch_first:
            maps = self.backbone(x.transpose(1, 2).flatten(0, 1)).mean((2, 3)).unflatten(0, (-1, frames))
            steps = self.lstm(maps)[0].transpose(0, 1)
        else:
            maps = self.backbone(x.permute(2, 0, 1, 3, 4).flatten(0, 1)).mean((2, 3)).unflatten(0, (frames, -1))
            steps = self.lstm(maps)[0]
        state = steps.new_zeros(steps.shape[1], 6)
        for step in steps:
            state = self.cell(step, state)
        logits: torch.Tensor = self.head(state)
        return logits


@pytest.mark.parametrize("batch_first", [True, False])
def test_recurrent_layers(batch_first: bool) -> None:
    rows = {r.path: r for r in summarise(Recurrent(batch_first=batch_first), 7, 16).rows}
    lstm, cell = rows["lstm"], rows["cell"]
    assert lstm.label == "LSTM(24->8, 2 layers)"
    assert lstm.size == (8, 7)
    assert lstm.field == (4, 16, 16)  # the middle step has seen steps 0 to 3
    assert lstm.params == 4 * 8 * (24 + 8 + 2) + 4 * 8 * (8 + 8 + 2)
    assert lstm.macs == 7 * 4 * 8 * (24 + 8 + 8 + 8)
    assert cell.label == "GRUCell(8->6) x7"
    assert cell.calls == 7
    assert cell.macs == 7 * 3 * 6 * (8 + 6)
    assert cell.field == (7, 16, 16)
    assert rows["backbone.net.3"].size == (24, 7, 4, 4)
    assert rows["backbone.net.3"].field == (1, 13, 13)  # 14 x 14, one pixel beyond the border


class Attending(nn.Module):
    """A patch embedding, a class token and an encoder layer; attention written as a layer of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv3d(3, 8, (2, 8, 8), stride=(2, 8, 8))
        self.cls = nn.Parameter(torch.zeros(1, 1, 8))
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.head = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls.expand(len(x), -1, -1), tokens], 1)
        logits: torch.Tensor = self.head(self.layer(tokens)[:, 0])
        return logits


def test_attention() -> None:
    summary = summarise(Attending(), 8, 16)
    rows = {r.path: r for r in summary.rows}
    attention = rows["layer.self_attn"]
    assert rows["patches"].label == "Conv3D(2x8x8, 3->8, stride 2x8x8)"
    assert rows["patches"].field == (2, 8, 8)
    assert attention.label == "MultiheadAttention"
    assert attention.size == (8, 17)
    assert attention.field == (8, 16, 16)
    assert attention.macs == 17 * 8 * 8 * 4 + 2 * 17 * 17 * 8
    assert attention.params == 4 * (8 * 8 + 8)
    assert rows["head"].field == (8, 16, 16)
    assert "everything else" in summary.to_text()  # the class token, two LayerNorms


class Strange(nn.Module):
    """An operator without a rule between two layers that have one, beside a branch that has nothing to do with it."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv3d(3, 4, 3, padding=1)
        self.second = nn.Conv3d(4, 4, 3, padding=1)
        self.beside = nn.Conv3d(4, 4, 3, padding=1)
        self.last = nn.Conv3d(8, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        odd = self.second(
            torch.fft.rfft2(x).abs()[..., : x.shape[-1] // 2 + 1].repeat_interleave(2, -1)[..., : x.shape[-1]]
        )
        return self.last(torch.cat([odd, self.beside(x)], 1)).mean((2, 3, 4))  # fmt: skip


def test_unknown_operators_give_no_number() -> None:
    summary = summarise(Strange(), 4, 8)
    fields = {r.path: r.field for r in summary.rows[1:]}
    assert fields == {"first": (3, 3, 3), "second": None, "beside": (4, 5, 5), "last": None}
    assert [line.split()[-3] for line in summary.to_text().splitlines() if "second" in line] == ["-"]


def test_labels() -> None:
    net = nn.Sequential(
        nn.Conv3d(3, 8, (1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1)),
        nn.Conv3d(8, 8, 3, padding=2, dilation=2, groups=4),
        nn.AvgPool3d(3, stride=(1, 2, 2), padding=1),
        nn.AdaptiveAvgPool3d((1, 2, 2)),
        nn.AdaptiveMaxPool3d(1),
        nn.Flatten(),
        nn.Linear(8, 2),
    )
    assert [r.label for r in summarise(net, 8, 16).rows[1:]] == [
        "Conv3D(1x3x3, 3->8, stride 1x2x2)",
        "Conv3D(3x3x3, 8->8, dilation 2, groups 4)",
        "AvgPool3D(3x3x3, stride 1x2x2)",
        "AdaptiveAvgPool3D(1x2x2)",
        "GlobalMaxPool",
        "Linear(8->2)",
    ]


def test_c3d_takes_less_than_three_seconds() -> None:
    with torch.device("meta"):  # not to time the making of 80M weights
        model = c3d(num_classes=400, num_frames=16, size=112)
    start = time.perf_counter()
    summary: Summary = summarise(model, 16, 112)
    assert time.perf_counter() - start < 3
    fields = {r.path: r.field for r in summary.rows}
    assert fields["conv2"] == (5, 8, 8)
    assert fields["conv3b"] == (14, 26, 26)
    assert fields["conv4b"] == (16, 62, 62)


def test_a_clip_the_model_refuses() -> None:
    with pytest.raises(ConfigError, match=r"clips of 16 frames, but .* built for 8"):
        summarise(early_fusion(num_classes=3, num_frames=8), 16, 32)


def _pools(dims: int) -> Iterator[tuple[str, Call]]:
    names = f"max_pool{dims}d", f"avg_pool{dims}d"
    for name, kernel, stride, padding, ceil in itertools.product(names, (2, 3), (None, 2, 3), (0, 1), (False, True)):
        pool = partial(getattr(F, name), kernel_size=kernel, stride=stride, padding=padding, ceil_mode=ceil)
        for extents in ((5, 7, 8)[:dims], (2, 6, 6)[:dims]):
            x = torch.empty(2, 4, *extents, device="meta")
            yield f"{name} {kernel} {stride} {padding} {ceil} {extents}", partial(pool, x)


def _operators() -> Iterator[tuple[str, Call]]:
    """Right ones and wrong ones."""
    x, y, flat = (torch.empty(shape, device="meta") for shape in ((2, 4, 5, 7, 8), (4, 1, 7, 8), (6, 4)))
    for groups, stride, padding, dilation in itertools.product((1, 2, 3), (1, 2), (0, 1), (1, 2, 5)):
        weight = torch.empty(6, 4 // min(groups, 2), 2, 3, 1, device="meta")
        conv = partial(F.conv3d, x, weight, stride=stride, padding=padding, dilation=dilation, groups=groups)
        yield f"conv3d {groups} {stride} {padding} {dilation}", conv
    yield "transposed", lambda: F.conv_transpose3d(x, torch.empty(4, 6, 2, 2, 2, device="meta"))
    yield from _pools(2)
    yield from _pools(3)
    for dim, keepdim in itertools.product((None, 0, -1, (1, -2)), (False, True)):
        for name in ("mean", "sum", "amax", "logsumexp"):
            dims = tuple(range(5)) if dim is None and name in ("amax", "logsumexp") else dim
            yield f"{name} {dim} {keepdim}", partial(getattr(torch, name), x, dims, keepdim=keepdim)
    yield "add", lambda: x + y
    yield "add of what does not fit", lambda: x + flat
    yield "in place", lambda: x.clone().mul_(y)
    yield "in place of what does not fit", lambda: y.clone().add_(x)
    yield "compared", lambda: x > 0
    yield "of whole numbers", lambda: (x > 0).sum(1, keepdim=True) / 2
    yield "in float64", lambda: x.mean(1, dtype=torch.float64)
    for name in ("cat", "stack"):
        yield name, partial(getattr(torch, name), [x, x], -1)
        yield f"{name} of what does not fit", partial(getattr(torch, name), [x, y], -1)
    yield "cat of different lengths", lambda: torch.cat([x, x[:, :1]], 1)
    yield "linear", lambda: F.linear(x, torch.empty(3, 8, device="meta"), torch.empty(3, device="meta"))
    yield "linear of what does not fit", lambda: F.linear(x, torch.empty(3, 7, device="meta"))
    yield "products", lambda: x.flatten(1, 2) @ x.flatten(1, 2).mT
    yield "layer norm", lambda: F.layer_norm(x, (7, 8))
    yield "layer norm of what does not fit", lambda: F.layer_norm(x, (8, 7))
    yield "repeat", lambda: flat.repeat(3, 1, 2)
    yield "positions", lambda: torch.arange(2, 9, 2, device="meta") + flat[:, :1]
    yield "softmax", lambda: F.softmax(x, 1).cumsum(2).roll(1, 0)
    for dim in (5, -6, (1, 1)):
        for name in ("mean", "sum", "amax", "logsumexp", "cumsum"):
            yield f"{name} {dim}", partial(getattr(torch, name), x, dim)
        yield f"roll {dim}", partial(torch.roll, x, 1, dim)
    yield "stack along none", lambda: torch.stack([x, x], -7)
    yield "logsumexp of no dimension", lambda: x.logsumexp(())
    yield "maximum of nothing", lambda: x[:0].amax(0)
    yield "convolution of nothing", lambda: F.conv3d(x[:, :0], torch.empty(6, 0, 1, 1, 1, device="meta"))
    yield "pool with too much around", lambda: F.avg_pool3d(x, 2, padding=2)
    for bias in (1, 3, 7):
        yield f"bias {bias}", partial(torch.addmm, flat[0, :bias], flat, torch.empty(4, 3, device="meta"))
    for width in (7, 8):
        yield f"layer norm's weight {width}", partial(F.layer_norm, x, (8,), torch.empty(width, device="meta"))
    yield "in place of whole numbers", lambda: torch.empty(3, dtype=torch.int64, device="meta").add_(flat[0, :3])
    yield "of two types", lambda: torch.cat([x.half(), x])
    yield "two results", lambda: torch.frexp(x)[0]
    yield "numbers outside", lambda: x.new_empty(int(torch.tensor(3.0) + torch.tensor(2)))
    yield "numbers outside, in place", lambda: x.new_empty(int(torch.tensor(3).add_(2)))
    yield "numbers outside, joined", lambda: x.new_empty(int(torch.stack([torch.tensor(3.0), torch.tensor(2.0)]).sum()))


def _views() -> Iterator[tuple[str, Call]]:
    """Of what lies in memory in another order than it is indexed."""
    x, row = torch.empty(2, 4, 5, 7, 8, device="meta"), torch.empty(8, device="meta")
    last = x.to(memory_format=torch.channels_last_3d)
    for name, y in (("moved", x.transpose(1, 2)), ("channels last", last), ("expanded", row.expand(2, 4, 5, 7, 8))):
        yield f"{name}, pointwise", partial(lambda y: F.gelu(y), y)
        yield f"{name}, with a row", partial(lambda y: row * y, y)
        yield f"{name}, with another", partial(lambda y: x.mT.reshape(y.shape) + y, y)
        yield f"{name}, copied", partial(lambda y: y.clone(memory_format=torch.contiguous_format), y)
        yield f"{name}, hardswish", partial(F.hardswish, y)
        yield f"{name}, mean", partial(torch.mean, y, 1, keepdim=True)
        yield f"{name}, pool", partial(F.max_pool3d, y, 2)
        yield f"{name}, joined", partial(torch.cat, [y, y], 1)
        yield f"{name}, convolution", partial(F.conv3d, y, x.new_empty(6, y.shape[1], 1, 1, 1))


def _found(call: Call) -> object:
    try:
        out = call()
    except (RuntimeError, ValueError, IndexError, TypeError):
        return "an error"
    return (
        out.shape,
        out.dtype,
        out.device.type,
        [step for n, step in zip(out.shape, out.stride(), strict=True) if n > 1],
    )


def test_shapes_and_operations_are_those_of_pytorch() -> None:
    for name, call in itertools.chain(_operators(), _views()):
        with torch.no_grad(), OperationCounter() as ours:
            found = _found(call)
        with torch.no_grad(), FlopCounterMode(display=False) as theirs:
            wanted = _found(call)
        assert found == wanted, name
        assert 2 * ours.macs == theirs.get_total_flops(), name
