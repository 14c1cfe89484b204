"""Classes of unequal size in the loss: weights, focal terms, adjusted logits. K classes; `shares` float64 (K,) is the
share of the training clips that each class is drawn with (of several classes per video: that have the class)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from vidtrain.errors import ConfigError, did_you_mean, one_of

ClassWeights = str | Mapping[str, float] | None
"""balanced, sqrt, or weights by class name; None: all alike."""


def known_shares(shares: Sequence[float]) -> Tensor:
    """float64 (K,), none of them 0: a class without a training video counts as half of the rarest other one."""
    found = torch.tensor(shares, dtype=torch.float64)
    return found.clamp_min(found[found > 0].min() / 2) if (found > 0).any() else torch.full_like(found, 0.5)


def class_weights(wanted: ClassWeights, class_names: Sequence[str], shares: Tensor, multi_label: bool) -> Tensor | None:
    """float32 (K,), the factor of each class's loss; in a multi-label dataset of its positive targets.

    balanced: with one class per video 1 / share, so that each class has the same part in the loss; with several
    (1 - share) / share, so that its positives have the part of its negatives. sqrt: the square root of that. By name:
    the numbers given, 1 for classes that are not named. Weights of one class per video are scaled so that their mean
    over the training clips is 1 and the learning rate keeps its meaning: only their ratios count.

    Raises:
        ConfigError: another word, a class that does not exist, a number that is no weight.
    """
    if wanted is None:
        return None
    if isinstance(wanted, Mapping):
        weights = _named(wanted, class_names)
    elif wanted in ("balanced", "sqrt"):
        weights = (1 - shares).clamp_min(1e-6) / shares if multi_label else 1 / shares
        weights = weights.sqrt() if wanted == "sqrt" else weights
    else:
        raise ConfigError(
            f"task.class_weights={wanted}: expected balanced, sqrt, numbers by class such as "
            f"{{{class_names[0]}: 2.0}}, or null{did_you_mean(str(wanted), ('balanced', 'sqrt'))}"
        )
    if not multi_label:
        weights = weights * shares.sum() / (weights * shares).sum()
    return weights.float()


def _named(wanted: Mapping[str, float], class_names: Sequence[str]) -> Tensor:
    weights = torch.ones(len(class_names), dtype=torch.float64)
    for name, weight in wanted.items():
        if (key := str(name)) not in class_names:
            hint = did_you_mean(key, class_names)
            raise ConfigError(f"task.class_weights.{key}: no such class{hint}; classes: {one_of(class_names)}")
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 < weight < 1e6:
            raise ConfigError(f"task.class_weights.{key}={weight}: expected a number above 0 and below 1000000")
        weights[class_names.index(key)] = weight
    return weights


def logit_offsets(tau: float, shares: Tensor, multi_label: bool) -> Tensor | None:
    """float32 (K,), added to the logits in the loss alone: tau * log(share), Menon et al. 2021, equation 10.

    The logits themselves then rank classes as if all were equally frequent, which is what they are tested by. In a
    multi-label dataset each class is a choice between two, whose logits differ by tau * log(share / (1 - share)) more.
    """
    if tau == 0:
        return None
    odds = shares / (1 - shares).clamp_min(1e-6) if multi_label else shares / shares.sum()
    return (tau * odds.log()).float()


def focal_cross_entropy(logits: Tensor, targets: Tensor, gamma: float, weights: Tensor | None) -> Tensor:
    """The mean over B of -w (1 - p)^gamma log p of the true class, Lin et al. 2017, with p by softmax.

    logits: float32 (B, K). targets: int64 (B,), or float (B, K), shares of several classes, whose terms are added.
    """
    log_p = logits.log_softmax(1)
    if targets.ndim == 1:
        log_p = log_p.gather(1, targets[:, None])
        weights = None if weights is None else weights[targets, None]
    # expm1 is exact where p is close to 1; the bound keeps the gradient of a root finite there
    terms = (-torch.expm1(log_p)).clamp_min(torch.finfo(log_p.dtype).eps) ** gamma * -log_p
    if targets.ndim == 2:
        terms = targets * terms
    return (terms if weights is None else terms * weights).sum() / len(logits)


def focal_binary_cross_entropy(logits: Tensor, targets: Tensor, gamma: float, weights: Tensor | None) -> Tensor:
    """The same with p by sigmoid, a choice between two for each class; the mean over B and K.

    logits, targets: float32 (B, K). weights: of the positive targets.
    """
    log_p, log_not = F.logsigmoid(logits), F.logsigmoid(-logits)
    positive = targets * (gamma * log_not).exp() * -log_p
    negative = (1 - targets) * (gamma * log_p).exp() * -log_not
    return (positive * (1 if weights is None else weights) + negative).mean()
