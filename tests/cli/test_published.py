"""A published file is tested as published: its net, its clips and its classes come from it, by one command."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models import ResNet18_Weights
from torchvision.models.video import MC3_18_Weights

import vidtrain
from tests.cli.conftest import Call, Done, error_line
from tests.models import parity
from tests.models.test_movinet import theirs as movinet_file
from tests.models.test_parity_inception_tsn import _hassony2
from tests.models.test_parity_resnets import MMA, PSF, renamed
from tests.models.test_parity_transformers import (
    _hub_videomae,
    _hub_vivit,
    _mmaction_timesformer,
    _mmaction_uniformerv2,
)
from vidtrain import published
from vidtrain.data.motion.motion import CLASSES

State = dict[str, torch.Tensor]
THIN = {"depth": 14, "width": 8}
VIT = {"num_frames": 4, "size": 32, "width": 32, "depth": 2, "heads": 4}
HEADS = ["model.heads=4"]  # which no tensor shows
FAST = ["sampler.num_frames=4", "transform.size=32", "transform.resize=32"]


def net(name: str, **options: Any) -> nn.Module:
    model = vidtrain.create_model(name, num_classes=8, **options).eval()
    parity.drawn_weights(model)
    return model


def own(state: State) -> State:
    return state


def tsm(state: State) -> State:
    return {re.sub(r"(base_model\.layer\d\.\d+\.conv1)\.", r"\1.net.", key): tensor for key, tensor in state.items()}


def piergiaj(state: State) -> State:
    names = {key.replace("logits.", "logits.conv3d."): tensor for key, tensor in state.items()}
    return names | {"logits.conv3d.weight": names["logits.conv3d.weight"][:, :, None, None, None]}


def swin(state: State) -> State:
    stage = [(rf"^features\.{2 * n}\.", f"layers.{n}.blocks.") for n in range(4)]
    down = [(rf"^features\.{2 * n + 1}\.", f"layers.{n}.downsample.") for n in range(3)]
    rules = [*stage, *down, (r"\.mlp\.0\.", ".mlp.fc1."), (r"\.mlp\.3\.", ".mlp.fc2."), (r"^norm\.", "backbone.norm3.")]
    rules += [(r"^head\.", "cls_head.fc_cls."), (r"^(layers|patch_embed)", r"backbone.\1")]
    out = {}
    for key, tensor in state.items():
        for pattern, new in rules:
            key = re.sub(pattern, new, key)
        out[key] = tensor
    return out


def torchvision_mvit(state: State) -> State:
    """torchvision's names; its head has a dropout in front."""
    return {key.replace("head.", "head.1."): tensor for key, tensor in state.items()}


def movinet(state: State) -> State:
    model = vidtrain.create_model("movinet_tiny", num_classes=8)
    model.load_state_dict(state)
    return movinet_file(model, split=False)


PTV: list[tuple[str, Any]] = [
    (r"^conv1\.", "blocks.0.conv."),
    (r"^bn1\.", "blocks.0.norm."),
    (r"^layer(\d)\.(\d+)\.downsample\.0\.", r"blocks.\1.res_blocks.\2.branch1_conv."),
    (r"^layer(\d)\.(\d+)\.downsample\.1\.", r"blocks.\1.res_blocks.\2.branch1_norm."),
    *(
        (rf"^layer(\d)\.(\d+)\.{ours}{n}\.", rf"blocks.\1.res_blocks.\2.branch2.{theirs}_{letter}.")
        for n, letter in enumerate("abc", 1)
        for ours, theirs in (("conv", "conv"), ("bn", "norm"))
    ),
    (r"^fc\.", "blocks.5.proj."),
]


Zoo = tuple[str, Callable[[], nn.Module], Callable[[State], State], list[str], str]
ZOOS: dict[str, Zoo] = {
    "torchvision": ("mc3_18", lambda: net("mc3_18"), own, FAST, "torchvision video ResNet"),
    "PySlowFast": ("slow_r50", lambda: net("slow_r50", **THIN), lambda s: renames(s, PSF), FAST, "PySlowFast"),
    "mit-han-lab": ("tsm_r50", lambda: net("tsm_r50", backbone="tiny"), tsm, FAST[1:], "mit-han-lab TSN/TSM"),
    "MMAction2": ("slow_r50", lambda: net("slow_r50", **THIN), lambda s: renames(s, MMA), FAST, "MMAction2"),
    "MMAction2 TimeSformer": (
        "timesformer",
        lambda: net("timesformer", **VIT),
        _mmaction_timesformer,
        HEADS,
        "MMAction2",
    ),
    "TimeSformer": ("timesformer", lambda: net("timesformer", **VIT), own, HEADS, "facebookresearch TimeSformer"),
    "VideoMAE": ("videomae_vit_b", lambda: net("videomae_vit_b", **VIT), own, [*FAST, *HEADS], "MCG-NJU VideoMAE"),
    "piergiaj": (
        "i3d",
        lambda: net("i3d", width=8),
        piergiaj,
        ["transform.size=32", "sampler.num_frames=9"],
        "piergiaj",
    ),
    "hassony2": (
        "i3d",
        lambda: net("i3d", width=8),
        lambda s: {_hassony2(k): v[:, :, None, None, None] if k == "logits.weight" else v for k, v in s.items()},
        ["transform.size=32", "sampler.num_frames=9"],
        "hassony2 I3D",
    ),
    "DavideA": ("c3d", lambda: net("c3d", num_frames=16, size=112, width=4, hidden=16), own, [], "DavideA C3D"),
    "Video-Swin": ("swin3d_t", lambda: net("swin3d_t", width=12), swin, FAST, "Video-Swin-Transformer"),
    "V-JEPA 2": (
        "vjepa2_vit_l",
        lambda: net("vjepa2_vit_l", width=64, depth=2, heads=1, probe_depth=1, probe_heads=16),
        own,
        FAST,
        "facebookresearch V-JEPA 2",
    ),
}
# zoos whose nets have a clip of their own, which their tensors tell
ZOOS |= {
    "PyTorchVideo": ("slow_r50", lambda: net("slow_r50", **THIN), lambda s: renames(s, PTV), FAST, "PyTorchVideo"),
    "MViT": (
        "mvit_v2_s",
        lambda: net("mvit_v2_s", num_frames=4, size=32, width=8, depths=[1, 1, 2, 1]),
        torchvision_mvit,
        FAST,
        "torchvision MViT",
    ),
    "Hiera": (
        "hiera_b",
        lambda: net("hiera_b", num_frames=4, size=32, width=16, heads=2, stages=[1, 1, 1, 1]),
        lambda s: {key.replace("head.", "head.projection."): tensor for key, tensor in s.items()},
        [*FAST, "model.heads=2"],
        "facebookresearch Hiera",
    ),
    "UniFormerV2": (
        "uniformerv2_b16",
        lambda: net("uniformerv2_b16", size=32, width=64, depth=3, heads=1, read_after=2),
        _mmaction_uniformerv2,
        FAST[1:],
        "MMAction2 UniFormerV2",
    ),
    "MoViNet": ("movinet_tiny", lambda: net("movinet_tiny"), movinet, FAST, "MoViNet-pytorch"),
}
QUICK = ("PySlowFast", "TimeSformer")  # the latter reads its clip out of sections that are not there yet


def renames(state: State, rules: list[Any]) -> State:
    holder = nn.Module()
    holder.state_dict = lambda: state  # type: ignore[method-assign, assignment, return-value]
    return renamed(holder, rules)


def data(tiny: list[str]) -> list[str]:
    """The options of the built-in dataset, and none of clips."""
    return [option for option in tiny if option.startswith("data.")] + [
        *["data=motion", "trainer.num_workers=0", "eval.figures=false"]
    ]


def last_line(done: Done) -> str:
    """The user's mistake, after what the log said of the file."""
    return error_line(Done(done.code, "", done.stderr.strip().splitlines()[-1]))


def probabilities(file: Path) -> dict[tuple[str, str], float]:
    """(file, class) -> probability of the five best."""
    rows = list(csv.reader(file.open(encoding="utf-8")))[1:]
    return {(row[1], name): float(p) for row in rows for name, p in zip(row[3::2], row[4::2], strict=True)}


@pytest.mark.parametrize("zoo", [zoo if zoo in QUICK else pytest.param(zoo, marks=pytest.mark.slow) for zoo in ZOOS])
def test_one_command_tests_a_file_of_each_zoo(zoo: str, tiny: list[str], call: Call) -> None:
    """Without naming the model: the file is the only place where its options stand."""
    preset, make, rename, options, layout = ZOOS[zoo]
    torch.save({"state_dict": rename(make().state_dict())}, "file.pth")
    done = call("eval", "model.weights=file.pth", *data(tiny), "eval.clips=1", *options, "output=out")
    assert f"{layout}" in done.stderr
    assert "classification head" not in done.stderr
    assert "scored 8 of 8" in done.stdout
    named = call("eval", f"model={preset}", "model.weights=file.pth", *data(tiny), "eval.clips=1", *options, "output=b")
    assert named.stdout.splitlines()[:3] == done.stdout.splitlines()[:3]
    assert probabilities(Path("b/predictions.csv")) == probabilities(Path("out/predictions.csv"))


@pytest.mark.slow
def test_clips_are_the_files_and_the_same_from_every_command(tiny: list[str], call: Call) -> None:
    """torchvision's 128 x 171 for a crop of 112, at 15 fps: eval, predict and train without an epoch agree."""
    torch.save(net("mc3_18").state_dict(), "mc3.pth")
    start = ["model=mc3_18", "model.weights=mc3.pth", "sampler.num_frames=4", "transform.size=32"]
    once = "eval.clips=1"
    done = call("eval", *start, *data(tiny), once, "output=out")
    result = json.loads(Path("out/result.json").read_text())
    assert result["protocol"].startswith("clips of 4 frames at 15 fps at 32 px (resized to 36x48)")
    assert "expects 16 frames at 15 fps, scaled to 128x171, crops of 112, mean 0.4322" in done.stderr
    assert "sampler.fps=15.0" in done.stderr
    assert "taken for those of the data in its order (class_names=FILE)" in done.stderr
    tested = probabilities(Path("out/predictions.csv"))
    call("train", *start, *data(tiny), once, "trainer.epochs=0", "run_dir=run", "trainer.device=cpu")
    trained = probabilities(Path("run/test/predictions.csv"))
    root = next(option for option in tiny if option.startswith("data.root=")).partition("=")[2]
    Path("names.txt").write_text("\n".join(CLASSES))
    named = "class_names=names.txt"
    call("predict", *start, named, once, f"input={root}/**/test/**/*.mp4", "output=p.csv", "trainer.num_workers=0")
    predicted = {key: p for key, p in probabilities(Path("p.csv")).items() if key in tested}
    assert len(tested) == 40
    assert trained == pytest.approx(tested, abs=1e-5)
    assert predicted == pytest.approx({key: tested[key] for key in predicted}, abs=1e-5)
    assert len(predicted) == 40


@pytest.mark.slow
def test_what_the_user_gives_wins(tiny: list[str], call: Call, tmp_path: Path) -> None:
    torch.save(renames(net("slow_r50", **THIN).state_dict(), PSF), "slow.pyth")
    start = ["model=slow_r50", "model.weights=slow.pyth", *data(tiny), "eval.clips=1"]
    given = ["transform.size=48", "sampler.fps=8", "transform.mean=[0.5,0.5,0.5]", "sampler.num_frames=4"]
    call("eval", *start, *given, "output=out")
    # the rate of the file makes way for the user's, its short side keeps its ratio to the crop
    protocol = json.loads(Path("out/result.json").read_text())["protocol"]
    assert protocol.startswith("clips of 4 frames at 8 fps at 48 px (short side 48)")
    (tmp_path / "conf" / "transform").mkdir(parents=True)
    (tmp_path / "conf" / "transform" / "mine.yaml").write_text("size: 40\nresize: 44\n")
    (tmp_path / "conf" / "sampler").mkdir()
    (tmp_path / "conf" / "sampler" / "mine.yaml").write_text("num_frames: 2\nstride: 3\n")
    own_files = ["--config-dir", "conf", "transform=mine", "sampler=mine"]
    done = call("eval", *start, *own_files, "output=out2")
    protocol = json.loads(Path("out2/result.json").read_text())["protocol"]
    assert protocol.startswith("2x3 clips at 40 px (short side 44)")
    assert "from slow.pyth, where not given: model.depth=14 model.width=8\n" in done.stderr
    (tmp_path / "conf" / "experiment").mkdir()
    text = (
        "# @package _global_\nsampler:\n    num_frames: 16\n    stride: 2\ntransform:\n    size: 112\n    resize: 128\n"
    )
    (tmp_path / "conf" / "experiment" / "mine.yaml").write_text(text)
    run = [*start, "--config-dir", "conf", "experiment=mine", "trainer.epochs=0", "trainer.device=cpu", "run_dir=run"]
    call("train", *run)
    protocol = json.loads(Path("run/test/result.json").read_text())["protocol"]
    assert protocol.startswith("16x2 clips at 112 px (short side 128)")  # although these are the defaults


HUB = {"num_attention_heads": 8, "num_frames": 4, "image_size": 32, "hidden_act": "gelu", "layer_norm_eps": 1e-12}
PROCESSOR = {
    "do_resize": True,
    "size": {"shortest_edge": 36},
    "do_center_crop": True,
    "crop_size": {"height": 32, "width": 32},
    "do_rescale": True,
    "rescale_factor": 1 / 127.5,
    "offset": True,
    "do_normalize": False,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}


def hub_folder(folder: Path, state: State, config: dict[str, Any], processor: dict[str, Any]) -> Path:
    folder.mkdir()
    torch.save(state, folder / "pytorch_model.bin")
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


@pytest.mark.slow
def test_a_folder_of_the_hub_says_all_of_it(tiny: list[str], call: Call, tmp_path: Path) -> None:
    """Heads that no tensor shows, clips, normalisation, and classes by name, in another order than the data's."""
    model = net("videomae_vit_b", **{**VIT, "heads": 8})
    names = list(reversed(CLASSES))
    labels = {"id2label": {str(n): name.upper().replace("_", " ") for n, name in enumerate(names)}}
    folder = hub_folder(tmp_path / "hub", _hub_videomae(model.state_dict()), {**HUB, **labels}, PROCESSOR)
    done = call("eval", f"model.weights={folder}", *data(tiny), "eval.clips=1", "output=out")
    for said in ("model.heads=8", "sampler.num_frames=4", "transform.mean=[0.5,0.5,0.5]", "transform.resize=36"):
        assert said in done.stderr
    assert "assumed" not in done.stderr
    assert "class_names" not in done.stderr
    tested = probabilities(Path("out/predictions.csv"))
    assert {name for _, name in tested} <= set(CLASSES)
    Path("names.txt").write_text("\n".join(CLASSES))  # wrong on purpose: the head's order is the reverse
    call("eval", f"model.weights={folder}", "class_names=names.txt", *data(tiny), "eval.clips=1", "output=turned")
    turned = probabilities(Path("turned/predictions.csv"))
    other = dict(zip(CLASSES, names, strict=True))
    assert turned == pytest.approx({(path, other[name]): p for (path, name), p in tested.items()}, abs=1e-6)
    out = call("inspect", f"weights={folder}").stdout
    assert all(f"model.{option}" in out for option in ("width=32", "depth=2", "heads=8", "norm_eps=1e-12"))
    assert "classes  8: SHRINK, GROW, TURN CCW" in out
    assert "expects  4 frames every 4 of the source, scaled to a short side of 36, crops of 32, mean 0.5" in out


@pytest.mark.parametrize(
    ("config", "processor", "message"),
    [
        ({"num_attention_heads": "8"}, {}, r'config\.json: num_attention_heads: expected a whole number .*, got "8"'),
        ({"num_frames": 900_000, "image_size": 9000}, {}, r"config\.json: 900000 frames of 9000 x 9000"),
        ({"hidden_act": "relu"}, {}, r"config\.json: hidden_act=relu"),
        ({}, {"image_mean": [1, 2]}, r"preprocessor_config\.json: image_mean: expected three numbers"),
        (
            {},
            {"size": {"shortest_edge": 0}},
            r"preprocessor_config\.json: size: shortest_edge: expected a whole number",
        ),
        ({}, {"image_mean": [0, 0, 0], "image_std": [0, 1, 1]}, r"expected numbers above 0"),
    ],
)
def test_configurations_are_strangers_data(
    config: dict[str, Any], processor: dict[str, Any], message: str, call: Call, tmp_path: Path
) -> None:
    state = _hub_vivit(net("vivit", **VIT).state_dict())
    folder = hub_folder(tmp_path / "hub", state, config, processor)
    assert re.search(message, error_line(call("inspect", f"weights={folder}", check=2)))
    (folder / "config.json").write_text("[" * 100_000)
    assert "config.json: cannot be read" in error_line(call("inspect", f"weights={folder}", check=2))


def test_classes_are_matched_or_refused(tiny: list[str], call: Call) -> None:
    state = vidtrain.create_model("slow_r50", num_classes=11, **THIN).state_dict()
    torch.save(renames(state, PSF), "eleven.pth")
    start = ["eval", "model=slow_r50", "model.weights=eleven.pth", *data(tiny), *FAST, "eval.clips=1"]
    line = last_line(call(*start, check=2))
    assert "eleven.pth has 11 classes and does not name them, the data has 8: add class_names=" in line
    Path("names.json").write_text(json.dumps({name: n for n, name in enumerate(["x", "y", "z", *CLASSES])}))
    assert "scored 8 of 8" in call(*start, "class_names=names.json", "output=out").stdout
    Path("names.txt").write_text("\n".join(f"c{n}" for n in range(11)))
    line = last_line(call(*start, "class_names=names.txt", check=2))
    assert "the data has 8 classes that eleven.pth does not know: move_left" in line
    Path("names.txt").write_text("a\nb\n")
    assert "has 11 classes, class_names=names.txt has 2" in last_line(call(*start, "class_names=names.txt", check=2))
    assert "expected kinetics400 or a file" in last_line(call(*start, "class_names=nowhere.txt", check=2))
    assert "class_names=kinetics400 has 400" in last_line(call(*start, "class_names=kinetics400", check=2))


def test_what_cannot_be_tested_is_one_line(trained: Path, tiny: list[str], call: Call) -> None:
    best = trained / "best.pt"
    line = error_line(call("eval", f"model.weights={best}", "model=slow_fusion", *data(tiny), check=2))
    assert f"checkpoint={best}" in line
    line = error_line(call("eval", f"checkpoint={best}", "model=slow_fusion", check=2))
    assert "brings its own model" in line
    assert "class_names goes with model.weights" in error_line(
        call("eval", f"checkpoint={best}", "class_names=kinetics400", check=2)
    )
    assert "checkpoint is not set" in error_line(call("eval", *data(tiny), check=2))
    state = net("slow_r50", **THIN).state_dict()
    torch.save(renames({k: v for k, v in state.items() if not k.startswith("fc.")}, PSF), "body.pyth")
    line = last_line(call("eval", "model.weights=body.pyth", *data(tiny), check=2))
    assert "body.pyth: it has no classification head" in line


@pytest.mark.parametrize(
    ("options", "url", "said"),
    [
        (
            ["model=mc3_18", "model.pretrained=kinetics400", "transform.size=56"],
            MC3_18_Weights.KINETICS400_V1.url,
            "from torchvision's kinetics400, where not given: transform.mean=[0.43216,0.394666,0.37645] "
            "transform.std=[0.22803,0.22145,0.216989] transform.resize=64x85 sampler.fps=15.0\n",
        ),
        (
            ["model=single_frame", "model.backbone=resnet18", "model.pretrained=imagenet"],
            ResNet18_Weights.DEFAULT.url,
            "from torchvision's imagenet, where not given: transform.mean=[0.485,0.456,0.406] "
            "transform.std=[0.229,0.224,0.225]\n",
        ),
    ],
)
def test_names_of_published_weights_bring_their_clips(
    options: list[str],
    url: str,
    said: str,
    tiny: list[str],
    call: Call,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cached = tmp_path / "hub" / "checkpoints" / Path(url).name
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"no weights")  # nothing is fetched, and the run ends where they are read
    begin, begun = published.begin, []
    monkeypatch.setattr(published, "begin", lambda given: begun.append(begin(given)) or begun[-1])
    of_data = [option for option in data(tiny) if option.startswith("data")]
    shown = call("data", "show", *of_data, *options, "show.clips=1", "show.frames=1")
    done = call("train", *data(tiny), *options, "run_dir=r", check=2)
    assert said in done.stderr
    assert said in shown.stderr  # the sheet is of the clips that are trained on
    mean = begun[0][0].options.transform.mean
    assert f"transform.mean=[{','.join(map(str, mean))}]" in said
    assert "model.pretrained: the weights of" in last_line(done)
