"""A small H.264 copy of a video that is quick to read at any place.

Chosen by measurement, CPU time of a clip of 16 frames, 4 apart, and size of the copy (short side 128, one core):

    keyframes every 16 frames, no scene cuts    a clip starts at a keyframe near it
    -tune fastdecode                            no deblocking and no CABAC: CABAC would save a fifth of the bytes and
                                                cost a fifth of the time
    three B-frames in a row, never fewer        nothing refers to them, so the reader skips those it does not need;
                                                a seventh less time and a sixth fewer bytes than x264's own choice
    psy=0                                       spends no bits on grain that only pleases the eye: a tenth fewer bytes
    mbtree=0                                    with it the same frames gave other bytes each time, on a processor with
                                                AVX-512; without it about 0.5 dB are lost where little moves
    one slice, one thread                       the loader's workers are the parallelism

The pixels go in as the RGB that a reader gives and are stored as BT.601 in limited range, unmarked, which every reader
takes such a file for.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import av
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

from vidtrain.data.prepare.frames import Times
from vidtrain.data.readers.pyav.to_rgb import ONE_THREAD, ImageArray
from vidtrain.errors import ConfigError

ENCODER: Final = "libx264"
_X264: Final = "scenecut=0:bframes=3:b-adapt=0:b-pyramid=none:weightb=1:psy=0:mbtree=0"


def check_encoder() -> None:
    """Raise ConfigError when this PyAV cannot write H.264."""
    try:
        av.codec.Codec(ENCODER, "w")
    except ValueError:
        raise ConfigError(
            f"prepare.format=video needs the encoder {ENCODER}, which this PyAV was built without: "
            "install PyAV's wheel (pip install --force-reinstall av), or use prepare.format=jpeg"
        ) from None


def encode_video(
    file: Path, images: Iterable[ImageArray], size: tuple[int, int], times: Times, *, crf: int, gop: int
) -> None:
    """Write an MP4 without audio; its index comes first, so that opening it is one read.

    Args:
        file: what to write, under any name.
        images: N RGB frames uint8 (H, W, 3).
        size: their height and width, both even.
        times: of the N frames.
        crf: x264's quality, 0 to 51.
        gop: frames from keyframe to keyframe.
    """
    options = {"crf": str(crf), "tune": "fastdecode", "x264-params": f"keyint={gop}:min-keyint={gop}:{_X264}"}
    with av.open(f"file:{file}", "w", format="mp4", options={"movflags": "faststart"}) as out:
        stream = out.add_stream(ENCODER, rate=times.fps, options=options)
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        stream.codec_context.time_base = stream.time_base = times.unit
        reformatter = VideoReformatter()
        for tick, image in zip(times.ticks.tolist(), images, strict=True):
            frame = VideoFrame.from_ndarray(image, format="rgb24")
            # AREA: the colours of 2x2 pixels are averaged, which comes closest to them
            frame = reformatter.reformat(frame, format="yuv420p", interpolation="AREA", **ONE_THREAD)
            frame.pts, frame.time_base = tick, times.unit
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
