"""vidtrain data prepare: small copies that training reads many times faster, and an index to train from."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from vidtrain import build
from vidtrain.data.pool import processors
from vidtrain.data.prepare import REPORT, Prepared, prepare, readable
from vidtrain.data.settings import PrepareConfig
from vidtrain.errors import ConfigError, DataError

_SHOWN = 10  # files of a kind that are printed; report.csv has all


def run(cfg: DictConfig) -> None:
    """Copy the data set to `output` and say how to train from it."""
    settings = OmegaConf.to_object(cfg.prepare)
    assert isinstance(settings, PrepareConfig)
    workers = processors() if cfg.num_workers is None else cfg.num_workers
    if workers < 1:
        raise ConfigError(f"num_workers={workers}: must be at least 1")
    data = build.build_data(cfg.data)
    if cfg.split is not None:
        name = cfg.split.value
        if name not in data.splits:
            raise DataError(f"split={name}: the data set has no such split; it has: {', '.join(data.splits)}")
        data = replace(data, splits={name: data.splits[name]})
    output = Path("prepare" if cfg.output is None else cfg.output).absolute()
    try:
        done = prepare(data, output, settings, build.build_reader(cfg.decoder), workers=workers)
    except KeyboardInterrupt:
        print(f"finished copies are kept in {output}; the same command goes on from there", file=sys.stderr)
        raise
    print(summary(done, output))


def summary(done: Prepared, output: Path) -> str:
    """What was done, what was not, and what to do with it."""
    count = done.made + done.kept
    lines = [
        f"{count} of {count + len(done.bad)} videos are prepared in {output} ({done.made} now, {done.kept} before)"
    ]
    share = f" ({done.bytes_after / done.bytes_before:.1%})" if done.bytes_before else ""
    lines.append(f"bytes: {readable(done.bytes_before)} -> {readable(done.bytes_after)}{share}")
    for word, videos in (("bad", done.bad), ("note", done.odd)):
        lines += [f"{word}: {video.path}: {video.reason}" for video in videos[:_SHOWN]]
        if len(videos) > _SHOWN:
            lines.append(f"{word}: and {len(videos) - _SHOWN} more")
    lines.append(f"report: {output / REPORT}")
    lines.append(f"train from it with: vidtrain train data=index {override('data.root', output)}")
    # a file name need not be UTF-8, but the terminal wants it
    return "\n".join(lines).encode("utf-8", "backslashreplace").decode("utf-8")


def override(key: str, value: Path) -> str:
    """KEY=VALUE for a shell, whatever is in the value."""
    text = str(value)
    if re.fullmatch(r"[\w./:~+-]+", text) or sys.platform == "win32":
        return f"{key}={text}"
    quoted = text.replace("\\", "\\\\").replace("'", "\\'")
    return '"' + re.sub(r'(["$`\\])', r"\\\1", f"{key}='{quoted}'") + '"'
