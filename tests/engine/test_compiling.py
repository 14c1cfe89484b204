"""torch.compile, chosen by measurement: what it leaves behind, what it says, what is compiled and what is not."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from vidtrain.engine.precision import Precision
from vidtrain.engine.preprocess import ModelRunner, Preprocess
from vidtrain.engine.settings import CompileMode, PrecisionName
from vidtrain.engine.speed import compiling
from vidtrain.engine.speed.compiling import choose_compile
from vidtrain.engine.speed.timing import random_batch
from vidtrain.engine.step import TrainingStep
from vidtrain.errors import ConfigError
from vidtrain.tasks.classification.task import Classification

CPU = torch.device("cpu")
LONG = 10**12  # batches: a training that takes hours
compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on the CPU")

TASK = Classification(["no", "yes"], mixup=0.2)


class Net(nn.Module):
    """BatchNorm and dropout, so that a step changes buffers and draws random numbers.

    costly: "compiled" or "as it is": where it does a hundred thousand times the work, so that the other is the faster.
    """

    def __init__(self, costly: str = "", width: int = 4) -> None:
        super().__init__()
        self.costly = costly
        self.norm = nn.BatchNorm1d(width)
        self.drop = nn.Dropout(0.5)
        self.first, self.last = nn.Linear(96, width), nn.Linear(width, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.first(x.flatten(1)))
        if self.costly == ("compiled" if torch.compiler.is_compiling() else "as it is"):
            busy = x.detach().double().sum() + torch.zeros(1500, 1500, dtype=torch.float64)
            x = x + (1e-20 * (busy @ busy).sum()).float()
        out: Tensor = self.last(self.drop(x.float()))
        return out


def training_step(net: nn.Module) -> TrainingStep:
    return TrainingStep(
        ModelRunner(net, Preprocess([0.5] * 3, [0.25] * 3, CPU), Precision(PrecisionName.fp32, CPU)),
        torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9),
        TASK,
    )


def batch_of(size: int):  # type: ignore[no-untyped-def]
    return random_batch(size, 2, 4, TASK)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(compiling, "_TIMED_SECONDS", 0.05)
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def graphs() -> int:
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


def everything(net: nn.Module) -> dict[str, object]:
    return {
        **{name: value.clone() for name, value in net.state_dict().items()},
        "generator": torch.get_rng_state(),
        "modes": [part.training for part in net.modules()],
        "gradients": [p.grad for p in net.parameters()],
    }


def same(one: dict[str, object], other: dict[str, object]) -> bool:
    pairs = [(one[key], other[key]) for key in {**one, **other}]
    return all(torch.equal(a, b) if isinstance(a, Tensor) and isinstance(b, Tensor) else a == b for a, b in pairs)


@pytest.mark.parametrize("mode", [CompileMode.off, CompileMode.auto])
def test_a_short_training_is_not_compiled(mode: CompileMode) -> None:
    net, batch, before = Net().eval(), batch_of(4), graphs()
    state, passes = everything(net), []
    net.register_forward_hook(lambda *_: passes.append(1))
    said = choose_compile(mode, training_step(net), batch, batches=100)
    assert len(passes) == (mode is CompileMode.auto)  # one says enough of a training that is short by far
    assert (
        said
        == {
            CompileMode.off: "compile=off",
            CompileMode.auto: "compile=auto: left as it is, because the training takes less than 20 minutes",
        }[mode]
    )
    assert graphs() == before
    assert same(everything(net), state)


@pytest.mark.slow
@compiler
@pytest.mark.parametrize(("costly", "wins"), [("compiled", "left as it is"), ("as it is", "compiled")])
def test_auto_keeps_the_faster_and_says_both(costly: str, wins: str) -> None:
    net, batch = Net(costly).eval(), batch_of(4)
    state = everything(net)
    step = training_step(net)
    said = choose_compile(CompileMode.auto, step, batch, batches=LONG)
    assert same(everything(net), state)
    assert f"as it is: {wins} (" in said
    numbers = said.removeprefix("compile=auto: ").split()
    compiled, eager = float(numbers[0]), float(numbers[3])
    assert (compiled > eager) == (wins == "compiled")
    before = graphs()
    net.train()
    step([batch], 1.0)
    assert graphs() == before


@pytest.mark.slow
@compiler
def test_compiled_is_the_same_network_for_everybody_else() -> None:
    torch.manual_seed(0)
    net = Net()
    net.drop.p = 0.0
    plain = copy.deepcopy(net)
    step, before = training_step(net), graphs()
    said = choose_compile(CompileMode.on, step, batch_of(4), batches=1)
    assert said.startswith("compile=on: ")
    assert graphs() == before + 1
    assert list(net.state_dict()) == list(plain.state_dict())

    batch, other = batch_of(4), training_step(plain)
    for one in (step, other):
        torch.manual_seed(1)
        for _ in range(3):
            one([batch], 1.0)
    for ours, theirs in zip(net.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)

    step([batch_of(3)], 1.0)  # a smaller last batch
    clips = torch.randn(4, 3, 2, 4, 4)
    with torch.no_grad():
        net(clips)
    net.eval()
    for size in (4, 5, 6):
        assert torch.equal(net(clips[:size]), copy.deepcopy(net)(clips[:size]))
    assert graphs() == before + 1, "something else was compiled"


@pytest.mark.slow  # PyTorch's compiler takes seconds to import
def test_what_cannot_be_compiled_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("/nowhere/g++",))
    monkeypatch.setattr("torch._inductor.config.force_disable_caches", True)
    net, batch = Net(width=5), batch_of(4)
    state, step = everything(net), training_step(net)
    said = choose_compile(CompileMode.auto, step, batch, batches=LONG)
    assert said.startswith("compile=auto: left as it is, because compiling fails: InvalidCxxCompiler: ")
    assert "\n" not in said
    with pytest.raises(
        ConfigError, match=r"^trainer.compile=on: InvalidCxxCompiler: .*; trainer.compile=off "
    ) as error:
        choose_compile(CompileMode.on, step, batch, batches=LONG)
    assert "\n" not in str(error.value)
    assert same(everything(net), state)
    step([batch], 1.0)  # trains as written


def test_a_network_that_fails_by_itself_is_not_blamed_on_the_compiler() -> None:
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        choose_compile(CompileMode.on, training_step(Net()), random_batch(4, 3, 4, TASK), batches=1)
