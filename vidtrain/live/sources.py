"""What input= may name besides files: a camera, an address, a pipe, a file that still grows; and how each is opened.

What comes from there is a stranger's: FFmpeg reads a bounded part of it to find out what it is, and follows no address
in it to another kind of place (a playlist behind http:// cannot name a file of this machine).
"""

from __future__ import annotations

import logging
import re
import stat
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import av
from av.container import InputContainer

from vidtrain.data.readers.pyav.opening import LENIENT
from vidtrain.errors import ConfigError, VideoError, did_you_mean, one_of
from vidtrain.live.byte_streams import FollowedFile, Pipe
from vidtrain.live.settings import LiveConfig
from vidtrain.ranges import Choice

log = logging.getLogger("vidtrain")


class SourceKind(Choice):
    camera = "camera"
    network = "network"
    pipe = "pipe"
    file = "file"


_WEB: Final = "http,https,httpproxy,tcp,tls,crypto"
_PROTOCOLS: Final = {
    "rtsp": "rtsp,rtp,srtp,udp,tcp,tls",
    "rtsps": "rtsp,rtsps,rtp,srtp,udp,tcp,tls",
    "http": _WEB,
    "https": _WEB,
    "rtmp": "rtmp,tcp",
    "rtmps": "rtmps,tcp,tls",
    "srt": "srt,udp",
    "udp": "udp",
    "tcp": "tcp",
}
"""The schemes of addresses, and the protocols that FFmpeg may use for each."""
_CAMERAS: Final = {"linux": "v4l2", "darwin": "avfoundation", "win32": "dshow"}
_DEVICES: Final = ("v4l2", "avfoundation", "dshow", "x11grab", "gdigrab", "lavfi")
"""FFmpeg's names of what input=NAME:DEVICE opens."""
_BOUNDS: Final = {"probesize": "5000000", "analyzeduration": "5000000", "max_streams": "256"}
"""Bytes, microseconds and streams that FFmpeg looks at to find out what it is given."""
_OURS: Final = ("protocol_whitelist", "protocol_blacklist", "format_whitelist", "codec_whitelist")
_USUAL: Final = (
    *("video_size", "framerate", "pixel_format", "input_format", "channel", "standard", "list_formats", "vcodec"),
    *("rtsp_transport", "rtsp_flags", "user_agent", "headers", "cookies", "http_proxy", "referer", "ca_file"),
    *("tls_verify", "probesize", "analyzeduration", "fflags", "max_delay", "reorder_queue_size", "buffer_size"),
    *("reconnect", "reconnect_streamed", "timeout", "latency", "mode", "passphrase", "rtbufsize", "listen_timeout"),
)
"""Options of FFmpeg that streams are given; PyAV does not say which ones FFmpeg has not used."""
_SECRET: Final = re.compile(
    r"((?:^|[/?&;,])[^/=&;,#]*(?:pass|pwd|token|secret|key|auth|sig|user|login)[^/=&;,#]*=)[^&;#]*", re.IGNORECASE
)


@dataclass(frozen=True)
class StreamSource:
    """Where a stream comes from.

    name: for logs and files, without passwords. address: what is opened. format: FFmpeg's name; None: it is found out.
    """

    kind: SourceKind
    name: str
    address: str = field(repr=False)
    format: str | None = None
    options: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def passes(self) -> bool:
        """It does not wait for who reads it: what is not taken in time is lost. It is opened again when it is cut."""
        return self.kind in (SourceKind.camera, SourceKind.network)


def live_source(text: str, config: LiveConfig) -> StreamSource | None:
    """What input= names, where it is a stream; None for files, folders and globs.

    Raises:
        ConfigError: an address of another kind; options that cannot be given; follow with what is no file.
    """
    for key in config.options:
        if key in _OURS:
            raise ConfigError(f"live.options={key}: is set by vidtrain, so that a stream opens no file of this machine")
        if key not in _USUAL and (hint := did_you_mean(key, _USUAL)):
            log.warning("live.options=%s: FFmpeg passes over what it does not know%s", key, hint)
    source = _source(text, config)
    if config.follow and (source is None or source.kind is not SourceKind.file):
        raise ConfigError(f"live.follow=true goes with one file that is there, got input={masked(text)}")
    return source


def _source(text: str, config: LiveConfig) -> StreamSource | None:
    kinds, shown = SourceKind, masked(text)
    if text == "-":
        if sys.stdin is not None and sys.stdin.isatty():
            raise ConfigError(
                "input=-: reads a pipe, and this is a terminal: ffmpeg ... -f mpegts - | vidtrain predict ..."
            )
        return StreamSource(kinds.pipe, "stdin", "-", config.format, config.options)
    with suppress(OSError, ValueError):  # no such file, too long a name, a zero in it
        mode = Path(text).stat().st_mode
        if stat.S_ISFIFO(mode):
            return StreamSource(kinds.pipe, shown, text, config.format, config.options)
        if stat.S_ISCHR(mode) and sys.platform == "linux":
            return StreamSource(kinds.camera, shown, text, config.format or "v4l2", config.options)
        if config.follow and stat.S_ISREG(mode):
            return StreamSource(kinds.file, text, text, config.format, config.options)
        return None
    scheme, there, rest = text.partition(":")
    if scheme in _DEVICES and there:
        return StreamSource(kinds.camera, shown, rest, scheme, config.options)
    if text.isdecimal() and text.isascii():
        kind = config.format or _CAMERAS.get(sys.platform)
        if kind is None:
            raise ConfigError(f"input={text}: no cameras are known on {sys.platform}; give input=FORMAT:DEVICE")
        if kind == "dshow":
            raise ConfigError(f"input={text}: Windows calls cameras by name: input='dshow:video=NAME'")
        device = f"/dev/video{text}" if kind == "v4l2" else text
        return StreamSource(kinds.camera, f"camera {text}", device, kind, config.options)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text) is None:
        return None
    if scheme.lower() not in _PROTOCOLS:
        raise ConfigError(
            f"input={shown}: {scheme}:// is none of {one_of(_PROTOCOLS)}, which send a stream; of a store "
            "name one video (.../clip.mp4): folders there are not listed"
        )
    return StreamSource(kinds.network, shown, text, config.format, config.options)


def masked(address: str) -> str:
    """An address without user, password and what looks like one in its path or query."""
    start = re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", address)
    if start is None:
        return address
    rest = address[start.end() :]
    # as lenient as FFmpeg, which takes the last @ before the path; a password with a / in it goes as well
    cut = re.search(r"[?#]", rest)
    before, after = (rest, "") if cut is None else (rest[: cut.start()], rest[cut.start() :])
    if "@" in before:
        before = "***@" + before.rpartition("@")[2]
    elif "@" in after:  # a ? or # that is part of a password
        before, after = "***@" + after.rpartition("@")[2], ""
    return start[0] + _SECRET.sub(r"\1***", before) + _SECRET.sub(r"\1***", after)


def open_source(source: StreamSource, config: LiveConfig, stopped: Callable[[], bool]) -> InputContainer:
    """Open it; close what is returned, or PyAV leaks it.

    Args:
        stopped: whether what waits for bytes shall end; a camera or an address ends its wait after config.timeout.

    Raises:
        VideoError: it does not open. Neither the message nor its cause holds a password.
    """
    options = {**_BOUNDS, **_defaults(source), **source.options, "protocol_whitelist": _protocols(source)}
    wait: Any = (config.timeout, config.timeout) if source.passes else None
    try:
        what: Any = source.address
        if source.kind is SourceKind.pipe:
            what = Pipe(source.address, stopped)
        elif source.kind is SourceKind.file:
            what = FollowedFile(source.address, config.idle, stopped)
        return av.open(what, format=source.format, container_options=options, timeout=wait, **LENIENT)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise VideoError(source.name, _why(error, source, config)) from None


def _defaults(source: StreamSource) -> dict[str, str]:
    if source.kind is SourceKind.network and urlsplit(source.address).scheme.lower() in ("rtsp", "rtsps"):
        return {"rtsp_transport": "tcp"}  # over UDP a lost packet spoils all up to the next keyframe
    return {}


def _protocols(source: StreamSource) -> str:
    if source.kind is SourceKind.network:
        return _PROTOCOLS[source.address.partition(":")[0].lower()]
    # a camera is no protocol; pipes and files are read here: a playlist in them leads nowhere
    return "none"


def _why(error: Exception, source: StreamSource, config: LiveConfig) -> str:
    if isinstance(error, av.error.ExitError):
        return f"does not answer within {config.timeout:g} s (live.timeout)"
    if not isinstance(error, av.error.FFmpegError) and isinstance(error, ValueError):
        return f"does not open ({error})"  # no such format
    if isinstance(error, av.error.InvalidDataError):
        if source.kind in (SourceKind.pipe, SourceKind.file):
            return (
                "is no video stream that FFmpeg knows. An MP4 has its index at its end and cannot be read before: "
                "write .mkv or .ts; raw frames require live.format=rawvideo and live.options"
            )
        return "is no video stream that FFmpeg knows"
    said = getattr(error, "strerror", None) or type(error).__name__
    if source.kind is SourceKind.camera and source.format == "v4l2" and isinstance(error, FileNotFoundError):
        there = sorted(str(file) for file in Path("/dev").glob("video*"))
        return f"does not open ({said}: {source.address}); this machine has {one_of(there) or 'no /dev/video*'}"
    given = [key for key, there in (("live.format", source.format), ("live.options", source.options)) if there]
    hint = f": do {' and '.join(given)} fit it?" if given and isinstance(error, av.error.ArgumentError) else ""
    return f"does not open ({said}){hint}"
