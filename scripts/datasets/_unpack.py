"""Unpacking what the scripts beside this one fetch: .tar.gz, whole or in parts, .zip, .rar. Standard library only."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from _fetch import FetchError


def unpack(archive: Path, folder: Path, *, keep: bool = True) -> None:
    """Unpack .tar, .tar.gz, .tgz, .zip or .rar into `folder`, once: a mark beside SHA256SUMS tells a later run.

    Args:
        archive: the file.
        folder: made if absent.
        keep: leave the archive; else it is deleted when it is unpacked.
    """
    mark = archive.with_name(archive.name + ".unpacked")
    if not mark.exists():
        print(f"unpacking {archive.name} to {folder}", flush=True)
        folder.mkdir(parents=True, exist_ok=True)
        name = archive.name.lower()
        if name.endswith((".tar.gz", ".tgz", ".tar")):
            with tarfile.open(archive) as tar:
                _unpack_tar(tar, folder)
        elif name.endswith(".zip"):
            with zipfile.ZipFile(archive) as packed:
                packed.extractall(folder)
        elif name.endswith(".rar"):
            _unpack_rar(archive, folder)
        else:
            raise FetchError(f"{archive}: not a .tar.gz, .zip or .rar")
        mark.touch()
    if not keep:
        archive.unlink(missing_ok=True)


def unpack_parts(parts: Sequence[Path], folder: Path) -> None:
    """Unpack a .tar.gz that comes in pieces, without joining them on disk first; once."""
    mark = parts[0].with_name(parts[0].name + ".unpacked")
    if mark.exists():
        return
    print(f"unpacking {parts[0].name} and {len(parts) - 1} more to {folder}", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    with _Joined(parts) as stream, tarfile.open(fileobj=stream, mode="r|*") as tar:
        _unpack_tar(tar, folder)
    mark.touch()


def _unpack_tar(tar: tarfile.TarFile, folder: Path) -> None:
    if hasattr(tarfile, "data_filter"):
        tar.extractall(folder, filter="data")
        return
    for member in tar:  # Pythons before 3.10.12: let nothing out of the folder
        target = (folder / member.name).resolve()
        if folder.resolve() not in (target, *target.parents) or not (member.isfile() or member.isdir()):
            raise FetchError(f"{member.name}: an archive should not hold this; update Python to look into it")
        tar.extract(member, folder)


class _Joined(io.RawIOBase):
    """Files read one after the other as one."""

    def __init__(self, paths: Iterable[Path]) -> None:
        super().__init__()
        self._rest = list(paths)
        self._file: io.BufferedReader | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        while True:
            if self._file is None:
                if not self._rest:
                    return 0
                self._file = self._rest.pop(0).open("rb")
            count = self._file.readinto(buffer)
            if count:
                return count
            self._file.close()
            self._file = None

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        super().close()


_RAR_TOOLS = (
    ("unrar", ("unrar", "x", "-o+", "-idq", "{archive}", "{folder}/")),
    ("7z", ("7z", "x", "-y", "-bso0", "-o{folder}", "{archive}")),
    ("7zz", ("7zz", "x", "-y", "-bso0", "-o{folder}", "{archive}")),
    ("bsdtar", ("bsdtar", "-x", "-f", "{archive}", "-C", "{folder}")),
    ("unar", ("unar", "-force-overwrite", "-quiet", "-no-directory", "-output-directory", "{folder}", "{archive}")),
)


def find_rar_tool() -> tuple[str, ...]:
    """The command of the first program here that unpacks .rar; Python itself cannot.

    Raises:
        FetchError: there is none.
    """
    for name, command in _RAR_TOOLS:
        if shutil.which(name):
            return command
    raise FetchError(
        "the archives are .rar and no program here unpacks them; install one of "
        f"{', '.join(name for name, _ in _RAR_TOOLS)} (apt install unrar, brew install libarchive) and run again"
    )


def _unpack_rar(archive: Path, folder: Path) -> None:
    command = [word.format(archive=archive, folder=folder) for word in find_rar_tool()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise FetchError(
            f"{archive}: {command[0]} ends with {done.returncode}: {said[-1] if said else 'no reason given'}"
        )
