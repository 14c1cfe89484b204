"""Starting from other weights, from the command line."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.cli.conftest import Call, error_line
from vidtrain.engine.checkpoints.checkpoint import load_checkpoint


def test_a_run_starts_from_the_weights_of_another(trained: Path, tiny: list[str], call: Call) -> None:
    start = f"model.weights={trained / 'best.pt'}"
    done = call("train", *tiny, start, "optimizer.lr=1e-12", "trainer.epochs=1", "run_dir=run")
    assert f"{trained / 'best.pt'}: " in done.stderr
    assert "tensors loaded" in done.stderr
    before, after = (load_checkpoint(run / "best.pt")["model"] for run in (trained, Path("run")))
    for key, value in before.items():
        if "running" not in key and "batches" not in key:
            torch.testing.assert_close(after[key], value, rtol=0, atol=1e-6)
    # the file may be gone by the time that the run is tested: its own weights count
    line = load_checkpoint(Path("run/best.pt"))["config"]["model"]
    assert line["weights"] == str(trained / "best.pt")
    moved = Path("elsewhere.pt")
    moved.write_bytes(Path("run/best.pt").read_bytes())
    assert "scored 8 of 8" in call("eval", f"checkpoint={moved}", "output=out").stdout


def test_what_cannot_start_a_run_is_one_line(trained: Path, tiny: list[str], call: Call, tmp_path: Path) -> None:
    (tmp_path / "text.pt").write_text("no weights")
    line = error_line(call("train", *tiny, "model.weights=text.pt", check=2))
    assert "text.pt" in line
    line = error_line(call("train", *tiny, "model=single_frame", f"model.weights={trained / 'best.pt'}", check=2))
    assert str(trained / "best.pt") in line
    both = [f"model.weights={trained / 'best.pt'}", "model.inflate_from=resnet18"]
    assert "a model starts from one of them" in error_line(call("train", *tiny, *both, check=2))
