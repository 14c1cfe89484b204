"""Two-stream network: a spatial CNN on RGB and a temporal CNN on stacked optical flow (Simonyan and Zisserman 2014,
"Two-Stream Convolutional Networks for Action Recognition in Videos"; document 001, section 3.2.2; document 003,
"Two-Stream Networks"). Published, mean over the three splits of UCF101: RGB 73.0, flow 83.7, both 86.9 with the
average of the scores and 88.0 with an SVM on them.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from vidtrain.errors import ConfigError, did_you_mean, one_of
from vidtrain.models.catalogue import Entry, Family
from vidtrain.models.layers.backbone2d import image_backbone
from vidtrain.models.layers.classifier import ClipClassifier, check_at_least, check_choice, make_head

ENTRIES = {
    "two_stream": Entry(Family.PATHWAYS, "Simonyan and Zisserman 2014", (11, 224)),
    "two_stream_tiny": Entry(Family.PATHWAYS, "Simonyan and Zisserman 2014", (16, 64)),
}

FUSIONS = ("average", "concat")
SCHEDULES = ("joint", "streams_first")
STREAMS = ("rgb", "flow")


class StreamScores(nn.Module):
    """A classifier for each stream, and the average of their class scores.

    rgb_share: weight of the spatial stream's scores; the temporal one's is 1 - rgb_share.
    """

    def __init__(self, num_features: tuple[int, int], num_classes: int, rgb_share: float) -> None:
        super().__init__()
        self.num_features = num_features
        self.rgb = make_head(num_features[0], num_classes)
        self.flow = make_head(num_features[1], num_classes)
        self.rgb_share = rgb_share

    def each(self, features: torch.Tensor) -> dict[str, torch.Tensor]:
        """(B, D_rgb + D_flow) -> the logits (B, K) of each stream."""
        rgb, flow = features.split(self.num_features, dim=1)
        return {"rgb": self.rgb(rgb), "flow": self.flow(flow)}

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, D_rgb + D_flow) -> (B, K), the logarithm of the averaged scores: its softmax is the average."""
        streams = self.each(features)
        logs = torch.stack([streams[name].log_softmax(1) for name in STREAMS])
        shares = logs.new_tensor([self.rgb_share, 1 - self.rgb_share]).log()
        return (logs + shares[:, None, None]).logsumexp(0)


class TwoStream(ClipClassifier):
    """Two 2D CNNs, one on RGB and one on flow.

    {"rgb": (B, 3, T, H, W), "flow": (B, 2, T - 1, H, W)} -> (B, K). T is fixed, H and W are any.

    The spatial CNN sees `segments` frames of the clip, one from each of as many equal parts, at random in train() and
    the middle one in eval(), and averages their features. The temporal CNN sees u and v of all T - 1 fields as
    2 (T - 1) channels, u_1, v_1, u_2, v_2 and so on.

    With schedule=streams_first train() gives {"rgb": logits, "flow": logits} of the streams' own classifiers. With
    fusion=concat, too, `begin_epoch` then says when the streams are done: they are frozen, and the fusion is trained.
    Before that eval() gives the average of the streams' scores.

    num_frames: T of the clip; the temporal CNN reads its T - 1 fields.
    backbone: of both, see layers/backbone2d.py. A start from 2D weights fills both, the first
        convolution of the temporal one with their mean over the colours.
    segments: frames of a clip that the spatial CNN sees.
    fusion: "average" of the class scores, with the share `rgb_share` for RGB, or "concat": one linear layer on the
        features of both.
    schedule: "joint" minimises the loss of the fused scores (with their average, this teaches the streams little once
        one of them is sure); "streams_first" trains each stream with its own classifier and loss, and after that, for
        the last `fusion_epochs` (a share of all epochs below 1, else their number), the fusion alone on frozen streams.
    dropout: before the classifiers.
    """

    inputs = STREAMS
    """What it reads: it is called with a dict of these keys."""
    head_names = ("head", "streams")
    """All that `reset_head` re-initialises."""
    towers = STREAMS
    """Networks side by side, of which each has its own last blocks."""
    fusing: torch.Tensor

    def __init__(
        self,
        *,
        num_classes: int,
        num_frames: int,
        backbone: str = "resnet50",
        segments: int = 1,
        fusion: str = "average",
        rgb_share: float = 0.5,
        schedule: str = "streams_first",
        fusion_epochs: float = 0.25,
        dropout: float = 0.5,
    ) -> None:
        check_choice("fusion", fusion, FUSIONS)
        check_choice("schedule", schedule, SCHEDULES)
        check_at_least("num_classes", num_classes, 1)
        check_at_least("num_frames", num_frames, 2, "a field of flow lies between two")
        check_at_least("segments", segments, 1)
        if segments > num_frames:
            raise ConfigError(f"model.segments: got {segments}, expected at most sampler.num_frames={num_frames}")
        if not 0 <= rgb_share <= 1:
            raise ConfigError(f"model.rgb_share: got {rgb_share}, expected 0 to 1")
        if fusion_epochs <= 0 or (fusion_epochs > 1 and fusion_epochs != int(fusion_epochs)):
            raise ConfigError(
                f"model.fusion_epochs: got {fusion_epochs}, expected a share between 0 and 1, or a number"
            )
        rgb = image_backbone(backbone)
        flow = image_backbone(backbone, in_channels=2 * (num_frames - 1), stacked="flow")
        sizes = rgb.out_channels, flow.out_channels
        super().__init__(num_features=sum(sizes), num_classes=num_classes, dropout=dropout)
        self.num_frames = num_frames
        self.rgb = rgb
        self.flow = flow
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.segments = segments
        self.sizes = sizes
        self.averages = self.one_class = fusion == "average"
        self.rgb_share = rgb_share
        self.streams_first = schedule == "streams_first"
        self.trains_in_turn = self.streams_first and not self.averages  # some parameters have no gradient for a while
        self.fusion_epochs = fusion_epochs
        self.streams: StreamScores | None = None
        if self.averages:
            self.head = StreamScores(sizes, num_classes, rgb_share)
        elif self.streams_first:
            self.streams = StreamScores(sizes, num_classes, rgb_share)
        # part of the state: a checkpoint knows which classifier counts, and a resume does not restart the fusion
        self.register_buffer("fusing", torch.tensor(False))
        self.fused = False  # the same, where asking a tensor would wait for the device
        self.alone: str | None = None
        self.register_load_state_dict_post_hook(_read_fusing)
        self.frozen = False
        self._paused: list[nn.Parameter] = []

    def forward_features(self, x: Mapping[str, torch.Tensor]) -> torch.Tensor:  # type: ignore[override]
        """The dict of both -> (B, D_rgb + D_flow)."""
        self._check(x)
        if self.frozen:
            with torch.no_grad():
                return self._features(x)
        return self._features(x)

    def forward(self, x: Mapping[str, torch.Tensor]) -> torch.Tensor | dict[str, torch.Tensor]:  # type: ignore[override]
        """The dict of both -> (B, K); in training, while the streams learn by themselves, the logits of each."""
        features = self.dropout(self.forward_features(x))
        if self.training and self.streams_first and not self.frozen:
            return self._scores().each(features)
        if self.alone is not None and not self.training:
            return self._scores().each(features)[self.alone]
        head = self.streams if self.streams is not None and not self.fused else self.head
        logits: torch.Tensor = head(features)
        return logits

    def answer_by(self, stream: str) -> None:
        """Let eval() give the logits of one stream's own classifier: "rgb" or "flow".

        Raises: ConfigError where the streams have none, that is with fusion=concat and schedule=joint.
        """
        if stream not in STREAMS:
            raise ConfigError(f"stream: got {stream!r}{did_you_mean(stream, STREAMS)}, expected {one_of(STREAMS)}")
        if not self.averages and self.streams is None:
            raise ConfigError(
                f"stream={stream}: this model has one classifier for both streams; train with model.fusion=average "
                "or model.schedule=streams_first to have one for each"
            )
        self.alone = stream

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Called before each epoch of a training, from 0, and again after a resume: train the streams or the fusion.

        The average of the scores has nothing to learn: with it the streams are trained in all epochs.
        """
        if not self.streams_first or self.averages:
            return
        last = max(1, round(self.fusion_epochs * epochs)) if self.fusion_epochs < 1 else int(self.fusion_epochs)
        if last >= epochs:
            raise ConfigError(
                f"model.fusion_epochs={self.fusion_epochs:g} of trainer.epochs={epochs} leaves none to the streams: "
                "raise trainer.epochs, or set model.schedule=joint"
            )
        fuse = epoch >= epochs - last
        if fuse and not self.fused:
            self._start_fusion()
        self.fused = fuse
        self.fusing.fill_(fuse)
        self._freeze(fuse)

    def _start_fusion(self) -> None:
        """Begin with the mean of the streams' logits."""
        head, streams = self.head, self.streams
        assert isinstance(head, nn.Linear)
        assert streams is not None
        with torch.no_grad():
            head.weight.copy_(torch.cat([streams.rgb.weight, streams.flow.weight], 1) / 2)
            head.bias.copy_((streams.rgb.bias + streams.flow.bias) / 2)

    def _freeze(self, frozen: bool) -> None:
        """No gradient for the streams, and BatchNorm as in testing; or again for those that had one."""
        self.frozen = frozen
        parts = [part for part in (self.rgb, self.flow, self.streams) if part is not None]
        if frozen:
            self._paused += [weight for part in parts for weight in part.parameters() if weight.requires_grad]
        for weight in self._paused:
            weight.requires_grad_(not frozen)
            weight.grad = None if frozen else weight.grad
        if not frozen:
            self._paused = []
        self.train(self.training)

    def train(self, mode: bool = True) -> TwoStream:
        super().train(mode)
        if self.frozen:
            self.rgb.eval()
            self.flow.eval()
        return self

    def reset_head(self, num_classes: int) -> None:
        """Re-initialise all classifiers with `num_classes` outputs; the CNNs stay."""
        like = next(self.head.parameters())
        if self.averages:
            self.head = StreamScores(self.sizes, num_classes, self.rgb_share).to(like)
            return
        super().reset_head(num_classes)
        if self.streams is not None:
            self.streams = StreamScores(self.sizes, num_classes, self.rgb_share).to(like)

    def _scores(self) -> StreamScores:
        scores = self.head if self.averages else self.streams
        assert isinstance(scores, StreamScores)
        return scores

    def _features(self, x: Mapping[str, torch.Tensor]) -> torch.Tensor:
        rgb, flow = x["rgb"], x["flow"]
        images = torch.cat([self._frame(rgb, part) for part in range(self.segments)])
        spatial = self.pool(self.rgb(images)).flatten(1).unflatten(0, (self.segments, -1)).mean(0)
        stacked = flow.transpose(1, 2).flatten(1, 2)  # (B, 2 (T - 1), H, W)
        temporal = self.pool(self.flow(stacked)).flatten(1)
        return torch.cat([spatial, temporal], 1)

    def _frame(self, rgb: torch.Tensor, part: int) -> torch.Tensor:
        """(B, 3, T, H, W) -> (B, 3, H, W): a frame of one of the `segments` equal parts."""
        first, end = (self.num_frames * edge // self.segments for edge in (part, part + 1))
        if not self.training or self.frozen:
            return rgb[:, :, (first + end) // 2]
        batch = torch.arange(len(rgb), device=rgb.device)
        return rgb[batch, :, torch.randint(first, end, (len(rgb),), device=rgb.device)]

    def _check(self, x: Mapping[str, torch.Tensor]) -> None:
        if not isinstance(x, Mapping):
            raise ConfigError(
                f"two_stream: got an input of shape {tuple(x.shape)}, expected a dict of rgb "
                "(batch, 3, frames, height, width) and flow (batch, 2, frames - 1, height, width): "
                "train and test with flow=dis or flow=cache"
            )
        shapes = {name: tuple(x[name].shape) if name in x else None for name in STREAMS}
        rgb, frames = shapes["rgb"], self.num_frames
        if rgb is not None and len(rgb) == 5 and rgb[1] == 3 and rgb[2] != frames:
            raise ConfigError(
                f"two_stream: got clips of {rgb[2]} frames, but the model was built for {frames}: "
                f"set sampler.num_frames={frames}, or build it with num_frames={rgb[2]}"
            )
        fits = rgb is not None and len(rgb) == 5 and rgb[1] == 3
        if not fits or rgb is None or shapes["flow"] != (rgb[0], 2, frames - 1, *rgb[3:]):
            raise ConfigError(
                f"two_stream: got rgb of shape {rgb} and flow of shape {shapes['flow']}, expected "
                f"(batch, 3, frames, height, width) and (batch, 2, frames - 1, height, width) with {frames} frames"
            )


def _read_fusing(model: nn.Module, _: object) -> None:
    assert isinstance(model, TwoStream)
    model.fused = not model.fusing.is_meta and bool(model.fusing)


two_stream = TwoStream
