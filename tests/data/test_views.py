"""What models see of images: the published evaluation by hand, and views that depend on their place alone."""

import io
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from tests.datasets import drawing
from upop_ray.data.images import Preprocessing
from upop_ray.data.order import Cursor, Order
from upop_ray.data.pictures import HeldPictures
from upop_ray.data.rand_augment import RandAugment
from upop_ray.data.views import BLIP_VIEWS, BlipPhotographs, DeitPhotographs, Drawings, Views

SIZE, ROWS = 16, 12
PREPROCESSING = Preprocessing(SIZE, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
RECIPE = RandAugment(9.0, 0.5)
VIEWS = {
    "blip": BlipPhotographs(PREPROCESSING),
    "deit": DeitPhotographs(PREPROCESSING, RECIPE, 0.5),
    "drawings": Drawings(PREPROCESSING),
    "drawings of a classifier": Drawings(PREPROCESSING, RECIPE, 0.5),
}
#: portrait, landscape, smaller than the model's images
SHAPES = ((20, 50), (60, 24), (5, 4))


@pytest.fixture(params=list(VIEWS))
def views(request: pytest.FixtureRequest) -> Views:
    return VIEWS[request.param]


def pictures_for(views: Views) -> HeldPictures:
    shapes = [(SIZE, SIZE)] if isinstance(views, Drawings) else SHAPES
    return HeldPictures([drawing(row, *shapes[row % len(shapes)]) for row in range(ROWS)], "somewhere")


def test_a_view_depends_on_its_place_alone(views: Views) -> None:
    """Not on the places that are asked for with it, and not on what was asked before."""
    pictures, order = pictures_for(views), Order(ROWS, ROWS, seed=5)
    whole = order.step(Cursor(2)).whole
    everything = views.training(pictures, whole, order.step(Cursor(2)), np.arange(ROWS))
    assert everything.shape == (ROWS, 3, SIZE, SIZE) and everything.dtype == torch.float32
    for places in ([7], [3, 2, 11], [0, 0]):
        some = views.training(pictures, whole[places], order.step(Cursor(2)), np.array(places))
        assert torch.equal(some, everything[places])
    other = views.training(pictures, whole, order.step(Cursor(3)), np.arange(ROWS))
    assert not any(torch.equal(*pair) for pair in zip(other, everything, strict=True))


def test_each_call_draws_anew(views: Views) -> None:
    pictures, step = pictures_for(views), Order(ROWS, ROWS, seed=5).step(Cursor())
    first, second = (views.training(pictures, step.whole, step, np.arange(ROWS)) for _ in range(2))
    # one of them may be changed in the same way twice
    assert sum(torch.equal(*pair) for pair in zip(first, second, strict=True)) <= 1


def test_the_parts_of_an_evaluation_are_the_whole(views: Views) -> None:
    pictures = pictures_for(views)
    whole = views.evaluation(pictures, range(ROWS))
    assert torch.equal(torch.cat([views.evaluation(pictures, part) for part in (range(5), range(5, ROWS))]), whole)


def test_views_travel_to_other_processes(views: Views) -> None:
    assert pickle.loads(pickle.dumps(views)) == views


def test_blip_sees_the_whole_photograph_as_a_square_in_evaluation() -> None:
    """Resize((S, S), bicubic), ToTensor, Normalize."""
    pictures = pictures_for(VIEWS["blip"])
    for row in range(3):
        image = Image.open(io.BytesIO(pictures.contents([row])[0])).convert("RGB")
        pixels = np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BICUBIC)) / 255
        expected = (pixels - np.array(PREPROCESSING.mean)) / np.array(PREPROCESSING.std)
        seen = VIEWS["blip"].evaluation(pictures, [row])[0].permute(1, 2, 0)
        torch.testing.assert_close(seen.double(), torch.from_numpy(expected), atol=1e-6, rtol=0)


def test_blip_flips_half_of_its_photographs_and_comes_back_grey() -> None:
    """Images that grow brighter from left to right, from 150 on: what is darker came in from outside."""
    ramp = np.linspace(150, 255, 64).astype(np.uint8)[None, :, None].repeat(48, 0).repeat(3, 2)
    buffer = io.BytesIO()
    Image.fromarray(ramp).save(buffer, "PNG")
    views = replace(VIEWS["blip"], preprocessing=Preprocessing(SIZE, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)))
    pictures, step = HeldPictures([buffer.getvalue()] * 400, "somewhere"), Order(400, 400, 0).step(Cursor())
    seen = views.training(pictures, np.arange(400), step, np.arange(400))
    flipped = seen[..., : SIZE // 2].mean((1, 2, 3)) > seen[..., SIZE // 2 :].mean((1, 2, 3))
    assert int(flipped.sum()) == pytest.approx(200, abs=50)
    # shear, translation and rotation have half of the ten operations; two are drawn, each applied half of the time
    grey = ((seen * 255).round() == 128).all(1).flatten(1).any(1).float().mean().item()
    assert grey == pytest.approx(1 - 0.75**2, abs=0.1)


def test_each_augmentation_has_its_views() -> None:
    assert BLIP_VIEWS["photographs"](PREPROCESSING) == VIEWS["blip"]
    assert BLIP_VIEWS["drawings"](PREPROCESSING) == VIEWS["drawings"]
