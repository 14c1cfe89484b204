"""What training minimises: one class a video (cross entropy), or any number of them (binary cross entropy)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from vidtrain.errors import ConfigError


class Objective:
    """Loss, hits and the mixing of clips, for labels int64 (B,) or, multi-label, float32 (B, K).

    mixup, cutmix: alpha of the Beta law that the shares of two clips are drawn from (Zhang et al. 2018, Yun et al.
        2019); 0 switches it off, with both each batch takes one or the other with equal chance.
    label_smoothing: with one class, the share of the target spread over all classes; with several, the share by which
        each of the K targets moves towards 1/2.
    """

    def __init__(
        self, *, multi_label: bool = False, label_smoothing: float = 0.0, mixup: float = 0.0, cutmix: float = 0.0
    ) -> None:
        if not 0 <= label_smoothing < 1:
            raise ConfigError(f"trainer.label_smoothing={label_smoothing}: must be 0 or more and below 1")
        self.multi_label = multi_label
        self.label_smoothing = label_smoothing
        self._mixes = [(mix, alpha) for mix, alpha in ((v2.MixUp, mixup), (v2.CutMix, cutmix)) if alpha > 0]

    def mix(self, clips: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
        """Float clips (B, 3, T, H, W) and their labels -> mixed clips and, where mixing is on, labels (B, num_classes).

        Draws from torch's generator of the CPU, whose state a checkpoint keeps.
        """
        if not self._mixes:
            return clips, labels
        mix, alpha = self._mixes[int(torch.randint(len(self._mixes), ()))]
        count = len(labels)
        # mixing the numbers of the clips gives each clip's shares, whatever kind of label they have
        rows = torch.arange(count, device=clips.device)
        last = torch.channels_last_3d
        layout = last if clips.is_contiguous(memory_format=last) else torch.contiguous_format
        mixed, shares = mix(alpha=alpha, num_classes=count)(tv_tensors.Video(clips), rows)
        targets = labels if self.multi_label else F.one_hot(labels, num_classes).float()
        return mixed.as_subclass(Tensor).contiguous(memory_format=layout), shares.to(targets.dtype) @ targets

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The mean over the batch, in float32. logits (B, K); labels as given or as `mix` made them."""
        logits = logits.float()
        if not self.multi_label:
            return F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        targets = labels * (1 - self.label_smoothing) + self.label_smoothing / 2
        return F.binary_cross_entropy_with_logits(logits, targets)

    def hits(self, logits: Tensor, labels: Tensor) -> Tensor:
        """bool (B,): the highest logit is the class, one of several classes, or that of a mixed clip's larger part."""
        best = logits.detach().argmax(1)
        if labels.ndim == 1:
            return best == labels
        if self.multi_label and not self._mixes:
            return labels.gather(1, best[:, None])[:, 0] > 0
        return best == labels.argmax(1)
