"""What a command imports before it works: each heavy module costs everybody who types the command its seconds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.cli.conftest import environment

# those of a second, or nearly, and what brings them
HEAVY = (
    "torch",
    "torch._dynamo",
    "torch._inductor",
    "torch.distributed.checkpoint",
    "torch.distributed.elastic",
    "torch.distributed.fsdp",
    "torchvision",
    "sympy",
    "tensorboard",
    "matplotlib",
    "pandas",
    "scipy",
    "sklearn",
    "joblib",
    "timm",
    "cv2",
    "decord",
    "PIL",
)
# Runs commands one after the other, and writes down which of the modules are there after each.
SCRIPT = """
import json, sys
from vidtrain.shell import cli

commands, heavy, file = json.loads(sys.argv[1])
found = []
for command in commands:
    try:
        cli.main(command)
    except SystemExit as end:
        assert not end.code, (command, end.code)
    found.append([name for name in heavy if name in sys.modules])
with open(file, "w") as out:
    json.dump(found, out)
"""


def imported(commands: list[list[str]], cwd: Path) -> list[list[str]]:
    """After each command, in one process, those of HEAVY that are imported by then."""
    file = cwd / "imported.json"
    arguments = json.dumps([commands, HEAVY, str(file)])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, arguments],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: list[list[str]] = json.loads(file.read_text())
    return found


def test_what_predict_eval_and_inspect_import(trained: Path, tiny: list[str], tmp_path: Path) -> None:
    """PyTorch, and nothing else that is as slow to import."""
    data = [option for option in tiny if option.startswith("data.")]
    video = next(Path(data[0].removeprefix("data.root=")).rglob("*.mp4"))
    checkpoint = f"checkpoint={trained / 'best.pt'}"
    helps, inspected, predicted, tested = imported(
        [
            ["eval", "--help"],
            ["inspect", "model=slow_fusion", "transform.size=32"],
            ["predict", checkpoint, f"input={video}"],
            ["eval", checkpoint, "data=motion", *data, "output=tested"],
        ],
        tmp_path,
    )
    assert helps == []
    assert inspected == ["torch"]
    assert predicted == ["torch"]
    assert tested == ["torch"]
