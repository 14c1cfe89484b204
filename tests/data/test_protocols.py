"""Frames and crops of other code bases: against tables that their own code made (the folder VIDTRAIN_PROTOCOLS, or
shared/protocols beside the code), and by properties beyond the tables."""

from __future__ import annotations

import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidtrain.data.clips.protocols import check_clips, protocol_clips
from vidtrain.data.clips.sampling import ClipSpec
from vidtrain.data.clips.transforms import EvalCrops
from vidtrain.data.readers.timeline import Timeline
from vidtrain.data.settings import EvalProtocol as P
from vidtrain.data.settings import TransformConfig
from vidtrain.errors import ConfigError, DataError
from vidtrain.types import VideoInfo

TABLES = Path(os.environ.get("VIDTRAIN_PROTOCOLS", Path(__file__).parents[3] / "shared" / "protocols"))
FILES = {
    "pyslowfast": P.pyslowfast,
    "pytorchvideo": P.pytorchvideo,
    "pytorchvideo_0.1.5": P.pytorchvideo_0_1_5,
    "torchvision": P.torchvision,
    "mmaction2": P.mmaction2,
    "tsm": P.tsm,
    "videomae": P.videomae,
    "videomae_v2": P.videomae,
    "internvideo2": P.internvideo2,
}


@lru_cache
def table(name: str) -> dict[str, Any]:
    file = TABLES / f"{name}.json"
    if not file.is_file():
        pytest.skip(f"no {file}; set VIDTRAIN_PROTOCOLS")
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def segments(num_frames: int) -> ClipSpec:
    return ClipSpec(num_frames, mode="segments")


def options_of(name: str, settings: dict[str, Any]) -> tuple[P, ClipSpec, int] | None:
    """What a vidtrain user gives for a code base's settings; None: what we do not have."""
    protocol, s = FILES[name], settings
    if name == "pyslowfast":
        protocol = P.pyslowfast_offset if s["USE_OFFSET_SAMPLING"] else protocol
        return protocol, ClipSpec(s["NUM_FRAMES"], s["SAMPLING_RATE"]), s["NUM_ENSEMBLE_VIEWS"]
    if name.startswith("pytorchvideo"):
        usual = s["clip_duration"] == s["num_frames"] * s["sampling_rate"] / 30
        fps = None if usual else s["num_frames"] / s["clip_duration"]
        return protocol, ClipSpec(s["num_frames"], s["sampling_rate"], fps), s["clips_per_video"]
    if name == "torchvision":
        known = s["step_between_clips"] == 1  # the reference script's; the other one stands there for contrast
        return (protocol, ClipSpec(s["clip_len"], 1, s["frame_rate"]), s["clips_per_video"]) if known else None
    if name == "mmaction2":
        return mmaction2_options(s)
    if name == "tsm":
        parts = s["test_segments"]
        if s["dense_sample"]:
            return protocol, ClipSpec(parts, window=64), 10
        return protocol, segments(parts), 2 if s["twice_sample"] else 1
    if s["data_set"] == "SSV2" or s.get("sparse_sample") or s["data_set"] == "Kinetics_sparse":
        return protocol, segments(s["num_frames"]), s["test_num_segment"]
    return protocol, ClipSpec(s["num_frames"], s["sampling_rate"]), s["test_num_segment"]


def mmaction2_options(s: dict[str, Any]) -> tuple[P, ClipSpec, int] | None:
    if s["type"] == "UniformSample":
        return P.mmaction2_uniform, segments(s["clip_len"]), s["num_clips"]
    if s["type"] == "DenseSampleFrames":
        return P.mmaction2, ClipSpec(s["num_clips"], window=64), 10
    if s["type"] == "UniformSampleFrames" or "out_of_bound_opt" in s:  # of skeletons; another rule for short videos
        return None
    if s["clip_len"] == 1:
        return P.mmaction2, segments(s["num_clips"]), 2 if s.get("twice_sample") else 1
    fps = s["target_fps"] / s["frame_interval"] if "target_fps" in s else None
    return P.mmaction2, ClipSpec(s["clip_len"], s["frame_interval"], fps), s["num_clips"]


@pytest.mark.parametrize("name", FILES)
def test_frames_are_those_of_the_code_base(name: str) -> None:
    checked = 0
    for case in table(name)["temporal"]:
        options = options_of(name, case["settings"])
        # PySlowFast's fallback where its reader fails on the clip, see the README of the tables
        if options is None or case["settings"].get("decoding") == "whole":
            continue
        protocol, spec, clips = options
        fps = {None: 25.0, 29.97: 30000 / 1001}.get(case["fps"], case["fps"])
        if case.get("no_clip"):
            with pytest.raises(DataError, match="torchvision, which skips it"):
                protocol_clips(protocol, Timeline(case["num_frames"], fps), spec, clips)
        else:
            found = protocol_clips(protocol, Timeline(case["num_frames"], fps), spec, clips)
            assert found.tolist() == case["clips"], case
        checked += 1
    assert checked >= 20


@pytest.mark.parametrize("name", FILES)
def test_crops_are_those_of_the_code_base(name: str) -> None:
    checked = 0
    for case in table(name)["spatial"]:
        s, size = case["settings"], case["crops"][0]["size"]
        if s.get("resized_by") == "torch":  # its other reader's size; see the README of the tables
            continue
        resize = s.get("scale") or s.get("ShortSideScale") or s.get("scale_size") or s.get("short_side_size")
        resize = resize or s.get("Resize", [0, 0])[1] or s["resize_size"][0]
        squash = len(s.get("resize_size", [])) == 2
        if squash and len(set(s["resize_size"])) == 2:
            resize = "{}x{}".format(*s["resize_size"])
        cuts = EvalCrops(TransformConfig(size, resize=resize, squash=squash), len(case["crops"]), FILES[name])
        (width, height), found = case["source"], []
        for cut in cuts.all(VideoInfo(10, 25.0, height, width)):
            found.append({"x": cut.left, "y": cut.top, "size": cut.size, "resize": list(cut.read_size[::-1])})
            found[-1] |= {"flip": True} if cut.flip else {}
        assert found == case["crops"], case
        checked += 1
    assert checked >= 5


# ---------------------------------------------------------------- rows of the tables, for machines without them

ROWS = [
    (P.pyslowfast, 151, 24.0, ClipSpec(8, 8), 5, 1, [20, 27, 34, 41, 48, 55, 63, 70]),
    (P.pyslowfast, 10, 24.0, ClipSpec(8, 8), 5, 4, [0, 7, 9, 9, 9, 9, 9, 9]),
    (P.pyslowfast, 569, 25.0, ClipSpec(8, 8), 7, 4, [295, 302, 309, 317, 324, 332, 339, 347]),  # ends at 346.99999...
    (P.pyslowfast_offset, 151, 24.0, ClipSpec(8, 8), 5, 4, [96, 103, 110, 117, 124, 131, 139, 146]),
    (P.torchvision, 151, 24.0, ClipSpec(8, 2, 15), 5, 4, [137, 139, 140, 142, 144, 145, 147, 148]),
    (P.torchvision, 64, 60.0, ClipSpec(16, 1, 15), 5, 3, [*range(0, 64, 4)]),
    (P.mmaction2_uniform, 151, 25.0, segments(8), 4, 2, [11, 30, 49, 67, 86, 105, 123, 142]),
    (P.mmaction2, 10, 25.0, ClipSpec(8, window=64), 10, 9, [0, 8, 6, 4, 2, 0, 8, 6]),
    (P.tsm, 151, 25.0, segments(8), 2, 0, [9, 28, 47, 66, 84, 103, 122, 141]),
    (P.tsm, 151, 25.0, segments(8), 2, 1, [0, 18, 37, 56, 75, 94, 113, 132]),
    (P.videomae, 151, 25.0, ClipSpec(4, 4), 5, 1, [32, 36, 40, 44]),
    (P.videomae, 10, 25.0, ClipSpec(4, 4), 5, 4, [0, 4, 8, 8]),
    (P.videomae, 10, 25.0, segments(8), 2, 1, [0, 1, 3, 4, 5, 6, 8, 9]),
    (P.internvideo2, 64, 25.0, segments(8), 4, 3, [6, 14, 22, 30, 38, 45, 53, 61]),
]


@pytest.mark.parametrize(("protocol", "total", "fps", "spec", "clips", "clip", "frames"), ROWS)
def test_rows(protocol: P, total: int, fps: float, spec: ClipSpec, clips: int, clip: int, frames: list[int]) -> None:
    assert protocol_clips(protocol, Timeline(total, fps), spec, clips)[clip].tolist() == frames


def test_pyslowfast_steps_more_than_its_rate() -> None:
    first, *_ = protocol_clips(P.pyslowfast, Timeline(300, 30.0), ClipSpec(8, 8), 10).tolist()
    assert first == [9 * k for k in range(8)]
    by_fps = protocol_clips(P.pyslowfast, Timeline(300, 30.0), ClipSpec(8, 1, fps=3.75), 10)
    assert by_fps[0].tolist() == first


def test_pytorchvideo_stretches_a_short_video_and_its_release_ends_before_the_video() -> None:
    short = protocol_clips(P.pytorchvideo, Timeline(10, 25.0), ClipSpec(8, 8), 3)
    assert short.tolist() == [[0, 1, 2, 3, 5, 6, 7, 9]] * 3
    ends = [
        protocol_clips(p, Timeline(300, 30.0), ClipSpec(8, 8), 10)[-1, -1]
        for p in (P.pytorchvideo, P.pytorchvideo_0_1_5)
    ]
    assert ends == [299, 276]


def test_times_of_frames_decide_where_a_protocol_thinks_in_seconds() -> None:
    """Half of the frames in the first second, half in the next nine: clips of 2 s out of 10."""
    times = np.concatenate([np.arange(50) / 50, 1 + np.arange(51) * 9 / 50])
    found = protocol_clips(P.pytorchvideo, Timeline(100, 10.0, times), ClipSpec(5, fps=2.5), 2)
    assert found[0].tolist() == [0, 13, 27, 41, 55]  # 56 frames appear before 2 s
    assert found[1].tolist() == [89, 91, 94, 96, 99]


# ---------------------------------------------------------------- properties

KINDS = {
    "stride": st.builds(ClipSpec, st.integers(1, 40), st.integers(1, 12)),
    "fps": st.builds(ClipSpec, st.integers(1, 40), st.just(2), st.floats(1, 60)),
    "window": st.integers(1, 16).map(lambda t: ClipSpec(t, window=64)),
    "segments": st.integers(1, 40).map(segments),
}
TIMED, PARTS = ("stride", "fps"), ("segments",)
HAS: dict[P, tuple[str, ...]] = {
    P.pyslowfast: TIMED,
    P.pyslowfast_offset: TIMED,
    P.pytorchvideo: TIMED,
    P.pytorchvideo_0_1_5: TIMED,
    P.torchvision: TIMED,
    P.mmaction2: (*TIMED, "window", *PARTS),
    P.mmaction2_uniform: PARTS,
    P.tsm: ("window", *PARTS),
    P.videomae: ("stride", *PARTS),
    P.internvideo2: ("stride", *PARTS),
}


def test_every_protocol_is_here() -> None:
    assert {*HAS, P.vidtrain} == set(P)


@given(st.data(), st.sampled_from(list(HAS)), st.integers(1, 400), st.floats(5, 120), st.integers(1, 12))
def test_shape_type_and_range(data: st.DataObject, protocol: P, total: int, fps: float, clips: int) -> None:
    kind = data.draw(st.sampled_from(HAS[protocol]))
    spec = data.draw(KINDS[kind])
    if kind == "segments" and protocol in (P.mmaction2, P.tsm):
        clips = min(clips, 2)
    if kind == "stride" and protocol in (P.videomae, P.internvideo2):
        clips = max(clips, 2)
    try:
        found = protocol_clips(protocol, Timeline(total, fps), spec, clips)
    except DataError:
        assert protocol is P.torchvision
        return
    assert found.shape == (clips, spec.num_frames)
    assert found.dtype == np.int64
    assert found.min() >= 0
    assert found.max() < total
    if protocol not in (P.mmaction2, P.tsm):  # which wrap around, or take two clips of the same parts
        assert (np.diff(found) >= 0).all()
        assert (np.diff(found[:, 0]) >= 0).all()


@given(st.data(), st.sampled_from(list(HAS)), st.integers(60, 200), st.integers(1, 50), st.integers(0, 50))
def test_a_segment_is_a_video_by_itself(data: st.DataObject, protocol: P, length: int, start: int, after: int) -> None:
    spec = data.draw(KINDS[HAS[protocol][0]].filter(lambda s: s.span(25.0) < 60))
    alone = protocol_clips(protocol, Timeline(length, 25.0), spec, 2)
    first, last = start / 25, (start + length) / 25
    found = protocol_clips(protocol, Timeline(start + length + after, 25.0), spec, 2, first=first, last=last)
    assert np.array_equal(found, alone + start)


@pytest.mark.parametrize("protocol", [p for p in HAS if "segments" in HAS[p]])
def test_several_clips_of_segments_are_different_frames(protocol: P) -> None:
    first, second = protocol_clips(protocol, Timeline(400, 25.0), segments(8), 2)
    assert not set(first) & set(second)


# ---------------------------------------------------------------- what makes no sense


MISTAKES = [
    (
        P.pyslowfast,
        segments(8),
        1,
        None,
        "=pyslowfast: got sampler.mode=segments, expected clips of a stride",
    ),
    (P.torchvision, ClipSpec(8, window=64), 1, None, "got clips of sampler.window frames, expected clips of a stride"),
    (P.tsm, ClipSpec(), 1, None, "got clips of a stride .* expected sampler.mode=segments"),
    (P.videomae, ClipSpec(fps=15), 5, None, "got clips at sampler.fps"),
    (P.videomae, ClipSpec(), 1, None, "eval.clips=1: expected 2 or more"),
    (P.tsm, segments(8), 3, None, "eval.clips=3: expected 1 to 2 with sampler.mode=segments"),
    (P.pyslowfast, ClipSpec(), 5, 16, "it cannot slide: remove eval.hop=16"),
]


@pytest.mark.parametrize(("protocol", "spec", "clips", "hop", "message"), MISTAKES)
def test_mistakes(protocol: P, spec: ClipSpec, clips: int, hop: int | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        check_clips(protocol, spec, clips, hop)
    assert "\n" not in str(error.value)
    check_clips(P.vidtrain, spec, clips, hop)


@pytest.mark.parametrize(
    ("protocol", "crops", "allowed"),
    [(P.pyslowfast_offset, 5, "1, 3"), (P.videomae, 1, "3"), (P.tsm, 2, "1, 3, 5, 10")],
)
def test_crops_that_a_code_base_lacks(protocol: P, crops: int, allowed: str) -> None:
    with pytest.raises(ConfigError, match=f"eval.crops={crops}: eval.protocol={protocol.value} has {allowed}$"):
        EvalCrops(TransformConfig(32, resize=36), crops, protocol)


FRAME = VideoInfo(10, 25.0, 100, 200)
CROPS = {
    P.pyslowfast: (1, 3),
    P.pyslowfast_offset: (1, 3),
    P.pytorchvideo: (1, 3),
    P.pytorchvideo_0_1_5: (1, 3),
    P.torchvision: (1,),
    P.mmaction2: (1, 3, 10),
    P.mmaction2_uniform: (1, 3, 10),
    P.tsm: (1, 3, 5, 10),
    P.videomae: (3,),
    P.internvideo2: (1, 3),
}


@given(st.data(), st.sampled_from(list(HAS)), st.integers(4, 500), st.integers(4, 500), st.integers(4, 120))
def test_crops_lie_inside_the_frame(data: st.DataObject, protocol: P, height: int, width: int, size: int) -> None:
    crops = data.draw(st.sampled_from(CROPS[protocol]))
    resize = size + data.draw(st.integers(0, 30))
    transform = TransformConfig(size, resize=resize, squash=data.draw(st.booleans()))
    made = EvalCrops(transform, crops, protocol)
    cuts = made.all(VideoInfo(10, 25.0, height, width))
    assert len(cuts) == crops
    assert len({cut.read_size for cut in cuts}) == 1
    assert min(cuts[0].read_size) == made.scale
    assert len({(cut.top, cut.left, cut.flip) for cut in cuts}) == crops or min(cuts[0].read_size) < size + 8
    for cut in cuts:
        assert 0 <= cut.top <= cut.read_size[0] - size
        assert 0 <= cut.left <= cut.read_size[1] - size


@pytest.mark.parametrize("protocol", list(CROPS))
def test_some_scale_the_short_side_to_the_crop(protocol: P) -> None:
    whole = {P.videomae, P.internvideo2}
    for crops in CROPS[protocol]:
        (height, width), *_ = {
            cut.read_size for cut in EvalCrops(TransformConfig(32, resize=40), crops, protocol).all(FRAME)
        }
        with_three = crops == 3 and protocol not in (P.pytorchvideo, P.pytorchvideo_0_1_5, P.tsm)
        assert (height, width) == ((32, 64) if protocol in whole or with_three else (40, 80))


def test_the_middle_crop_is_rounded_as_the_code_base_does() -> None:
    """Frames of 45 x 32, whose crop of 32 has 13 pixels of room; then a crop of 36 in 45 x 45: 9."""
    three = {
        p: EvalCrops(TransformConfig(32, resize=32), 3, p).all(VideoInfo(10, 25.0, 32, 45))
        for p in HAS
        if 3 in CROPS[p]
    }
    lefts = {p: [cut.left for cut in cuts] for p, cuts in three.items()}
    assert lefts[P.pyslowfast] == lefts[P.pytorchvideo] == [0, 7, 13]
    assert lefts[P.mmaction2] == [0, 12, 6]
    assert lefts[P.tsm] == [0, 12, 6]
    assert lefts[P.videomae] == lefts[P.internvideo2] == [0, 6, 13]
    one = {
        p: EvalCrops(TransformConfig(36, resize=45), 1, p).all(VideoInfo(10, 25.0, 45, 45))
        for p in HAS
        if 1 in CROPS[p]
    }
    tops = {p: cut.top for p, (cut,) in one.items()}
    assert (tops[P.pyslowfast], tops[P.pytorchvideo], tops[P.mmaction2], tops[P.torchvision]) == (5, 4, 4, 4)
