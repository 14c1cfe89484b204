"""2D image networks as feature extractors: the building block of the fusion ladder and of the recurrent models."""

from __future__ import annotations

import copy

import torch
import torchvision
from torch import fx, nn

from vidtrain.errors import ConfigError, did_you_mean, one_of
from vidtrain.models.layers.twin import meta_twin
from vidtrain.models.layers.weights import downloading

_SMALL = ("lecture", "tiny")
_PROBE_SIZE = 128  # pixels; enough for every torchvision CNN (inception_v3 needs 75)


class ImageBackbone(nn.Module):
    """(N, in_channels, H, W) float -> feature map (N, out_channels, H', W')."""

    def __init__(self, net: nn.Module, *, in_channels: int, out_channels: int, min_size: int = 1) -> None:
        super().__init__()
        self.net = net
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
        out: torch.Tensor = self.net(x)
        return out

    def map_size(self, size: int) -> tuple[int, int]:
        """(H', W') of the map for frames of size x size pixels."""
        with torch.no_grad():
            out = meta_twin(self)(torch.empty(1, self.in_channels, size, size, device="meta"))
        return out.shape[2], out.shape[3]


def image_backbone(name: str, *, in_channels: int = 3, pretrained: bool = False) -> ImageBackbone:
    """A 2D CNN without its pooling and head.

    name: `lecture` (the two-conv net of document 003's tables), `tiny` (97k parameters at 3 channels, for
        training on a CPU), any torchvision classification CNN (`resnet18`, `mobilenet_v3_small`, ...), or
        `timm:NAME` where timm is installed.
    in_channels: other than 3, the first conv is replaced. With pretrained weights it must be 3 T, and the new conv
        is the old one repeated T times over its input channels and divided by T. Channel i is then colour i % 3
        of frame i // 3, the order of 003's reshape of T x 3 x H x W, and T equal frames give the features of one.
    pretrained: ImageNet weights from torchvision's (or timm's) registry, downloaded on first use.
    """
    if in_channels < 1:
        raise ConfigError(f"model.backbone: got in_channels {in_channels}, expected 1 or more")
    if pretrained and in_channels % 3:
        raise ConfigError(
            f"model.pretrained: ImageNet weights fit 3 T input channels, got {in_channels}: set pretrained=null"
        )
    if name in _SMALL:
        if pretrained:
            raise ConfigError(
                f"model.pretrained: there are no published weights for backbone {name}: "
                "set model.pretrained=null, or model.backbone=resnet18"
            )
        return _lecture(in_channels) if name == "lecture" else _tiny(in_channels)
    if name.startswith("timm:"):
        net = _timm_net(name.removeprefix("timm:"), in_channels, pretrained)
    else:
        net = _torchvision_net(name, in_channels, pretrained)
    return ImageBackbone(net, in_channels=in_channels, out_channels=_out_channels(net, name, in_channels))


def wants_imagenet(pretrained: str | None) -> bool:
    """Read the option `pretrained` of a model with a 2D backbone."""
    if pretrained not in (None, "imagenet"):
        raise ConfigError(f"model.pretrained: got {pretrained!r}, expected null or imagenet")
    return pretrained is not None


def repeat_first_conv(conv: nn.Conv2d, in_channels: int) -> nn.Conv2d:
    """The conv of 3 T input channels that answers to T equal frames as `conv` does to one."""
    times = in_channels // conv.in_channels
    wide = _conv_like(conv, in_channels)
    with torch.no_grad():
        wide.weight.copy_(conv.weight.repeat(1, times, 1, 1) / times)
        if conv.bias is not None and wide.bias is not None:
            wide.bias.copy_(conv.bias)
    return wide


def temporal_backbone(rgb: ImageBackbone, in_channels: int) -> ImageBackbone:
    """A copy for stacked optical flow (Wang et al. 2015, "Towards Good Practices for Very Deep Two-Stream ConvNets").

    Its first conv has the mean of the RGB weights over the colours for each of the `in_channels` channels.
    """
    net = copy.deepcopy(rgb.net)
    path, conv = _first_conv(net, rgb.in_channels)
    wide = _conv_like(conv, in_channels)
    with torch.no_grad():
        wide.weight.copy_(conv.weight.mean(1, keepdim=True).expand_as(wide.weight))
        if conv.bias is not None and wide.bias is not None:
            wide.bias.copy_(conv.bias)
    _put(net, path, wide)
    return ImageBackbone(net, in_channels=in_channels, out_channels=rgb.out_channels, min_size=rgb.min_size)


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
    return ImageBackbone(net, in_channels=in_channels, out_channels=24, min_size=4)


def _tiny(in_channels: int) -> ImageBackbone:
    layers: list[nn.Module] = []
    width = in_channels
    for out in (16, 32, 64, 128):
        conv = nn.Conv2d(width, out, 3, stride=2, padding=1, bias=False)
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        layers += [conv, nn.BatchNorm2d(out), nn.ReLU(inplace=True)]
        width = out
    return ImageBackbone(nn.Sequential(*layers), in_channels=in_channels, out_channels=width)


def _torchvision_net(name: str, in_channels: int, pretrained: bool) -> nn.Module:
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        raise ConfigError(
            f"model.backbone: got {name!r}{did_you_mean(name, [*_SMALL, *known])}, expected {one_of(_SMALL)}, "
            "a torchvision classification CNN (resnet18, mobilenet_v3_small, ...) or timm:NAME"
        )
    if pretrained:
        weights = torchvision.models.get_model_weights(name).DEFAULT
        with downloading(name, weights):
            net = torchvision.models.get_model(name, weights=weights, progress=False)
    else:
        # By default these two spend a minute on scipy's truncated normal, and warn that they do.
        options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
        net = torchvision.models.get_model(name, **options)
    if in_channels != 3:
        _replace_first_conv(net, in_channels, repeat=pretrained)
    return _without_head(net, name)


def _replace_first_conv(net: nn.Module, in_channels: int, *, repeat: bool) -> None:
    path, conv = _first_conv(net, 3)
    _put(net, path, repeat_first_conv(conv, in_channels) if repeat else _conv_like(conv, in_channels))


def _first_conv(net: nn.Module, in_channels: int) -> tuple[str, nn.Conv2d]:
    convs = ((path, module) for path, module in net.named_modules() if isinstance(module, nn.Conv2d))
    return next((path, conv) for path, conv in convs if conv.in_channels == in_channels)


def _put(net: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, attribute = path.rpartition(".")
    setattr(net.get_submodule(parent), attribute, module)


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
    graph = _Tracer(head).trace(net.eval())  # in eval(), so that auxiliary heads are left out
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
            shape = meta_twin(net)(probe).shape
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


class _TimmFeatures(nn.Module):
    """A timm model reduced to its forward_features."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.channels_last = getattr(net, "output_fmt", "NCHW") == "NHWC"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.net.forward_features(x)  # type: ignore[operator]
        return out.movedim(-1, 1) if self.channels_last else out


def _timm_net(name: str, in_channels: int, pretrained: bool) -> nn.Module:
    try:
        import timm
    except ImportError as error:
        raise ConfigError(
            f"model.backbone: timm:{name} needs the package timm: pip install 'vidtrain[timm]'"
        ) from error
    if not timm.is_model(name.split(".")[0]):
        near = did_you_mean(name, timm.list_models())
        raise ConfigError(f"model.backbone: timm has no model {name!r}{near}, see timm.list_models()")
    try:  # timm repeats and divides a pretrained first conv by the same rule
        net = timm.create_model(name, pretrained=pretrained, in_chans=in_channels, num_classes=0, global_pool="")
    except (OSError, RuntimeError) as error:
        raise ConfigError(
            f"model.backbone: timm could not make {name} ({error}): without a network set model.pretrained=null"
        ) from error
    return _TimmFeatures(net)
