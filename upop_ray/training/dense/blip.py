"""The dense BLIPs of the built-in data: one vocabulary, one shape, four heads."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

from transformers import BertTokenizer, BlipConfig, BlipImageProcessorPil, BlipProcessor, PreTrainedModel

from upop_ray.data.shards import ShardedDataset, open_dataset
from upop_ray.models.blip.caption import BlipCaption
from upop_ray.models.blip.retrieval import BlipRetrieval
from upop_ray.models.blip.twins import BlipNlvr
from upop_ray.models.blip.vqa import BlipVqa
from upop_ray.training.dense.warm import IMAGE_SIZE, VISION, pixel_statistics, warm_vision

WORDS = 2400
TEXT_LAYERS = 2
#: positions of the longest text of any task
POSITIONS = 32
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
#: what starts a decoded text and a text that looks at an image; published vocabularies end in these two
_STARTS = ("[DEC]", "[ENC]")
_WORD = re.compile(r"\w+|[^\w\s]")


Builder: TypeAlias = Callable[[ShardedDataset], tuple[PreTrainedModel, Any]]


def dense_blip(kind: Callable[[BlipConfig], PreTrainedModel]) -> Builder:
    """A builder of an untrained BLIP, its vision tower warm from the built-in CLIP, and its processor."""

    def build(dataset: ShardedDataset) -> tuple[PreTrainedModel, Any]:
        tokenizer = BertTokenizer(vocab=vocabulary(), model_max_length=POSITIONS)
        model = kind(dense_config(tokenizer))
        warm_vision(model, "vision_model")
        return model, BlipProcessor(image_processor(), tokenizer)

    return build


def vocabulary() -> dict[str, int]:
    """WordPiece vocabulary of the built-in texts: every character, and the most frequent words as one piece each.

    Only training splits are read. Whole words keep captions and answers short; what is rare is spelled.
    """
    said, tags = Counter(_words(_said())), Counter(_words(_tags()))
    characters = sorted({character for word in (*said, *tags) for character in word})
    pieces = [*_SPECIAL, *characters, *(f"##{character}" for character in characters)]
    ordered = [*_by_frequency(said), *_by_frequency(tags)]
    words = [word for word in dict.fromkeys(ordered) if len(word) > 1]
    room = WORDS - len(pieces) - len(_STARTS)
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


def dense_config(tokenizer: BertTokenizer) -> BlipConfig:
    """Shape of the built-in BLIPs: 4 vision and 2 text layers of width 128."""
    width, vocabulary = 128, tokenizer.get_vocab()
    text = {
        "vocab_size": len(vocabulary),
        "hidden_size": width,
        "encoder_hidden_size": width,
        "intermediate_size": 4 * width,
        "projection_dim": width,
        "num_hidden_layers": TEXT_LAYERS,
        "num_attention_heads": 4,
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
    "blip_retrieval": dense_blip(BlipRetrieval),
    "blip_caption": dense_blip(BlipCaption),
    "blip_vqa": dense_blip(BlipVqa),
    "blip_nlvr": dense_blip(BlipNlvr),
}
