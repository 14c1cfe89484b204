"""Losses for one class and for several, and the mixing of clips."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from vidtrain.errors import ConfigError
from vidtrain.tasks.classification.objective import Objective


def clips(count: int = 4) -> torch.Tensor:
    """Clip n is n everywhere, in the layout of Preprocess."""
    values = torch.arange(count, dtype=torch.float32).view(-1, 1, 1, 1, 1)
    return values.expand(count, 3, 2, 16, 16).contiguous(memory_format=torch.channels_last_3d)


def test_losses_are_torchs() -> None:
    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    classes, several = torch.tensor([0, 2, 1, 1, 0]), torch.eye(3)[torch.tensor([0, 2, 1, 1, 0])]
    several[0, 1] = 1
    assert torch.equal(
        Objective(label_smoothing=0.1).loss(logits, classes), F.cross_entropy(logits, classes, label_smoothing=0.1)
    )
    plain = Objective(multi_label=True).loss(logits, several)
    assert torch.equal(plain, F.binary_cross_entropy_with_logits(logits, several))
    smooth = Objective(multi_label=True, label_smoothing=0.2).loss(logits, several)
    assert torch.allclose(smooth, F.binary_cross_entropy_with_logits(logits, several * 0.8 + 0.1))
    with pytest.raises(ConfigError, match=r"task\.label_smoothing=1"):
        Objective(label_smoothing=1)


def test_hits() -> None:
    logits = torch.tensor([[3.0, 1.0, 0.0], [0.0, 1.0, 2.0]])
    assert Objective().hits(logits, torch.tensor([0, 1])).tolist() == [True, False]
    several = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0]])
    assert Objective(multi_label=True).hits(logits, several).tolist() == [True, False]
    mixed = torch.tensor([[0.7, 0.3, 0.0], [0.6, 0.0, 0.4]])
    assert Objective(mixup=1.0).hits(logits, mixed).tolist() == [True, False]


def test_without_mixing_nothing_is_touched_or_drawn() -> None:
    inputs, labels = clips(), torch.arange(4)
    state = torch.get_rng_state()
    assert Objective().mix(inputs, labels, 4) == (inputs, labels)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("options", [{"mixup": 0.8}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 0.4}])
def test_labels_are_mixed_as_the_pixels_are(options: dict[str, float], multi_label: bool) -> None:
    """Clip n is n everywhere, so its mean tells how much of which clip is in it."""
    torch.manual_seed(0)
    labels = torch.eye(4) if multi_label else torch.arange(4)
    for _ in range(10):
        mixed, targets = Objective(multi_label=multi_label, **options).mix(clips(), labels, 4)
        assert type(mixed) is torch.Tensor
        assert mixed.is_contiguous(memory_format=torch.channels_last_3d)
        assert targets.shape == (4, 4)
        assert torch.allclose(targets.sum(1), torch.ones(4))
        means = (targets * torch.arange(4)).sum(1)
        assert torch.allclose(mixed.mean((1, 2, 3, 4)), means, atol=1e-4)
        assert (mixed == mixed[:, :, :1]).all()  # the same in every frame


def test_mixing_follows_torchs_seed() -> None:
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append(Objective(mixup=0.8, cutmix=1.0).mix(clips(), torch.arange(4), 4)[1])
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_mixup_blends_whole_clips_and_cutmix_pastes_a_rectangle() -> None:
    torch.manual_seed(0)
    for _ in range(5):
        blended, _ = Objective(mixup=1.0).mix(clips(), torch.arange(4), 4)
        assert (blended == blended[:, :1, :1, :1, :1]).all()
        assert (blended != blended.round()).any()
        pasted, _ = Objective(cutmix=1.0).mix(clips(), torch.arange(4), 4)
        assert (pasted == pasted.round()).all()
