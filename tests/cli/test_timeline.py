"""predict timeline=true: windows with the probabilities of eval, segments as files that other programs read."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
import tracemalloc
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

import vidtrain
from tests.cli.conftest import Call, environment, error_line
from tests.videos import scene, write_video
from vidtrain.commands import predict as predict_module
from vidtrain.commands import timeline as timeline_module
from vidtrain.commands.predictor import Predictor
from vidtrain.commands.timeline import Slider, _Found, default_hop
from vidtrain.data.clips.sampling import sliding_clips
from vidtrain.data.clips.stream import BrokenClip, ClipBatch
from vidtrain.data.readers.pyav.reader import PyAVReader
from vidtrain.data.readers.timeline import Timeline
from vidtrain.data.settings import SamplerConfig
from vidtrain.errors import ConfigError, VideoError
from vidtrain.tasks.settings import SegmentsConfig

EVERYTHING = SegmentsConfig(smoothing=0, threshold=0)


@pytest.fixture(scope="module")
def clf(trained: Path) -> Predictor:
    return vidtrain.load(trained)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """70 frames with keyframes far apart."""
    folder = tmp_path_factory.mktemp("long")
    return write_video(folder / "long.mkv", scene(70), options={"qp": "0", "g": "30"})


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same frames at times of their own."""
    times = np.cumsum(np.where(np.arange(70) % 7 < 3, 1, 4)).tolist()
    folder = tmp_path_factory.mktemp("uneven")
    return write_video(folder / "uneven.mkv", scene(70), options={"qp": "0", "g": "30"}, times=times)


@pytest.mark.parametrize("which", ["video", "uneven"])
@pytest.mark.parametrize("fps", [None, 9.0])
@pytest.mark.parametrize("hop", [3, "0.25s"])
def test_windows_have_the_numbers_of_eval(
    clf: Predictor, which: str, fps: float | None, hop: Any, request: pytest.FixtureRequest
) -> None:
    """Of a window and of the file whose only clip it is."""
    path = request.getfixturevalue(which)
    before = clf.config.sampler
    clf.config.sampler = SamplerConfig(num_frames=8, stride=2, fps=fps)
    try:
        (timeline,) = Slider(clf, EVERYTHING, hop=hop).timelines([str(path)])
        windows = timeline.windows
        assert windows is not None
        whole = clf.predict(path, hop=hop)
        assert np.allclose(windows.probs.mean(0), whole.probabilities, atol=1e-5)
        with PyAVReader().open(str(path)) as opened:
            info = opened.info
            indices = sliding_clips(Timeline.of(info), clf.config.sampler, hop)
            frames = opened.read(np.arange(info.num_frames))
        assert len(windows) == len(indices) > 4
        times = np.arange(71) / info.fps if info.times is None else info.times
        assert np.allclose(windows.starts, times[indices[:, 0]])
        assert np.allclose(windows.ends, times[indices[:, -1] + 1])
        clf.config.sampler = SamplerConfig(num_frames=8, stride=1)
        for number in (0, 2, len(indices) - 1):
            alone = clf.predict(frames[indices[number]], clips=1)
            assert np.allclose(
                windows.probs[number], alone.probabilities, atol=2e-3
            )  # scaled from full size, not read so
    finally:
        clf.config.sampler = before


def test_a_part_has_the_windows_of_the_whole(clf: Predictor, tmp_path: Path) -> None:
    frames = scene(60)
    whole = write_video(tmp_path / "whole.mkv", frames)
    part = write_video(tmp_path / "part.mkv", frames[20:])
    one, other = (t.windows for t in Slider(clf, EVERYTHING, hop=4).timelines([str(whole), str(part)], workers=0))
    assert one is not None
    assert other is not None
    inside = one.starts >= 20 / 25
    assert inside.sum() == len(other) > 5
    assert np.allclose(one.probs[inside], other.probs, atol=1e-6)
    assert np.allclose(one.starts[inside], other.starts + 20 / 25)


def test_a_broken_stretch_is_skipped_and_said(clf: Predictor, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sound = write_video(tmp_path / "a.mp4", scene(200), codec="libx264", options={"g": "20", "bf": "0"})
    data = bytearray(sound.read_bytes())
    middle = len(data) // 2
    for at in range(middle, middle + 3000):
        data[at] ^= 0xFF
    (tmp_path / "broken.mp4").write_bytes(data)
    paths = [str(sound), str(tmp_path / "broken.mp4")]
    one, other = Slider(clf, EVERYTHING, hop=4).timelines(paths, workers=0)
    assert one.windows is not None
    assert other.windows is not None
    assert not one.unreadable
    assert 0.4 * len(one.windows) < len(other.windows) < len(one.windows)
    same = np.isin(one.windows.numbers, other.windows.numbers)
    assert np.array_equal(one.windows.probs[same], other.windows.probs)
    assert other.windows.numbers[-1] == one.windows.numbers[-1]  # it goes on behind
    ((start, end),) = other.unreadable
    assert 0 < start < end < other.seconds
    assert re.search(r"broken\.mp4: \d+ of \d+ windows are skipped, the first at [\d.]+ s: ", caplog.text)


def test_what_was_seen_before_a_restart_is_void(clf: Predictor) -> None:
    slider, found = Slider(clf, EVERYTHING), [_Found(), _Found()]
    clips, rows, none = torch.zeros(2, 8, 32, 32, 3, dtype=torch.uint8), torch.tensor([0, 1]), torch.empty(0).long()
    slider._collect(ClipBatch(clips, rows, torch.tensor([3, 4]), torch.tensor([9, 9])), found)
    assert [list(one.probs) for one in found] == [[3], [4]]
    slider._collect(ClipBatch(torch.empty(0), none, none, none, broken=[BrokenClip(0, 1, "x")], restarted=[0]), found)
    assert [list(one.probs) for one in found] == [[], [4]]
    assert [one.broken for one in found] == [{1: "x"}, {}]


def test_files_that_others_read(call: Call, trained: Path, video: Path, tmp_path: Path) -> None:
    odd = tmp_path / "clip, <b>1.mkv"
    shutil.copy(video, odd)
    options = [
        f"checkpoint={trained / 'best.pt'}",
        f"input={odd}",
        "timeline=true",
        "segments.threshold=0",
        "output=out",
    ]
    done = call("predict", *options, "overlay=true", "eval.hop=2")
    assert f"{odd}: " in done.stdout.splitlines()[0]
    home = tmp_path / "out" / odd.name
    names = {file.name for file in home.iterdir()}
    assert names == {
        "segments.csv", "segments.json", "segments.vtt", "boris.tsv", "windows.npz", "timeline.png", "overlay.mp4",
    }  # fmt: skip
    content = json.loads((home / "segments.json").read_text(encoding="utf-8"))
    assert content["file"] == str(odd)
    assert content["seconds"] == pytest.approx(70 / 25, abs=1e-3)
    segments = content["segments"]
    assert segments
    assert segments[0]["start"] == 0
    assert segments[-1]["end"] == pytest.approx(70 / 25, abs=1e-3)
    with (tmp_path / "out" / "segments.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [
        (row["file"], float(row["start"]), float(row["end"]), row["label"], float(row["score"])) for row in rows
    ] == [(str(odd), s["start"], s["end"], s["label"], s["score"]) for s in segments]
    assert {line.count("\t") for line in (home / "boris.tsv").read_text(encoding="utf-8").split("\n")} == {5}
    cues = (home / "segments.vtt").read_text(encoding="utf-8").split("\n\n")
    assert cues[0] == "WEBVTT"
    assert len(cues) == len(segments) + 1
    times = re.findall(r"(\d\d):(\d\d):(\d\d\.\d{3}) --> ", "\n".join(cues))
    assert [int(h) * 3600 + int(m) * 60 + float(s) for h, m, s in times] == [s["start"] for s in segments]
    with np.load(home / "windows.npz") as saved:
        assert saved["probs"].shape == (len(saved["starts"]), 8)
        assert saved["class_names"].tolist() == content["class_names"]
    with av.open(str(home / "overlay.mp4")) as container:
        shown = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(shown) == 70
    assert shown[0].shape == (360, 480, 3)  # 48 x 64, made larger so that the text can be read
    strip = shown[35][-15:].mean(axis=0)
    assert np.abs(strip[:-1] - strip[1:]).max() > 40  # the pointer, white on the strip
    assert (shown[35][:10, :40] < 60).mean() > 0.3  # the label's black ground
    # the same command again: the same folder, another video of the name another one
    call("predict", *options, "eval.hop=2")
    assert [file.name for file in (tmp_path / "out").iterdir() if file.is_dir()] == [odd.name]


def test_a_link_among_the_files_is_replaced_not_followed(
    call: Call, trained: Path, video: Path, tmp_path: Path
) -> None:
    home, outside = tmp_path / "out" / video.name, tmp_path / "outside"
    home.mkdir(parents=True)
    outside.write_text("mine")
    for name in ("timeline.png", ".overlay.mp4.part", "overlay.mp4", "segments.csv", "windows.npz"):
        (home / name).symlink_to(outside)
    options = [f"checkpoint={trained / 'best.pt'}", f"input={video}", "timeline=true", "overlay=true", "eval.hop=16"]
    call("predict", *options, "output=out")
    assert outside.read_text() == "mine"
    assert not any(file.is_symlink() for file in home.iterdir())
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / video.name).symlink_to(tmp_path / "out")
    assert "is a link" in error_line(call("predict", *options, "output=two", check=2))


def test_a_video_whose_overlay_cannot_be_keeps_its_segments(
    call: Call, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = np.zeros((12, 2, 1000, 3), np.uint8) + np.arange(12, dtype=np.uint8)[:, None, None, None]
    wide = write_video(tmp_path / "wide.mkv", frames, codec="ffv1")
    options = [f"checkpoint={trained / 'best.pt'}", f"input={wide}", "timeline=true", "segments.threshold=0"]
    call("predict", *options, "output=out", "overlay=true")
    with av.open(str(tmp_path / "out" / "wide.mkv" / "overlay.mp4")) as container:
        assert container.streams.video[0].width == 4096

    def broken(*_: Any, **__: Any) -> None:
        raise VideoError("wide.mkv", "no")

    monkeypatch.setattr(timeline_module, "encode_video", broken)
    done = call("predict", *options, "output=again", "overlay=true")
    assert "wide.mkv: no overlay (wide.mkv: no)" in done.stderr
    assert (tmp_path / "again" / "segments.csv").read_text().count("wide.mkv") >= 1
    monkeypatch.setattr(predict_module, "write_files", broken)
    call("predict", *options, "output=third", check=2)
    assert (tmp_path / "third" / "segments.csv").read_text().count("wide.mkv") >= 1  # what is known is not lost


def test_a_folder_for_each_name_without_making_all_of_them(tmp_path: Path) -> None:
    tracemalloc.start()
    try:
        assert timeline_module._home(tmp_path, "a.mp4") == tmp_path / "a.mp4"
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_several_videos_of_one_name(call: Call, trained: Path, video: Path, tmp_path: Path) -> None:
    for day in ("mon", "tue"):
        (tmp_path / "in" / day).mkdir(parents=True)
        shutil.copy(video, tmp_path / "in" / day / "cam.mp4")
    (tmp_path / "in" / "bad.mp4").write_bytes(b"no video")
    done = call("predict", f"checkpoint={trained / 'best.pt'}", "input=in", "timeline=true", "output=out", check=2)
    assert "bad.mp4: " in done.stderr
    assert "1 of 3 videos could not be read" in done.stderr
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["cam.mp4", "cam.mp4_2", "segments.csv"]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="the peak of a process's memory is read from /proc")
def test_two_hours_take_no_more_memory_than_two_minutes(trained: Path, tmp_path: Path) -> None:
    """And every minute of the same frames has the same windows."""
    minute = write_video(tmp_path / "minute.mp4", scene(600), fps=10, codec="libx264", options={"g": "10", "bf": "0"})
    peaks = []
    for minutes in (2, 120):
        path = tmp_path / f"{minutes}.mp4"
        with av.open(str(minute)) as source, av.open(str(path), "w") as target:
            stream = target.add_stream_from_template(source.streams.video[0])
            packets = [packet for packet in source.demux(video=0) if packet.dts is not None]
            length = 60 / packets[0].time_base
            for part in range(minutes):
                for packet in packets:
                    copy = av.Packet(bytes(packet))
                    copy.pts, copy.dts = packet.pts + int(part * length), packet.dts + int(part * length)
                    copy.time_base, copy.is_keyframe, copy.stream = packet.time_base, packet.is_keyframe, stream
                    target.mux(copy)
        code = (
            "import re, sys, numpy as np, vidtrain\n"
            "windows = vidtrain.load(sys.argv[1]).timeline(sys.argv[2], hop=10).windows\n"
            "np.save(sys.argv[3], windows.probs)\n"
            "print(int(re.search(r'VmHWM:\\s*(\\d+)', open('/proc/self/status').read())[1]) / 1024)\n"
        )
        command = [sys.executable, "-c", code, str(trained), str(path), str(tmp_path / f"{minutes}.npy")]
        done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=True)
        peaks.append(float(done.stdout))
    assert peaks[1] < peaks[0] + 100, peaks
    assert peaks[1] < 1024, peaks
    probs = np.load(tmp_path / "120.npy")
    assert len(probs) == 7201  # the last one ends with the video
    assert np.allclose(probs[:60], np.load(tmp_path / "2.npy")[:60], atol=1e-5)
    for part in (1, 60, 118):
        # but for the last one, which reaches into the next minute, all windows come again
        assert np.allclose(probs[60 * part : 60 * part + 60], probs[:60], atol=1e-5)


def test_from_python(clf: Predictor, video: Path) -> None:
    timeline = clf.timeline(video, threshold=0, smoothing=0)
    assert timeline.segments[0].start == 0
    assert timeline == next(Slider(clf, EVERYTHING).timelines([str(video)], workers=0))
    one, other = clf.timeline([video, video], background=[timeline.segments[0].label])
    assert one == other
    assert timeline.segments[0].label not in {s.label for s in one.segments}


def test_the_hop_of_a_window() -> None:
    assert default_hop(SamplerConfig(num_frames=16, stride=2)) == 7
    assert default_hop(SamplerConfig(num_frames=2, stride=1)) == 1
    assert default_hop(SamplerConfig(num_frames=16, fps=8.0)) == "0.500s"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["segments.background=[wlak]"], r"segments.background=wlak: no such class; classes: "),
        (["segments.threshold=2"], r"segments.threshold=2.0: must be at least 0 and at most 1"),
        (["overlay=true"], r"overlay=true writes a video: give output=FOLDER"),
        (["eval.hop=0"], r"eval.hop=0: must be at least 1"),
        (["sampler.mode=segments"], r"a clip of segments covers the whole video: it cannot slide"),
    ],
)
def test_mistakes_are_one_line(call: Call, trained: Path, video: Path, options: list[str], message: str) -> None:
    done = call("predict", f"checkpoint={trained / 'best.pt'}", f"input={video}", "timeline=true", *options, check=2)
    assert re.match(message, error_line(done))


def test_a_network_that_reads_flow(clf: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clf.model, "inputs", ("rgb", "flow"), raising=False)
    with pytest.raises(ConfigError, match=r"timeline=true reads RGB: .* also requires optical flow"):
        Slider(clf, EVERYTHING)


def test_times_are_exact_for_ntsc(clf: Predictor, tmp_path: Path) -> None:
    path = write_video(tmp_path / "ntsc.mp4", scene(60), fps=Fraction(30000, 1001), codec="libx264")
    timeline = clf.timeline(path)
    assert timeline.seconds == pytest.approx(60 * 1001 / 30000, abs=1e-3)
