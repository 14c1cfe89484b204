"""The pages of docs/ as a reader follows them: each command in its order, on small clips, with the files it names.

Excluded are those that need a download, several GPUs, a cluster, a camera or code of the reader's own.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.cli.conftest import Call
from tests.cli.test_documented_commands import ROOT, Shown, commands_of

PAGES = "README own_clips testing explain publish features"
SMALL = [
    *["sampler.num_frames=16", "sampler.stride=1", "transform.size=32", "transform.resize=32", "trainer.epochs=1"],
    *["schedule.warmup_epochs=0", "trainer.max_batches=2", "trainer.batch_size=4", "trainer.num_workers=0"],
    *["eval.figures=false", "report=false"],
]
SMALLER = {"model=c3d": ["model.width=4", "model.hidden=16"]}
ALSO = {
    "bench": ["seconds=0.05", "batch_size=[2]", "precision=[fp32]", "sampler.num_frames=8", "transform.size=32"],
    "data doctor": ["doctor.seconds=0.2", "doctor.videos=4", "doctor.batch_size=2", "transform.size=32"],
    "data prepare": ["prepare.short_side=32"],
    "compare": ["anyway=true"],  # the experiment of `vidtrain init` chooses clips of its own
}
OF_ONE_THAT_HAS_LEARNED = {"reject_precision=0.95": "reject_precision=0.2"}  # which the small networks have not
DOWNLOADS = re.compile(
    r"/data/|\.(pth|pyth|pickle)$|\bFILE\b|\bFOLDER\b|^model\.(weights|inflate_from|backbone_weights|network_weights)="
    r"|^model\.pretrained=\w*[0-9]|^model=cnn_lstm$|^config="
)


def file_of(page: str) -> Path:
    return ROOT / "README.md" if page == "README" else ROOT / "docs" / f"{page}.md"


def needs(shown: Shown) -> str:
    """Why a command cannot run here, "" where it can."""
    words = shown.words
    if any(DOWNLOADS.search(word) for word in words):
        return "a download"
    if any(word.startswith(("trainer.devices=", "hydra/launcher=")) for word in words):
        return "a cluster"
    if any(word.startswith("input=") and re.match(r"input=(\d+|\w+://.*)$", word) for word in words):
        return "a camera"
    if shown.own and "experiment=my_videos" not in words:
        return "the reader's own code"
    if shown.more or "data.root=my_tokens" in words or (len(words) == 1 and words[0] not in ("doctor", "board")):
        return "what stands for more"
    return ""


@pytest.fixture(scope="module")
def shelf(tiny: list[str], trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the pages speak of: clips of two classes in my_videos and DIR, clip.mp4, long.mp4, recordings, new_clips."""
    root = Path(next(o for o in tiny if o.startswith("data.root=")).removeprefix("data.root="))
    clips = sorted(root.rglob("train/*/*.mp4"))
    folder = tmp_path_factory.mktemp("shelf")
    for name in ("my_videos", "DIR"):
        for kind in ("walk", "fall"):
            for number in range(15):
                target = folder / name / kind / f"subject{number % 5}_{number:02}.mp4"
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(clips[(number + 5 * (kind == "walk")) % len(clips)], target)
    for target in ("clip.mp4", "long.mp4", "recordings/a.mp4", "new_clips/b.mp4"):
        (folder / target).parent.mkdir(exist_ok=True)
        shutil.copy(clips[0], folder / target)
    return folder


def filled(word: str) -> str:
    """A word of a page with the newest run, or sweep, in the place of what stands for one."""
    key, equals, value = word.rpartition("=") if "=" in word else ("", "", word)
    if "..." not in value and not re.search(r"20\d\d-\d\d-\d\d", value):
        return word
    pattern = re.sub(r"20\d\d-\d\d-\d\d_[\d-]+|\.\.\.", "*", value)
    found = sorted(Path().glob(pattern), key=lambda path: path.stat().st_mtime)
    wider = found or sorted(Path().glob(f"runs/**/{Path(value).name}"), key=lambda path: path.stat().st_mtime)
    assert wider, f"{word}: nothing before it on the page has made that"
    return f"{key}{equals}{wider[-1]}"


def small(words: Sequence[str], built_in: Sequence[str] = ()) -> list[str]:
    """The words with what makes them take seconds; a page's own options stay as they are.

    built_in: options of the built-in dataset, which a training has that names none.
    """
    verb = " ".join(words[:2]) if words[0] == "data" else words[0]
    more = [*SMALL, *(o for word in words for o in SMALLER.get(word, []))] if verb == "train" else ALSO.get(verb, [])
    own_data = any(word.startswith(("data=", "experiment=", "resume=")) for word in words)
    more = [*more, *built_in] if verb == "train" and not own_data else more
    given = {word.split("=")[0] for word in words}
    features = verb == "train" and "data=features" in words
    kept = [
        o for o in more if o.split("=")[0] not in given and not (features and o.startswith(("sampler", "transform")))
    ]
    return [*(filled(OF_ONE_THAT_HAS_LEARNED.get(word, word)) for word in words), *kept]


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES.split())
def test_the_commands_of_a_page_run_in_their_order(
    page: str, shelf: Path, call: Call, tiny: list[str], tmp_path: Path
) -> None:
    shutil.copytree(shelf, tmp_path, dirs_exist_ok=True)
    for setup in (
        [
            "train",
            "data=folder",
            "data.root=my_videos",
            "model=slow_fusion",
            "run_dir=runs/my_videos/slow_fusion/first",
        ],
        ["train", "data=folder", "data.root=my_videos", "model=c3d", "run_dir=runs/my_videos/c3d/first"],
    ):
        call(*small(setup))
    shutil.copy("runs/my_videos/c3d/first/best.pt", "best.pt")
    ran = 0
    for shown in commands_of(file_of(page)):
        if needs(shown) or shown.words[0] == "board":
            continue
        call(*small(shown.words, [o for o in tiny if o.startswith("data.")]))
        ran += 1
    assert ran >= 1


def test_what_a_page_needs_is_told_apart() -> None:
    def of(line: str) -> str:
        return needs(Shown("x.md:1", tuple(line.split()), own="my_conf" in line))

    assert of("train model=c3d data=folder data.root=my_videos") == ""
    assert of("train --config-dir my_conf experiment=my_videos") == ""
    assert of("train --config-dir my_conf hook=mine") == "the reader's own code"
    assert of("train data=kinetics data.root=/data/k400") == of("inspect weights=a.pth") == "a download"
    assert of("train model=i3d trainer.devices=8") == "a cluster"
    assert of("predict checkpoint=best.pt input=0") == of("predict checkpoint=best.pt input=rtsp://x/y") == "a camera"
    shown = [one for page in PAGES.split() for one in commands_of(file_of(page))]
    assert sum(not needs(one) for one in shown) > 30
