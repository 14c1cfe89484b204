"""From the frames of a stream to what a network says of them: by windows that slide, or by its state."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from vidtrain.commands.timeline import Slider
from vidtrain.data.readers.timeline import hop_seconds
from vidtrain.engine.preprocess import ModelRunner
from vidtrain.errors import ConfigError
from vidtrain.export.stream import SteppedNetwork
from vidtrain.live.decoding_thread import LiveFrame
from vidtrain.live.settings import StateName
from vidtrain.live.streaming_models import CarriedState, samples_at_once, why_no_state
from vidtrain.live.windows import LiveWindow, LiveWindows

log = logging.getLogger("vidtrain")


@dataclass(frozen=True, eq=False)
class Answer:
    """What the network says of a part of the stream.

    start, end: seconds. probs: float32 (K,). last: its last frame. since: of the window, see LiveWindow.

    number: as of `Windows`: one that is missing was dropped, or the stream was cut there.
    """

    number: int
    start: float
    end: float
    probs: npt.NDArray[np.float32]
    last: LiveFrame
    since: float


class Asked(Protocol):
    """How frames become answers."""

    def add(self, frame: LiveFrame) -> list[LiveWindow]:
        """What can be answered with this frame."""
        ...

    def end(self) -> list[LiveWindow]:
        """What can be answered when no other comes."""
        ...

    def answers(self, windows: Sequence[LiveWindow]) -> Iterator[Answer]: ...


class _Sliding:
    """Windows, each by itself."""

    def __init__(self, slider: Slider) -> None:
        self._slider = slider
        windows = LiveWindows(slider.spec, whole(slider.hop))
        self.add, self.end = windows.add, windows.end

    def answers(self, windows: Sequence[LiveWindow]) -> Iterator[Answer]:
        probs = self._slider.probabilities(torch.from_numpy(np.stack([window.clip() for window in windows])))
        for window, own in zip(windows, probs, strict=True):
            yield Answer(window.number + window.last.run, window.start, window.end, own, window.last, window.since)


class _Carrying:
    """Samples one after the other, an answer every hop."""

    def __init__(self, slider: Slider, mode: StateName) -> None:
        self._slider, spec = slider, slider.spec
        network, count = slider.network, samples_at_once(slider.network.model)
        self._state = CarriedState(network.model, mode, spec.num_frames)
        self._network = ModelRunner(network.model, network.preprocess, network.precision, self._state)
        every = replace(spec, num_frames=count, window=None)
        if spec.window is not None:
            raise ConfigError("live.state: sampler.window spreads a clip over its frames: give sampler.stride or fps")
        windows = LiveWindows(every, None)
        self.add, self.end = windows.add, windows.end
        self._hop = whole(slider.hop)
        self._due: float | None = None
        self._number, self._run = 0, -1

    def answers(self, windows: Sequence[LiveWindow]) -> Iterator[Answer]:
        for window in windows:
            if window.last.run != self._run:
                self._state.restart()
                self._run, self._due = window.last.run, None
            self._state.now = window.start
            clip = torch.from_numpy(window.clip())[None]
            probs = self._slider.probabilities(clip, self._network)[0]
            if not self._state.answers or not self._is_due(window):
                continue
            self._number += 1
            yield Answer(self._number + self._run, self._state.start, window.end, probs, window.last, window.since)

    def _is_due(self, window: LiveWindow) -> bool:
        in_frames = isinstance(self._hop, int)
        now = window.last.number if in_frames else window.end
        hop = self._hop if isinstance(self._hop, int) else hop_seconds(self._hop) or 0.0
        if self._due is not None and now < self._due - 1e-6:
            return False
        self._due = now + hop
        return True


def whole(hop: float | str) -> int | str:
    return hop if isinstance(hop, str) else int(hop)


def asked_of(slider: Slider, mode: StateName | None, size: int) -> Asked:
    """By windows or by a state, as the user says and the network can."""
    model = slider.network.model
    stepped = isinstance(model, SteppedNetwork)
    mode = mode or (StateName.renewed if stepped else StateName.windows)
    if mode is StateName.windows:
        return _Sliding(slider)
    if not stepped and (reason := why_no_state(model, size)) is not None:
        log.warning("live.state=%s: windows slide, as this network cannot take frame by frame: %s", mode, reason)
        return _Sliding(slider)
    return _Carrying(slider, mode)
