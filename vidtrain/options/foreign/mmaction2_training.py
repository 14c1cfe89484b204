"""How a Python configuration of MMAction2 trains, in vidtrain's options: the optimizer, its rate, epochs and batch.

Source of the names and of what they do: open-mmlab/mmaction2, configs/recognition (4d6c9347); open-mmlab/mmengine,
mmengine/optim/scheduler.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from vidtrain.errors import ConfigError
from vidtrain.options.foreign.reading import Foreign, ForeignChoice, are_numbers


def training(given: Foreign, name: str) -> Iterator[ForeignChoice]:
    """The choices and keys of an experiment about this.

    name: of the file, of which `8xb16` says how many GPUs have how many clips each.

    Raises:
        ConfigError: an optimizer that is not here.
    """
    yield from _optimizer(given)
    yield from _schedule(given)
    yield from _loop(given, name)


def _optimizer(given: Foreign) -> Iterator[ForeignChoice]:
    kind = str(given.get("optim_wrapper.optimizer.type", "SGD"))
    if kind not in ("SGD", "AdamW"):
        raise ConfigError(f"optim_wrapper.optimizer.type: {kind}: known are SGD and AdamW")
    yield ForeignChoice("/optimizer", kind.lower(), f"optim_wrapper.optimizer.type: {kind}")
    for key, of in (("lr", ""), ("weight_decay", ""), ("momentum", "SGD")):
        if of in ("", kind) and (value := given.number(f"optim_wrapper.optimizer.{key}")) is not None:
            yield ForeignChoice(f"optimizer.{key}", value, f"optim_wrapper.optimizer.{key}")
    if kind == "SGD":  # torch's default, which MMAction2 keeps
        nesterov = given.get("optim_wrapper.optimizer.nesterov") is True
        yield ForeignChoice("optimizer.nesterov", nesterov, "optim_wrapper.optimizer.nesterov")
    if given.number("optim_wrapper.paramwise_cfg.norm_decay_mult") == 0:
        given.ignore("optim_wrapper.paramwise_cfg.bias_decay_mult")
        yield ForeignChoice("optimizer.decay_norms", False, "optim_wrapper.paramwise_cfg.norm_decay_mult: 0")
    given.ignore("optim_wrapper.optimizer.betas", "optim_wrapper.clip_grad.norm_type", "optim_wrapper.optimizer.eps")
    if (norm := given.number("optim_wrapper.clip_grad.max_norm")) is not None:
        yield ForeignChoice("trainer.clip_grad", norm, "optim_wrapper.clip_grad.max_norm")
    if given.get("optim_wrapper.type") == "AmpOptimWrapper":
        yield ForeignChoice("trainer.precision", "auto", "optim_wrapper.type: AmpOptimWrapper")
    given.ignore("optim_wrapper.type")


def _schedule(given: Foreign) -> Iterator[ForeignChoice]:
    """A warm-up by LinearLR, and one policy for all that follows it; the others are named among what is left."""
    policies = given.get("param_scheduler")
    listed = policies if isinstance(policies, list) else [policies]
    followed = False
    for number, policy in enumerate(listed):
        kind = policy.get("type") if isinstance(policy, dict) else None
        in_epochs = isinstance(policy, dict) and policy.get("by_epoch", True) is True
        if kind == "LinearLR" and in_epochs and policy.get("end_factor", 1) == 1 and not policy.get("begin"):
            if (end := given.checked("param_scheduler: LinearLR.end", policy.get("end", 0))) is not None:
                yield ForeignChoice("schedule.warmup_epochs", float(end), "param_scheduler: LinearLR.end")
        elif kind in _POLICIES and in_epochs and not followed:
            followed = True
            yield from _POLICIES[kind](given, policy)
        elif policy is not None:
            given.refused[f"param_scheduler[{number}]"] = policy


def _multi_step(given: Foreign, policy: dict[str, Any]) -> Iterator[ForeignChoice]:
    yield ForeignChoice("/schedule", "step", "param_scheduler: MultiStepLR")
    steps: Any = policy.get("milestones")
    if are_numbers(steps):
        yield ForeignChoice("schedule.milestones", [float(step) for step in steps], "MultiStepLR.milestones")
    else:
        given.refused["param_scheduler: MultiStepLR.milestones"] = steps
    if (gamma := given.checked("param_scheduler: MultiStepLR.gamma", policy.get("gamma", 0.1))) is not None:
        yield ForeignChoice("schedule.gamma", gamma, "MultiStepLR.gamma")


def _cosine(given: Foreign, policy: dict[str, Any]) -> Iterator[ForeignChoice]:
    yield ForeignChoice("/schedule", "cosine", "param_scheduler: CosineAnnealingLR")
    place = "param_scheduler: CosineAnnealingLR.eta_min_ratio"
    share = given.checked(place, policy.get("eta_min_ratio"))
    if share is not None:
        yield ForeignChoice("schedule.final_ratio", share, "CosineAnnealingLR.eta_min_ratio")
        return
    place = "param_scheduler: CosineAnnealingLR.eta_min"
    low, rate = given.checked(place, policy.get("eta_min")), given.number("optim_wrapper.optimizer.lr")
    if low and rate and low <= rate:
        yield ForeignChoice("schedule.final_ratio", low / rate, "CosineAnnealingLR.eta_min / optimizer.lr")
    elif low:
        given.refused[place] = low


_POLICIES: Final = {"MultiStepLR": _multi_step, "CosineAnnealingLR": _cosine}
"""How the rate falls, by the type of a policy."""


def _loop(given: Foreign, name: str) -> Iterator[ForeignChoice]:
    if (epochs := given.count("train_cfg.max_epochs")) is not None:
        yield ForeignChoice("trainer.epochs", epochs, "train_cfg.max_epochs")
    if (period := given.count("train_cfg.val_interval")) is not None:
        yield ForeignChoice("trainer.val_every", period, "train_cfg.val_interval")
    batch, base = given.count("train_dataloader.batch_size"), given.count("auto_scale_lr.base_batch_size")
    gpus = re.search(r"(?:^|[_-])(\d+)xb\d+", name)
    if batch is not None:
        count = int(gpus[1]) if gpus else 1
        why = (
            f"{count} GPUs (of the file's name) x train_dataloader.batch_size"
            if gpus
            else "train_dataloader.batch_size"
        )
        yield ForeignChoice("trainer.batch_size", count * batch, why)
    if base is not None:
        yield ForeignChoice("trainer.base_batch", base, "auto_scale_lr.base_batch_size")
    given.ignore("auto_scale_lr.enable")
