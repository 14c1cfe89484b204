"""benchmarks/bench_label_errors.py: most of the labels that were made wrong stand at the start of the list."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "bench_label_errors.py"


@pytest.mark.slow
def test_wrong_labels_of_motion_are_at_the_start_of_the_list(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--folder", str(tmp_path), "--write", str(tmp_path / "table.md")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3600, check=False)
    assert done.returncode == 0, done.stderr
    table = (tmp_path / "table.md").read_text(encoding="utf-8")
    found = re.search(r"first 8% of the list \(40 videos\) \| (\d+) of 26 ", table)
    assert found is not None
    assert int(found[1]) >= 0.8 * 26
