"""One model on several devices: copies that average their gradients (DDP), parts of one (FSDP2), or a copy per node,
which its devices keep parts of (HSDP)."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from vidtrain.engine.devices.distributed import World
from vidtrain.errors import ConfigError, one_of

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


def parallel(
    model: nn.Module,
    world: World,
    *,
    sharded: bool,
    within_nodes: bool = False,
    sync_bn: bool,
    device: torch.device,
) -> nn.Module:
    """What training calls in place of the model; its state and its parameters stay those of the model.

    sharded: parts of the model instead of copies. It is changed itself: each of its blocks, and the rest, keep
    1 / world.size of their parameters here and gather them when they are used. within_nodes: each keeps
    1 / world.local_size, and the nodes average their gradients.

    Raises:
        ConfigError: sync_bn on another device than a GPU; within_nodes, and the nodes have unequal numbers of
            processes, or one each.
    """
    if sync_bn:
        if device.type != "cuda":
            raise ConfigError(f"trainer.sync_bn=true: PyTorch has it on CUDA devices only, this is {device.type}")
        _synchronise_norms(model)
    if world.size == 1:
        return model
    if sharded:
        from torch.distributed.fsdp import fully_shard

        mesh = _nodes(world, device) if within_nodes else None
        for block in _blocks(model):
            fully_shard(block, mesh=mesh)
        fully_shard(model, mesh=mesh)
        return model
    # sizes of 1 may have any stride: such gradients lie in memory as their weights do
    warnings.filterwarnings("ignore", message=r"(?s)Grad strides do not match.*grad\.sizes\(\) = \[[^]]*, 1, 1\]")
    # each has the statistics of its own clips; they are made equal at the end of an epoch
    options = inspect.signature(nn.parallel.DistributedDataParallel).parameters
    name = "forward_sync_buffers" if "forward_sync_buffers" in options else "broadcast_buffers"  # before torch 2.15
    own_buffers: dict[str, Any] = {name: False}
    # After its first step DDP puts gradients into another order in memory, unless it looks for unused ones. The sums of
    # three processes and more are rounded by that order: a resumed run, whose first step is later, has other weights.
    # Looking costs 1 % of the CPU time of a ResNet-18's step of a clip of 2 x 64 x 64 pixels.
    exact = world.size > 2 and (device.type == "cpu" or torch.are_deterministic_algorithms_enabled())
    return nn.parallel.DistributedDataParallel(
        model,
        device_ids=[device.index or 0] if device.type == "cuda" else None,
        **own_buffers,
        gradient_as_bucket_view=True,
        find_unused_parameters=exact or getattr(model, "trains_in_turn", False),
    )


def _nodes(world: World, device: torch.device) -> DeviceMesh:
    """(nodes, processes of each), in the order of the ranks. To be called by all."""
    from torch.distributed.device_mesh import init_device_mesh

    each = world.local_size
    places = world.gather((world.rank, world.local_rank, each))
    if any(size != each for _, _, size in places):
        sizes = sorted({size for _, _, size in places})
        raise ConfigError(
            f"trainer.strategy=hsdp: expected as many processes on each node, got {one_of(map(str, sizes))}"
        )
    if each == 1:
        raise ConfigError("trainer.strategy=hsdp: one process per node leaves nothing to be sharded within it: use ddp")
    if any(rank % each != local for rank, local, _ in places):
        raise ConfigError(
            "trainer.strategy=hsdp: expected ranks that are numbered node by node: srun --distribution=block"
        )
    return init_device_mesh(device.type, (world.size // each, each), mesh_dim_names=("replicate", "shard"))


@contextmanager
def gathered(model: nn.Module, world: World) -> Iterator[None]:
    """Inside, every process has all weights of a sharded model, so that each may call it as often as it has videos."""
    from torch.distributed.fsdp import FSDPModule

    parts = [part for part in model.modules() if isinstance(part, FSDPModule)]
    with world.together() if parts else nullcontext():
        for part in parts:
            part.set_reshard_after_forward(False)
            part.unshard()
    try:
        yield
    finally:
        for part in parts:
            part.set_reshard_after_forward(True)
            part.reshard()


def _synchronise_norms(model: nn.Module) -> None:
    """In place, so that names and references stay."""
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, _BatchNorm) and not isinstance(child, nn.SyncBatchNorm):
                setattr(parent, name, nn.SyncBatchNorm.convert_sync_batchnorm(child))


def _blocks(model: nn.Module) -> list[nn.Module]:
    """The repeated parts of a network: the children of its lists that have parameters."""
    return [
        child
        for part in model.modules()
        if isinstance(part, (nn.Sequential, nn.ModuleList))
        for child in part.children()
        if sum(p.numel() for p in child.parameters()) > 10_000 and not isinstance(child, (nn.Sequential, nn.ModuleList))
    ]
