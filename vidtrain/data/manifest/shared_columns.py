"""How lists cross to other processes: a column that is mapped from a file goes as the name of the file.

Forked processes share what their parent has mapped. A spawned one (macOS, Windows, and Linux from Python 3.14 on) gets
everything by pickle, of ten million rows more than a gigabyte each, unless it maps the files itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vidtrain.errors import DataError
from vidtrain.untrusted_data import file_stamp, map_array


class SharesColumns:
    """Pickles those of its attributes that `map_array` has made as the files that they are."""

    def __getstate__(self) -> dict[str, Any]:
        return {name: _Column.of(value) or value for name, value in vars(self).items()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        columns = {name: v.mapped() if isinstance(v, _Column) else v for name, v in state.items()}
        vars(self).update(columns)


@dataclass(frozen=True)
class _Column:
    """A file that is an array. stamp: shows whether it is still the same file."""

    file: str
    stamp: tuple[int, ...]

    @classmethod
    def of(cls, value: Any) -> _Column | None:
        """None where it is no whole file's array, or another file has taken its place meanwhile."""
        base = value.base if type(value) is np.ndarray else None
        if not isinstance(base, np.memmap) or (value.shape, value.dtype) != (base.shape, base.dtype):
            return None
        found, stamp = str(base.filename), getattr(base, "stamp", None)
        return cls(found, stamp) if stamp is not None and stamp == file_stamp(found) else None

    def mapped(self) -> npt.NDArray[Any]:
        """The array; raises DataError where the file is another one now."""
        if file_stamp(self.file) != self.stamp:
            raise DataError(
                f"{self.file}: was replaced while it was read: start again, resume=auto continues a training"
            )
        try:
            return map_array(self.file)
        except (ValueError, OSError) as error:
            raise DataError(f"{self.file}: cannot be read: {error}") from None
