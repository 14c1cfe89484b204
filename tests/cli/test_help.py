"""Help answers without importing torch, and shows every option with its text."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.cli.conftest import Run
from vidtrain.cli import COMMANDS


def test_overview_shows_an_example_of_every_command(vidtrain: Run) -> None:
    out = vidtrain().stdout
    assert out == vidtrain("--help").stdout
    for command in COMMANDS:
        assert f"$ vidtrain {command} " in out


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_has_an_example_and_a_text_for_every_key(vidtrain: Run, command: str) -> None:
    lines = vidtrain(command, "--help").stdout.splitlines()
    assert any(line.strip().startswith(f"$ vidtrain {command} ") for line in lines)
    start = lines.index("keys (key=value):") + 1
    body = lines[start : lines.index("", start)]
    assert body
    for key, text in zip(body[::2], body[1::2], strict=True):
        assert "=" in key
        assert text.strip().endswith((".", "]", ":", "'")), f"no text under {key}"


@pytest.mark.parametrize("args", [[], ["--help"], ["train", "--help"], ["--version"]])
def test_help_imports_neither_torch_nor_hydra(args: list[str]) -> None:
    code = (
        "import sys\nfrom vidtrain.cli import main\n"
        f"try: main({args!r})\n"
        "except SystemExit as end: assert end.code == 0, end.code\n"
        "slow = {'torch', 'hydra', 'omegaconf', 'numpy'} & set(sys.modules)\n"
        "assert not slow, slow"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)


def test_composing_a_configuration_does_not_import_torch() -> None:
    code = (
        "import sys\nfrom vidtrain.cli import main\n"
        "try: main(['train', '--cfg', 'job'])\n"
        "except SystemExit as end: assert end.code == 0, end.code\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)
