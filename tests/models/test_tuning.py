"""tune= on every model: what is trained, what stays as it was, and that updates merge into the plain network."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.models.test_every_model import THIN, build, clips
from vidtrain.engine.ema import EMA
from vidtrain.engine.parameters import parameter_groups, train_mode
from vidtrain.errors import ConfigError
from vidtrain.models.layers.checkpointing import checkpoint_activations, repeated_blocks
from vidtrain.models.layers.low_rank import merged
from vidtrain.models.settings import TuneConfig, TuneName
from vidtrain.models.tuning import plain_weights, tune

# one of each kind of network; the others are slow tests
QUICK = (
    *("c3d", "slowfast_tiny", "csn_tiny", "tsm_tiny", "vjepa2_tiny", "vjepa21_vit_b", "timm_frames", "hiera_tiny"),
    *("swin3d_t", "two_stream_tiny", "feature_rnn_tiny", "convlstm_deformable_tiny"),
)
EVERY = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in THIN]


def step(model: nn.Module, name: str, lr: float = 0.5) -> dict[str, Tensor]:
    """One update; returns the state before it."""
    torch.manual_seed(1)
    train_mode(model)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=lr)
    outputs = model(clips(name))
    losses = outputs.values() if isinstance(outputs, dict) else [outputs]
    torch.stack([nn.functional.cross_entropy(logits, torch.tensor([0, 4])) for logits in losses]).sum().backward()
    for key, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, key
    optimizer.step()
    return before


def moved(model: nn.Module, before: dict[str, Tensor]) -> set[str]:
    return {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}


def is_head(model: nn.Module, key: str) -> bool:
    names = getattr(model, "head_names", (model.head_name,))
    return key.startswith(tuple(f"{name}." for name in names))


@pytest.mark.parametrize("name", EVERY)
def test_head_on_every_model(name: str) -> None:
    model = build(name)
    said = tune(model, TuneConfig(TuneName.head))
    changed = moved(model, step(model, name))
    assert changed  # buffers included: BatchNorm's statistics below the head stand still
    assert all(is_head(model, key) for key in changed), changed
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert said == f"trains {trained / 1e6:.3g}M of {size(model) / 1e6:.4g}M parameters ({share(model):.2g} %): head"


def size(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def share(model: nn.Module) -> float:
    return 100 * sum(p.numel() for p in model.parameters() if p.requires_grad) / size(model)


@pytest.mark.parametrize("name", EVERY)
def test_last_on_every_model(name: str) -> None:
    model = build(name)
    known = {key for key, p in model.named_parameters() if p.requires_grad}
    tune(model, TuneConfig(TuneName.last, blocks=1))
    trained = {key for key, p in model.named_parameters() if p.requires_grad}
    assert {key for key in known if is_head(model, key)} < trained <= known
    changed = moved(model, step(model, name))
    assert changed & trained
    assert not changed & (known - trained)
    with pytest.raises(ConfigError, match=r"tune\.blocks=99: \w+ has \d+ blocks that can be trained"):
        tune(build(name), TuneConfig(TuneName.last, blocks=99))


@pytest.mark.parametrize("name", EVERY)
def test_norms_on_every_model(name: str) -> None:
    model = build(name)
    kinds = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)
    norms = {key for key, part in model.named_modules() if isinstance(part, kinds)}
    known = {key for key, p in model.named_parameters() if p.requires_grad}
    tune(model, TuneConfig(TuneName.norms))
    trained = {key for key, p in model.named_parameters() if p.requires_grad}
    assert trained == {key for key in known if is_head(model, key) or key.rpartition(".")[0] in norms}
    changed = moved(model, step(model, name))
    assert not {key for key in changed if not is_head(model, key) and key.rpartition(".")[0] not in norms}


@pytest.mark.parametrize("name", EVERY)
def test_lora_on_every_model(name: str) -> None:
    plain, options = build(name), TuneConfig(TuneName.lora, rank=2, alpha=3.0)
    model = copy.deepcopy(plain)
    assert "LoRA rank 2 on " in tune(model, options)
    with torch.no_grad():
        assert torch.equal(answers(plain, name), answers(model, name))  # updates start at nothing
    changed = moved(model, step(model, name, 0.01))
    assert all(is_head(model, key) or "_lora_" in key for key in changed), changed
    assert any("_lora_b" in key for key in changed)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "_lora_" in key:
                parameter.normal_(std=0.05)
    weights = plain_weights(model.state_dict(), options.alpha)
    assert list(weights) == list(plain.state_dict())
    assert any(
        "_lora" not in key and not is_head(model, key) and not torch.equal(weights[key], value)
        for key, value in plain.state_dict().items()
    )
    plain.load_state_dict(weights)
    with torch.no_grad():
        expected, got = answers(model, name), answers(plain, name)
        assert (expected - got).abs().max() <= 1e-5 * max(1.0, float(expected.abs().max()))


def answers(model: nn.Module, name: str) -> Tensor:
    output: Tensor = model.eval()(clips(name))
    return output.detach()


@pytest.mark.parametrize("rnn", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_weights_are_updated(rnn: Any) -> None:
    class Net(nn.Module):
        head_name = "head"

        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.head = rnn(6, 5, 2, batch_first=True, bidirectional=True), nn.Linear(10, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.rnn(x)[0][:, -1])

    torch.manual_seed(0)
    plain = Net()
    model = copy.deepcopy(plain)
    tune(model, TuneConfig(TuneName.lora, rank=2, alpha=1.0))
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if key.endswith("_lora_b"):
                parameter.normal_()
    plain.load_state_dict(plain_weights(model.state_dict(), 1.0))
    x = torch.randn(3, 4, 6)
    torch.testing.assert_close(model(x), plain(x), rtol=1e-5, atol=1e-6)
    model(x).sum().backward()
    assert all((p.grad is not None) == p.requires_grad for p in model.parameters())
    assert sum(key.endswith("_lora_a") for key, _ in model.named_parameters()) == 8


@pytest.mark.parametrize(("name", "frames", "side"), [("videomae_vit_b", 16, 224), ("vjepa2_vit_l", 16, 256)])
def test_lora_of_large_transformers_is_small(name: str, frames: int, side: int) -> None:
    from vidtrain.build import create_model

    with torch.device("meta"):
        model = create_model(name, num_classes=101, num_frames=frames, size=side)
        said = tune(model, TuneConfig(TuneName.lora))
    layers = sum(key.endswith("_lora_a") for key, _ in model.named_parameters())
    assert f"LoRA rank 8 on {layers} layers" in said
    assert layers >= 48
    assert 0 < share(model) <= 2
    assert not any("patch_embed" in key and "_lora" in key for key, _ in model.named_parameters())


def test_targets_by_name() -> None:
    def found(*targets: str) -> set[str]:
        model = build("vjepa2_tiny")
        tune(model, TuneConfig(TuneName.lora, targets=list(targets)))
        return {key.removesuffix(".weight_lora_a") for key, _ in model.named_parameters() if key.endswith("_lora_a")}

    assert found("blocks.*.attn.qkv") == {f"blocks.{n}.attn.qkv" for n in range(3)} | {"pooler.blocks.0.attn.qkv"}
    assert found("blocks.1.mlp.*") == {"blocks.1.mlp.fc1", "blocks.1.mlp.fc2"}
    assert found("patch_embed.proj") == {"patch_embed.proj"}
    with pytest.raises(ConfigError) as caught:
        found("attn.qvk")
    assert str(caught.value).startswith(
        "tune.targets: VJEPA2 has no layer 'attn.qvk' (did you mean attn.qkv?); it has "
    )
    assert "Linear: blocks.*.attn.qkv, blocks.*.attn.proj, blocks.*.mlp.fc1" in str(caught.value)
    with pytest.raises(ConfigError, match=r"tune\.targets=\[\]: name at least one layer"):
        found()


def test_last_counts_as_layer_decay_does() -> None:
    model = build("vjepa2_tiny")
    tune(model, TuneConfig(TuneName.last, blocks=2))
    trained = {
        key.split(".")[0] + key.split(".")[1] * key.startswith("blocks")
        for key, p in model.named_parameters()
        if p.requires_grad
    }
    assert trained == {"blocks1", "blocks2", "norm", "pooler", "head"}
    slowfast = build("slowfast_tiny")
    tune(slowfast, TuneConfig(TuneName.last, blocks=1))
    blocks = {key.rsplit(".", 2)[0] for key, p in slowfast.named_parameters() if p.requires_grad and key[0] in "sf"}
    assert {name.split(".")[0] for name in blocks} == {"slow", "fast", "fc"} - {"fc"} | {
        name for name in blocks if name == "fc"
    }


def test_layer_decay_of_what_is_trained() -> None:
    model = build("vjepa2_tiny")
    tune(model, TuneConfig(TuneName.lora, rank=2))
    groups = parameter_groups(model, lr=1.0, weight_decay=0.1, layer_decay=0.5)
    assert sorted(group["lr"] for group in groups) == [0.125, 0.25, 0.5, 1.0]
    assert sum(len(group["params"]) for group in groups) == sum(p.requires_grad for p in model.parameters())


def test_a_network_without_a_head() -> None:
    with pytest.raises(
        ConfigError, match=r"tune=head: Linear does not say which layer is its head: give it .*head_name"
    ):
        tune(nn.Linear(2, 2), TuneConfig(TuneName.head))
    assert tune(nn.Linear(2, 2), TuneConfig()) == "trains 6e-06M of 6e-06M parameters (100 %): everything"


def test_two_streams_that_learn_in_turn() -> None:
    model = build("two_stream", fusion="concat")
    tune(model, TuneConfig(TuneName.head))
    for epoch in range(4):
        model.begin_epoch(epoch, 4)  # type: ignore[operator]
        train_mode(model)
        trained = {key.split(".")[0] for key, p in model.named_parameters() if p.requires_grad}
        assert trained == ({"head", "streams"} if epoch < 3 else {"head"})
        assert not model.get_submodule("rgb").training
    model.begin_epoch(0, 4)  # type: ignore[operator]
    assert {key.split(".")[0] for key, p in model.named_parameters() if p.requires_grad} == {"head", "streams"}


def test_the_average_of_updates_is_merged() -> None:
    torch.manual_seed(0)
    model = build("vjepa2_tiny")
    tune(model, TuneConfig(TuneName.lora, rank=2, alpha=4.0))
    ema, name = EMA(model, 0.5), "blocks.1.attn.qkv.weight"
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "_lora_" in key:
                parameter.normal_()
    ema.update(torch.tensor(False))
    average = ema.state_dict()["average"]
    assert set(average) == {key for key, p in model.named_parameters() if p.requires_grad}
    with ema.applied():
        weights = plain_weights(model.state_dict(), 4.0)
    expected = model.state_dict()[name] + 2.0 * average[f"{name}_lora_b"] @ average[f"{name}_lora_a"]
    torch.testing.assert_close(weights[name], expected, rtol=1e-6, atol=1e-7)


def test_frozen_parts_keep_no_activations() -> None:
    def kept(options: TuneConfig) -> int:
        model, sizes = build("slow_tiny"), []
        tune(model, options)
        train_mode(model)
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
            model(clips("slow_tiny"))
        return sum(sizes)

    full, last, head = (kept(TuneConfig(name, blocks=1)) for name in (TuneName.full, TuneName.last, TuneName.head))
    assert head < 0.01 * full
    assert head < last < 0.5 * full


@pytest.mark.parametrize(
    "name", ["csn_tiny", *(pytest.param(n, marks=pytest.mark.slow) for n in ("vjepa2_tiny", "feature_rnn_tiny"))]
)
def test_checkpointed_and_compiled_networks_have_the_same_gradients(name: str) -> None:
    plain = build(name)
    tune(plain, TuneConfig(TuneName.lora, rank=2))
    torch.manual_seed(2)
    with torch.no_grad():
        for key, parameter in plain.named_parameters():
            if "_lora_" in key:
                parameter.normal_(std=0.1)
    results = []
    for change in ("", "checkpoint", "compile"):
        model = copy.deepcopy(plain)
        if change == "checkpoint" and any(repeated_blocks(model)):
            checkpoint_activations(model)
        if change == "compile":
            model.compile(backend="eager")
        train_mode(model)
        model(clips(name)).square().sum().backward()
        results.append({key: p.grad for key, p in model.named_parameters() if p.requires_grad})
    for other in results[1:]:
        for key, gradient in results[0].items():
            torch.testing.assert_close(other[key], gradient, rtol=1e-4, atol=1e-5, msg=key)


@pytest.mark.parametrize(
    "damage",
    [
        {"head.weight_lora_a": torch.zeros(2, 10**7), "head.weight_lora_b": torch.zeros(10**7, 2)},
        {"head.weight_lora_a": torch.zeros(0, 4), "head.weight_lora_b": torch.zeros(3, 0)},
        {"head.weight_lora_a": torch.zeros(2, 4)},
        {"head.weight_lora_a": torch.zeros(2), "head.weight_lora_b": torch.zeros(3, 2)},
        {"gone.weight_lora_a": torch.zeros(2, 4), "gone.weight_lora_b": torch.zeros(3, 2)},
    ],
)
def test_updates_of_a_strangers_file(damage: dict[str, Tensor]) -> None:
    weights = {"head.weight": torch.zeros(3, 4), **damage}
    with pytest.raises((ValueError, LookupError, ArithmeticError)):  # not an error of a product that was made
        merged(weights, 16.0)
    with pytest.raises(RuntimeError, match="low-rank updates"):
        plain_weights(weights, 16.0)
    sound = {"head.weight_lora_a": torch.zeros(2, 4), "head.weight_lora_b": torch.zeros(3, 2)}
    assert set(plain_weights({"head.weight": torch.zeros(3, 4), **sound}, 16.0)) == {"head.weight"}
    for alpha in (None, "much", [], {}):
        with pytest.raises(RuntimeError, match="low-rank updates"):
            plain_weights({"head.weight": torch.zeros(3, 4), **sound}, alpha)
