"""What the YAML files and the schemas say of the options, read from their text: no import of hydra or torch."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from vidtrain.errors import ConfigError, did_you_mean, one_of
from vidtrain.options.commands import ACTIONS, COMMANDS

_Field = tuple[str, str, str, str]  # name, annotation, default, doc
OWN_FOLDER = "a folder of your own is given with --config-dir"


def conf_dir() -> Path:
    """The packaged configs: inside the package when installed, beside it in an editable installation."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def choices_of(group: str, own: Sequence[Path] = ()) -> list[str]:
    """The names of a group's choices, in alphabetical order. own: folders of the user's configs."""
    return sorted({file.stem for folder in (conf_dir(), *own) for file in (folder / group).glob("*.yaml")})


def choice_file(group: str, choice: str, own: Sequence[Path] = ()) -> Path | None:
    """The YAML file of a choice; None: there is none."""
    files = (folder / group / f"{choice}.yaml" for folder in (conf_dir(), *own))
    return next((file for file in files if file.is_file()), None)


def group_options(group: str, choice: str, own: Sequence[Path] = ()) -> dict[str, tuple[str, str]]:
    """Key -> (default as it is written, comment beside it) of a choice of a group and of those it is based on.

    Args:
        choice: of a group that takes several, such as logger, also a list of them: "[jsonl, tensorboard]".
        own: folders of the user's configs.

    Raises:
        ConfigError: the group has no such choice.
    """
    if choice.startswith("["):
        names = re.findall(r"[\w-]+", choice)
        return {key: text for name in names for key, text in group_options(group, name, own).items()}
    file = choice_file(group, choice, own)
    if file is None:
        names = choices_of(group, own)
        allowed = f"{one_of(names, 60)}; {OWN_FOLDER}"
        raise ConfigError(f"{group}={choice}: no such {group}{did_you_mean(choice, names)}; allowed: {allowed}")
    found: dict[str, tuple[str, str]] = {}
    section = ""
    for line in file.read_text(encoding="utf-8").splitlines():
        if (match := re.fullmatch(r"(  )?(\w+):(?: +(\S.*?))?(?: +# *(.*))?", line)) is None:
            continue
        inside, key, default, doc = match.groups()
        if inside is None:
            section = key if default is None else ""
        if default is None:
            continue
        if inside is not None:
            found[f"{section}.{key}"] = (default, doc or "")
            continue
        if key == "defaults":
            for base in (b for b in re.findall(r"[\w-]+", default) if b != "_self_"):
                found |= group_options(group, base, own)
        else:
            found[key] = (default, doc or found.get(key, ("", ""))[1])
    return found


def leaves(nested: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of all that stands in mappings within each other; an empty one is a value."""
    for name, value in nested.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{key}.")
        else:
            yield key, value


def default_choices(command: str) -> dict[str, str]:
    """Group -> choice, of the groups that a command's configuration begins with; a key that is null has none."""
    text = (conf_dir() / f"{command}.yaml").read_text(encoding="utf-8")
    pairs = re.findall(r"^  - (\w+): (\w+|\[.*\])$", text, re.MULTILINE)
    return {group: choice for group, choice in pairs if choice != "null"}


def fields(command: str, action: str | None = None) -> list[tuple[str, str, str, str]]:
    """(dotted key, annotation, default, text) of each typed option of a command, last what a checkpoint brings.

    action: of `vidtrain data`, only what it reads; None: what any of them does.
    """
    rows = _fields(COMMANDS[command].schema)
    if command == "data":
        read = list(ACTIONS) if action is None else [action, *ACTIONS[action].also.split()]
        rows += [row for name in read if ACTIONS[name].schema for row in _fields(ACTIONS[name].schema, f"{name}.")]
    return sorted(rows, key=lambda row: row[1] == "Any") if COMMANDS[command].from_checkpoint else rows


@lru_cache
def _read_schemas(module: str) -> dict[str, list[_Field]]:
    """The dataclasses of a module, and of those that all may use."""
    package = Path(__file__).parents[1]
    files = [*sorted(package.glob("*/settings.py")), package / "options" / "schema.py"]
    files.append(package.joinpath(*module.split(".")[1:]).with_suffix(".py"))
    schemas: dict[str, list[_Field]] = {}
    for node in (n for file in files for n in ast.parse(file.read_text(encoding="utf-8")).body):
        if not isinstance(node, ast.ClassDef):
            continue
        fields: list[_Field] = []
        for item, after in zip(node.body, [*node.body[1:], ast.Pass()], strict=True):
            if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
                is_doc = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
                doc = " ".join(str(after.value.value).split()) if is_doc else ""  # type: ignore[attr-defined]
                fields.append((item.target.id, ast.unparse(item.annotation), _default(item.value), doc))
        schemas[node.name] = [f for base in node.bases for f in schemas.get(ast.unparse(base), [])] + fields
    return schemas


def _default(value: ast.expr | None) -> str:
    if value is None or ast.unparse(value) == "MISSING":
        return "???"
    if isinstance(value, ast.Call) and value.args:  # number(default, ...)
        return _default(value.args[0])
    if isinstance(value, ast.Call):  # field(default_factory=...)
        factory = next((k.value for k in value.keywords if k.arg == "default_factory"), None)
        if isinstance(factory, ast.Lambda):
            return ast.unparse(factory.body)
        return "{}" if isinstance(factory, ast.Name) and factory.id == "dict" else "[]"
    if isinstance(value, ast.Attribute):  # an Enum's member
        return value.attr
    text = ast.unparse(value).strip("'")
    return {"None": "null", "True": "true", "False": "false"}.get(text, text)


def _fields(schema: str, prefix: str = "") -> list[_Field]:
    """schema: MODULE.CLASS."""
    rows, (module, _, kind) = [], schema.rpartition(".")
    schemas = _read_schemas(module)
    for name, annotation, default, doc in schemas[kind]:
        if annotation in schemas and annotation.endswith("Config"):
            rows += _fields(f"{module}.{annotation}", f"{prefix}{name}.")
        else:
            rows.append((prefix + name, annotation, default, doc))
    return rows
