"""Packages, devices and decoders as they are installed here, each with what to change.

A program that cannot import torch is what a bug report is often about, so nothing here needs it to be there.
"""

from __future__ import annotations

import importlib.util
import io
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib import metadata
from typing import Any, Final

from vidtrain.commands.doctor_machine import GB, Finding

_SHOWN: Final = (
    *("torch", "torchvision", "hydra-core", "omegaconf", "numpy", "av", "decord", "torchcodec", "safetensors"),
    *("tensorboard", "matplotlib", "pillow", "timm", "opencv-python-headless", "opencv-python", "pyarrow"),
    *("transformers", "optuna", "wandb", "mlflow", "trackio", "onnx", "onnxruntime"),
)
_CODECS: Final = ("h264", "hevc", "av1", "vp9", "vp8", "mpeg4", "mpeg2video", "mjpeg", "prores", "wmv3")
_BF16_ERROR: Final = 0.02
"""Of the deviation. bf16 keeps 8 bits, so a sound kernel is wrong by about 0.002; a faulty one by about 1."""


def packages() -> list[Finding]:
    """Python, vidtrain and what it stands on."""
    required = _required()
    where = ", in a virtual environment" if sys.prefix != sys.base_prefix else ""
    found = [Finding("Python", f"{platform.python_version()} ({platform.python_implementation()}){where}")]
    found.append(Finding("vidtrain", _installed_as()))
    for name in _SHOWN:
        version = _version(name)
        if version or name in required:
            found.append(package_found(name, version, required.get(name, "")))
    return found


def package_found(name: str, version: str, required: str) -> Finding:
    """version: "" where it is not installed. required: as in ">=2.10,<3", "" for any."""
    if not version:
        return Finding(name, "not installed", f"pip install '{name}{required}', which vidtrain requires")
    from packaging.specifiers import SpecifierSet

    if SpecifierSet(required).contains(version, prereleases=True):
        return Finding(name, version)
    return Finding(name, version, f"vidtrain requires {name}{required}: pip install '{name}{required}'")


def devices() -> list[Finding]:
    """What torch finds to compute on, and whether 3D convolutions in bf16 are right there."""
    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: a library of CUDA's is lost
        fix = "reinstall PyTorch for this Python and this driver: pip install --force-reinstall torch torchvision"
        return [Finding("torch", f"cannot be imported: {error}", fix)]
    found = [Finding("CUDA of torch", torch.version.cuda or torch.version.hip or "none: a build for the CPU")]
    driver = _nvidia_driver()
    if driver:
        found.append(Finding("NVIDIA driver", driver))
    if not torch.cuda.is_available():
        found.append(Finding("GPU", "none that torch can use", _no_gpu(driver, torch.version.cuda)))
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        found.append(_gpu(index))
    if torch.cuda.is_available() and torch.backends.cudnn.is_available():
        found.append(cudnn_found(torch.backends.cudnn.version() or 0))
    if torch.backends.mps.is_available():
        found.append(Finding("Apple GPU", "yes"))
    found.append(Finding("threads of torch", f"{torch.get_num_threads()}"))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        found.append(bf16_found(conv3d_bf16_error(device), device))
    except RuntimeError as error:
        line = str(error).strip().splitlines()[0]
        advice = f"torch does not compute here ({line}): install the build of torch for this device"
        found.append(Finding("3D convolution", f"fails on {device}: {line}", advice))
    return found


def cudnn_found(version: int) -> Finding:
    """version: as torch.backends.cudnn.version() has it, 91002 is 9.10.2."""
    from vidtrain.engine.speed.convolutions import known_faults

    major, rest = (version // 10000, version % 10000) if version >= 90000 else (version // 1000, version % 1000)
    fix = "pip install -U 'nvidia-cudnn-cu12>=9.15' (cu13 for CUDA 13), or trainer.precision=fp16"
    known = known_faults(version)
    return Finding("cuDNN", f"{major}.{rest // 100}.{rest % 100}", f"{known}: {fix}" if known else "")


def conv3d_bf16_error(device: str) -> float:
    """How far a 3D convolution in bf16 is from one in fp64, in deviations of the latter; 0.002 where it is right."""
    import torch
    from torch.nn import functional as F

    generator = torch.Generator().manual_seed(0)
    width, size = (64, 56) if device == "cuda" else (16, 14)  # a layer of an R3D-18 at 112 pixels, which takes 1 ms
    clip = torch.randn(2, width, 8, size, size, generator=generator).to(device)
    weight = torch.randn(width, width, 3, 3, 3, generator=generator).to(device)
    with torch.no_grad():
        exact = F.conv3d(clip.bfloat16().double(), weight.bfloat16().double(), padding=1)
        rough = F.conv3d(clip.bfloat16(), weight.bfloat16(), padding=1).double()
    return float((rough - exact).std() / exact.std())


def bf16_found(error: float, device: str) -> Finding:
    """error: of `conv3d_bf16_error`."""
    wrong = not error < _BF16_ERROR
    advice = (
        f"3D convolutions in bf16 are wrong on this {device}: trainer.precision=fp32 or fp16, and another version of "
        "cuDNN or PyTorch"
    )
    value = f"{'wrong' if wrong else 'fine'}: differs from fp64 by {error:.4f} of the standard deviation"
    return Finding("bf16 Conv3d", value, advice * wrong)


def decoders() -> list[Finding]:
    """What reads videos: versions, codecs, and one video written and read again."""
    try:
        import av
    except (ImportError, OSError) as error:
        return [Finding("PyAV", f"cannot be imported: {error}", "pip install --force-reinstall av")]
    libraries = [f"{name} {av.library_versions[name][0]}" for name in ("libavcodec", "libavformat")]
    missing = [name for name in _CODECS if not _decodes(name)]
    advice = f"FFmpeg's libraries of PyAV cannot decode {', '.join(missing)}: pip install --force-reinstall av"
    found = [
        Finding("PyAV", f"{av.__version__}, {', '.join(libraries)}"),
        Finding("decodes", ", ".join(n for n in _CODECS if n not in missing), advice * bool(missing)),
        _round_trip(),
    ]
    for name, module in (("decord", "decord"), ("torchcodec", "torchcodec.decoders"), ("cv2", "cv2")):
        if _version(name) or importlib.util.find_spec(name) is not None:
            found.append(_imported(name, partial(importlib.import_module, module)))
    return found


def _imported(name: str, attempt: Callable[[], Any]) -> Finding:
    try:
        attempt()
    except (ImportError, OSError, RuntimeError) as error:  # torchcodec raises RuntimeError without FFmpeg's libraries
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        return Finding(name, f"cannot be imported: {reason}", f"decoder=pyav reads without {name}; or reinstall it")
    return Finding(name, "can be imported")


def _round_trip() -> Finding:
    """Eight frames through the encoder of `data prepare` and back."""
    import av
    import numpy as np

    file = io.BytesIO()
    try:
        with av.open(file, "w", format="mp4") as out:
            stream = out.add_stream("libx264", rate=8)
            stream.width = stream.height = 64
            stream.pix_fmt = "yuv420p"
            for shade in range(8):
                image = np.full((64, 64, 3), 20 * shade + 40, np.uint8)
                out.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            out.mux(stream.encode())
        file.seek(0)
        with av.open(file) as source:
            means = [frame.to_ndarray(format="rgb24").mean() for frame in source.decode(video=0)]
    except (av.error.FFmpegError, ValueError, LookupError) as error:
        text = "vidtrain data prepare and overlays need libx264: pip install --force-reinstall av"
        return Finding("writes H.264", f"no: {error}", text)
    right = len(means) == 8 and all(abs(mean - 20 * k - 40) < 8 for k, mean in enumerate(means))
    value = "8 frames written and read again" if right else f"{len(means)} of 8 frames came back, or other ones"
    return Finding("writes H.264", value, "PyAV reads other frames than it wrote: reinstall it" * (not right))


def _decodes(name: str) -> bool:
    import av

    try:
        av.Codec(name, "r")
    except (ValueError, LookupError, av.error.FFmpegError):
        return False
    return True


def _gpu(index: int) -> Finding:
    import torch

    properties = torch.cuda.get_device_properties(index)
    name = f"sm_{properties.major}{properties.minor}"
    built = torch.cuda.get_arch_list()
    value = f"{properties.name}, {properties.total_memory / GB:.0f} GB, {name}"
    return Finding(f"GPU {index}", value, architecture_advice(properties.name, name, built))


def architecture_advice(gpu: str, architecture: str, built: Sequence[str]) -> str:
    """architecture: of the GPU, "sm_90". built: those that torch has kernels for."""
    number = int(architecture.removeprefix("sm_"))
    older = [int(text.removeprefix("sm_").rstrip("af")) for text in built if text.startswith("sm_")]
    # kernels of one generation run on the later ones of it: sm_80 on sm_86
    if not older or any(each // 10 == number // 10 and each <= number for each in older):
        return ""
    if any(text.startswith("compute_") and int(text[8:].rstrip("af")) <= number for text in built):
        return ""
    return (
        f"this torch has no kernels for {gpu} ({architecture}): install a build for it ({', '.join(built)} are in it)"
    )


def _no_gpu(driver: str, cuda: str | None) -> str:
    if not driver:
        return ""
    if cuda is None:
        return "there is an NVIDIA GPU, and this torch is built for the CPU: install torch with CUDA (pytorch.org)"
    return (
        f"there is an NVIDIA GPU that torch cannot use: driver {driver} may be too old for CUDA {cuda}, or "
        "CUDA_VISIBLE_DEVICES hides it; in a container: --gpus all"
    )


def _nvidia_driver() -> str:
    """Its version, "" where there is no NVIDIA GPU."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    command = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip().splitlines()[0] if done.stdout.strip() else ""


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _required() -> dict[str, str]:
    """Package -> its versions that vidtrain requires, without extras and what this machine has no use for."""
    from packaging.requirements import InvalidRequirement, Requirement

    found = {}
    for text in metadata.requires("vidtrain") or ():
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            found[requirement.name] = str(requirement.specifier)
    return found


def _installed_as() -> str:
    """How the program came here: a clone with its commit, or an installed package."""
    from vidtrain import __version__
    from vidtrain.options.option_texts import conf_dir

    root = conf_dir().parent
    if not (root / ".git").exists():
        return f"{__version__}, installed"
    git = shutil.which("git")
    command = [git or "git", "-C", str(root), "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return f"{__version__}, a clone"
    return f"{__version__}, a clone at {done.stdout.strip()}"
