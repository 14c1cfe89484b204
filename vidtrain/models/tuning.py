"""Which parameters of a network are trained, and how: all, the head, the last blocks, the norms, low-rank updates, or a
new head on the frozen network."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from vidtrain.errors import CheckpointError, ConfigError, did_you_mean
from vidtrain.models.layers.checkpointing import repeated_blocks
from vidtrain.models.layers.example_inputs import as_input, input_shapes
from vidtrain.models.layers.feature_tap import FeatureTap, last_positions
from vidtrain.models.layers.low_rank import add_low_rank, has_low_rank, merged, weight_names
from vidtrain.models.layers.model_copy import copy_on_meta
from vidtrain.models.probe import FeatureProbe, one_probe
from vidtrain.models.settings import PoolingName, TuneConfig, TuneName

_NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
_CONVS = nn.modules.conv._ConvNd


def tune(model: nn.Module, options: TuneConfig) -> str:
    """Freeze what is not trained, add low-rank updates; to be called once, before the optimizer is made.

    What a network itself has frozen stays so. Of tune=probe the model is what `with_probe` made. Returns what is
    trained, for the log.

    Raises:
        ConfigError: more blocks than there are, no layer of that name, or a network that does not name its head.
    """
    what = "everything"
    if options.name is TuneName.probe:
        what = f"{'a query and ' * (options.pooling is PoolingName.attentive)}a linear layer on {options.layer}"
    elif options.name is not TuneName.full:
        usual = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
        heads = _heads(model, options.name)
        trained = {name for name in usual if _below(name, heads)}
        what = "head"
        if options.name is TuneName.last:
            trained |= _last(model, usual, heads, options.blocks)
            what = f"the last {options.blocks} blocks, head"
        elif options.name is TuneName.norms:
            norms = [name for name, part in model.named_modules() if isinstance(part, _NORMS)]
            found = {name for name in usual if name.rpartition(".")[0] in norms}
            trained |= found
            what = f"head, {len({name.rpartition('.')[0] for name in found})} norms"
        layers = _targets(model, usual, heads, options) if options.name is TuneName.lora else []
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in trained)
        for layer in layers:
            add_low_rank(layer, options.rank, options.alpha)
        if layers:
            what = f"head, LoRA rank {options.rank} on {len(layers)} layers"
    return f"trains {trained_share(model)}: {what}"


def trained_share(model: nn.Module) -> str:
    """'0.21M of 86.4M parameters (0.2 %)'."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    total, trained = sum(size for size, _ in sizes), sum(size for size, grad in sizes if grad)
    return f"{trained / 1e6:.3g}M of {total / 1e6:.4g}M parameters ({_percent(trained, total)} %)"


def _percent(part: int, whole: int) -> str:
    share = 100 * part / max(whole, 1)
    return f"{share:.0f}" if share >= 10 else f"{share:.2g}"


def with_probe(model: nn.Module, options: TuneConfig, *, num_classes: int, clip: tuple[int, int]) -> nn.Module:
    """The model itself, but with tune=probe a new head on what the frozen model finds; fills in `options.layer`.

    Args:
        clip: frames and pixels of a side of what it will read.

    Raises:
        ConfigError: no such layer, heads that do not fit it, or a model that reads features, which is a head itself.
    """
    if options.name is not TuneName.probe:
        return model
    if "features" in getattr(model, "inputs", ()) or isinstance(model, FeatureProbe):
        raise ConfigError(f"tune=probe: {type(model).__name__} is a head on a frozen network itself: take tune=full")
    attends = options.pooling is PoolingName.attentive
    example = as_input({n: torch.empty(1, *shape, device="meta") for n, shape in input_shapes(model, *clip).items()})
    with torch.no_grad():
        twin = copy_on_meta(model)
        if options.layer is None:
            options.layer = last_positions(twin, example) if attends else "features"
        width = int(FeatureTap(twin, options.layer, tokens=attends)(example).shape[-1])
    like = next(model.parameters())
    return _probe(model, options, num_classes, width).to(like.device)


def _probe(model: nn.Module, options: TuneConfig, num_classes: int, width: int) -> FeatureProbe:
    attends = options.pooling is PoolingName.attentive
    tap = FeatureTap(model, options.layer, tokens=attends)
    return one_probe(tap, num_classes=num_classes, width=width, heads=options.heads if attends else None)


def as_stored(
    build: Callable[[], nn.Module], section: Any, num_classes: int, weights: Mapping[str, Tensor]
) -> nn.Module:
    """The network that a checkpoint's weights are of: what `build` makes, or a probe of it.

    section: the file's `tune`, a stranger's data.

    Raises:
        CheckpointError: it says tune=probe, but not of what.
    """
    if not isinstance(section, Mapping) or section.get("name") != TuneName.probe.value:
        return build()
    layer, pooling, mean = section.get("layer"), section.get("pooling"), weights.get("mean")
    heads: Any = section.get("heads")
    known = type(layer) is str and type(heads) is int and pooling in list(PoolingName)
    if not known or heads < 1 or not isinstance(mean, Tensor) or mean.ndim != 1 or not len(mean):
        raise CheckpointError("tune=probe: the file lacks its layer, pooling, heads or weights")
    options = TuneConfig(TuneName.probe, layer=layer, pooling=PoolingName(pooling), heads=heads)
    return _probe(build(), options, num_classes, len(mean))


def plain_weights(weights: Mapping[str, Tensor], alpha: Any) -> Mapping[str, Tensor]:
    """A network's weights as the plain network keeps them: updates are merged.

    Raises:
        RuntimeError: they are a file's, and the updates, or its tune.alpha, are not what such a file has.
    """
    if not has_low_rank(weights):
        return weights
    try:
        return merged(weights, float(alpha))
    except (TypeError, ValueError, ArithmeticError, LookupError, RuntimeError):
        raise RuntimeError("low-rank updates:\n their shapes, or tune.alpha, do not fit its weights") from None


# ---------------------------------------------------------------- what belongs to what


def _below(name: str, parts: Iterable[str]) -> bool:
    return any(name == part or name.startswith(f"{part}.") for part in parts)


def _heads(model: nn.Module, name: TuneName) -> Sequence[str]:
    heads: Any = getattr(model, "head_names", None) or (getattr(model, "head_name", None),)
    if not all(isinstance(head, str) for head in heads):
        raise ConfigError(
            f"tune={name.value}: {type(model).__name__} does not say which layer is its head: give it the attribute "
            "head_name, the name of its last layer, or tune=full"
        )
    return tuple(heads)


def _last(model: nn.Module, usual: Sequence[str], heads: Sequence[str], blocks: int) -> set[str]:
    """By the network's layer numbers; without them by its repeated blocks or, where it has none, its layers, in the
    order in which it has made them, for each of its `towers`."""
    numbers = _layer_numbers(model, usual)
    if numbers is not None:
        top = max(numbers.values())
        _check_blocks(model, blocks, top - 1)
        return {name for name, number in numbers.items() if number >= top - blocks}
    chosen: set[str] = set()
    for tower in getattr(model, "towers", ("",)):
        prefix = f"{tower}." if tower else ""
        inside = [name for name in usual if name.startswith(prefix) and not _below(name, heads)]
        starts = _block_starts(model.get_submodule(tower), prefix, inside)
        _check_blocks(model, blocks, len(starts))
        chosen |= set(inside[inside.index(starts[-blocks]) :])
    return chosen


def _layer_numbers(model: nn.Module, names: Iterable[str]) -> dict[str, int] | None:
    """As optimizer.layer_decay has them, 0 for the embedding; None where the network does not number its layers."""
    layer_of: Any = getattr(model, "layer_of", None)
    if layer_of is None:
        return None
    try:
        return {name: layer_of(name) for name in names}
    except ConfigError:  # an image network under it does not
        return None


def _block_starts(tower: nn.Module, prefix: str, inside: Sequence[str]) -> list[str]:
    """The name of the first trained parameter of each block, or of each layer that has a weight."""
    position = {name: index for index, name in enumerate(inside)}
    parts = {id(part): prefix + name for name, part in tower.named_modules()}
    blocks = [parts[id(block)] for block in repeated_blocks(tower)]
    layers = [parts[id(part)] for part in tower.modules() if weight_names(part)]
    for names in (blocks, layers):
        firsts = [next((name for name in inside if _below(name, (part,))), None) for part in names]
        found = sorted({name for name in firsts if name is not None}, key=position.__getitem__)
        if len(found) > 1:
            return found
    return found


def _check_blocks(model: nn.Module, blocks: int, most: int) -> None:
    if blocks > most:
        raise ConfigError(f"tune.blocks={blocks}: {type(model).__name__} has {most} blocks that can be trained")


# ---------------------------------------------------------------- the layers of low-rank updates


def _targets(model: nn.Module, usual: Sequence[str], heads: Sequence[str], options: TuneConfig) -> list[nn.Module]:
    layers = {
        name: part
        for name, part in model.named_modules()
        if not _below(name, heads) and any(f"{name}.{weight}" in usual for weight in weight_names(part))
    }
    if options.targets == ["auto"]:
        numbers = _layer_numbers(model, usual) or {}
        return [
            layer
            for name, layer in layers.items()
            if isinstance(layer, (nn.Linear, _CONVS, nn.RNNBase))
            and getattr(layer, "groups", 1) == 1
            and all(numbers.get(f"{name}.{weight}") != 0 for weight in weight_names(layer))
            and all(_shorter_side(layer, weight) > options.rank for weight in weight_names(layer))
        ]
    if not options.targets:
        raise ConfigError("tune.targets=[]: name at least one layer, such as attn.qkv, or give [auto]")
    found: dict[str, nn.Module] = {}
    for pattern in options.targets:
        fits = {name: layer for name, layer in layers.items() if _matches(name, pattern)}
        if not fits:
            kinds = _by_kind(layers)
            ends = [re.sub(r".*\*\.", "", name) for names in kinds.values() for name in names]
            listed = "; ".join(f"{kind}: {', '.join(names[:12])}" for kind, names in kinds.items()) or "none"
            raise ConfigError(
                f"tune.targets: {type(model).__name__} has no layer '{pattern}'{did_you_mean(pattern, ends)}; "
                f"it has {listed}"
            )
        found |= fits
    return list(found.values())


def _shorter_side(layer: nn.Module, weight: str) -> int:
    tensor = layer.get_parameter(weight)
    return min(len(tensor), tensor[0].numel())


def _matches(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"*.{pattern}")


def _by_kind(layers: Mapping[str, nn.Module]) -> dict[str, list[str]]:
    """Type of layer -> their names, with * for numbers."""
    kinds: dict[str, dict[str, None]] = {}
    for name, layer in layers.items():
        kinds.setdefault(type(layer).__name__, {})[re.sub(r"(?<=\.)\d+(?=\.|$)|^\d+", "*", name)] = None
    return {kind: list(names) for kind, names in kinds.items()}
