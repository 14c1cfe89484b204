"""The cells of layers/conv_rnn.py against PyTorch's own, against published equations and against a reference file."""

from __future__ import annotations

import copy
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.ops import deform_conv2d

from vidtrain.errors import ConfigError
from vidtrain.models.layers.conv_rnn import (
    ConvCell,
    ConvGRUCell,
    ConvLSTMCell,
    ConvRNNCell,
    ResetBeforeGRUCell,
    time_first,
)
from vidtrain.models.layers.deformable import DeformableConvLSTMCell, _deform

PARITY = Path(os.environ.get("VIDTRAIN_PARITY", Path(__file__).parents[3] / "shared" / "parity"))
PAIRS: dict[str, tuple[type[ConvCell], type[nn.RNNBase]]] = {
    "rnn": (ConvRNNCell, nn.RNN),
    "gru": (ConvGRUCell, nn.GRU),
    "lstm": (ConvLSTMCell, nn.LSTM),
}


def randomise(module: nn.Module, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in module.parameters():
            tensor.copy_(0.4 * torch.randn(tensor.shape, generator=generator))


def maps(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def copy_weights(cell: ConvCell, rnn: nn.RNNBase) -> None:
    """nn.RNN's matrices as 1 x 1 kernels. Where the cell has one bias it is the sum of the two."""
    with torch.no_grad():
        cell.conv_x.weight.copy_(rnn.weight_ih_l0[:, :, None, None])
        cell.conv_h.weight.copy_(rnn.weight_hh_l0[:, :, None, None])
        both = cell.conv_h.bias is not None
        cell.conv_x.bias.copy_(rnn.bias_ih_l0 if both else rnn.bias_ih_l0 + rnn.bias_hh_l0)
        if both:
            cell.conv_h.bias.copy_(rnn.bias_hh_l0)


@pytest.mark.parametrize("given", [False, True], ids=["zero_state", "given_state"])
@pytest.mark.parametrize("name", PAIRS)
def test_kernel_1_on_a_1x1_map_is_pytorchs_layer(name: str, given: bool) -> None:
    kind, layer = PAIRS[name]
    rnn = layer(5, 7)
    randomise(rnn)
    cell = kind(5, 7, kernel=1)
    copy_weights(cell, rnn)
    x = maps(6, 3, 5)
    start = tuple(maps(3, 7, seed=seed) for seed in (2, 3))[: 2 if name == "lstm" else 1] if given else None
    states, last = cell(x.flatten(0, 1)[..., None, None], 6, start and tuple(s[..., None, None] for s in start))
    packed = start and (tuple(s[None] for s in start) if name == "lstm" else start[0][None])
    expected, end = rnn(x, packed)
    torch.testing.assert_close(states.view(6, 3, 7), expected, rtol=0, atol=1e-6)
    for mine, theirs in zip(last, end if name == "lstm" else (end,), strict=True):
        torch.testing.assert_close(mine.view(1, 3, 7), theirs, rtol=0, atol=1e-6)
    mine_x, theirs_x = cell.conv_x.weight, rnn.weight_ih_l0
    mine = torch.autograd.grad(states.square().sum(), (mine_x, cell.conv_h.weight))
    theirs = torch.autograd.grad(expected.square().sum(), (theirs_x, rnn.weight_hh_l0))
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one.flatten(1), other, rtol=1e-5, atol=1e-5)


def ballas(cell: ConvCell, x: torch.Tensor, steps: int, h: torch.Tensor) -> torch.Tensor:
    """Ballas et al. 2016, equations 8 to 11, gate by gate: their z keeps the candidate, ours the old state."""
    w_r, w_z, w = cell.conv_x.weight.chunk(3)
    u_r, u_z, u = cell.conv_h.weight.chunk(3)
    b_r, b_z, b = (bias.view(1, -1, 1, 1) for bias in cell.conv_x.bias.chunk(3))
    pad, stride = cell.conv_x.padding, cell.conv_x.stride
    states = []
    for now in x.chunk(steps):
        z = torch.sigmoid(F.conv2d(now, -w_z, None, stride, pad) + F.conv2d(h, -u_z, padding=pad) - b_z)
        r = torch.sigmoid(F.conv2d(now, w_r, None, stride, pad) + F.conv2d(h, u_r, padding=pad) + b_r)
        n = torch.tanh(F.conv2d(now, w, None, stride, pad) + F.conv2d(r * h, u, padding=pad) + b)
        h = (1 - z) * h + z * n
        states.append(h)
    return torch.cat(states)


@pytest.mark.parametrize("given", [False, True], ids=["zero_state", "given_state"])
@pytest.mark.parametrize("kernel", [1, 3])
def test_gru_with_the_reset_before_the_convolution(kernel: int, given: bool) -> None:
    cell = ResetBeforeGRUCell(2, 3, kernel=kernel, stride=2)
    randomise(cell)
    x, h = maps(4 * 2, 2, 6, 8), maps(2, 3, 3, 4, seed=2)
    states, last = cell(x, 4, (h,) if given else None)
    torch.testing.assert_close(states, ballas(cell, x, 4, h if given else 0 * h), rtol=0, atol=1e-6)
    torch.testing.assert_close(last[0], states[-2:])
    after = ConvGRUCell(2, 3, kernel=kernel, stride=2)
    after.load_state_dict({**cell.state_dict(), "conv_h.bias": torch.zeros(9)})
    assert (after(x, 4)[0] - states).abs().max() > 1e-2  # another network, with a kernel of 1 too


@pytest.mark.skipif(not PARITY.is_dir(), reason="the reference files are not here")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 2e-6)])
def test_convlstm_of_third_party_code(dtype: torch.dtype, tolerance: float) -> None:
    target = json.loads((PARITY / "cells" / "convlstm_no_peephole.json").read_text(encoding="utf-8"))
    given = {key: torch.tensor(value, dtype=dtype) for key, value in target["inputs"].items()}
    cell = ConvLSTMCell(2, 3).to(dtype)
    with torch.no_grad():
        cell.conv_x.weight.copy_(torch.cat([given[f"Wx{gate}"] for gate in "ifco"]))
        cell.conv_h.weight.copy_(torch.cat([given[f"Wh{gate}"] for gate in "ifco"]))
        cell.conv_x.bias.copy_(torch.cat([given[f"b{gate}"] for gate in "ifco"]))
        states, (_, c) = cell(time_first(given["x"].transpose(1, 2)), 3, (given["h0"], given["c0"]))
    expected = {key: torch.tensor(target["outputs"][key], dtype=dtype) for key in ("h", "c")}
    torch.testing.assert_close(states.unflatten(0, (3, 2)).transpose(0, 1), expected["h"], rtol=0, atol=tolerance)
    torch.testing.assert_close(c, expected["c"], rtol=0, atol=tolerance)


def shi(cell: ConvLSTMCell, x: torch.Tensor, steps: int) -> torch.Tensor:
    """Shi et al. 2015, equation 3, gate by gate and step by step."""
    w_xi, w_xf, w_xc, w_xo = cell.conv_x.weight.chunk(4)
    w_hi, w_hf, w_hc, w_ho = cell.conv_h.weight.chunk(4)
    b_i, b_f, b_c, b_o = (bias.view(1, -1, 1, 1) for bias in cell.conv_x.bias.chunk(4))
    w_ci, w_cf, w_co = cell.peephole
    pad = cell.conv_x.padding

    def conv(maps: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return F.conv2d(maps, weight, padding=pad)

    h = c = torch.zeros(len(x) // steps, cell.channels, *x.shape[2:])
    states = []
    for now in x.chunk(steps):
        i = torch.sigmoid(conv(now, w_xi) + conv(h, w_hi) + w_ci * c + b_i)
        f = torch.sigmoid(conv(now, w_xf) + conv(h, w_hf) + w_cf * c + b_f)
        c = f * c + i * torch.tanh(conv(now, w_xc) + conv(h, w_hc) + b_c)
        o = torch.sigmoid(conv(now, w_xo) + conv(h, w_ho) + w_co * c + b_o)
        h = o * torch.tanh(c)
        states.append(h)
    return torch.cat(states)


def test_peepholes_are_shis_equations_with_trained_and_saved_weights() -> None:
    cell = ConvLSTMCell(2, 3, peephole=(4, 5))
    assert cell.peephole is not None
    assert cell.peephole.shape == (3, 3, 4, 5)  # w_ci, w_cf, w_co: a weight for each channel and position
    assert "peephole" in cell.state_dict()
    x = maps(4 * 2, 2, 4, 5)
    plain = ConvLSTMCell(2, 3)
    plain.load_state_dict({key: value for key, value in cell.state_dict().items() if key != "peephole"})
    torch.testing.assert_close(cell(x, 4)[0], plain(x, 4)[0])  # they start at zero
    randomise(cell)
    states, _ = cell(x, 4)
    torch.testing.assert_close(states, shi(cell, x, 4), rtol=0, atol=1e-6)
    states.square().sum().backward()
    assert (cell.peephole.grad != 0).all()


@pytest.mark.parametrize("stride", [1, 2])
def test_zero_offsets_are_the_plain_cell(stride: int) -> None:
    deformable = DeformableConvLSTMCell(4, 6, groups=2, stride=stride, norm=True)
    plain = ConvLSTMCell(4, 6, stride=stride, norm=True)
    plain.load_state_dict({k: v for k, v in deformable.state_dict().items() if not k.startswith("offset")})
    x = maps(3 * 2, 4, 7, 6)
    torch.testing.assert_close(deformable(x, 3)[0], plain(x, 3)[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize(("stride", "dilation", "groups"), [(1, 1, 1), (2, 1, 2), (1, 2, 4)])
def test_deformable_cells_equal_the_operator_of_torchvision(stride: int, dilation: int, groups: int) -> None:
    cell = DeformableConvLSTMCell(4, 8, stride=stride, dilation=dilation, groups=groups).double()
    randomise(cell)
    conv, x = cell.conv_x, maps(3, 4, 9, 7).double().requires_grad_()
    offset = 2 * cell.offset(x)
    ours = _deform(conv, x, offset)
    theirs = deform_conv2d(x, offset, conv.weight, conv.bias, conv.stride, conv.padding, conv.dilation)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)
    way = torch.randn_like(ours)
    wanted = torch.autograd.grad(theirs, (x, conv.weight, cell.offset.weight), way, retain_graph=True)
    found = torch.autograd.grad(ours, (x, conv.weight, cell.offset.weight), way)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-8)


def test_taps_of_wide_maps_keep_their_places_in_half_precision() -> None:
    cell, plain = DeformableConvLSTMCell(1, 1), ConvLSTMCell(1, 1)
    cell.load_state_dict({**cell.state_dict(), **plain.state_dict()})
    x = maps(1, 1, 4, 400).bfloat16()
    torch.testing.assert_close(cell.bfloat16()(x, 1)[0], plain.bfloat16()(x, 1)[0], rtol=0, atol=0.02)


def test_offsets_move_what_the_kernels_read_of_input_and_state() -> None:
    cell, plain = DeformableConvLSTMCell(2, 3), ConvLSTMCell(2, 3)
    randomise(plain)
    cell.load_state_dict({**cell.state_dict(), **plain.state_dict()})
    with torch.no_grad():
        cell.offset.bias.copy_(torch.tensor([0.0, 1.0]).repeat(9))  # (dy, dx) of the nine taps: one to the right
    x = maps(2, 2, 6, 8)  # two steps of one clip
    right = F.pad(x, (0, 1))[..., 1:]
    first = plain(right[:1], 1)
    torch.testing.assert_close(cell(x[:1], 1)[0][..., 1:-2], first[0][..., 1:-2])
    gates = plain.conv_x(right[1:]) + plain.conv_h(F.pad(first[1][0], (0, 1))[..., 1:])
    i, f, g, o = gates.chunk(4, 1)
    c = f.sigmoid() * first[1][1] + i.sigmoid() * g.tanh()
    torch.testing.assert_close(cell(x, 2)[0][1:, ..., 2:-3], (o.sigmoid() * c.tanh())[..., 2:-3])
    cell(x, 2)[0].square().sum().backward()
    assert (cell.offset.weight.grad != 0).all()


def test_deformable_cells_count_their_multiply_adds() -> None:
    counts = []
    for cell in (ConvLSTMCell(2, 3), DeformableConvLSTMCell(2, 3)):
        counter = FlopCounterMode(display=False)
        with torch.no_grad(), counter:
            cell(maps(4, 2, 6, 6), 4)
        counts.append(counter.get_total_flops() // 2)
    offsets = 4 * 36 * 9 * 2 * 18
    assert counts == [4 * 36 * 9 * 2 * 12 + 3 * 36 * 9 * 3 * 12, counts[0] + offsets]


@pytest.mark.parametrize("dilation", [1, 2, 3])
def test_dilation_skips_positions(dilation: int) -> None:
    cell = ConvLSTMCell(1, 1, dilation=dilation)
    randomise(cell)
    still, x = torch.zeros(2, 1, 1, 15, 15), torch.zeros(2, 1, 1, 15, 15)
    x[0, ..., 7, 7] = 1
    change = (cell(x.flatten(0, 1), 2)[0] - cell(still.flatten(0, 1), 2)[0]).abs()[:, 0]
    for step in (0, 1):  # a convolution of the input, then one more of the state
        rows = {abs(int(r) - 7) for r in change[step].amax(1).nonzero()}
        assert rows == {dilation * n for n in range(step + 2)}


def test_all_inputs_are_one_convolution() -> None:
    cell = ConvGRUCell(2, 3, norm=True)
    calls: list[int] = []
    cell.conv_x.register_forward_hook(lambda module, given, out: calls.append(len(given[0])))
    cell.conv_h.register_forward_hook(lambda module, given, out: calls.append(-len(given[0])))
    cell(maps(5 * 2, 2, 4, 4), 5)
    assert calls == [10, -2, -2, -2, -2]


@pytest.mark.parametrize("kind", [ConvRNNCell, ConvGRUCell, ResetBeforeGRUCell, ConvLSTMCell, DeformableConvLSTMCell])
def test_no_state_is_a_state_of_zeros(kind: type[ConvCell]) -> None:
    cell = kind(2, 3)
    randomise(cell)
    x = maps(3 * 2, 2, 4, 4)
    zeros = tuple(torch.zeros(2, 3, 4, 4) for _ in cell(x, 3)[1])
    torch.testing.assert_close(cell(x, 3)[0], cell(x, 3, zeros)[0], rtol=0, atol=1e-6)


def test_memory_order_does_not_matter_and_is_kept() -> None:
    cell = ConvLSTMCell(3, 8)
    clip = maps(2, 3, 4, 6, 6)
    frames = time_first(clip.contiguous(memory_format=torch.channels_last_3d))
    assert frames.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(frames[3], clip[1, :, 1])
    states, _ = cell(frames, 4)
    assert states.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(states, cell(time_first(clip), 4)[0], rtol=0, atol=1e-6)


def test_the_cell_keeps_float32_under_autocast() -> None:
    cell = ConvLSTMCell(2, 4)
    x = maps(3 * 2, 2, 5, 5)
    with torch.autocast("cpu", torch.bfloat16):
        states, (_, c) = cell(x, 3)
    assert c.dtype == torch.float32
    torch.testing.assert_close(states.float(), cell(x, 3)[0], rtol=0, atol=2e-2)


def test_a_state_of_another_stream_is_refused() -> None:
    cell = ConvLSTMCell(2, 3)
    _, state = cell(maps(2, 2, 4, 4), 1)
    with pytest.raises(ConfigError, match=r"\(2, 3, 4, 4\), these frames need \(1, 3, 4, 4\)"):
        cell(maps(2, 2, 4, 4), 2, state)
    with pytest.raises(ConfigError, match=r"these frames need \(2, 3, 6, 6\)"):
        cell(maps(2, 2, 6, 6), 1, state)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.parametrize("kind", [ConvGRUCell, ResetBeforeGRUCell, ConvLSTMCell])
def test_a_compiled_step_gives_the_same(kind: type[ConvCell]) -> None:
    cell, compiled = kind(2, 3), kind(2, 3, compiled=True)
    compiled.load_state_dict(cell.state_dict())
    x = maps(3 * 2, 2, 4, 4)
    for one in (cell, compiled):
        one(x, 3)[0].square().sum().backward()
    torch.testing.assert_close(compiled(x, 3)[0], cell(x, 3)[0], rtol=0, atol=1e-6)
    torch.testing.assert_close(compiled.conv_h.weight.grad, cell.conv_h.weight.grad, rtol=1e-4, atol=1e-5)


# ---------------------------------------------------------------- all steps as one operator


def looped(cell: ConvLSTMCell) -> ConvLSTMCell:
    """The same cell, its steps left to autograd."""
    other = copy.deepcopy(cell)
    other.one_operator = False
    return other


@pytest.mark.parametrize("given", [False, True], ids=["zero_state", "given_state"])
@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("options", [{}, {"dilation": 2, "kernel": 5}, {"stride": 2, "norm": True}], ids=str)
def test_the_written_gradient_is_autograds(options: dict[str, Any], steps: int, given: bool) -> None:
    cell = ConvLSTMCell(2, 3, **options).double()
    randomise(cell)
    other = looped(cell)
    x = maps(steps * 2, 2, 6, 6).double().requires_grad_()
    size = 3 if "stride" in options else 6
    state = tuple(maps(2, 3, size, size, seed=n).double().requires_grad_() for n in (2, 3)) if given else None
    inputs = (x, *(state or ()))
    results = []
    for one in (cell, other):
        states, (h, c) = one(x, steps, state)
        # every output counts, h and c of the last step apart, as they do in a stream
        loss = (states * maps(*states.shape, seed=4)).sum() + h.sin().sum() + (c * maps(*c.shape, seed=5)).sum()
        weights = (cell if one is cell else other).parameters()
        grads = torch.autograd.grad(loss, (*inputs, *weights), allow_unused=True, materialize_grads=True)
        results.append((states, h, c, *grads))
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-11)


def test_the_operator_is_what_trains_and_what_streams_with_a_gradient() -> None:
    cell = ConvLSTMCell(2, 3)
    states, (h, c) = cell(maps(4, 2, 5, 5), 2)
    assert "_Sequence" in str(c.grad_fn)
    assert "_Sequence" in str(states.grad_fn)
    again, _ = cell(maps(4, 2, 5, 5), 2, (h, c))
    again.sum().backward()
    assert cell.conv_h.weight.grad is not None
    with torch.no_grad():
        torch.testing.assert_close(cell(maps(4, 2, 5, 5), 2)[0], states, rtol=0, atol=1e-6)


def test_a_second_derivative_is_refused_rather_than_wrong() -> None:
    cell = ConvLSTMCell(2, 3)
    x = maps(4, 2, 5, 5).requires_grad_()
    (gradient,) = torch.autograd.grad(cell(x, 2)[0].square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()
