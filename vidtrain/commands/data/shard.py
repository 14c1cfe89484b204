"""vidtrain data shard: the videos of a dataset in tar files, which are read in place, and an index to train from."""

from __future__ import annotations

from pathlib import Path

from vidtrain.commands.dataset_videos import keeping, listed, load, override
from vidtrain.commands.jobs import part_of, part_summary, workers_of
from vidtrain.data.jobs.journal import REPORT
from vidtrain.data.prepare.prepare import readable
from vidtrain.data.prepare.sharding import Sharded, write_shards, write_shards_part
from vidtrain.data.settings import ShardConfig
from vidtrain.options.invocation import Invocation
from vidtrain.options.schema import DataCommandConfig
from vidtrain.terminal import printable_lines


def run(call: Invocation[DataCommandConfig]) -> None:
    """Write the shards to `output` and say how to train from them."""
    options = call.options
    workers, data = workers_of(options), load(options)
    output = Path("shard" if options.output is None else options.output).absolute()
    settings, part = options.of(ShardConfig), part_of(options.jobs)
    with keeping("shards", output):
        if part is not None:
            print(part_summary(part, write_shards_part(data, output, settings, part, workers=workers), output))
        else:
            print(summary(write_shards(data, output, settings, workers=workers), output))


def summary(done: Sharded, output: Path) -> str:
    """What was written, what was not, and what to do with it."""
    shards = f"{done.made + done.kept} shards in {output} ({done.made} now, {done.kept} before)"
    return printable_lines(
        [
            f"{done.videos} videos ({readable(done.bytes)}) in {shards}",
            *listed("bad", done.bad),
            f"report: {output / REPORT}",
            f"train from it with: vidtrain train data=shards {override('data.root', output)}",
        ]
    )
