"""The catalogue of models as a table, for the terminal and for docs/models.md."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vidtrain.models.catalogue import Entry
from vidtrain.reports.table import table

_HEAD = ("model", "family", "params (M)", "clip", "GMAC", "paper", "K400 top-1", "measured with")
_INTRO = """# Models

Written by `vidtrain inspect output=docs/models.md`; the facts stand in each model's file in vidtrain/models.

Parameters are for 400 classes. GMAC are 10^9 multiply-adds of one clip of T x H x W (FLOPs are twice that), counted by
torch.utils.flop_counter. K400 top-1 is what was published for Kinetics-400, in percent, with frames x stride of a
clip, views as clips x crops, and who published it. Models without it are small ones for a CPU or have no published
result on that dataset.

`vidtrain eval` reads the frames and crops of those who published a number with these options (docs/data.md, Testing as
published code does); 8x8 of a SlowFast is `sampler.num_frames=32 sampler.stride=2`, Hiera has `transform.size=224`:

| published by | options |
| --- | --- |
| PySlowFast | `eval=pyslowfast transform.size=256`; x3d_xs and x3d_s 182, x3d_l 356; MViT `eval=pyslowfast_offset` |
| PyTorchVideo | `eval=pytorchvideo_0_1_5 transform.size=256 transform.resize=256` |
| torchvision | `eval=torchvision sampler.fps=15 transform.resize=128x171`; s3d 256x256 and `eval.clips=1` |
| mit-han-lab | `eval=tsm sampler.mode=clip sampler.window=64 transform.size=256 transform.resize=256` |
| MCG-NJU | `eval=videomae` |
| OpenGVLab | VideoMAE V2 `eval=videomae`; UniFormerV2 `eval=mmaction2_uniform`, as MMAction2 tests its files |

The numbers of papers, of facebookresearch (TimeSformer) and Scenic come from code that is not among these.
"""


@dataclass(frozen=True)
class CatalogueRow:
    name: str
    entry: Entry
    params: int
    macs: int
    """Multiply-adds of one clip of the entry's size."""

    def cells(self) -> tuple[str, ...]:
        entry = self.entry
        frames, size = entry.clip
        return (
            self.name,
            entry.family.value,
            f"{self.params / 1e6:.3f}",
            f"{frames} x {size} x {size}",
            f"{self.macs / 1e9:.2f}" if self.macs >= 1e10 else f"{self.macs / 1e9:.3f}",
            entry.paper,
            "-" if entry.accuracy is None else f"{entry.accuracy:.2f}".removesuffix("0"),
            entry.protocol or "-",
        )


def to_text(rows: Sequence[CatalogueRow]) -> str:
    """An aligned table for a terminal."""
    return table(_HEAD, [row.cells() for row in rows])


def to_markdown(rows: Sequence[CatalogueRow]) -> str:
    """docs/models.md."""
    lines = [_HEAD, tuple("---" for _ in _HEAD), *(row.cells() for row in rows)]
    return _INTRO + "\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
