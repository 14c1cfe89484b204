"""The text of `--help`, read from the schemas' source and the folder of configs: no import of hydra or torch."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from vidtrain.errors import ConfigError, did_you_mean, one_of

_ABOUT = {
    "train": ("train a model, then test it", "vidtrain train model=c3d data=folder data.root=my_videos"),
    "eval": (
        "test a checkpoint, averaging over clips",
        "vidtrain eval checkpoint=runs/motion/slow_fusion/.../best.pt eval.clips=10",
    ),
    "predict": (
        "classify a file, a folder or a glob",
        "vidtrain predict checkpoint=best.pt input=clip.mp4",
    ),
    "inspect": (
        "list all models; print one's layers, sizes, receptive fields and cost; tell what a file of weights is",
        "vidtrain inspect model=c3d num_classes=101",
    ),
    "data": (
        "info, make, check, prepare, flow, stats, show, doctor: know a data set and put it in order",
        "vidtrain data info data=ucf101 data.root=/data/ucf101",
    ),
    "extract": (
        "write a frozen model's features of every clip of long videos, to train model=feature_rnn on",
        "vidtrain extract checkpoint=best.pt data=folder data.root=my_videos output=my_features",
    ),
    "bench": (
        "measure a model: clips/s of training and testing, memory, FLOP utilisation; by precision, with torch.compile",
        "vidtrain bench model=r3d_18 batch_size=[16,32] precision=[bf16] output=bench.json",
    ),
}
_SCHEMA = {
    "train": "TrainConfig",
    "eval": "EvalCommandConfig",
    "predict": "PredictConfig",
    "inspect": "InspectConfig",
    "data": "DataCommandConfig",
    "extract": "ExtractCommandConfig",
    "bench": "BenchConfig",
}
_GROUPS = {
    "train": "model data decoder sampler transform flow optimizer schedule trainer eval logger experiment debug",
    "eval": "data decoder sampler transform flow eval",
    "predict": "decoder sampler transform flow eval",
    "inspect": "model sampler transform",
    "data": "data decoder sampler transform model",
    "extract": "model data decoder sampler transform",
    "bench": "model data decoder sampler transform optimizer",
}


_EVERY_MODEL = (  # models.weights.start
    "model.weights=null",
    "    A published file, or a checkpoint of vidtrain. Models that have a use for them also take model.inflate_from",
    "    (a 2D network, file or name), model.pretrained, model.backbone_weights and model.network_weights.",
)
FROM_CHECKPOINT = ("eval", "predict", "extract")
"""Commands that take the configuration of a checkpoint, and change what the user names of it."""


def conf_dir() -> Path:
    """The packaged configs: inside the package when installed, beside it in an editable installation."""
    package = Path(__file__).resolve().parent
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def overview() -> str:
    lines = ["vidtrain: train, test, understand and ship video classifiers", "", "commands:"]
    for name, (about, example) in _ABOUT.items():
        lines += [f"  {name:<8} {about}", f"           $ {example}"]
    lines += [
        "",
        "vidtrain COMMAND --help lists a command's options. Options are key=value, as Hydra reads them;",
        "-m tries several values: vidtrain train -m model=c3d,slow_fusion optimizer.lr=0.1,0.01",
        'Completion of commands, groups and keys: eval "$(vidtrain --shell-completion install=bash)"',
    ]
    return "\n".join(lines)


def command(name: str, arguments: Sequence[str] = (), config_dir: Path | None = None) -> str:
    """The help of a command: its groups, and every option with its default and what it does.

    Args:
        arguments: of the command line; GROUP=CHOICE in it shows the options of that choice.
        config_dir: folder of the user's own groups.
    """
    about, example = _ABOUT[name]
    lines = [f"vidtrain {name}: {about}", "", f"  $ {example}", ""]
    lines.append("groups (group=choice):")
    groups, folders = _GROUPS[name].split(), [conf_dir(), *([config_dir] if config_dir else [])]
    for group in groups:
        names = sorted({p.stem for folder in folders for p in (folder / group).glob("*.yaml")})
        lines += _wrapped(f"  {group:<11}", " ".join(names))
    chosen = _default_choices(name)
    for argument in arguments:
        group, _, choice = argument.lstrip("+").partition("=")
        if group in groups and group not in ("experiment", "debug") and "," not in choice:
            chosen[group] = choice
    options = {group: group_options(group, choice, folders) for group, choice in chosen.items()}
    lines += ["", "keys (key=value):"]
    schema = fields(name)
    typed = {key.split(".", 1)[0] for key, _, _, _ in schema if "." in key}
    for key, annotation, default, doc in schema:
        group, _, option = key.partition(".")
        if annotation == "Any" and group in options:
            continue  # its options follow
        if option in options.get(group, {}):
            default = options[group][option][0]
        lines += [f"  {key}={default}", f"      {doc}"]
    for group in (g for g in options if g not in typed):
        lines += ["", f"keys of {group}={chosen[group]}:"]
        for option, (default, doc) in options[group].items():
            if option != "_target_":
                lines += [f"  {group}.{option}={default}", *([f"      {doc}"] if doc else [])]
        if group == "model":
            lines += [f"  {line}" for line in _EVERY_MODEL]
    lines += ["", *_wrapped("", f"vidtrain {name} --help GROUP=CHOICE lists the keys of another choice.")]
    lines += [
        "Hydra's flags: -m (several values), --cfg job (show and stop), --config-dir DIR (your own groups),",
        "--info, --hydra-help.",
    ]
    return "\n".join(lines)


def group_options(group: str, choice: str, folders: Sequence[Path]) -> dict[str, tuple[str, str]]:
    """Key -> (default as it is written, comment beside it) of a choice of a group and of those it is based on.

    Raises:
        ConfigError: the group has no such choice.
    """
    file = next((f for folder in folders if (f := folder / group / f"{choice}.yaml").is_file()), None)
    if file is None:
        names = sorted({p.stem for folder in folders for p in (folder / group).glob("*.yaml")})
        raise ConfigError(
            f"{group}={choice}: no such {group}{did_you_mean(choice, names)}; allowed: {one_of(names, 60)}"
        )
    found: dict[str, tuple[str, str]] = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        if (match := re.fullmatch(r"(\w+): *(\S.*?)(?: +# *(.*))?", line)) is None:
            continue
        key, default, doc = match.groups()
        if key == "defaults":
            for base in (b for b in re.findall(r"[\w-]+", default) if b != "_self_"):
                found |= group_options(group, base, folders)
        else:
            found[key] = (default, doc or found.get(key, ("", ""))[1])
    return found


def _default_choices(command: str) -> dict[str, str]:
    """Group -> choice, of the groups that a command's configuration begins with; a key that is null has none."""
    text = (conf_dir() / f"{command}.yaml").read_text(encoding="utf-8")
    pairs = re.findall(r"^  - (\w+): (\w+)$", text, re.MULTILINE)
    return {group: choice for group, choice in pairs if choice != "null"}


def fields(command: str) -> list[tuple[str, str, str, str]]:
    """(dotted key, annotation, default, text) of each typed option of a command."""
    return _fields(_SCHEMA[command], _read_schemas())


_Field = tuple[str, str, str, str]  # name, annotation, default, doc


@lru_cache
def _read_schemas() -> dict[str, list[_Field]]:
    package = Path(__file__).parent
    files = [package / "config.py", *sorted(package.glob("*/settings.py"))]
    schemas: dict[str, list[_Field]] = {}
    for node in (n for file in files for n in ast.parse(file.read_text(encoding="utf-8")).body):
        if not isinstance(node, ast.ClassDef):
            continue
        fields: list[_Field] = []
        for item, after in zip(node.body, [*node.body[1:], ast.Pass()], strict=True):
            if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
                is_doc = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
                doc = str(after.value.value) if is_doc else ""  # type: ignore[attr-defined]
                fields.append((item.target.id, ast.unparse(item.annotation), _default(item.value), doc))
        schemas[node.name] = fields + [f for base in node.bases for f in schemas.get(ast.unparse(base), [])]
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
        return "[]"
    if isinstance(value, ast.Attribute):  # an Enum's member
        return value.attr
    text = ast.unparse(value).strip("'")
    return {"None": "null", "True": "true", "False": "false"}.get(text, text)


def _fields(schema: str, schemas: dict[str, list[_Field]], prefix: str = "") -> list[_Field]:
    rows = []
    for name, annotation, default, doc in schemas[schema]:
        if annotation in schemas and annotation.endswith("Config"):
            rows += _fields(annotation, schemas, f"{prefix}{name}.")
        else:
            rows.append((prefix + name, annotation, default, doc))
    return rows


def _wrapped(head: str, text: str, width: int = 100) -> list[str]:
    import textwrap

    return textwrap.wrap(
        text, width=width, initial_indent=head, subsequent_indent=" " * len(head), break_on_hyphens=False
    )
