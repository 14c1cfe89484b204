"""Reading what torch.save wrote, whoever did: plain values and dense tensors come out, in time and memory that the size
of the file bounds. `weights_only` alone runs no code, but lets a small file ask for endless work."""

from __future__ import annotations

import pickle
import pickletools
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any, Final

import torch

_LARGEST_PICKLE: Final = 1 << 26  # bytes; that of ViT-L with its optimizer has 0.4 MB
_MOST_IN_A_TUPLE: Final = 100_000
_MOST_VALUES: Final = 5_000_000
_MOST_DEPTH: Final = 64
_MOST_REPEATED: Final = 1 << 30  # bytes that tensors may claim beyond what the file holds, as expanded ones do


class UnreadableError(ValueError):
    """A file that asks for more than it holds, or holds what no training writes. The message is for the user."""


def load(path: Path, *, known: Iterable[type] = (), check_sums: bool = False, zipped: bool = False) -> Any:
    """The content of a file of torch.save, tensors on the CPU.

    Args:
        known: types besides torch's own whose objects the file may hold.
        check_sums: read the checksums, which torch writes and does not look at: one bit may have changed.
        zipped: refuse torch's format before version 1.6, too.

    Raises:
        UnreadableError: see there.
        Exception: whatever torch finds wrong; it raises half a dozen types.
    """
    if zipped or zipfile.is_zipfile(path):
        _check_zip(path)
    else:
        with path.open("rb") as file:
            for _ in range(4):  # the format before: four pickles in front of the numbers
                if not check_pickle(file):
                    break
    with torch.serialization.safe_globals(list(known)):
        content = torch.load(path, map_location="cpu", weights_only=True)
    if check_sums:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise zipfile.BadZipFile(damaged)
    _check_values(content)
    return content


def load_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a .safetensors file by their names, on the CPU.

    Raises:
        UnreadableError: it is none, or its header and its size do not fit. OSError: it cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise UnreadableError(str(error).split("\n", 1)[0]) from error


def bytes_held(tensors: Iterable[torch.Tensor]) -> int:
    """Of the memory behind them, each piece once."""
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


def _check_zip(path: Path) -> None:
    """torch stores without compressing; an archive that unpacks to more than it is was made for that."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        whole = sum(entry.file_size for entry in entries)
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries) or whole > path.stat().st_size:
            raise UnreadableError("holds compressed or overlapping parts, which torch.save does not write")
        if len({entry.filename for entry in entries}) < len(entries):
            raise UnreadableError("holds several parts of one name")
        for entry in entries:
            if entry.filename.endswith(".pkl"):
                if entry.file_size > _LARGEST_PICKLE:
                    raise UnreadableError(f"{entry.filename} has {entry.file_size} bytes beside the tensors")
                with archive.open(entry) as file:
                    check_pickle(file)


def check_pickle(file: IO[bytes]) -> bool:
    """Refuse tuples of tuples that share one another: hashing one, as a key, would take forever.

    Walks the program of the pickle with nothing but the number of values in each tuple on the stack. Returns False for
    what is no pickle; torch says what is wrong with that.
    """
    stack: list[int] = []  # 0 is a mark
    memo: dict[Any, int] = {}
    try:
        for operation, argument, _ in pickletools.genops(file):
            name = operation.name
            if name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
                memo[len(memo) if name == "MEMOIZE" else argument] = stack[-1]
            elif name in ("GET", "BINGET", "LONG_BINGET"):
                stack.append(memo[argument])
            elif name == "MARK":
                stack.append(0)
            elif name == "DUP":
                stack.append(stack[-1])
            else:
                _step(stack, operation)
    except (ValueError, IndexError, KeyError, EOFError, pickle.UnpicklingError) as error:
        if isinstance(error, UnreadableError):
            raise
        return False
    return True


def _step(stack: list[int], operation: pickletools.OpcodeInfo) -> None:
    """What one instruction takes from the stack and leaves there."""
    before, taken = operation.stack_before, 0
    if pickletools.markobject in before:
        while count := stack.pop():
            taken += count
        for _ in range(before.index(pickletools.markobject)):
            stack.pop()
    else:
        for _ in before:
            taken += stack.pop()
    keeps = operation.name in ("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "REDUCE", "NEWOBJ", "NEWOBJ_EX", "BUILD")
    if keeps and taken > _MOST_IN_A_TUPLE:
        raise UnreadableError(f"holds a tuple of more than {_MOST_IN_A_TUPLE} values")
    stack += [1 + taken if keeps else 1 for _ in operation.stack_after]


def _check_values(content: Any) -> None:
    """The tensors are dense, here, and backed by bytes of the file; everything else ends somewhere."""
    rest, seen, repeated = [(content, 0)], 1, 0
    while rest:
        value, depth = rest.pop()
        if isinstance(value, torch.Tensor):
            repeated += _beyond_the_file(value)
            if repeated > _MOST_REPEATED:
                raise UnreadableError("its tensors claim far more numbers than the file holds")
            continue
        if isinstance(value, dict):
            inner: Any = value.values()
        elif isinstance(value, (list, tuple, set)):
            inner = value
        elif hasattr(value, "__dict__"):
            inner = vars(value).values()
        else:
            continue
        seen += len(inner)
        if seen > _MOST_VALUES or depth == _MOST_DEPTH:
            raise UnreadableError(
                f"holds more than {_MOST_VALUES} values, or lists and mappings more than {_MOST_DEPTH} deep"
            )
        rest += [(one, depth + 1) for one in inner]


def _beyond_the_file(tensor: torch.Tensor) -> int:
    plain: list[Callable[[], bool]] = [
        lambda: tensor.layout is torch.strided,
        lambda: tensor.device.type == "cpu",
        lambda: not tensor.is_quantized,
        lambda: not tensor.is_nested,
        lambda: not tensor.is_complex(),  # a network would take its real part
    ]
    if not all(fine() for fine in plain):
        raise UnreadableError("holds a tensor that is sparse, quantised, nested, complex or without numbers")
    return max(0, tensor.numel() * tensor.element_size() - tensor.untyped_storage().nbytes())
