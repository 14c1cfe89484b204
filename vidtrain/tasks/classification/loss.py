"""What training minimises: one class per video (cross entropy), or any number of them (binary cross entropy)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence
from torch.utils._pytree import tree_map

from vidtrain.errors import ConfigError
from vidtrain.tasks.classification.class_imbalance import (
    ClassWeights,
    class_weights,
    focal_binary_cross_entropy,
    focal_cross_entropy,
    known_shares,
    logit_offsets,
)

Outputs = Tensor | Mapping[str, Tensor]
"""What a model gives in training: logits (B, K), or several of them by name."""


class ClassificationLoss:
    """Loss, hits and the mixing of clips, for labels int64 (B,) or, multi-label, float32 (B, K).

    mixup, cutmix: alpha of the Beta law that the shares of two clips are drawn from (Zhang et al. 2018, Yun et al.
        2019); 0 switches it off, with both each batch takes one or the other with equal chance.
    label_smoothing: with one class, the share of the target spread over all classes; with several, the share by which
        each of the K targets moves towards 1/2.
    focal_gamma: the exponent of a focal loss, 0: none. Clips that are classified well then count less.
    """

    def __init__(
        self,
        *,
        multi_label: bool = False,
        label_smoothing: float = 0.0,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        focal_gamma: float = 0.0,
    ) -> None:
        if not 0 <= label_smoothing < 1:
            raise ConfigError(f"task.label_smoothing={label_smoothing}: must be 0 or more and below 1")
        self.multi_label = multi_label
        self.label_smoothing = label_smoothing
        self.focal_gamma = focal_gamma
        self._weights: Tensor | None = None
        self._offsets: Tensor | None = None
        self._mixes = [(mix, alpha) for mix, alpha in (("MixUp", mixup), ("CutMix", cutmix)) if alpha > 0]

    def balance(
        self, class_names: Sequence[str], shares: Sequence[float], weights: ClassWeights, logit_adjust: float
    ) -> None:
        """Correct the loss for classes that training draws with these shares; see class_imbalance.py."""
        known = known_shares(shares)
        self._weights = class_weights(weights, class_names, known, self.multi_label)
        self._offsets = logit_offsets(logit_adjust, known, self.multi_label)

    def mix(self, clips: Any, labels: Tensor, num_classes: int) -> tuple[Any, Tensor]:
        """Float clips (B, 3, T, H, W) and their labels -> mixed clips and, where mixing is on, labels (B, num_classes).

        A dict of clips, such as RGB and flow, is mixed with the same shares and rectangles. Draws from torch's
        generator of the CPU, whose state a checkpoint keeps.
        """
        if not self._mixes:
            return clips, labels
        if any(isinstance(x, PackedSequence) for x in (clips.values() if isinstance(clips, Mapping) else [clips])):
            raise ConfigError("task.mixup and task.cutmix mix clips, and the data are features: set them to 0")
        from torchvision import tv_tensors
        from torchvision.transforms import v2

        name, alpha = self._mixes[int(torch.randint(len(self._mixes), ()))]
        count = len(labels)
        # mixing the numbers of the clips gives each clip's shares, whatever kind of label they have
        rows = torch.arange(count, device=labels.device)
        mixed, shares = getattr(v2, name)(alpha=alpha, num_classes=count)(tree_map(tv_tensors.Video, clips), rows)
        targets = labels if self.multi_label else F.one_hot(labels, num_classes).float()
        return tree_map(_as_before, mixed, clips), shares.to(targets.dtype) @ targets

    def loss(self, logits: Outputs, labels: Tensor) -> Tensor:
        """The mean over the batch, in float32. logits (B, K); labels as given or as `mix` made them.

        Of several logits, by name, as a model of several heads gives them in training: the sum of their losses.
        """
        if isinstance(logits, Mapping):
            return torch.stack([self.loss(own, labels) for own in logits.values()]).sum()
        logits = logits.float()
        weights, offsets = (None if x is None else x.to(logits.device) for x in (self._weights, self._offsets))
        if offsets is not None:
            logits = logits + offsets
        smooth, gamma = self.label_smoothing, self.focal_gamma
        if self.multi_label:
            targets = labels * (1 - smooth) + smooth / 2
            if gamma > 0:
                return focal_binary_cross_entropy(logits, targets, gamma, weights)
            return F.binary_cross_entropy_with_logits(logits, targets, pos_weight=weights)
        if gamma > 0:
            if smooth > 0:
                shares = F.one_hot(labels, logits.shape[1]).float() if labels.ndim == 1 else labels
                labels = shares * (1 - smooth) + smooth / logits.shape[1]
            return focal_cross_entropy(logits, labels, gamma, weights)
        if weights is None:
            return F.cross_entropy(logits, labels, label_smoothing=smooth)
        # divided by the clips, not by their weights as the mean of PyTorch: halves of a batch then add up to the whole
        total = F.cross_entropy(logits, labels, weights, label_smoothing=smooth, reduction="sum")
        return total / len(logits)

    def hits(self, logits: Outputs, labels: Tensor) -> Tensor:
        """bool (B,): the highest logit is the class, one of several classes, or that of a mixed clip's larger part.

        Of several logits those named "logits" count, or else the mean of all their probabilities.
        """
        best = self._joined(logits).detach().argmax(1)
        if labels.ndim == 1:
            return best == labels
        if self.multi_label and not self._mixes:
            return labels.gather(1, best[:, None])[:, 0] > 0
        return best == labels.argmax(1)

    def _joined(self, logits: Outputs) -> Tensor:
        if not isinstance(logits, Mapping):
            return logits
        if "logits" in logits:
            return logits["logits"]
        heads = torch.stack([own.detach().float() for own in logits.values()])
        return (heads.sigmoid() if self.multi_label else heads.softmax(-1)).mean(0)


def _as_before(mixed: Tensor, clips: Tensor) -> Tensor:
    """A plain tensor in the memory order of the clips that it was mixed from."""
    last = torch.channels_last_3d
    layout = last if clips.is_contiguous(memory_format=last) else torch.contiguous_format
    return mixed.as_subclass(Tensor).contiguous(memory_format=layout)
