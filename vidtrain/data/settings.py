"""The options of clips, of testing, and of what is made from a dataset. `--help` prints the text under each field."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from vidtrain.errors import ConfigError
from vidtrain.ranges import LONGEST, Choice, check_fields, number
from vidtrain.types import FilePath, Indices, Regex


class ShortPolicy(Choice):
    repeat_last = "repeat_last"
    loop = "loop"
    error = "error"


class SampleMode(Choice):
    clip = "clip"
    segments = "segments"


class CropName(Choice):
    random = "random"
    resized = "resized"


class EvalProtocol(Choice):
    vidtrain = "vidtrain"
    pyslowfast = "pyslowfast"
    pyslowfast_offset = "pyslowfast_offset"
    pytorchvideo = "pytorchvideo"
    pytorchvideo_0_1_5 = "pytorchvideo_0_1_5"
    torchvision = "torchvision"
    mmaction2 = "mmaction2"
    mmaction2_uniform = "mmaction2_uniform"
    tsm = "tsm"
    videomae = "videomae"
    internvideo2 = "internvideo2"


class AverageName(Choice):
    probabilities = "probabilities"
    logits = "logits"


class PolicyName(Choice):
    none = "none"
    rand_augment = "rand_augment"
    trivial_augment = "trivial_augment"


@dataclass(unsafe_hash=True)  # not changed once it is made; `data check` remembers what it has found for one
class ClipSpec:
    """The shape of a clip in time: what `data.clips.sampling` needs to know.

    Raises:
        ConfigError: a number out of its range, or window with fewer frames than the clip has, or with fps.
    """

    num_frames: int = number(16, least=1)
    """Frames in a clip (T)."""
    stride: int = number(2, least=1, most=1_000_000)
    """Source frames between two frames of a clip; not used when fps is set."""
    fps: float | None = number(None, least=1e-6, because="or null to use sampler.stride")
    """Sample at this many frames per second instead, whatever the video's own rate."""
    short: ShortPolicy = ShortPolicy.repeat_last
    """A clip longer than its video: repeat_last frame, loop from the start, or error."""
    window: int | None = number(None, least=1, most=1_000_000_000)
    """Spread the samples over this many source frames instead of setting stride or fps ("dense" sampling: 64)."""
    mode: SampleMode = SampleMode.clip
    """clip: num_frames samples stride apart; segments: one sample from each of num_frames parts of the video (TSN)."""

    def __post_init__(self) -> None:
        check_fields(self, "sampler.")
        if self.window is not None and (self.window < self.num_frames or self.fps is not None):
            raise ConfigError(
                f"sampler.window={self.window}: must be sampler.num_frames={self.num_frames} or more, and "
                f"sampler.fps null (got {self.fps})"
            )

    def step(self, video_fps: float) -> float:
        """Source frames between two samples, as a real number."""
        if self.window is not None:
            return self.window / self.num_frames
        return float(self.stride) if self.fps is None else video_fps / self.fps

    def offsets(self, video_fps: float) -> Indices:
        """int64 (T,): the samples of a clip that starts at frame 0, rounded half up."""
        grid = np.arange(self.num_frames) * self.step(video_fps)
        return np.floor(grid + 0.5).astype(np.int64)

    def span(self, video_fps: float) -> int:
        """Source frames from the first sample to the last, both counted."""
        return int(self.offsets(video_fps)[-1]) + 1


@dataclass(unsafe_hash=True)
class SamplerConfig(ClipSpec):
    """A clip, and which of them an epoch has."""

    clips_per_video: int = number(1, least=1)
    """Training clips of each opened video; a batch has trainer.batch_size / clips_per_video different videos."""
    class_balance: float = number(0.0, least=0, most=1)
    """0: every video once an epoch; 1: every class as often as the others; 0.5: by the square root of its size."""
    shuffle_window: int | None = number(None, least=1)
    """data=shards: shards in a random order, and videos mixed within so many of them (10000), for stores that are slow
    at reading here and there; null: a random order of all videos."""
    background: float | None = number(None, least=0, below=1)
    """task=segments: share of the training windows in which nothing happens; null: as in the videos."""


@dataclass
class TransformConfig:
    size: int = number(112, least=1)
    """Height and width of the square crop the model sees."""
    crop: CropName = CropName.random
    """Training crop: random place in frames scaled to resize; resized: of random area and aspect too."""
    resize: int | str = number(128, least=1)
    """Short side of the frame before cropping (pixels), or its HEIGHTxWIDTH, such as 128x171, whatever the aspect;
    crop=resized uses it in testing only."""
    resize_max: int | None = number(None, least=1)
    """Training draws the short side from resize to this, once per clip; null: always resize."""
    squash: bool = False
    """Resize to a square whatever the aspect ratio, so that nothing is cropped away; false keeps the aspect ratio."""
    area: list[float] = number([0.08, 1.0], above=0, most=1)
    """crop=resized: share of the frame, from and to."""
    aspect: list[float] = number([0.75, 1.3333], above=0)
    """crop=resized: width / height of the region, from and to."""
    colour: float = number(0.0, least=0, most=1)
    """Training multiplies brightness, contrast and saturation by 1 - colour to 1 + colour, drawn once per clip."""
    grayscale: float = number(0.0, least=0, most=1)
    """Chance of a training clip without colour."""
    hue: float = number(0.0, least=0, most=0.5)
    """Training turns the hue by up to this share of a full turn, 0 to 0.5; slower than the other colours."""
    policy: PolicyName = PolicyName.none
    """none, rand_augment or trivial_augment: random operations, the same for all frames of a clip."""
    magnitude: int = number(9, least=0, most=30)
    """rand_augment: strength of its operations, 0 to 30."""
    num_ops: int = number(2, least=1)
    """rand_augment: operations per clip."""
    erasing: float = number(0.0, least=0, most=1)
    """Chance that a rectangle of a training clip is made grey through all its frames."""
    flip: float = number(0.5, least=0, most=1)
    """Chance of a horizontal flip in training; classes that a flip exchanges are relabelled."""
    mean: list[float] = number([0.45, 0.45, 0.45], least=-10, most=10)
    """Subtracted from RGB in [0, 1]."""
    std: list[float] = number([0.225, 0.225, 0.225], least=1e-4, most=100)
    """Divides RGB after the mean."""

    def __post_init__(self) -> None:
        check_fields(self, "transform.")


@dataclass
class EvalConfig:
    protocol: EvalProtocol = EvalProtocol.vidtrain
    """Whose frames and crops are tested: vidtrain's own, or those of pyslowfast, pytorchvideo, torchvision, mmaction2,
    tsm, videomae or internvideo2, to the index; these have rules of their own for short videos, too."""
    average: AverageName = AverageName.probabilities
    """What is averaged over the clips and crops of a video: probabilities, or the logits they are made of."""
    clips: int = number(10, least=1)
    """Clips spread evenly over each video in testing; their scores are averaged, see average."""
    hop: int | float | str | None = None
    """Slide over the whole video instead: a test clip every so many source frames (16) or seconds (0.5s); null: no."""
    crops: int = number(1, least=1, most=10)
    """Crops per clip in testing: 1 (centre), 3 (along the longer side), 5 (and corners), 10 (and mirrored)."""
    max_views: int | None = number(None, least=1)
    """Test only so many of the views (clips x crops) of a video, those that lie farthest apart, as the views curve of a
    test with all of them shows it; null: all."""
    val_clips: int = number(1, least=1)
    """Clips per video in the validation after an epoch (centre crop)."""
    batch_size: int = number(32, least=1)
    """Views in one forward pass: bounds the memory of testing."""
    figures: bool = True
    """Draw each test and training into figures/ beside its numbers, as PNG and SVG: confusion, classes, curves."""


class ExecutorName(Choice):
    local = "local"
    ray = "ray"
    slurm = "slurm"


@dataclass
class JobsConfig:
    executor: ExecutorName = ExecutorName.local
    """Where files are worked at: jobs=local, here; jobs=ray jobs.address=auto, on a Ray cluster; jobs=slurm
    jobs.partition=cpu, in an array of Slurm."""
    part: str | None = None
    """Work at one part of the files only, 3/8 is the third of eight: a process for each part, on machines that see the
    same folders, then the same command without it, which does what is missing and writes the lists."""
    address: str | None = None
    """ray: of a running cluster, auto or HOST:PORT; null: one on this machine, which ends with the command."""
    chunk: int = number(8, least=1)
    """ray: files that a worker is given at a time."""
    cpus: float = number(1.0, least=0)
    """ray, slurm: processors of a worker, or of a part."""
    gpus: float = number(0.0, least=0)
    """ray, slurm: GPUs of a worker, or of a part: 1 for extract; ray: 0.5, too."""
    parts: int = number(8, least=1, most=10_000)
    """slurm, and ray for extract: parts that the files are divided into, each a process: some times as many as run at
    once, so that none waits for the last, and so few that their starts cost nothing."""
    at_once: int | None = number(None, least=1)
    """slurm: parts that run at once at most; null: as many as Slurm gives room."""
    partition: str | None = None
    """slurm: partition, with its own default where it is null; so are account, time and memory."""
    account: str | None = None
    """slurm: account."""
    time: str | None = None
    """slurm: limit of a part, as sbatch takes it: 4:00:00, 1-00:00:00."""
    memory: str | None = None
    """slurm: memory of a part, 16G."""
    sbatch: list[str] = field(default_factory=list)
    """slurm: further options of sbatch, [--qos=low, --constraint=avx512]."""
    setup: list[str] = field(default_factory=list)
    """slurm: lines of shell before the command, ['module load ffmpeg', 'export OMP_NUM_THREADS=1']."""
    submit: bool = True
    """slurm: false writes the scripts only."""
    deaths: int = number(3, least=0)
    """ray: workers that may die at a file, or with their node, before the file is given up and reported."""


@dataclass
class CheckConfig:
    timeout: float = number(20.0, above=0, most=LONGEST)
    """check: seconds that a file may take, and one more for each MB of it; then it is reported as unreadable."""
    full: bool = True
    """check: decode every frame; false: the first, the middle and the last one, about three times as fast."""
    group_by: Regex | None = None
    """check: regular expression on paths below data.root; a match in two splits is a leak; null: data.group_by."""
    strict: bool = False
    """check: end with an error (exit code 2) when a serious problem is found, for scripts."""


@dataclass
class StatsConfig:
    probes: FilePath | None = None
    """stats: folder that `vidtrain data check` wrote to, whose probes are used; null: where it writes by default."""


class CopyFormat(Choice):
    video = "video"
    jpeg = "jpeg"


@dataclass
class PrepareConfig:
    format: CopyFormat = CopyFormat.video
    """prepare: video makes small H.264 copies (.mp4); jpeg makes packs of JPEGs (.jpack), faster to read and larger."""
    short_side: int = number(128, least=2, most=4320)
    """prepare: short side of the copies (pixels): the largest transform.resize you will use. Nothing is enlarged."""
    crf: int = number(23, least=0, most=51)
    """prepare, video: quality, 0 to 51; lower is better and larger."""
    gop: int = number(16, least=1, most=1000)
    """prepare, video: frames from one keyframe to the next; fewer are read a little faster and take more space."""
    quality: int = number(85, least=1, most=95)
    """prepare, jpeg: quality, 1 to 95; higher is better and larger."""
    min_psnr: float = number(20.0, least=0)
    """prepare: a copy is refused when a frame of it is further from its source than this (dB, of 2x2 averages)."""
    timeout: float = number(600.0, above=0, most=LONGEST)
    """prepare: seconds that one file may take; then its process is killed and the file is reported."""


@dataclass
class ShardConfig:
    size: str = "1GB"
    """shard: bytes of a shard, a number with kB, MB, GB or TB; a video that is larger gets a shard of its own."""
    seed: int = number(0, least=0)
    """shard: order of the training videos in the shards, which mixes the classes in each; other splits keep theirs."""
    timeout: float = number(3600.0, above=0, most=LONGEST)
    """shard: seconds that one shard may take; then its process is killed and it is reported."""


class FlowSourceName(Choice):
    none = "none"
    cache = "cache"
    dis = "dis"
    farneback = "farneback"
    tvl1 = "tvl1"


class FlowMethodName(Choice):
    dis = "dis"
    farneback = "farneback"
    tvl1 = "tvl1"
    raft = "raft"


class RaftName(Choice):
    raft_large = "raft_large"
    raft_small = "raft_small"


@dataclass
class ProbeConfig:
    shots: list[int] = number([], least=1)
    """data=features: train again on so many videos of each class, [1,5,10]; mean and 95 % interval of test."""
    seeds: int = number(5, least=2)
    """Trainings for each number of shots, each with other videos."""


@dataclass
class FlowConfig:
    source: FlowSourceName = FlowSourceName.none
    """Optical flow beside RGB: none; cache, as `vidtrain data flow` made it; or computed by dis, farneback or tvl1."""
    root: FilePath | None = None
    """cache: its folder, the output of `vidtrain data flow`."""
    method: str | None = None
    """cache: how it was made; training fills it in, and predict computes in the same way what the cache lacks."""


@dataclass
class FlowCacheConfig:
    short_side: int = number(128, least=16, most=4320)
    """flow: short side of the frames it is computed on (pixels): that of transform.resize. Nothing is enlarged."""
    quality: int = number(95, least=1, most=100)
    """flow: quality of the JPEGs it is kept in, 1 to 100; 95 is off by 0.01 pixels on average."""
    timeout: float = number(3600.0, above=0, most=LONGEST)
    """flow: seconds that one video may take; then its process is killed and the video is reported. Not for raft."""
    model: RaftName = RaftName.raft_large
    """flow, raft: raft_large or raft_small."""
    weights: FilePath | None = None
    """flow, raft: a file of torchvision's weights; null: fetched from its registry on first use."""
    device: str = "auto"
    """flow, raft: where it runs: auto, cpu, cuda, mps."""
    batch_size: int = number(8, least=1, most=4096)
    """flow: pairs of frames at once, which matters to raft on a GPU."""
