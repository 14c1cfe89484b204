"""Videos stored as folders of images."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.videos import Pictures, info, read, refused, scene
from vidtrain.data.readers.any_path import AnyReader
from vidtrain.data.readers.image_folder import FrameFolderReader
from vidtrain.data.readers.pyav.reader import PyAVReader
from vidtrain.errors import VideoError

READER = FrameFolderReader()


def encode(picture: Pictures, kind: str, **options: object) -> bytes:
    """A picture file; lossless but for JPEG."""
    if kind == "jpeg":
        options = {"quality": 95, "subsampling": 0, **options}
    elif kind == "webp":
        options["lossless"] = True
    file = io.BytesIO()
    Image.fromarray(picture).save(file, kind, **options)
    return file.getvalue()


def write_folder(folder: Path, pictures: Pictures, names: list[str] | None = None) -> Path:
    """PNG files whatever they are called; 1.png, 2.png ... by default."""
    folder.mkdir(exist_ok=True)
    for number, picture in enumerate(pictures):
        name = names[number] if names else f"{number + 1}.png"
        (folder / name).write_bytes(encode(picture, "png"))
    return folder


class TestContract:
    """What every reader promises."""

    def test_info(self, tmp_path: Path) -> None:
        found = info(write_folder(tmp_path, scene(12)), READER)
        assert (found.num_frames, found.fps, found.height, found.width) == (12, 30.0, 48, 64)
        assert info(tmp_path, FrameFolderReader(fps=12.5)).fps == 12.5

    @pytest.mark.parametrize("indices", [[0], [11], [3, 7, 11], [11, 0, 5], [5, 5, 5], [9, 2, 9], list(range(12)), []])
    def test_frames_in_any_order(self, tmp_path: Path, indices: list[int]) -> None:
        """Natural order: 2 before 10."""
        frames = scene(12)
        found = read(write_folder(tmp_path, frames), indices, reader=READER)
        assert found.dtype == np.uint8
        assert found.flags.c_contiguous
        np.testing.assert_array_equal(found, frames[indices])

    @pytest.mark.parametrize("size", [(24, 32), (30, 52), (96, 128), (17, 33)])
    def test_size_is_one_bilinear_step(self, tmp_path: Path, size: tuple[int, int]) -> None:
        frames = scene(3)
        found = read(write_folder(tmp_path, frames), [1], size, reader=READER)
        frame = av.VideoFrame.from_ndarray(frames[1], format="rgb24")
        scaled = frame.reformat(width=size[1], height=size[0], format="rgb24", interpolation="BILINEAR")
        np.testing.assert_allclose(found[0].astype(int), scaled.to_ndarray().astype(int), atol=1)

    @pytest.mark.parametrize("number", [-1, 5])
    def test_no_such_frame_is_the_callers_mistake(self, tmp_path: Path, number: int) -> None:
        with pytest.raises(IndexError, match=f"frame {number} was asked for"):
            read(write_folder(tmp_path, scene(5)), [0, number], reader=READER)

    def test_pickles_to_a_worker(self) -> None:
        assert pickle.loads(pickle.dumps(READER)) == READER

    def test_is_chosen_for_folders(self, tmp_path: Path) -> None:
        frames = scene(3)
        np.testing.assert_array_equal(
            read(write_folder(tmp_path, frames), [2], reader=AnyReader(PyAVReader())), frames[[2]]
        )


class TestNames:
    """Which files of a folder are its frames."""

    def test_numbers_with_and_without_zeros(self, tmp_path: Path) -> None:
        frames = scene(4)
        names = ["img_00009.JPG", "img_00010.jpg", "img_00100.Jpeg", "img_01000.png"]
        np.testing.assert_array_equal(read(write_folder(tmp_path, frames, names), [0, 1, 2, 3], reader=READER), frames)

    def test_others_are_left_out(self, tmp_path: Path) -> None:
        frames = scene(9)
        names = [
            "img_1.jpg",
            "img_2.jpg",
            "flow_x_1.jpg",
            "flow_y_1.jpg",
            "x_1.png",
            "y_1.png",
            ".img_0.jpg",
            "notes.txt",
        ]
        write_folder(tmp_path, frames, [*names, "._img_1.jpg"])
        assert info(tmp_path, READER).num_frames == 2
        np.testing.assert_array_equal(read(tmp_path, [0, 1], reader=READER), frames[:2])

    def test_flow_alone_is_a_video_as_well(self, tmp_path: Path) -> None:
        assert info(write_folder(tmp_path, scene(2), ["flow_x_1.jpg", "flow_x_2.jpg"]), READER).num_frames == 2

    def test_kinds_that_cannot_be_told_apart(self, tmp_path: Path) -> None:
        write_folder(tmp_path, scene(4), ["img_1.jpg", "img_2.jpg", "img_3.jpg", "cover.jpg"])
        words = "holds images of several kinds (3 img_*, 1 cover*): keep one kind in a folder"
        assert refused(tmp_path, READER) == words

    def test_two_pictures_with_one_number(self, tmp_path: Path) -> None:
        write_folder(tmp_path, scene(3), ["img_1.jpg", "img_2.jpg", "img_02.jpg"])
        assert refused(tmp_path, READER) == "holds two images with one number: img_02.jpg and img_2.jpg"

    def test_no_pictures(self, tmp_path: Path) -> None:
        (tmp_path / "a.txt").touch()
        assert refused(tmp_path, READER) == "holds no images (.bmp, .jpeg, .jpg, .png, .webp)"
        assert refused(tmp_path / "none", READER) == "no such folder"
        assert refused(tmp_path / "a.txt", READER) == "is not a folder of images"
        assert "null" in refused("a\0b", READER)


class TestPictures:
    """What is in the files."""

    @pytest.mark.parametrize("kind", ["png", "bmp", "webp", "jpeg"])
    def test_by_content_and_not_by_name(self, tmp_path: Path, kind: str) -> None:
        frames = scene(5)
        for number, frame in enumerate(frames):
            (tmp_path / f"{number}.jpg").write_bytes(encode(frame, kind))
        found = read(tmp_path, [4, 0, 2], reader=READER)
        if kind == "jpeg":
            with Image.open(tmp_path / "0.jpg") as picture:
                np.testing.assert_allclose(found[1].astype(int), np.asarray(picture).astype(int), atol=3)
        else:
            np.testing.assert_array_equal(found, frames[[4, 0, 2]])

    @pytest.mark.parametrize("mode", ["L", "P", "RGBA", "I;16", "1"])
    def test_colours(self, tmp_path: Path, mode: str) -> None:
        with Image.fromarray(scene(1)[0]) as picture:
            picture = (
                picture.convert("L").convert("I").point(lambda x: x * 256).convert(mode) if mode == "I;16" else picture
            )
            picture.convert(mode).save(tmp_path / "1.png")
        with Image.open(tmp_path / "1.png") as picture:
            expected = np.asarray(picture) // 256 if mode == "I;16" else np.asarray(picture.convert("RGB"))
        expected = np.broadcast_to(expected[..., None] if expected.ndim == 2 else expected, (48, 64, 3))
        np.testing.assert_allclose(read(tmp_path, [0], reader=READER)[0].astype(int), expected.astype(int), atol=1)

    @pytest.mark.parametrize("note", range(1, 9))
    def test_a_cameras_orientation_is_followed(self, tmp_path: Path, note: int) -> None:
        exif = Image.Exif()
        exif[0x010E] = "a description before it"
        exif[0x0112] = note
        blocks = np.kron(scene(1, 5, 8)[0], np.ones((8, 8, 1), np.uint8))
        (tmp_path / "1.jpg").write_bytes(encode(blocks, "jpeg", exif=exif))
        with Image.open(tmp_path / "1.jpg") as picture:
            expected = np.asarray(ImageOps.exif_transpose(picture)).astype(int)
        found = info(tmp_path, READER)
        assert (found.height, found.width) == expected.shape[:2]
        np.testing.assert_allclose(read(tmp_path, [0], reader=READER)[0].astype(int), expected, atol=3)

    def test_another_size(self, tmp_path: Path) -> None:
        write_folder(tmp_path, scene(3))
        (tmp_path / "2.png").write_bytes(encode(scene(1, 40, 50)[0], "png"))
        np.testing.assert_array_equal(read(tmp_path, [2, 0], reader=READER), scene(3)[[2, 0]])
        with pytest.raises(VideoError, match=r"2\.png is 50x40, the first image 64x48"):
            read(tmp_path, [0, 1], (20, 20), reader=READER)

    @pytest.mark.parametrize("progressive", [False, True])
    @pytest.mark.parametrize("kind", ["png", "webp", "jpeg"])
    @pytest.mark.parametrize(
        "damage",
        [
            lambda data: data[: len(data) // 2],
            lambda data: data[:-1],
            lambda data: data[:40],
            lambda data: data[: len(data) // 2] + bytes(len(data) - len(data) // 2),
            lambda data: b"",
            lambda data: b"GIF89a" + data[6:],
        ],
    )
    def test_broken_ones_are_named(
        self, tmp_path: Path, kind: str, progressive: bool, damage: Callable[[bytes], bytes]
    ) -> None:
        if progressive and kind != "jpeg":
            pytest.skip("is for JPEG")
        frames = scene(3)
        for number, frame in enumerate(frames):
            options = {"progressive": True} if progressive else {}
            (tmp_path / f"{number}.{kind}").write_bytes(encode(frame, kind, **options))
        broken = tmp_path / f"1.{kind}"
        sound = read(tmp_path, [0, 2], reader=READER)
        broken.write_bytes(damage(broken.read_bytes()))
        with READER.open(str(tmp_path)) as video:
            with pytest.raises(VideoError, match=rf"1\.{kind} (is cut off|does not decode|is empty|is not a JPEG)"):
                video.read(np.array([0, 1, 2]))
            np.testing.assert_array_equal(video.read(np.array([0, 2])), sound)
        (tmp_path / f"0.{kind}").unlink()
        assert refused(tmp_path, READER).startswith(f"1.{kind} ")

    def test_one_that_is_gone(self, tmp_path: Path) -> None:
        write_folder(tmp_path, scene(3))
        with READER.open(str(tmp_path)) as video:
            (tmp_path / "2.png").unlink()
            with pytest.raises(VideoError, match=r"2\.png cannot be read \(No such file"):
                video.read(np.array([1]))
