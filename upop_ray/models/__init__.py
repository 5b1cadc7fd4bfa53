"""Model families: the site map, the loader and the sliced class of each."""

from collections.abc import Mapping

from upop_ray.models import clip
from upop_ray.models.spec import ModelSpec

MODELS: Mapping[str, ModelSpec] = {"clip": clip.SPEC}


def register() -> None:
    """Make the sliced models known to the Auto classes of transformers."""
    clip.register()
