"""`vidtrain publish`: a folder that reads back to the bit, tells nothing of its author's machine, and runs nothing."""

from __future__ import annotations

import copy
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from safetensors import SafetensorError

import vidtrain as package
from tests.cli.conftest import Call, error_line
from tests.models.parity import drawn_weights
from vidtrain import build
from vidtrain.commands.publish import _compare, _preprocessors, _with_task, portable
from vidtrain.commands.publish_card import _training
from vidtrain.hub_folder import CARD, CONFIG, PREPROCESSORS, WEIGHTS, is_edited, load_trained, read_folder
from vidtrain.models.settings import TuneConfig, TuneName
from vidtrain.models.tuning import tune
from vidtrain.models.weights.expected_clips import Expects
from vidtrain.models.weights.to_transformers import TransformersModel
from vidtrain.options.presets import model_options
from vidtrain.runs.atomic import write_json
from vidtrain.shell import cli

CLIP = {"num_frames": 8, "size": 32}


def command(*arguments: object) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main([str(argument) for argument in arguments])
    assert end.value.code == 0


@pytest.fixture(scope="module")
def published(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny run's folder. Read it, do not change it."""
    folder = tmp_path_factory.mktemp("published") / "model"
    command("publish", f"checkpoint={trained / 'best.pt'}", f"output={folder}", "license=Apache-2.0")
    return folder


def checkpoint_of(trained: Path, file: Path, model: str, **options: Any) -> Path:
    """A checkpoint of another network with drawn weights, as a training of it would write it."""
    content = torch.load(trained / "best.pt", weights_only=True)
    node = {**model_options(model, **CLIP), **options}
    net = build.build_model(node, len(content["class_names"]))
    drawn_weights(net)
    content["config"]["model"] = node
    torch.save({**content, "model": net.state_dict()}, file)
    return file


def logits(path: Path, **options: Any) -> torch.Tensor:
    clips = torch.randn(2, 3, 8, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found: torch.Tensor = package.load(path, device="cpu", **options).model(clips)
    return found


# ---------------------------------------------------------------- the same network


def test_it_reads_back_to_the_bit(trained: Path, published: Path) -> None:
    ours, theirs = package.load(trained), package.load(published)
    assert torch.equal(logits(trained), logits(published))
    assert theirs.class_names == ours.class_names
    assert theirs.preprocessing == ours.preprocessing
    for section in ("sampler", "transform", "eval", "flow", "tune"):
        assert getattr(theirs.config, section) == getattr(ours.config, section)
    assert sorted(file.name for file in published.iterdir()) == [CARD, CONFIG, WEIGHTS, PREPROCESSORS[0]]
    modes = {file.stat().st_mode for file in published.iterdir()}
    assert modes == {(trained / "best.pt").stat().st_mode}


def test_eval_and_predict_take_the_folder(trained: Path, published: Path, tiny: list[str], call: Call) -> None:
    root = next(option for option in tiny if option.startswith("data.root="))
    assert error_line(call("eval", f"checkpoint={published}", check=2)) == ("data.root is not set: expected str | Path")
    rows = (trained / "test" / "predictions.csv").read_text()
    for given in ("checkpoint", "model.weights"):
        done = call("eval", f"{given}={published}", root)
        assert "runs/eval/model/test_2x1" in done.stdout
        assert Path("runs/eval/model/test_2x1/predictions.csv").read_text() == rows
    videos = f"input={next(Path(root.removeprefix('data.root=')).glob('*/test'))}"
    printed = [
        call("predict", f"{given}", videos).stdout
        for given in (f"checkpoint={trained / 'best.pt'}", f"checkpoint={published}", f"model.weights={published}")
    ]
    assert len(printed[0].splitlines()) == 8
    assert printed == [printed[0]] * 3


def test_a_training_starts_from_the_folder(published: Path, tiny: list[str], call: Call) -> None:
    done = call("train", *tiny, "trainer.epochs=0", f"model.weights={published}", "trainer.test=false", "run_dir=run")
    assert f"{published / WEIGHTS}: vidtrain weights, 26 tensors loaded" in done.stderr
    assert torch.equal(logits(Path("run")), logits(published))


def test_low_rank_updates_are_merged(trained: Path, tmp_path: Path) -> None:
    content = torch.load(trained / "best.pt", weights_only=True)
    net, _ = build.load_model(trained / "best.pt")
    tune(net, TuneConfig(TuneName.lora, rank=2))
    drawn_weights(net)
    content["config"]["tune"] |= {"name": "lora", "rank": 2}
    torch.save({**content, "model": net.state_dict()}, tmp_path / "last.pt")
    command("publish", f"checkpoint={tmp_path / 'last.pt'}", f"output={tmp_path / 'out'}")
    assert read_folder(tmp_path / "out")["model"].keys() == content["model"].keys() != net.state_dict().keys()
    assert torch.equal(logits(tmp_path / "last.pt"), logits(tmp_path / "out"))


def test_a_folder_can_be_published_again(published: Path, tmp_path: Path) -> None:
    command("publish", f"checkpoint={published}", f"output={tmp_path / 'again'}")
    assert (tmp_path / "again" / WEIGHTS).read_bytes() == (published / WEIGHTS).read_bytes()
    assert json.loads((tmp_path / "again" / CONFIG).read_text())["id2label"]["0"] == "move_left"


TRANSFORMERS: list[tuple[str, dict[str, Any]]] = [
    ("videomae_tiny", {}),
    ("timesformer_tiny", {}),
    ("vivit_tiny", {}),
    ("vjepa2_tiny", {}),
]


@pytest.mark.parametrize(
    ("model", "options"),
    [case if case[0] == "videomae_tiny" else pytest.param(*case, marks=pytest.mark.slow) for case in TRANSFORMERS],
)
def test_networks_that_transformers_has(model: str, options: dict[str, Any], trained: Path, tmp_path: Path) -> None:
    """Under its names, and back to the bit; what the library makes of it is in the test below."""
    file = checkpoint_of(trained, tmp_path / "best.pt", model, **options)
    command("publish", f"checkpoint={file}", f"output={tmp_path / 'out'}")
    config = json.loads((tmp_path / "out" / CONFIG).read_text())
    assert config["model_type"] == model.removesuffix("_tiny")
    assert config["vidtrain"]["names"] == "transformers"
    assert config["problem_type"] == "single_label_classification"
    assert torch.equal(logits(file), logits(tmp_path / "out"))
    assert 'AutoModelForVideoClassification.from_pretrained("THIS_FOLDER")' in (tmp_path / "out" / CARD).read_text()


@pytest.mark.slow
@pytest.mark.parametrize(("model", "options"), TRANSFORMERS)
def test_transformers_loads_the_folder(model: str, options: dict[str, Any], trained: Path, tmp_path: Path) -> None:
    """Skipped where transformers is not installed, as in CI: its logits, class names and normalised clips are ours."""
    transformers = pytest.importorskip("transformers")
    file = checkpoint_of(trained, tmp_path / "best.pt", model, **options)
    command("publish", f"checkpoint={file}", f"output={tmp_path / 'out'}")
    theirs = transformers.AutoModelForVideoClassification.from_pretrained(tmp_path / "out").eval()
    clf = package.load(tmp_path / "out", device="cpu")
    assert [theirs.config.id2label[n] for n in range(8)] == clf.class_names
    frames = torch.randint(0, 256, (8, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    processor = transformers.AutoVideoProcessor.from_pretrained(tmp_path / "out", do_resize=False)
    [clip] = processor(frames.numpy(), return_tensors="pt").values()
    mean, std = (torch.tensor(value) for value in (clf.config.transform.mean, clf.config.transform.std))
    ours = ((frames / 255 - mean) / std).permute(3, 0, 1, 2)[None]
    assert (clip - ours.transpose(1, 2)).abs().max() < 2e-6
    with torch.no_grad():
        expected, found = clf.model(ours), theirs(clip).logits
    assert (found - expected).abs().max() < 1e-4 * expected.std()


def test_the_preprocessor_is_that_of_the_clips(published: Path) -> None:
    found, config = json.loads((published / PREPROCESSORS[0]).read_text()), package.load(published).config
    side = config.transform.size
    assert found["size"] == {"shortest_edge": config.transform.resize}
    assert (found["crop_size"], found["do_center_crop"]) == ({"height": side, "width": side}, True)
    assert found["num_frames"] == config.sampler.num_frames
    assert (found["image_mean"], found["image_std"]) == (config.transform.mean, config.transform.std)
    assert (found["rescale_factor"], "offset" in found) == (1 / 255, False)


def test_a_processor_that_shifts_the_range_normalises_to_the_same() -> None:
    """transformers' for ViViT takes 1 from the scaled frame, before mean and std."""
    clips = Expects(mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3), size=32, resize="36x48", num_frames=8)
    [found] = _preprocessors(clips, TransformersModel({}, {}, {"who": "reads"}, signed=True)).values()
    assert (found["who"], found["offset"], found["size"]) == ("reads", True, {"height": 36, "width": 48})
    for colour in range(3):
        shifted = 200 * found["rescale_factor"] - 1
        seen = (shifted - found["image_mean"][colour]) / found["image_std"][colour]
        assert seen == pytest.approx((200 / 255 - clips.mean[colour]) / clips.std[colour])  # type: ignore[index]


def test_several_labels_are_another_problem_to_transformers() -> None:
    theirs = TransformersModel({"model_type": "vivit"}, {}, {})
    kinds = [_with_task(theirs, multi_label=several)["problem_type"] for several in (False, True)]
    assert kinds == ["single_label_classification", "multi_label_classification"]


def test_what_does_not_read_back_is_an_error(published: Path) -> None:
    content = read_folder(published)
    _compare(published, content["class_names"], content["model"])
    other = {**content["model"]}
    name = next(iter(other))
    other[name] = other[name] + 1e-6
    for names, state in ((content["class_names"], other), (["a"], content["model"]), (content["class_names"], {})):
        with pytest.raises(package.VidtrainError, match="does not read back as the checkpoint"):
            _compare(published, names, state)


# ---------------------------------------------------------------- what it tells


def test_nothing_of_the_machine_is_in_the_folder(trained: Path, tmp_path: Path) -> None:
    """Paths, names of folders, accounts and keys of loggers: in no file, whatever section they stand in."""
    secret = "bob_1d3f"
    content = torch.load(trained / "best.pt", weights_only=True)
    config = content["config"]
    config["data"] |= {"root": f"/home/{secret}/videos"}
    config["model"] |= {"weights": f"/home/{secret}/start.pt"}
    config["logger"] = {"mine": {"_target_": "mine.Logger", "api_key": secret, "entity": secret}}
    config["hook"] = {"mine": {"_target_": "mine.Hook", "to": f"{secret}@example.org"}}
    config |= {"run_dir": f"runs/{secret}", "resume": f"/home/{secret}/run", "class_names": f"~{secret}/names.txt"}
    config["flow"] |= {"source": "cache", "root": f"/home/{secret}/flow", "method": "dis"}
    config["trainer"] |= {"device": f"cuda:{secret}", "num_workers": 37, "accumulate": 3}
    content |= {"note": [f"/home/{secret}/x"], "bad": {f"/home/{secret}/a.mp4": "broken"}, "temperature": 1.5}
    torch.save(content, tmp_path / "best.pt")
    kept = portable(config, "best.pt")
    assert (kept["data"]["root"], kept["model"]["weights"], kept["flow"]["source"]) == (None, None, "dis")
    assert "logger" not in kept
    config["flow"]["source"] = "none"  # the network reads no flow
    config["trainer"]["device"] = "cpu"
    torch.save(content, tmp_path / "best.pt")
    command("publish", f"checkpoint={tmp_path / 'best.pt'}", f"output={tmp_path / 'out'}")
    for file in (tmp_path / "out").iterdir():
        for text in (secret, str(tmp_path), str(trained), "best.pt"):
            assert text.encode() not in file.read_bytes(), (file, text)
    text = (tmp_path / "out" / CARD).read_text()
    assert "Started from weights=start.pt, whose own terms may apply." in text  # the file's name, not its folder
    assert "with 24 clips per update" in text
    found = load_trained(tmp_path / "out")
    assert found["temperature"] == 1.5  # what else a checkpoint says goes along
    assert "note" not in found
    assert found["config"]["trainer"]["num_workers"] is None


def test_paths_of_every_dataset_are_left_out() -> None:
    """Those that have a default, and lists of them."""
    from tests.test_every_checkpoint import OTHERS, nodes

    for name, node in nodes("data").items():
        filled = {key: "/x/secret" if value in ("???", None) else value for key, value in node.items()}
        filled["root"] = "/x/secret"
        model = {"_target_": "vidtrain.models.slow_fusion.slow_fusion"}
        kept = portable({**copy.deepcopy(OTHERS), "model": model, "data": filled}, "x.pt")["data"]
        assert "secret" not in json.dumps(kept), name
        assert kept["_target_"] == node["_target_"]
    relative = {**nodes("data")["list"], "root": "bob", "train": ["bob/a.csv", "b.csv"], "test": "bob.csv"}
    kept = portable({**copy.deepcopy(OTHERS), "model": model, "data": relative}, "x.pt")["data"]
    assert (kept["root"], kept["train"], kept["test"]) == (None, None, None)


@pytest.mark.parametrize("group_by", [r"subject\d+", r"/([a-z]+\d)_\d", r"^(\w+)/"])
def test_the_groups_of_the_videos_go_along(group_by: str) -> None:
    """By them a test of the published or exported file cuts the same splits, and its intervals are over groups."""
    from tests.test_every_checkpoint import OTHERS, nodes

    data = {**nodes("data")["folder"], "root": "/x", "group_by": group_by}
    model = {"_target_": "vidtrain.models.slow_fusion.slow_fusion"}
    kept = portable({**copy.deepcopy(OTHERS), "model": model, "data": data}, "x.pt")["data"]
    assert (kept["root"], kept["group_by"]) == (None, group_by)


# ---------------------------------------------------------------- the card


def test_the_card_without_a_result(published: Path, trained: Path, tmp_path: Path, call: Call) -> None:
    shutil.copy(trained / "best.pt", tmp_path / "alone.pt")
    call("publish", "checkpoint=alone.pt", "output=out", "title=A <b>title</b> | [x](http://y)", "license=Mine only")
    text = Path("out", CARD).read_text()
    head = text.split("---\n")[1]
    assert 'license: other\nlicense_name: "Mine only"' in head
    assert "# A &lt;b&gt;title&lt;/b&gt; \\| \\[x\\](http\\://y)" in text
    assert "It comes without the result of a test." in text
    assert 'license: "apache-2.0"' in (published / CARD).read_text()


def test_the_card_states_the_test(trained: Path, published: Path) -> None:
    result = json.loads((trained / "test" / "result.json").read_text())
    low, high = result["intervals"]["values"]["top1"]
    text = (published / CARD).read_text()
    interval = f"95 % interval {low:.3f} to {high:.3f} over 8 videos"
    assert f"**top-1 {result['top1']:.3f}** ({interval}) on 8 of the 8 videos of the test split of motion." in text
    assert f"| top-1 | {result['top1']:.4f} | {interval} |" in text
    assert f"Scored 8 of 8 videos. Protocol: {result['protocol']}." in text
    how = r"Trained for up to 2 epochs with 8 clips per update, SGD \(lr [\d.]+\), precision \w+, seed 0; tune=full\."
    assert re.search(how, text)
    epoch = json.loads((trained / "result.json").read_text())["best_epoch"]
    assert f"The weights are those after epoch {epoch}." in text
    assert "Started from" not in text
    content, config = load_trained(trained / "best.pt"), package.load(trained).config
    for before in (0, None):  # the first validation, or a file that says nothing of epochs
        assert not any("after epoch" in sentence for sentence in _training({**content, "epoch": before}, config))
    worst = min(result["classes"], key=lambda row: row["recall"])
    assert f"{worst['name'].replace('_', chr(92) + '_')} ({worst['recall']:.2f} of {worst['support']})" in text


def test_only_the_result_of_this_very_file_is_stated(trained: Path, tmp_path: Path, call: Call) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    call("publish", f"checkpoint={run / 'last.pt'}", "output=last")
    assert "It comes without the result of a test." in Path("last", CARD).read_text()
    call("publish", f"checkpoint={run / 'last.pt'}", "output=named", f"result={run / 'test'}")
    assert "on 8 of the 8 videos" in Path("named", CARD).read_text()
    found = json.loads((run / "test" / "result.json").read_text())
    names = [f"other {name}" for name in found["class_names"]]
    rows = [{**row, "name": name} for row, name in zip(found["classes"], names, strict=True)]
    write_json(run / "test" / "result.json", {**found, "class_names": names, "classes": rows})
    line = error_line(call("publish", f"checkpoint={run / 'best.pt'}", "output=other", check=2))
    assert "is of other classes than the checkpoint's" in line
    assert not Path("other").exists()
    line = error_line(call("publish", f"checkpoint={run / 'best.pt'}", "output=other", "result=nowhere", check=2))
    assert line.startswith("result=nowhere: ")


# ---------------------------------------------------------------- folders that are there


def test_a_folder_of_somebody_elses_is_not_written_to(trained: Path, call: Call) -> None:
    Path("mine").mkdir()
    Path("mine/config.json").write_text('{"model_type": "vivit"}')
    line = error_line(call("publish", f"checkpoint={trained / 'best.pt'}", "output=mine", check=2))
    assert line.startswith("output=mine: holds files that `vidtrain publish` has not written")
    assert [file.name for file in Path("mine").iterdir()] == ["config.json"]
    Path("mine/config.json").write_text("{")
    Path("mine/model.safetensors").write_bytes(b"")
    line = error_line(call("publish", f"checkpoint={trained / 'best.pt'}", "output=mine", check=2))
    assert line.startswith("output=mine: holds files that `vidtrain publish` has not written")
    Path("file").write_text("")
    line = error_line(call("publish", f"checkpoint={trained / 'best.pt'}", "output=file", check=2))
    assert line == "output=file: is a file, expected a folder"


def test_what_was_written_is_replaced_and_an_edited_card_stays(trained: Path, tmp_path: Path, call: Call) -> None:
    call("publish", f"checkpoint={trained / 'best.pt'}", "output=out", "title=One")
    (tmp_path / "out" / ".gitattributes").write_text("* lfs")
    (tmp_path / "out" / PREPROCESSORS[1]).write_text("{}")  # of an earlier version, perhaps
    call("publish", f"checkpoint={trained / 'best.pt'}", "output=out", "title=Two")
    assert "# Two\n" in Path("out", CARD).read_text()
    assert sorted(f.name for f in Path("out").iterdir()) == [".gitattributes", CARD, CONFIG, WEIGHTS, PREPROCESSORS[0]]
    Path("out", CARD).write_text("my own words")
    done = call("publish", f"checkpoint={trained / 'best.pt'}", "output=out", "title=Three")
    assert f"out/{CARD}: somebody has edited it, so it stays" in done.stderr
    assert Path("out", CARD).read_text() == "my own words"
    Path("out", CONFIG).write_text("{")  # which says no more whose words they are
    assert is_edited(Path("out"))


# ---------------------------------------------------------------- a stranger's folder


def changed(config: dict[str, Any], *keys: str, to: Any) -> None:
    for key in keys[:-1]:
        config = config[key]
    config[keys[-1]] = to


Change = Callable[[dict[str, Any]], None]
STRANGE: dict[str, tuple[Change, str]] = {
    "code": (
        lambda config: changed(config, "vidtrain", "config", "model", "_target_", to="os.system"),
        r"calls model\._target_=os\.system, which is none of vidtrain's own",
    ),
    "nested code": (
        lambda config: changed(config, "vidtrain", "config", "model", "net", to={"_target_": "os.system"}),
        r"calls model\._target_=os\.system",
    ),
    "format": (lambda config: changed(config, "vidtrain", "folder_format", to=2), "folder_format 2, this vidtrain"),
    "digest": (
        lambda config: changed(config, "vidtrain", "sha256", to="0"),
        "is not the file that config",
    ),
    "names": (
        lambda config: changed(config, "vidtrain", "names", to="transformers"),
        "not named as transformers names",
    ),
    "classes": (lambda config: changed(config, "id2label", to={"0": "a"}), "its weights are not those of"),
    "no classes": (lambda config: changed(config, "id2label", to=["a"]), "names no classes"),
    "sigmoid": (
        lambda config: changed(config, "vidtrain", "multi_label", to="yes"),
        r"out: multi_label: expected true or false",
    ),
    "configuration": (lambda config: changed(config, "vidtrain", "config", to=[1]), "its config is no mapping"),
    "size": (
        lambda config: changed(config, "vidtrain", "config", "model", "width", to=900_000),
        "model takes|are not those of|fails with the options",
    ),
    "interpolation": (
        lambda config: changed(config, "vidtrain", "config", "model", "_target_", to="${oc.env:HOME}"),
        r"calls model\._target_=",
    ),
}


@pytest.mark.parametrize("case", STRANGE)
def test_a_strangers_folder_is_data(case: str, published: Path, tmp_path: Path) -> None:
    change, message = STRANGE[case]
    folder = Path(shutil.copytree(published, tmp_path / "out"))
    config = json.loads((folder / CONFIG).read_text())
    change(config)
    write_json(folder / CONFIG, config)
    with pytest.raises(package.VidtrainError, match=message) as caught:
        package.load(folder)
    assert "\n" not in str(caught.value)


def test_code_beside_the_weights_is_not_imported(published: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(published, tmp_path / "out"))
    canary = tmp_path / "canary"
    for name in ("modeling.py", "__init__.py", "slow_fusion.py"):
        (folder / name).write_text(f"open({str(canary)!r}, 'w')")
    torch.save({"a": torch.zeros(1)}, folder / "pytorch_model.bin")
    config = json.loads((folder / CONFIG).read_text())
    auto = {"AutoConfig": "modeling.C", "AutoModelForVideoClassification": "modeling.M"}
    write_json(folder / CONFIG, {**config, "auto_map": auto, "custom_pipelines": {"x": {"impl": "modeling.P"}}})
    assert torch.equal(logits(folder), logits(published))
    assert not canary.exists()


def test_weights_that_cannot_be_written(
    trained: Path, published: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    shutil.copytree(published, tmp_path / "m")
    (tmp_path / "other").write_text("a stranger's link must not be followed")
    (tmp_path / "m" / f".{WEIGHTS}.part").symlink_to(tmp_path / "other")
    arguments = ["publish", f"checkpoint={trained / 'best.pt'}", f"output={tmp_path / 'm'}"]
    call(*arguments)
    assert (tmp_path / "other").read_text() == "a stranger's link must not be followed"
    monkeypatch.setattr(safetensors.torch, "save_file", full)
    assert error_line(call(*arguments, check=2)) == (
        f"{tmp_path / 'm' / WEIGHTS}: cannot be written: I/O error: No space left on device (os error 28)"
    )
    assert (tmp_path / "m" / WEIGHTS).read_bytes() == (published / WEIGHTS).read_bytes()


@pytest.mark.parametrize("damage", ["a bit", "the end", "the file", "the configuration"])
def test_a_damaged_folder_is_one_line(damage: str, published: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(published, tmp_path / "out"))
    whole = (folder / WEIGHTS).read_bytes()
    if damage == "a bit":
        (folder / WEIGHTS).write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
    elif damage == "the end":
        (folder / WEIGHTS).write_bytes(whole[:-9])
    elif damage == "the file":
        (folder / WEIGHTS).unlink()
    else:
        (folder / CONFIG).write_text((folder / CONFIG).read_text()[:-9])
    file = (
        r"config\.json: cannot be read as a configuration: "
        if damage == "the configuration"
        else r"model\.safetensors: "
    )
    with pytest.raises(package.VidtrainError, match=file) as caught:
        package.load(folder)
    assert "\n" not in str(caught.value)
