"""The steps of a ConvLSTM as one operator with its gradient written out.

What autograd would do step by step, with less traffic: the gradient of the state's kernel is one convolution over all
steps, the gates and their gradients are written once, into one piece of memory, and nothing is kept but the gates,
c, tanh(c) and h.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

_aten = torch.ops.aten


def lstm_sequence(
    gates: torch.Tensor,
    weight: torch.Tensor,
    steps: int,
    state: tuple[torch.Tensor, torch.Tensor] | None,
    padding: tuple[int, int],
    dilation: tuple[int, int],
) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
    """The inputs' part of the gates i, f, g, o of all steps (T B, 4 C, H, W), time first -> all h (T B, C, H, W) and
    the last (h, c). weight: (4 C, C, k, k), of the convolution of the state."""
    h, c = (None, None) if state is None else state
    states, c = _Sequence.apply(gates, weight, h, c, steps, padding, dilation)
    return states, (states[-(len(states) // steps) :], c)


class _Sequence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        given: torch.Tensor,
        weight: torch.Tensor,
        h: torch.Tensor | None,
        c: torch.Tensor | None,
        steps: int,
        padding: tuple[int, int],
        dilation: tuple[int, int],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        gates = torch.empty_like(given)
        hs, cs, tanhs = (torch.empty_like(given[:, : weight.shape[1]]) for _ in range(3))
        h0, c0 = h, c
        every = (part.chunk(steps) for part in (given, gates, hs, cs, tanhs))
        for now, all_, h_now, c_now, tanh in zip(*every, strict=True):
            if h is None:
                all_.copy_(now)
            else:
                torch.add(now, F.conv2d(h, weight, None, 1, padding, dilation), out=all_)
            i, f, g, o = all_.chunk(4, 1)
            i.sigmoid_(), f.sigmoid_(), g.tanh_(), o.sigmoid_()
            torch.mul(i, g, out=c_now)
            if c is not None:
                c_now.addcmul_(f, c)
            torch.tanh(c_now, out=tanh)
            torch.mul(o, tanh, out=h_now)
            h, c = h_now, c_now
        ctx.save_for_backward(weight, h0, c0, gates, hs, cs, tanhs)
        ctx.steps, ctx.options = steps, ([1, 1], padding, dilation, False, [0, 0], 1)
        return hs, cs[-(len(cs) // steps) :].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_hs: torch.Tensor, d_c: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        weight, h0, c0, gates, hs, cs, tanhs = ctx.saved_tensors
        steps, batch = ctx.steps, len(hs) // ctx.steps
        d_gates = torch.empty_like(gates)
        d_h: torch.Tensor | None = None
        every = [part.chunk(steps) for part in (gates, d_gates, tanhs, d_hs)]
        before_c = (c0, *cs.chunk(steps))
        before_h = (h0, *hs.chunk(steps))
        for t in reversed(range(steps)):
            now, d_now, tanh, d_out = (part[t] for part in every)
            i, f, g, o = now.chunk(4, 1)
            d_i, d_f, d_g, d_o = d_now.chunk(4, 1)
            d_h = d_out if d_h is None else d_h.add_(d_out)
            _aten.sigmoid_backward.grad_input(d_h * tanh, o, grad_input=d_o)
            d_c = d_c + _aten.tanh_backward(d_h * o, tanh)
            _aten.sigmoid_backward.grad_input(d_c * g, i, grad_input=d_i)
            _aten.tanh_backward.grad_input(d_c * i, g, grad_input=d_g)
            if before_c[t] is None:
                d_f.zero_()
            else:
                _aten.sigmoid_backward.grad_input(d_c * before_c[t], f, grad_input=d_f)
            d_c = d_c * f
            if before_h[t] is not None:
                mask = [True, False, False]
                d_h = _aten.convolution_backward(d_now, before_h[t], weight, None, *ctx.options, mask)[0]
        d_weight = None
        if ctx.needs_input_grad[1]:
            known = hs[:-batch] if h0 is None else torch.cat([h0, hs[:-batch]])
            d_weight = torch.zeros_like(weight)
            if len(known):
                mask = [False, True, False]
                late = d_gates[-len(known) :]
                d_weight = _aten.convolution_backward(late, known, weight, None, *ctx.options, mask)[1]
        if h0 is None:
            return d_gates, d_weight, None, None, None, None, None
        return d_gates, d_weight, d_h, d_c, None, None, None
