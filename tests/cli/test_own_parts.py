"""A model of the user's own: its options are its own, also those named as vidtrain's; a checkpoint replaces weights."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.cli.conftest import Call, error_line
from vidtrain import build
from vidtrain.errors import ConfigError
from vidtrain.options import instantiate as targets

MODULE = '''
"""An own model in a file of its own."""
import torch
from torch import nn


class Mine(nn.Module):
    def __init__(self, num_classes: int, {option}, width: int = 4) -> None:
        super().__init__()
        self.head = nn.Linear(3, num_classes)
        if {name}:
            self.head.weight.data[:] = torch.load({name}, weights_only=True)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        return self.head(clips.mean((2, 3, 4)))
'''


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Write the module with one option that names a file, and the YAML; returns the `model` section."""
    monkeypatch.syspath_prepend(tmp_path / "code")

    def write(option: str, value: object, module: str = "own_model") -> dict[str, Any]:
        name = option.split(":")[0].split("=")[0].strip()
        (tmp_path / "code").mkdir(exist_ok=True)
        (tmp_path / "code" / f"{module}.py").write_text(MODULE.format(option=option, name=name))
        sys.modules.pop(module, None)
        (tmp_path / "mine" / "model").mkdir(parents=True, exist_ok=True)
        (tmp_path / "mine" / "model" / "own.yaml").write_text(f"_target_: {module}.Mine\n{name}: {value}\nwidth: 4\n")
        return {"_target_": f"{module}.Mine", name: value, "width": 4}

    return write


@pytest.mark.parametrize("name", ["weights", "inflate_from"])
def test_an_option_named_as_one_of_vidtrains_is_given_through(own: Any, tmp_path: Path, name: str) -> None:
    file = tmp_path / "w.pt"
    torch.save(torch.full((2, 3), 7.0), file)
    model = build.build_model(own(f"{name}: str", str(file)), 2)
    assert torch.equal(model.get_parameter("head.weight"), torch.full((2, 3), 7.0))


def test_without_such_an_option_weights_is_vidtrains(own: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node = own("start: str = ''", "")
    state = {"head.weight": torch.full((2, 3), 3.0), "head.bias": torch.zeros(2)}
    torch.save(state, tmp_path / "published.pt")
    node["weights"] = str(tmp_path / "published.pt")
    with pytest.raises(ConfigError, match=r"head_name.*which Mine lacks; or give own_model.Mine an option"):
        build.build_model(node, 2)
    monkeypatch.setattr(targets.locate("own_model.Mine", "model"), "head_name", "head", raising=False)
    model = build.build_model(node, 2)
    assert torch.equal(model.get_parameter("head.weight"), state["head.weight"])


@pytest.mark.parametrize(
    "option",
    [
        *["weights: str | None", "weights", "weights: str = None", "weights: str = ''", "backbone_weights: str | None"],
        *["pretrained: str | bool = False", "text_pretrained: str | None = None"],
    ],
)
def test_a_checkpoint_needs_none_of_the_files_the_model_started_from(own: Any, option: str) -> None:
    model = build.bare_model(own(option, "/gone/file.pt"), 2)
    assert isinstance(model, nn.Module)


def test_a_flag_that_would_download_is_off(own: Any) -> None:
    build.bare_model(own("pretrained: bool", True), 2)  # True would be loaded as a file


def test_what_cannot_be_switched_off_keeps_its_value(own: Any) -> None:
    with pytest.raises(FileNotFoundError, match=r"file\.pt"):
        build.bare_model(own("weights: str", "/gone/file.pt"), 2)


def test_other_options_stay(own: Any) -> None:
    assert build.starts_from({"fusion": "weights", "loss_weights": [1.0], "pretrained": None, "weights": "a.pt"}) == [
        "weights"
    ]
    with pytest.raises(ConfigError, match=r"model.width='x': expected int"):
        build.bare_model({**own("weights: str | None", "/gone"), "width": "x"}, 2)


def test_predict_with_an_own_model_whose_file_is_gone(own: Any, tiny: list[str], call: Call, tmp_path: Path) -> None:
    file = tmp_path / "start.pt"
    torch.save(torch.full((8, 3), 0.5), file)
    own("weights: str | None = None", str(file))
    model = ["--config-dir", "mine", "model=own"]
    call("train", *model, *tiny, "trainer.epochs=1", "trainer.test=false", "run_dir=r")
    file.unlink()
    root = next(o for o in tiny if o.startswith("data.root=")).removeprefix("data.root=")
    clip = next(Path(root).rglob("*.mp4"))
    done = call("predict", "checkpoint=r/best.pt", f"input={clip}", "trust=[own_model]")
    assert done.stdout.startswith(f"{clip}: ")
    # the other commands that read a checkpoint; without trust, or with that in something else, nothing is imported
    usual = ["checkpoint=r/best.pt"]
    assert "scored 8 of 8" in call("eval", *usual, "output=e", "trust=[own_model]").stdout
    call("extract", *usual, "output=f", "layer=head", "trust=[own_model]")
    sys.modules.pop("own_model")
    commands = (["predict", f"input={clip}"], ["eval", "output=g"], ["extract", "output=h"])
    for command in ([*command, *usual] for command in commands):
        for trust in ([], ["trust=[own]"], ["trust=[own_model.Mine]"])[: 3 if command[0] == "predict" else 1]:
            line = error_line(call(*command, *trust, check=2))
            assert line.startswith("r/best.pt calls model._target_=own_model.Mine, which is none of vidtrain's own")
            assert line.endswith("add trust=[own_model]")
    assert "own_model" not in sys.modules
    with pytest.raises(FileNotFoundError, match=r"start.pt"):  # a training from scratch does read it
        call("train", *model, *tiny, "run_dir=s")
