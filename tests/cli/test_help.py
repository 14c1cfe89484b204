"""Help answers without importing torch, and shows every option with its text."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from tests.cli.conftest import Run, error_line
from vidtrain.commands import run_dir
from vidtrain.options import schema as config
from vidtrain.options.commands import ACTIONS, COMMANDS
from vidtrain.options.option_texts import conf_dir
from vidtrain.shell import help as help_text


def test_overview_shows_an_example_of_every_command(vidtrain: Run) -> None:
    out = vidtrain().stdout
    assert out == vidtrain("--help").stdout
    for command in COMMANDS:
        assert f"$ vidtrain {command} " in out


def shown(text: str) -> dict[str, tuple[str, str]]:
    """Key -> (default, text under it) of a help."""
    lines = text.splitlines()
    found = {}
    for line, after in zip(lines, [*lines[1:], ""], strict=True):
        if match := re.fullmatch(r"  ([\w.]+)=(.+)", line):
            found[match[1]] = (match[2], after.strip() if after.startswith("      ") else "")
    return found


def composed(command: str, *chosen: str) -> dict[str, Any]:
    """Dotted key -> default of the real configuration, interpolations as they are written."""
    config.register()
    run_dir.register()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        plain = OmegaConf.to_container(compose(command, overrides=list(chosen)), resolve=False, enum_to_str=True)
    return _leaves(plain)


def _leaves(node: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(node, dict):
        return {prefix: node}
    return {k: v for key, inner in node.items() for k, v in _leaves(inner, f"{prefix}.{key}".lstrip(".")).items()}


CHOICES = [
    *[(command, ()) for command in COMMANDS],
    ("train", ("model=cnn_lstm_tiny", "data=list", "optimizer=adamw", "schedule=step", "sampler=fps", "eval=sliding")),
    ("eval", ("data=folder", "transform=small")),
    ("inspect", ("model=c3d",)),
    ("bench", ("model=r3d_18", "data=motion", "decoder=decord")),
]


QUICK = ("train", "eval", "data", "board")


@pytest.mark.parametrize(
    ("command", "chosen"),
    [pytest.param(*case, marks=[] if case[0] in QUICK else pytest.mark.slow) for case in CHOICES],
)
def test_help_of_a_command_has_every_key_with_its_default(command: str, chosen: tuple[str, ...]) -> None:
    options = shown(help_text.command(command, chosen))
    expected = {key: value for key, value in composed(command, *chosen).items() if not key.endswith("._target_")}
    for key, value in expected.items():
        assert key in options, f"vidtrain {command} --help lacks {key}"
        text = options[key][0]
        assert text == str(value) or OmegaConf.create(f"x: {text}")._get_node("x")._value() == value, key
    extra = {"model.weights"} if any(key.startswith("model.") for key in expected) else set()
    extra |= {key for key in options if options[key][0] == "{}"}  # it has no leaf
    assert set(options) == set(expected) | extra


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_has_an_example_and_a_text_for_every_key(command: str) -> None:
    text = help_text.command(command)
    assert any(line.strip().startswith(f"$ vidtrain {command} ") for line in text.splitlines())
    assert not {key for key, (_, doc) in shown(text).items() if not doc}
    keys = text[text.index("keys (key=value):") :].splitlines()
    assert not [line for line in keys if line.startswith("   ") and not line.startswith("      ")]
    assert max(map(len, keys)) <= 130


def test_help_of_an_action_has_what_it_reads() -> None:
    every = set(shown(help_text.command("data")))
    for action, sections in {"flow": {"flow"}, "stats": {"stats", "check"}, "info": set()}.items():
        found = set(shown(help_text.command("data", [action])))
        own = {key.split(".")[0] for key in found} & set(ACTIONS)
        assert own == sections
        assert found == {key for key in every if key.split(".")[0] not in ACTIONS or key.split(".")[0] in sections}


def test_help_of_a_choice_of_ones_own(vidtrain: Run, tmp_path: Path) -> None:
    (tmp_path / "mine" / "data").mkdir(parents=True)
    (tmp_path / "mine" / "data" / "own.yaml").write_text("_target_: a.b\nroot: ???  # the folder\ndays: 3\n")
    out = vidtrain("train", "--config-dir", "mine", "data=own", "--help").stdout
    assert shown(out)["data.root"] == ("???", "the folder")
    assert shown(out)["data.days"] == ("3", "")
    line = error_line(vidtrain("train", "model=c3dd", "--help", check=2))
    assert "no such model (did you mean c3d?)" in line
    assert line.endswith("; a folder of your own is given with --config-dir")


@pytest.mark.parametrize("args", [[], ["--help"], ["train", "--help"], ["--version"]])
def test_help_imports_neither_torch_nor_hydra(args: list[str]) -> None:
    code = (
        "import sys\nfrom vidtrain.shell.cli import main\n"
        f"try: main({args!r})\n"
        "except SystemExit as end: assert end.code == 0, end.code\n"
        "slow = {'torch', 'hydra', 'omegaconf', 'numpy'} & set(sys.modules)\n"
        "assert not slow, slow"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)


def test_composing_a_configuration_does_not_import_torch() -> None:
    code = (
        "import sys\nfrom vidtrain.shell.cli import main\n"
        "try: main(['train', '--cfg', 'job'])\n"
        "except SystemExit as end: assert end.code == 0, end.code\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)
