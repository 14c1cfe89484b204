"""Two processes with gloo: sharded weights under every shipped optimizer, and what they count together."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from tests.engine.test_trainer import CPU, PREPROCESS, Clips, network, trainer
from vidtrain.build import build_optimizer
from vidtrain.engine.checkpoints.checkpoint import Checkpoints
from vidtrain.engine.devices.distributed import World, join, local
from vidtrain.engine.devices.parallel import parallel
from vidtrain.engine.precision import Precision
from vidtrain.engine.preprocess import ModelRunner
from vidtrain.engine.settings import PrecisionName, Strategy
from vidtrain.engine.step import TrainingStep
from vidtrain.errors import ConfigError, DataError, VidtrainError
from vidtrain.options.option_texts import conf_dir
from vidtrain.tasks.classification.task import Classification
from vidtrain.types import BadVideo, Batch

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="gloo and forkserver are not on Windows")

SHIPPED = sorted(file.stem for file in (conf_dir() / "optimizer").glob("*.yaml"))


def together(function: Callable[[World, Path], dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
    """What `function` returns in each of two processes that have joined."""
    context = multiprocessing.get_context("forkserver")  # torch is imported once, and no thread of this one is copied
    context.set_forkserver_preload(["torch", "torch.distributed.fsdp", __name__])
    processes = [context.Process(target=_rank, args=(function, rank, folder)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    alive = [process for process in processes if process.is_alive()]
    for process in alive:
        process.kill()
    assert not alive, "a process hangs"
    found = [torch.load(folder / f"{rank}.pt") for rank in range(2)]
    assert not [f for f in found if "error" in f], found[0].get("error") or found[1]["error"]
    return found


def _rank(function: Callable[[World, Path], dict[str, Any]], rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    os.environ.update(RANK=str(rank), WORLD_SIZE="2", LOCAL_RANK=str(rank), MASTER_ADDR="-", MASTER_PORT="0")
    world = join()
    try:
        found = function(world, folder)
    except BaseException:
        found = {"error": traceback.format_exc()}
    torch.save(found, folder / f"{rank}.pt")
    world.leave()


# ---------------------------------------------------------------- what the processes do


def stepped(optimizer: dict[str, Any], world: World, strategy: Strategy) -> list[torch.Tensor]:
    """The weights after three updates on the same eight clips, half of them in each process."""
    model = network()
    model[1].p = 0.0
    step = TrainingStep(
        ModelRunner(model, PREPROCESS, Precision(PrecisionName.fp32, CPU)),
        build_optimizer(optimizer, model) if world.size == 1 else _sharded(optimizer, model, world, strategy),
        Classification(["no", "yes"]),
        clip_grad=1.0,
    )
    for batch in Clips(count=24, batch_size=8).epoch(0):
        own = list(world.part(8))
        step([Batch({"rgb": batch.inputs["rgb"][own]}, batch.targets[own], batch.videos[own])], 1.0)
        assert not step.skipped[-1][0]
    return [getattr(p, "full_tensor", lambda p=p: p)().detach().clone() for p in model.parameters()]


def _sharded(optimizer: dict[str, Any], model: nn.Module, world: World, strategy: Strategy) -> torch.optim.Optimizer:
    parallel(model, world, sharded=strategy is Strategy.fsdp, sync_bn=False, device=CPU)
    return build_optimizer(optimizer, model)


class Broken(Clips):
    """Clips whose batches tell of broken videos: those at `at`, a batch number of this process."""

    def __init__(self, at: dict[int, list[str]]) -> None:
        super().__init__()
        self.at = at

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        for place, batch in enumerate(super().epoch(number, start), start):
            batch.bad = [BadVideo(name, "cut off") for name in self.at.get(place, [])]
            yield batch


def counted(folder: Path, world: World, at: dict[int, list[str]], max_bad: float) -> tuple[str, int, list[str]]:
    """(the error, updates made, the videos known as broken) of a training of one epoch of six batches."""
    training = trainer(folder, Broken(at), max_bad=max_bad, epochs=1)
    training.world = training.checkpoints.world = world
    error = ""
    try:
        training.fit()
    except DataError as stopped:
        error = str(stopped)
    return error, training.progress.update, sorted(training.progress.bad)


def saved_beside(folder: Path, world: World) -> dict[str, Any]:
    """Shards that were written while the weights went on, read again; and what the weights were when it was called."""
    model = network()
    optimizer = _sharded({"_target_": "torch.optim.AdamW", "lr": 0.1}, model, world, Strategy.fsdp)

    def update() -> None:
        model(torch.rand(4, 96)).square().sum().backward()
        optimizer.step()

    def whole() -> list[torch.Tensor]:
        return [p.full_tensor().clone() for p in model.parameters()]  # type: ignore[attr-defined]

    update()
    checkpoints = Checkpoints(folder, world=world, sharded=True, in_background=True, describe={"config": {}})
    kept, moments = whole(), [local(s["exp_avg"]).clone() for s in optimizer.state.values()]
    content = {"progress": {"update": 1, "epoch": 0}, "rng": torch.ones(3)}
    checkpoints.save_last(content, model, optimizer, None)
    content["rng"].zero_()
    for _ in range(3):  # beside the thread, by the other group
        update()
        world.any(True)
    moved = any(not torch.equal(one, two) for one, two in zip(whole(), kept, strict=True))
    checkpoints.wait()
    world.any(True)  # the main process writes last.pt
    last = checkpoints.load_last()
    assert last is not None
    checkpoints.restore(last, model, optimizer, None)
    again = [local(s["exp_avg"]) for s in optimizer.state.values()]
    return {
        "moved": moved,
        "weights": [kept, whole()],
        "moments": [moments, [moment.clone() for moment in again]],
        "rng": last["rng"],
        "files": sorted(file.name for file in folder.iterdir()),
    }


def _both(world: World, folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {"weights": {}, "bad": []}
    found["beside"] = saved_beside(folder / "beside", world)
    for name in SHIPPED:
        options: Any = OmegaConf.to_container(OmegaConf.load(conf_dir() / "optimizer" / f"{name}.yaml"))
        found["weights"][name] = stepped(options, world, Strategy.fsdp)
    model = network()
    parallel(model, world, sharded=True, sync_bn=False, device=CPU)
    try:
        build_optimizer({"_target_": "torch.optim.SGD", "lr": 0.1, "fused": True}, model)
    except ConfigError as error:
        found["refused"] = str(error)
    mine = [{1: ["a"], 3: ["b"]}, {1: ["a"], 4: ["a", "c"]}][world.rank]
    for max_bad in (1, 2, 3):
        found["bad"].append(counted(folder / str(max_bad), world, mine, max_bad))
    if world.rank == 1:
        torch.save(found, folder / "1.pt")
        os.kill(os.getpid(), signal.SIGKILL)
    try:
        while True:
            world.any(True)
    except VidtrainError as error:
        found["lost"] = str(error)
    return found


# ---------------------------------------------------------------- the tests


def test_two_processes(tmp_path: Path) -> None:
    for max_bad in (1, 2, 3):
        (tmp_path / str(max_bad)).mkdir()
    (tmp_path / "beside").mkdir()
    found = together(_both, tmp_path)

    # FSDP has the numbers of one process, whatever kernel the optimizer may use there
    for name in SHIPPED:
        options: Any = OmegaConf.to_container(OmegaConf.load(conf_dir() / "optimizer" / f"{name}.yaml"))
        alone = stepped(options, World(), Strategy.fsdp)
        for one, *two in zip(alone, *(f["weights"][name] for f in found), strict=True):
            for other in two:
                torch.testing.assert_close(other, one, atol=1e-6, rtol=1e-5, msg=name)
    assert "optimizer.fused=true: PyTorch has no fused SGD for the sharded weights" in found[0]["refused"]

    # written beside the updates: the weights of then, not of now
    for beside in (f["beside"] for f in found):
        assert beside["moved"]
        for kept, again in (beside["weights"], beside["moments"]):
            assert len(kept) == 4
            assert all(map(torch.equal, kept, again))
        assert beside["rng"].tolist() == [1, 1, 1]
        assert beside["files"] == ["last.1.shards", "last.pt"]

    # the other was killed
    assert found[0]["lost"].startswith("process 1 (on ")
    assert " has ended without a word (out of memory?); the same command with resume=auto" in found[0]["lost"]

    # a, b and c are broken, wherever they are found: one limit for all, and the same as in one process
    together_at = {1: ["a", "a"], 3: ["b"], 4: ["a", "c"]}
    for number, max_bad in enumerate((1, 2, 3)):
        (tmp_path / f"alone{max_bad}").mkdir()
        one_process = counted(tmp_path / f"alone{max_bad}", World(), together_at, max_bad)
        assert found[0]["bad"][number] == found[1]["bad"][number] == one_process
    (few, at_few, _), (some, at_some, _), (none, at_none, known) = found[0]["bad"]
    assert few == "2 videos cannot be read, more than data.max_bad_fraction allows (1); the last: b: cut off"
    assert some.startswith("3 videos cannot be read")
    assert (none, known) == ("", ["a", "b", "c"])
    assert (at_few, at_some, at_none) == (4, 5, 6)


@pytest.mark.parametrize(("size", "device", "looks"), [(2, "cpu", False), (3, "cpu", True), (3, "cuda", False)])
def test_gradients_keep_their_order_in_memory_where_it_counts(
    size: int, device: str, looks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DDP gives them another after its first step, by which the sums of three and more are rounded, unless it looks for
    unused ones: a resumed run, whose first step is later, would have other weights. On CUDA where it was asked for."""
    found: list[bool] = []

    def ddp(model: nn.Module, *, find_unused_parameters: bool, broadcast_buffers: bool, **_: Any) -> nn.Module:
        found.append(find_unused_parameters)
        return model

    monkeypatch.setattr(nn.parallel, "DistributedDataParallel", ddp)
    world = World(rank=0, size=size, local_size=size)
    parallel(network(), world, sharded=False, sync_bn=False, device=torch.device(device))
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    parallel(network(), world, sharded=False, sync_bn=False, device=torch.device(device))
    assert found == [looks, size > 2]
