"""Recurrent cells of 2D convolutions: RNN, GRU and LSTM with convolutions where these have matrix products.

The convolutions of the inputs do not depend on the state, so those of all time steps are one convolution; only the
convolution of the state stands in the loop. Frames lie time first, (T B, C, H, W): what belongs to one step is then
one piece of memory, in torch.channels_last as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from vidtrain.errors import ConfigError
from vidtrain.models.layers.backbone2d import halving_convs
from vidtrain.models.layers.classifier import check_clip
from vidtrain.models.layers.lstm_sequence import lstm_sequence
from vidtrain.models.layers.recurrent import RecurrentClassifier, State, TimePool

Maps = tuple[torch.Tensor, ...]


def time_first(x: torch.Tensor) -> torch.Tensor:
    """(B, C, T, H, W) -> (T B, C, H, W)."""
    return torch.cat(x.unbind(2))


def by_step(x: torch.Tensor, steps: int) -> Maps:
    """(T B, ...) -> T times (B, ...). Not by `chunk`, whose number of parts torch.export knows only for a known B."""
    return x.unflatten(0, (steps, -1)).unbind()


def readout(channels: int, *, norm: bool) -> nn.Module:
    """What follows the last states before they are averaged over space: BatchNorm and ReLU where there is `norm`.

    The states have both signs; a plain average over space would leave little of them.
    """
    return nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU()) if norm else nn.Identity()


class ConvCell(nn.Module):
    """(T B, in_channels, H, W) -> the states after each step, (T B, channels, H', W').

    kernel: odd, padded so that a map keeps its size. stride: of the convolution of the input. dilation: of both.
    norm: BatchNorm on the convolution of the input (its biases are then the cell's), none on the state.
    compiled: the pointwise part of the step is compiled by torch.compile, which needs a C++ compiler on a CPU.

    A state is a tuple of maps (B, channels, H', W'), the output first; None is a state of zeros.
    """

    gates = 1
    hidden_bias = False

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        kernel: int = 3,
        stride: int = 1,
        dilation: int = 1,
        norm: bool = False,
        compiled: bool = False,
    ) -> None:
        super().__init__()
        self.channels = channels
        self.compiled = compiled
        width = self.gates * channels
        padding = dilation * (kernel // 2)
        self.conv_x = nn.Conv2d(in_channels, width, kernel, stride, padding, dilation, bias=not norm)
        self.norm = nn.BatchNorm2d(width) if norm else nn.Identity()
        self.conv_h = nn.Conv2d(channels, width, kernel, 1, padding, dilation, bias=self.hidden_bias)
        self._start()

    def forward(self, x: torch.Tensor, steps: int, state: Maps | None = None) -> tuple[torch.Tensor, Maps]:
        """x holds `steps` time steps. Returns the outputs of all of them and the state after the last."""
        return self._loop(self.inputs(x), steps, state)

    def _loop(self, parts: Maps, steps: int, state: Maps | None) -> tuple[torch.Tensor, Maps]:
        if state is not None:
            self._check(parts[0], steps, state)
        outputs = []
        for now in zip(*(by_step(part, steps) for part in parts), strict=True):
            state = self.step(now, state)
            outputs.append(state[0])
        assert state is not None, "a clip has a frame or more"
        return torch.cat(outputs), state

    def inputs(self, x: torch.Tensor) -> Maps:
        """What the steps need of the input, for all of them at once: first its part of the gates."""
        return (self.norm(self.conv_x(x)),)

    def hidden(self, h: torch.Tensor, now: Maps) -> torch.Tensor:
        """The state's part of the gates: (B, channels, H', W') -> (B, gates channels, H', W')."""
        out: torch.Tensor = self.conv_h(h)
        return out

    def step(self, now: Maps, state: Maps | None) -> Maps:
        """One step: the inputs' part at this step and the state before it -> the state after it."""
        raise NotImplementedError

    def _call(self, update: Callable[..., Any], *tensors: torch.Tensor | None) -> Any:
        first = tensors[0]
        # the tables of models/summary.py run a model on meta tensors and on coordinates, which are no work to compile
        if self.compiled and type(first) is torch.Tensor and not first.is_meta:
            return _compiled(update)(*tensors)
        return update(*tensors)

    def _check(self, gates: torch.Tensor, steps: int, state: Maps) -> None:
        wanted = (gates.shape[0] // steps, self.channels, *gates.shape[2:])
        if tuple(state[0].shape) != wanted:
            raise ConfigError(
                f"state: its maps (videos, channels, height, width) are {tuple(state[0].shape)}, these frames need "
                f"{wanted}: all pieces of a video must have one size"
            )

    def _start(self) -> None:
        """Glorot's uniform weights for the input, orthogonal ones for the state, gate by gate; biases 0."""
        for weight in self.conv_x.weight.chunk(self.gates):
            nn.init.xavier_uniform_(weight)
        for weight in self.conv_h.weight.chunk(self.gates):
            nn.init.orthogonal_(weight)
        for bias in (self.conv_x.bias, self.conv_h.bias):
            if bias is not None:
                nn.init.zeros_(bias)


_COMPILED: dict[Callable[..., Any], Callable[..., Any]] = {}


def _compiled(update: Callable[..., Any]) -> Callable[..., Any]:
    if update not in _COMPILED:
        _COMPILED[update] = torch.compile(update)
    return _COMPILED[update]


class ConvRNNCell(ConvCell):
    """h_t = tanh(W_x * x_t + W_h * h_{t-1} + b)."""

    def step(self, now: Maps, state: Maps | None) -> Maps:
        gates = now[0] if state is None else now[0] + self.hidden(state[0], now)
        return (gates.tanh(),)


def _gru(x: torch.Tensor, hidden: torch.Tensor, h: torch.Tensor | None) -> torch.Tensor:
    x_r, x_z, x_n = x.chunk(3, 1)
    h_r, h_z, h_n = hidden.chunk(3, 1)
    n = (x_n + (x_r + h_r).sigmoid() * h_n).tanh()
    z = (x_z + h_z).sigmoid()
    return n - z * n if h is None else n + z * (h - n)


class ConvGRUCell(ConvCell):
    """The reset gate r acts after the convolution, as in nn.GRU:

    r, z = sigmoid(W_x * x_t + W_h * h_{t-1} + b); n = tanh(W_xn * x_t + b_n + r . (W_hn * h_{t-1} + b_hn));
    h_t = (1 - z) . n + z . h_{t-1}. Gates lie in the order r, z, n.
    """

    gates = 3
    hidden_bias = True

    def step(self, now: Maps, state: Maps | None) -> Maps:
        if state is None:
            assert self.conv_h.bias is not None
            return (self._call(_gru, now[0], self.conv_h.bias.view(1, -1, 1, 1).to(now[0].dtype), None),)
        return (self._call(_gru, now[0], self.hidden(state[0], now), state[0]),)


def _reset(x: torch.Tensor, hidden: torch.Tensor, h: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    r, z = (x[:, : hidden.shape[1]] + hidden).sigmoid().chunk(2, 1)
    return r * h, z


def _candidate(x: torch.Tensor, hidden: torch.Tensor, z: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
    n = (x[:, -h.shape[1] :] + hidden).tanh()
    return n + z * (h - n)


class ResetBeforeGRUCell(ConvCell):
    """The reset gate r acts on the state before the convolution (Cho et al. 2014; Ballas et al. 2016):

    r, z = sigmoid(W_x * x_t + W_h * h_{t-1} + b); n = tanh(W_xn * x_t + W_hn * (r . h_{t-1}) + b_n);
    h_t = (1 - z) . n + z . h_{t-1}. Gates lie in the order r, z, n. The papers let 1 - z keep the old state, which is
    the same network with the weights and biases of z negated.
    """

    gates = 3

    def step(self, now: Maps, state: Maps | None) -> Maps:
        if state is None:
            _, z, n = now[0].chunk(3, 1)
            return ((-z).sigmoid() * n.tanh(),)
        h = state[0]
        gates, candidate = self.conv_h.weight.split((2 * self.channels, self.channels))
        reset, z = self._call(_reset, now[0], self._convolved(h, gates), h)
        return (self._call(_candidate, now[0], self._convolved(reset, candidate), z, h),)

    def _convolved(self, h: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return F.conv2d(h, weight, None, 1, self.conv_h.padding, self.conv_h.dilation)


def _lstm(
    x: torch.Tensor, hidden: torch.Tensor | None, c: torch.Tensor | None, peephole: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    i, f, g, o = (x if hidden is None else x + hidden).chunk(4, 1)
    if peephole is not None and c is not None:
        i, f = i + peephole[0] * c, f + peephole[1] * c
    new = i.sigmoid() * g.tanh()
    if c is not None:
        new = f.sigmoid() * c + new
    if peephole is not None:
        o = o + peephole[2] * new
    return o.sigmoid() * new.tanh(), new


class ConvLSTMCell(ConvCell):
    """Document 002, section 3.2, and with `peephole` Shi et al. 2015 ("Convolutional LSTM Network"), equation 3:

    i, f = sigmoid(W_x * x_t + W_h * h_{t-1} + w_c . c_{t-1} + b); g = tanh(W_xg * x_t + W_hg * h_{t-1} + b_g);
    c_t = f . c_{t-1} + i . g; o = sigmoid(W_xo * x_t + W_ho * h_{t-1} + w_co . c_t + b_o); h_t = o . tanh(c_t).

    Gates lie in the order i, f, g, o, as in nn.LSTM; the state is (h, c). The forget gates' biases start at 1.
    peephole: None, or the size (H', W') of the maps, as w_ci, w_cf and w_co have a weight for each position; they
    start at zero.
    """

    gates = 4
    one_operator = True
    """Whether training may take all steps as one operator (lstm_sequence.py), the plain cell's."""

    def __init__(self, in_channels: int, channels: int, *, peephole: tuple[int, int] | None = None, **options: Any):
        super().__init__(in_channels, channels, **options)
        self.peephole = None if peephole is None else nn.Parameter(torch.zeros(3, channels, *peephole))

    def forward(self, x: torch.Tensor, steps: int, state: Maps | None = None) -> tuple[torch.Tensor, Maps]:
        special = self.compiled or self.peephole is not None or not self.one_operator
        if special or not torch.is_grad_enabled() or torch.compiler.is_compiling():
            return super().forward(x, steps, state)
        (gates,) = self.inputs(x)
        weight = self.conv_h.weight
        if gates.dtype != weight.dtype:  # under autocast each operator has its own precision
            return self._loop((gates,), steps, state)
        if state is not None:
            self._check(gates, steps, state)
        h_c = None if state is None else (state[0], state[1])
        return lstm_sequence(gates, weight, steps, h_c, self.conv_h.padding, self.conv_h.dilation)  # type: ignore[arg-type]

    def step(self, now: Maps, state: Maps | None) -> Maps:
        h, c = (None, None) if state is None else state
        hidden = None if h is None else self.hidden(h, now)
        h, c = self._call(_lstm, now[0], hidden, c, self.peephole)
        # Under autocast the gates have half the precision; what is summed up over time keeps its own.
        return h, c.to(self.conv_h.weight.dtype)

    def _start(self) -> None:
        super()._start()
        biases = self.conv_x.bias if isinstance(self.norm, nn.Identity) else self.norm.bias
        assert biases is not None
        with torch.no_grad():
            biases[self.channels : 2 * self.channels] = 1


class ConvRecurrent(RecurrentClassifier):
    """A stem on each frame, then layers of cells; the last layer's states, averaged over space, over time.

    name: for messages. stem: channels of `halving_convs`, none for cells that read the frames. size: the only side of
    the frames that fits; None: any. norm: of the readout. head: what is read from the states, see TimePool.
    """

    def __init__(
        self,
        name: str,
        cells: Sequence[ConvCell],
        *,
        num_classes: int,
        norm: bool,
        head: str,
        dropout: float,
        stem: Sequence[int] = (),
        size: int | None = None,
    ) -> None:
        super().__init__(num_features=cells[-1].channels, num_classes=num_classes, dropout=dropout)
        self.name = name
        self.size = size
        self.stem = halving_convs(3, stem)
        self.layers = nn.ModuleList(cells)
        self.readout = readout(self.num_features, norm=norm)
        self.pool = TimePool(self.num_features, head)

    def stream_features(self, x: torch.Tensor, state: State | None = None) -> tuple[torch.Tensor, State]:
        """(B, 3, T, H, W) -> (B, D) and the state."""
        maps, steps, cells = self.states(x, state)
        means = maps.mean((2, 3)).unflatten(0, (steps, -1)).transpose(0, 1)
        out, pooled = self.pool(means, None if state is None else state[1])
        return out, (cells, pooled)

    def states(self, x: torch.Tensor, state: State | None) -> tuple[torch.Tensor, int, State]:
        """(B, 3, T, H, W) -> the last layer's states after the readout (T B, D, H', W'), T, and the cells' state."""
        check_clip(x, self.name, size=self.size)
        steps = x.shape[2]
        maps = self.stem(time_first(x))
        before = [None] * len(self.layers) if state is None else state[0]
        after = []
        for cell, known in zip(self.layers, before, strict=True):
            maps, new = cell(maps, steps, known)
            after.append(new)
        return self.readout(maps), steps, tuple(after)
