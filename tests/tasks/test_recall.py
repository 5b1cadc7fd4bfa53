import pytest
import torch

from upop_ray.tasks.recall import recalls


def test_hand_computed() -> None:
    # images 0 and 1 with two captions each, image 2 with one
    owner = torch.tensor([0, 0, 1, 1, 2])
    similarity = torch.tensor(
        [
            [0.1, 0.9, 0.8, 0.0, 0.2],  # the best own caption is first: rank 1
            [0.7, 0.6, 0.5, 0.1, 0.0],  # two captions of image 0 before the best own one: rank 3
            [0.9, 0.8, 0.7, 0.6, 0.5],  # four before it: rank 5
        ]
    )
    found = recalls(similarity, owner)
    third = 100 / 3
    assert found["image_to_text_r1"] == pytest.approx(third)
    assert found["image_to_text_r5"] == found["image_to_text_r10"] == pytest.approx(100)
    # captions by their column: ranks 3, 1, 3, 2, 1
    assert found["text_to_image_r1"] == pytest.approx(40)
    assert found["text_to_image_r5"] == found["text_to_image_r10"] == pytest.approx(100)
    assert found["r_mean"] == pytest.approx((third + 100 + 100 + 40 + 100 + 100) / 6)


def test_ranks_at_the_borders_of_5_and_10() -> None:
    # one caption an image; image i has exactly i better captions of others
    images = 12
    similarity = -torch.eye(images)
    for row in range(images):
        others = [column for column in range(images) if column != row]
        similarity[row, others] = -2.0
        similarity[row, others[:row]] = 1.0
    found = recalls(similarity, torch.arange(images))
    assert found["image_to_text_r1"] == pytest.approx(100 * 1 / 12)
    assert found["image_to_text_r5"] == pytest.approx(100 * 5 / 12)
    assert found["image_to_text_r10"] == pytest.approx(100 * 10 / 12)


def test_equal_similarities_count_against_the_model() -> None:
    found = recalls(torch.zeros(20, 20), torch.arange(20))
    assert set(found.values()) == {0.0}


def test_a_model_that_gives_no_numbers_finds_nothing() -> None:
    assert set(recalls(torch.full((20, 20), torch.nan), torch.arange(20)).values()) == {0.0}


def test_a_perfect_model_finds_everything() -> None:
    owner = torch.arange(20).repeat_interleave(3)
    similarity = torch.nn.functional.one_hot(owner, 20).T.float()
    assert set(recalls(similarity, owner).values()) == {100.0}


@pytest.mark.parametrize("owner", [torch.tensor([0, 0]), torch.tensor([0, 0, 5]), torch.tensor([0, 1])])
def test_captions_that_do_not_fit_are_refused(owner: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="caption_image"):
        recalls(torch.zeros(2, 3), owner)
