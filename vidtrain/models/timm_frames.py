"""An image network of timm on each frame, and what joins the frames: their mean, their mean and deviation over time, an
attentive probe over the tokens of all frames, or a recurrent network. timm has the published image encoders: DINOv3
(Siméoni et al. 2025), SigLIP 2 (Tschannen et al. 2025), Perception Encoder (Bolya et al. 2025), ConvNeXt,
EfficientNet-Lite and many more.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from vidtrain.errors import ConfigError
from vidtrain.models.catalogue import Entry, Family
from vidtrain.models.layers.attentive import AttentivePooler, check_probe
from vidtrain.models.layers.backbone2d import SMALL, ImageBackbone, TimmBackbone, image_backbone, timm_backbone
from vidtrain.models.layers.classifier import check_at_least, check_choice, check_clip
from vidtrain.models.layers.frame_features import OnFrames
from vidtrain.models.layers.frame_resnet import temporal_shift
from vidtrain.models.layers.position_tables import wave_table
from vidtrain.models.layers.recurrent import SequenceEncoder, State, TimePool

ENTRIES = {"timm_frames": Entry(Family.FRAMES, "Wightman 2019", (8, 224))}

_LEAST_VARIANCE = 1e-6  # whose root has a gradient where nothing changes
HEADS = ("mean", "statistics", "attentive", "recurrent")


class _TokenReader(nn.Module):
    """Tokens (B, T, N, D) -> (B, D): an attentive probe over all of them, who know their frame by waves."""

    def __init__(self, width: int, *, depth: int, heads: int, time: bool) -> None:
        super().__init__()
        self.time = time
        self.pooler = AttentivePooler(width, depth=depth, heads=heads, norm_eps=1e-5)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        if self.time:
            frames, width = tokens.shape[1], tokens.shape[3]
            waves = wave_table(frames, width, std=0.5).to(tokens)[0, :, None]
            tokens = F.layer_norm(tokens, (width,)) + waves
        out: torch.Tensor = self.pooler(tokens.flatten(1, 2))
        return out


class _Statistics(nn.Module):
    """Tokens (B, T, N, D) -> (B, 2 D): the mean over all of them, and the standard deviation over the T frames at each
    of the N positions, averaged over these, which is how much there changes (statistics pooling, Snyder et al. 2018, of
    each position)."""

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        variance = tokens.float().var(1, correction=0)  # bf16 would round the squares
        deviation = (variance + _LEAST_VARIANCE).sqrt().mean(1)
        return torch.cat([tokens.mean((1, 2)), deviation.to(tokens)], 1)


class _Shift:
    """TSM's shift before a convolution, as a hook, so that names of weights stay. frames: of the clips in the batch."""

    def __init__(self, n_div: int) -> None:
        self.n_div = n_div
        self.frames = 1

    def __call__(self, conv: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        x, *others = inputs
        return temporal_shift(x, self.frames, x.shape[1] // self.n_div), *others


def _shift_blocks(backbone: ImageBackbone, n_div: int) -> _Shift:
    """Shift what the residual branches of a CNN read; blocks without a shortcut would lose what is shifted out."""
    check_at_least("n_div", n_div, 2)
    shift, found = _Shift(n_div), False
    for block in backbone.net.modules():
        residual = getattr(block, "has_skip", hasattr(block, "conv1") and hasattr(block, "downsample"))
        if residual or (hasattr(block, "conv_dw") and hasattr(block, "shortcut")):
            first = next(layer for layer in block.modules() if isinstance(layer, nn.Conv2d))
            first.register_forward_pre_hook(shift)
            found = True
    if not found:
        raise ConfigError(
            f"model.n_div: {backbone.source} has no residual blocks of convolutions to shift: set null, or choose a "
            "ResNet, EfficientNet, MobileNet or ConvNeXt of timm"
        )
    return shift


class TimmFrames(OnFrames):
    """An image network of timm on each of any number of frames; of any size where that takes them.

    size: of the frames.
    backbone: a name of timm, with or without the tag of its weights (vit_small_patch16_dinov3.lvd1689m,
        vit_base_patch16_siglip_224.v2_webli, tf_efficientnet_lite0, ...), or `tiny`, ours for a CPU.
    frozen: it is not trained; no gradient and no activations of it are kept.
    n_div: as in TSM, 1 / n_div of the channels move one frame each way before each residual block of a CNN; None: the
        frames do not see each other before the head.
    head: "mean" of the frames' pooled vectors; "statistics", the mean over all positions of all frames and beside it
        the standard deviation over time at each position, averaged over positions; "attentive", one query over the
        tokens of all frames, as V-JEPA 2's probe; "recurrent", cells over the pooled vectors.
    probe_depth, probe_heads: of the attentive head, the blocks of self-attention before the query and the attention
        heads; None for heads of 64 channels.
    time_positions: the attentive head's tokens, normalised, get waves that mark their frame; without them it is blind
        to the order of frames, as the mean is.
    cell, hidden, layers, bidirectional: of the recurrent head: "lstm", "gru" or "rnn", the length of its states, its
        layers, and another reading from the end backwards.
    read: what the recurrent head reads from its states: the "last" one, or the "mean", "max" or "attention" over time.
    dropout: before the last layer.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        size: int,
        backbone: str = "tiny",
        frozen: bool = False,
        n_div: int | None = None,
        head: str = "mean",
        probe_depth: int = 0,
        probe_heads: int | None = None,
        time_positions: bool = True,
        cell: str = "lstm",
        hidden: int = 256,
        layers: int = 1,
        bidirectional: bool = False,
        read: str = "last",
        dropout: float = 0.0,
    ) -> None:
        check_at_least("size", size, 1)
        check_choice("head", head, HEADS)
        if backbone in SMALL:
            net = image_backbone(backbone)
        else:
            net = timm_backbone(backbone, "tokens" if head in ("attentive", "statistics") else "pooled", size=size)
        width = net.out_channels
        join: _TokenReader | _Statistics | SequenceEncoder | TimePool
        if head == "attentive":
            heads = (width // 64 if width % 64 == 0 else 1) if probe_heads is None else probe_heads
            check_probe(probe_depth, heads, width)
            join = _TokenReader(width, depth=probe_depth, heads=heads, time=time_positions)
        elif head == "recurrent":
            join = SequenceEncoder(
                width, cell=cell, hidden=hidden, layers=layers, bidirectional=bidirectional, head=read
            )
        else:
            join = _Statistics() if head == "statistics" else TimePool(width, "mean")
        features = join.features if isinstance(join, SequenceEncoder) else width * (1 + isinstance(join, _Statistics))
        super().__init__(backbone=net, frozen=frozen, num_features=features, num_classes=num_classes, dropout=dropout)
        self.join = join
        self.shift = None if n_div is None else _shift_blocks(net, n_div)

    def stream_features(self, x: torch.Tensor, state: State | None = None) -> tuple[torch.Tensor, State]:
        """(B, 3, T, H, W) -> (B, D) and the state."""
        check_clip(x, "timm_frames")
        if self.shift is not None:
            self.shift.frames = x.shape[2]
        if isinstance(self.join, (_TokenReader, _Statistics)):
            return self.join(self.per_frame(x, self.backbone.tokens)), ()
        features, state = self.join(self.per_frame(x, self.backbone.pooled), state)
        return features, state

    def stream(self, x: torch.Tensor, state: State | None = None) -> tuple[torch.Tensor, State]:
        if self.shift is not None:
            raise ConfigError(f"model.n_div: got {self.shift.n_div}, but shifted frames look ahead and cannot stream")
        if isinstance(self.join, (_TokenReader, _Statistics)):
            name = "statistics" if isinstance(self.join, _Statistics) else "attentive"
            raise ConfigError(f"model.head: got {name}, which reads all frames at once: only mean and recurrent stream")
        if isinstance(self.join, SequenceEncoder):
            self.join.check_can_stream()
        return super().stream(x, state)

    @property
    def num_layers(self) -> int:
        """The image network's, and one for what joins the frames."""
        return max(self._layers().values()) + 2

    def layer_of(self, name: str) -> int:
        """0 for the embedding ... num_layers - 1 for the head."""
        return self._layers().get(name.removeprefix("backbone."), self.num_layers - 1)

    def _layers(self) -> dict[str, int]:
        if isinstance(self.backbone, TimmBackbone):
            return self.backbone.layers()
        raise ConfigError(
            f"optimizer.layer_decay: the layers of model.backbone={self.backbone.source} have no numbers: set null"
        )


timm_frames = TimmFrames
