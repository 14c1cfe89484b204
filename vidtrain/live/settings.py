"""The options of `vidtrain predict` on a stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from vidtrain.errors import ConfigError, did_you_mean, one_of
from vidtrain.ranges import LONGEST, Choice, number


class StateName(Choice):
    windows = "windows"
    renewed = "renewed"
    endless = "endless"


@dataclass
class AlarmConfig:
    """N of the last M windows; see live/alarm.py."""

    classes: list[str] = field(default_factory=list)
    """Classes that raise an alarm, a line {"alarm": ...} among the others; none: no alarms."""
    threshold: float = number(0.8, least=0, most=1)
    """What the probability of the class must reach in a window ..."""
    windows: int = number(3, least=1, most=1000)
    """... in at least so many ..."""
    of: int = number(5, least=1, most=1000)
    """... of the last so many windows."""
    cool_down: float = number(30.0, least=0, most=LONGEST)
    """Seconds after an alarm in which its class raises no other."""

    def check(self, class_names: Sequence[str]) -> None:
        """Raises ConfigError for a class that does not exist, and for more windows than there are."""
        for name in self.classes:
            if name not in class_names:
                hint = did_you_mean(name, class_names)
                raise ConfigError(f"live.alarm.classes={name}: no such class{hint}; classes: {one_of(class_names)}")
        if self.windows > self.of:
            raise ConfigError(f"live.alarm.windows={self.windows}: must be at most live.alarm.of={self.of}")


@dataclass
class LiveConfig:
    """A camera, an address, a pipe, or a file that still grows."""

    follow: bool = False
    """input is a file that is still written to: go on with what is added, as tail -f does."""
    idle: float = number(10.0, least=0, most=LONGEST)
    """follow: it has ended when it has not grown for so many seconds."""
    drop: bool | None = None
    """Drop windows that are too late; null: those of cameras and network streams, none of a pipe or a file."""
    late: float = number(1.0, above=0, most=LONGEST)
    """drop: seconds that the last frame of a window may wait for its turn; then the newest window is next."""
    state: StateName | None = None
    """Networks with a state: slide windows; or take each frame once, with renewed states or an endless one; null:
    windows, of a file that was exported with stream=true renewed."""
    format: str | None = None
    """Of the stream as FFmpeg names it, where it does not show: rawvideo, mjpeg, h264; null: it is found out."""
    options: dict[str, str] = field(default_factory=dict)
    """For FFmpeg: {video_size: 1280x720, framerate: "30"} of a camera, {rtsp_transport: udp}."""
    timeout: float = number(10.0, above=0, most=LONGEST)
    """Seconds that a camera or an address may take to open, and to give the next packet."""
    reconnect: int = number(10, least=0, most=1_000_000)
    """Times to try to open a stream again that has been cut, before it is an error."""
    backoff: float = number(1.0, above=0, most=LONGEST)
    """Seconds before the first try; twice as many before each of the next ..."""
    backoff_max: float = number(30.0, above=0, most=LONGEST)
    """... up to so many."""
    report: float = number(60.0, above=0, most=LONGEST)
    """Seconds from one line about latency to the next on stderr."""
    alarm: AlarmConfig = field(default_factory=AlarmConfig)
