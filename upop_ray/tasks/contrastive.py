"""Image-text contrastive losses over the global batch."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from upop_ray.config import Momentum
from upop_ray.tasks.collective import gather, gather_with_gradient

#: the temperature's bounds as published: ``logit_scale`` in [0, ln 100]
LOGIT_SCALE_BOUNDS = (0.0, 4.6052)


@dataclass(frozen=True)
class Features:
    """L2-normalised features of one rank's examples.

    :param image: (b, d)
    :param text: (b, d)
    :param identity: (b,) int64; equal numbers are positives of each other
    """

    image: Tensor
    text: Tensor
    identity: Tensor


def temperature(logit_scale: Tensor) -> Tensor:
    """exp of ``logit_scale`` held to its bounds; the gradient passes as through the published in-place clamp."""
    bounded = logit_scale + (logit_scale.clamp(*LOGIT_SCALE_BOUNDS) - logit_scale).detach()
    return bounded.exp()


def in_batch_logits(features: Features, scale: Tensor) -> Tensor:
    """Similarities of a rank's images, then of its texts, with those of the global batch: (2 b, batch)."""
    image_to_text = scale * features.image @ gather_with_gradient(features.text).t()
    text_to_image = scale * features.text @ gather_with_gradient(features.image).t()
    return torch.cat([image_to_text, text_to_image])


def in_batch_targets(identity: Tensor) -> Tensor:
    """Targets of :func:`in_batch_logits`, soft where examples share their identity: (2 b, batch).

    :param identity: (b,) int64, of this rank's rows
    """
    return positives(identity, gather(identity)).repeat(2, 1)


def positives(identity: Tensor, candidates: Tensor) -> Tensor:
    """Targets (b, n): equal weight for each candidate of the same identity, rows summing to 1."""
    equal = (identity[:, None] == candidates[None, :]).float()
    return equal / equal.sum(1, keepdim=True)


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy with target distributions, mean over rows."""
    return -(functional.log_softmax(logits, 1) * targets).sum(1).mean()


class MomentumContrast:
    """The published image-text contrastive loss: momentum encoder, queue and soft labels (ALGORITHM, section 3).

    Candidates of a row are the momentum features of the global batch and of the queue.
    """

    def __init__(self, model: nn.Module, dimension: int, settings: Momentum) -> None:
        """Start from a twin of ``model`` (without gates) and an empty queue.

        :param dimension: width of the features
        """
        self.settings = settings
        self.twin = copy.deepcopy(model).eval().requires_grad_(False)
        reference = next(model.parameters())
        shape = (settings.queue_size, dimension)
        self.image_queue = functional.normalize(
            torch.randn(shape, dtype=reference.dtype, device=reference.device), dim=1
        )
        self.text_queue = functional.normalize(
            torch.randn(shape, dtype=reference.dtype, device=reference.device), dim=1
        )
        # -100 is no identity, so an unfilled slot is never a positive
        self.identity_queue = torch.full((settings.queue_size,), -100, device=reference.device)
        self.position = 0

    @torch.no_grad()
    def update_twin(self, online: Mapping[str, Tensor]) -> None:
        """Move the twin towards the online weights, given by name (before the twin's forward, as published)."""
        for name, average in self.twin.named_parameters():
            current = online[name].detach().reshape(average.shape).to(average)
            if name.startswith(self.settings.shared) and self.settings.shared:
                average.copy_(current)
            else:
                average.copy_(average * self.settings.decay + current * (1 - self.settings.decay))

    def loss(self, online: Features, twin: Features, scale: Tensor, ramp: float) -> Tensor:
        """Loss of this rank's rows; fills the queue afterwards.

        :param twin: the momentum encoder's features of the same examples
        :param ramp: share of the soft labels' weight that is reached (0..1, over the first epoch)
        """
        weight = self.settings.teacher_weight * ramp
        hard = positives(online.identity, torch.cat([gather(online.identity), self.identity_queue]))
        loss = torch.zeros((), dtype=online.image.dtype, device=online.image.device)
        pairs = (
            (online.image, twin.image, twin.text, self.text_queue),
            (online.text, twin.text, twin.image, self.image_queue),
        )
        for feature, twin_feature, other, queue in pairs:
            candidates = torch.cat([gather(other), queue.clone()]).t()
            with torch.no_grad():
                soft = functional.softmax(scale * twin_feature @ candidates, 1)
                targets = weight * soft + (1 - weight) * hard
            loss = loss + soft_cross_entropy(scale * feature @ candidates, targets) / 2
        self._enqueue(online if self.settings.enqueue == "online" else twin)
        return loss

    def state(self) -> dict[str, Tensor]:
        """Twin, queue and position as named tensors."""
        twin = {f"twin.{name}": value for name, value in self.twin.state_dict().items()}
        queue = {"image_queue": self.image_queue, "text_queue": self.text_queue, "identity_queue": self.identity_queue}
        return twin | queue | {"position": torch.tensor(self.position)}

    def load_state(self, state: Mapping[str, Tensor], with_twin: bool = True) -> None:
        """Restore what :meth:`state` gave; without the twin when it restarts equal to a sliced model."""
        if with_twin:
            self.twin.load_state_dict({k.removeprefix("twin."): v for k, v in state.items() if k.startswith("twin.")})
        self.image_queue.copy_(state["image_queue"])
        self.text_queue.copy_(state["text_queue"])
        self.identity_queue.copy_(state["identity_queue"])
        self.position = int(state["position"])

    @torch.no_grad()
    def _enqueue(self, features: Features) -> None:
        image, text, identity = gather(features.image), gather(features.text), gather(features.identity)
        end = self.position + len(identity)
        self.image_queue[self.position : end] = image
        self.text_queue[self.position : end] = text
        self.identity_queue[self.position : end] = identity
        self.position = end % self.settings.queue_size
