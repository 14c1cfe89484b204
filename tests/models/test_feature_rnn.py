"""feature_rnn: packed sequences, streaming, and the direct form over a frozen network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.utils.rnn import pack_sequence

from vidtrain.build import create_model
from vidtrain.errors import ConfigError
from vidtrain.models.c3d import c3d
from vidtrain.models.layers.feature_tap import FeatureTap

LENGTHS = (5, 1, 9, 2)
OPTIONS: list[dict[str, Any]] = [
    *({"head": head, "bidirectional": both} for head in ("last", "mean", "max", "attention") for both in (False, True)),
    {"cell": "gru", "layers": 2, "bidirectional": True},
    {"cell": "rnn", "head": "attention", "norm": "batch"},
    {"head": "max", "norm": "none"},
]


def reader(**options: Any) -> Any:
    """On features of length 6, with nothing left at its starting value."""
    torch.manual_seed(0)
    model = create_model("feature_rnn", num_classes=5, **{"in_features": 6, "hidden": 7, **options})
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    return model.eval()


def direct(**options: Any) -> Any:
    """On clips of 4 frames; a small network."""
    torch.manual_seed(0)
    small = {"network": "slow_fusion", "network_options": {"width": 4}, "clip": 4, "hidden": 7, "size": 32}
    return create_model("feature_rnn", num_classes=5, **{**small, **options})


def sequences() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [3 * torch.randn(length, 6, generator=generator) for length in LENGTHS]


@pytest.mark.parametrize("options", OPTIONS)
def test_padding_never_counts(options: dict[str, Any]) -> None:
    model, parts = reader(**options), sequences()
    with torch.no_grad():
        together = model(pack_sequence(parts, enforce_sorted=False))
        alone = torch.cat([model(part[None]) for part in parts])
    assert (together - together.flip(0)).abs().max() > 0.01  # they do differ
    torch.testing.assert_close(together, alone, rtol=1e-6, atol=1e-6)


def test_gradients_are_those_of_each_alone() -> None:
    model, parts = reader(head="max", bidirectional=True), sequences()
    model(pack_sequence(parts, enforce_sorted=False)).sum().backward()
    together = {key: p.grad.clone() for key, p in model.named_parameters()}
    model.zero_grad()
    for part in parts:
        model(part[None]).sum().backward()
    for key, parameter in model.named_parameters():
        torch.testing.assert_close(together[key], parameter.grad, rtol=1e-5, atol=1e-5, msg=key)


def test_equals_a_plain_lstm() -> None:
    model, parts = reader(norm="none", layers=2), sequences()
    with torch.no_grad():
        for part in parts:
            _, (h, _) = model.encoder.rnn(part[None])
            torch.testing.assert_close(model(part[None]), model.head(h[-1]))


@pytest.mark.parametrize("head", ["last", "mean", "max", "attention"])
def test_in_pieces_as_at_once(head: str) -> None:
    model, x = reader(head=head), torch.stack([torch.cat(sequences()), torch.cat(sequences()).flip(0)])
    state = None
    with torch.no_grad():
        for piece in x.split([3, 1, 7, 6], 1):
            logits, state = model.stream(piece, state)
        torch.testing.assert_close(logits, model(x), rtol=1e-5, atol=1e-5)
        packed = pack_sequence(list(x), enforce_sorted=False)
        torch.testing.assert_close(model(packed), model(x), rtol=1e-6, atol=1e-6)


def test_the_direct_form_streams() -> None:
    model = direct(head="mean").eval()
    x = torch.randn(2, 3, 12, 32, 32)
    with torch.no_grad():
        _, state = model.stream(x[:, :, :4])
        logits, _ = model.stream(x[:, :, 4:], state)
        torch.testing.assert_close(logits, model(x), rtol=1e-5, atol=1e-5)
    with pytest.raises(ConfigError, match="bidirectional"):
        direct(bidirectional=True).stream(x)


@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 100])
def test_the_direct_form_is_the_network_clip_by_clip(chunk: int) -> None:
    model = direct(chunk=chunk).eval()
    x = torch.randn(2, 3, 20, 32, 32)
    with torch.no_grad():
        plain = torch.stack([model.network.model.forward_features(clip) for clip in x.split(4, 2)], 1)
        torch.testing.assert_close(model.vectors(x), plain, rtol=1e-5, atol=1e-5)
        normed = model.norm(plain)
        torch.testing.assert_close(model(x), model.head(model.encoder.rnn(normed)[0][:, -1]), rtol=1e-5, atol=1e-5)


def test_both_forms_are_one() -> None:
    """Features written once, and an RNN trained on them, are the direct form."""
    model = direct().eval()
    other = create_model("feature_rnn", num_classes=5, in_features=32, hidden=7, size=32).eval()
    own = {key: value for key, value in model.state_dict().items() if not key.startswith("network.")}
    assert other.load_state_dict(own)
    x = torch.randn(2, 3, 12, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(other(model.vectors(x)), model(x))


def saved_bytes(model: Any, x: torch.Tensor) -> int:
    """What autograd keeps for the backward pass, weights excluded, each piece of memory once."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = model(x).sum()
    loss.backward()
    return sum(kept.values())


def test_what_is_kept_does_not_grow_with_the_network() -> None:
    x = torch.randn(1, 3, 16, 32, 32)
    i3d = {"network": "i3d_r50", "clip": 4}
    shallow, deep = (direct(network_options={"depth": n, "width": 4}, **i3d).train() for n in (14, 50))
    assert sum(p.numel() for p in deep.network.parameters()) > 2 * sum(p.numel() for p in shallow.network.parameters())
    assert saved_bytes(shallow, x) == saved_bytes(deep, x)
    for model in (shallow, deep):  # the same network, trained: this is what is saved
        model.network.requires_grad_(True)
    trained = [saved_bytes(nn.Sequential(model.network), x) for model in (shallow, deep)]
    assert trained[1] > 1.5 * trained[0] > 20 * saved_bytes(shallow, x)


def test_the_network_stays_as_it_is() -> None:
    model = direct().train()
    before = {key: value.clone() for key, value in model.network.state_dict().items()}
    optimizer = torch.optim.SGD((p for p in model.parameters() if p.requires_grad), lr=1.0)
    model(torch.randn(2, 3, 8, 32, 32)).square().sum().backward()
    optimizer.step()
    assert all(torch.equal(before[key], value) for key, value in model.network.state_dict().items())
    assert all(p.grad is None for p in model.network.parameters())
    assert not model.network.training
    assert model.encoder.training


def test_weights_of_a_file(tmp_path: Path) -> None:
    torch.manual_seed(3)
    net = c3d(num_classes=9, num_frames=16, size=32, width=4, hidden=16).eval()
    torch.save(net.state_dict(), tmp_path / "c3d.pt")
    options = {"num_classes": 5, "size": 32, "network_options": {"width": 4, "hidden": 16}}
    model = create_model("feature_rnn", network_weights=str(tmp_path / "c3d.pt"), **options).eval()
    x = torch.randn(1, 3, 32, 32, 32)
    with torch.no_grad():
        expected = torch.stack([net.embed(x[:, :, :16]), net.embed(x[:, :, 16:])], 1)  # fc6 by default
        torch.testing.assert_close(model.vectors(x), expected)


def test_a_2d_network_is_averaged_over_a_clip() -> None:
    model = direct(network="tiny", network_options=None).eval()
    x = torch.randn(2, 3, 8, 32, 32)
    with torch.no_grad():
        maps = model.network.model.backbone(x.transpose(1, 2).flatten(0, 1)).mean((2, 3)).unflatten(0, (2, 2, 4))
        torch.testing.assert_close(model.vectors(x), maps.mean(2))


@pytest.mark.parametrize(
    ("network", "options"),
    [
        ("swin3d_t", {"width": 8, "depths": [1, 1], "heads": [1, 2]}),
        ("timesformer", {"width": 32, "depth": 1, "heads": 4}),
    ],
)
def test_any_network_of_the_catalogue_reads_the_clips(network: str, options: dict[str, Any]) -> None:
    model = direct(network=network, network_options=options).eval()
    x = torch.randn(1, 3, 8, 32, 32)
    with torch.no_grad():
        expected = torch.stack([model.network.model.forward_features(clip) for clip in x.split(4, 2)], 1)
        torch.testing.assert_close(model.vectors(x), expected)


def test_it_exports() -> None:
    model, x = direct().eval(), torch.randn(2, 3, 8, 32, 32)
    exported = torch.export.export(model, (x,)).module()
    with torch.no_grad():
        torch.testing.assert_close(exported(x), model(x))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norm": "l2"}, "model.norm: got 'l2'.*expected none, layer, batch"),
        ({"head": "first"}, "model.head: got 'first'"),
        ({"in_features": 0}, "model.in_features: got 0"),
        ({"clip": 0}, "model.clip: got 0"),
        ({"in_features": None, "network": "tyni"}, "tyni"),
        ({"in_features": None, "network": "slow_fusion", "layer": "fc6"}, "layer=fc6: SlowFusion has none.*features"),
        ({"in_features": None, "network": "slow_fusion", "network_options": {"widht": 3}}, "has no option widht"),
    ],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        reader(**options)


def test_inputs_are_checked() -> None:
    model = reader()
    for x in (torch.zeros(2, 3, 7), torch.zeros(2, 3, 8, 6, 6), pack_sequence([torch.zeros(3, 7)])):
        with pytest.raises(ConfigError, match=r"expected \(batch, steps, length\) of features of 6"):
            model(x)
    with pytest.raises(ConfigError, match=r"got 6 frames, expected a multiple of model.clip=4.*num_frames=8"):
        direct()(torch.zeros(1, 3, 6, 32, 32))
    with pytest.raises(ConfigError, match=r"expected \(batch, 3, frames, height, width\)"):
        direct()(torch.zeros(1, 3, 6))


# ---------------------------------------------------------------- the tap


class Mixing(nn.Module):
    """Frames in the batch, frame by frame: the worst that a network may do."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x.permute(2, 0, 1, 3, 4).flatten(0, 1)).unflatten(0, (x.shape[2], -1)).mean((0, 3, 4))


def test_any_module_can_be_tapped() -> None:
    net = create_model("slow_fusion", num_classes=5, width=4).eval()
    x = torch.randn(3, 3, 8, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(FeatureTap(net, "net.2")(x), net.net[:3](x).mean((2, 3, 4)))
        torch.testing.assert_close(FeatureTap(net, "head")(x), net(x))
        torch.testing.assert_close(FeatureTap(net)(x), net.forward_features(x))
    assert not any(module._forward_hooks for module in net.modules())


@pytest.mark.parametrize(("name", "layer"), [("cnn_lstm_tiny", "backbone"), ("videomae_tiny", "blocks.0")])
def test_frames_in_the_batch_and_tokens(name: str, layer: str) -> None:
    net = create_model(name, num_classes=5, num_frames=8, size=32).eval()
    tap, x = FeatureTap(net, layer), torch.randn(3, 3, 8, 32, 32)
    with torch.no_grad():
        found = tap(x)
        assert found.shape[0] == 3
        assert found.ndim == 2
        torch.testing.assert_close(found, torch.cat([tap(clip[None]) for clip in x]), rtol=1e-4, atol=1e-5)
        if layer == "backbone":
            maps = net.backbone(x.transpose(1, 2).flatten(0, 1)).mean((2, 3))
            torch.testing.assert_close(found, maps.unflatten(0, (3, 8)).mean(1))


def test_a_layer_that_mixes_clips_is_found() -> None:
    from vidtrain.engine.extract import _check_alone

    tap, x = FeatureTap(Mixing(), "conv"), torch.randn(2, 3, 4, 5, 5) + torch.tensor([0.0, 5]).view(2, 1, 1, 1, 1)
    with torch.no_grad(), pytest.raises(ConfigError, match="depends on the other clips"):
        _check_alone(tap, x, tap(x))
