"""ConvLSTM against the usual way to write one: a convolution over [x, h] at every step. CPU time, forward + backward.

    python benchmarks/bench_recurrent.py                      # 16 x 28 x 28, 64 channels, 1 thread
    python benchmarks/bench_recurrent.py --batch 1 --rounds 9 --fixed-input --compile

Both read the same 16 maps of 64 channels and keep a state of 64; weights are equal and the results are compared
first. Rounds are interleaved, the first is dropped, and medians are shown with the smallest and largest. The table
of operators (--profile) says where the time goes. Multiply-adds are the same in both but for the first step, whose
state is zero: where the convolutions run at the speed of the processor, there is little to win.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import Counter, defaultdict
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from vidtrain.models.layers.conv_rnn import ConvLSTMCell, time_first


class UsualConvLSTM(nn.Module):
    """(B, T, C, H, W) -> the states (B, T, D, H, W), as most public code has it."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.conv = nn.Conv2d(in_channels + channels, 4 * channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = x.new_zeros(x.shape[0], self.channels, *x.shape[3:])
        c = h
        states = []
        for t in range(x.shape[1]):
            i, f, g, o = self.conv(torch.cat([x[:, t], h], 1)).split(self.channels, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            states.append(h)
        return torch.stack(states, 1)


class Ours(nn.Module):
    """The cell of the package, on frames as the models hand them on: (T B, C, H, W), time first."""

    def __init__(self, usual: UsualConvLSTM, in_channels: int, frames: int, *, how: str = "") -> None:
        super().__init__()
        self.frames = frames
        self.cell = ConvLSTMCell(in_channels, usual.channels, compiled=how == "compiled")
        self.cell.one_operator = how != "step by step"
        with torch.no_grad():
            self.cell.conv_x.weight.copy_(usual.conv.weight[:, :in_channels])
            self.cell.conv_h.weight.copy_(usual.conv.weight[:, in_channels:])
            if self.cell.conv_x.bias is not None and usual.conv.bias is not None:
                self.cell.conv_x.bias.copy_(usual.conv.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        states: torch.Tensor = self.cell(x, self.frames)[0]
        return states


def cpu_seconds(model: nn.Module, x: torch.Tensor) -> float:
    """Of one forward and backward pass, on all threads."""
    model.zero_grad()
    began = time.process_time()
    model(x).sum().backward()
    return time.process_time() - began


def gmac(model: nn.Module, x: torch.Tensor) -> float:
    counter = FlopCounterMode(display=False)
    with counter:
        model(x).sum().backward()
    return counter.get_total_flops() / 2e9


def agree(cases: dict[str, tuple[nn.Module, torch.Tensor]], frames: int) -> float:
    """Largest difference of the states; the gradients of all kernels are compared too."""
    found = {}
    for name, (model, x) in cases.items():
        model.zero_grad()
        states = model(x)
        states.square().sum().backward()
        cell = getattr(model, "cell", None)
        layers = ["conv"] if cell is None else ["cell.conv_x", "cell.conv_h"]
        gradients = [model.get_parameter(f"{layer}.weight").grad for layer in layers]
        first = states if cell is None else states.unflatten(0, (frames, -1)).transpose(0, 1)
        found[name] = first.detach(), torch.cat([gradient for gradient in gradients if gradient is not None], 1)
    states, gradient = found["usual"]
    for _, other in found.values():
        assert (other - gradient).abs().max() < 1e-4 * gradient.abs().max()
    return max((other - states).abs().max().item() for other, _ in found.values())


class OperatorClock(TorchDispatchMode):
    """CPU seconds by operator, which other work on the machine does not add to as it does to torch.profiler's."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        began = time.process_time()
        out = func(*args, **(kwargs or {}))
        name = str(func.overloadpacket)
        self.seconds[name] += time.process_time() - began
        self.calls[name] += 1
        return out


def profile(model: nn.Module, x: torch.Tensor) -> str:
    with OperatorClock() as clock:
        cpu_seconds(model, x)
    total = sum(clock.seconds.values())
    rows = [f"  {name:36s} {spent:.3f} s  {spent / total:5.1%}  {clock.calls[name]:4d} calls"
            for name, spent in sorted(clock.seconds.items(), key=lambda one: -one[1])[:8]]  # fmt: skip
    return "\n".join([*rows, f"  {'all operators':36s} {total:.3f} s"])


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for key, default in (("batch", 8), ("frames", 16), ("size", 28), ("channels", 64), ("rounds", 7), ("threads", 1)):
        parser.add_argument(f"--{key}", type=int, default=default)
    parser.add_argument("--compile", action="store_true", help="also with the pointwise part of the step compiled")
    parser.add_argument("--fixed-input", action="store_true", help="the input needs no gradient (frames, a frozen CNN)")
    parser.add_argument("--profile", action="store_true", help="also print the operators of each")
    return parser.parse_args()


def main() -> None:
    args = parse()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    size, channels = args.size, args.channels
    shape = (args.batch, args.frames, channels, size, size)
    plain = torch.randn(shape)
    last = plain.transpose(1, 2).contiguous(memory_format=torch.channels_last_3d).transpose(1, 2)
    ours = time_first(last.transpose(1, 2))
    for x in (plain, last, ours):
        x.requires_grad_(not args.fixed_input)
    usual = UsualConvLSTM(channels, channels)
    cases: dict[str, tuple[nn.Module, torch.Tensor]] = {
        "usual": (usual, plain),
        "usual, channels_last": (usual, last),
        "ours": (Ours(usual, channels, args.frames), ours),
        "ours, step by step": (Ours(usual, channels, args.frames, how="step by step"), ours),
    }
    if args.compile:
        cases["ours, compiled step"] = Ours(usual, channels, args.frames, how="compiled"), ours
    print(
        f"{args.batch} clips of {args.frames} x {size} x {size}, {channels} channels, {args.threads} thread(s),",
        end=" ",
    )
    print(f"torch {torch.__version__}; largest difference {agree(cases, args.frames):.1e}")
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(args.rounds + 1):
        for name, (model, x) in cases.items():
            seconds[name].append(cpu_seconds(model, x))
    print("                        GMAC   CPU s, median (min - max)   times the usual")
    base = statistics.median(seconds["usual"][1:])
    for name, (model, x) in cases.items():
        took = seconds[name][1:]
        median = statistics.median(took)
        span = f"{median:.3f} ({min(took):.3f} - {max(took):.3f})"
        print(f"{name:22s} {gmac(model, x):6.2f}   {span:26s}  {base / median:.2f}")
    if args.profile:
        for name, (model, x) in cases.items():
            print(f"\n{name}\n{profile(model, x)}")


if __name__ == "__main__":
    main()
