"""Attention rollout: how much of each patch reaches what the head reads, through the attention of all layers (Abnar and
Zuidema 2020, "Quantifying Attention Flow in Transformers"), each head's attention weighted by the gradient of the
class's logit (Chefer et al. 2021, "Generic Attention-model Explainability for Interpreting Bi-Modal and Encoder-Decoder
Transformers", equation 5), since attention alone is the same for all classes.

Relevance walks back from the last attention to the first, as a row vector over the tokens: r <- r + r A.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from vidtrain.errors import ConfigError
from vidtrain.explain.score import ClassScore, Inputs, resized
from vidtrain.explain.traced import OTHER_TOKENS, Grid, TracedPass


def rollout(score: ClassScore, inputs: Inputs) -> Tensor:
    """One clip -> float32 (T, H, W) >= 0.

    Defined where every attention is over all patches of the clip, over those of a frame, over the frames of a position,
    or by one query over all of them; class tokens and registers may stand before the patches.

    Raises:
        ConfigError: the network has no attention, or one between windows or pooled tokens.
    """
    with _Weights() as attention:
        outputs = TracedPass(score, inputs)
    name = type(score.model).__name__
    found = [one for one in attention.found if one.weights.requires_grad]
    if not found or outputs.patches is None or not outputs.logit.requires_grad:
        raise ConfigError(f"method=rollout: {name} has no attention with a gradient: method=gradcam or occlusion")
    wanted = [tensor for one in found for tensor in (one.weights, one.out)]
    slopes = torch.autograd.grad(outputs.logit.sum(), wanted, allow_unused=True)
    steps = [
        _Step((one.weights.detach() * slope).clamp_min(0).mean(1), read.abs().sum((1, 3)) > 0)
        for one, slope, read in zip(found, slopes[::2], slopes[1::2], strict=True)
        if slope is not None and read is not None
    ]
    relevance = _walk_back(steps, outputs.patches)
    if relevance is None:
        shapes = ", ".join(dict.fromkeys("x".join(map(str, step.weights.shape)) for step in steps))
        raise ConfigError(
            f"method=rollout: {name} attends within windows, or to pooled tokens ({shapes} for "
            f"{'x'.join(map(str, outputs.patches))} patches), for which it is not defined: method=gradcam or occlusion"
        )
    return resized(relevance, outputs.clip)


@dataclass
class _Attention:
    """weights (B, heads, Q, K), out (B, heads, Q, D)."""

    weights: Tensor
    out: Tensor


class _Weights(TorchFunctionMode):
    """Carries out scaled_dot_product_attention so that its weights can be seen, and keeps them in order."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[_Attention] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        one = _attention(*args, **(kwargs or {}))
        self.found.append(one)
        return one.out


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    **other: Any,
) -> _Attention:
    """As PyTorch defines it; in eval mode nothing is dropped."""
    assert not is_causal, "video transformers look both ways"
    products = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if attn_mask is not None:
        mask = attn_mask
        products = products.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else products + mask
    weights = products.softmax(-1)
    return _Attention(weights, weights @ value)


@dataclass
class _Step:
    """weights: (B, Q, K) >= 0, of the heads together. read: bool (B, Q), the rows on which the logit depends."""

    weights: Tensor
    read: Tensor


@dataclass
class _Relevance:
    """patches (T', P). others: of the tokens before them, (T', E) one group per time step, or (1, E) of the clip.
    frames: (1 + T',), where whole time steps attend to each other: a token of their own, then one per step."""

    patches: Tensor
    others: Tensor
    frames: Tensor | None = None


def _walk_back(steps: Sequence[_Step], patches: Grid) -> Tensor | None:
    """(T', H', W') >= 0; None where a step fits none of the forms of attention."""
    times, places = patches[0], patches[1] * patches[2]
    # over the frames of a position: then the class token of the frames is one, copied (TimeSformer's divided attention)
    shared = any(step.weights.shape == (places, times, times) for step in steps)
    state: _Relevance | None = None
    for step in reversed(steps):
        form = _form(step.weights, times, places)
        if form is None:
            return None
        state = form(step, state, times, places)
        if shared:
            state.others = state.others.sum(0, keepdim=True)
    return None if state is None else state.patches.unflatten(1, patches[1:])


_Form = Callable[[_Step, "_Relevance | None", int, int], _Relevance]


def _form(weights: Tensor, times: int, places: int) -> _Form | None:
    batch, queries, keys = weights.shape
    others = keys - times * places
    if queries == 1 and batch == 1:
        return _by_a_reader if others >= 0 and others % times == 0 else None
    if queries != keys:
        return None
    if batch == 1 and 0 <= others <= OTHER_TOKENS:
        return _over_the_clip
    if batch == times and 0 <= keys - places <= OTHER_TOKENS:
        return _in_frames
    if batch == places and keys == times:
        return _over_time
    return _over_frames if batch == 1 and keys == times + 1 else None


def _spread(before: Tensor, weights: Tensor) -> Tensor:
    """(..., N), (..., N, N) -> r + r A."""
    return before + (before[..., None, :] @ weights)[..., 0, :]


def _start(step: _Step) -> Tensor:
    """(B, Q): what the head reads, in equal shares."""
    return step.read.float() / step.read.sum()


def _over_the_clip(step: _Step, state: _Relevance | None, times: int, places: int) -> _Relevance:
    others = step.weights.shape[2] - times * places
    before = _start(step)[0]
    if state is not None:
        before = torch.cat([_fitting(state.others.sum(0, keepdim=True), others)[0], state.patches.flatten()])
    after = _spread(before, step.weights[0])
    return _Relevance(after[others:].view(times, places), after[None, :others])


def _in_frames(step: _Step, state: _Relevance | None, times: int, places: int) -> _Relevance:
    others = step.weights.shape[2] - places
    before = _start(step)
    if state is not None:
        own = state.others if state.frames is None else state.frames[1:, None]
        own = own if len(own) == times else own.expand(times, -1) / times
        before = torch.cat([_fitting(own, others), state.patches], 1)
    after = _spread(before, step.weights)
    return _Relevance(after[:, others:], after[:, :others])


def _over_time(step: _Step, state: _Relevance | None, times: int, places: int) -> _Relevance:
    after = _spread(_start(step) if state is None else state.patches.T, step.weights)
    return _Relevance(after.T, after.new_zeros(1, 0) if state is None else state.others)


def _over_frames(step: _Step, state: _Relevance | None, times: int, places: int) -> _Relevance:
    before = _start(step)[0] if state is None or state.frames is None else state.frames
    nothing = before.new_zeros(times, places)
    return _Relevance(nothing, nothing[:, :0], _spread(before, step.weights[0]))


def _by_a_reader(step: _Step, state: _Relevance | None, times: int, places: int) -> _Relevance:
    """One query reads all tokens. The class tokens' own way to the head, where they have one, begins here, too."""
    read = step.weights[0, 0].view(times, -1)
    others = read.shape[1] - places
    before = _Relevance(torch.zeros_like(read[:, others:]), torch.full_like(read[:, :others], 1 / times))
    if state is not None:
        before = _Relevance(state.patches, _fitting(state.others, others))
    return _Relevance(before.patches + read[:, others:], before.others + read[:, :others])


def _fitting(others: Tensor, count: int) -> Tensor:
    """(N, E) as (N, count): where there are others than before, nothing is known of them."""
    return others if others.shape[1] == count else others.new_zeros(len(others), count)
