"""`vidtrain export`: files that give what the checkpoint gives, say what they are, and run without vidtrain."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

import vidtrain as package
from tests.cli.conftest import Call, error_line
from vidtrain.errors import CheckpointError, ConfigError
from vidtrain.export.contract import SECTION
from vidtrain.hub_folder import load_trained
from vidtrain.published import device_for
from vidtrain.runs.sole_writer import sole_writer
from vidtrain.shell import cli


def command(*arguments: object) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main([str(argument) for argument in arguments])
    assert end.value.code == 0


@pytest.fixture(scope="module")
def checkpoint(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny run's, with a temperature. A wider head: the run's two updates leave all classes alike."""
    file = tmp_path_factory.mktemp("calibrated") / "best.pt"
    content = torch.load(trained / "best.pt", weights_only=True)
    for key in [key for key in content["model"] if key.startswith("head")]:
        content["model"][key] *= 30
    protocol = "8x1 clips at 32 px (short side 32), 2x1 views (clips x crops), probabilities averaged"
    content["calibration"] = {"temperature": 0.5, "threshold": 0.9, "protocol": protocol, "videos": 8}
    torch.save(content, file)
    return file


@pytest.fixture(scope="module")
def exported(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an export with int8, which had a link in it, and files of one that was killed. Read it, do not
    change it."""
    folder = tmp_path_factory.mktemp("exported") / "model"
    (folder / ".export").mkdir(parents=True)
    (folder / ".export" / "model.onnx.data").write_bytes(b"killed")
    (folder / "run_onnx.py").symlink_to(folder.parent / "elsewhere")
    command("export", f"checkpoint={checkpoint}", f"output={folder}", "int8=true", "clips=5", "int8_clips=8")
    return folder


@pytest.fixture
def video(tiny: list[str]) -> Path:
    root = Path(next(option for option in tiny if option.startswith("data.root=")).removeprefix("data.root="))
    return sorted(root.rglob("test/*/*.mp4"))[3]


# ---------------------------------------------------------------- the files


def test_the_folder(exported: Path, checkpoint: Path) -> None:
    names = sorted(file.name for file in exported.iterdir())
    assert names == ["export.json", "model.onnx", "model_int8.onnx", "run_onnx.py"]
    assert not (exported.parent / "elsewhere").exists()
    report = json.loads((exported / "export.json").read_text())
    whole, small = (report["files"][name] for name in ("onnx", "int8"))
    assert whole["parity"]["clips"] == small["parity"]["clips"] == 5
    assert whole["parity"]["relative"] < 1e-5 < small["parity"]["relative"] < 1
    assert whole["parity"]["same"] == 5
    assert small["calibration_clips"] == 8
    assert small["bytes"] < 0.4 * whole["bytes"] == 0.4 * (exported / "model.onnx").stat().st_size
    assert set(report["measured"]) == {"eager", "onnx", "int8"}
    assert report["measured"]["eager"] == report["measured"]["onnx"]
    assert "ms_p50" not in report["measured"]["eager"]
    for file in ("model.onnx", "model_int8.onnx", "export.json"):
        written = (exported / file).read_bytes()
        assert not [text for text in (checkpoint.parent, Path(torch.__file__).parent) if str(text).encode() in written]


def test_what_is_computed_in_8_bits(exported: Path) -> None:
    graph = onnx.load_model(str(exported / "model_int8.onnx")).graph
    weights = {one.name: one.data_type for one in graph.initializer}
    made = {name: node.op_type for node in graph.node for name in node.output}
    heavy = [node for node in graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
    assert len(heavy) >= 4
    assert all(made[name] == "DequantizeLinear" for node in heavy for name in node.input[:2])
    assert onnx.TensorProto.INT8 in weights.values()
    assert not [node for node in graph.node if node.op_type == "BatchNormalization"]


def test_predict_eval_and_timeline_give_the_checkpoints_numbers(
    exported: Path, checkpoint: Path, tiny: list[str], video: Path, call: Call
) -> None:
    root = next(option for option in tiny if option.startswith("data.root="))
    file = exported / "model.onnx"
    lines = [call("predict", f"checkpoint={one}", f"input={video}").stdout for one in (checkpoint, file)]
    assert lines[0] == lines[1]
    assert "unknown (" in lines[0]
    call("eval", f"checkpoint={checkpoint}", "output=theirs")
    done = call("eval", f"checkpoint={file}", root, "output=ours")
    assert "scored 8 of 8" in done.stdout
    theirs, ours = (np.load(Path(name) / "probabilities.npy") for name in ("theirs", "ours"))
    assert np.abs(theirs - ours).max() < 1e-5
    assert theirs.std() > 0.01
    call("predict", f"checkpoint={file}", f"input={video}", "timeline=true", "output=when", "eval.hop=2")
    slid = np.load(next(Path("when").glob("*/windows.npz")))["probs"]
    expected = package.load(checkpoint, device="cpu").timeline(str(video), hop=2).windows
    assert np.abs(slid - expected.probs).max() < 1e-5
    assert len(slid) > 1


def test_load_takes_it(exported: Path, checkpoint: Path, video: Path) -> None:
    ours, theirs = package.load(exported / "model.onnx"), package.load(checkpoint, device="cpu")
    assert ours.class_names == theirs.class_names
    assert ours.preprocessing == theirs.preprocessing
    assert str(ours.device) == "cpu"
    found, wanted = (clf.predict(str(video), clips=3, crops=1) for clf in (ours, theirs))
    assert found.rejected == wanted.rejected
    assert torch.allclose(found.probabilities, wanted.probabilities, atol=1e-5)


# ---------------------------------------------------------------- what does not go


@pytest.mark.slow
def test_a_file_that_gives_something_else_is_not_kept(checkpoint: Path, call: Call) -> None:
    done = call("export", f"checkpoint={checkpoint}", "output=out", "clips=3", "tolerance=1e-12", check=2)
    line = error_line(done)
    assert line.startswith("format=onnx: the file is not kept, its answers are not the network's: logits differ by ")
    assert "same class for 3 of 3 clips (tolerance=1e-12)" in line
    assert not Path("out").exists()


def test_one_process_at_a_time_writes_to_the_folder(
    checkpoint: Path, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vidtrain.runs.sole_writer._PATIENCE", 0.01)
    (tmp_path / "out").mkdir()
    with sole_writer(tmp_path / "out", "output", stays=False):
        done = call("export", f"checkpoint={checkpoint}", "output=out", "clips=2", check=2)
    assert "error: output=out: another vidtrain process is writing there; wait for its end" in done.stderr
    assert not list((tmp_path / "out").iterdir())


MISTAKES = {
    "format": (["format=onnx,tflite"], "format=onnx,tflite: no format 'tflite'; allowed: onnx, pt2, openvino, exec"),
    "int8 of another": (["format=pt2", "int8=true"], "int8=true quantises the ONNX file: format=pt2,onnx"),
    "int8 of a stream": (
        ["stream=true", "int8=true"],
        "format=onnx int8=true: stream=true writes an ONNX file in float32",
    ),
    "no state": (["stream=true"], "stream=true: SlowFusion has no state; stream=false exports whole clips"),
    "no videos": (["input=nowhere"], "input=nowhere: no such file, and no file matches it as a glob"),
    "data not read": (
        ["input=x.mp4", "data.root=/x"],
        "data.root: input=x.mp4 names the videos, the dataset is not read",
    ),
    "no data": (["data.root=/nowhere/at/all"], "; a file is compared on real clips: give the dataset, or input=VIDEOS"),
}


@pytest.mark.parametrize(("given", "message"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes(given: list[str], message: str, checkpoint: Path, call: Call) -> None:
    assert message in error_line(call("export", f"checkpoint={checkpoint}", "output=out", *given, check=2))


def test_a_package_that_is_not_there_is_named(
    checkpoint: Path, call: Call, monkeypatch: pytest.MonkeyPatch, exported: Path
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    line = error_line(call("export", f"checkpoint={checkpoint}", "output=out", "clips=2", check=2))
    assert line.endswith("pip install 'vidtrain[export]'")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    line = error_line(call("predict", f"checkpoint={exported / 'model.onnx'}", "input=x.mp4", check=2))
    assert line.startswith("input=x.mp4: no such file")
    with pytest.raises(ConfigError, match=r"an ONNX file requires onnxruntime .*pip install 'vidtrain\[export\]'"):
        package.load(exported / "model.onnx")


def test_what_an_exported_file_cannot(exported: Path, video: Path, call: Call) -> None:
    file = exported / "model.onnx"
    line = error_line(call("predict", f"checkpoint={file}", f"input={video}", "transform.mean=[0.1,0.2,0.3]", check=2))
    assert line.startswith(f"transform.mean=[0.1, 0.2, 0.3]: {file} was exported with [0.45, 0.45, 0.45], which")
    clf, content = package.load(file), load_trained(file, exported=True)
    sampler = replace(clf.config.sampler, num_frames=4)
    with pytest.raises(ConfigError, match=r"sampler\.num_frames=4: .* was exported with 8"):
        device_for("auto", replace(clf.config, sampler=sampler), content, str(file))
    with pytest.raises(ConfigError, match=r"trainer\.device=cuda: vidtrain asks an ONNX file on the CPU"):
        package.load(file, device="cuda")
    line = error_line(call("predict", f"checkpoint={file}", f"input={video}", "trainer.precision=bf16", check=2))
    assert line.startswith("trainer.precision=bf16: what an ONNX file computes in is fixed in it; the checkpoint runs")
    with pytest.raises(CheckpointError, match="it has no weights or layers to give"):  # as publish, extract and search
        load_trained(file)
    for ask in (clf.features, clf.explain):
        with pytest.raises(ConfigError, match="an ONNX file has no layers to look into: take the checkpoint"):
            ask(str(video))
    line = error_line(call("eval", f"checkpoint={file}", "calibrate=true", check=2))
    assert line == "calibrate is kept in a checkpoint: calibrate the .pt file, and publish or export it again"
    line = error_line(call("export", f"checkpoint={file}", "output=out", check=2))
    assert line == f"checkpoint={file}: is an exported file: export the checkpoint it came from"


# ---------------------------------------------------------------- the other ways


@pytest.mark.slow
def test_bench_times_the_network_and_each_file(checkpoint: Path, video: Path, call: Call) -> None:
    """Without a dataset: on the clips of a video, without accuracies; pt2 has its text as an extra file."""
    done = call(
        *["export", f"checkpoint={checkpoint}", "output=out", "format=pt2", f"input={video}"],
        *["clips=4", "bench=true", "seconds=0.01", "sampler.stride=2"],
    )
    header, _, *rows = done.stdout.splitlines()[2:6]
    assert header.split() == ["ms", "p50", "ms", "p95", "MB"]
    assert [row.split()[0] for row in rows] == ["eager", "pt2"]
    assert all(0 < float(row.split()[1]) <= float(row.split()[2]) for row in rows)
    report = json.loads(Path("out/export.json").read_text())
    assert report["files"]["pt2"]["parity"]["clips"] == 4
    assert sorted(file.name for file in Path("out").iterdir()) == ["export.json", "model.pt2"]
    extra = {f"{SECTION}.json": ""}
    program = torch.export.load("out/model.pt2", extra_files=extra)
    about = json.loads(extra[f"{SECTION}.json"])
    assert about["config"]["sampler"]["stride"] == 2  # what the command line changes stands in the file
    assert about["config"]["data"]["root"] is None
    assert about["class_names"][0] == "move_left"
    clips = torch.zeros(7, 8, 32, 32, 3, dtype=torch.uint8)
    assert program.module()(clips)[1].sum(1).tolist() == pytest.approx([1] * 7)


@pytest.mark.slow
def test_openvino(checkpoint: Path, call: Call) -> None:
    openvino = pytest.importorskip("openvino")
    call("export", f"checkpoint={checkpoint}", "output=out", "format=openvino", "clips=3")
    assert sorted(file.name for file in Path("out").iterdir()) == ["export.json", "model.bin", "model.xml"]
    model = openvino.Core().read_model("out/model.xml")
    assert json.loads(model.get_rt_info([SECTION]).astype(str))["calibration"]["temperature"] == 0.5


@pytest.mark.slow
def test_the_script_runs_without_pytorch(exported: Path, checkpoint: Path, video: Path, tmp_path: Path) -> None:
    """In an environment of its own, with what its first lines name."""
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "fresh"], check=True)
    python = tmp_path / "fresh" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    install = [python, "-m", "pip", "install", "-q", "numpy", "av", "onnxruntime"]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"pip installs nothing here: {done.stderr.strip().splitlines()[-1]}")
    assert subprocess.run([python, "-c", "import torch"], capture_output=True, check=False).returncode
    copied = shutil.copytree(exported, tmp_path / "elsewhere")
    run = [python, copied / "run_onnx.py", video]
    done = subprocess.run(run, capture_output=True, text=True, check=True, cwd=tmp_path)
    lines = [line.split("  ") for line in done.stdout.splitlines()]
    wanted = package.load(checkpoint, device="cpu").predict(str(video)).top
    assert [name for _, name in lines] == [name for name, _ in wanted]
    assert max(abs(float(p) - q) for (p, _), (_, q) in zip(lines, wanted, strict=True)) < 1e-4
