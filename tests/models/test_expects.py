"""What a published file's network was trained to see: the facts of each zoo, and the options that they become."""

from __future__ import annotations

import pytest
import torchvision.models.video as tv

from vidtrain.data.settings import SamplerConfig, TransformConfig
from vidtrain.models.weights.expected_clips import IMAGENET, Expects, clips
from vidtrain.models.weights.layout import Layout
from vidtrain.models.weights.recognise import LAYOUTS


def layout(name: str) -> Layout:
    return next(layout for layout in LAYOUTS if layout.name == name)


@pytest.mark.parametrize(
    ("name", "model", "weights"),
    [
        ("torchvision video ResNet", "r3d_18", tv.R3D_18_Weights),
        ("torchvision video ResNet", "mc3_18", tv.MC3_18_Weights),
        ("torchvision video ResNet", "r2plus1d_18", tv.R2Plus1D_18_Weights),
        ("torchvision S3D", "s3d", tv.S3D_Weights),
        ("torchvision MViT", "mvit_v1_b", tv.MViT_V1_B_Weights),
        ("torchvision MViT", "mvit_v2_s", tv.MViT_V2_S_Weights),
        ("torchvision Video Swin", "swin3d_t", tv.Swin3D_T_Weights),
        ("torchvision Video Swin", "swin3d_b", tv.Swin3D_B_Weights),
    ],
)
def test_torchvisions_files_expect_what_its_own_transforms_do(name: str, model: str, weights: type) -> None:
    expects, entry = layout(name).expects(model, {}), weights.KINETICS400_V1  # type: ignore[attr-defined]
    own = entry.transforms()
    assert (list(expects.mean or ()), list(expects.std or ())) == (own.mean, own.std)
    assert [expects.size] * 2 == own.crop_size
    resize = expects.resize
    assert own.resize_size == ([resize] if isinstance(resize, int) else [int(n) for n in str(resize).split("x")])
    for said in (f"clip_len={expects.num_frames}", f"frame_rate={expects.fps:g}"):
        assert said in entry.meta["_docs"].replace("`", "")


def test_every_published_layout_knows_its_colours() -> None:
    without = {lay.name for lay in LAYOUTS if lay.expects("slow_r50", {}).mean is None}
    assert without <= {
        "torchvision image ResNet",
        "vidtrain 3D ResNet",
        "mit-han-lab TSN/TSM on BN-Inception",
    }


@pytest.mark.parametrize(
    ("name", "model", "options", "said"),
    [
        ("PyTorchVideo", "x3d_s", {}, "13 frames every 6 of the source, scaled to a short side of 182, crops of 182"),
        ("PySlowFast", "slowfast_r50", {}, "32 frames every 2 of the source, scaled to a short side of 256"),
        ("MMAction2", "csn_r101", {}, "mean 0.4322 0.3947 0.3765"),
        ("MMAction2", "slow_r50", {}, "mean 0.485 0.456 0.406, std 0.229 0.224 0.225, tested as by eval=mmaction2"),
        ("piergiaj I3D", "i3d", {}, "mean 0.5 0.5 0.5, std 0.5 0.5 0.5"),
        ("DavideA C3D", "c3d", {}, "scaled to 112x200, crops of 112, mean 0 0 0, std 0.003922"),
        ("mit-han-lab TSN/TSM", "tsm_r50", {"num_classes": 400}, "8 frames over 64 of the source"),
        ("mit-han-lab TSN/TSM", "tsm_r50", {"num_classes": 174}, "8 segments"),
        ("mit-han-lab TSN/TSM on MobileNetV2", "tsm_mobilenet_v2", {"num_classes": 400}, "8 frames over 64 of the"),
        ("MMAction2 TSN/TSM on MobileNetV2", "tsm_mobilenet_v2", {"num_classes": 400}, "8 segments, scaled to a short"),
        ("facebookresearch TimeSformer", "timesformer", {"num_frames": 96}, "96 frames every 4 of the source"),
        ("MMAction2 TimeSformer", "timesformer", {}, "mean 0.5 0.5 0.5"),
        ("facebookresearch Hiera", "hiera_l", {"num_frames": 16}, "16 frames every 4 of the source, scaled to a short"),
        ("MoViNet-pytorch", "movinet_a2_stream", {}, "50 frames at 5 fps, scaled to a short side of 224, crops of 224"),
        ("MoViNet-pytorch", "movinet_a0", {}, "crops of 172, mean 0 0 0, std 1 1 1"),
        ("Hugging Face V-JEPA 2", "vjepa2_vit_l", {"num_classes": 48}, "32 frames every 2 of the source"),
    ],
)
def test_facts_of_the_zoos(name: str, model: str, options: dict[str, int], said: str) -> None:
    assert said in layout(name).expects(model, options).to_text()


def test_flow_nets_have_no_colours() -> None:
    assert layout("piergiaj I3D").expects("i3d", {"in_channels": 2}).mean is None
    assert layout("mit-han-lab TSN/TSM").expects("tsn_r50", {"in_channels": 10}).mean is None


def test_they_become_options_that_there_are() -> None:
    """Whatever rate a file is for takes back the others, so that no default is left beside it."""
    for lay in LAYOUTS:
        options = lay.expects("slow_r50", {}).options()
        TransformConfig(**options["transform"])
        SamplerConfig(**options["sampler"])
    assert clips(8, 4, 224).options()["sampler"] == {
        "mode": "clip",
        "fps": None,
        "window": None,
        "num_frames": 8,
        "stride": 4,
    }
    assert Expects(fps=12.0, protocol="tsm").options() == {
        "transform": {},
        "sampler": {"mode": "clip", "fps": 12.0, "window": None},
    }
    assert IMAGENET.options()["transform"]["mean"] == [0.485, 0.456, 0.406]
    assert (IMAGENET | Expects(size=5, mean=(0.0, 0.0, 0.0))).known() == {
        "mean": (0.0, 0.0, 0.0),
        "std": (0.229, 0.224, 0.225),
        "size": 5,
    }
