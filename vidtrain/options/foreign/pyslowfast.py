"""A YAML of PySlowFast, or of what is built on it (TimeSformer, UniFormerV2, MViT), in vidtrain's options.

Source of the names and of what they do: facebookresearch/SlowFast, slowfast/config/defaults.py, slowfast/datasets and
slowfast/models/optimizer.py (287ec007).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from vidtrain.errors import ConfigError
from vidtrain.options.foreign.reading import Foreign, ForeignChoice, are_numbers, as_number

_DATASETS: Final = {
    "kinetics": "kinetics",
    "ptvkinetics": "kinetics",
    "ssv2": "something_something",
    "charades": "charades",
}
_OPTIMIZERS: Final = {"sgd": "sgd", "adamw": "adamw"}
_OF_THE_NET: Final = ("SLOWFAST", "RESNET", "NONLOCAL", "X3D", "MVIT", "TIMESFORMER", "UNIFORMERV2")
_OF_ITS_OWN: Final = (
    *("TRAIN.ENABLE", "TRAIN.AUTO_RESUME", "TRAIN.CHECKPOINT_PERIOD", "TEST.ENABLE", "TEST.DATASET", "TEST.BATCH_SIZE"),
    *("DATA.INPUT_CHANNEL_NUM", "DATA.DECODING_BACKEND", "DATA_LOADER", "OUTPUT_DIR", "NUM_SHARDS", "LOG_MODEL_INFO"),
    *("MODEL.NUM_CLASSES", "MODEL.LOSS_FUNC", "MODEL.MODEL_NAME", "TENSORBOARD", "TRAIN.CHECKPOINT_TYPE", "DATA.MC"),
    *("AUG.INTERPOLATION", "AUG.RE_MODE", "AUG.RE_COUNT", "AUG.RE_SPLIT", "SOLVER.COSINE_AFTER_WARMUP", "AUG.ENABLE"),
    *("SOLVER.WARMUP_START_LR", "BN.NUM_SYNC_DEVICES", "DATA.REVERSE_INPUT_CHANNEL", "MIXUP.PROB", "MIXUP.SWITCH_PROB"),
    *("DATA.USE_OFFSET_SAMPLING", "TRAIN.CHECKPOINT_EPOCH_RESET", "MIXUP.ENABLE", "DATA.PATH_LABEL_SEPARATOR"),
)


def is_pyslowfast(values: dict[str, Any]) -> bool:
    return isinstance(values.get("MODEL"), dict) and ("SOLVER" in values or "TRAIN" in values)


def convert(given: Foreign) -> Iterator[ForeignChoice]:
    """The choices and keys of an experiment, in reading order.

    Raises:
        ConfigError: an architecture that the catalogue has not.
    """
    given.ignore(*_OF_ITS_OWN)
    yield from _data(given)
    yield from _model(given)
    yield from _clip(given)
    yield from _pixels(given)
    yield from _solver(given)
    yield from _loop(given)
    yield from _test(given)


def _data(given: Foreign) -> Iterator[ForeignChoice]:
    name, root = str(given.get("TRAIN.DATASET", "")).lower(), given.get("DATA.PATH_TO_DATA_DIR")
    there = isinstance(root, str) and bool(root) and "path" not in root
    if name == "kinetics" and there:  # what it calls so are lists of path and label, of any dataset
        yield ForeignChoice("/data", "list", "TRAIN.DATASET: kinetics")
        prefix = given.get("DATA.PATH_PREFIX")
        below = isinstance(prefix, str) and bool(prefix)
        yield ForeignChoice("data.root", prefix if below else root, f"DATA.PATH_{'PREFIX' if below else 'TO_DATA_DIR'}")
        for split in ("train", "val", "test"):
            yield ForeignChoice(f"data.{split}", f"{root}/{split}.csv", "DATA.PATH_TO_DATA_DIR")
        return
    if name in _DATASETS:
        yield ForeignChoice("/data", _DATASETS[name], f"TRAIN.DATASET: {name}")
    if there:
        yield ForeignChoice("data.root", root, "DATA.PATH_TO_DATA_DIR")


def _model(given: Foreign) -> Iterator[ForeignChoice]:
    arch = str(given.get("MODEL.ARCH", "")).lower()
    name, why = _catalogue_name(arch, given)
    yield ForeignChoice("/model", name, why)
    depth = given.count("RESNET.DEPTH")
    if depth is not None and name in ("c2d_r50", "i3d_r50", "i3d_r50_nonlocal", "slow_r50") and depth != 50:
        yield ForeignChoice("model.depth", depth, "RESNET.DEPTH")
    if (share := given.number("MODEL.DROPOUT_RATE")) is not None and not name.startswith("timesformer"):
        yield ForeignChoice("model.dropout", share, "MODEL.DROPOUT_RATE")
    if (share := given.number("MVIT.DROPPATH_RATE")) is not None and name.startswith("mvit"):
        yield ForeignChoice("model.drop_path", share, "MVIT.DROPPATH_RATE")
    file = given.get("TRAIN.CHECKPOINT_FILE_PATH")
    if isinstance(file, str) and file:
        yield ForeignChoice("model.weights", file, "TRAIN.CHECKPOINT_FILE_PATH")
    given.ignore(*_OF_THE_NET)


def _catalogue_name(arch: str, given: Foreign) -> tuple[str, str]:
    """The model of the catalogue that an architecture is, and what says so."""
    if arch == "slowfast":
        alpha, depth = given.number("SLOWFAST.ALPHA"), given.count("RESNET.DEPTH")
        if depth == 101:
            return "slowfast_r101", "MODEL.ARCH: slowfast, RESNET.DEPTH: 101"
        return ("slowfast_4x16_r50", "SLOWFAST.ALPHA: 8") if alpha == 8 else ("slowfast_r50", "MODEL.ARCH: slowfast")
    if arch == "i3d":
        several = "NLN" if re.search(r"\d", str(given.get("NONLOCAL.LOCATION", ""))) else ""
        return ("i3d_r50_nonlocal", "NONLOCAL.LOCATION") if several else ("i3d_r50", "MODEL.ARCH: i3d")
    if arch == "x3d":
        if given.number("X3D.DEPTH_FACTOR") == 5.0:
            return "x3d_l", "X3D.DEPTH_FACTOR: 5.0"
        frames = given.count("DATA.NUM_FRAMES") or 16
        return {4: "x3d_xs", 13: "x3d_s"}.get(frames, "x3d_m"), f"MODEL.ARCH: x3d, DATA.NUM_FRAMES: {frames}"
    if arch == "mvit":
        second = given.get("MVIT.REL_POS_SPATIAL") is True
        return ("mvit_v2_s", "MVIT.REL_POS_SPATIAL") if second else ("mvit_v1_b", "MODEL.ARCH: mvit")
    if arch == "vit" and "TIMESFORMER" in given.values:
        return "timesformer", "TIMESFORMER"
    if arch == "uniformerv2":
        decoders = given.number("UNIFORMERV2.N_LAYERS")
        return (
            ("uniformerv2_b16_ssv2", "UNIFORMERV2.N_LAYERS: 8") if decoders == 8 else ("uniformerv2_b16", "MODEL.ARCH")
        )
    names = {"slow": "slow_r50", "c2d": "c2d_r50", "csn": "csn_r101", "r2plus1d": "r2plus1d_r50"}
    if arch in names:
        return names[arch], f"MODEL.ARCH: {arch}"
    raise ConfigError(
        f"MODEL.ARCH: {arch or 'none'}: not among those that are known here: "
        f"{', '.join(['slowfast', 'i3d', 'x3d', 'mvit', 'vit', 'uniformerv2', *names])}; see vidtrain inspect"
    )


def _clip(given: Foreign) -> Iterator[ForeignChoice]:
    frames, rate = given.count("DATA.NUM_FRAMES"), given.count("DATA.SAMPLING_RATE")
    sparse = given.get("DATA.INV_UNIFORM_SAMPLE") is True or str(given.get("TRAIN.DATASET")).endswith("sparse")
    if sparse:
        yield ForeignChoice("/sampler", "segments", "DATA.INV_UNIFORM_SAMPLE: a frame of each part of the video")
    if frames is not None:
        yield ForeignChoice("sampler.num_frames", frames, "DATA.NUM_FRAMES")
    if rate is not None and not sparse:
        yield ForeignChoice("sampler.stride", rate, "DATA.SAMPLING_RATE, which counts frames of 30 per second")
    repeats = given.count("AUG.NUM_SAMPLE")
    if repeats is not None and repeats > 1:
        yield ForeignChoice("sampler.clips_per_video", repeats, "AUG.NUM_SAMPLE")


def _list(given: Foreign, key: str) -> list[float]:
    """A list of numbers; [] where there is none, and another value is not taken over."""
    value = given.get(key)
    values = [as_number(part) for part in value] if isinstance(value, list) else value
    if are_numbers(values):
        return list(values)
    if values:
        given.refused[key] = value
    return []


def _pixels(given: Foreign) -> Iterator[ForeignChoice]:
    if (size := given.count("DATA.TRAIN_CROP_SIZE")) is not None:
        yield ForeignChoice("transform.size", size, "DATA.TRAIN_CROP_SIZE")
        if given.values["DATA"].get("TEST_CROP_SIZE") == size:
            given.ignore("DATA.TEST_CROP_SIZE")
    scales = _list(given, "DATA.TRAIN_JITTER_SCALES")
    area = _list(given, "DATA.TRAIN_JITTER_SCALES_RELATIVE")
    aspect = _list(given, "DATA.TRAIN_JITTER_ASPECT_RELATIVE")
    if len(scales) == 2:
        yield ForeignChoice("transform.resize", int(scales[0]), "DATA.TRAIN_JITTER_SCALES")
        if not area and scales[1] > scales[0]:
            yield ForeignChoice("transform.resize_max", int(scales[1]), "DATA.TRAIN_JITTER_SCALES")
    if area:
        yield ForeignChoice("transform.crop", "resized", "DATA.TRAIN_JITTER_SCALES_RELATIVE")
        yield ForeignChoice("transform.area", area, "DATA.TRAIN_JITTER_SCALES_RELATIVE")
    if aspect:
        yield ForeignChoice("transform.aspect", aspect, "DATA.TRAIN_JITTER_ASPECT_RELATIVE")
    for key, name in (("mean", "DATA.MEAN"), ("std", "DATA.STD")):
        if colours := _list(given, name):
            yield ForeignChoice(f"transform.{key}", colours, name)
    if given.get("DATA.RANDOM_FLIP") is False:
        yield ForeignChoice("transform.flip", 0.0, "DATA.RANDOM_FLIP: False")
    operations = re.fullmatch(r"rand-m(\d+)-n(\d+).*", str(given.get("AUG.AA_TYPE", "")))
    colour = given.number("AUG.COLOR_JITTER")
    if operations:
        yield ForeignChoice(
            "transform.policy", "rand_augment", "AUG.AA_TYPE, in whose place AUG.COLOR_JITTER is not used"
        )
        yield ForeignChoice("transform.magnitude", int(operations[1]), "AUG.AA_TYPE")
        yield ForeignChoice("transform.num_ops", int(operations[2]), "AUG.AA_TYPE")
    elif colour:
        yield ForeignChoice("transform.colour", colour, "AUG.COLOR_JITTER")
    if (share := given.number("AUG.RE_PROB")) is not None:
        yield ForeignChoice("transform.erasing", share, "AUG.RE_PROB")
    mixes = (("task.mixup", "MIXUP.ALPHA"), ("task.cutmix", "MIXUP.CUTMIX_ALPHA"))
    for key, name in (*mixes, ("task.label_smoothing", "MIXUP.LABEL_SMOOTH_VALUE")):
        if (value := given.number(name)) is not None:
            yield ForeignChoice(key, value, name)


def _solver(given: Foreign) -> Iterator[ForeignChoice]:
    method = str(given.get("SOLVER.OPTIMIZING_METHOD", "sgd")).lower()
    if method not in _OPTIMIZERS:
        raise ConfigError(f"SOLVER.OPTIMIZING_METHOD: {method}: known are {', '.join(_OPTIMIZERS)}")
    yield ForeignChoice("/optimizer", _OPTIMIZERS[method], f"SOLVER.OPTIMIZING_METHOD: {method}")
    rate = given.number("SOLVER.BASE_LR")
    if rate is not None:
        yield ForeignChoice("optimizer.lr", rate, "SOLVER.BASE_LR")
    for key, name in (("weight_decay", "SOLVER.WEIGHT_DECAY"), ("layer_decay", "SOLVER.LAYER_DECAY")):
        if (value := given.number(name)) is not None and not (key == "layer_decay" and value == 1):
            yield ForeignChoice(f"optimizer.{key}", value, name)
    if method == "sgd" and (momentum := given.number("SOLVER.MOMENTUM")) is not None:
        yield ForeignChoice("optimizer.momentum", momentum, "SOLVER.MOMENTUM")
    if method == "sgd" and given.get("SOLVER.NESTEROV") is False:
        yield ForeignChoice("optimizer.nesterov", False, "SOLVER.NESTEROV")
    if given.get("SOLVER.ZERO_WD_1D_PARAM") is True or method == "sgd":
        given.ignore("BN.WEIGHT_DECAY", "SOLVER.MOMENTUM")
        yield ForeignChoice("optimizer.decay_norms", False, "SOLVER.ZERO_WD_1D_PARAM, BN.WEIGHT_DECAY: 0.0")
    policy = str(given.get("SOLVER.LR_POLICY", "cosine"))
    steps, factors = _list(given, "SOLVER.STEPS"), _list(given, "SOLVER.LRS")
    if policy == "steps_with_relative_lrs" and steps and len(factors) > 1 and factors[0] > 0:
        yield ForeignChoice("/schedule", "step", f"SOLVER.LR_POLICY: {policy}")
        yield ForeignChoice("schedule.milestones", [float(step) for step in steps if step], "SOLVER.STEPS")
        yield ForeignChoice("schedule.gamma", round(float(factors[1]) / float(factors[0]), 6), "SOLVER.LRS")
    elif policy == "cosine":
        yield ForeignChoice("/schedule", "cosine", "SOLVER.LR_POLICY: cosine")
        if (end := given.number("SOLVER.COSINE_END_LR")) is not None and rate:
            yield ForeignChoice(
                "schedule.final_ratio", round(end / rate, 6), "SOLVER.COSINE_END_LR over SOLVER.BASE_LR"
            )
    if (warmup := given.number("SOLVER.WARMUP_EPOCHS")) is not None:
        yield ForeignChoice("schedule.warmup_epochs", warmup, "SOLVER.WARMUP_EPOCHS; here the rate begins at 0")


def _loop(given: Foreign) -> Iterator[ForeignChoice]:
    if (epochs := given.count("SOLVER.MAX_EPOCH")) is not None:
        yield ForeignChoice("trainer.epochs", epochs, "SOLVER.MAX_EPOCH")
    repeats = given.count("AUG.NUM_SAMPLE") or 1
    if (batch := given.count("TRAIN.BATCH_SIZE")) is not None:
        clips = batch * max(repeats, 1)
        yield ForeignChoice("trainer.batch_size", clips, "TRAIN.BATCH_SIZE, of one machine; here clips of all devices")
        yield ForeignChoice("trainer.base_batch", clips, "so that the learning rate follows another batch size")
        given.ignore("SOLVER.BASE_LR_SCALE_NUM_SHARDS", "NUM_GPUS")
    if (norm := given.number("SOLVER.CLIP_GRAD_L2NORM")) is not None:
        yield ForeignChoice("trainer.clip_grad", norm, "SOLVER.CLIP_GRAD_L2NORM")
    if (period := given.count("TRAIN.EVAL_PERIOD")) is not None:
        yield ForeignChoice("trainer.val_every", period, "TRAIN.EVAL_PERIOD")
    batches = given.count("BN.NUM_BATCHES_PRECISE") or 200
    if given.get("BN.USE_PRECISE_STATS") is True:
        yield ForeignChoice("trainer.precise_bn", batches, "BN.USE_PRECISE_STATS")
    if given.get("BN.NORM_TYPE") == "sync_batchnorm":
        yield ForeignChoice("trainer.sync_bn", True, "BN.NORM_TYPE: sync_batchnorm")
    if (seed := given.number("RNG_SEED")) is not None and seed >= 0:
        yield ForeignChoice("trainer.seed", int(seed), "RNG_SEED")


def _test(given: Foreign) -> Iterator[ForeignChoice]:
    offset = given.get("DATA.USE_OFFSET_SAMPLING") is True
    sparse = given.get("DATA.INV_UNIFORM_SAMPLE") is True
    if not sparse:  # of which PySlowFast's rule is its own
        yield ForeignChoice("/eval", "pyslowfast_offset" if offset else "pyslowfast", "whose configuration this is")
    if (clips := given.count("TEST.NUM_ENSEMBLE_VIEWS")) is not None:
        yield ForeignChoice("eval.clips", clips, "TEST.NUM_ENSEMBLE_VIEWS")
    if (crops := given.count("TEST.NUM_SPATIAL_CROPS")) is not None:
        yield ForeignChoice("eval.crops", crops, "TEST.NUM_SPATIAL_CROPS")
