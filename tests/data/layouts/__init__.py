"""Small data sets of drawn images, in the layouts and with the annotation schemas of the real ones."""

from tests.data.layouts.captioned import (
    NLVR_PAIRS,
    captions,
    coco_blip,
    coco_karpathy,
    flickr_blip,
    flickr_karpathy,
    json_lines,
    nlvr_blip,
    nlvr_official,
    visual_genome,
    vqa_blip,
    vqa_official,
)
from tests.data.layouts.classified import (
    WNIDS,
    WORDS,
    ade20k,
    image_folder,
    imagenet_flat,
    imagenet_folders,
    imagenet_kaggle,
    imagenet_tars,
)
from tests.data.layouts.files import jpeg, png, write

__all__ = [
    "NLVR_PAIRS",
    "WNIDS",
    "WORDS",
    "ade20k",
    "captions",
    "coco_blip",
    "coco_karpathy",
    "flickr_blip",
    "flickr_karpathy",
    "image_folder",
    "imagenet_flat",
    "imagenet_folders",
    "imagenet_kaggle",
    "imagenet_tars",
    "jpeg",
    "json_lines",
    "nlvr_blip",
    "nlvr_official",
    "png",
    "visual_genome",
    "vqa_blip",
    "vqa_official",
    "write",
]
