"""One update of the weights, from batches as the loader gives them; what is minimised is the task's to say."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from vidtrain.engine.batch_norm import NormStatistics, kept_statistics
from vidtrain.engine.ema import EMA
from vidtrain.engine.preprocess import ModelRunner
from vidtrain.errors import VidtrainError
from vidtrain.tasks.task import Task
from vidtrain.types import Batch

log = logging.getLogger("vidtrain")


class TrainingStep:
    """Forward, loss and backward over a group of batches, then one update.

    An update whose gradient is not finite is skipped: weights, momentum and the statistics of BatchNorm stay as they
    were. No value is read from the device for it where the optimizer is a fused one, so a GPU runs on.

    Args:
        clip_grad: largest norm of the gradient.
        halve_on_oom: a batch that does not fit into the memory of the GPU goes through in two halves from then on.

    Attributes:
        sums: float64 on the device: the loss and each of task.measures over samples, and samples, since it was last
            zeroed; those whose loss is not finite are skipped.
        skipped: a bool tensor on the device and the rows of the clips, for each update since the list was last emptied.
        micro_batch: clips that go through the network at once; None: whole batches.
        grad_norm: of the last update, before it was clipped, on the device; None before the first.
    """

    def __init__(
        self,
        network: ModelRunner,
        optimizer: torch.optim.Optimizer,
        task: Task,
        *,
        clip_grad: float | None = None,
        halve_on_oom: bool = True,
        ema: EMA | None = None,
    ) -> None:
        self.network = network
        self.model = network.model
        self.precision = network.precision
        self.optimizer = optimizer
        self.task = task
        self.clip_grad = clip_grad
        self.halve_on_oom = halve_on_oom
        self.ema = ema
        self.micro_batch: int | None = None
        self.grad_norm: Tensor | None = None
        self.sums = torch.zeros(len(task.measures) + 2, dtype=torch.float64, device=self.precision.sums_device)
        self.skipped: list[tuple[Tensor, list[int]]] = []
        self._statistics = NormStatistics(self.model)
        self._base_lrs = [group["lr"] for group in optimizer.param_groups]

    def __call__(self, group: Sequence[Batch], lr_factor: float) -> None:
        """One update with the mean gradient over all clips of `group`, at `lr_factor` times the learning rates."""
        self._statistics.remember()
        while (sums := self.gradient(group)) is None:
            self.halve(max(len(batch) for batch in group))
        self.sums += sums
        for param_group, lr in zip(self.optimizer.param_groups, self._base_lrs, strict=True):
            param_group["lr"] = lr * lr_factor
        not_finite = self._update()
        self._statistics.restore_if(not_finite)
        self.skipped.append((not_finite, torch.cat([batch.videos for batch in group]).tolist()))

    def gradient(self, group: Sequence[Batch]) -> Tensor | None:
        """Gather the gradient; returns what belongs into `sums`, or None when the memory of the GPU did not suffice."""
        total = sum(len(batch) for batch in group)
        pieces = [piece for batch in group for piece in batch.split(self.micro_batch)]
        sums = torch.zeros_like(self.sums)
        try:
            for number, piece in enumerate(pieces, 1):
                targets = piece.targets.to(self.precision.device, non_blocking=True)
                ready = Batch(self.network.ready(piece.inputs), targets, piece.videos)
                with self._exchange(last=number == len(pieces)):
                    loss, measures = self.task.loss(self.network, ready)
                    if loss.requires_grad:  # a network may have nothing to train
                        self.precision.scaler.scale(loss * (len(piece) / total)).backward()
                sums += self._found(loss.detach(), measures, len(piece))
        except torch.OutOfMemoryError:
            if not self.halve_on_oom:
                raise
            self.optimizer.zero_grad(set_to_none=True)
            return None
        return sums

    def _exchange(self, *, last: bool) -> AbstractContextManager[Any]:
        """Processes exchange their gradients once a group, with its last piece; those that share weights with each."""
        across_nodes = getattr(self.network.called, "set_requires_all_reduce", None)
        if across_nodes is not None:
            across_nodes(last)
        no_sync = getattr(self.network.called, "no_sync", None)
        return nullcontext() if last or no_sync is None else no_sync()

    def _found(self, loss: Tensor, measures: Mapping[str, Tensor], count: int) -> Tensor:
        samples = torch.full_like(self.sums[0], count)
        found = [measures[name].detach().sum().to(samples) for name in self.task.measures]
        loss = loss.to(samples)
        return torch.where(loss.isfinite(), torch.stack([loss * samples, *found, samples]), 0.0)

    def averages(self, sums: Tensor) -> dict[str, float]:
        """sums: as `sums`, of all processes -> "loss" and the measures, per sample. Waits for the device."""
        *found, samples = sums.tolist()
        return {name: value / max(samples, 1) for name, value in zip(("loss", *self.task.measures), found, strict=True)}

    def _update(self) -> Tensor:
        """Move the weights; returns bool (), whether that was skipped because the gradient is not finite."""
        optimizer, scaler = self.optimizer, self.precision.scaler
        scaler.unscale_(optimizer)
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        norm = getattr(norm, "full_tensor", lambda: norm)()  # of sharded weights
        self.grad_norm = norm.detach()
        not_finite = ~norm.isfinite()
        if self.clip_grad is not None:
            nn.utils.clip_grads_with_norm_(parameters, self.clip_grad, norm)
        if optimizer.defaults.get("fused") and not scaler.is_enabled():
            # the kernel itself leaves everything as it is when this is 1
            optimizer.found_inf, optimizer.grad_scale = not_finite.float(), None  # type: ignore[attr-defined]
            optimizer.step()
        elif not not_finite.item():
            scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
        if self.ema is not None:
            self.ema.update(not_finite)
        return not_finite

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The model that is tested and kept: with an average of the weights, that one inside.

        What is done to BatchNorm's statistics meanwhile is undone for the weights that are trained on.
        """
        with self.ema.applied() if self.ema is not None else nullcontext(), kept_statistics(self.model):
            yield

    def halve(self, largest: int) -> None:
        before = min(self.micro_batch or largest, largest)
        if before < 2:
            raise VidtrainError(
                "the memory of the GPU does not suffice for a single clip: lower sampler.num_frames or transform.size, "
                "or set trainer.checkpoint_activations=true or trainer.precision=bf16"
            )
        if self.precision.device.type == "cuda":
            torch.cuda.empty_cache()
        self.micro_batch = (before + 1) // 2
        log.warning(
            "%d clips do not fit into the memory of the GPU: %d at a time from now on, and their gradients are added "
            "up, so an update still sees as many clips (BatchNorm sees %d); trainer.on_oom=fail stops instead",
            before,
            self.micro_batch,
            self.micro_batch,
        )
