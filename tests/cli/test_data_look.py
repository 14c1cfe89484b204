"""vidtrain data show and doctor on real files."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import Call, error_line


@pytest.fixture
def options(tiny: list[str]) -> list[str]:
    return [option for option in tiny if option.startswith(("data.", "sampler.", "transform."))]


def test_show_writes_a_sheet_of_the_first_clips(call: Call, options: list[str]) -> None:
    done = call("data", "show", *options, "show.clips=3", "show.frames=2", "transform.policy=rand_augment")
    assert done.stdout.strip() == "3 clips of train: show/motion_train.png"
    image = np.asarray(Image.open("show/motion_train.png").convert("RGB"))
    assert image.shape[0] > 3 * 100
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 200  # frames, not an empty page
    again = call("data", "show", *options, "show.clips=3", "show.frames=2", "transform.policy=rand_augment")
    assert again.stdout == done.stdout
    assert np.array_equal(image, np.asarray(Image.open("show/motion_train.png").convert("RGB")))
    call("data", "show", *options, "split=test", "output=elsewhere", "show.clips=1", "show.frames=1")
    assert Path("elsewhere/motion_test.png").is_file()
    assert "show.clips=0: must be at least 1" in error_line(call("data", "show", *options, "show.clips=0", check=2))


def test_show_draws_what_happens_when(call: Call, options: list[str], tmp_path: Path) -> None:
    """Of rows that are segments, beside the sheet; each video once."""
    root = Path(next(o for o in options if o.startswith("data.root=")).removeprefix("data.root="))
    clips = sorted(root.rglob("*.mp4"))
    if not clips:  # made by the first command that reads them
        call("data", "show", *options, "show.clips=1", "show.frames=1")
        clips = sorted(root.rglob("*.mp4"))
    (tmp_path / "two").mkdir()
    for name, clip in zip("ab", clips, strict=False):
        (tmp_path / "two" / f"{name}.mp4").write_bytes(clip.read_bytes())
    rows = ["video,start,end,label", "a,0,0.3,walk", "a,0.3,0.6,run", "a,0.1,0.2,run", "b,0.2,0.5,walk"]
    (tmp_path / "two" / "labels.csv").write_text("\n".join(rows))
    data = [
        "data=segments",
        "data.root=two",
        "data.annotations=labels.csv",
        "data.val_fraction=0",
        "data.test_fraction=0",
    ]
    own = [option for option in options if not option.startswith("data.")]
    done = call("data", "show", *data, *own, "show.frames=1")
    assert "4 clips of train: show/segments_two_train.png" in done.stdout
    assert "what happens when in 2 videos of them: show/segments_two_train_timeline.png" in done.stdout
    image = np.asarray(Image.open("show/segments_two_train_timeline.png").convert("RGB"))
    walk, run = (np.abs(image.astype(int) - colour).sum(2) < 30 for colour in ((238, 102, 119), (68, 119, 170)))
    assert walk.any(1).sum() > 1.5 * run.any(1).sum() > 0  # a row of bars in both videos, and in one
    # axes reach the right edge, and the ends of the videos, which are later than those of the labels
    assert run.any(0).nonzero()[0].max() < 0.85 * image.shape[1]


def test_doctor_measures_and_says_what_limits(call: Call, options: list[str]) -> None:
    args = ["doctor.seconds=0.1", "doctor.videos=8", "doctor.batch_size=4", "doctor.device=cpu", "num_workers=0"]
    done = call("data", "doctor", *options, *args, "model.width=4", "doctor.copies=false")
    for part in ("open the file", "decode, scale", "loader", "training step"):
        row = next(line for line in done.stdout.splitlines() if line.startswith(part))
        assert re.search(r"\d+\.\d", row)
    assert re.search(r"a run makes about [\d.]+ clips/s: the (data|model) limit", done.stdout)


def test_doctor_tries_copies_when_the_data_limit(call: Call, options: list[str]) -> None:
    args = ["doctor.seconds=0.1", "doctor.videos=4", "doctor.batch_size=4", "doctor.device=cpu", "num_workers=0"]
    # a network that does next to nothing, and much augmentation
    dear = ["transform.policy=rand_augment", "transform.hue=0.2", "transform.colour=0.4"]
    done = call("data", "doctor", *options, *args, *dear, "model=single_frame", "model.backbone=lecture")
    # which part is the worst depends on what else the machine does
    assert re.search(r"the data limit it .* above all \(\d+% of a clip's time\)", done.stdout)
    assert "vidtrain data prepare prepare.format=jpeg prepare.short_side=32" in done.stdout
    assert "vidtrain data prepare prepare.format=video" in done.stdout
