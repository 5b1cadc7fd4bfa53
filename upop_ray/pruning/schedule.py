"""When masks are updated and how much is removed by then (UPop, section 3.2)."""

import math


def removed_ratio(step: int, steps: int, ratio: float) -> float:
    """p_t, the share of the budget removed after ``step`` (0-based) of ``steps``: ``ratio * sin(pi (t + 1) / 2T)``.

    Equals ``ratio`` exactly at the last step.
    """
    if step == steps - 1:
        return ratio
    # the published form, a half cosine under a square root, keeps its rounding
    return ratio * math.sqrt((1 - math.cos(math.pi * (step + 1) / steps)) / 2)


def removed_gate(step: int, steps: int, ratio: float) -> float:
    """Gate value ``1 - p_t / p`` of a unit that is out of the mask after ``step``; 0 at the last step."""
    return 1 - removed_ratio(step, steps, ratio) / ratio


def is_update(step: int, steps: int, interval: int) -> bool:
    """Whether masks are recomputed after ``step``: at multiples of ``interval`` and at the last step."""
    return step % interval == 0 or step == steps - 1


def cosine(step: float, steps: float, initial: float, minimum: float = 0.0) -> float:
    """Cosine decay from ``initial`` at step 0 to ``minimum`` at ``steps``."""
    return minimum + (initial - minimum) * 0.5 * (1 + math.cos(math.pi * step / steps))


def polynomial(step: int, steps: int, initial: float, minimum: float = 0.0, power: float = 0.9) -> float:
    """Polynomial decay from ``initial`` at step 0 to ``minimum`` at ``steps`` (published Segmenter)."""
    return minimum + (initial - minimum) * float((1 - step / steps) ** power)
