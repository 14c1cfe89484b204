"""vidtrain bench: every combination has its row, what cannot be measured says why."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.cli.conftest import Call, error_line
from vidtrain.models.inspect.summary import cost

TINY = ["model=slow_tiny", "sampler.num_frames=4", "transform.size=32", "num_classes=7", "seconds=0.05"]


def test_rows_table_and_json(call: Call, tmp_path: Path) -> None:
    sizes = "batch_size=[2,100000000]"  # the second would take terabytes
    out = call("bench", *TINY, sizes, "precision=[fp32,fp16]", "compile=[off]", "device=cpu", "output=b.json").stdout
    content = json.loads((tmp_path / "b.json").read_text())
    rows = {(row["precision"], row["batch_size"]): row for row in content["rows"]}
    assert len(rows) == len(content["rows"]) == 4
    assert rows["fp16", 2]["note"] == rows["fp16", 100000000]["note"] == "not on the CPU; use fp32 or bf16"
    assert rows["fp32", 100000000]["note"] == "out of memory"
    measured = rows["fp32", 2]
    assert measured["infer"] > measured["train"] > 0
    assert measured["note"] == ""
    if Path("/proc/self/clear_refs").exists():
        assert 1e5 < measured["memory"] < 1e9
    ceiling = content["matmul_flops_per_second"]["fp32"]
    assert measured["mfu"] == pytest.approx(6e9 * content["gmac"] * measured["train"] / ceiling)
    assert 0 < measured["mfu"] < 1
    assert "slow_tiny: clips of 4 x 32 x 32, " in out
    assert [line.split()[:3] for line in out.splitlines() if line.startswith("fp")] == [
        ["fp32", "no", "2"],
        ["fp16", "no", "2"],
        ["fp32", "no", "100000000"],
        ["fp16", "no", "100000000"],
    ]
    assert "waits for the loader: give data=... for it." in out


def test_the_cost_is_that_of_the_model(call: Call, tmp_path: Path) -> None:
    import vidtrain

    call("bench", *TINY, "batch_size=[1]", "precision=[fp32]", "device=cpu", "output=b.json")
    content = json.loads((tmp_path / "b.json").read_text())
    with torch.device("meta"):
        model = vidtrain.create_model("slow_tiny", num_classes=7, num_frames=4, size=32)
    params, macs = cost(model, 4, 32)
    assert (content["params"], content["gmac"]) == (params, pytest.approx(macs / 1e9))


def test_with_data_the_wait_is_measured(call: Call, tiny: list[str], tmp_path: Path) -> None:
    data = [option for option in tiny if option.startswith(("data.", "sampler.", "transform."))]
    args = ["model=slow_tiny", "data=motion", *data, "seconds=0.05", "num_workers=0", "batch_size=[4]"]
    call("bench", *args, "precision=[fp32]", "compile=[off]", "device=cpu", "output=b.json")
    (row,) = json.loads((tmp_path / "b.json").read_text())["rows"]
    assert 0 < row["waiting"] < 1  # it decodes in the process that trains


@pytest.mark.slow
def test_compiled(call: Call, tmp_path: Path) -> None:
    call("bench", *TINY, "batch_size=[2]", "precision=[bf16]", "compile=[off,on]", "device=cpu", "output=b.json")
    plain, compiled = json.loads((tmp_path / "b.json").read_text())["rows"]
    assert (plain["compiled"], compiled["compiled"]) == (False, True)
    assert compiled["note"] or (compiled["train"] > 0 and compiled["compile_seconds"] > 0)
    assert compiled["infer"] is None


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "bench measures a model: give model=...; vidtrain inspect lists them"),
        (["model=slow_tiny", "precision=[int8]"], "precision=['int8']: no precision 'int8'; allowed: fp32, bf16, fp16"),
        (["model=slow_tiny", "batch_size=[0]"], "batch_size=[0]: must be at least 1"),
        (["model=slow_tiny", "compile=[]"], "compile=[]: name at least one"),
        (
            ["model=slow_tiny", "batch_size=8"],
            "batch_size: takes several values: write batch_size=[...], with brackets",
        ),
    ],
)
def test_mistakes(call: Call, args: list[str], message: str) -> None:
    assert error_line(call("bench", *args, check=2)) == message
