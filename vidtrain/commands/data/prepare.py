"""vidtrain data prepare: small copies that training reads many times faster, and an index to train from."""

from __future__ import annotations

from pathlib import Path

from vidtrain import build
from vidtrain.commands.dataset_videos import keeping, listed, load, override
from vidtrain.commands.jobs import part_of, part_summary, workers_of
from vidtrain.data.jobs.journal import REPORT
from vidtrain.data.prepare.prepare import Prepared, prepare, prepare_part, readable
from vidtrain.data.settings import PrepareConfig
from vidtrain.options.invocation import Invocation
from vidtrain.options.schema import DataCommandConfig
from vidtrain.terminal import printable_lines


def run(call: Invocation[DataCommandConfig]) -> None:
    """Copy the data set to `output` and say how to train from it."""
    options = call.options
    settings = options.of(PrepareConfig)
    workers, data = workers_of(options), load(options)
    output = Path("prepare" if options.output is None else options.output).absolute()
    reader, part = build.build_reader(options.decoder), part_of(options.jobs)
    with keeping("copies", output):
        if part is not None:
            print(part_summary(part, prepare_part(data, output, settings, reader, part, workers=workers), output))
        else:
            print(summary(prepare(data, output, settings, reader, workers=workers), output))


def summary(done: Prepared, output: Path) -> str:
    """What was done, what was not, and what to do with it."""
    count = done.made + done.kept
    lines = [
        f"{count} of {count + len(done.bad)} videos are prepared in {output} ({done.made} now, {done.kept} before)"
    ]
    share = f" ({done.bytes_after / done.bytes_before:.1%})" if done.bytes_before else ""
    lines.append(f"bytes: {readable(done.bytes_before)} -> {readable(done.bytes_after)}{share}")
    for word, videos in (("bad", done.bad), ("note", done.odd)):
        lines += listed(word, videos)
    lines.append(f"report: {output / REPORT}")
    lines.append(f"train from it with: vidtrain train data=index {override('data.root', output)}")
    return printable_lines(lines)
