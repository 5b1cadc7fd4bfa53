"""Model families: the site map, the loader and the sliced class of each."""

from collections.abc import Mapping

from upop_ray.errors import ConfigError
from upop_ray.models import clip, segmenter, siglip, vit
from upop_ray.models.blip import caption, nlvr, retrieval, vqa
from upop_ray.models.spec import ModelSpec

MODELS: Mapping[str, ModelSpec] = {
    "clip": clip.SPEC,
    "siglip": siglip.SPEC,
    "vit": vit.SPEC,
    "blip_retrieval": retrieval.SPEC,
    "blip_caption": caption.SPEC,
    "blip_vqa": vqa.SPEC,
    "blip_nlvr": nlvr.SPEC,
    "segmenter": segmenter.SPEC,
}


def family(name: str, task: str) -> ModelSpec:
    """The family of ``model.family``, if it serves the task.

    :raises ConfigError: there is no such family, or it is for other tasks
    """
    if name not in MODELS:
        raise ConfigError("model.family", f"no such family, got {name!r}", f"use one of {', '.join(MODELS)}")
    spec = MODELS[name]
    if task not in spec.tasks:
        serving = [other for other, found in MODELS.items() if task in found.tasks]
        problem = f"{task!r} is nothing that model.family {name!r} does"
        raise ConfigError(
            "task.name", problem, f"use {' or '.join(MODELS[name].tasks)}, or family {', '.join(serving)}"
        )
    return spec


def register() -> None:
    """Make the sliced models known to the Auto classes of transformers."""
    for module in (clip, siglip, vit, retrieval, caption, vqa, nlvr, segmenter):
        module.register()


register()
