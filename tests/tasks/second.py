"""A second task, and what one of two processes does with it: python -m tests.tasks.second RANK FOLDER."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from vidtrain.engine.devices.distributed import World
from vidtrain.tasks.task import Forward, Predictions
from vidtrain.types import Batch


class Predictor(nn.Module):
    """(B, 3, T, H, W) -> (B, 3, H, W): the frame that follows, an affine function of each colour of the last one."""

    def __init__(self, num_classes: int = 0) -> None:
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.ones(3, 1, 1)), nn.Parameter(torch.ones(3, 1, 1))
        self.norm = nn.BatchNorm2d(3)

    def forward(self, clips: Tensor) -> Tensor:
        found: Tensor = self.scale * self.norm(clips[:, :, -1]) + self.shift
        return found


@dataclass
class FrameScores:
    """Implements tasks.task.Scores."""

    predictions: Predictions
    primary = "closeness"

    def summary(self) -> dict[str, float]:
        error = self.predictions.columns["error"].mean().item() if len(self.predictions) else float("nan")
        return {"closeness": 1 / (1 + error), "loss": error}

    def rank(self) -> list[float]:
        return [self.summary()["closeness"] * self.predictions.finite_share]

    def report(self) -> dict[str, Any]:
        return {"kept": sorted(self.predictions.columns)}

    def remarks(self) -> list[str]:
        return []

    def figures(self) -> dict[str, Any]:
        return {}


class ErrorsFile:
    def __init__(self, file: Path, paths: Sequence[str]) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self.paths, self.handle = paths, file.open("w", encoding="utf-8")

    def add(self, predictions: Predictions) -> None:
        for row, error in zip(predictions.videos.tolist(), predictions.columns["error"].tolist(), strict=True):
            self.handle.write(f"{self.paths[row]},{error:.4f}\n")

    def close(self) -> None:
        self.handle.close()


class NextFrame:
    """The last frame of a clip from those before it. It has no use for the targets."""

    titles: Mapping[str, str] = {"closeness": "closeness", "loss": "loss", "error": "pixel error"}
    primary = "closeness"
    measures: Sequence[str] = ("error",)

    def __init__(self, class_names: Sequence[str] = (), multi_label: bool = False, *, power: float = 2.0) -> None:
        self.class_names, self.multi_label, self.power = list(class_names), multi_label, power

    def _errors(self, network: Forward, clips: Tensor) -> Tensor:
        wrong: Tensor = network({"rgb": clips[:, :, :-1]}).float() - clips[:, :, -1]
        return wrong.abs().pow(self.power).flatten(1).mean(1)

    def loss(self, network: Forward, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        errors = self._errors(network, batch.inputs["rgb"])
        return errors.mean(), {"error": errors.detach()}

    def predict(self, network: Forward, inputs: Mapping[str, Any]) -> Tensor:
        return self._errors(network, inputs["rgb"])

    def columns(self, views: Tensor, targets: Tensor, average: str) -> dict[str, Tensor]:
        return {"error": views.mean(1)}

    def scores(self, predictions: Predictions) -> FrameScores:
        return FrameScores(predictions)

    def file(self, file: Path, paths: Sequence[str], top: int = 5) -> ErrorsFile:
        return ErrorsFile(file, paths)

    def lines(self, predictions: Predictions, top: int) -> list[str]:
        return [f"error {error:.4f}" for error in predictions.columns["error"].tolist()]

    def describe(self) -> dict[str, Any]:
        return {"class_names": self.class_names, "multi_label": self.multi_label}

    def random_targets(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.zeros(count)


def found(folder: Path, world: World) -> dict[str, Any]:
    """A training by the loop as it is, whole, and stopped and continued."""
    from tests.engine.pair import resumed, trained

    options: dict[str, Any] = {"task": NextFrame(), "ema": 0.8}
    folder.mkdir(exist_ok=True)
    return {
        "whole": trained(folder / "whole", world, Predictor, **options),
        "parts": resumed(folder / "parts", world, Predictor, **options),
    }


def main(rank: int, folder: Path) -> None:
    world = World(rank, 2, rank)
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2)
    try:
        together = found(folder / "together", world)
    finally:
        world.leave()
    (folder / f"{rank}.json").write_text(json.dumps(together))


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
