"""benchmarks/bench_train.py runs through on a small network and writes its table."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "bench_train.py"


@pytest.mark.slow
def test_table_and_json(tmp_path: Path) -> None:
    (tmp_path / "train.md").write_text("# Tables\n\n## A fast GPU\n\nits table\n")
    options = ["--device", "cpu", "--models", "videomae_tiny", "--batch", "1", "--rounds", "1", "--precision", "fp32"]
    files = ["--write", str(tmp_path / "train.md"), "--json", str(tmp_path / "train.json")]
    command = [sys.executable, str(SCRIPT), *options, "--layouts", "auto", "contiguous", *files]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "train.json").read_text())
    found = {result["who"]: result for result in content["results"]}
    assert list(found) == ["vidtrain", "vidtrain, contiguous", "reference"]
    assert found["reference"]["times_reference"] == 1
    assert all(result["clips_per_second"] > 0 and 0 < result["mfu"] < 2 for result in found.values())
    assert (tmp_path / "train.md").read_text().startswith("# Tables\n\n## A fast GPU\n\nits table\n\n## ")
    rows = [line for line in (tmp_path / "train.md").read_text().splitlines() if line.startswith("| videomae_tiny ")]
    assert len(rows) == 3
