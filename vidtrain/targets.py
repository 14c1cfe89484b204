"""Calling what a `_target_` names, with a check of its options; and what a stranger's configuration may not call."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from vidtrain.errors import ConfigError, did_you_mean, one_of

# What a configuration that came with a checkpoint may call, section by section. Narrow on purpose: torch.hub.load
# also starts with "torch.".
_CHECKPOINT_MAY_CALL = {
    "model": ("vidtrain.models.", "torchvision.models."),
    "data": ("vidtrain.data.",),
    "decoder": ("vidtrain.data.readers.",),
}


def call(node: Mapping[str, Any] | DictConfig, section: str, **given: Any) -> Any:
    """Call the function that `node._target_` names with the other keys of the node and `given`.

    Raises:
        ConfigError: no such function, or a key that is not one of its options.
    """
    options = {str(key): value for key, value in node.items()}
    target = options.pop("_target_", None)
    if not isinstance(target, str):
        raise ConfigError(f"{section}._target_ is not set: name the function, for instance vidtrain.models.c3d.c3d")
    function = locate(target, section)
    parameters = inspect.signature(function).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for key in options:
        if key not in parameters and not takes_any:
            raise ConfigError(
                f"no key '{section}.{key}'{did_you_mean(key, parameters)}; {target} takes: {one_of(parameters)}"
            )
    _check_types(function, options, section)
    try:
        inspect.signature(function).bind(**options, **given)
    except TypeError as error:
        raise ConfigError(f"{section}: {target}: {error}") from error
    return function(**options, **given)


def option_names(node: Mapping[str, Any] | DictConfig, section: str) -> frozenset[str]:
    """The options that the function which a node names lists in its signature."""
    target = node.get("_target_")
    if not isinstance(target, str):
        return frozenset()
    return frozenset(inspect.signature(locate(target, section)).parameters)


def nothing_for(node: Mapping[str, Any], keys: Iterable[str], section: str) -> dict[str, Any]:
    """The value that switches each of these options off: None, False where the node's function expects a bool, or its
    default when that is empty.

    An option that may have none of them is not in the result.
    """
    function = locate(str(node.get("_target_")), section)
    hints, parameters = _hints(function), inspect.signature(function).parameters
    found: dict[str, Any] = {}
    for key in keys:
        hint = hints.get(key, Any)
        if _fits(None, hint):
            found[key] = None
        elif _fits(False, hint):
            found[key] = False
        elif key in parameters and not parameters[key].default:
            found[key] = parameters[key].default
    return found


def with_text(options: Mapping[str, Any], section: str) -> dict[str, Any]:
    """`options` with numbers as text for those parameters of `_target_` that take text but no numbers.

    Hydra reads data.root=2019 as a number; it is the name of a folder.
    """
    target = options.get("_target_")
    hints = _hints(locate(target, section)) if isinstance(target, str) else {}

    def is_text(key: str, value: Any) -> bool:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return number and key in hints and not _fits(value, hints[key]) and _fits(str(value), hints[key])

    return {key: str(value) if is_text(key, value) else value for key, value in options.items()}


def _hints(function: Any) -> dict[str, Any]:
    """The annotations of a function's or a class's options; {} where they name what exists only for a type checker."""
    try:
        return typing.get_type_hints(function.__init__ if inspect.isclass(function) else function)
    except (NameError, TypeError):
        return {}


def _check_types(function: Any, options: Mapping[str, Any], section: str) -> None:
    """YAML and the command line carry any type: hold the plain ones against the function's annotations."""
    hints, parameters = _hints(function), inspect.signature(function).parameters
    for key, value in options.items():
        default = parameters[key].default if key in parameters else None
        if type(value) is type(default) and value == default:
            continue  # many write "weights: str = None"
        if key in hints and not _fits(value, hints[key]):
            wanted = _type_name(hints[key])
            raise ConfigError(f"{section}.{key}={value!r}: wants {wanted}, got {type(value).__name__}")


def _type_name(hint: Any) -> str:
    """'int | None', the same on every Python."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " | ".join(_type_name(argument) for argument in typing.get_args(hint))
    if hint is type(None):
        return "None"
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")


def _fits(value: Any, hint: Any) -> bool:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, argument) for argument in arguments)
    if origin is typing.Literal:
        return value in arguments
    if hint is type(None):
        return value is None
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint in (str, bool):
        return isinstance(value, hint)
    return hint is not Path or isinstance(value, (str, Path))


def locate(target: str, section: str) -> Any:
    """The object with this dotted name."""
    module_name, _, name = target.rpartition(".")
    try:
        return getattr(import_module(module_name), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{section}._target_={target}: cannot be imported: {error}") from error


def refuse_untrusted(config: Mapping[str, Any], trust: Sequence[str], source: str) -> None:
    """Raise ConfigError when a stranger's configuration names code outside vidtrain and torchvision."""
    for section, prefixes in _CHECKPOINT_MAY_CALL.items():
        for target in _targets(config.get(section)):
            module = target.rpartition(".")[0]
            if any(module == name or module.startswith(name + ".") for name in trust):
                continue
            known = any(target.startswith(prefix) for prefix in prefixes)
            if not known or not str(getattr(locate(target, section), "__module__", "")).startswith(prefixes):
                raise ConfigError(
                    f"{source} wants to call {section}._target_={target}, which is not part of vidtrain; if you trust "
                    f"it, add trust=[{target.split('.', 1)[0]}]"
                )


def _targets(node: Any) -> list[str]:
    if isinstance(node, Mapping):
        own = [str(node["_target_"])] if "_target_" in node else []
        return own + [t for value in node.values() for t in _targets(value)]
    if isinstance(node, (list, tuple)):
        return [t for value in node for t in _targets(value)]
    return []
