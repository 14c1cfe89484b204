"""2D image networks as feature extractors: the building block of the fusion ladder and of the recurrent models."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import fx, nn

from vidtrain.errors import ConfigError, did_you_mean, one_of
from vidtrain.models.layers.model_copy import copy_on_meta

SMALL = ("lecture", "tiny")
Colour = tuple[float, float, float]
_PROBE_SIZE = 448  # pixels; enough for every CNN (inception_v3 needs 75), and whole patches of 14, 16 and 32


class ImageBackbone(nn.Module):
    """(N, in_channels, H, W) float -> feature map (N, out_channels, H', W').

    source: what image_backbone was asked for; its published 2D weights start this net.
    stacked: how the weights of a first conv for 3 channels become those for in_channels: "frames" repeats them T times
        and divides by T, "flow" takes their mean over the colours for each channel.
    """

    def __init__(self, net: nn.Module, *, source: str, in_channels: int, out_channels: int, min_size: int = 1) -> None:
        super().__init__()
        self.net = net
        self.source = source
        self.stacked = "frames"
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.min_size = min_size

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.ndim != 4 or x.shape[1] != self.in_channels:
            raise ConfigError(
                f"model.backbone: got an input of shape {tuple(x.shape)}, expected (N, {self.in_channels}, H, W)"
            )
        if min(x.shape[2:]) < self.min_size:
            raise ConfigError(
                f"model.backbone: got frames of {x.shape[2]} x {x.shape[3]} pixels, this backbone needs "
                f"{self.min_size} x {self.min_size} or more: raise transform.size"
            )
        out: torch.Tensor = self.feature_map(x)
        return out

    def feature_map(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> (N, D, H', W')."""
        out: torch.Tensor = self.net(x)
        return out

    def tokens(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> (N, H' W', D): a vector for each position."""
        return self(x).flatten(2).transpose(1, 2)

    def pooled(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> (N, D): what the network's own classifier would read."""
        return self(x).mean((2, 3))

    def map_size(self, size: int) -> tuple[int, int]:
        """(H', W') of the map for frames of size x size pixels."""
        with torch.no_grad():
            out = copy_on_meta(self)(torch.empty(1, self.in_channels, size, size, device="meta"))
        return out.shape[2], out.shape[3]


def image_backbone(name: str, *, in_channels: int = 3, stacked: str = "frames") -> ImageBackbone:
    """A 2D CNN without its pooling and head, with fresh weights.

    name: `lecture` (the two-conv net of document 003's tables), `tiny` (97k parameters at 3 channels, for
        training on a CPU), any torchvision classification CNN (`resnet18`, `mobilenet_v3_small`, ...), or
        `timm:NAME` where timm is installed.
    in_channels: other than 3, the first conv is replaced.
    stacked: "frames": channel i is colour i % 3 of frame i // 3, the order of 003's reshape of T x 3 x H x W.
        "flow": stacked optical flow. It says how a start from 2D weights fills the first conv, see ImageBackbone.
    """
    if in_channels < 1:
        raise ConfigError(f"model.backbone: got in_channels {in_channels}, expected 1 or more")
    if name in SMALL:
        backbone = _lecture(in_channels) if name == "lecture" else _tiny(in_channels)
    elif name.startswith("timm:"):
        backbone = timm_backbone(name, "feature_map", in_channels=in_channels)
    else:
        net = _torchvision_net(name, in_channels)
        channels = _out_channels(net, name, in_channels)
        backbone = ImageBackbone(net, source=name, in_channels=in_channels, out_channels=channels)
    backbone.stacked = stacked
    return backbone


def _conv_like(conv: nn.Conv2d, in_channels: int) -> nn.Conv2d:
    new = nn.Conv2d(
        in_channels,
        conv.out_channels,
        conv.kernel_size,  # type: ignore[arg-type]  # nn.Conv2d keeps its sizes as tuples of any length
        conv.stride,  # type: ignore[arg-type]
        conv.padding,  # type: ignore[arg-type]
        conv.dilation,  # type: ignore[arg-type]
        bias=conv.bias is not None,
        padding_mode=conv.padding_mode,
        device=conv.weight.device,
        dtype=conv.weight.dtype,
    )
    nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
    return new


def _lecture(in_channels: int) -> ImageBackbone:
    net = nn.Sequential(
        nn.Conv2d(in_channels, 12, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(4),
        nn.Conv2d(12, 24, 3, padding=1),
        nn.ReLU(),
    )
    return ImageBackbone(net, source="lecture", in_channels=in_channels, out_channels=24, min_size=4)


def _tiny(in_channels: int) -> ImageBackbone:
    net = halving_convs(in_channels, (16, 32, 64, 128))
    return ImageBackbone(net, source="tiny", in_channels=in_channels, out_channels=128)


def halving_convs(in_channels: int, channels: Sequence[int]) -> nn.Sequential:
    """3x3 convolutions with BatchNorm and ReLU, each of which halves the frames."""
    layers: list[nn.Module] = []
    for wide, out in pairwise((in_channels, *channels)):
        conv = nn.Conv2d(wide, out, 3, stride=2, padding=1, bias=False)
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        layers += [conv, nn.BatchNorm2d(out), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def image_networks() -> list[str]:
    """The names of torchvision's classification networks."""
    from torchvision import models

    found: list[str] = models.list_models(module=models)
    return found


def _torchvision_net(name: str, in_channels: int) -> nn.Module:
    from torchvision.models import get_model

    known = image_networks()
    if name not in known:
        raise ConfigError(
            f"model.backbone: got {name!r}{did_you_mean(name, [*SMALL, *known])}, expected {one_of(SMALL)}, "
            "a torchvision classification CNN (resnet18, mobilenet_v3_small, ...) or timm:NAME"
        )
    # By default these two spend a minute on scipy's truncated normal, and warn that they do.
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    net = get_model(name, **options)
    if in_channels != 3:
        convs = ((path, module) for path, module in net.named_modules() if isinstance(module, nn.Conv2d))
        path, first = next((path, conv) for path, conv in convs if conv.in_channels == 3)
        parent, _, attribute = path.rpartition(".")
        setattr(net.get_submodule(parent), attribute, _conv_like(first, in_channels))
    return _without_head(net, name)


class _Tracer(fx.Tracer):
    """Keeps the head in one piece, and layers without weights (stochastic depth) obedient to train() and eval()."""

    def __init__(self, head: str) -> None:
        super().__init__()
        self.head = head

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        bare = next(m.children(), None) is None and next(m.parameters(), None) is None
        return bare or module_qualified_name == self.head or super().is_leaf_module(m, module_qualified_name)


_BETWEEN_MAP_AND_HEAD = ("flatten", "Flatten", "Dropout", "AdaptiveAvgPool2d", "adaptive_avg_pool2d", "mean")


def _without_head(net: nn.Module, name: str) -> nn.Module:
    """Cut the traced forward pass where the feature map goes into pooling and head.

    Cutting the graph instead of listing children keeps what nets do between their layers (densenet's last ReLU),
    and needs no table of who calls their parts what. The names of the parameters stay as they were.
    """
    training = net.training
    head = [child for child, module in net.named_children() if next(module.parameters(), None) is not None][-1]
    graph = _Tracer(head).trace(net.eval())  # in eval(), so that auxiliary heads are skipped
    cut = fx.GraphModule(net.train(training), graph, class_name=name)
    node = next(n for n in graph.nodes if n.op == "call_module" and n.target == head).args[0]
    while isinstance(node, fx.Node) and _kind(net, node) in _BETWEEN_MAP_AND_HEAD:
        node = node.args[0]
    graph.erase_node(next(n for n in graph.nodes if n.op == "output"))
    graph.output(node)
    graph.eliminate_dead_code()
    cut.delete_all_unused_submodules()
    cut.recompile()
    return cut


def _kind(net: nn.Module, node: fx.Node) -> str:
    if node.op == "call_module":
        return type(net.get_submodule(str(node.target))).__name__
    return node.target if isinstance(node.target, str) else node.target.__name__


def _out_channels(net: nn.Module, name: str, in_channels: int) -> int:
    probe = torch.empty(1, in_channels, _PROBE_SIZE, _PROBE_SIZE, device="meta")
    try:
        with torch.no_grad():
            shape = copy_on_meta(net)(probe).shape
    except (RuntimeError, AssertionError) as error:  # nets for one image size only say so here
        raise ConfigError(
            f"model.backbone: {name} does not run on images of {in_channels} x {_PROBE_SIZE} x {_PROBE_SIZE} "
            f"({error}): choose a CNN, for example resnet18"
        ) from error
    if len(shape) != 4:
        raise ConfigError(
            f"model.backbone: {name} gives no feature map (N, D, H, W) but {tuple(shape)}: "
            "choose a CNN, for example resnet18"
        )
    return int(shape[1])


class TimmBackbone(ImageBackbone):
    """A network of timm without its classifier, with the pooling that it has in front of it: a CNN, or a transformer,
    whose patches are the map; class and register tokens are no part of it. Weights are under timm's names in `net`."""

    def __init__(self, name: str, *, in_channels: int = 3) -> None:
        net = _timm_net(name, in_channels)
        super().__init__(net, source=f"timm:{name}", in_channels=in_channels, out_channels=0)
        self.channels_last = getattr(net, "output_fmt", "NCHW") == "NHWC"

    @property
    def colours(self) -> tuple[Colour, Colour]:
        """Mean and deviation of the frames, RGB in [0, 1], that its published weights expect."""
        published: Any = self.net.pretrained_cfg
        return tuple(published["mean"]), tuple(published["std"])

    @property
    def published_size(self) -> int:
        """Pixels of a side of the images that its published weights were trained at."""
        published: Any = self.net.pretrained_cfg
        return int(published["input_size"][-1])

    def feature_map(self, x: torch.Tensor) -> torch.Tensor:
        out = self._features(x)
        if out.ndim == 4:
            return out.movedim(-1, 1) if self.channels_last else out
        patches = self._patches(out)
        rows = round((patches.shape[1] * x.shape[2] / x.shape[3]) ** 0.5)
        return patches.transpose(1, 2).unflatten(2, (rows, -1))

    def tokens(self, x: torch.Tensor) -> torch.Tensor:
        out = self._features(x)
        if out.ndim == 3:
            return self._patches(out)
        return (out if self.channels_last else out.movedim(1, -1)).flatten(1, 2)

    def pooled(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.net.forward_head(self._features(x), pre_logits=True)  # type: ignore[operator]
        return out

    def _features(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.net.forward_features(x)  # type: ignore[operator]
        return out

    def _patches(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens[:, getattr(self.net, "num_prefix_tokens", 0) :]

    def keep_what_reads(self, method: str, size: int) -> int:
        """The channels that `method` gives for images of size x size pixels. Parameters that it does not read, such as
        the attention of a pooling that it leaves out, are frozen: DDP would wait for their gradients."""
        twin = copy_on_meta(self).requires_grad_(True)
        image = torch.empty(1, self.in_channels, size, size, device="meta")
        try:
            with torch.enable_grad():
                out: torch.Tensor = getattr(twin, method)(image)
                gradients = torch.autograd.grad(out.sum(), list(twin.parameters()), allow_unused=True)
        except (RuntimeError, AssertionError) as error:  # nets for one image size only say so here
            reason = str(error).split("\n", 1)[0]
            raise ConfigError(
                f"model.backbone: {self.source} does not run on frames of {size} x {size} pixels ({reason}); it was "
                f"published for {self.published_size}: set transform.size={self.published_size}, or choose another"
            ) from error
        for parameter, gradient in zip(self.parameters(), gradients, strict=True):
            if gradient is None:
                parameter.requires_grad_(False)
        return out.shape[1] if method != "tokens" else out.shape[2]

    def layers(self) -> dict[str, int]:
        """For each parameter the number of its layer in timm's order, from 0, the embedding."""
        import timm.models

        matcher = self.net.group_matcher(coarse=False)  # type: ignore[operator]
        numbers = timm.models.group_parameters(self.net, matcher, return_values=False, reverse=True)
        return {f"net.{name}": int(number) for name, number in numbers.items()}


def timm_backbone(name: str, method: str, *, in_channels: int = 3, size: int = _PROBE_SIZE) -> TimmBackbone:
    """A network of timm, called `timm:NAME` or NAME, for frames of size x size pixels.

    method: what will be read of it: feature_map, tokens or pooled.
    """
    backbone = TimmBackbone(name.removeprefix("timm:"), in_channels=in_channels)
    backbone.out_channels = backbone.keep_what_reads(method, size)
    return backbone


def _timm_net(name: str, in_channels: int) -> nn.Module:
    try:
        import timm
    except ImportError as error:
        raise ConfigError(
            f"model.backbone: timm:{name} needs the package timm: pip install 'vidtrain[timm]'"
        ) from error
    if not timm.is_model(name.split(".")[0]):
        near = did_you_mean(name, timm.list_models())
        raise ConfigError(f"model.backbone: timm has no model {name!r}{near}, see timm.list_models()")
    options: dict[str, Any] = {"in_chans": in_channels, "num_classes": 0}
    try:  # transformers whose table of positions is interpolated to the frames
        return timm.create_model(name, **options, dynamic_img_size=True)
    except TypeError:  # others, which have no such option
        return timm.create_model(name, **options)
