"""`vidtrain data shard` from the command line, and a training from what it leaves."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch

from tests.cli.conftest import Call, error_line
from vidtrain.data.manifest.index import read_index


def measured(run: Path) -> list[dict[str, Any]]:
    """What a run logged, but for times and memory."""
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [
        {k: v for k, v in line.items() if any(word in k for word in ("loss", "accuracy", "step"))} for line in lines
    ]


def test_a_run_from_shards_is_the_run_from_the_files(
    tiny: list[str], trained: Path, call: Call, tmp_path: Path
) -> None:
    command = ["data", "shard", "data=motion", *(o for o in tiny if o.startswith("data.")), "output=my shards"]
    command += ["shard.size=20kB", "num_workers=2"]
    out = call(*command).stdout.splitlines()
    shards = tmp_path / "my shards"
    count, tars = sum(map(len, read_index(shards).splits.values())), len(list(shards.glob("*.tar")))
    assert tars > 4
    assert out[0].startswith(f"{count} videos (")
    assert out[0].endswith(f") in {tars} shards in {shards} ({tars} now, 0 before)")
    assert out[-1] == f"train from it with: vidtrain train data=shards 'data.root={shards}'"
    assert f"({0} now, {tars} before)" in call(*command).stdout

    others = [o for o in tiny if not o.startswith("data.")]
    call("train", "data=shards", f"data.root='{shards}'", *others, "run_dir=r")
    assert measured(tmp_path / "r") == measured(trained)
    assert len(measured(trained)) > 4
    one, other = (torch.load(run / "last.pt", weights_only=True)["model"] for run in (trained, tmp_path / "r"))
    assert all(torch.equal(one[name], other[name]) for name in one)

    # data check reads members as it reads files
    found = call("data", "check", "data=shards", f"data.root='{shards}'", "output=checked", "num_workers=1").stdout
    assert found.startswith(f"{count} rows, {count} files: {count} probed")
    assert "unreadable" not in found
    call("data", "info", "data=index", "data.root=checked")

    tar = shards / "test-000000.tar"
    with tar.open("r+b") as file:
        file.truncate(os.path.getsize(tar) // 2)  # noqa: PTH202
    (shards / "index.json").unlink()
    assert "test-000000.tar: is cut off within" in error_line(
        call("data", "info", "data=shards", f"data.root='{shards}'", check=2)
    )


def test_a_size_that_is_none(call: Call, tiny: list[str]) -> None:
    command = ["data", "shard", "data=motion", *(o for o in tiny if o.startswith("data.")), "shard.size=much"]
    assert error_line(call(*command, check=2)).startswith(
        "shard.size=much: expected a number above 0 with kB, MB, GB or TB"
    )


def test_a_window_of_files_that_lie_in_no_shard(call: Call, tiny: list[str]) -> None:
    done = call("train", "data=motion", *tiny, "sampler.shuffle_window=5", "run_dir=r", check=2)
    assert "sampler.shuffle_window=5: mixes videos within tar files, and " in done.stderr
