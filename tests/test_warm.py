"""A process that is forked is what a new one would be."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import warm

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="starts Python as usual elsewhere")

TELL = "import os, sys; print(os.getcwd(), sys.argv, sys.path[0], os.getenv('OWN'), os.getppid(), *map(len, sys.stdin))"


@pytest.mark.parametrize("kind", ["-c", "-m", "script"])
def test_it_has_what_it_is_given(kind: str, tmp_path: Path) -> None:
    (tmp_path / "tell.py").write_text(f"{TELL}\nsys.exit(3)\n")
    (tmp_path / "input").write_text("abc\n")
    start = {"-c": ["-c", f"{TELL}; sys.exit(3)"], "-m": ["-m", "tell"], "script": ["tell.py"]}[kind]
    own = {**{k: v for k, v in os.environ.items() if k != "HOME"}, "OWN": "yes"}
    options = {"cwd": tmp_path, "env": own, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    found = []
    for starts in (warm.Python, lambda arguments, **options: subprocess.Popen([sys.executable, *arguments], **options)):
        with (tmp_path / "input").open() as given, starts([*start, "a b"], stdin=given, **options) as process:
            found.append((process.communicate(timeout=60), process.returncode))
    assert found[0] == found[1]
    assert found[0][1] == 3
    assert f" yes {os.getpid()} 4" in found[0][0][0]


def test_it_is_forked_and_none_knows_of_another() -> None:
    code = "import os, sys; print('torch' in sys.modules, os.environ.get('OWN')); os.environ['OWN'] = 'x'; sys.x = 1"
    code += "; import random; print(random.random())"
    env = dict(warm._ENVIRONMENT)  # whatever the tests before have left in os.environ
    said = [warm.run(["-c", code], env=env).stdout.split() for _ in range(2)]
    assert [words[:2] for words in said] == [["True", "None"]] * 2
    assert said[0][2] != said[1][2]
    unlike = {**env, "PYTHONIOENCODING": "ascii"}  # is read when Python starts
    assert warm.run(["-c", code + "; print(sys.stdout.encoding)"], env=unlike).stdout.split()[::3] == ["False", "ascii"]


@pytest.mark.parametrize("name", ["TORCHINDUCTOR_CACHE_DIR", "OMP_WAIT_POLICY", "TORCH_CPP_LOG_LEVEL"])
def test_what_a_training_in_this_process_leaves_behind_is_no_reason_to_start_anew(name: str) -> None:
    left = warm._SET_BY_VIDTRAIN.get(name, "/tmp/some")
    assert warm._can_be_forked({**warm._ENVIRONMENT, name: left})


def test_it_ends_as_python_does() -> None:
    code = "import atexit, sys, threading, time; atexit.register(print, 'at the end'); "
    code += "threading.Thread(target=lambda: (time.sleep(0.2), print('thread'))).start(); print('main'); "
    env = dict(warm._ENVIRONMENT)
    done = warm.run(["-c", code + "sys.exit(7)"], env=env)
    assert (done.stdout.splitlines(), done.stderr, done.returncode) == (["main", "thread", "at the end"], "", 7)
    done = warm.run(["-c", code + "sys.exit('no')"], env=env)
    assert (done.stdout.splitlines(), done.stderr, done.returncode) == (["main", "thread", "at the end"], "no\n", 1)


def test_a_signal_reaches_it_and_others_go_on() -> None:
    sleep = ["-c", "import time; print('here', flush=True); time.sleep(100)"]
    pipe = {"stdout": subprocess.PIPE, "text": True}
    with warm.Python(sleep, **pipe) as first, warm.Python(sleep, **pipe, stderr=subprocess.PIPE) as second:
        assert [process.stdout.readline() for process in (first, second)] == ["here\n"] * 2
        second.send_signal(signal.SIGTERM)
        assert second.communicate(timeout=60) == ("", "")
        assert second.returncode == -signal.SIGTERM
        assert first.poll() is None
        first.kill()
        assert first.wait(60) == -signal.SIGKILL
    assert warm.run(["-c", "raise KeyError('no')"]).stderr.endswith("KeyError: 'no'\n")
