"""The library's front door, and the rules for what a configuration may call."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

import vidtrain
from tests import warm
from vidtrain import build
from vidtrain.data.manifest.manifest import Manifest, VideoData
from vidtrain.data.settings import SamplerConfig, TransformConfig
from vidtrain.errors import CheckpointError, ConfigError, DataError
from vidtrain.models.settings import START_KEYS
from vidtrain.options import instantiate as targets
from vidtrain.options.option_texts import conf_dir, group_options
from vidtrain.options.presets import model_section, nearest_preset


def test_list_models_takes_a_pattern() -> None:
    assert {"single_frame", "late_fusion", "early_fusion", "slow_fusion", "c3d"} <= set(vidtrain.list_models())
    assert vidtrain.list_models("*_fusion") == ["early_fusion", "late_fusion", "slow_fusion"]
    assert vidtrain.list_models("nothing*") == []


def test_create_model_gives_the_clip_to_those_that_need_it() -> None:
    model = vidtrain.create_model("early_fusion", num_classes=5, num_frames=4, size=32).eval()
    assert model(torch.zeros(2, 3, 4, 32, 32)).shape == (2, 5)
    model = vidtrain.create_model("slow_fusion", num_classes=3, num_frames=4, width=4).eval()
    assert model(torch.zeros(1, 3, 4, 32, 32)).shape == (1, 3)


def test_the_first_model_of_a_process_may_be_on_meta() -> None:
    code = "import torch, vidtrain\nwith torch.device('meta'): m = vidtrain.create_model('c3d', num_classes=3)\n"
    code += "print(next(m.parameters()).device)"
    done = warm.run(["-c", code])
    assert (done.stdout, done.stderr) == ("meta\n", "")


def test_create_model_names_what_is_wrong() -> None:
    with pytest.raises(ConfigError, match=r"no model 'slowfusion' \(did you mean slow_fusion\?\)"):
        vidtrain.create_model("slowfusion")
    with pytest.raises(ConfigError, match=r"no key 'model.widht' \(did you mean width\?\)"):
        vidtrain.create_model("slow_fusion", widht=3)


@pytest.mark.parametrize("name", vidtrain.list_models())
def test_a_models_yaml_lists_every_option_with_its_default(name: str) -> None:
    """What is not listed cannot be overridden without a plus sign, and a listed default must be the real one. A preset
    states only what differs from the model that it is based on."""
    file = conf_dir() / "model" / f"{name}.yaml"
    assert file.read_text(encoding="utf-8").startswith("# ")
    own = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
    node = OmegaConf.to_container(model_section(name), resolve=False)
    assert isinstance(own, dict)
    assert isinstance(node, dict)
    if "defaults" in own:
        [base, last] = own.pop("defaults")
        assert last == "_self_"
        below = OmegaConf.to_container(model_section(base), resolve=False)
        assert isinstance(below, dict)
        assert not [key for key, value in own.items() if key in below and below[key] == value]
    documented = group_options("model", name, [conf_dir()])
    assert not [key for key in node if key != "_target_" and not documented[key][1]]
    options = inspect.signature(targets.locate(node.pop("_target_"), "model")).parameters
    assert not set(START_KEYS) & options.keys(), "carried out after the model is built"
    assert all(p.kind is p.KEYWORD_ONLY for p in options.values())
    node = {key: value for key, value in node.items() if key not in START_KEYS or value is not None}
    assert sorted(node) == sorted(key for key in options if key != "num_classes")
    if "_target_" not in own:
        return
    of_the_clip = {"num_frames": "${sampler.num_frames}", "size": "${transform.size}"}
    for key, value in node.items():
        default = options[key].default
        assert value == of_the_clip.get(key, list(default) if isinstance(default, tuple) else default), key


def test_types_are_held_against_the_functions_annotations() -> None:
    target = {"_target_": "vidtrain.models.slow_fusion.slow_fusion"}
    for options, message in (
        ({"width": "8"}, r"model.width='8': expected int \| None, got str"),
        ({"dropout": None}, r"model.dropout=None: expected float, got NoneType"),
        ({"net": 3}, r"model.net=3: expected str, got int"),
    ):
        with pytest.raises(ConfigError, match=message):
            build.build_model({**target, **options}, 2)
    build.build_model({**target, "dropout": 0, "width": None}, 2)


def test_a_target_that_cannot_be_imported() -> None:
    with pytest.raises(ConfigError, match=r"model._target_=nowhere.net: cannot be imported"):
        build.build_model({"_target_": "nowhere.net"}, 2)
    with pytest.raises(ConfigError, match=r"model._target_ is not set"):
        build.build_model({"width": 3}, 2)


def test_trust_opens_exactly_what_it_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mypackage").mkdir()
    (tmp_path / "mypackage" / "__init__.py").touch()
    (tmp_path / "mypackage" / "nets.py").write_text("from os import system\ndef big(width=1): return width\n")
    monkeypatch.syspath_prepend(tmp_path)

    def call(target: str, trust: list[str], **options: object) -> object:
        return targets.call(targets.from_file({"_target_": target, **options}, "x.pt", trust), "model")

    assert call("mypackage.nets.big", ["mypackage"], width=3) == 3
    for trust in ([], ["mypack"], ["mypackage.nets.big"], ["package"]):
        with pytest.raises(CheckpointError, match=r"x.pt calls model._target_=mypackage.nets.big.*trust=\[mypackage\]"):
            call("mypackage.nets.big", trust)
    with pytest.raises(CheckpointError, match=r"which is posix.system"):
        call("mypackage.nets.system", ["mypackage"], command="true")
    with pytest.raises(CheckpointError, match=r"os\.system"):
        call("vidtrain.models.c3d.c3d", [], part=[{"_target_": "os.system"}])


def test_a_files_node_is_marked_by_us_alone() -> None:
    node = targets.from_file({targets.ORIGIN: {"file": "y", "trust": ["os"]}, "_target_": "os.system"}, "x.pt")
    assert node[targets.ORIGIN] == {"file": "x.pt", "trust": []}
    with pytest.raises(CheckpointError, match=r"x\.pt calls model\._target_=os\.system"):
        targets.call(node, "model", command="true")


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"width": 1_000_001}, "model.width=1000001"),
        ({"width": -1_000_001}, "model.width"),
        ({"width": float("inf")}, "model.width"),
        ({"width": float("nan")}, "model.width"),
        ({"part": {"depth": 10**9}}, "model.part.depth"),
        ({"part": [1, (2, 10**9)]}, "model.part"),
        ({"part": [{"a": {"b": [10**9]}}]}, "model.part.a.b"),
        ({"seeds": 10**9}, "model.seeds"),
    ],
)
def test_a_files_numbers_are_bounded(options: dict[str, Any], key: str) -> None:
    node = {"_target_": "vidtrain.models.c3d.c3d", **options}
    with pytest.raises(CheckpointError, match=rf"x\.pt: {re.escape(key)}.*numbers up to 1000000"):
        targets.may_call(targets.from_file(node, "x.pt"), "model")
    assert callable(targets._function_of(node, "model")[0])  # the user's own are not


def test_a_files_numbers_of_a_usual_size() -> None:
    options = {"width": 1_000_000, "rate": -0.5, "seed": 2**40, "split_seed": 2**63 - 1, "part": [{"a": 10**6}]}
    targets.may_call(targets.from_file({"_target_": "vidtrain.models.c3d.c3d", **options}, "x.pt"), "model")


def test_what_fails_with_a_files_options_is_the_files_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    node = {"_target_": "vidtrain.models.c3d.c3d", "width": 1, "dropout": 0.5}
    monkeypatch.setattr(targets, "locate", lambda target, section: failing)
    message = r"x\.pt: model: vidtrain\.models\.c3d\.c3d fails .*ZeroDivisionError: no$"
    with pytest.raises(CheckpointError, match=message):
        targets.call(targets.from_file(node, "x.pt"), "model")
    with pytest.raises(ZeroDivisionError, match="no"):
        targets.call(node, "model")
    with pytest.raises(ZeroDivisionError, match="no"):  # whoever trusts it sees where it fails
        targets.call(targets.from_file({**node, "_target_": f"{__name__}.failing"}, "x.pt", [__name__]), "model")


def failing(width: int = 1, dropout: float = 0.0) -> None:
    raise ZeroDivisionError("no\nsecond line")


def test_a_checkpoint_makes_no_data(tmp_path: Path) -> None:
    node = {**OmegaConf.load(conf_dir() / "data" / "motion.yaml"), "root": str(tmp_path / "new"), "size": 32}
    with pytest.raises(DataError, match="a checkpoint makes no files"):
        build.build_data(targets.from_file(node, "x.pt"))
    assert not (tmp_path / "new").exists()


def test_no_target_is_imported_without_a_look_at_where_it_comes_from() -> None:
    """`locate` imports whatever it is given: it stands behind the check, and nowhere else."""
    import ast
    import inspect

    callers = []
    for file in Path(vidtrain.__file__).parent.rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)) if "locate(" in text else ():
            if isinstance(node, ast.FunctionDef) and "locate(" in ast.unparse(node) and node.name != "locate":
                callers.append(f"{file.name}:{node.name}")
    assert sorted(callers) == ["instantiate.py:_allowed", "instantiate.py:_function_of"]
    source = inspect.getsource(targets._allowed)
    assert source.index("_shipped(section)") < source.index("locate(")


@pytest.mark.parametrize("section", ["model", "data", "decoder", "optimizer"])
def test_a_file_may_call_what_the_yaml_files_of_its_section_call(section: str) -> None:
    """Not what another section calls, nor what its modules import; and the user's own node may call anything."""
    own = {}
    for name in ("model", "data", "decoder", "optimizer"):
        files = sorted((conf_dir() / name).glob("*.yaml"))
        nodes = [OmegaConf.to_container(OmegaConf.load(file), resolve=False) for file in files]
        own[name] = {node["_target_"] for node in nodes if "defaults" not in node}  # a preset calls what its base calls
        assert own[name]
    for target in own.pop(section):
        assert targets.may_call(targets.from_file({"_target_": target}, "x.pt"), section)
    strangers = set.union(*own.values())
    strangers |= {
        *("vidtrain.data.motion.motion.make_motion", "vidtrain.models.c3d.torch.hub.load"),
        "vidtrain.build.import_module",
        *("torchvision.models.get_model", "torchvision.models.video.resnet.load_state_dict_from_url", "os.system"),
        *("torchvision.models.video.resnet18", "torchvision.models.detection.fasterrcnn_resnet50_fpn", "c3d", ""),
    }
    for target in strangers:
        with pytest.raises(CheckpointError, match=r"none of vidtrain's own"):
            targets.may_call(targets.from_file({"_target_": target}, "x.pt"), section)
    if section == "model":
        assert targets.may_call(targets.from_file({"_target_": "torchvision.models.video.s3d"}, "x.pt"), section)


def test_flip_labels_exchange_the_pairs() -> None:
    data = VideoData(("left", "up", "right"), {"train": Manifest.of([], [])}, flip_pairs=(("left", "right"),))
    labels = build.flip_labels(data)
    assert labels is not None
    assert np.array_equal(labels, [2, 1, 0])
    assert build.flip_labels(VideoData(("a", "b"), {})) is None


def test_optimizer_errors_name_the_section() -> None:
    model = torch.nn.Linear(2, 2)
    with pytest.raises(ConfigError, match=r"no key 'optimizer.lrr' \(did you mean lr\?\)"):
        build.build_optimizer({"_target_": "torch.optim.SGD", "lrr": 0.1}, model)
    with pytest.raises(ConfigError, match=r"optimizer: torch.optim.SGD: Invalid learning rate"):
        build.build_optimizer({"_target_": "torch.optim.SGD", "lr": -1.0}, model)


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("SGD", {"lr": "abc"}, "optimizer.lr='abc': "),
        ("SGD", {"lr": None}, "optimizer.lr=None: "),
        ("SGD", {"weight_decay": [1]}, "optimizer.weight_decay=[1]: "),
        ("AdamW", {"betas": ["a", "b"]}, "optimizer.betas=['a', 'b']: "),
        ("AdamW", {"betas": [0.9]}, "optimizer.betas=[0.9]: "),
        ("AdamW", {"layer_decay": "abc"}, "optimizer.layer_decay='abc': must be above 0 and at most 1, or null"),
        ("AdamW", {"decay_norms": "abc"}, "optimizer.decay_norms='abc': must be true or false"),
    ],
)
def test_an_optimizers_options_of_another_type(name: str, options: dict[str, Any], says: str) -> None:
    model = torch.nn.Linear(2, 2)
    with pytest.raises(ConfigError) as refused:
        build.build_optimizer({"_target_": f"torch.optim.{name}", "lr": 0.1, **options}, model)
    assert str(refused.value).startswith(says)
    assert "Tensor" not in str(refused.value)
    assert "instances of" not in str(refused.value)


def test_an_optimizers_options_of_the_right_type() -> None:
    model = torch.nn.Linear(2, 2)
    for options in ({"lr": 1, "betas": [0.0, 0.9]}, {"lr": 0.1, "betas": OmegaConf.create([0.9, 0.99]), "fused": None}):
        assert build.build_optimizer({"_target_": "torch.optim.AdamW", **options}, model).defaults["lr"] in (1, 0.1)


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("slowfast_r50", {"depth": 101, "fusion_kernel": 5}, ("slowfast_r101", {})),
        ("slowfast_r50", {"depth": 101, "fusion_kernel": 5, "width": 32}, ("slowfast_r101", {"width": 32})),
        ("slowfast_r50", {}, ("slowfast_r50", {})),
        ("x3d_m", {}, ("x3d_m", {})),
        ("i3d_r50", {"nonlocal_blocks": 5}, ("i3d_r50_nonlocal", {})),
        ("i3d_r50", {"nonlocal_blocks": ["layer2.0"]}, ("i3d_r50", {"nonlocal_blocks": ["layer2.0"]})),
    ],
)
def test_the_nearest_preset(name: str, options: dict[str, Any], expected: tuple[str, dict[str, Any]]) -> None:
    assert nearest_preset(name, options) == expected


@pytest.mark.parametrize("name", vidtrain.list_models())
def test_a_models_target_is_read_as_text(name: str) -> None:
    """Which says whose preset it is before a hundred files are read as YAML."""
    assert group_options("model", name, [conf_dir()])["_target_"][0] == model_section(name)["_target_"]


def test_training_clips_are_those_of_the_training_split() -> None:
    reader = {"_target_": "vidtrain.data.readers.pyav.PyAVReader"}
    parts = build.make_parts(reader, SamplerConfig(clips_per_video=2), TransformConfig(flip=0.25))
    data = VideoData(("a", "b"), {"train": Manifest.of(["x.mp4", "y.mp4"], [0, 1])}, flip_pairs=(("a", "b"),))
    clips = build.train_clips(data, parts, seed=3)
    assert (clips.seed, clips.sampler.clips_per_video, clips.cut.transform.flip) == (3, 2, 0.25)
    assert clips.flip_labels.tolist() == [1, 0]
    with pytest.raises(ConfigError, match="split=train: this dataset has test"):
        build.train_clips(VideoData(("a",), {"test": Manifest.of(["x.mp4"], [0])}), parts, seed=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": 1}, r"no key 'data\.seeds' \(did you mean seed\?\).*takes: root, seed, train_scenes"),
        ({"version": 2}, r"no key 'data\.version'"),
        ({"size": "x"}, r"data\.size='x': expected int, got str"),
    ],
)
def test_the_options_of_a_dataclass_are_those_of_its_function(options: dict[str, Any], message: str) -> None:
    for name in ("motion", "existing_motion"):
        with pytest.raises(ConfigError, match=message):
            targets.call({"_target_": f"vidtrain.data.motion.motion.{name}", "root": "/none", **options}, "data")
