"""Calling what a `_target_` names, with a check of its options, and of what a file that came along may call at all."""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from vidtrain.errors import CheckpointError, ConfigError, VidtrainError, did_you_mean, one_of
from vidtrain.options.option_texts import conf_dir
from vidtrain.ranges import check_number, range_of

ORIGIN: Final = "_origin_"
"""Key of a node that came out of a file: {file, trust}. It travels with the node, whoever copies or merges it, and
`call` then calls only what is safe with any options. A node without it is the user's own."""
_LARGEST: Final = 1_000_000
"""A file's own options may hold no larger number: of layers, channels, frames, ..."""
# These write when the files are absent, where their options say. For a file's node the other one is called.
_INSTEAD: Final = {
    "vidtrain.data.motion.motion.motion": "vidtrain.data.motion.motion.existing_motion",
    "vidtrain.data.motion.motion_long.motion_long": "vidtrain.data.motion.motion_long.existing_motion_long",
}


def from_file(node: Mapping[str, Any], file: str, trust: Sequence[str] = ()) -> dict[str, Any]:
    """A copy of a node, marked as what it is: a stranger's.

    Args:
        file: where it comes from, for messages.
        trust: modules that the user allows it to call besides vidtrain's own.
    """
    return {**{str(k): v for k, v in node.items()}, ORIGIN: {"file": file, "trust": list(trust)}}


def call(node: Mapping[str, Any], section: str, **given: Any) -> Any:
    """Call the function that `node._target_` names with the other keys of the node and `given`.

    Raises:
        ConfigError: no such function, or a key that is not one of its options.
        CheckpointError: the node came out of a file (ORIGIN), and may not call this, or not with these options.
    """
    function, target, options = _function_of(node, section)
    origin = node.get(ORIGIN)
    _check_options(function, target, options, given, section)
    if origin is None or _is_trusted(target, origin):
        return function(**options, **given)
    try:
        return function(**options, **given)
    except VidtrainError:
        raise
    except Exception as error:  # whatever values of a stranger may lead to
        reason = str(error).strip().split("\n", 1)[0][:200]
        raise CheckpointError(
            f"{origin['file']}: {section}: {target} fails with the options it gives: {type(error).__name__}: {reason}"
        ) from error


def _function_of(node: Mapping[str, Any], section: str) -> tuple[Any, str, dict[str, Any]]:
    """The function that a node names, its name, and the options for it. Every import of a target happens here, after
    the check of where the node comes from."""
    options = {str(key): value for key, value in node.items()}
    origin, target = options.pop(ORIGIN, None), options.pop("_target_", None)
    if not isinstance(target, str):
        raise ConfigError(f"{section}._target_ is not set: name the function, for instance vidtrain.models.c3d.c3d")
    function = locate(target, section) if origin is None else _allowed(target, options, section, origin)
    if not callable(function):
        raise ConfigError(f"{section}._target_={target}: is no function but {type(function).__name__}")
    try:
        inspect.signature(function)
    except (TypeError, ValueError):
        raise ConfigError(f"{section}._target_={target}: does not say which options it takes") from None
    return function, target, options


def _check_options(
    function: Any, target: str, options: Mapping[str, Any], given: Mapping[str, Any], section: str
) -> None:
    signature = inspect.signature(function)
    parameters = signature.parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for key in options:
        if key not in parameters and not takes_any:
            raise ConfigError(
                f"no key '{section}.{key}'{did_you_mean(key, parameters)}; {target} takes: {one_of(parameters)}"
            )
    _check_types(function, options, section)
    _check_numbers(function, target, options, section)
    try:
        signature.bind(**options, **given)
    except TypeError as error:
        raise ConfigError(f"{section}: {target}: {error}") from error


# ---------------------------------------------------------------- what a file may call


def may_call(node: Mapping[str, Any], section: str) -> bool:
    """Of a file's node: whether `call` will call a function of vidtrain's own (True) or one that is trusted (False).

    Raises:
        CheckpointError: neither.
    """
    _, target, _ = _function_of(node, section)
    return not _is_trusted(target, node[ORIGIN])


def _allowed(target: str, options: Mapping[str, Any], section: str, origin: Mapping[str, Any]) -> Any:
    """The function for a file's node; nothing is imported before it is known to be allowed."""
    file = origin["file"]
    for name in (target, *_targets(options)):
        if not _is_trusted(name, origin) and name not in _shipped(section) and not _is_torchvisions(name, section):
            raise CheckpointError(
                f"{file} calls {section}._target_={name[:200]}, which is none of vidtrain's own: read what it does, "
                f"and if you trust it, add trust=[{name.split('.', 1)[0][:100]}]"
            )
    if not _is_trusted(target, origin):
        _check_sizes(options, section, file)
        return locate(_INSTEAD.get(target, target), section)
    function = locate(target, section)
    home = getattr(function, "__module__", None)
    plain = inspect.isroutine(function) or inspect.isclass(function)
    # mypackage.nets may have imported os.system; naming the first is not trusting the second
    if plain and not _within(str(home), origin["trust"]):
        raise CheckpointError(
            f"{file} calls {section}._target_={target}, which is {home}.{function.__name__}: "
            "add its module to trust, too, if you trust it"
        )
    return function


def _is_trusted(target: str, origin: Mapping[str, Any]) -> bool:
    return _within(target.rpartition(".")[0], origin["trust"])


def _within(module: str, trust: Sequence[str]) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in trust)


@cache
def _shipped(section: str) -> frozenset[str]:
    """What the YAML files of this section call, one line each; nothing else in vidtrain is meant for a stranger."""
    files = (conf_dir() / section).glob("*.yaml")
    lines = (re.search(r"^_target_: *([\w.]+)", file.read_text(encoding="utf-8"), re.MULTILINE) for file in files)
    return frozenset(line.group(1) for line in lines if line)


def _is_torchvisions(target: str, section: str) -> bool:
    """One of torchvision's video networks, which a YAML of one's own may name."""
    module, _, name = target.rpartition(".")
    if section != "model" or module != "torchvision.models.video":
        return False
    from torchvision.models import list_models

    return name in list_models(module=import_module(module))


def _targets(options: Any) -> list[str]:
    """Every `_target_` below, at any depth: none of them is called today, and none may be."""
    found, rest = [], [options]
    while rest:
        one = rest.pop()
        if isinstance(one, Mapping):
            found += [str(value) for key, value in one.items() if str(key) == "_target_"]
            rest += list(one.values())
        elif isinstance(one, Sequence) and not isinstance(one, (str, bytes)):
            rest += list(one)
    return found


def _check_sizes(options: Any, section: str, file: str) -> None:
    """A net of a billion layers fits a short file, and takes all memory and no end of time."""
    rest = [(f"{section}.{key}", value) for key, value in options.items()]
    while rest:
        key, value = rest.pop()
        if isinstance(value, (int, float)) and not abs(value) <= _LARGEST and not key.endswith("seed"):
            raise CheckpointError(f"{file}: {key}={value}: a file's own options may hold numbers up to {_LARGEST}")
        if isinstance(value, Mapping):
            rest += [(f"{key}.{name}", inner) for name, inner in value.items()]
        elif isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
            rest += [(key, inner) for inner in value]


# ---------------------------------------------------------------- types and names


def option_names(node: Mapping[str, Any], section: str) -> frozenset[str]:
    """The options that the function which a node names lists in its signature."""
    if not isinstance(node.get("_target_"), str):
        return frozenset()
    return frozenset(inspect.signature(_function_of(node, section)[0]).parameters)


def reads_untrimmed(node: Mapping[str, Any]) -> bool:
    """Whether the class that a task's node names has the attribute `untrimmed`, and it is true."""
    return bool(getattr(_function_of(node, "task")[0], "untrimmed", False))


def nothing_for(node: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    """The value that switches each of these options of a model off: None, False where the node's function expects a
    bool, or its default when that is empty.

    An option that may have none of them is not in the result.
    """
    function, _, _ = _function_of(node, "model")
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


def with_text(options: Mapping[str, Any]) -> dict[str, Any]:
    """`options` of a dataset with numbers as text for those parameters of `_target_` that take text but no numbers.

    Hydra reads data.root=2019 as a number; it is the name of a folder.
    """
    hints = _hints(_function_of(options, "data")[0]) if isinstance(options.get("_target_"), str) else {}

    def is_text(key: str, value: Any) -> bool:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return number and key in hints and not _fits(value, hints[key]) and _fits(str(value), hints[key])

    return {key: str(value) if is_text(key, value) else value for key, value in options.items()}


def _hints(function: Any, *, ranges: bool = False) -> dict[str, Any]:
    """The annotations of a function's or a class's options; {} where they name what exists only for a type checker.

    ranges: `Annotated` with what is said in it.
    """
    home = function.__init__ if inspect.isclass(function) else function
    try:
        return typing.get_type_hints(home, include_extras=ranges)
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
            if (
                value is None and key in parameters and default is inspect.Parameter.empty
            ):  # data.root of a published folder
                raise ConfigError(f"{section}.{key} is not set: expected {wanted}")
            raise ConfigError(f"{section}.{key}={value!r}: expected {wanted}, got {type(value).__name__}")


def _check_numbers(function: Any, target: str, options: Mapping[str, Any], section: str) -> None:
    """Hold numbers against the Range that the function's annotations give. Those of vidtrain and PyTorch are finite."""
    hints = _hints(function, ranges=True)
    ours = target.startswith(("vidtrain.", "torch."))
    for key, value in options.items():
        if ours or typing.get_origin(hints.get(key)) is typing.Annotated:
            check_number(f"{section}.{key}", value, range_of(hints.get(key)))


def _is_tensor(hint: Any) -> bool:
    return (getattr(hint, "__module__", ""), getattr(hint, "__name__", "")) == ("torch", "Tensor")


def _type_name(hint: Any) -> str:
    """'int | None', the same on every Python; without what no configuration can hold."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " | ".join(_type_name(argument) for argument in arguments if not _is_tensor(argument))
    if origin is tuple and ... not in arguments:
        return f"[{', '.join(map(_type_name, arguments))}]"
    if hint is type(None):
        return "None"
    if origin in (dict, Mapping):
        return "a mapping"
    return (
        hint.__name__
        if isinstance(hint, type)
        else str(hint).replace("typing.", "").replace("collections.abc.Sequence", "list")
    )


def _fits(value: Any, hint: Any) -> bool:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, argument) for argument in arguments)
    if origin is typing.Literal:
        return value in arguments
    if origin in (list, tuple, Sequence):
        if not isinstance(value, Sequence) or isinstance(value, str):
            return False
        each = len(arguments) == 1 or (len(arguments) == 2 and arguments[1] is ...)
        hints = [arguments[0]] * len(value) if each else list(arguments or [Any] * len(value))
        return len(hints) == len(value) and all(map(_fits, value, hints))
    if origin in (dict, Mapping):
        return isinstance(value, Mapping)
    if _is_tensor(hint):  # PyTorch's optimizers take "float | Tensor"
        return isinstance(value, hint)
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
    """The object with this dotted name. Not for a node that may have come out of a file: see `_function_of`."""
    module_name, _, name = target.rpartition(".")
    try:
        return getattr(import_module(module_name), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{section}._target_={target}: cannot be imported: {error}") from error
