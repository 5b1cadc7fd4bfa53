"""What of each family becomes ONNX: the model, or the parts that its use calls one after the other.

Models that write text are given as an encoder and a decoder without a cache: the decoder takes all tokens so far and
gives the logits of the next one, so a loop around it writes as ``generate`` does.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from upop_ray.deploy.onnx import Graph

Batch = Mapping[str, Tensor]


class Part(nn.Module):
    """A function of a model as a module."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: Any = model


class ImageAndText(Part):
    """Both embeddings of a CLIP or SigLIP, and its logits."""

    def forward(self, pixel_values: Tensor, input_ids: Tensor) -> tuple[Tensor, ...]:
        output = self.model(pixel_values=pixel_values, input_ids=input_ids)
        return output.image_embeds, output.text_embeds, output.logits_per_image


class Logits(Part):
    """Logits of an image."""

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.model(pixel_values=pixel_values).logits  # type: ignore[no-any-return]


class EncodedImage(Part):
    """Embedding and states of an image."""

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        return self.model.encode_image(pixel_values)  # type: ignore[no-any-return]


class EncodedText(Part):
    """Embedding of a caption."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.model.encode_text(input_ids, attention_mask)  # type: ignore[no-any-return]


class Match(Part):
    """Logits of no match and match."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor, image_states: Tensor) -> Tensor:
        output = self.model(input_ids=input_ids, attention_mask=attention_mask, image_states=image_states)
        return output.itm_score  # type: ignore[no-any-return]


class SeenImage(Part):
    """States of an image, for a caption's decoder."""

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.model.vision_model(pixel_values).last_hidden_state  # type: ignore[no-any-return]


class CaptionStep(Part):
    """Logits of the token after each token of a caption."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor, image_states: Tensor) -> Tensor:
        decoder = self.model.text_decoder
        output = decoder(input_ids, attention_mask, encoder_hidden_states=image_states, use_cache=False)
        return output.logits  # type: ignore[no-any-return]


class Question(Part):
    """States of a question about an image."""

    def forward(self, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.model.encode(pixel_values, input_ids, attention_mask)  # type: ignore[no-any-return]


class AnswerStep(Part):
    """Logits of the token after each token of an answer."""

    def forward(self, states: Tensor, attention_mask: Tensor, answer_ids: Tensor, answer_mask: Tensor) -> Tensor:
        return self.model.decode(states, attention_mask, answer_ids, answer_mask)  # type: ignore[no-any-return]


class Statement(Part):
    """Logits of a statement about two images."""

    def forward(self, left: Tensor, right: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.model(torch.cat([left, right]), input_ids, attention_mask).logits  # type: ignore[no-any-return]


def _contrastive(model: nn.Module, batch: Batch) -> tuple[Graph, ...]:
    outputs = ("image_embeds", "text_embeds", "logits_per_image")
    # padding lies behind the token that a causal CLIP reads; a SigLIP reads the last of all its positions
    return (Graph("model", ImageAndText(model), _named(batch, "pixel_values", "input_ids"), outputs),)


def _logits(model: nn.Module, batch: Batch) -> tuple[Graph, ...]:
    return (Graph("model", Logits(model), _named(batch, "pixel_values"), ("logits",)),)


def _retrieval(model: nn.Module, batch: Batch) -> tuple[Graph, ...]:
    text = ("input_ids", "attention_mask")
    image = _named(batch, "pixel_values")
    return (
        Graph("image", EncodedImage(model), image, ("image_embeds", "image_states")),
        Graph("text", EncodedText(model), _named(batch, *text), ("text_embeds",), text),
        Graph("match", Match(model), _named(batch, *text, "image_states"), ("itm_score",), text),
    )


def _caption(model: nn.Module, batch: Batch) -> tuple[Graph, ...]:
    text = ("input_ids", "attention_mask")
    image = Graph("image", SeenImage(model), _named(batch, "pixel_values"), ("image_states",))
    seen = _named(batch, *text) | {"image_states": _computed(image)}
    return image, Graph("decoder", CaptionStep(model), seen, ("logits",), text)


def _vqa(model: nn.Module, batch: Batch) -> tuple[Graph, ...]:
    text, answer = ("input_ids", "attention_mask"), ("answer_ids", "answer_mask")
    question = Graph("question", Question(model), _named(batch, "pixel_values", *text), ("states",), text)
    read = {"states": _computed(question)} | _named(batch, "attention_mask", *answer)
    return question, Graph("decoder", AnswerStep(model), read, ("logits",), ("states", "attention_mask", *answer))


def _nlvr(model: nn.Module, batch: Batch) -> tuple[Graph, ...]:
    left, right = batch["pixel_values"].chunk(2)
    text = ("input_ids", "attention_mask")
    inputs = {"left": left, "right": right} | _named(batch, *text)
    return (Graph("model", Statement(model), inputs, ("logits",), text),)


_GRAPHS: Mapping[str, Callable[[nn.Module, Batch], tuple[Graph, ...]]] = {
    "clip": _contrastive,
    "siglip": _contrastive,
    "vit": _logits,
    "segmenter": _logits,
    "blip_retrieval": _retrieval,
    "blip_caption": _caption,
    "blip_vqa": _vqa,
    "blip_nlvr": _nlvr,
}


def graphs(family: str, model: nn.Module, batch: Batch) -> tuple[Graph, ...]:
    """The ONNX files of a model.

    :param batch: keyword arguments of its forward pass, as :func:`upop_ray.deploy.samples.samples` makes them
    """
    return _GRAPHS[family](model, batch)


def described(found: Sequence[Graph]) -> str:
    """A line a file: its inputs and outputs."""
    return "\n".join(
        f"* `onnx/{graph.name}.onnx`: {', '.join(graph.inputs)} -> {', '.join(graph.outputs)}" for graph in found
    )


def _named(batch: Batch, *names: str) -> dict[str, Tensor]:
    return {name: batch[name] for name in names}


@torch.no_grad()
def _computed(graph: Graph) -> Tensor:
    return graph.module(*graph.inputs.values())  # type: ignore[no-any-return]
