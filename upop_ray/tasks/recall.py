"""Recall at k of image-text retrieval, as CLIP and BLIP papers report it."""

import torch
from torch import Tensor

_RANKS = (1, 5, 10)


def recalls(similarity: Tensor, caption_image: Tensor, text_to_image: Tensor | None = None) -> dict[str, float]:
    """Return image_to_text_r1, r5, r10, text_to_image_r1, r5, r10 and r_mean, the mean of the six, in percent.

    An image counts as found at k when any of its captions is among the first k. Ties are resolved pessimistically: a
    wrong candidate of equal similarity, or of a similarity that is not a number, goes first.

    :param similarity: (images, captions)
    :param text_to_image: (captions, images), where it is not the transposed of ``similarity``
    :param caption_image: int64 (captions,), the image of each caption; every image has at least one
    :raises ValueError: shapes do not fit, or an image has no caption
    """
    images, captions = similarity.shape
    if caption_image.shape != (captions,):
        raise ValueError(f"caption_image: expected shape {(captions,)}, got {tuple(caption_image.shape)}")
    own = caption_image[None, :] == torch.arange(images, device=caption_image.device)[:, None]
    if not own.any(dim=1).all() or not own.any(dim=0).all():
        raise ValueError("caption_image: every image needs a caption, and every caption one of the images")
    reverse = similarity.T if text_to_image is None else text_to_image
    ranks = {
        "image_to_text": _best_rank(similarity, own),
        "text_to_image": _best_rank(reverse, own.T),
    }
    found = {f"{way}_r{k}": _percent(rank < k) for way, rank in ranks.items() for k in _RANKS}
    return found | {"r_mean": sum(found.values()) / len(found)}


def _best_rank(similarity: Tensor, own: Tensor) -> Tensor:
    # (queries, candidates) -> (queries,), from 0: how many wrong candidates are not strictly below the best right one
    best = similarity.masked_fill(~own, -torch.inf).amax(dim=1, keepdim=True)
    return (~(similarity < best) & ~own).sum(dim=1)


def _percent(hits: Tensor) -> float:
    return 100 * hits.double().mean().item()
