"""Work over many files in parts and on clusters, from the command line."""

from __future__ import annotations

import hashlib
import re
import shlex
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import Call, error_line
from tests.videos import scene, write_video
from vidtrain.data.manifest.index import read_index

NETWORK = ["model=slow_fusion", "model.width=4", "sampler.num_frames=8", "sampler.stride=1", "transform.size=32"]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five small videos of two classes."""
    root = tmp_path_factory.mktemp("set")
    for number, count in enumerate((9, 20, 7, 33, 12)):
        (root / "ab"[number % 2]).mkdir(exist_ok=True)
        write_video(root / "ab"[number % 2] / f"{number}.mp4", scene(count, seed=number), fps=10)
    return root


def of(videos: Path) -> list[str]:
    return ["data=folder", f"data.root={videos}", "data.val_fraction=0"]


def made(folder: Path) -> dict[str, str]:
    """What is read from the folder, but for the files that say where it lies."""
    return {
        file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in folder.rglob("*.npy")
        if "paths" not in file.name
    }


def test_features_of_parts_are_those_of_a_whole_run(videos: Path, call: Call, tmp_path: Path) -> None:
    # a batch a clip: what else is in a batch may change the last bit of a number
    command = ["extract", *NETWORK, *of(videos), "trainer.num_workers=0", "eval.batch_size=1"]
    call(*command, "output=whole")
    for number in (2, 1):
        out = call(*command, "output=parts", f"jobs.part={number}/3").stdout
        assert out.startswith(f"part {number}/3: 2 in parts (2 now, 0 before)\nwhen all parts have ended, ")
    assert not (tmp_path / "parts" / "index.json").exists()
    again = call(*command, "output=parts", "jobs.part=2/3").stdout
    assert again.startswith("part 2/3: 2 in parts (0 now, 2 before)")
    (tmp_path / "parts" / "videos" / "aa").mkdir(exist_ok=True)
    (tmp_path / "parts" / "videos" / "aa" / "killed.npy.part").write_bytes(b"half")
    assert "5 of 5 videos have features in parts (1 now, 4 before)" in call(*command, "output=parts").stdout
    assert len(made(tmp_path / "whole")) > 5
    assert made(tmp_path / "parts") == made(tmp_path / "whole")
    assert not list((tmp_path / "parts").rglob("*-of-*"))
    assert not list((tmp_path / "parts").rglob("*.part"))
    found = np.load(next((tmp_path / "parts" / "videos").rglob("3-*.npy")))
    assert (found != 0).any()


def test_a_check_in_parts(videos: Path, call: Call, tmp_path: Path) -> None:
    shutil.copytree(videos, tmp_path / "in")
    (tmp_path / "in" / "a" / "bad.mp4").write_bytes(b"no video")
    command = ["data", "check", *of(tmp_path / "in"), "output=checked", "num_workers=1"]
    outs = [call(*command, f"jobs.part={number}/2").stdout for number in (1, 2)]
    assert sorted(out.splitlines()[0] for out in outs) == [
        "part 1/2: 3 in checked (3 now, 0 before)",
        "part 2/2: 3 in checked (3 now, 0 before)",
    ]
    assert sum("bad.mp4: " in out for out in outs) == 1
    assert not (tmp_path / "checked" / "index.json").exists()
    out = call(*command).stdout
    assert "6 rows, 6 files: 0 probed, 6 were known from" in out
    assert sum(map(len, read_index(tmp_path / "checked").splits.values())) == 5


def test_actions_without_parts_refuse_them(call: Call, videos: Path) -> None:
    for action in ("info", "stats", "show", "doctor"):
        said = error_line(call("data", action, *of(videos), "jobs.part=1/2", check=2))
        assert said == f"jobs: vidtrain data {action} works here; check, prepare, shard, flow take parts and clusters"
    assert error_line(call("data", "prepare", *of(videos), "jobs.part=3/2", check=2)).startswith(
        "jobs.part=3/2: expected"
    )


# ---------------------------------------------------------------- Slurm

SLURM = ["jobs=slurm", "jobs.parts=3", "jobs.cpus=2", "jobs.partition=cpu", "jobs.time='1:00:00'", "jobs.at_once=2"]


def test_scripts_for_slurm_do_what_the_command_does(videos: Path, call: Call, tmp_path: Path) -> None:
    out = tmp_path / "my copies 100%"
    command = ["data", "prepare", *of(videos), f"output={out}", "prepare.short_side=32"]
    said = call(*command, *SLURM, "jobs.submit=false", "jobs.setup=['export OF_SETUP=1']", "jobs.gpus=1").stdout
    folder = tmp_path / "my copies 100%.slurm"
    assert said == f"scripts: {folder / 'parts.sh'}, and {folder / 'last.sh'} for when all its jobs have ended\n"
    assert not out.exists()
    parts, last = ((folder / name).read_text() for name in ("parts.sh", "last.sh"))
    options = [line.removeprefix("#SBATCH ") for line in parts.splitlines() if line.startswith("#SBATCH ")]
    assert options == [
        *["--job-name=vidtrain", "--ntasks=1", "--cpus-per-task=2", "--gpus-per-task=1", "--partition=cpu"],
        *["--time=1:00:00", "--requeue", "--open-mode=append", "--array=1-3%2"],
        f"--output='{tmp_path}/my copies 100%%.slurm'/part-%a.log",
    ]
    assert "--array" not in last
    assert "jobs." not in last
    for text in (parts, last):
        assert "\nexport OF_SETUP=1\nexec " in text
        assert "num_workers=2" in text
    words = [shlex.split(text.splitlines()[-1]) for text in (parts, last)]
    assert words[0][:-1] == words[1]
    assert words[0][-1] == "jobs.part=$SLURM_ARRAY_TASK_ID/3"
    # in this process, which has started torch already
    arguments = words[1][words[1].index("data") :]
    assert call(*arguments, "jobs.part=2/3").stdout.startswith("part 2/3: 2 in ")
    assert "5 of 5 videos are prepared in" in call(*arguments).stdout


def test_what_slurm_is_not_given(videos: Path, call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    command = ["data", "prepare", *of(videos), "output=out", "jobs=slurm"]
    monkeypatch.setenv("PATH", str(tmp_path))
    assert error_line(call(*command, check=2)).startswith("jobs=slurm: there is no sbatch here")
    expected = "jobs.part=1/2: jobs=slurm makes the parts, jobs.parts=8: leave it out"
    assert error_line(call(*command, "jobs.part=1/2", check=2)) == expected
    assert "a line break in" in error_line(call(*command, "jobs.partition='a\nb'", check=2))
    assert not (tmp_path / "out").exists()


def is_a_cluster() -> bool:
    """Whether Slurm's commands are here and reach one (SLURM_CONF)."""
    try:
        return subprocess.run(["sinfo"], capture_output=True, timeout=20, check=False).returncode == 0
    except OSError:
        return False


@pytest.mark.slow
def test_slurm_does_it(videos: Path, call: Call, tmp_path: Path) -> None:
    """A part is ended by force: the last job does it. As bits: those of a run here."""
    if not is_a_cluster():
        pytest.skip("no Slurm cluster")
    command = ["data", "prepare", *of(videos), "prepare.short_side=32"]
    call(*command, "output=here", "num_workers=1")
    said = call(*command, "output='my out'", "jobs=slurm", "jobs.parts=3").stdout
    numbers = re.match(r"Slurm has it: job (\d+), 3 parts, then (\d+), which", said)
    assert numbers is not None, said
    subprocess.run(["scancel", f"{numbers[1]}_2"], check=True)
    until = time.monotonic() + 500
    while subprocess.run(
        ["squeue", "-h", "-j", f"{numbers[1]},{numbers[2]}"], capture_output=True, text=True, check=False
    ).stdout.strip():
        assert time.monotonic() < until
        time.sleep(1)
    out, logs = tmp_path / "my out", tmp_path / "my out.slurm"
    assert "part 1/3: 2 in" in (logs / "part-1.log").read_text()
    assert "5 of 5 videos are prepared in" in (logs / "last.log").read_text()
    copies = {file.relative_to(out).as_posix(): file.read_bytes() for file in out.rglob("*.mp4")}
    assert copies == {
        file.relative_to(tmp_path / "here").as_posix(): file.read_bytes() for file in (tmp_path / "here").rglob("*.mp4")
    }
    assert len(copies) == 5


@pytest.mark.slow
def test_extract_on_ray(videos: Path, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="needs Ray")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    command = ["extract", *NETWORK, *of(videos), "trainer.num_workers=0", "eval.batch_size=1"]
    call(*command, "output=whole")
    out = call(*command, "output=parts", "jobs=ray", "jobs.parts=2").stdout.splitlines()
    assert sorted(out[:2]) == ["part 1/2: 3 in parts (3 now, 0 before)", "part 2/2: 2 in parts (2 now, 0 before)"]
    assert out[2] == "5 of 5 videos have features in parts (0 now, 5 before)"
    assert made(tmp_path / "parts") == made(tmp_path / "whole")
    said = error_line(call(*command, "output=parts", "layer=none", "jobs=ray", "jobs.parts=1", check=2))
    assert said.startswith("jobs=ray: ")
    assert "layer=none" in said
