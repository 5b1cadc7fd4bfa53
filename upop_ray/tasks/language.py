"""What tasks with a text decoder share: tokens with a start of their own, and the loss of the next token."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from upop_ray.errors import ConfigError

#: targets that bear no loss
IGNORED = -100
#: dropped from texts, as published
_DROPPED = re.compile(r"""[.!"()*#:;~\s]+""")


def cleaned(text: str) -> str:
    """A text as the published models read it: lower case, without most of the punctuation."""
    return _DROPPED.sub(" ", text.lower()).strip()


@dataclass(frozen=True)
class Tokens:
    """Tokenised texts, padded to the longest of them: ``ids`` and ``mask``, both int64 (texts, T)."""

    ids: Tensor
    mask: Tensor

    def to(self, device: torch.device) -> "Tokens":
        """The same on a device."""
        return Tokens(self.ids.to(device), self.mask.to(device))

    def __getitem__(self, rows: Any) -> "Tokens":
        return Tokens(self.ids[rows], self.mask[rows])

    def trimmed(self) -> "Tokens":
        """The same without columns that only pad."""
        return self[:, : int(self.mask.sum(1).max())]


def tokenised(tokenizer: Any, texts: Sequence[str], length: int, start: int) -> Tokens:
    """Tokenise texts, with ``start`` instead of the tokenizer's own first token.

    :param length: tokens that a text is cut to, the first and the last, [SEP], included
    """
    encoded = tokenizer(
        list(texts), padding=True, padding_side="right", truncation=True, max_length=length, return_tensors="pt"
    )
    ids: Tensor = encoded["input_ids"]
    ids[:, 0] = start
    return Tokens(ids, encoded["attention_mask"])


def next_tokens(tokens: Tokens, given: int = 1) -> Tensor:
    """What follows each token but the last, :data:`IGNORED` after the end and within the given part: (texts, T - 1).

    :param given: tokens at the start of every text that are not predicted
    """
    targets = tokens.ids.masked_fill(tokens.mask == 0, IGNORED)
    targets[:, :given] = IGNORED
    return targets[:, 1:]


def predictions(logits: Tensor, targets: Tensor) -> Tensor:
    """The rows of logits that bear loss, in fp32 where the model computes in bf16: (n, vocabulary).

    :param logits: (texts, T, vocabulary)
    :param targets: (texts, T - 1), see :func:`next_tokens`
    """
    rows = logits[:, :-1][targets != IGNORED]
    return rows.float() if rows.dtype == torch.bfloat16 else rows


def text_losses(rows: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    """Cross entropy with smoothed labels, summed over the tokens of each text: (texts,).

    :param rows: see :func:`predictions`
    :param smoothing: share of the target distribution that is spread evenly over the vocabulary
    """
    bears = targets != IGNORED
    losses = functional.cross_entropy(rows, targets[bears], reduction="none", label_smoothing=smoothing)
    return losses.new_zeros(bears.shape).masked_scatter(bears, losses).sum(1)


def decoded(tokenizer: Any, ids: Tensor, starts: Sequence[int]) -> list[str]:
    """Texts of generated ids, (n, T).

    :param starts: ids of [DEC] and [ENC], which not every tokenizer knows as special tokens
    """
    shown = ids.masked_fill(torch.isin(ids, torch.tensor(starts, device=ids.device)), tokenizer.pad_token_id)
    return [text.strip() for text in tokenizer.batch_decode(shown, skip_special_tokens=True)]


def padded(ids: Tensor, length: int, padding: int) -> Tensor:
    """Generated ids (b, T) brought to (b, length), so that the ranks' parts fit together."""
    return functional.pad(ids, (0, length - ids.shape[1]), value=padding)


def require_room(field: str, tokens: int, positions: int) -> None:
    """Make sure that texts of a setting's length hold a word between their first and last token, and fit the model.

    :raises ConfigError: they do not
    """
    if not 3 <= tokens <= positions:
        raise ConfigError(field, f"got {tokens}, the model has {positions} positions", f"use 3 to {positions}")
