"""The options of training. `vidtrain train --help` prints the text under each field."""

from __future__ import annotations

from dataclasses import dataclass

from vidtrain.ranges import LARGEST_SEED, LONGEST, Choice, number


class PrecisionName(Choice):
    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


class CompileMode(Choice):
    auto = "auto"
    on = "on"
    off = "off"


class OnOom(Choice):
    halve = "halve"
    fail = "fail"


class Strategy(Choice):
    ddp = "ddp"
    fsdp = "fsdp"
    hsdp = "hsdp"

    @property
    def sharded(self) -> bool:
        """Whether no device has the whole model."""
        return self is not Strategy.ddp


class ScheduleName(Choice):
    cosine = "cosine"
    step = "step"
    constant = "constant"


@dataclass
class ScheduleConfig:
    name: ScheduleName = ScheduleName.cosine
    """cosine, step or constant."""
    warmup_epochs: float = number(0.0, least=0)
    """Linear rise from 0 to optimizer.lr over this many epochs (fractions allowed)."""
    final_ratio: float = number(0.0, least=0, most=1)
    """cosine: the last learning rate as a share of optimizer.lr."""
    milestones: list[float] = number([], above=0)
    """step: epochs after which the learning rate is multiplied by gamma."""
    gamma: float = number(0.1, above=0, most=1)
    """step: the factor."""


@dataclass
class TrainerConfig:
    epochs: int = number(20, least=0)
    """Passes over the training split; 0: the weights that the model starts with are tested as they are."""
    batch_size: int = number(16, least=1)
    """Clips per step, over all devices: the same training on one of them or on eight."""
    base_batch: int | None = number(None, least=1)
    """optimizer.lr is meant for this many clips per update, and scaled in proportion to the actual ones; null: not."""
    accumulate: int = number(1, least=1)
    """Steps whose gradients are averaged before one update."""
    precision: PrecisionName = PrecisionName.auto
    """fp32, bf16, fp16 (with loss scaling) or auto: bf16 or fp16 on a GPU, fp32 elsewhere."""
    check_convolutions: bool = True
    """On a GPU, in bf16 or fp16: try the model's 3D convolutions against float32 first; cuDNN 9.8 to 9.14 have wrong
    ones."""
    compile: CompileMode = CompileMode.auto
    """torch.compile: on, off, or auto: measured in trainings of more than 20 minutes, and kept where it is faster."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    devices: int = number(1, least=1)
    """GPUs of this machine (processes, on the CPU) that train together. Under torchrun or srun leave it at 1."""
    strategy: Strategy = Strategy.ddp
    """Several devices: ddp (each has the whole model), fsdp (each keeps a part of the weights and optimizer) or hsdp
    (fsdp within each node, ddp across them)."""
    sync_bn: bool = False
    """BatchNorm over the clips of all devices; CUDA only."""
    num_workers: int | None = number(None, least=0)
    """Processes that decode, for each device; null chooses from the machine, 0 decodes in the main process."""
    data_timeout: float = number(1800.0, least=0, most=LONGEST)
    """Seconds without a batch from the decoding processes after which the program ends; 0 waits forever. After 30 s it
    says which video is waited for."""
    rank_timeout: float = number(1800.0, least=0, most=LONGEST)
    """Several devices: seconds that a process waits for another one before it ends; 0 waits forever. After 30 s it
    says which process is waited for."""
    seed: int = number(0, least=0, most=LARGEST_SEED)
    """Fixes initial weights, order, clips, crops, flips and dropout."""
    deterministic: bool = False
    """Only deterministic kernels: slower, equal bit for bit on the same machine."""
    checkpoint_activations: bool = False
    """Blocks recompute their activations for the gradient: less memory, a step takes about a third longer."""
    ema: float | None = number(None, above=0, below=1)
    """Decay of a moving average of the weights, 0.999 or 0.9999, which is what is tested and kept; null: none."""
    precise_bn: int = number(0, least=0)
    """Batches at the end of each epoch over which BatchNorm's statistics are measured again; 0: the moving average."""
    on_oom: OnOom = OnOom.halve
    """A batch that does not fit the GPU's memory: halve (goes through in pieces, gradients added up) or fail."""
    max_skipped: int = number(10, least=1)
    """An update with a gradient that is not finite is skipped; after this many in a row training stops."""
    clip_grad: float | None = number(None, above=0)
    """Largest norm of the gradient; null does not clip."""
    log_every: int = number(10, least=1)
    """Updates between two points in metrics.jsonl, TensorBoard and other loggers."""
    val_every: int = number(1, least=1)
    """Epochs between two validations; the last epoch is always validated."""
    patience: int | None = number(None, least=1)
    """Stop when the validation has not improved for this many epochs; null: train to the end."""
    save_minutes: float = number(15.0, least=0)
    """last.pt is also written within an epoch, this many minutes after the save before."""
    async_save: bool = False
    """last.pt and best.pt are written by a thread while training goes on, from a copy in the CPU's memory."""
    keep_last: int = number(2, least=1, most=99)
    """last.pt and the ones before it, last.1.pt, ...: a damaged one is skipped by a resume."""
    max_batches: int | None = number(None, least=1)
    """Batches of an epoch at most; null: all."""
    overfit: bool = False
    """Every epoch has the very same clips as the first, which a sound model overfits."""
    profile: int = number(0, least=0)
    """Updates to trace with torch's profiler into the folder profile/, which TensorBoard and Perfetto open; 0: none."""
    test: bool = True
    """Test the best checkpoint at the end, when the dataset has a test split."""
