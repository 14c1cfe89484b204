"""The text of `--help`, read from the schemas' source and the folder of configs: no import of hydra or torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vidtrain.options.commands import ACTIONS, COMMANDS
from vidtrain.options.option_texts import choices_of, default_choices, fields, group_options

_EVERY_MODEL = (  # models.weights.initial_weights
    "model.weights=null",
    "    A published file, or a checkpoint of vidtrain. Models that have a use for them also take model.inflate_from",
    "    (a 2D network, file or name), model.pretrained, model.backbone_weights and model.network_weights.",
)


def overview() -> str:
    lines = ["vidtrain: train, test, understand and ship video classifiers", "", "commands:"]
    for name, row in COMMANDS.items():
        lines += [f"  {name:<12} {row.about}", f"               $ {row.example}"]
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
    row = COMMANDS[name]
    lines = [f"vidtrain {name}: {row.about}", "", f"  $ {row.example}", ""]
    action = next((a for a in arguments if a in ACTIONS), None) if name == "data" else None
    if name == "data":
        lines += ["actions:", *(f"  {key:<8} {row.about}" for key, row in ACTIONS.items()), ""]
    lines += ["groups (group=choice):"] if row.groups else []
    groups, own = row.groups.split(), [config_dir] if config_dir else []
    for group in groups:
        lines += _wrapped(f"  {group:<11}", " ".join(choices_of(group, own)))
    chosen = default_choices(name)
    for argument in arguments:
        group, _, choice = argument.lstrip("+").partition("=")
        single = "," not in choice or choice.startswith("[")  # not the several values of a sweep
        if group in groups and group not in ("experiment", "debug") and single:
            chosen[group] = choice
    options = {group: group_options(group, choice, own) for group, choice in chosen.items()}
    lines += ["", "keys (key=value):"]
    schema = fields(name, action)
    typed = {key.split(".", 1)[0] for key, _, _, _ in schema if "." in key}
    for key, annotation, default, doc in schema:
        group, _, option = key.partition(".")
        if annotation == "Any" and group in options:
            continue  # its options follow
        if option in options.get(group, {}):
            default = options[group][option][0]
        lines += [f"  {key}={default}", *_wrapped("      ", doc)]
    for group in (g for g in options if g not in typed):
        lines += ["", f"keys of {group}={chosen[group]}:"]
        for option, (default, doc) in options[group].items():
            if option.rpartition(".")[2] != "_target_":
                lines += [f"  {group}.{option}={default}", *([f"      {doc}"] if doc else [])]
        if group == "model":
            lines += [f"  {line}" for line in _EVERY_MODEL]
    if groups:
        lines += ["", *_wrapped("", f"vidtrain {name} --help GROUP=CHOICE lists the keys of another choice.")]
    lines += [
        "Hydra's flags: -m (several values), --cfg job (show and stop), --config-dir DIR (your own groups),",
        "--info, --hydra-help.",
    ]
    return "\n".join(lines)


def _wrapped(head: str, text: str) -> list[str]:
    import textwrap

    return textwrap.wrap(
        text, width=100, initial_indent=head, subsequent_indent=" " * len(head), break_on_hyphens=False
    )
