"""Ways to compute flow: how exact they are, and what they refuse."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models.optical_flow import raft_small

from tests.data.moving import texture
from vidtrain.data.flow.methods import OPENCV, FlowMethod, OpenCVFlow, RaftFlow
from vidtrain.errors import ConfigError, DataError

_BORDER = 16


def end_point_error(method: FlowMethod, shift: tuple[float, float], finest: float) -> float:
    """Mean distance in pixels between the flow found and the shift, away from the border."""
    one, other = texture(finest=finest)[None], texture(shift, finest=finest)[None]
    flow = method(one, other)
    assert flow.shape == (1, 128, 171, 2)
    assert flow.dtype == np.float32
    inner = flow[0, _BORDER:-_BORDER, _BORDER:-_BORDER]
    return float(np.hypot(*(inner - np.float32(shift)).transpose(2, 0, 1)).mean())


@pytest.mark.parametrize(
    ("shift", "finest"),
    [
        *(((1.25, 0.75), 4.0), ((-2.4, 3.1), 8.0)),
        *(
            pytest.param(shift, finest, marks=pytest.mark.slow)
            for shift, finest in (((0.3, -0.6), 4.0), ((-2.4, 3.1), 4.0), ((0.3, -0.6), 8.0), ((1.25, 0.75), 8.0))
        ),
    ],
)
@pytest.mark.parametrize(("method", "most"), [("dis", 0.03), ("farneback", 0.01), ("tvl1", 0.02)])
def test_the_mean_end_point_error_on_a_textured_shift(
    method: str, most: float, shift: tuple[float, float], finest: float
) -> None:
    pytest.importorskip("cv2", reason="computing flow needs OpenCV")
    assert end_point_error(OpenCVFlow(method), shift, finest) <= most


@pytest.mark.parametrize("method", OPENCV)
def test_pairs_are_independent_and_the_method_travels_to_workers(method: str) -> None:
    pytest.importorskip("cv2", reason="computing flow needs OpenCV")
    frames = np.stack([texture((n * 0.7, n * n * 0.4), 40, 50) for n in range(4)])
    there = pickle.loads(pickle.dumps(OpenCVFlow(method)))
    together = there(frames[:-1], frames[1:])
    alone = np.concatenate([OpenCVFlow(method)(frames[n : n + 1], frames[n + 1 : n + 2]) for n in range(3)])
    assert np.array_equal(together, alone)
    assert there(frames[:0], frames[:0]).shape == (0, 40, 50, 2)


def test_opencv_starts_no_threads() -> None:
    cv2 = pytest.importorskip("cv2", reason="computing flow needs OpenCV")
    cv2.setNumThreads(4)
    OpenCVFlow("dis")
    assert cv2.getNumThreads() == 1


def test_tiny_frames_are_refused() -> None:
    pytest.importorskip("cv2", reason="computing flow needs OpenCV")
    small = np.zeros((1, 15, 40, 3), np.uint8)
    with pytest.raises(DataError, match="requires frames of 16 x 16 pixels, got 40 x 15"):
        OpenCVFlow("dis")(small, small)
    for method in OPENCV:
        least = np.random.default_rng(0).integers(0, 255, (2, 16, 16, 3), dtype=np.uint8)
        assert np.isfinite(OpenCVFlow(method)(least[:1], least[1:])).all()


def test_without_opencv_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ConfigError, match=r"farneback: optical flow needs OpenCV .*pip install 'vidtrain\[flow\]'"):
        OpenCVFlow("farneback")
    with pytest.raises(ConfigError, match="method=raft: computed on the fly are dis, farneback, tvl1"):
        OpenCVFlow("raft")


def test_raft_runs_with_weights_from_a_file(tmp_path: Path) -> None:
    """Random weights: the network and all around it, not what it finds."""
    torch.manual_seed(0)
    net = raft_small(weights=None).eval()
    torch.save(net.state_dict(), tmp_path / "raft.pth")
    method = RaftFlow("raft_small", str(tmp_path / "raft.pth"))
    frames = np.stack([texture((n, 0.5 * n), 60, 140) for n in range(3)])
    flow = method(frames[:-1], frames[1:])
    assert flow.shape == (2, 60, 140, 2)
    assert flow.dtype == np.float32

    padded = torch.zeros(2, 2, 3, 128, 144)  # torchvision's own call, on pictures padded by hand
    for k, part in enumerate((frames[:-1], frames[1:])):
        image = torch.from_numpy(part).permute(0, 3, 1, 2) / 127.5 - 1
        padded[k] = torch.nn.functional.pad(image, (0, 4, 0, 68), mode="replicate")
    with torch.no_grad():
        expected = net(padded[0], padded[1])[-1][:, :, :60, :140].permute(0, 2, 3, 1)
    torch.testing.assert_close(torch.from_numpy(flow), expected, rtol=1e-3, atol=1e-3)
    assert method.settings["model"] == "raft_small"
    assert len(method.settings["weights"]) == 64


def test_weights_that_are_not_rafts(tmp_path: Path) -> None:
    torch.save({"x": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ConfigError, match=r"flow\.weights=.*other\.pth: not weights of raft_large") as caught:
        RaftFlow("raft_large", str(tmp_path / "other.pth"))
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"flow\.weights=.*gone: raft_small cannot be loaded .*No such file"):
        RaftFlow("raft_small", str(tmp_path / "gone"))
    with pytest.raises(ConfigError, match=r"flow\.model=raft: allowed are raft_large, raft_small"):
        RaftFlow("raft")
