"""Prediction of images that are larger than what the model was trained on (Segmenter, section 4.1)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor
from torch.nn import functional

from upop_ray.data.photographs import fitted

#: images (b, 3, S, S) -> logits (b, classes, S, S)
Forward = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class SlidingWindow:
    """How images become windows.

    :param side: of the window, in pixels
    :param stride: step of the window in both directions, at most ``side``
    :param scales: of the size at which the shorter side of an image fills the window; it is segmented at each of them
    :param mirror: whether its mirror image is segmented as well, at each scale
    """

    side: int
    stride: int
    scales: tuple[float, ...] = (1.0,)
    mirror: bool = False

    def probabilities(self, forward: Forward, images: Tensor) -> Tensor:
        """Probabilities of classes, averaged over scales and mirror images.

        :param images: (b, 3, H, W) of any size
        :returns: (b, classes, H, W)
        """
        views = list(self._views())
        # added up one by one: probabilities of a large image are large
        found = (self._at_scale(forward, images, scale, mirrored) for scale, mirrored in views)
        return reduce(torch.add, found) / len(views)

    def logits(self, forward: Forward, images: Tensor) -> Tensor:
        """Logits of images that are nowhere smaller than the window, averaged where windows overlap.

        :param images: (b, 3, H, W)
        :returns: (b, classes, H, W)
        """
        places = list(self._places(*images.shape[-2:]))
        parts = [forward(images[:, :, top : top + self.side, left : left + self.side]) for top, left in places]
        total = parts[0].new_zeros(*parts[0].shape[:2], *images.shape[-2:])
        count = total.new_zeros(1, 1, *images.shape[-2:])
        for (top, left), part in zip(places, parts, strict=True):
            total[:, :, top : top + self.side, left : left + self.side] += part
            count[:, :, top : top + self.side, left : left + self.side] += 1
        return total / count

    def _views(self) -> Iterator[tuple[float, bool]]:
        for scale in self.scales:
            yield scale, False
            if self.mirror:
                yield scale, True

    def _at_scale(self, forward: Forward, images: Tensor, scale: float, mirrored: bool) -> Tensor:
        height, width = images.shape[-2:]
        scaled = _resized(images.flip(-1) if mirrored else images, *fitted(height, width, int(self.side * scale)))
        shortest = min(scaled.shape[-2:])
        if shortest < self.side:
            # published: enlarged again until it fills the window, so that a small scale is a blurred image
            grown = [max(self.side, round(length * self.side / shortest)) for length in scaled.shape[-2:]]
            scaled = _resized(scaled, *grown)
        logits = _resized(self.logits(forward, scaled), height, width)
        return (logits.flip(-1) if mirrored else logits).softmax(1)

    def _places(self, height: int, width: int) -> Iterator[tuple[int, int]]:
        """Top left corners of windows that cover the image; the last of each row and column end at its border."""
        for top in _starts(height, self.side, self.stride):
            for left in _starts(width, self.side, self.stride):
                yield top, left


def _starts(length: int, side: int, stride: int) -> list[int]:
    return [*range(0, length - side, stride), length - side]


def _resized(images: Tensor, height: int, width: int) -> Tensor:
    if images.shape[-2:] == (height, width):
        return images
    return functional.interpolate(images, (height, width), mode="bilinear", align_corners=False)
