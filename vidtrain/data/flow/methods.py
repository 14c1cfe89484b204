"""Ways to compute optical flow. Each takes pairs of RGB frames and gives flow in pixels.

The three for a CPU are set up so that on a textured image that moves by up to 3 pixels the mean end-point error, away
from the border, is at most 0.03 pixels (dis), 0.01 (farneback) and 0.02 (tvl1): tests/data/test_flow_methods.py. A pair
of 171 x 128 takes 10, 8 and 120 ms on one core.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from vidtrain.data.flow.codes import Field
from vidtrain.data.flow.tvl1 import tvl1
from vidtrain.data.settings import FlowMethodName, RaftName
from vidtrain.errors import ConfigError, DataError, one_of
from vidtrain.types import Frames

if TYPE_CHECKING:
    import torch

OPENCV: Final = tuple(name for name in FlowMethodName if name is not FlowMethodName.raft)
_LEAST: Final = 16  # pixels of a side that OpenCV's methods want
_RAFT_LEAST: Final = 128
_RAFT_MULTIPLE: Final = 8
_Grey = npt.NDArray[np.uint8]


class FlowMethod(Protocol):
    """Computes optical flow. Holds settings only, so that it can be pickled to a worker."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """All that the flow depends on, as plain values: {"method": ...} and more."""
        ...

    def __call__(self, first: Frames, second: Frames) -> Field:
        """RGB frames (N, H, W, 3) and those that follow them -> float32 (N, H, W, 2): u, to the right, and v, down.

        Raises:
            DataError: frames too small for the method.
        """
        ...


# ---------------------------------------------------------------- OpenCV


@dataclass(frozen=True)
class OpenCVFlow:
    """dis (Kroeger et al. 2016), farneback (Farnebäck 2003) or tvl1 (data/flow/tvl1.py), each on grey frames.

    Raises:
        ConfigError: another name, or OpenCV is not installed.
    """

    name: str

    def __post_init__(self) -> None:
        if self.name not in OPENCV:
            raise ConfigError(f"method={self.name}: computed on the fly are {one_of(OPENCV)}")
        load_opencv(self.name)  # here, too: its threads must be off before a worker is forked

    @property
    def settings(self) -> Mapping[str, Any]:
        return {"method": self.name, "version": 1}

    def __call__(self, first: Frames, second: Frames) -> Field:
        height, width = first.shape[1:3]
        if min(height, width) < _LEAST:
            raise DataError(f"optical flow requires frames of {_LEAST} x {_LEAST} pixels, got {width} x {height}")
        cv2, engine = load_opencv(self.name), _engine(self.name)
        flow = np.empty((len(first), height, width, 2), np.float32)
        for number, pair in enumerate(zip(first, second, strict=True)):
            one, other = (cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in pair)
            flow[number] = engine(one, other)
        return flow


def load_opencv(method: str) -> ModuleType:
    """The module cv2, with its threads off.

    The loader's workers are the parallelism, and a cv2 that has started threads hangs in a forked process.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import cv2
    except ImportError as error:
        raise ConfigError(
            f"{method}: optical flow needs OpenCV ({error}): pip install 'vidtrain[flow]', or opencv-python-headless"
        ) from error
    if cv2.getNumThreads() != 1:
        cv2.setNumThreads(1)
    return cv2


@cache
def _engine(name: str) -> Callable[[_Grey, _Grey], Field]:
    """One per process: OpenCV's objects keep their buffers, and do not pickle."""
    cv2: Any = load_opencv(name)
    if name == "dis":
        # full resolution (finest scale 0): a third of the error of the preset MEDIUM at twice its time
        dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        dis.setFinestScale(0)
        dis.setGradientDescentIterations(25)
        dis.setVariationalRefinementIterations(2)
        return lambda one, other: dis.calc(one, other, None)
    if name == "farneback":
        # scale per level, levels, window, iterations, neighbourhood, its sigma
        return lambda one, other: cv2.calcOpticalFlowFarneback(one, other, None, 0.5, 3, 21, 3, 7, 1.8, 0)
    return partial(tvl1, cv2)


# ---------------------------------------------------------------- RAFT


@dataclass
class RaftFlow:
    """RAFT (Teed and Deng 2020), torchvision's network.

    model: raft_large or raft_small. weights: a file of torchvision's weights; None: those of its registry, fetched on
    first use. device: where it runs.

    Raises:
        ConfigError: another model, weights that do not fit, or no network to fetch them.
    """

    model: str = "raft_large"
    weights: str | None = None
    device: str = "cpu"
    _net: torch.nn.Module = field(init=False, repr=False)
    _named: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        from torchvision.models import get_model, get_model_weights

        from vidtrain.torch_files import load

        if self.model not in tuple(RaftName):
            raise ConfigError(f"flow.model={self.model}: allowed are {one_of(RaftName)}")
        net = get_model(self.model, weights=None)
        entry = get_model_weights(self.model).DEFAULT
        try:
            if self.weights is None:
                self._named = str(entry)
                state = entry.get_state_dict(progress=False, check_hash=True)
            else:
                file = Path(self.weights)
                self._named = hashlib.sha256(file.read_bytes()).hexdigest()
                state = load(file)
            net.load_state_dict(state)
        except OSError as error:  # urllib's errors are of this kind, too
            hint = "" if self.weights else ": without a network give flow.weights=FILE, torchvision's weights"
            raise ConfigError(f"flow.weights={self.weights}: {self.model} cannot be loaded ({error}){hint}") from error
        except Exception as error:  # torch raises half a dozen types for a file of something else
            reason = str(error).splitlines()[0]
            raise ConfigError(f"flow.weights={self.weights}: not weights of {self.model} ({reason})") from error
        self._net = net.to(self.device).eval()

    @property
    def settings(self) -> Mapping[str, Any]:
        return {"method": "raft", "version": 1, "model": self.model, "weights": self._named}

    def __call__(self, first: Frames, second: Frames) -> Field:
        import torch
        from torch.nn.functional import pad

        height, width = first.shape[1:3]
        # its pyramid requires multiples of 8, 128 at least
        tall, wide = (max(_RAFT_LEAST, -(-side // _RAFT_MULTIPLE) * _RAFT_MULTIPLE) for side in (height, width))
        images = []
        with torch.inference_mode():
            for frames in (first, second):
                image = torch.from_numpy(frames).to(self.device).permute(0, 3, 1, 2).float() / 127.5 - 1
                images.append(pad(image, (0, wide - width, 0, tall - height), mode="replicate"))
            flow = self._net(*images)[-1][:, :, :height, :width]
        return np.ascontiguousarray(flow.permute(0, 2, 3, 1).cpu().numpy())
