"""The pages of docs/ as a reader follows them: each command in its order, on small clips, with the files it names.

Excluded, with the reason, are those that need a download, several GPUs, a cluster, a stream, a package that is not here
or code of the reader's own. A checkpoint takes the place of a published file whose features are extracted, and small
networks that of large ones.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.cli.conftest import Call
from tests.cli.test_documented_commands import PAGES, Shown, commands_of

SMALL = [
    *["sampler.num_frames=16", "sampler.stride=1", "transform.size=32", "transform.resize=32", "trainer.epochs=1"],
    *["schedule.warmup_epochs=0", "trainer.max_batches=2", "trainer.batch_size=4", "trainer.num_workers=0"],
    *["eval.figures=false", "report=false"],
]
SMALLER = {"model=c3d": ["model.width=4", "model.hidden=16"], "experiment=folder_small": ["transform.resize_max=36"]}
ALSO = {
    "bench": ["seconds=0.05", "batch_size=[2]", "precision=[fp32]", "sampler.num_frames=8", "transform.size=32"],
    "data doctor": ["doctor.seconds=0.2", "doctor.videos=4", "doctor.batch_size=2", "transform.size=32"],
    "data prepare": ["prepare.short_side=32"],
    "export": ["seconds=0.05", "int8_clips=4"],
}
INSTEAD: dict[str, list[str]] = {
    "reject_precision=0.95": ["reject_precision=0.2"],  # which small networks reach
    "sweep.trials=30": ["sweep.trials=2"],
    "experiment=search": ["experiment=search", "sweep.trials=2", "sweep.space.model=[early_fusion,slow_fusion]"],
    "data.fold=0,1,2,3,4": ["data.fold=0,1"],
    "model=c3d,s3d": ["model=early_fusion,slow_fusion"],
    "model=c3d,r3d_18": ["model=early_fusion,slow_fusion"],
    "model=c3d,s3d,i3d": ["model=early_fusion,slow_fusion,late_fusion"],
    "model=r3d_18": ["model=slow_fusion"],
    "model=videomae_vit_b": [],
    "model.weights=FILE": ["checkpoint=best.pt"],
}
BEFORE = {
    "compare": [
        ["train", "model=c3d"],
        ["train", "model=slow_fusion"],
        ["train", "-m", "model=early_fusion,slow_fusion", "optimizer.lr=0.05"],
    ],
    "export": [["train", "model=convlstm_tiny"]],
    "report": [["eval", "checkpoint=runs/my_videos/c3d", "eval.clips=10"]],
}
"""Of a page: what has been done before."""
DOWNLOADS = re.compile(
    r"^data\.root=/|^[\w.]+=.*\.(pth|pyth|pickle)$|\bFILE\b|\bFOLDER\b|^data=(ucf101|kinetics)$|^experiment=ucf101"
    r"|^model\.(weights|inflate_from|backbone_weights|network_weights)=(?!my_model)|^model\.pretrained=\w*[0-9]|^config="
)
PACKAGES = {
    "openvino": r"format=.*openvino",
    "onnxscript": r"export$",
    "trackio": r"logger=.*trackio",
    "aim": r"logger=.*aim",
    "optuna": r"hydra/sweeper=optuna|experiment=search",
    "cv2": r"flow=dis|method=dis",
}


def needs(shown: Shown) -> str:
    """Why a command cannot run here, "" where it can."""
    words = shown.words
    if any(word.startswith(("trainer.devices=", "hydra/launcher=")) for word in words):
        return "a cluster"
    if any(DOWNLOADS.search(word) for word in words):
        return "a download"
    if "batch_size=[32,64]" in words:
        return "a GPU"
    if any(word.startswith("input=") and re.match(r"input=(\d+|-|\w+://.*)$", word) for word in words):
        return "a stream"
    if "live.follow=true" in words:
        return "a file that grows"
    for package, pattern in PACKAGES.items():
        if any(re.match(pattern, word) for word in words) and find_spec(package) is None:
            return "a package"
    if any(re.search(r"=(mine|next_frame|predictor|\[mycode\])$", word) for word in words):
        return "the reader's own code"
    if shown.more or (len(words) == 1 and words[0] not in ("doctor", "board")):
        return "what stands for more"
    return ""


def walk(page: Path) -> list[tuple[Shown, str]]:
    """The commands of a page in their order, and why each cannot run here, "" where it can: nor can one that reads what
    another would have written."""
    found: list[tuple[Shown, str]] = []
    made: set[str] = set()
    lost: set[str] = set()
    for shown in commands_of(page):
        outputs = {word.partition("=")[2] for word in shown.words if word.startswith(("output=", "run_dir="))}
        if shown.words[0] == "extract" and not outputs & made:
            shown = replace(shown, words=tuple(own for word in shown.words for own in INSTEAD.get(word, [word])))
        values = [word.partition("=")[2] or word for word in shown.words[1:]]
        reads = any(f"{value}/".startswith(f"{one}/") for value in values for one in lost)
        reason = needs(shown) or ("another command" if reads else "")
        if reason:
            lost |= outputs - made
        else:
            made |= outputs
        found.append((shown, reason))
    return found


WALKS = {page.stem: found for page in PAGES if (found := walk(page)) and not all(reason for _, reason in found)}


@pytest.fixture(scope="module")
def shelf(tiny: list[str], trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the pages speak of: clips of two classes in my_videos and DIR, clip.mp4, long.mp4, new_clips, and recordings
    with their segments."""
    root = Path(next(o for o in tiny if o.startswith("data.root=")).removeprefix("data.root="))
    clips = sorted(root.rglob("train/*/*.mp4"))
    folder = tmp_path_factory.mktemp("shelf")
    for name in ("my_videos", "DIR"):
        for kind in ("walk", "fall"):
            for number in range(15):
                target = folder / name / kind / f"subject{number % 5}_{number:02}.mp4"
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(clips[(number + 5 * (kind == "walk")) % len(clips)], target)
    recordings = [f"recordings/{name}.mp4" for name in "abcdefgh"]
    for target in ("clip.mp4", "long.mp4", "new_clips/b.mp4", *recordings):
        (folder / target).parent.mkdir(exist_ok=True)
        shutil.copy(clips[0], folder / target)
    rows = [f"{Path(name).name},{start},{start + 0.2},{kind}" for name in recordings for start, kind in SEGMENTS]
    (folder / "recordings" / "segments.csv").write_text("\n".join(["video,start,end,label", *rows]) + "\n")
    return folder


SEGMENTS = [(0.0, "walk"), (0.2, "fall")]


def write_files_of(page: Path) -> None:
    """The files that a page shows below a line such as `# my_conf/hook/mine.yaml`; parts of one file are one file."""
    lines = page.read_text(encoding="utf-8").splitlines()
    code = "\n".join(line[4:] if line.startswith("    ") else "" if not line else "# end" for line in lines)
    parts = re.split(r"^# ([\w/]+\.(?:py|yaml))\n", code, flags=re.MULTILINE)
    for name, text in zip(parts[1::2], parts[2::2], strict=True):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        with Path(name).open("a", encoding="utf-8") as file:
            file.write(re.split(r"^(?:# end|PYTHONPATH=.*|vidtrain .*)$", text, flags=re.MULTILINE)[0])


def filled(word: str) -> str:
    """A word of a page with the newest run, or sweep, in the place of what stands for one."""
    key, equals, value = word.rpartition("=") if "=" in word else ("", "", word)
    if "..." not in value and not re.search(r"20\d\d-\d\d-\d\d", value):
        return word
    pattern = re.sub(r"20\d\d-\d\d-\d\d_[\d-]+|\.\.\.", "*", value)
    found = sorted(Path().glob(pattern), key=lambda path: path.stat().st_mtime)
    assert found, f"{word}: nothing before it on the page has made that"
    return f"{key}{equals}{found[-1]}"


def small(words: Sequence[str], built_in: Sequence[str] = ()) -> list[str]:
    """The words with what makes them take seconds; a page's own options stay as they are.

    built_in: options of the built-in dataset, which a training has that names none.
    """
    verb = " ".join(words[:2]) if words[0] == "data" else words[0]
    more = [*SMALL, *(o for word in words for o in SMALLER.get(word, []))] if verb == "train" else ALSO.get(verb, [])
    own_data = any(word.startswith(("data=", "experiment=", "resume=")) for word in words)
    more = [*more, *built_in] if verb == "train" and not own_data else more
    more = [*more, *built_in] if "data=motion" in words else more
    given = {word.split("=")[0] for word in words}
    features = verb == "train" and ("data=features" in words or "experiment=few_shot" in words)
    kept = [
        o for o in more if o.split("=")[0] not in given and not (features and o.startswith(("sampler", "transform")))
    ]
    return [*(filled(own) for word in words for own in INSTEAD.get(word, [word])), *kept]


@pytest.mark.slow
@pytest.mark.parametrize("page", WALKS)
def test_the_commands_of_a_page_run_in_their_order(
    page: str, shelf: Path, call: Call, tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(shelf, tmp_path, dirs_exist_ok=True)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mycode", raising=False)
    built_in = [o for o in tiny if o.startswith("data.")]
    for model in ("slow_fusion", "c3d"):
        call("train", *small(["train", f"model={model}", "data=folder", "data.root=my_videos"])[1:])
    shutil.copy(next(Path("runs/my_videos/c3d").glob("*/best.pt")), "best.pt")
    for words in BEFORE.get(page, []):
        call(*small(words, built_in))
    write_files_of(next(file for file in PAGES if file.stem == page))
    for shown, reason in WALKS[page]:
        if not reason and shown.words[0] != "board":
            call(*small(shown.words, built_in))


def test_what_a_page_needs_is_told_apart() -> None:
    def of(line: str) -> str:
        return needs(Shown("x.md:1", tuple(line.split()), own="my_conf" in line))

    assert of("train model=c3d data=folder data.root=my_videos") == ""
    assert of("train --config-dir my_conf experiment=my_videos") == ""
    assert of("train --config-dir my_conf hook=weight_norm") == ""
    assert of("train --config-dir my_conf model=mine") == "the reader's own code"
    assert of("train data=kinetics data.root=/data/k400") == of("inspect weights=a.pth") == "a download"
    assert of("train model=i3d trainer.devices=8") == "a cluster"
    assert of("predict checkpoint=best.pt input=0") == of("predict checkpoint=best.pt input=rtsp://x/y") == "a stream"


def test_every_command_runs_or_has_a_reason_not_to() -> None:
    reasons = Counter(reason for page in PAGES for _, reason in walk(page))
    known = ["", "a cluster", "a download", "a GPU", "a stream", "a file that grows", "a package", "another command"]
    assert reasons.keys() <= {*known, "the reader's own code", "what stands for more"}
    assert reasons[""] > 90
    assert reasons["what stands for more"] < 10
    assert {"README", "training", "data", "flow", "speed", "sweeps", "export", "timeline", "report"} <= WALKS.keys()


def test_the_files_that_a_page_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = tmp_path / "page.md"
    page.write_text(
        "Text\n\n    # my.py\n    a = 1\n\n    b = 2\n\n    # conf/x.yaml\n    c: 3\n\n    vidtrain train\n\nText\n\n"
        "    # my.py\n    d = 4\n\nText\n"
    )
    write_files_of(page)
    assert Path("my.py").read_text() == "a = 1\n\nb = 2\n\nd = 4\n\n"
    assert Path("conf/x.yaml").read_text() == "c: 3\n\n"
