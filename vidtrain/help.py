"""The text of `--help`, read from the schemas' source and the folder of configs: no import of hydra or torch."""

from __future__ import annotations

import ast
from functools import lru_cache
from pathlib import Path

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


def command(name: str) -> str:
    about, example = _ABOUT[name]
    lines = [f"vidtrain {name}: {about}", "", f"  $ {example}", ""]
    lines.append("groups (group=choice):")
    for group in _GROUPS[name].split():
        choices = sorted(p.stem for p in (conf_dir() / group).glob("*.yaml"))
        if choices:
            lines += _wrapped(f"  {group:<11}", " ".join(choices))
    lines += ["", "keys (key=value):"]
    for key, _, default, doc in fields(name):
        lines.append(f"  {key}={default}")
        lines.append(f"      {doc}")
    lines += [
        "",
        f"The keys of model, data, decoder and optimizer stand in their files: vidtrain {name} --cfg job",
        "Hydra's flags: -m (several values), --cfg job (show and stop), --config-dir DIR (your own groups),",
        "--info, --hydra-help.",
    ]
    return "\n".join(lines)


_Field = tuple[str, str, str, str]  # name, annotation, default, doc


def fields(command: str) -> list[tuple[str, str, str, str]]:
    """(dotted key, annotation, default, text) of each typed option of a command."""
    return _fields(_SCHEMA[command], _read_schemas())


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
        schemas[node.name] = fields
    return schemas


def _default(value: ast.expr | None) -> str:
    if value is None or ast.unparse(value) == "MISSING":
        return "???"
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
        elif annotation != "Any":
            rows.append((prefix + name, annotation, default, doc))
    return rows


def _wrapped(head: str, text: str, width: int = 100) -> list[str]:
    import textwrap

    return textwrap.wrap(
        text, width=width, initial_indent=head, subsequent_indent=" " * len(head), break_on_hyphens=False
    )
