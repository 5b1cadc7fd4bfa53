"""The contrastive loss of a global batch as one function, as tests compare it."""

from torch import Tensor

from upop_ray.tasks.contrastive import Features, in_batch_logits, in_batch_targets, soft_cross_entropy


def in_batch_loss(features: Features, scale: Tensor) -> Tensor:
    """What a task without a momentum encoder computes of its logits and targets."""
    return soft_cross_entropy(in_batch_logits(features, scale), in_batch_targets(features.identity))
