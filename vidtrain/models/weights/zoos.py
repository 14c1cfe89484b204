"""Every layout that published weights are recognised by.

Each file of a family ends in its own LAYOUTS; they are tried in the order of the tuple below.
"""

from __future__ import annotations

from vidtrain.models.weights import (
    davidea_c3d,
    frame_mobilenet,
    hassony2_i3d,
    hiera,
    mit_tsm,
    mmaction2,
    movinet,
    mvit,
    piergiaj_i3d,
    pyslowfast,
    pytorchvideo,
    swin3d,
    timesformer,
    torchvision_s3d,
    torchvision_video,
    uniformerv2,
    videomae,
    vidtrain_resnet,
    vivit,
    vjepa2,
)
from vidtrain.models.weights.layout import Layout

LAYOUTS: tuple[Layout, ...] = (
    *pytorchvideo.LAYOUTS,
    *pyslowfast.LAYOUTS,
    *frame_mobilenet.LAYOUTS,  # before the others of its two zoos
    *mmaction2.LAYOUTS,
    *torchvision_video.LAYOUTS,
    *torchvision_s3d.LAYOUTS,
    *piergiaj_i3d.LAYOUTS,
    *hassony2_i3d.LAYOUTS,
    *davidea_c3d.LAYOUTS,
    *mit_tsm.LAYOUTS,
    *vidtrain_resnet.LAYOUTS,
    *timesformer.LAYOUTS,
    *vivit.LAYOUTS,
    *videomae.LAYOUTS,
    *mvit.LAYOUTS,
    *swin3d.LAYOUTS,
    *vjepa2.LAYOUTS,
    *uniformerv2.LAYOUTS,
    *hiera.LAYOUTS,
    *movinet.LAYOUTS,
)
