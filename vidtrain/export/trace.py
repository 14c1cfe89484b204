"""From a network to torch.export's program of it, with any number of clips at once."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vidtrain.errors import VidtrainError
from vidtrain.export.network import Deployable, DeployableStream, Shapes
from vidtrain.export.onnx_file import quiet

_MOST_CLIPS = 1024
"""At once; executorch plans its memory for them, the other formats have no end."""


class NotExportableError(VidtrainError):
    """A network that torch.export, or a format, has no program for. The message says why."""


def trace(network: Deployable, shapes: Shapes) -> torch.export.ExportedProgram:
    """The program of a network in eval mode.

    Args:
        shapes: of its inputs.

    Raises:
        NotExportableError: there is none, or only for one number of clips.
    """
    clips = torch.export.Dim("clips", min=1, max=_MOST_CLIPS)
    frames = random_frames(shapes, 2)
    try:
        with quiet(), torch.no_grad():
            program = torch.export.export(
                network, tuple(frames.values()), dynamic_shapes=(tuple({0: clips} for _ in frames),)
            )
    except Exception as error:  # whatever a network does that cannot be traced
        raise no_program(network.model, error) from error
    return without_paths(program)


def trace_stream(network: DeployableStream, frames: Tensor) -> torch.export.ExportedProgram:
    """The program of one step.

    Raises:
        NotExportableError: there is none.
    """
    try:
        with quiet(), torch.no_grad():
            program = torch.export.export(network, (frames, *network.start))
    except Exception as error:  # whatever a network does that cannot be traced
        raise no_program(network.network.model, error) from error
    return without_paths(program)


def no_program(model: nn.Module, error: Exception) -> NotExportableError:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    why = f"{type(error).__name__}: {' '.join(lines[:3])[:300]}"
    return NotExportableError(f"{type(model).__name__}: torch.export has no program of it: {why}")


def without_paths(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """Without the names of files of this machine. Returns the program."""
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    return program


def random_frames(shapes: Shapes, count: int) -> dict[str, Tensor]:
    """uint8 (count, T, H, W, C) of each input, always the same."""
    noise, kind = torch.Generator().manual_seed(0), torch.uint8
    return {name: torch.randint(0, 256, (count, *s), dtype=kind, generator=noise) for name, s in shapes.items()}
