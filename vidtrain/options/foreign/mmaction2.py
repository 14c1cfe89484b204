"""A Python configuration of MMAction2, parsed and not executed, in vidtrain's options.

Source of the names and of what they do: open-mmlab/mmaction2, configs/recognition and mmaction/datasets/transforms
(4d6c9347).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from vidtrain.errors import ConfigError
from vidtrain.options.foreign.mmaction2_training import training
from vidtrain.options.foreign.reading import Foreign, ForeignChoice, are_numbers, is_number

_OF_ITS_OWN: Final = (
    *("default_scope", "default_hooks", "env_cfg", "log_processor", "vis_backends", "visualizer", "log_level"),
    *("resume", "dataset_type", "file_client_args", "val_pipeline", "val_dataloader", "val_evaluator"),
    *("test_evaluator", "val_cfg", "test_cfg", "data_root", "data_root_val", "ann_file_train", "ann_file_val"),
    *("ann_file_test", "split", "base_lr", "train_cfg.type", "train_cfg.val_begin", "model.type", "model.test_cfg"),
    *("model.train_cfg", "model.cls_head", "model.data_preprocessor", "preprocess_cfg", "train_dataloader"),
    *("test_dataloader", "num_frames", "num_classes"),
)
_NO_OPERATION: Final = (
    *("DecordInit", "DecordDecode", "PyAVInit", "PyAVDecode", "OpenCVInit", "OpenCVDecode", "RawFrameDecode"),
    *("FormatShape", "PackActionInputs", "CenterCrop", "ThreeCrop", "TenCrop", "Normalize", "Collect", "ToTensor"),
)
_NUMBERS_OF: Final = {
    "Resize": ("scale",),
    "RandomCrop": ("size",),
    "RandomRescale": ("scale_range",),
    "RandomResizedCrop": ("area_range",),
    "MultiScaleCrop": ("scales",),
    "Flip": ("flip_ratio",),
    "RandAugment": ("magnitude", "num_layers"),
    "RandomErasing": ("erase_prob",),
    "ColorJitter": ("brightness",),
}
"""Of an operation, what is read as a number, or as several."""
_SWINS: Final = {"tiny": "swin3d_t", "small": "swin3d_s", "base": "swin3d_b"}
_VITS: Final = {384: "videomae_vit_s", 768: "videomae_vit_b", 1024: "videomae_vit_l", 1280: "videomae_vit_h"}


def is_mmaction2(values: dict[str, Any]) -> bool:
    return isinstance(values.get("model"), dict) and any(key.endswith(("_pipeline", "_dataloader")) for key in values)


def convert(given: Foreign, name: str) -> Iterator[ForeignChoice]:
    """The choices and keys of an experiment, in reading order.

    name: of the file, of which `8xb16` says how many GPUs have how many clips each.

    Raises:
        ConfigError: a network that the catalogue has not.
    """
    given.ignore(*_OF_ITS_OWN)
    yield from _data(given)
    yield from _model(given)
    yield from _training_clip(given)
    yield from training(given, name)
    yield from _test(given)


def _data(given: Foreign) -> Iterator[ForeignChoice]:
    train = given.get("train_dataloader.dataset") or {}
    while isinstance(train, dict) and isinstance(train.get("dataset"), dict):  # RepeatDataset
        train = train["dataset"]
    file = train.get("ann_file") if isinstance(train, dict) else None
    if not isinstance(file, str):
        return
    yield ForeignChoice("/data", "list", "train_dataloader.dataset")
    if root := _root(train):
        yield ForeignChoice("data.root", root, "train_dataloader.dataset.data_prefix")
    yield ForeignChoice("data.train", file, "train_dataloader.dataset.ann_file")
    test = given.get("test_dataloader.dataset") or given.get("val_dataloader.dataset")
    if isinstance(test, dict) and isinstance(test.get("ann_file"), str):
        if (other := _root(test)) != root:
            key = "test_dataloader.dataset.data_prefix"
            given.refused[key] = f"{other}: there is one data.root, from which data.test has to name its videos, too"
        yield ForeignChoice("data.test", test["ann_file"], "test_dataloader.dataset.ann_file")


def _root(dataset: Mapping[str, Any]) -> str | None:
    """The folder that the paths of a dataset's list start from."""
    prefix = dataset.get("data_prefix")
    return next((path for path in prefix.values() if isinstance(path, str)), None) if isinstance(prefix, dict) else None


def _model(given: Foreign) -> Iterator[ForeignChoice]:
    kind = given.get("model.backbone.type")
    name = _catalogue_name(str(kind), given)
    depth = given.count("model.backbone.depth")
    if name == "slowfast_r50" and given.number("model.backbone.slow_pathway.depth") == 101:
        name = "slowfast_r101"
    yield ForeignChoice("/model", name, f"model.backbone.type: {kind}")
    if depth is not None and depth != 50 and name in ("tsn_r50", "tsm_r50"):
        yield ForeignChoice("model.backbone", f"resnet{depth:g}", "model.backbone.depth")
    elif depth is not None and depth != 50 and name in ("c2d_r50", "i3d_r50", "i3d_r50_nonlocal", "slow_r50"):
        yield ForeignChoice("model.depth", depth, "model.backbone.depth")
    if (share := given.number("model.cls_head.dropout_ratio")) is not None:
        yield ForeignChoice("model.dropout", share, "model.cls_head.dropout_ratio")
    if (share := given.number("model.backbone.drop_path_rate")) is not None and name.startswith(
        ("swin", "mvit", "video")
    ):
        yield ForeignChoice("model.drop_path", share, "model.backbone.drop_path_rate")
    start, file = given.get("model.backbone.pretrained"), given.get("load_from")
    if isinstance(file, str) and file:
        yield ForeignChoice("model.weights", file, "load_from")
    elif isinstance(start, str) and _starts_frames(start, name):
        yield ForeignChoice("model.pretrained", "imagenet", f"model.backbone.pretrained: {start}; a download")
    elif isinstance(start, str) and "resnet" in start:
        net = f"resnet{depth or 50:g}"
        yield ForeignChoice("model.inflate_from", net, f"model.backbone.pretrained: {start}; a download")
    elif isinstance(start, str) and start:
        given.values["start"] = f"{start}: download it, then model.weights=FILE or model.inflate_from=FILE"
    given.ignore("model.backbone")
    preprocessor = given.get("model.data_preprocessor") or {}
    for key in ("mean", "std"):
        colours = preprocessor.get(key) if isinstance(preprocessor, dict) else None
        if isinstance(colours, list) and are_numbers(colours):
            scaled = [round(number / 255, 6) for number in colours]
            yield ForeignChoice(f"transform.{key}", scaled, f"model.data_preprocessor.{key}, which is of 0 to 255")
        elif colours is not None:
            given.refused[f"model.data_preprocessor.{key}"] = colours


def _starts_frames(start: str, name: str) -> bool:
    """Whether an image network's weights are those of the backbone of a TSN or TSM."""
    return ("resnet" in start and name in ("tsn_r50", "tsm_r50")) or (
        "mobilenet_v2" in start and name == "tsm_mobilenet_v2"
    )


def _catalogue_name(kind: str, given: Foreign) -> str:
    depth = given.count("model.backbone.depth")
    arch, width = str(given.get("model.backbone.arch")), given.number("model.backbone.embed_dims")
    nonlocal_blocks = given.get("model.backbone.non_local")
    names = {
        "ResNet": "tsn_r50",
        "ResNetTSM": "tsm_r50",
        "MobileNetV2TSM": "tsm_mobilenet_v2",
        "ResNet3dSlowOnly": "slow_r50",
        "ResNet3d": "i3d_r50_nonlocal" if nonlocal_blocks else "i3d_r50",
        "ResNet3dSlowFast": "slowfast_r50" if given.number("model.backbone.speed_ratio") == 4 else "slowfast_4x16_r50",
        "C2D": "c2d_r50",
        "C3D": "c3d",
        "X3D": "x3d_m" if _clip(given, "train_pipeline").get("clip_len") != 13 else "x3d_s",
        "TimeSformer": "timesformer",
        "UniFormerV2": "uniformerv2_l14" if given.number("model.backbone.width") == 1024 else "uniformerv2_b16",
    }
    if kind == "ResNet2Plus1d":
        names[kind] = "r2plus1d_34" if depth == 34 else "r2plus1d_r50"
    if kind == "ResNet3dCSN" and depth == 101:
        names[kind] = "csn_r101"
    if kind == "SwinTransformer3D" and arch in _SWINS:
        names[kind] = _SWINS[arch]
    if kind == "MViT" and arch == "small":
        names[kind] = "mvit_v2_s"
    if kind == "VisionTransformer" and width in _VITS:
        names[kind] = _VITS[int(width or 0)]
    if kind not in names:
        said = "" if depth is None else f", depth {depth:g}"
        said += "" if arch == "None" else f", arch {arch}"
        raise ConfigError(f"model.backbone.type: {kind}{said}: not in the catalogue; vidtrain inspect lists the models")
    return names[kind]


def _steps(given: Foreign, pipeline: str) -> list[dict[str, Any]]:
    """The operations of a pipeline; wrappers of one show what they wrap."""
    steps = given.get(pipeline)
    if steps is None:
        steps = given.get(f"{pipeline.replace('_pipeline', '_dataloader')}.dataset.pipeline")
    return [step for step in steps if isinstance(step, dict)] if isinstance(steps, list) else []


def _clip(given: Foreign, pipeline: str) -> dict[str, Any]:
    kinds = ("SampleFrames", "DenseSampleFrames", "UniformSample", "UniformSampleFrames")
    return next((step for step in _steps(given, pipeline) if step.get("type") in kinds), {})


def _training_clip(given: Foreign) -> Iterator[ForeignChoice]:
    clip = _clip(given, "train_pipeline") or _clip(given, "test_pipeline")
    frames, clips, stride = (
        given.counted(f"{clip.get('type')}.{key}", clip.get(key, 1))
        for key in ("clip_len", "num_clips", "frame_interval")
    )
    if frames is None or clips is None or stride is None:
        pass  # said among what is not taken over
    elif clip.get("type") in ("UniformSample", "UniformSampleFrames") or frames == 1:
        yield ForeignChoice("/sampler", "segments", f"{clip.get('type')}: a frame of each part of the video")
        yield ForeignChoice("sampler.num_frames", frames if frames > 1 else clips, "clip_len or num_clips of it")
    elif clip:
        yield ForeignChoice("sampler.num_frames", frames, f"{clip.get('type')}.clip_len")
        yield ForeignChoice("sampler.stride", stride, f"{clip.get('type')}.frame_interval")
    unknown = []
    for step in _steps(given, "train_pipeline"):
        kind = str(step.get("type"))
        kind = f"{kind}.{step.get('op')}" if "op" in step else kind
        odd = [
            f"{key}={step[key]}" for key in _NUMBERS_OF.get(kind.rpartition(".")[2], ()) if not _is_read(step.get(key))
        ]
        found = [] if odd else list(_operation(kind, step))
        known = found or kind in _NO_OPERATION or step is clip
        unknown += [] if known else [" ".join([kind, *odd])]
        yield from found
    if unknown:
        given.values["train_pipeline"] = f"the operations {', '.join(unknown)}"
        given.read.discard("train_pipeline")
    given.ignore("test_pipeline")


def _is_read(value: Any) -> bool:
    return value is None or is_number(value) or are_numbers(value)


def _operation(kind: str, step: dict[str, Any]) -> Iterator[ForeignChoice]:
    scale = step.get("scale")
    if kind == "Resize" and isinstance(scale, list) and len(scale) == 2:
        if scale[0] == -1:
            yield ForeignChoice("transform.resize", int(scale[1]), "Resize.scale of the training")
        elif scale[0] == scale[1]:
            yield ForeignChoice("transform.size", int(scale[0]), "Resize.scale after the crop")
    if kind == "RandomCrop" and isinstance(step.get("size"), int):
        yield ForeignChoice("transform.size", step["size"], "RandomCrop.size")
    if kind == "RandomRescale" and isinstance(step.get("scale_range"), list) and len(step["scale_range"]) == 2:
        low, high = step["scale_range"]
        yield ForeignChoice("transform.resize", int(low), "RandomRescale.scale_range")
        yield ForeignChoice("transform.resize_max", int(high), "RandomRescale.scale_range")
    if kind == "RandomResizedCrop":
        yield ForeignChoice("transform.crop", "resized", "RandomResizedCrop")
        yield ForeignChoice("transform.area", step.get("area_range") or [0.08, 1.0], "RandomResizedCrop.area_range")
    if kind == "MultiScaleCrop":
        scales = step.get("scales") or 1
        smallest = min(scales) if isinstance(scales, list) else scales
        yield ForeignChoice("transform.crop", "resized", "MultiScaleCrop, whose crops are of any size and place here")
        yield ForeignChoice("transform.area", [round(smallest**2, 3), 1.0], "MultiScaleCrop.scales")
    if kind == "Flip" and (share := step.get("flip_ratio", 0.5)) != 0.5:
        yield ForeignChoice("transform.flip", share, "Flip.flip_ratio")
    elif kind == "Flip":
        yield ForeignChoice("transform.flip", 0.5, "Flip")
    if kind.endswith("RandAugment"):
        yield ForeignChoice("transform.policy", "rand_augment", kind)
        for key, name in (("magnitude", "magnitude"), ("num_ops", "num_layers")):
            if isinstance(step.get(name), int):
                yield ForeignChoice(f"transform.{key}", step[name], f"{kind}.{name}")
    if kind == "RandomErasing":
        yield ForeignChoice("transform.erasing", step.get("erase_prob", 0.5), "RandomErasing.erase_prob")
    if kind == "ColorJitter":
        yield ForeignChoice("transform.colour", step.get("brightness", 0.5), "ColorJitter.brightness")


def _test(given: Foreign) -> Iterator[ForeignChoice]:
    clip = _clip(given, "test_pipeline")
    if not clip:
        return
    uniform = clip.get("type") in ("UniformSample", "UniformSampleFrames")
    yield ForeignChoice("/eval", "mmaction2_uniform" if uniform else "mmaction2", "whose configuration this is")
    kind = clip.get("type")
    frames = given.counted(f"test_pipeline: {kind}.clip_len", clip.get("clip_len", 1))
    clips = given.counted(f"test_pipeline: {kind}.num_clips", clip.get("num_clips", 1))
    if frames is not None and clips is not None:
        views = clips if frames > 1 else 1 + bool(clip.get("twice_sample"))
        yield ForeignChoice("eval.clips", views, f"test_pipeline: {kind}")
    kinds = [step.get("type") for step in _steps(given, "test_pipeline")]
    crops = 3 if "ThreeCrop" in kinds else 10 if "TenCrop" in kinds else 1
    yield ForeignChoice("eval.crops", crops, "test_pipeline: ThreeCrop, TenCrop or CenterCrop")
