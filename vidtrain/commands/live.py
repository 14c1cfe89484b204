"""vidtrain predict of a stream: a line of JSON per window on stdout, all else on stderr."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import torch

from vidtrain.commands.live_answers import Answer, Asked, asked_of, whole
from vidtrain.commands.live_output import Said, StreamOptions
from vidtrain.commands.predictor import Predictor
from vidtrain.commands.timeline import Slider
from vidtrain.data.clips.transforms import EvalCrops
from vidtrain.engine.signals import StopSignals
from vidtrain.errors import ConfigError, VideoError
from vidtrain.live.decoding_thread import Capture
from vidtrain.live.sources import SourceKind, StreamSource
from vidtrain.live.windows import LiveWindow, hold_of, newest
from vidtrain.runs.atomic import prepare_folder
from vidtrain.runs.sole_writer import sole_writer

_POLL: Final = 0.2  # seconds within which Ctrl-C is noticed
_READ_AHEAD: Final = 64  # frames of a pipe or a file
_INDEX_LAST: Final = (
    "; an MP4 or MOV whose index stands at its end cannot be read from a pipe: name the file, or write the pipe with "
    "`ffmpeg -i FILE -c copy -f mpegts -`"
)


@dataclass(frozen=True)
class _Pace:
    """at_once: windows in a forward pass. drop: those that are late by more than `late` seconds are dropped."""

    at_once: int
    drop: bool
    late: float


def watch(predictor: Predictor, source: StreamSource, options: StreamOptions) -> None:
    """Answer for a stream until it ends, or SIGINT or SIGTERM does.

    Raises:
        VideoError: it does not open, or was cut and does not open again, or gave no frame.
        ConfigError: what the Slider says; alarms of classes that do not exist.
    """
    live = options.live
    live.alarm.check(predictor.class_names)
    if options.overlay:
        raise ConfigError("overlay=true draws over files: a stream is none")
    config = predictor.config
    slider = Slider(predictor, options.segments, hop=config.eval.hop, asked="a stream")
    size = config.transform.size
    asked = asked_of(slider, live.state, size)
    # the first pass takes longest: not while frames wait
    slider.probabilities(torch.zeros(1, slider.spec.num_frames, size, size, 3, dtype=torch.uint8))
    drop = source.passes if live.drop is None else live.drop
    pace = _Pace(1 if drop else config.eval.batch_size, drop, live.late)
    hold = hold_of(slider.spec, whole(slider.hop), size)
    if not drop:
        hold = replace(hold, frames=_READ_AHEAD, seconds=0.0)
    crops = EvalCrops(config.transform)
    with ExitStack() as stack:
        stop = stack.enter_context(StopSignals())
        if options.output is not None:
            stack.enter_context(sole_writer(prepare_folder(Path(options.output), "output"), "output"))
        said = stack.enter_context(Said(predictor, source, options))
        capture = stack.enter_context(Capture(source, live, lambda info: crops.all(info)[0], hold, drop=drop))
        for answer in _answers(asked, capture, pace, stop, said):
            said.add(answer)
    if capture.opened or capture.error is None:
        said.summary(capture)
    if capture.error is not None:
        raise capture.error
    if capture.opened and not capture.number and stop.received is None:
        raise VideoError(source.name, f"no frame came out of it{_INDEX_LAST if source.kind is SourceKind.pipe else ''}")


def _answers(asked: Asked, capture: Capture, pace: _Pace, stop: StopSignals, said: Said) -> Iterator[Answer | None]:
    """One after the other; None where there is nothing to say for a moment."""
    waiting: deque[LiveWindow] = deque()
    over = False
    while stop.received is None and not (over and not waiting):
        if pace.drop or len(waiting) < pace.at_once:
            for frame in capture.take(0 if waiting else _POLL):
                waiting.extend(asked.add(frame))
            if not waiting and capture.is_done and not over:
                over = True
                waiting.extend(asked.end())
        if pace.drop:
            said.dropped(newest(waiting, time.monotonic(), pace.late), capture.lost)
        if not waiting:
            yield None
            continue
        part = [waiting.popleft() for _ in range(min(pace.at_once, len(waiting)))]
        said.seen(part)
        yield from asked.answers(part)
