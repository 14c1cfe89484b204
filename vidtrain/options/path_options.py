"""Options that hold a path, which is taken as the shell gives it: input="clip (1).mp4", data.root=~/ucf, output=a=b.

Regular expressions (the type Regex) and free texts (Text) are taken so, too, commas included.

Which options these are is read from where they are defined, by the type FilePath or Path: the fields of the schemas,
and the parameters of the functions that datasets and models name by `_target_`. No import of hydra or torch until an
argument needs Hydra's own parser.
"""

from __future__ import annotations

import ast
import contextlib
import os
import re
from collections.abc import Sequence
from functools import lru_cache
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from vidtrain.errors import ConfigError, one_of
from vidtrain.models.settings import START_KEYS
from vidtrain.options.commands import COMMANDS
from vidtrain.options.option_texts import choices_of, fields, group_options, leaves

_GROUPS = ("data", "model")  # those whose functions may read files
# of every dataset and every model, whatever its function says
_ALWAYS = {
    "data.root": "FilePath",
    **{f"model.{key}": "FilePath | None" for key in START_KEYS if key != "pretrained"},
}
# Hydra's own, in which ${now:...} is meant to be one
_WITH_INTERPOLATION = {"hydra.run.dir": "FilePath", "hydra.sweep.dir": "FilePath"}
_FOLDERS_OF_HYDRA = ("run_dir", "resume")  # put by Hydra into its own configuration, which resolves what is in them
_WRITTEN = (*_FOLDERS_OF_HYDRA, *_WITH_INTERPOLATION, "output")
# types of options whose values are taken as the shell gives them, and those of them in which a comma says nothing
_AS_GIVEN, _WHOLE = re.compile(r"\b(FilePath|Path|Regex|Text)\b"), re.compile(r"\b(Regex|Text)\b")
_OVERRIDE = re.compile(r"(\+{0,2})([^=~+\s][^=\s]*)=(.*)", re.DOTALL)
# what Hydra's users write into a path; other names with ${ in them are those of files
_INTERPOLATION = re.compile(r"\$\{(?:oc\.env:[A-Za-z_]\w*(?:,[^{}$]*)?|[A-Za-z_]\w*(?:\.\w+)+)\}")
_SWEEP_FUNCTION = re.compile(r"[a-z_]+\(.*\)", re.DOTALL)
# the parts of a simple sweep: in quotes of their own, or up to the next comma
_PART = re.compile(r"""\s*('(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|[^,]*?)\s*(?:,|\Z)""", re.DOTALL)


def quote_paths(
    overrides: Sequence[str], command: str, *, multirun: bool = False, config_dir: Path | None = None
) -> list[str]:
    """The same overrides, the values of path options quoted wherever Hydra would read something else.

    A value in Hydra's own quotes stays, with its interpolations; so do ${oc.env:NAME} and ${section.key} outside of
    quotes, unless a path of this very name exists. null stays null where the option may be null. With multirun a comma
    separates the values of a sweep, unless the whole is a path that exists.

    Raises:
        ConfigError: a path option without a value.
    """
    names = _chosen(overrides)
    roots = [text for o in overrides if (text := o.lstrip("+").removeprefix("data.root=")) != o.lstrip("+")]
    result = []
    for override in overrides:
        found = _OVERRIDE.fullmatch(override)
        kind = annotation(command, found.group(2), names, config_dir) if found else None
        if found is None or kind is None:
            result.append(override)
            continue
        key, text = found.group(2), found.group(3)
        exists = _exists(text, roots)
        interpolation = key in _WITH_INTERPOLATION or (not _WHOLE.search(kind) and not exists and _interpolates(text))
        if not text.strip():
            hint = ", or null for none" if "None" in kind else ""
            raise ConfigError(f"{key}={text}: no path after the equals sign (an unset variable of the shell?){hint}")
        if key in _WRITTEN and "://" in text:
            from vidtrain.remote import refuse_store  # which imports numpy

            refuse_store(key, unquoted(text))
        if key in ("run", "runs") and "://" in text:
            raise ConfigError(
                f"{key}={text}: runs are read from folders of this machine: copy them first (aws s3 sync, gsutil "
                "rsync, rclone sync)"
            )
        if key in _FOLDERS_OF_HYDRA and "${" in text and not _in_quotes(text):
            raise ConfigError(f"{key}={text}: a run folder cannot have ${{ in its name")
        single = not multirun or _WHOLE.search(kind) or exists
        if (text == "null" and "None" in kind) or (text[0] == "[" and ("list" in kind or "Sequence" in kind)):
            value = text
        elif single or (swept := _sweep(text, interpolation)) is None:
            value = _quoted(text, interpolation)
        else:
            value = swept
        result.append(f"{found.group(1)}{key}={value}")
    return result


def name_positional(overrides: Sequence[str], command: str) -> list[str]:
    """`vidtrain init my_videos` -> input=my_videos; for an option that is a list: a b c=1 -> c=1 runs=['a','b'].

    A word is a path when it gives no key of the command and has no equals sign, or when such a path exists.

    Raises:
        ConfigError: several paths for an option of one, or paths as words and by the option's key.
    """
    option = COMMANDS[command].positional
    keys = {key for key, *_ in fields(command)} if option else set()

    def is_path(word: str) -> bool:
        found = _OVERRIDE.fullmatch(word)
        return found is None or (found.group(2) not in keys and _exists(word, ()))

    words = [word for word in overrides if option and is_path(word)]
    if not words:
        return list(overrides)
    rest = [word for word in overrides if word not in words]
    if any(word.lstrip("+").startswith(f"{option}=") for word in rest):
        raise ConfigError(f"{words[0]}: a path without a key is taken for {option}=, which is given, too: give one")
    if "list" in (annotation(command, option) or ""):
        return [*rest, f"{option}=[{','.join(map(_always_quoted, words))}]"]
    if len(words) > 1:
        raise ConfigError(f"vidtrain {command} takes one path without a key, got {one_of(words, 5)}")
    return [f"{option}={words[0]}", *rest]


def expand_home(path: str) -> str:
    """`~/x` and `~user/x` as a shell expands them; what exists under this very name stays."""
    # not Path.expanduser, which raises for ~x where no user has the name x
    return path if not path.startswith("~") or os.path.lexists(path) else os.path.expanduser(path)  # noqa: PTH111


def expand_homes(plain: Any, command: str) -> dict[str, str]:
    """Key -> expanded path of the path options that start with ~ in a configuration as plain values.

    Shells expand `x=~/y` nowhere, YAML files have no shell.
    """
    tilde = [(key, value) for key, value in leaves(plain) if isinstance(value, str) and value.startswith("~")]
    found = {}
    for key, value in tilde:
        section = plain.get(key.split(".", 1)[0])
        target = section.get("_target_") if isinstance(section, dict) else None
        if annotation(command, key, target=target) is not None and (path := expand_home(value)) != value:
            found[key] = path
    return found


def unquoted(text: str) -> str:
    """A value of an override as a reader expects it, without Hydra's quotes."""
    return str(_parse(text).value()) if _in_quotes(text) else text


def literal(text: str) -> str:
    """A text written so that OmegaConf reads it as it is: ${ begins no interpolation."""
    return re.sub(r"(\\*)\$\{", lambda found: found.group(1) * 2 + r"\${", text)


# ---------------------------------------------------------------- which options are paths


def annotation(
    command: str,
    key: str,
    names: dict[str, list[str]] | None = None,
    config_dir: Path | None = None,
    target: str | None = None,
) -> str | None:
    """The type of an option that holds a path, as its definition writes it; None for any other option.

    Args:
        names: the choices of the groups data and model; of a group that is not in it all choices count.
        config_dir: folder of the user's own groups.
        target: the function that the group names, where it is known.
    """
    if (kind := _WITH_INTERPOLATION.get(key) or _schema_paths(command).get(key)) is not None:
        return kind
    group, _, option = key.partition(".")
    if group not in _GROUPS or not option:
        return None
    kinds = set()
    for function in [target] if target is not None else _targets(group, (names or {}).get(group), config_dir):
        kinds.add(_options(function).get(option))
    for kind in sorted(filter(None, kinds)):
        if _AS_GIVEN.search(kind):
            return kind
    # an own function may say `weights: str`, or nothing; but `weights: bool` is no path
    own = [kind for kind in kinds if kind is not None]
    return _ALWAYS.get(key) if not own or any(kind == "" or re.search(r"\bstr\b", kind) for kind in own) else None


@lru_cache
def _schema_paths(command: str) -> dict[str, str]:
    return {key: kind for key, kind, _, _ in fields(command) if _AS_GIVEN.search(kind)}


def _targets(group: str, names: list[str] | None, config_dir: Path | None) -> list[str]:
    """The functions that a group's choices call: of these names, or of all."""
    read = _targets_of_ours if config_dir is None else _read_targets
    return read(group, tuple(names or ()), config_dir)


def _read_targets(group: str, names: tuple[str, ...], config_dir: Path | None) -> list[str]:
    own = () if config_dir is None else (config_dir,)
    there, found = choices_of(group, own), []
    for name in there if not names else (name for name in there if name in names):
        with contextlib.suppress(ConfigError, OSError, ValueError):  # reported when Hydra reads it
            found.append(group_options(group, name, own).get("_target_", ("", ""))[0].strip("\"'"))
    return [target for target in dict.fromkeys(found) if target]


_targets_of_ours = lru_cache(_read_targets)  # files that do not change; asked of each option of the group


@lru_cache
def _options(target: str) -> dict[str, str]:
    """Option -> annotation ('' without one) of a function or a class, read from its source; {} when there is none."""
    module, _, name = target.rpartition(".")
    file = _source(module)
    if file is None:
        return {}
    try:
        body = ast.parse(file.read_text(encoding="utf-8")).body
    except (OSError, SyntaxError, ValueError):  # reported when it is called
        return {}
    node: ast.stmt | None = _defined(body, name)
    if isinstance(node, ast.ClassDef):
        node = next((n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)
    if not isinstance(node, ast.FunctionDef):
        return {}
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    return {a.arg: "" if a.annotation is None else ast.unparse(a.annotation) for a in arguments if a.arg != "self"}


def _defined(body: Sequence[ast.stmt], name: str) -> ast.FunctionDef | ast.ClassDef | None:
    """The function or class of a module that is called so, also by another name for it: c3d = C3D."""
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name == name:
            return node
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Name) and ast.unparse(node.targets[0]) == name:
            return _defined([other for other in body if other is not node], node.value.id)
    return None


def _source(module: str) -> Path | None:
    """The file of a module that is found but not imported."""
    top, _, rest = module.partition(".")
    if top == "vidtrain":
        folders = [Path(__file__).parents[1]]
    else:
        spec = PathFinder.find_spec(top)
        if spec is None:
            return None
        if not rest:
            return Path(spec.origin) if spec.origin is not None and spec.origin.endswith(".py") else None
        folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    parts = rest.split(".") if rest else []
    for folder in folders:
        here = folder.joinpath(*parts)
        for file in (here.with_name(f"{here.name}.py"), here / "__init__.py"):
            if file.is_file():
                return file
    return None


def _chosen(overrides: Sequence[str]) -> dict[str, list[str]]:
    """The choices of the groups that the overrides make, one or the several of a sweep."""
    pairs = [o.lstrip("+").partition("=") for o in overrides]
    return {group: re.findall(r"[\w-]+", value) for group, _, value in pairs if group in _GROUPS}


# ---------------------------------------------------------------- values


def _parse(text: str) -> Any:
    """Hydra's reading of a value: an Override; None when it has none."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return OverridesParser.create().parse_override(f"key={text}")
    except HydraException:
        return None


def _in_quotes(text: str) -> bool:
    """Whether the whole value is in quotes of Hydra's grammar."""
    if len(text) < 2 or text[0] not in "'\"" or text[-1] != text[0]:
        return False
    parsed = _parse(text)
    return parsed is not None and not parsed.is_sweep_override() and isinstance(parsed.value(), str)


def _quoted(text: str, interpolation: bool = False) -> str:
    """One path, so that Hydra and OmegaConf read this very text."""
    if _in_quotes(text):
        return text
    if text == "???":  # OmegaConf's word for what is missing
        text = "./???"
    if interpolation:
        text = expand_home(text)
    parsed = _parse(text)
    if parsed is not None and (interpolation or "${" not in text):
        value = None if parsed.is_sweep_override() else parsed.value()
        if isinstance(value, str) and value == text:
            return text
    return _always_quoted(text, interpolation)


def _always_quoted(text: str, interpolation: bool = False) -> str:
    from hydra.core.override_parser.types import Quote, QuotedString

    return QuotedString(text if interpolation else literal(text), Quote.single).with_quotes()


def _sweep(text: str, interpolation: bool) -> str | None:
    """The values of a sweep, each as it is; None when it is a single value."""
    if _SWEEP_FUNCTION.fullmatch(text):  # choice(...), glob(...)
        parsed = _parse(text)
        return text if parsed is not None and parsed.is_sweep_override() else None
    parts = _PART.findall(text.rstrip())
    if not text.rstrip().endswith(","):
        parts = parts[:-1]  # findall also finds the empty end
    if len(parts) < 2:
        return None
    if not all(parts):
        raise ConfigError(f"{text}: a value of this sweep is empty")
    return ",".join(_quoted(part, interpolation) for part in parts)


def _interpolates(text: str) -> bool:
    """Whether every ${ in a text begins an interpolation of OmegaConf, and there is one."""
    return 0 < text.count("${") == len(_INTERPOLATION.findall(text))


def _exists(text: str, roots: Sequence[str]) -> bool:
    """Whether a path is there, from the working directory or below the data root."""
    try:
        return any(os.path.lexists(os.path.join(root, expand_home(text))) for root in ("", *map(expand_home, roots)))  # noqa: PTH118
    except ValueError:
        return False
