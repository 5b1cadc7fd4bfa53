"""Tiny random BLIPs, and padded batches for them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import BertTokenizer, BlipConfig, BlipImageProcessorPil, BlipProcessor, PreTrainedModel

from upop_ray.models.blip import caption, retrieval, vqa
from upop_ray.models.spec import ModelSpec
from upop_ray.pruning.site import Keep

VOCABULARY = 40
START, END = 38, 3


@dataclass(frozen=True)
class Family:
    """A family as tests need it.

    :param batch: -> keyword arguments of a forward pass on three examples, some of them padded
    """

    spec: ModelSpec
    dense: type[PreTrainedModel]
    sliced: type[PreTrainedModel]
    batch: Callable[[], dict[str, Tensor]]


def tiny_config(text_width: int = 32, **vision: int) -> BlipConfig:
    """Vision: 24 wide, 3 heads of 8, 2 layers, 5 tokens. Text: 2 heads, 2 layers, 20 positions."""
    sizes = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 3}
    text = {"hidden_size": text_width, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    text |= {"vocab_size": VOCABULARY, "max_position_embeddings": 20, "bos_token_id": START, "sep_token_id": END}
    return BlipConfig(
        vision_config=sizes | {"image_size": 16, "patch_size": 8} | vision,
        text_config=text,
        image_text_hidden_size=20,
    )


def randomised(model: nn.Module) -> nn.Module:
    """The model in evaluation mode, with noise on all its parameters, so that biases and norms matter too."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def tiny(family: Family, **vision: int) -> PreTrainedModel:
    """A random dense model of the family, the same each time."""
    torch.manual_seed(0)
    return randomised(family.dense(tiny_config(**vision)))


def images(count: int, seed: int = 0, side: int = 16) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


def texts(lengths: tuple[int, ...], seed: int = 0, filling: int = 0) -> tuple[Tensor, Tensor]:
    """Token ids padded with ``filling``, and their mask."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(4, START, (len(lengths), max(lengths)), generator=generator)
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    return torch.where(mask.bool(), ids, filling), mask


def _retrieval_batch() -> dict[str, Tensor]:
    ids, mask = texts((7, 4, 5))
    states = torch.randn(3, 5, 24, generator=torch.Generator().manual_seed(5))
    return {"pixel_values": images(3), "input_ids": ids, "attention_mask": mask, "image_states": states}


def _caption_batch() -> dict[str, Tensor]:
    ids, mask = texts((7, 4, 5))
    return {"pixel_values": images(3), "input_ids": ids, "attention_mask": mask}


def _vqa_batch() -> dict[str, Tensor]:
    answers, answer_mask = texts((2, 4, 3, 1, 4), seed=1)
    batch = {"answer_ids": answers, "answer_mask": answer_mask, "answer_rows": torch.tensor([0, 1, 1, 2, 0])}
    return _caption_batch() | batch


FAMILIES: Mapping[str, Family] = {
    "blip_retrieval": Family(retrieval.SPEC, retrieval.BlipRetrieval, retrieval.SlicedBlipRetrieval, _retrieval_batch),
    "blip_caption": Family(caption.SPEC, caption.BlipCaption, caption.SlicedBlipCaption, _caption_batch),
    "blip_vqa": Family(vqa.SPEC, vqa.BlipVqa, vqa.SlicedBlipVqa, _vqa_batch),
}


def sliced(family: Family, model: PreTrainedModel, keep: Keep) -> PreTrainedModel:
    return family.spec.sliced(model, model.state_dict(), keep)


def save_processor(folder: Path) -> None:
    """A tokenizer of single letters and an image processor for the tiny models."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = [
        *special,
        *"abcdefghij",
        *(f"w{number}" for number in range(VOCABULARY - len(special) - 12)),
        "[DEC]",
        "[ENC]",
    ]
    tokenizer = BertTokenizer(vocab={word: number for number, word in enumerate(words)})
    processor = BlipImageProcessorPil(size={"height": 16, "width": 16})
    BlipProcessor(processor, tokenizer).save_pretrained(folder)
