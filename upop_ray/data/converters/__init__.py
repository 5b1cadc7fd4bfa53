"""Published data sets, from the layouts that their owners distribute to rows."""

from upop_ray.data.converters import ade20k, coco, flickr30k, imagefolder, imagenet, jsonl, nlvr2, vqa_v2
from upop_ray.data.converters.base import Converter

CONVERTERS: dict[str, Converter] = {
    converter.name: converter
    for converter in (
        coco.CONVERTER,
        flickr30k.CONVERTER,
        vqa_v2.CONVERTER,
        nlvr2.CONVERTER,
        imagenet.CONVERTER,
        ade20k.CONVERTER,
        imagefolder.CONVERTER,
        jsonl.CONVERTER,
    )
}
