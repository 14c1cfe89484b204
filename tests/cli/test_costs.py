"""What it costs to add a part: each is added here in a temporary folder, in as many places as CONTRIBUTING.md says."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from tests.cli.conftest import Call, environment

ROOT = Path(__file__).parents[2]

# Of a part of a run, a module and a YAML; --config-dir brings them.
PARTS = {
    "data": (
        """
        from dataclasses import replace

        from vidtrain.data.motion.motion import motion


        def Own(root: str, *, scenes: int):
            data = motion(root, train_scenes=scenes, val_scenes=1, test_scenes=1, size=32, num_frames=12)
            return replace(data, notes=("of my own",))
        """,
        "_target_: own_data.Own\nroot: ???\nscenes: 1\n",
    ),
    "decoder": (
        """
        from pathlib import Path

        from vidtrain.data.readers.pyav.reader import PyAVReader


        class Own(PyAVReader):
            def open(self, path):
                Path("opened.txt").write_text(path)
                return super().open(path)
        """,
        "_target_: own_decoder.Own\n",
    ),
    "logger": (
        """
        from pathlib import Path

        from vidtrain.loggers.logger import Logger


        class Own(Logger):
            def scalars(self, kind, update, epoch, values):
                Path("logged.txt").write_text(kind)
        """,
        "own:\n  _target_: own_logger.Own\n",
    ),
    "hook": (
        """
        from pathlib import Path

        from vidtrain.engine.hooks import Hook


        class Own(Hook):
            def on_stop(self, trainer):
                Path("stopped.txt").write_text(str(trainer.progress.update))
        """,
        "own:\n  _target_: own_hook.Own\n",
    ),
}


def test_a_data_set_a_reader_a_logger_and_a_hook_are_a_module_and_a_yaml(
    tmp_path: Path, tiny: list[str], call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path / "code")
    (tmp_path / "code").mkdir()
    for group, (module, yaml) in PARTS.items():
        (tmp_path / "code" / f"own_{group}.py").write_text(dedent(module))
        (tmp_path / "conf" / group).mkdir(parents=True)
        (tmp_path / "conf" / group / "own.yaml").write_text(yaml)
    chosen = ["data=own", "decoder=own", "logger=[jsonl,own]", "hook=own", f"data.root={tmp_path / 'made'}"]
    others = [option for option in tiny if not option.startswith("data.")]
    done = call("train", "--config-dir", "conf", *others, *chosen, "trainer.epochs=1", "trainer.test=false")
    assert "note: of my own" in done.stderr
    assert (tmp_path / "opened.txt").read_text().endswith(".mp4")
    assert (tmp_path / "logged.txt").read_text() == "val"
    assert (tmp_path / "stopped.txt").read_text() == "1"


COMMAND = '''
"""vidtrain hello: says so."""

from __future__ import annotations

from dataclasses import dataclass

from vidtrain.options.invocation import Invocation
from vidtrain.ranges import number


@dataclass
class HelloConfig:
    times: int = number(1, least=1)
    """How often it is said."""


def run(call: Invocation[HelloConfig]) -> None:
    print("hello " * call.options.times)
'''
ACTION = '''
"""vidtrain data count: how many videos there are."""

from __future__ import annotations

from dataclasses import dataclass

from vidtrain.commands.dataset_videos import load
from vidtrain.options.invocation import Invocation
from vidtrain.options.schema import DataCommandConfig


@dataclass
class CountConfig:
    word: str = "videos"
    """count: what they are called."""


def run(call: Invocation[DataCommandConfig]) -> None:
    videos = sum(map(len, load(call.options).splits.values()))
    print(videos, call.options.of(CountConfig).word)
'''
# file of the package -> (a text that stands in it, what is written in its place)
ROWS = {
    "options/commands.py": [
        (
            '    "info": Action(',
            '    "count": Action("count them", "vidtrain.commands.data.count.CountConfig"),\n    "info": Action(',
        ),
        (
            '    "train": Command(',
            '    "hello": Command("say it", "vidtrain hello times=2", "vidtrain.commands.hello.HelloConfig", ""),\n'
            '    "train": Command(',
        ),
    ]
}
OPTION = {
    "data/settings.py": [
        (
            "    flip: float = number(",
            '    invert: bool = False\n    """Training turns black into white."""\n    flip: float = number(',
        )
    ],
    "data/clips/augment.py": [
        (
            "        images = torch.from_numpy(clip)",
            "        clip = 255 - clip if self.transform.invert else clip\n        images = torch.from_numpy(clip)",
        )
    ],
}
SCRIPT = """
import sys
from pathlib import Path
from vidtrain.shell import cli

data = ["data.root=made", "data.train_scenes=1", "data.val_scenes=1", "data.test_scenes=1", "data.size=32"]
clip = ["data.num_frames=12", "sampler.num_frames=4", "transform.size=32", "transform.resize=32", "show.clips=2"]
for line in (
    ["hello", "--help"], ["hello", "times=2"], ["hello", "times=0"], ["data", "count", "--help"], ["train", "--help"],
    ["data", "count", *data, *clip, "count.word=files"],
    ["data", "show", *data, *clip, "output=plain"],
    ["data", "show", *data, *clip, "output=other", "transform.invert=true"],
):
    if line[0] != "data" or line[-1] == "--help":
        assert "torch" not in sys.modules, line
    try:
        cli.main(line)
    except SystemExit as end:
        print("exit code", end.code, flush=True)
"""


def replace_in(package: Path, changes: dict[str, list[tuple[str, str]]]) -> None:
    for name, pairs in changes.items():
        text = (package / name).read_text()
        for old, new in pairs:
            assert text.count(old) == 1, (name, old)
            text = text.replace(old, new)
        (package / name).write_text(text)


@pytest.mark.slow
def test_a_command_an_action_and_an_option_of_a_transform(tmp_path: Path) -> None:
    """A command is a module, a row and a YAML; an action a module and a row; an option its field and its line."""
    package = tmp_path / "vidtrain"
    shutil.copytree(ROOT / "vidtrain", package)
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    (package / "commands" / "hello.py").write_text(COMMAND)
    (package / "commands" / "data" / "count.py").write_text(ACTION)
    yaml = (ROOT / "conf" / "inspect.yaml").read_text().replace("schema/inspect", "schema/hello")
    groups = ("model", "tune", "sampler", "transform")
    yaml = "".join(line for line in yaml.splitlines(True) if line.split(":")[0][4:] not in groups)
    (tmp_path / "conf" / "hello.yaml").write_text(yaml)
    replace_in(package, ROWS)
    replace_in(package, OPTION)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=tmp_path,
        env={**environment(), "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    hello, said, wrong, help_of_count, train, counted, *shown = done.stdout.split("exit code ")
    assert "How often it is said." in hello
    assert said.split() == ["0", "hello", "hello"]
    assert "vidtrain: error: times=0: must be at least 1" in done.stderr
    assert wrong.split() == ["0"]
    assert "count.word=videos\n" in help_of_count
    assert "show.clips" not in help_of_count
    assert "24 files" in counted
    assert "transform.invert=false\n      Training turns black into white." in train
    assert [part.split()[0] for part in shown] == ["0", "0", "0"], done.stderr
    sheets = [next((tmp_path / name).glob("*_train.png")).read_bytes() for name in ("plain", "other")]
    assert sheets[0] != sheets[1]
