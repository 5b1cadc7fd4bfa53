"""The dense CLIP of the built-in data, and its tokenizer."""

import json
from typing import Any

import pyarrow as pa
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPProcessor, CLIPTokenizer, PreTrainedModel

from upop_ray.data.shards import ShardedDataset

VOCABULARY = 2000
CONTEXT = 16
IMAGE_SIZE = 64
_START, _END, _END_OF_WORD = "<|startoftext|>", "<|endoftext|>", "</w>"


def dense_clip(dataset: ShardedDataset) -> tuple[PreTrainedModel, Any]:
    """An untrained CLIP and its processor, with a tokenizer trained on the training split."""
    tokenizer = train_tokenizer(dataset.split("train", columns=("label", "tags")))
    return CLIPModel(dense_config(tokenizer)), CLIPProcessor(image_processor(), tokenizer)


def train_tokenizer(table: pa.Table) -> CLIPTokenizer:
    """Train a byte-level BPE of 2,000 tokens on columns `label` and `tags` of a split.

    All bytes are in it, also at the end of a word, so that no text gives an unknown token: CLIP's is the end token, at
    which the text is pooled. The end token has the highest id, which pools rightly by either rule of transformers.
    """
    bytes_ = sorted(pre_tokenizers.ByteLevel.alphabet())
    untrained = Tokenizer(models.BPE(end_of_word_suffix=_END_OF_WORD))
    form = CLIPTokenizer().backend_tokenizer
    untrained.normalizer, untrained.pre_tokenizer = form.normalizer, form.pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - 2,
        special_tokens=bytes_ + [byte + _END_OF_WORD for byte in bytes_],
        initial_alphabet=bytes_,
        end_of_word_suffix=_END_OF_WORD,
        show_progress=False,
    )
    texts = sorted({*table["label"].to_pylist(), *(tag for tags in table["tags"].to_pylist() for tag in tags)})
    untrained.train_from_iterator(texts, trainer)
    trained = json.loads(untrained.to_str())["model"]
    vocabulary = trained["vocab"] | {_START: len(trained["vocab"]), _END: len(trained["vocab"]) + 1}
    merges: Any = [tuple(merge) for merge in trained["merges"]]
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=CONTEXT)


def dense_config(tokenizer: CLIPTokenizer) -> CLIPConfig:
    """Return the configuration of the dense model: 1.78 M parameters, 4 vision and 3 text layers of width 128."""
    width = {"hidden_size": 128, "intermediate_size": 512, "num_attention_heads": 4, "projection_dim": 128}
    tokens = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    text = {"vocab_size": len(tokenizer), "max_position_embeddings": CONTEXT, "num_hidden_layers": 3}
    return CLIPConfig(
        text_config=width | text | tokens | {"pad_token_id": tokenizer.pad_token_id},
        vision_config=width | {"image_size": IMAGE_SIZE, "patch_size": 16, "num_hidden_layers": 4},
        projection_dim=width["projection_dim"],
    )


def image_processor() -> CLIPImageProcessorPil:
    """Return CLIP's own preprocessing at 64 pixels."""
    side = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    return CLIPImageProcessorPil(size={"shortest_edge": IMAGE_SIZE}, crop_size=side)
