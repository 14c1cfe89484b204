"""Networks under the names of Hugging Face's transformers and back; with the library itself, the same logits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from tests.models.parity import drawn_weights
from tests.models.test_parity_transformers import small
from vidtrain.build import create_model
from vidtrain.errors import CheckpointError
from vidtrain.models.weights.to_transformers import (
    NotInTransformersError,
    TransformersModel,
    from_transformers,
    to_transformers,
)

THIN = {"width": 32, "depth": 2}
VJEPA = {"heads": 4, "probe_depth": 1, "probe_heads": 4}
NETS: list[tuple[str, dict[str, Any]]] = [
    ("videomae_vit_b", {}),
    ("timesformer", {}),
    ("timesformer", {"attention": "joint"}),
    ("vivit", {"tubelet": 4, "mlp_ratio": 2.0}),
    ("vjepa2_vit_l", {**VJEPA, "probe_norm_eps": 1e-6}),
]


def net(model: str, options: dict[str, Any]) -> nn.Module:
    """A thin one, whose weights are all drawn."""
    made = create_model(model, num_classes=5, **THIN, **options) if model == "vjepa2_vit_l" else small(model, **options)
    drawn_weights(made)
    return made.eval()


def converted(model: nn.Module) -> TransformersModel:
    found = to_transformers(model, model.state_dict(), num_frames=4, size=32)
    assert found is not None
    return found


@pytest.mark.parametrize(("model", "options"), NETS)
def test_there_and_back(model: str, options: dict[str, Any]) -> None:
    made = net(model, options)
    theirs, own = converted(made), made.state_dict()
    assert not [key for key in theirs.state if key.startswith("blocks.")]
    back = from_transformers(dict(theirs.state), "x")
    assert back.keys() == own.keys()
    for key, tensor in own.items():
        assert torch.equal(back[key], tensor), key
    assert theirs.config["hidden_size"] == 32
    assert theirs.config["num_hidden_layers"] == 2
    assert theirs.config["num_attention_heads"] == 4


@pytest.mark.parametrize(
    ("model", "options", "reason"),
    [
        ("videomae_vit_b", {"table_frames": 16, "table_size": 64}, "interpolated positions"),
        ("timesformer", {"attention": "space"}, "average over the frames of model.attention=space"),
        ("vivit_fe", {}, "factorised encoder"),
        (
            "vjepa2_vit_l",
            {**VJEPA, "probe_heads": 2},
            "as many heads in the probe as in the encoder, 4: this one has 2",
        ),
        ("vjepa2_vit_l", {**VJEPA, "mlp_ratio": 2.0}, "mlp_ratio, 2, in the probe"),
        ("vjepa2_vit_l", {**VJEPA, "version": "2.1"}, "no V-JEPA 2.1"),
    ],
)
def test_what_it_would_compute_otherwise_is_not_converted(model: str, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(NotInTransformersError, match=reason):
        converted(net(model, options))


def test_what_it_has_nothing_of_the_kind_of() -> None:
    model = nn.Conv3d(3, 4, 1)
    assert to_transformers(model, model.state_dict(), num_frames=4, size=32) is None


def test_another_epsilon_is_noted() -> None:
    assert converted(net("vjepa2_vit_l", VJEPA)).notes == [
        "the norms of its probe have an epsilon of 1e-06 there, 1e-05 here"
    ]


@pytest.mark.parametrize("change", ["other", "shape", "missing"])
def test_a_strangers_tensors_are_an_error(change: str) -> None:
    state = dict(converted(net("vivit", {})).state)
    if change == "other":
        state = {"a.weight": torch.zeros(2)}
    elif change == "shape":
        state["vivit.encoder.layer.0.attention.attention.query.weight"] = torch.zeros(3, 3, 3)
    else:  # what is absent is found where the weights are loaded, by name
        del state["vivit.embeddings.cls_token"]
        assert "cls_token" not in from_transformers(state, "x")
        return
    with pytest.raises(CheckpointError, match=r"^dir: "):
        from_transformers(state, "dir")


@pytest.mark.slow
@pytest.mark.parametrize(("model", "options"), [*NETS, ("vjepa2_vit_l", VJEPA)])
def test_the_logits_of_transformers(model: str, options: dict[str, Any]) -> None:
    """Skipped where transformers is not installed, as in CI."""
    transformers = pytest.importorskip("transformers")
    made = net(model, options)
    theirs = converted(made)
    config = transformers.AutoConfig.for_model(**theirs.config, num_labels=5)
    other = getattr(transformers, theirs.config["architectures"][0]).from_pretrained(
        None, config=config, state_dict=dict(theirs.state)
    )
    clips = torch.randn(2, 3, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours, logits = made(clips), other.eval()(clips.transpose(1, 2)).logits
    scale = ours.std().item()
    # float32; the other epsilon of a probe's norms counts for as much again
    assert (ours - logits).abs().max().item() < 5e-5 * scale
