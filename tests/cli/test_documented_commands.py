"""Every command that README, docs/ and the heads of conf/ show: its options exist, it composes, what can run here runs.

Each test run looks up the options, as a composition by Hydra takes a second; `make test-all` composes all of them.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cli.conftest import Call
from tests.cli.test_recipes import resolved
from vidtrain.options.commands import ACTIONS, COMMANDS
from vidtrain.options.option_texts import conf_dir, default_choices, fields, group_options
from vidtrain.shell.flags import split_flags

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINE = re.compile(
    r"^(?:    |#   |# Example: |# )(?:PYTHONPATH=\. |srun |torchrun .* -m |ffmpeg .* \| )?"
    r"(vidtrain (?!error)[a-z_]+(?: .*)?)$"
)
OF_EVERY_MODEL = ("weights", "inflate_from", "pretrained", "backbone_weights", "network_weights")


@dataclass(frozen=True)
class Shown:
    """A command as a page shows it. words: without the program's name, comments and what stands for more (...)."""

    place: str
    words: tuple[str, ...]
    own: bool
    """Of the user's own parts: PYTHONPATH=. or --config-dir."""
    more: bool = False
    """The page leaves something out: vidtrain extract ... tokens=true."""

    def __str__(self) -> str:
        return f"{self.place}-{'_'.join(self.words[:3])}"


def commands_of(file: Path) -> Iterator[Shown]:
    lines = file.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines):
        if (found := LINE.match(line)) is None:
            continue
        text, after = found[1], number
        while text.endswith("\\"):
            after += 1
            text = f"{text[:-1]} {lines[after].lstrip('# ')}"
        words = shlex.split(re.split(r"\s+#\s|\s{3,}ends |;|\s\|\s|\s&&\s|\s>\s", text)[0])[1:]
        if words[0] not in COMMANDS or any(word.endswith(":") for word in words[:2]):
            continue  # prose that begins with the program's name
        kept = tuple(word for word in words if word != "..." and not word.endswith("=..."))
        own = "PYTHONPATH" in line or "--config-dir" in text
        yield Shown(f"{file.name}:{number + 1}", kept, own, more=len(kept) < len(words))


def all_commands() -> list[Shown]:
    files = [*PAGES, *sorted(conf_dir().rglob("*.yaml"))]
    return [shown for file in files for shown in commands_of(file)]


SHOWN = all_commands()


def unknown(words: Sequence[str], *, own: bool = False) -> list[str]:
    """The words of a command that name no option and no choice of it."""
    name, folders = words[0], [conf_dir()]
    row = COMMANDS[name]
    _, rest = split_flags(words[1:])
    action = rest.pop(0) if name == "data" and rest and "=" not in rest[0] else None
    given = dict(word.lstrip("+").split("=", 1) for word in rest if "=" in word)
    wrong = [] if action is None or action in ACTIONS else [action]
    wrong += [] if row.positional else [word for word in rest if "=" not in word]
    groups = row.groups.split()
    chosen = {group: [choice] for group, choice in default_choices(name).items()}
    for recipe in given.get("experiment", "").split(","):
        if recipe and (conf_dir() / "experiment" / f"{recipe}.yaml").is_file():
            chosen |= {group: [choice] for group, choice in resolved(recipe)[0].items()}
    for group in groups:
        value = given.get(group)
        single = value is not None and value.startswith("[")
        chosen[group] = [value] if single else value.split(",") if value is not None else chosen.get(group, [])
        every = [file.stem for file in (conf_dir() / group).glob("*.yaml")]
        if not own and value is not None:
            wrong += [f"{group}={choice}" for choice in re.findall(r"[\w.-]+", value) if choice not in every]
        if row.from_checkpoint and group not in given:
            chosen[group] = every  # the checkpoint brings it
    known = {key for key, *_ in fields(name, action if action in ACTIONS else None)} | set(groups)
    known |= {key for key, *_ in fields("train")} if row.from_checkpoint else set()
    known |= {f"model.{key}" for key in OF_EVERY_MODEL}
    for group, choices in chosen.items():
        for choice in choices:
            if (
                group not in ("experiment", "debug")
                and f"{group}={choice}" not in wrong
                and choice != "null"
                and not own
            ):
                known |= {f"{group}.{key}" for key in group_options(group, choice, folders)}
    for key in given:
        users = own and key.split(".")[0] in groups
        if key not in known and not key.startswith("hydra") and not users:
            wrong.append(key)
    return wrong


def test_the_pages_are_read() -> None:
    pages = {shown.place.split(":")[0] for shown in SHOWN}
    assert {"README.md", "training.md", "own_clips.md", "kinetics_slowfast_r50.yaml", "folder.yaml"} <= pages
    assert len(SHOWN) > 150
    shown = next(s for s in SHOWN if s.place.startswith("flow.md") and "experiment=ucf101_small" in s.words)
    assert shown.words[-1] == "run_dir=two"  # the second line of it


@pytest.mark.parametrize("shown", SHOWN, ids=str)
def test_a_command_that_is_shown_has_options_that_exist(shown: Shown) -> None:
    assert unknown(shown.words, own=shown.own) == []


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("train model=c3d trainer.epoch=3", ["trainer.epoch"]),
        ("train model=c4d", ["model=c4d"]),
        ("train model=c3d model.depth=3", ["model.depth"]),
        ("train experiment=nothing", ["experiment=nothing"]),
        ("eval checkpoint=best.pt eval=pyslowfast eval.clip=3", ["eval.clip"]),
        ("data chek data=folder", ["chek"]),
        ("data check data=folder prepare.format=jpeg", ["prepare.format"]),
        ("bench best.pt", ["best.pt"]),
        ("train -m model=c3d,i3d experiment=few_shot model.head=knn", ["model.head"]),
    ],
)
def test_what_is_not_an_option_is_found(line: str, wrong: list[str]) -> None:
    assert unknown(line.split()) == wrong


def spans(file: Path) -> list[str]:
    """What a page writes as code within its text."""
    return re.findall(r"`([^`]+)`", " ".join(file.read_text(encoding="utf-8").split()))


def test_commands_within_the_text_have_options_that_exist() -> None:
    found = [(file.name, span) for file in PAGES for span in spans(file) if re.match(r"vidtrain [a-z_]+( |$)", span)]
    assert len(found) > 60
    wrong = []
    for name, span in found:
        words = [word for word in shlex.split(span)[1:] if "..." not in word]
        if words[0] not in COMMANDS:
            wrong.append((name, span))
        elif left := unknown(words, own="--config-dir" in words):
            wrong.append((name, span, left))
    assert wrong == []


def every_option() -> set[str]:
    """Of all commands and of all choices of their groups."""
    known = {f"model.{key}" for key in OF_EVERY_MODEL}
    for name, row in COMMANDS.items():
        for action in ACTIONS if name == "data" else [None]:
            known |= {key for key, *_ in fields(name, action)}
        for group in row.groups.split():
            files = (conf_dir() / group).glob("*.yaml") if group not in ("experiment", "debug") else ()
            known |= {
                group,
                *(f"{group}.{key}" for file in files for key in group_options(group, file.stem, [conf_dir()])),
            }
    return known


FILES = re.compile(r"\.(html|json|jsonl|csv|md|png|txt|mp4|vtt|data|safetensors|onnx|pt2|xml|bin|pte)$")
NO_OPTIONS = ("key", "fps", "model.stream", "clip_len", "trainer.max_epochs")
"""Of Python, and of other programs."""


def test_options_within_the_text_exist() -> None:
    known, found = every_option(), set()
    for file in PAGES:
        for span in spans(file):
            for key in re.findall(r"(?:^|\s)([a-z_]+(?:\.[a-z_0-9]+)+|[a-z_]+(?==))(?=[\s=]|$)", span):
                if key.split(".")[0] in {one.split(".")[0] for one in known} or "." not in key:
                    found.add((file.name, key))
    assert len(found) > 250
    short = {
        f"sweep.{key}" for key in ("trials", "objectives", "directions", "pruner", "prune_after", "startup_trials")
    }
    left = [
        one for one in sorted(found) if one[1] not in known and one[1] not in NO_OPTIONS and not FILES.search(one[1])
    ]
    assert [key for name, key in left if name != "sweeps.md" or f"sweep.{key}" not in short & known] == []


def composed(words: Sequence[str]) -> list[str]:
    """The words that make Hydra show the configuration: of a sweep its first run."""
    flags, rest = split_flags(words[1:])
    sweep = "-m" in flags or "--multirun" in flags
    first = [re.sub(r"=([^\[\]'\",]*),.*", r"=\1", word) if sweep else word for word in rest]
    return [words[0], *first, "--cfg", "job"]


@pytest.mark.slow
@pytest.mark.parametrize("shown", [s for s in SHOWN if not s.own], ids=str)
def test_a_command_that_is_shown_composes(shown: Shown, call: Call) -> None:
    if any("hydra/launcher=slurm" in word for word in shown.words):
        pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="needs vidtrain[slurm]")
    assert call(*composed(shown.words)).stdout
