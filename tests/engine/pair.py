"""What one of two processes does for test_pair.py: python -m tests.engine.pair RANK FOLDER [ALONE].

Everything in it is the real thing, loader, scorer, step, trainer and checkpoints; only the videos are made in memory.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import open_dict
from torch import Tensor, nn

from vidtrain.commands import run_dir
from vidtrain.commands.scoring import Scorer
from vidtrain.commands.training_parts import build_trainer
from vidtrain.data.clips.dataset import ClipParts, TrainClips
from vidtrain.data.clips.loader import TrainLoader
from vidtrain.data.clips.workers import Workers
from vidtrain.data.manifest.manifest import Manifest, VideoData
from vidtrain.data.settings import EvalConfig, SamplerConfig, TransformConfig
from vidtrain.engine.checkpoints.checkpoint import Checkpoints, load_checkpoint
from vidtrain.engine.devices.distributed import World
from vidtrain.engine.devices.parallel import parallel
from vidtrain.engine.ema import EMA
from vidtrain.engine.hooks import standard_hooks
from vidtrain.engine.precision import Precision
from vidtrain.engine.preprocess import ModelRunner
from vidtrain.engine.schedule import Plan
from vidtrain.engine.settings import PrecisionName, TrainerConfig
from vidtrain.engine.step import TrainingStep
from vidtrain.engine.trainer import Trainer
from vidtrain.engine.training_state import Outputs
from vidtrain.errors import DataError, VideoError
from vidtrain.models.settings import TuneConfig, TuneName
from vidtrain.models.tuning import plain_weights, tune
from vidtrain.options.invocation import Invocation, typed
from vidtrain.options.option_texts import conf_dir
from vidtrain.options.schema import TrainConfig, register
from vidtrain.tasks.classification.task import Classification
from vidtrain.tasks.task import Task
from vidtrain.types import Frames, Indices, VideoInfo

CPU = torch.device("cpu")
VIDEOS, BATCH = 26, 4  # the last two of an epoch are dropped
BROKEN = "v7"


@dataclass(frozen=True)
class Video:
    """Noise of its own, a little brighter where its class is 1."""

    number: int
    info: VideoInfo

    def read(self, indices: Indices, size: tuple[int, int] | None = None) -> Frames:
        rng = np.random.default_rng(self.number)
        frames = rng.integers(0, 200, (9, *(size or (10, 12)), 3), dtype=np.uint8) + np.uint8(40 * (self.number % 2))
        return frames[indices]

    def close(self) -> None: ...

    def __enter__(self) -> Video:
        return self

    def __exit__(self, *error: object) -> None: ...


@dataclass(frozen=True)
class Memory:
    """Reads the paths v0, v1, ... but not those in `broken`."""

    broken: str = ""

    def open(self, path: str) -> Video:
        if path in self.broken.split():
            raise VideoError(path, "made so")
        return Video(int(path[1:]), VideoInfo(num_frames=9, fps=10.0, height=10, width=12))


def manifest(first: int, count: int) -> Manifest:
    return Manifest.of([f"v{n}" for n in range(first, first + count)], [n % 2 for n in range(first, first + count)])


DATA = VideoData(("dark", "bright"), {"train": manifest(0, VIDEOS), "val": manifest(100, 7)})

TASK = Classification(DATA.class_names)


class Recorder:
    """Keeps the numbers."""

    def __init__(self) -> None:
        self.lines: list[list[Any]] = []

    def scalars(self, kind: str, update: int, epoch: float, values: dict[str, float]) -> None:
        kept = {k: v for k, v in values.items() if k not in ("clips_per_second", "data_wait_share")}
        self.lines.append([kind, update, epoch, kept])

    def clips(self, update: int, views: Tensor, targets: Tensor) -> None: ...

    def precision_recall(self, name: str, update: int, truth: object, scores: object) -> None: ...

    def finish(self, update: int, values: dict[str, float]) -> None: ...

    def figure(self, name: str, update: int, draw: Callable[[], object]) -> None: ...


class Net(nn.Module):
    """One hidden layer; without dropout and BatchNorm, so that two processes have the numbers of one."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.head = nn.Linear(3 * 3 * 8 * 8, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.first(x.flatten(1))))


class Noisy(nn.Module):
    """With BatchNorm and dropout: each process has statistics and draws of its own."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm, self.head = nn.Linear(3 * 3 * 8 * 8, 8), nn.BatchNorm1d(8), nn.Linear(8, 2)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.dropout(self.norm(self.first(x.flatten(1)))))


TUNED = TuneConfig(TuneName.lora, rank=2, alpha=4.0)


def tuned() -> nn.Module:
    """The hidden layer frozen, with a low-rank update."""
    model = Net()
    model.head_name = "head"
    tune(model, TUNED)
    return model


def config() -> TrainConfig:
    return TrainConfig(
        decoder={"_target_": "tests.engine.pair.Memory"},
        sampler=SamplerConfig(num_frames=3, stride=2),
        transform=TransformConfig(size=8, resize=10),
        eval=EvalConfig(batch_size=4),
    )


def loader(world: World, broken: str = "") -> TrainLoader:
    parts = ClipParts(Memory(broken), SamplerConfig(num_frames=3, stride=2), TransformConfig(size=8, resize=10))
    clips = TrainClips(DATA.splits["train"], parts, seed=5)
    return TrainLoader(clips, Workers(0), batch_size=BATCH, share=(world.rank, world.size))


def trainer(
    folder: Path,
    world: World,
    *,
    network: Callable[[], nn.Module] = Net,
    task: Task = TASK,
    broken: str = "",
    max_bad: float = 0,
    **settings: Any,
) -> Trainer:
    folder.mkdir(exist_ok=True)
    model, precision, cfg = network(), Precision(PrecisionName.fp32, CPU), config()
    options = TrainerConfig(**{"epochs": 2, "accumulate": 2, "save_minutes": 1e9, "log_every": 2, **settings})
    scorer = Scorer(cfg, precision, 0, world)
    step = TrainingStep(
        ModelRunner(
            model, scorer.preprocess, precision, parallel(model, world, sharded=False, sync_bn=False, device=CPU)
        ),
        torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9),
        task,
        ema=EMA(model, 0.9),
    )
    return Trainer(
        step,
        loader(world, broken),
        Plan(options),
        Outputs(
            Checkpoints(
                folder,
                world=world,
                plain=lambda weights: plain_weights(weights, TUNED.alpha),
                describe={"config": {}, **task.describe()},
            ),
            Recorder(),
        ),
        validate=lambda network: scorer.validate(task, network, DATA, 2),
        hooks=standard_hooks(options, max_bad),
    )


def world_says(world: World) -> dict[str, Any]:
    """What each method gives here."""
    tensors = [torch.full((2,), float(world.rank)), torch.full((1,), 10.0 + world.rank)]
    world.broadcast(tensors)
    return {
        "part": [list(world.part(n)) for n in (0, 1, 5)],
        "sum": world.sum(torch.tensor([1.0, world.rank])).tolist(),
        "any": world.any(world.rank == 1, False, world.rank == 0),
        "gather": world.gather({"rank": world.rank}),
        "from_main": world.from_main(["main", world.rank]),
        "broadcast": [t.tolist() for t in tensors],
        "is_main": world.is_main,
    }


def batches_of(world: World) -> list[list[list[int]]]:
    """Rows of the batches of two epochs, and of the second from its third batch on."""
    own = loader(world)
    return [[batch.videos.tolist() for batch in own.epoch(*where)] for where in ((0,), (1,), (1, 2))]


def scored(world: World, hop: int | None = None) -> dict[str, Any]:
    """Every video of a split, each by one of the processes; with a hop, in parts."""
    own, cfg = Memory(), config()
    seen: list[str] = []

    class Noting:
        def open(self, path: str) -> Video:
            seen.append(path)
            return own.open(path)

    scorer = Scorer(cfg, Precision(PrecisionName.fp32, CPU), 0, world)
    scorer.parts = replace(scorer.parts, reader=Noting())
    scores = scorer.score(TASK, Net(), DATA, "val", replace(scorer.plain_views, clips=2, hop=hop))
    return {"opened": seen, "videos": scores.predictions.videos.tolist(), "probs": scores.probs.tolist()}


def state(model: nn.Module) -> dict[str, Any]:
    """Weights and buffers, each as one list."""
    parts = {"weights": model.parameters(), "buffers": model.buffers()}
    return {name: [x for tensor in tensors for x in tensor.flatten().tolist()] for name, tensors in parts.items()}


def trained(folder: Path, world: World, network: Callable[[], nn.Module] = Net, **options: Any) -> dict[str, Any]:
    training = trainer(folder, world, network=network, **options)
    training.fit()
    return {"log": training.recorder.lines, "progress": training.progress.clips, **state(training.model)}


def noisy(folder: Path, world: World) -> dict[str, Any]:
    """A training with draws of each process's own, whole, and stopped and continued."""

    def network() -> nn.Module:
        model = Noisy()
        torch.manual_seed(world.rank)
        return model

    return {"whole": trained(folder / "n1", world, network), "again": resumed(folder / "n2", world, network)}


def resumed(folder: Path, world: World, network: Callable[[], nn.Module] = Net, **options: Any) -> dict[str, Any]:
    """The same training, stopped within its first epoch and continued by a new trainer."""
    first = trainer(folder, world, log_every=1, network=network, **options)
    inside, scalars = [0], first.recorder.scalars

    def stop_at_two(kind: str, update: int, *rest: Any) -> None:
        scalars(kind, update, *rest)
        inside[0] += 1
        if inside[0] == 2:
            first.stop.received = "SIGTERM"

    first.recorder.scalars = stop_at_two
    try:
        first.fit()
    except Exception as error:
        said = str(error)
    again = trainer(folder, world, network=network, **options)
    content = again.checkpoints.load_last()
    assert content is not None
    torch.manual_seed(99)
    again.resume(content)
    began = [again.progress.epoch, again.progress.batch, again.progress.sums]
    again.fit()
    return {"said": said, "began": began, "log": again.recorder.lines, **state(again.model)}


def fine_tuned(folder: Path, world: World, way: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    found = way(folder, world, tuned)
    best = load_checkpoint(folder / "best.pt")["model"]
    return {**found, "best": {name: weight.tolist() for name, weight in best.items()}}


def built(folder: Path, world: World) -> dict[str, Any]:
    """What the command makes of a configuration in each of the two."""
    register()
    run_dir.register()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        options = ["model.dropout=0.5", "trainer.seed=40", "trainer.batch_size=4", "trainer.compile=off"]
        cfg = compose("train", ["logger=none", *options], return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    with open_dict(cfg):
        del cfg["hydra"]
    cfg.decoder, cfg.data = {"_target_": "tests.engine.pair.Memory"}, {}
    call = Invocation(typed(cfg), {}, folder, cfg)
    scorer = Scorer(call.options, Precision(PrecisionName.fp32, CPU), 0, world)
    made = build_trainer(call, DATA, scorer)
    total = float(sum(p.double().sum() for p in made.model.parameters()))
    return {"seed": torch.initial_seed(), "network": type(made.step.network.called).__name__, "weights": total}


def bad_videos(folder: Path, world: World) -> dict[str, Any]:
    """One broken video, met by one of the processes: known to both, and one too many where none is allowed."""
    allowed = trainer(folder, world, broken=BROKEN, max_bad=1, epochs=1)
    allowed.fit()
    try:
        trainer(folder, world, broken=BROKEN, max_bad=0, epochs=1).fit()
    except DataError as error:
        return {"allowed": world.gather(allowed.progress.bad), "refused": str(error)}
    return {}


def main(rank: int, folder: Path) -> None:
    world = World(rank, 2, rank)
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2)
    try:
        found = {
            "world": world_says(world),
            "batches": batches_of(world),
            "scored": [scored(world), scored(world, hop=2)],
            "trained": trained(folder / "together", world),
            "resumed": resumed(folder / "resumed", world),
            "built": built(folder, world),
            "bad": bad_videos(folder / "bad", world),
            "noisy": noisy(folder, world),
            "tuned": [fine_tuned(folder / "t1", world, trained), fine_tuned(folder / "t2", world, resumed)],
        }
    finally:
        world.leave()
    if rank == 0:
        alone = World()
        found["alone"] = {
            "batches": batches_of(alone),
            "scored": [scored(alone), scored(alone, hop=2)],
            "trained": trained(folder / "alone", alone),
            "tuned": trained(folder / "t3", alone, tuned),
        }
    (folder / f"{rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
