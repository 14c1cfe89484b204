"""vidtrain inspect: the catalogue, one model, a file of weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import vidtrain
from tests.cli.conftest import Call, error_line
from vidtrain.models.catalogue import catalogue


@pytest.mark.slow
def test_without_a_model_it_lists_all(call: Call, tmp_path: Path) -> None:
    lines = call("inspect", "output=docs/models.md").stdout.splitlines()
    assert [line.split()[0] for line in lines[2:]] == list(catalogue())
    assert "K400 top-1" in lines[0]
    written = (tmp_path / "docs" / "models.md").read_text(encoding="utf-8")
    assert all(f"| {name} |" in written for name in catalogue())


def test_one_model(call: Call, tmp_path: Path) -> None:
    args = ["model=i3d_tiny", "model.in_channels=2", "model.width=8", "sampler.num_frames=8", "transform.size=32"]
    out = call("inspect", *args, "num_classes=7", "output=i3d.txt").stdout
    assert out.startswith("i3d_tiny: 7 classes, input 2 x 8 x 32 x 32 (C x T x H x W)\n")
    assert "Conv3D(7x7x7, 2->8, stride 2)" in out
    assert (tmp_path / "i3d.txt").read_text() == out


def test_a_file_of_weights(call: Call, tmp_path: Path) -> None:
    net = vidtrain.create_model("tsn_r50", num_classes=11, backbone="resnet18", in_channels=10)
    torch.save({"state_dict": {f"module.{k}": v for k, v in net.state_dict().items()}}, tmp_path / "flow.pth.tar")
    out = call("inspect", "weights=flow.pth.tar").stdout
    for expected in ("mit-han-lab TSN/TSM", "model=tsn_r50", "model.backbone=resnet18 model.in_channels=10", "11"):
        assert expected in out


def test_mistakes(call: Call, tmp_path: Path) -> None:
    assert error_line(call("inspect", "weights=nowhere.pth", check=2)) == "nowhere.pth: no such file"
    line = error_line(call("inspect", "weights=x.pth", "model=c3d", check=2))
    assert line == "inspect shows a model or a file of weights: leave out model=... or weights=..."
