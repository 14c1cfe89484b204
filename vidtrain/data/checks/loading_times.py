"""How long the parts of loading take, for `vidtrain data doctor`."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import count

import numpy as np

from vidtrain.data.clips.dataset import TrainClips, read_clip, seconds_of
from vidtrain.data.clips.loader import TrainLoader
from vidtrain.data.clips.sampling import random_clip
from vidtrain.data.clips.workers import Workers
from vidtrain.data.readers.timeline import Timeline
from vidtrain.errors import DataError, VideoError


@dataclass(frozen=True)
class Stages:
    """Milliseconds of processor time that one training clip takes, the mean over `clips` of them.

    open: finding the frames of a file. decode: decoding, scaling, converting. augment: cropping and changing pixels.
    waiting: milliseconds of wall-clock time beyond the processor's, spent waiting for the disk (or for other programs).
    """

    open: float
    decode: float
    augment: float
    waiting: float
    clips: int

    @property
    def total(self) -> float:
        return self.open + self.decode + self.augment


def time_stages(clips: TrainClips, *, seconds: float) -> Stages:
    """Load clips of one video after the other in this process until the time is over; each video at most once.

    Raises:
        DataError: no video can be read.
    """
    cpu = np.zeros(3)
    done, began, cpu_began = 0, time.perf_counter(), time.process_time()
    for row in range(len(clips)):
        marks = _one_clip(clips, row)
        if marks is None:
            continue
        cpu += np.diff(marks)
        done += 1
        if time.perf_counter() - began > seconds:
            break
    if not done:
        raise DataError(f"none of the {len(clips)} videos that were drawn can be read; see vidtrain data check")
    waited = time.perf_counter() - began - (time.process_time() - cpu_began)
    opening, decoding, augmenting = (1e3 * cpu / done).tolist()
    return Stages(opening, decoding, augmenting, max(0.0, 1e3 * waited / done), done)


def _one_clip(clips: TrainClips, row: int) -> list[float] | None:
    """Processor times before and after each stage, as TrainClips goes through them; None for a broken video."""
    rng = np.random.default_rng((clips.seed, 0, row))
    marks = [time.process_time()]
    try:
        path = clips.manifest.paths[row]
        with clips.reader.open(path) as video:
            info = video.info
            where = seconds_of(clips.manifest, row)
            indices = random_clip(Timeline.of(info), clips.sampler, rng, clips=1, **where)
            marks.append(time.process_time())
            cut = clips.cut.draw(info, rng)
            frames, _ = read_clip(path, video, indices[0], cut.read_size, clips.flow)
        marks.append(time.process_time())
        clips.augment.apply(cut.apply(frames), rng)
        marks.append(time.process_time())
    except (VideoError, DataError):
        return None
    return marks


def loader_rate(clips: TrainClips, *, batch_size: int, workers: int, seconds: float) -> float:
    """Clips a second that come out of a loader when nothing else happens, wall-clock; its start does not count."""
    batch_size = min(batch_size, len(clips))
    loader = TrainLoader(clips, Workers(workers), batch_size=batch_size)
    marks: list[float] = []
    for epoch in count():
        for _ in loader.epoch(epoch):
            marks.append(time.perf_counter())
            # the first batches come in one go: each worker had prepared two
            steady = [mark for mark in marks if mark >= marks[0] + seconds / 4]
            if len(steady) >= 3 and steady[-1] - steady[0] > seconds:
                return batch_size * (len(steady) - 1) / (steady[-1] - steady[0])
    raise AssertionError("epochs never end")
