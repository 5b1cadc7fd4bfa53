"""The dense BLIPs of the built-in data."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import nn
from transformers import BertTokenizer, BlipConfig, BlipImageProcessorPil, BlipProcessor, PreTrainedModel

from upop_ray.data.checkpoints import resolve_checkpoint
from upop_ray.data.shards import ShardedDataset, open_dataset
from upop_ray.models.blip.caption import BlipCaption
from upop_ray.models.blip.nlvr import load_nlvr
from upop_ray.models.blip.retrieval import BlipRetrieval
from upop_ray.models.blip.twins import TwinOutput
from upop_ray.models.blip.vqa import BlipVqa
from upop_ray.models.spec import Source
from upop_ray.training.dense.warm import IMAGE_SIZE, VISION, pixel_statistics, warm_vision

TEXT_LAYERS = 2
#: positions of the longest text of any task
POSITIONS = 32
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
#: what starts a decoded text and a text that looks at an image; published vocabularies end in these two
_STARTS = ("[DEC]", "[ENC]")
_WORD = re.compile(r"\w+|[^\w\s]")


Builder: TypeAlias = Callable[[ShardedDataset], tuple[PreTrainedModel, Any]]


@dataclass(frozen=True)
class TextShape:
    """Width, heads and pieces of the vocabulary of a text stack."""

    width: int = 128
    heads: int = 4
    pieces: int = 2400


#: question answering has two stacks, and two-image reasoning starts from it; kept small for what is shipped
SMALL = TextShape(width=96, heads=3, pieces=1600)


def dense_blip(kind: Callable[[BlipConfig], PreTrainedModel], shape: TextShape) -> Builder:
    """A builder of an untrained BLIP, its vision tower warm from the built-in CLIP, and its processor."""

    def build(dataset: ShardedDataset) -> tuple[PreTrainedModel, Any]:
        tokenizer = BertTokenizer(vocab=vocabulary(shape.pieces), model_max_length=POSITIONS)
        model = kind(dense_config(tokenizer, shape))
        warm_vision(model, "vision_model")
        return model, BlipProcessor(image_processor(), tokenizer)

    return build


def dense_nlvr(dataset: ShardedDataset) -> tuple[PreTrainedModel, Any]:
    """A BLIP-NLVR2 that starts from the built-in question answering, as published ones do from a trained BLIP.

    Its vision tower stays as it is there, so that it need not be shipped twice.
    """
    model, processor = load_nlvr(Source(Path(resolve_checkpoint("builtin:blip_vqa"))))
    model.vision_model.requires_grad_(False)
    for module in model.modules():
        if isinstance(module, TwinOutput) and module.merge_layer is not None:
            _average(module.merge_layer)
    return model, processor


@torch.no_grad()
def _average(merge: nn.Linear) -> None:
    """Let a merge layer start as the mean of what it merges: random weights would hide what was learned before them."""
    half = torch.eye(merge.out_features) / 2
    merge.weight.copy_(torch.cat([half, half], 1))
    merge.bias.zero_()


def vocabulary(count: int) -> dict[str, int]:
    """WordPiece vocabulary of the built-in texts: every character, and the most frequent words as one piece each.

    Only training splits are read; ``count`` pieces are in it. Whole words keep captions and answers short; what is
    rare is spelled.
    """
    said, tags = Counter(_words(_said())), Counter(_words(_tags()))
    characters = sorted({character for word in (*said, *tags) for character in word})
    pieces = [*_SPECIAL, *characters, *(f"##{character}" for character in characters)]
    ordered = [*_by_frequency(said), *_by_frequency(tags)]
    words = [word for word in dict.fromkeys(ordered) if len(word) > 1]
    room = count - len(pieces) - len(_STARTS)
    return {piece: number for number, piece in enumerate([*pieces, *words[:room], *_STARTS])}


def _by_frequency(counts: Counter[str]) -> list[str]:
    return [word for word, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]


def _words(texts: Iterator[str]) -> Iterator[str]:
    return (word for text in texts for word in _WORD.findall(text.lower()))


def _said() -> Iterator[str]:
    """Texts that a model says or is asked: labels, questions, answers, statements."""
    yield from open_dataset("builtin:emoji").split("train", columns=("label",))["label"].to_pylist()
    for questions in open_dataset("builtin:emoji_questions").split("train", columns=("questions",))["questions"]:
        for question in questions.as_py():
            yield question["question"]
            yield from question["answers"]
    yield from open_dataset("builtin:emoji_pairs").split("train", columns=("statement",))["statement"].to_pylist()


def _tags() -> Iterator[str]:
    for tags in open_dataset("builtin:emoji").split("train", columns=("tags",))["tags"].to_pylist():
        yield from tags


def dense_config(tokenizer: BertTokenizer, shape: TextShape) -> BlipConfig:
    """Configuration of a built-in BLIP: 4 vision layers of width 128, and 2 text layers."""
    width, vocabulary = shape.width, tokenizer.get_vocab()
    text = {
        "vocab_size": len(vocabulary),
        "hidden_size": width,
        "encoder_hidden_size": VISION["hidden_size"],
        "intermediate_size": 4 * width,
        "projection_dim": width,
        "num_hidden_layers": TEXT_LAYERS,
        "num_attention_heads": shape.heads,
        "max_position_embeddings": POSITIONS,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "bos_token_id": vocabulary["[DEC]"],
        "eos_token_id": vocabulary["[SEP]"],
        "sep_token_id": vocabulary["[SEP]"],
        "pad_token_id": vocabulary["[PAD]"],
    }
    return BlipConfig(text_config=text, vision_config=VISION, projection_dim=width, image_text_hidden_size=width)


def image_processor() -> BlipImageProcessorPil:
    """BLIP's preprocessing at 64 pixels, with the statistics that the vision tower knows."""
    mean, std = pixel_statistics()
    return BlipImageProcessorPil(size={"height": IMAGE_SIZE, "width": IMAGE_SIZE}, image_mean=mean, image_std=std)


DENSE_BLIP: Mapping[str, Builder] = {
    "blip_retrieval": dense_blip(BlipRetrieval, TextShape()),
    "blip_caption": dense_blip(BlipCaption, TextShape()),
    "blip_vqa": dense_blip(BlipVqa, SMALL),
    "blip_nlvr": dense_nlvr,
}
