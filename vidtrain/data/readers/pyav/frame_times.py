"""When the frames of a video are shown: from their timestamps, as far as these can be believed.

A timestamp (pts) says when a frame appears; the first frame shown appears at 0. Some do not go on from the one before:

    step back    two recordings joined, a counter that starts again: the clock goes on as usual
    jump         of more than 10 s, in containers that allow a new clock to begin anywhere (MPEG-TS and PS, Ogg); the
                 ffmpeg command draws the line at the same place. The clock goes on as usual
    pause        the same in any other container, where a player shows the frame for as long: the times stay
    stuck        three or more in a row within a millisecond of each other, as muxers write them that were given times
                 out of order: the clock goes on as usual
    missing      is put between its neighbours. Where many are, as in MPEG-PS, and the rest is about even: all are
    impossible   more than 1000 frames per second, as muxers write them that were given another unit: the codec's rate,
                 where its header has a lower one

"As usual" is the median distance of two frames. The rate of a video is the mean one, pauses and jumps aside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Final

import numpy as np
import numpy.typing as npt

from vidtrain.data.readers.pyav.opening import OpenFile

Longs = npt.NDArray[np.int64]

_NEW_CLOCKS: Final = 0x200  # AVFMT_TS_DISCONT
_JUMP: Final = 10  # seconds
_TOLERATED: Final = 100  # of a jump: a dts may step back by less, as careless muxers write them
_PAUSE: Final = 20  # times the usual distance, and longer than _JUMP
_ROUNDED: Final = 1e-3  # seconds; what containers round times to, and the least that counts as a change of rate
_NAMED: Final = 3  # jumps that a note names
_BELIEVED: Final = 0.05  # share of the frames that may be at odds; with more, frames are taken to be evenly spaced
_NEAR: Final = 3  # frames
_STUCK: Final = 3  # steps in a row
_FASTEST: Final = 1020.0  # frames per second: high-speed cameras write 240 to 1000, and containers round


@dataclass(frozen=True)
class Timing:
    """When F frames are shown.

    fps: frames per second; above 0.
    times: float64 (F + 1,), ascending: seconds at which each frame appears, from 0, and at which the last one ends
        (after as long as the one before it). None: frame k appears at k / fps, within what containers round times to.
    note: what is odd about the timestamps, "" for nothing.
    """

    fps: float
    times: npt.NDArray[np.float64] | None = None
    note: str = ""


def allows_new_clocks(file: OpenFile) -> bool:
    """True for containers in which timestamps may start again at any packet."""
    return bool(int(file.container.format.flags) & _NEW_CLOCKS)


def jump_ticks(unit: Fraction) -> int:
    """The distance from which on two timestamps belong to different clocks, in ticks of `unit` seconds."""
    return int(_JUMP / unit)


def timing(file: OpenFile, shown: Longs | Sequence[int | None]) -> Timing:
    """Args: the file; the pts of its F frames in the order shown, None where there is none."""
    found = _stamped(file, shown)
    if found.fps <= _FASTEST:
        return found
    said = f"the timestamps give {found.fps:.4g} frames per second"
    rate = float(file.stream.codec_context.framerate or 0)
    if 0 < rate <= _FASTEST:
        return Timing(rate, note=f"{said}, the codec's header {rate:.4g}, which is used")
    return replace(found, note=found.note or said)


def _stamped(file: OpenFile, shown: Longs | Sequence[int | None]) -> Timing:
    """By the timestamps alone."""
    unit = file.stream.time_base or Fraction(1)
    ticks, missing = _filled(shown)
    if ticks is None or len(ticks) < 2:
        return Timing(_container_rate(file), note=_missing(missing))
    if missing > _BELIEVED * len(ticks) and (rate := _even_rate(shown, unit)):
        return Timing(rate)
    steps = ticks[1:] - ticks[:-1]
    if not missing and (steps == steps[0]).all() and 0 < steps[0] <= jump_ticks(unit):
        return Timing(unit.denominator / (int(steps[0]) * unit.numerator))
    back = steps < 0
    jumps = back | (steps > jump_ticks(unit)) if allows_new_clocks(file) else back
    still = stuck(steps, unit)
    sound = ~(jumps | still)
    if not steps[sound].any():
        return Timing(_container_rate(file), note="the timestamps stand still or run backwards")
    near = steps[sound & (steps <= jump_ticks(unit))]
    moving = steps[sound & (steps * 10 >= near.mean())] if len(near) else steps[sound]
    usual = int(np.median(moving)) or 1  # not of what stands nearly still
    note = _missing(missing) or _described(steps, jumps, unit) or _still(still) or _repeated(steps)
    if np.count_nonzero(~sound) > _BELIEVED * len(steps):
        return Timing(float(1 / (usual * unit)), note=note)
    steps = np.where(sound, steps, usual)
    pauses = steps > max(jump_ticks(unit), _PAUSE * usual)
    note = note or _described(steps, pauses, unit)
    fps = float(int((~pauses).sum()) / (int(steps[~pauses].sum()) * unit))
    seconds = np.concatenate([[0], np.cumsum(steps), [0]]) * float(unit)
    seconds[-1] = seconds[-2] + int(steps[-1] or usual) * float(unit)
    grid = np.arange(len(ticks)) / fps
    even = np.abs(seconds[:-1] - grid).max() <= min(max(_ROUNDED, float(unit)), 0.25 / fps)
    return Timing(fps, None if even else seconds, note)


def stuck(steps: Longs, unit: Fraction, least: int = _STUCK) -> npt.NDArray[np.bool_]:
    """Which distances of neighbouring timestamps are too small to be meant, in runs of at least so many."""
    if len(steps) < least or int(steps.min()) * unit.numerator > _ROUNDED * unit.denominator:
        return np.zeros(len(steps), np.bool_)
    known = steps[(steps > 0) & (steps <= jump_ticks(unit))]
    tiny = (steps >= 0) & (steps * float(unit) <= _ROUNDED) & (steps * 10 < known.sum() / max(1, len(known)))
    ends = np.flatnonzero(np.diff(np.concatenate([[False], tiny, [False]]).astype(np.int8)))
    for first, end in zip(ends[::2], ends[1::2], strict=True):
        tiny[first:end] = end - first >= least
    return tiny


def one_clock(pts: Longs, dts: list[int | None], key: npt.NDArray[np.bool_], jump: int) -> Longs | None:
    """The pts as if the clock had never been set back or forward on the way, so that they tell the order.

    What lies before a keyframe is shown before it. So a keyframe that comes earlier than what precedes it, or more than
    `jump` later, begins with a new clock; between keyframes a dts that does so tells the same. A pts that is more than
    `jump` behind its dts is of the clock that the dts come to later: the frame is the first after a pause.

    Args:
        pts, dts, key: of each packet in file order.
        jump: ticks that no two frames are apart by the same clock.

    Returns:
        int64 (N,), or None when they do not tell the order.
    """
    known = np.array([n for n, time in enumerate(dts) if time is not None], np.int64)
    decoded = np.array([time for time in dts if time is not None], np.int64)
    steps = decoded[1:] - decoded[:-1]
    odd = (steps < -jump // _TOLERATED) | (steps > jump)
    keys = np.flatnonzero(key)[1:]
    ahead = pts[keys] - np.maximum.accumulate(pts)[keys - 1]
    if not odd.any() and ((ahead > 0) & (ahead <= jump)).all():
        return pts if (pts[known] >= decoded).all() else None
    breaks = dict(zip(known[1:][odd].tolist(), steps[odd].tolist(), strict=True))
    gaps = np.diff(np.sort(pts))
    usual = int(np.median(gaps[gaps > 0])) if gaps.any() else 1
    early = np.zeros(len(pts), np.bool_)
    early[known] = pts[known] - decoded > jump
    clock, offset, latest, last, begin = pts.copy(), 0, int(pts[0]), 0, 0
    for place in sorted({*keys.tolist(), *breaks}):
        clock[last:place] += offset
        latest, last = max(latest, int(clock[last:place].max())), place
        if key[place] and not early[place]:
            step = int(pts[place]) + offset - latest
            if not 0 < step <= jump:
                offset += usual - step
        elif place in breaks:
            offset += usual - breaks[place]
            clock[begin:place][early[begin:place]] += usual - breaks[place]
            begin = place
    clock[last:] += offset
    return clock


def by_decoding(packets: Sequence[int | None], decoded: Sequence[int | None], held: int) -> Longs:
    """When F frames are shown of which it is only known when they are decoded, as int64 (F,).

    A frame is shown as many packets late as the one that is held back longest, or as the stream's header announces:

        packet     I  P  B  P  B  P        decoded at   0  1  2  6  7  8
        shown      I  B  P  B  P  P        shown at     1  2  6  7  8  9        P is held back for 1 packet

    Args:
        packets: of each frame in the order shown, the number of its packet.
        decoded: of each of these packets, the dts.
        held: packets for which the decoder held back the first frame.
    """
    turns = np.argsort(np.argsort(np.array(packets), kind="stable"))
    late = min(max(held, int((turns - np.arange(len(turns))).max())), len(turns) - 1)
    ticks = np.sort(np.array(decoded, np.int64))
    usual = int(np.median(np.diff(ticks))) if len(ticks) > 1 else 0
    return np.append(ticks[late:], ticks[-1] + usual * np.arange(1, late + 1))


def _container_rate(file: OpenFile) -> float:
    """The container's word, or 1."""
    return float(file.stream.average_rate or file.stream.guessed_rate or 1)


def _filled(shown: Longs | Sequence[int | None]) -> tuple[Longs | None, int]:
    """The pts with those that are missing put between their neighbours, and how many those were."""
    if isinstance(shown, np.ndarray):
        return shown, 0
    places = np.array([place for place, pts in enumerate(shown) if pts is not None], np.int64)
    known = np.array([pts for pts in shown if pts is not None], np.int64)
    missing = len(shown) - len(known)
    if not missing:
        return known, 0
    if len(known) < 2:
        return None, missing
    step = float(np.median(np.diff(known) / np.diff(places)))
    every = np.arange(len(shown))
    ticks = np.interp(every, places, known.astype(np.float64))
    ticks += step * (np.minimum(every - places[0], 0) + np.maximum(every - places[-1], 0))
    return np.round(ticks).astype(np.int64), missing


def _even_rate(shown: Longs | Sequence[int | None], unit: Fraction) -> float | None:
    """Frames per second when each pts that is there is within 3 frames of what a constant rate would make it.

    Demuxers of MPEG-PS give the pts of a block to a frame near the one that it belongs to.
    """
    known = [(place, pts) for place, pts in enumerate(shown) if pts is not None]
    (first, start), (last, end) = known[0], known[-1]
    if end <= start:
        return None
    step = (end - start) / (last - first)
    if any(abs(pts - start - (place - first) * step) > _NEAR * step for place, pts in known):
        return None
    return float(Fraction(last - first, end - start) / unit)


def _missing(count: int) -> str:
    return f"{count} frames have no timestamp" if count else ""


def _repeated(steps: Longs) -> str:
    same = steps == 0
    if not same.any():
        return ""
    return f"{int(same.sum())} frames have the timestamp of the one before, the first is frame {int(same.argmax()) + 1}"


def _still(still: npt.NDArray[np.bool_]) -> str:
    if not still.any():
        return ""
    return f"the timestamps of {int(still.sum())} frames stand still, the first of them frame {int(still.argmax()) + 1}"


def _described(steps: Longs, odd: npt.NDArray[np.bool_], unit: Fraction) -> str:
    """'the timestamps jump by 3600 s at frame 50', of the first few."""
    at = np.flatnonzero(odd)
    named = [
        f"{'jump' if steps[place] >= 0 else 'step back'} by {abs(float(int(steps[place]) * unit)):.6g} s "
        f"at frame {place + 1}"
        for place in at[:_NAMED]
    ]
    more = f" and at {len(at) - _NAMED} more" if len(at) > _NAMED else ""
    return f"the timestamps {', '.join(named)}{more}" if named else ""
