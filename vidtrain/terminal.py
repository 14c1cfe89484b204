"""Names on a terminal and in files: whatever they are, printing them neither fails nor steers the screen."""

from __future__ import annotations

import codecs
import logging
import re
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

Item = TypeVar("Item")

# control characters (C0, DEL, C1), line and paragraph separators, bidirectional overrides and other characters that
# are not seen, and lone surrogates: bytes of a file name that are not UTF-8. The joiners of emojis and of Persian stay.
_UNSEEN = (
    "\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f"
)
_IN_A_LINE = re.compile(f"[{_UNSEEN}]")
_BUT_LAYOUT = re.compile(f"(?![\n\t])[{_UNSEEN}]")


def printable(text: object, *, lines: bool = False) -> str:
    r"""The text as one line without control characters: ESC becomes \x1b, a newline \n, a byte that is not UTF-8 \xff.

    Files for programs (CSV, JSON) keep the exact name instead.

    Args:
        lines: the text has several lines, which stay, as do its tabs.
    """
    return (_BUT_LAYOUT if lines else _IN_A_LINE).sub(_escaped, str(text))


def print_line(text: object) -> None:
    """Print one line."""
    print(printable(text))


SILENCE = 2.0
"""Seconds after which a step without a progress bar says what it is doing."""


@contextmanager
def said_when_slow(what: str, say: Callable[[str], None] | None = None, *, patience: float = 1.0) -> Iterator[None]:
    """Say `what` as one line, once, if the block takes longer than SILENCE.

    Args:
        say: how; None: it is logged, on stderr and in the log of a run.
        patience: times SILENCE.
    """
    timer = threading.Timer(patience * SILENCE, say or _logged, (what,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _logged(what: str) -> None:
    log = logging.getLogger("vidtrain")
    if log.getEffectiveLevel() <= logging.INFO:
        # not log.info, which an exporter that is kept quiet by logging.disable keeps quiet, too
        log.handle(log.makeRecord(log.name, logging.INFO, __file__, 0, what, (), None))


def on_terminal(what: str) -> None:
    """For `said_when_slow` before there is a log: on stderr where somebody watches it."""
    if sys.stderr.isatty():
        print(f"vidtrain: {what}", file=sys.stderr)


def said_between(items: Iterable[Item], so_far: Callable[[], str]) -> Iterator[Item]:
    """The items as they come; while one is long in coming, `so_far` says what there is."""
    iterator, patience = iter(items), 1.0
    while True:
        with said_when_slow(so_far(), patience=patience):
            try:
                item = next(iterator)
            except StopIteration:
                return
        yield item
        patience = 5.0  # what has come says already that it goes on


def rate_text(rate: float) -> str:
    """A rate such as clips per second in two digits or more: 0.42, 4.2, 42, 4217."""
    return f"{rate:.0f}" if rate >= 10 else f"{rate:.1f}" if rate >= 1 else f"{rate:.2g}"


def printable_lines(lines: Iterable[object]) -> str:
    """Each of them printable, one below the other."""
    return "\n".join(map(printable, lines))


def note_lines(notes: Iterable[str]) -> list[str]:
    """The notes of a dataset, a printable line each."""
    return [printable(f"note: {note}") for note in notes]


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    if 0xDC80 <= code <= 0xDCFF:  # a byte that surrogateescape has kept
        return f"\\x{code - 0xDC00:02x}"
    return _code(found[0]).decode("ascii")


def _as_bytes(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):  # read back
        return codecs.lookup_error("surrogateescape")(error)
    found = error.object[error.start : error.end]
    whole = b"".join(bytes([ord(c) - 0xDC00]) if 0xDC80 <= ord(c) <= 0xDCFF else _code(c) for c in found)
    return whole, error.end


def _code(character: str) -> bytes:
    return character.encode("unicode_escape")


EXACT_NAMES = "vidtrain.exact_names"
"""errors= of a file that holds names: they are the bytes of the file system, as with surrogateescape, when it is read,
too. Any other text that UTF-8 has not is written as its code, \\ud83d, instead of raising."""
codecs.register_error(EXACT_NAMES, _as_bytes)


def accept_any_text() -> None:
    """Let stdout and stderr replace what their encoding has not, as under LANG=C, instead of raising."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


class PrintableFormatter(logging.Formatter):
    """For the logs of a run: arguments of a message are data, each becomes one printable line; the message is ours.

    A text of several lines is therefore logged as the message itself.
    """

    def format(self, record: logging.LogRecord) -> str:
        given = record.args
        if isinstance(given, tuple):
            record.args = tuple(map(_safe, given))
        elif given:
            record.args = {key: _safe(value) for key, value in given.items()}
        try:
            return super().format(record)
        finally:
            record.args = given  # other handlers get what was logged

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        record.message = printable(record.message, lines=True)
        return super().formatMessage(record)


def _safe(value: Any) -> Any:
    return value if isinstance(value, (int, float)) else printable(value)
