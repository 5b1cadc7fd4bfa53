"""Mixup and CutMix on hand computed cases."""

import numpy as np
import pytest
import torch

from upop_ray.data.mixing import Mix, Mixing, cut, smoothed

OWN, PARTNERS = torch.full((1, 3, 4, 4), 10.0), torch.full((1, 3, 4, 4), 20.0)


def test_mixup_is_the_stated_mixture() -> None:
    mix = Mix(0.75)
    torch.testing.assert_close(mix.pixels(OWN, PARTNERS), torch.full((1, 3, 4, 4), 12.5))
    own, partner = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.2, 0.8]])
    torch.testing.assert_close(mix.targets(own, partner), torch.tensor([[0.8, 0.2]]))


def test_cutmix_puts_a_box_of_the_partner_over_the_image() -> None:
    mixed = Mix(0.75, box=(1, 3, 2, 4)).pixels(OWN, PARTNERS)
    expected = OWN.clone()
    expected[:, :, 1:3, 2:4] = 20.0
    assert torch.equal(mixed, expected)
    assert torch.equal(OWN, torch.full((1, 3, 4, 4), 10.0))


def test_the_share_of_a_box_is_that_of_its_pixels_inside_the_image() -> None:
    size, draws = 32, np.random.default_rng(0)
    sides = set()
    for _ in range(300):
        mix = cut(0.75, size, draws)
        assert mix.box is not None
        top, bottom, left, right = mix.box
        assert 0 <= top <= bottom <= size and 0 <= left <= right <= size
        covered = torch.zeros(size, size)
        covered[top:bottom, left:right] = 1
        assert mix.share == pytest.approx(1 - float(covered.mean()))
        sides.add(bottom - top)
    # a quarter of the area is half of each side, and less only where the box leaves the image
    assert max(sides) == size // 2 and min(sides) < size // 2


def test_without_a_share_of_its_own_a_box_covers_at_least_a_quarter() -> None:
    # of full size around any centre
    for seed in range(50):
        assert cut(0.0, 8, np.random.default_rng(seed)).share <= 0.75


def test_batches_are_mixed_in_both_ways_equally_often() -> None:
    draws = np.random.default_rng(0)
    mixes = [Mixing(0.8, 1.0).draw(224, draws) for _ in range(2000)]
    mixup = [mix.share for mix in mixes if mix.box is None]
    assert len(mixup) == pytest.approx(1000, abs=100)
    # the variance of a beta distribution with both parameters a is 1 / (4 (2a + 1))
    assert np.mean(mixup) == pytest.approx(0.5, abs=0.03) and np.var(mixup) == pytest.approx(1 / 10.4, rel=0.1)


@pytest.mark.parametrize(("mixup", "cutmix", "boxed"), [(0.8, 0.0, {False}), (0.0, 1.0, {True})])
def test_a_strength_of_zero_is_off(mixup: float, cutmix: float, boxed: set[bool]) -> None:
    draws = np.random.default_rng(0)
    assert {Mixing(mixup, cutmix).draw(8, draws).box is not None for _ in range(50)} == boxed
    assert not Mixing(0.0, 0.0).is_on


def test_smoothing_gives_each_class_its_part() -> None:
    targets = smoothed(torch.tensor([2, 0]), 4, 0.2)
    torch.testing.assert_close(targets, torch.tensor([[0.05, 0.05, 0.85, 0.05], [0.85, 0.05, 0.05, 0.05]]))
    assert torch.equal(smoothed(torch.tensor([1]), 3, 0.0), torch.tensor([[0.0, 1.0, 0.0]]))
