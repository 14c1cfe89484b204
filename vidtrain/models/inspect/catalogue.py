"""What is published about each model: the facts behind `vidtrain inspect` and docs/models.md.

Parameters and multiply-adds are not written down here: they are counted on the model itself, at `clip`.
"""

from __future__ import annotations

from dataclasses import dataclass

FUSION, CONV3D, SPLIT, PATHS, FRAMES, ATTENTION = (
    "fusion of frames",
    "3D convolution",
    "space and time apart",
    "two pathways",
    "2D network over segments",
    "attention",
)
RECURRENT = "recurrent"


@dataclass(frozen=True)
class Entry:
    """One model of conf/model."""

    family: str
    paper: str
    clip: tuple[int, int]
    """Frames and pixels of a side that the paper's network sees; for ours, what they are meant for."""
    accuracy: float | None = None
    """Top-1 on Kinetics-400 in percent, as published with weights of this very network."""
    protocol: str = ""
    """How the accuracy was measured: frames x stride, views as clips x crops, and who published it."""


_TRAN15 = "Tran et al. 2015"
_TRAN18 = "Tran et al. 2018"
_TRAN19 = "Tran et al. 2019"
_QUO_VADIS = "Carreira and Zisserman 2017"
_NONLOCAL = "Wang et al. 2018"
_SLOWFAST = "Feichtenhofer et al. 2019"
_X3D = "Feichtenhofer 2020"
_S3D = "Xie et al. 2018"
_TSN = "Wang et al. 2016"
_TSM = "Lin et al. 2019"
_KARPATHY = "Karpathy et al. 2014"
_PSF = "PySlowFast"
_PTV = "PyTorchVideo"
_TV = "16 frames at 15 fps, 5x1, torchvision"
_TIMESFORMER = "Bertasius et al. 2021"
_VIVIT = "Arnab et al. 2021"
_VIDEOMAE = "Tong et al. 2022"
_VIDEOMAE2 = "Wang et al. 2023"
_UNIFORMERV2 = "Li et al. 2022"
_VJEPA2 = "Assran et al. 2025"
_HIERA = "Ryali et al. 2023"
_MOVINET = "Kondratyuk et al. 2021"
_VSWIN = "Liu et al. 2022"
_NJU = "MCG-NJU"
_OPENGV = "OpenGVLab"
_SHI = "Shi et al. 2015"
_NG = "Yue-Hei Ng et al. 2015"
_BALLAS = "Ballas et al. 2016"
_DONAHUE = "Donahue et al. 2015"
_VARIANTS = "document 002, section 3.3"
_SIMONYAN = "Simonyan and Zisserman 2014"
_ST_LSTM = "document 000, section 3.2"
_FULL = (16, 112)
_SMALL = (16, 64)

CATALOGUE: dict[str, Entry] = {
    "single_frame": Entry(FUSION, _KARPATHY, (16, 112)),
    "late_fusion": Entry(FUSION, _KARPATHY, (16, 112)),
    "early_fusion": Entry(FUSION, _KARPATHY, (16, 112)),
    "slow_fusion": Entry(FUSION, _KARPATHY, (16, 112)),
    "c3d": Entry(CONV3D, _TRAN15, (16, 112), 66.6, "from scratch"),
    "i3d": Entry(CONV3D, _QUO_VADIS, (64, 224), 71.1, "RGB, test set, the paper"),
    "i3d_tiny": Entry(CONV3D, _QUO_VADIS, _SMALL),
    "i3d_r50": Entry(CONV3D, _NONLOCAL, (8, 224), 73.5, f"8x8, 10x3, {_PSF}"),
    "i3d_r50_nonlocal": Entry(CONV3D, _NONLOCAL, (8, 224), 74.9, "32 frames, 10 clips, the paper"),
    "i3d_resnet_tiny": Entry(CONV3D, _NONLOCAL, _SMALL),
    "c2d_r50": Entry(FRAMES, _NONLOCAL, (8, 224), 71.46, f"8x8, 10x3, {_PTV}"),
    "slow_r50": Entry(CONV3D, _SLOWFAST, (8, 224), 74.58, f"8x8, 10x3, {_PTV}"),
    "slow_tiny": Entry(CONV3D, _SLOWFAST, _SMALL),
    "r3d_18": Entry(CONV3D, _TRAN18, (16, 112), 63.2, _TV),
    "mc3_18": Entry(CONV3D, _TRAN18, (16, 112), 63.96, _TV),
    "inflated": Entry(CONV3D, _QUO_VADIS, (16, 112)),
    "r2plus1d_18": Entry(SPLIT, _TRAN18, (16, 112), 67.46, _TV),
    "r2plus1d_34": Entry(SPLIT, _TRAN18, (8, 224)),
    "r2plus1d_r50": Entry(SPLIT, _TRAN18, (16, 224), 76.01, f"16x4, 10x3, {_PTV}"),
    "r2plus1d_tiny": Entry(SPLIT, _TRAN18, _SMALL),
    "s3d": Entry(SPLIT, _S3D, (16, 224), 68.4, "128 frames at 15 fps, 1x1, torchvision"),
    "s3d_tiny": Entry(SPLIT, _S3D, _SMALL),
    "s3dg": Entry(SPLIT, _S3D, (16, 224), 74.7, "the paper"),
    "csn_r101": Entry(SPLIT, _TRAN19, (32, 224), 77.0, f"32x2, 10x3, {_PTV}"),
    "csn_tiny": Entry(SPLIT, "document 000, section 4.2", _SMALL),
    "alternating3d": Entry(SPLIT, "document 001, section 3.2.3", _SMALL),
    "x3d_xs": Entry(SPLIT, _X3D, (4, 160), 69.5, f"4x12, 10x3, {_PSF}"),
    "x3d_s": Entry(SPLIT, _X3D, (13, 160), 73.5, f"13x6, 10x3, {_PSF}"),
    "x3d_m": Entry(SPLIT, _X3D, (16, 224), 76.2, f"16x5, 10x3, {_PSF}"),
    "x3d_l": Entry(SPLIT, _X3D, (16, 312), 77.5, f"16x5, 10x3, {_PSF}"),
    "x3d_tiny": Entry(SPLIT, _X3D, _SMALL),
    "movinet_a0": Entry(SPLIT, _MOVINET, (50, 172)),
    "movinet_a1": Entry(SPLIT, _MOVINET, (50, 172)),
    "movinet_a2": Entry(SPLIT, _MOVINET, (50, 224)),
    "movinet_tiny": Entry(SPLIT, _MOVINET, _SMALL),
    "movinet_a0_stream": Entry(SPLIT, _MOVINET, (50, 172)),
    "movinet_a1_stream": Entry(SPLIT, _MOVINET, (50, 172)),
    "movinet_a2_stream": Entry(SPLIT, _MOVINET, (50, 224)),
    "movinet_tiny_stream": Entry(SPLIT, _MOVINET, _SMALL),
    "slowfast_4x16_r50": Entry(PATHS, _SLOWFAST, (32, 224), 75.6, f"4x16, 10x3, {_PSF}"),
    "slowfast_r50": Entry(PATHS, _SLOWFAST, (32, 224), 77.0, f"8x8, 10x3, {_PSF}"),
    "slowfast_r101": Entry(PATHS, _SLOWFAST, (32, 224), 77.9, f"8x8, 10x3, {_PTV}"),
    "slowfast_tiny": Entry(PATHS, _SLOWFAST, _SMALL),
    "two_stream": Entry(PATHS, _SIMONYAN, (11, 224)),
    "two_stream_tiny": Entry(PATHS, _SIMONYAN, _SMALL),
    "timm_frames": Entry(FRAMES, "Wightman 2019", (8, 224)),
    "tsn_r50": Entry(FRAMES, _TSN, (8, 224), 70.6, "8x8, 10x3, mit-han-lab"),
    "tsn_tiny": Entry(FRAMES, _TSN, _SMALL),
    "tsm_r50": Entry(FRAMES, _TSM, (8, 224), 74.1, "8x8, 10x3, mit-han-lab"),
    "tsm_tiny": Entry(FRAMES, _TSM, _SMALL),
    "cnn_lstm": Entry(RECURRENT, _DONAHUE, _FULL),
    "cnn_lstm_tiny": Entry(RECURRENT, _DONAHUE, _SMALL),
    "feature_rnn": Entry(RECURRENT, _NG, (64, 112)),
    "feature_rnn_tiny": Entry(RECURRENT, _NG, _SMALL),
    "rcn": Entry(RECURRENT, _BALLAS, _FULL),
    "rcn_tiny": Entry(RECURRENT, _BALLAS, _SMALL),
    "convlstm": Entry(RECURRENT, _SHI, _FULL),
    "convlstm_tiny": Entry(RECURRENT, _SHI, _SMALL),
    "convlstm_deformable": Entry(RECURRENT, _VARIANTS, _FULL),
    "convlstm_deformable_tiny": Entry(RECURRENT, _VARIANTS, _SMALL),
    "convlstm_attention": Entry(RECURRENT, _VARIANTS, _FULL),
    "convlstm_attention_tiny": Entry(RECURRENT, _VARIANTS, _SMALL),
    "convlstm_dilated": Entry(RECURRENT, _VARIANTS, _FULL),
    "convlstm_dilated_tiny": Entry(RECURRENT, _VARIANTS, _SMALL),
    "convlstm_hierarchical": Entry(RECURRENT, _VARIANTS, _FULL),
    "convlstm_hierarchical_tiny": Entry(RECURRENT, _VARIANTS, _SMALL),
    "st_lstm": Entry(RECURRENT, _ST_LSTM, _FULL),
    "st_lstm_tiny": Entry(RECURRENT, _ST_LSTM, _SMALL),
    "timesformer": Entry(ATTENTION, _TIMESFORMER, (8, 224), 77.9, "8x32, 1x3, facebookresearch"),
    "timesformer_tiny": Entry(ATTENTION, _TIMESFORMER, _SMALL),
    "vivit": Entry(ATTENTION, _VIVIT, (32, 224), 79.9, "32x2, 4x3, Scenic"),
    "vivit_fe": Entry(ATTENTION, _VIVIT, (32, 224), 78.4, "32x2, 4x3, Scenic"),
    "vivit_tiny": Entry(ATTENTION, _VIVIT, _SMALL),
    "videomae_vit_s": Entry(ATTENTION, _VIDEOMAE, (16, 224), 79.0, f"16x4, 5x3, {_NJU}"),
    "videomae_vit_b": Entry(ATTENTION, _VIDEOMAE, (16, 224), 81.5, f"16x4, 5x3, {_NJU}"),
    "videomae_vit_l": Entry(ATTENTION, _VIDEOMAE, (16, 224), 85.2, f"16x4, 5x3, {_NJU}"),
    "videomae_vit_h": Entry(ATTENTION, _VIDEOMAE, (16, 224), 86.6, f"16x4, 5x3, {_NJU}"),
    "videomaev2_vit_s": Entry(ATTENTION, _VIDEOMAE2, (16, 224), 83.7, f"distilled, 16x4, 5x3, {_OPENGV}"),
    "videomaev2_vit_b": Entry(ATTENTION, _VIDEOMAE2, (16, 224), 86.6, f"distilled, 16x4, 5x3, {_OPENGV}"),
    "videomaev2_vit_g": Entry(ATTENTION, _VIDEOMAE2, (16, 224), 87.2, f"16x4, 5x3, {_OPENGV}"),
    "videomae_tiny": Entry(ATTENTION, _VIDEOMAE, _SMALL),
    "vjepa2_vit_l": Entry(ATTENTION, _VJEPA2, (16, 256)),
    "vjepa2_vit_h": Entry(ATTENTION, _VJEPA2, (16, 256)),
    "vjepa2_vit_g": Entry(ATTENTION, _VJEPA2, (16, 256)),
    "vjepa21_vit_b": Entry(ATTENTION, _VJEPA2, (16, 256)),
    "vjepa21_vit_l": Entry(ATTENTION, _VJEPA2, (16, 256)),
    "vjepa2_tiny": Entry(ATTENTION, _VJEPA2, _SMALL),
    "uniformerv2_b16": Entry(ATTENTION, _UNIFORMERV2, (8, 224), 85.6, f"through K710, 8 segments, 4x3, {_OPENGV}"),
    "uniformerv2_l14": Entry(ATTENTION, _UNIFORMERV2, (8, 224), 88.8, f"through K710, 8 segments, 4x3, {_OPENGV}"),
    "uniformerv2_b16_ssv2": Entry(ATTENTION, _UNIFORMERV2, (16, 224)),
    "uniformerv2_tiny": Entry(ATTENTION, _UNIFORMERV2, _SMALL),
    "hiera_b": Entry(ATTENTION, _HIERA, (16, 224), 84.0, f"16x4, 5x3, {_PSF}"),
    "hiera_b_plus": Entry(ATTENTION, _HIERA, (16, 224), 85.0, f"16x4, 5x3, {_PSF}"),
    "hiera_l": Entry(ATTENTION, _HIERA, (16, 224), 87.3, f"16x4, 5x3, {_PSF}"),
    "hiera_h": Entry(ATTENTION, _HIERA, (16, 224), 87.8, f"16x4, 5x3, {_PSF}"),
    "hiera_tiny": Entry(ATTENTION, _HIERA, _SMALL),
    "mvit_v1_b": Entry(ATTENTION, "Fan et al. 2021", (16, 224), 78.4, f"16x4, 5x1, {_PSF}"),
    "mvit_v2_s": Entry(ATTENTION, "Li et al. 2022", (16, 224), 81.0, f"16x4, 5x1, {_PSF}"),
    "swin3d_t": Entry(ATTENTION, _VSWIN, (16, 224), 78.8, "32x2, 4x3, the paper"),
    "swin3d_s": Entry(ATTENTION, _VSWIN, (16, 224), 80.6, "32x2, 4x3, the paper"),
    "swin3d_b": Entry(ATTENTION, _VSWIN, (16, 224), 80.6, "32x2, 4x3, the paper"),
}
"""Name in conf/model -> what is known; the order is that of the table."""
