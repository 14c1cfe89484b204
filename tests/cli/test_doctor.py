"""vidtrain doctor: each finding with its advice, and a text that can be pasted into a bug report."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.cli.conftest import Call, environment
from vidtrain.commands import doctor_machine as machine
from vidtrain.commands import doctor_software as software
from vidtrain.commands.doctor import advice_of, as_text, without_home
from vidtrain.commands.doctor_machine import Finding


def test_the_text_of_this_machine(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "SOME_PATH", "HOSTNAME"):
        monkeypatch.setenv(name, "geheim-4711")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    done = call("doctor", "output=made/doctor.txt")
    assert (tmp_path / "made" / "doctor.txt").read_text() == done.stdout
    lines = {line.split()[0]: line for line in done.stdout.splitlines() if line.startswith("  ")}
    assert version("torch") in lines["torch"]
    assert version("av") in lines["PyAV"]
    assert "8 frames written and read again" in lines["writes"]
    assert "h264, hevc" in lines["decodes"]
    assert str(tmp_path) not in done.stdout
    assert "geheim-4711" not in done.stdout
    assert lines["OMP_NUM_THREADS"].split() == ["OMP_NUM_THREADS", "3"]


def test_the_home_folder_is_not_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "home", lambda: Path("/home/anna"))
    shown = as_text({"devices": [Finding("torch", "/home/anna/x/libtorch.so: lost; /home/annabel/y")]})
    assert "~/x/libtorch.so" in shown
    assert "/home/annabel/y" in shown
    assert without_home("/opt/x", Path("/")) == "/opt/x"


def test_a_torch_that_cannot_be_imported_is_a_line(tmp_path: Path) -> None:
    """It is what many reports are about: the command must not need it."""
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise OSError('libcudart.so.13: cannot open shared object file')")
    env = {**environment(), "PYTHONPATH": f"{tmp_path}{os.pathsep}{Path(__file__).parents[2]}"}
    command = [sys.executable, "-c", "from vidtrain.__main__ import main; main()", "doctor", "strict=true"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2, done.stderr
    assert "torch  cannot be imported: libcudart.so.13: cannot open shared object file  (!)" in done.stdout
    assert "1. reinstall PyTorch for this Python and this driver" in done.stdout
    assert done.stderr == "vidtrain: error: 1 thing to change, listed above (strict=true)\n"


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    found = machine.limits(tmp_path / "nowhere")[-1]
    assert (found.name, found.value) == ("disk of the runs", "No such file or directory")
    assert found.advice


@pytest.mark.parametrize(
    ("version", "text", "faulty"),
    [
        (90701, "9.7.1", False),
        (90800, "9.8.0", True),
        (91002, "9.10.2", True),
        (91400, "9.14.0", True),
        (91501, "9.15.1", False),
        (8907, "8.9.7", False),
    ],
)
def test_cudnn(version: int, text: str, faulty: bool) -> None:
    found = software.cudnn_found(version)
    assert found.value == text
    assert ("#163539" in found.advice) is faulty


def test_bf16_convolutions_are_measured() -> None:
    error = software.conv3d_bf16_error("cpu")
    assert 0.0005 < error < 0.01  # 2 ** -9 of relative rounding
    assert software.bf16_found(error, "cpu").advice == ""
    assert software.bf16_found(error, "cpu").value.startswith("fine: differs from fp64 by 0.00")
    assert software.bf16_found(0.9, "cuda").value.startswith("wrong: differs from fp64 by 0.9000")
    assert "wrong on this cuda" in software.bf16_found(0.9, "cuda").advice
    assert software.bf16_found(float("nan"), "cuda").advice


@pytest.mark.parametrize(
    ("architecture", "built", "missing"),
    [
        ("sm_90", ["sm_80", "sm_90", "compute_90"], False),
        ("sm_86", ["sm_80", "sm_90"], False),
        ("sm_89", ["sm_90"], True),
        ("sm_120", ["sm_80", "sm_90"], True),
        ("sm_120", ["sm_80", "compute_90"], False),  # compiled on its first use
        ("sm_70", ["sm_75", "sm_90a"], True),
        ("sm_90", ["sm_90a"], False),
    ],
)
def test_kernels_for_the_gpu(architecture: str, built: list[str], missing: bool) -> None:
    assert bool(software.architecture_advice("a GPU", architecture, built)) is missing


def test_packages() -> None:
    assert software.package_found("torch", "2.10.1+cu128", ">=2.10").advice == ""
    assert software.package_found("torch", "2.11.0.dev20261101", ">=2.10").advice == ""
    assert software.package_found("torch", "2.9.1", ">=2.10").advice.endswith("pip install 'torch>=2.10'")
    assert "which vidtrain requires" in software.package_found("av", "", ">=14").advice
    assert software.packages()[0].name == "Python"


def test_a_decoder_that_cannot_be_imported_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_ffmpeg() -> None:
        raise RuntimeError("Could not load libtorchcodec\nmany\nlines")

    found = software._imported("torchcodec", without_ffmpeg)
    assert found.value == "cannot be imported: Could not load libtorchcodec"
    assert found.advice.startswith("decoder=pyav reads without torchcodec")
    assert software._imported("decord", lambda: None).advice == ""
    monkeypatch.setattr(software, "_decodes", lambda name: name != "av1")
    assert "cannot decode av1" in next(each.advice for each in software.decoders() if each.name == "decodes")


def test_the_limits_of_a_container(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    (tmp_path / "memory.max").write_text(f"{3 * 10**9}\n")
    assert machine._quota(tmp_path) == 1.5
    found = machine.processors_found(16, 32, 1.5)
    assert found.value == "16 usable of 32, limited to the time of 1.5 by the container"
    assert "trainer.num_workers=1 " in found.advice
    assert machine.processors_found(4, 8, 4.0).advice == ""
    assert machine._memory_limit(tmp_path) == 3 * 10**9
    assert machine.memory_found(64, 60, 3).advice
    assert not machine.memory_found(64, 60, 0).advice
    (tmp_path / "cpu.max").write_text("max 100000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert (machine._quota(tmp_path), machine._memory_limit(tmp_path)) == (None, 0)


def test_the_limits_of_a_container_of_version_one(tmp_path: Path) -> None:
    for name, text in (("cpu/cpu.cfs_quota_us", "200000"), ("cpu/cpu.cfs_period_us", "100000")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert machine._quota(tmp_path) == 2.0
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text("-1")
    assert machine._quota(tmp_path) is None
    assert machine._quota(tmp_path / "none") is None


def test_shared_memory_files_and_disks() -> None:
    assert "--shm-size" in machine.shared_memory_found(0.06, 0.064).advice
    assert machine.shared_memory_found(8, 8).advice == machine.shared_memory_found(0, 0).advice == ""
    assert machine.open_files_found(256, 4096).advice.endswith("ulimit -n 4096")
    assert machine.open_files_found(-1, -1).advice == ""
    assert "checkpoints" in machine.disk_found(1.0, "ext4").advice
    assert "network file system (nfs4)" in machine.disk_found(900.0, "nfs4").advice
    assert machine.disk_found(900.0, "ext4").advice == ""


def test_one_advice_is_given_once() -> None:
    sections = [[Finding("a", "1", "do x"), Finding("b", "2")], [Finding("c", "3", "do y"), Finding("d", "4", "do x")]]
    assert advice_of(sections) == ["do x", "do y"]
