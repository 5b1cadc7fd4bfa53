"""Published models with random weights have the sizes of the paper's tables (ALGORITHM, section 5)."""

import pytest
import torch
from transformers import PreTrainedModel

from upop_ray.models import MODELS
from upop_ray.models.spec import Size
from upop_ray.pruning.cost import count_macs, count_parameters

#: family, published size, parameters of the reference (millions, as printed), multiply-accumulates of the reference;
#: without gates, and as the tables count them
PUBLISHED = [
    ("blip_retrieval", "base", 447.487e6, 153.24e9),
    ("blip_caption", "base", 223.972e6, 65.72e9),
    ("blip_vqa", "base", 361.479e6, 186.12e9),
    ("blip_nlvr", "base", 259.372e6, 132.54e9),
    ("segmenter", "small", 26.419e6, 38.62e9),
    ("clip", "large-14-336", 855.888e6, 395.70e9),
    ("vit", "small", 22.051e6, 4.608e9),
]
#: the same of one example, as other projects publish them: open_clip's profile of its models, torchvision's vit_b_16
#: and vit_l_16
ELSEWHERE = [
    ("clip", "base-32", 151.28e6, 14.78e9 / 2),
    ("clip", "base-16", 149.62e6, 41.09e9 / 2),
    ("siglip", "base-16", 203.16e6, 46.44e9 / 2),
    ("siglip", "base-16-384", 203.45e6, 123.15e9 / 2),
    ("vit", "base", 86.57e6, 17.56e9),
    ("vit", "large", 304.33e6, 61.55e9),
]
#: the reference counts layer norms too
MACS_TOLERANCE = 0.005


def published(family: str, size: str) -> PreTrainedModel:
    """Built on the meta device, where nothing is allocated or computed."""
    with torch.device("meta"):
        model = MODELS[family].published[size]()
    model.set_attn_implementation("eager")
    return model


def counted_size(family: str, size: str) -> Size:
    paper_size = MODELS[family].paper_size
    return example_size(family, size) if paper_size is None else paper_size(published(family, size))


def example_size(family: str, size: str) -> Size:
    model = published(family, size)
    return Size(count_parameters(model), count_macs(model, MODELS[family].example(model)), "one example")


@pytest.mark.parametrize(("family", "size", "parameters", "macs"), PUBLISHED)
def test_size_is_that_of_the_paper(family: str, size: str, parameters: float, macs: float) -> None:
    found = counted_size(family, size)
    assert round(found.parameters, -3) == parameters
    assert found.macs == pytest.approx(macs, rel=MACS_TOLERANCE)


@pytest.mark.parametrize(("family", "size", "parameters", "macs"), ELSEWHERE)
def test_size_is_that_of_other_projects(family: str, size: str, parameters: float, macs: float) -> None:
    found = example_size(family, size)
    assert round(found.parameters, -4) == parameters
    assert found.macs == pytest.approx(macs, rel=MACS_TOLERANCE)
