"""The presets for looking into a training, and continuing a run with another configuration."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Call, error_line
from vidtrain.engine.checkpoints.checkpoint import load_checkpoint


def records(run: Path, kind: str) -> list[dict[str, float]]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if record["kind"] == kind]


@pytest.mark.slow
def test_overfit_sees_the_same_clips_again(tiny: list[str], call: Call, tmp_path: Path) -> None:
    call("train", *tiny, "debug=overfit", "trainer.epochs=25", "trainer.max_batches=1", "run_dir=run")
    epochs = records(tmp_path / "run", "train_epoch")
    assert len(epochs) == 25
    assert epochs[-1]["update"] == 25
    assert epochs[-1]["top1"] == 1.0  # random clips of eight videos would not be memorised so soon
    assert len(records(tmp_path / "run", "val")) == 1


def test_profile_writes_a_trace(tiny: list[str], call: Call, tmp_path: Path) -> None:
    call("train", *tiny, "debug=profile", "trainer.max_batches=null", "trainer.batch_size=2", "run_dir=run")
    (trace,) = (tmp_path / "run" / "profile").glob("*.json*")
    names = {event.get("name", "") for event in json.loads(trace.read_text())["traceEvents"]}
    assert any("conv" in name for name in names)


def test_the_learning_rate_follows_the_batch(tiny: list[str], call: Call, tmp_path: Path) -> None:
    args = [*tiny, "trainer.epochs=1", "trainer.test=false", "schedule=constant", "optimizer.lr=0.02"]
    done = call("train", *args, "trainer.base_batch=32", "trainer.accumulate=2", "run_dir=run")
    assert "learning rate 0.01: 0.02 for 32 clips, of which an update has 16" in done.stderr
    assert {record["lr"] for record in records(tmp_path / "run", "train")} == {0.01}


def test_a_changed_configuration_is_told_and_refused_where_it_matters(tiny: list[str], call: Call) -> None:
    first = [*tiny, "trainer.max_batches=1", "trainer.test=false", "run_dir=run"]
    call("train", *first, "trainer.epochs=1")
    Path("run/result.json").unlink()
    again = [*first, "resume=auto"]
    line = error_line(call("train", *again, "optimizer.lr=0.3", "trainer.log_every=5", check=2))
    assert "started with another configuration: optimizer.lr was 0.05, is 0.3, trainer.epochs was 1, is 2" in line
    assert "log_every" not in line  # changes nothing that counts
    assert load_checkpoint("run/last.pt")["progress"]["epoch"] == 1
    done = call("train", *again, "optimizer.lr=0.3", "trainer.log_every=5", "resume_changed=true")
    assert "optimizer.lr was 0.05, is 0.3" in done.stderr
    assert "trainer.log_every was 1, is 5" in done.stderr
    assert load_checkpoint("run/last.pt")["progress"]["epoch"] == 2


def test_another_number_of_decoding_processes_continues_the_same_run(tiny: list[str], call: Call) -> None:
    call("train", *tiny, "trainer.max_batches=1", "trainer.test=false")
    (run,) = Path("runs/motion/slow_fusion").iterdir()
    (run / "result.json").unlink()
    call("train", *tiny, "trainer.max_batches=1", "trainer.test=false", "trainer.num_workers=1", "resume=auto")
    assert list(Path("runs/motion/slow_fusion").iterdir()) == [run]
    assert (run / "result.json").is_file()


def test_too_little_memory_is_one_line(
    tiny: list[str], call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "greedy.py").write_text(
        "import torch\n"
        "class Net(torch.nn.Linear):\n"
        "    def forward(self, x):\n"
        "        if self.training and len(x) > 2:\n"
        "            raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 20 MiB.')\n"
        "        return super().forward(x.mean((2, 3, 4)))\n"
        "def net(num_classes):\n"
        "    return Net(3, num_classes)\n"
    )
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "greedy.yaml").write_text("_target_: greedy.net\n")
    monkeypatch.syspath_prepend(tmp_path)
    args = ["--config-dir", "conf", "model=greedy", "trainer.test=false", "trainer.compile=off"]
    done = call("train", *tiny, *args, "trainer.on_oom=fail", check=2)
    assert done.stderr.splitlines()[-1] == (
        "vidtrain: error: CUDA out of memory: 8 clips at a time are too many; lower trainer.batch_size "
        "(trainer.accumulate makes up for it), or set trainer.checkpoint_activations=true"
    )
    done = call("train", *tiny, *args)
    assert "4 clips do not fit into the memory of the GPU: 2 at a time from now on" in done.stderr
