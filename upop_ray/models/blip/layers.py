"""What all BLIP models share: their sites, and attention that stays exact when it is sliced.

transformers' classes lack two things. The fused attention of the vision tower reshapes by the dense width, so it cannot
be narrower; and text attention drops the mask of the encoder's tokens, so padding of a question changes the answer.
Both are corrected in the modules of our own classes; the classes of transformers stay as they are.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import BlipConfig, BlipPreTrainedModel, BlipVisionModel
from transformers.models.blip.modeling_blip import BlipAttention
from transformers.models.blip.modeling_blip_text import BlipTextAttention, BlipTextSelfAttention

from upop_ray.models.layers import Attention, attention_site, mlp_site
from upop_ray.pruning.site import Keep, Site, Slot


class VisionAttention(BlipAttention):
    """Attention of the vision tower at the real width of its projections, with the softmax scale of the dense width."""

    def forward(self, hidden_states: Tensor, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        """Attend (batch, tokens, width); the probabilities are given by the eager implementation only."""
        batch, tokens, _ = hidden_states.shape
        parts = self.qkv(hidden_states).view(batch, tokens, 3, self.num_heads, -1)
        query, key, value = parts.permute(2, 0, 3, 1, 4)  # each (batch, heads, tokens, kept width)
        dropout = self.dropout.p if self.training else 0.0
        probabilities = None
        if self.config._attn_implementation == "eager":
            probabilities = self.dropout((query @ key.transpose(-1, -2) * self.scale).softmax(-1))
            context = probabilities @ value
        else:
            context = scaled_dot_product_attention(query, key, value, dropout_p=dropout, scale=self.scale)
        return self.projection(context.transpose(1, 2).flatten(2)), probabilities


class TextAttention(BlipTextAttention):
    """Text attention that hands the mask of the encoder's tokens on to the cross attention."""

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        past_key_values: Any = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor]:
        """Attend (batch, tokens, width); ``attention_mask`` is additive and about the tokens that are asked."""
        context, probabilities = self.self(
            hidden_states,
            attention_mask=attention_mask,
            encoder_hidden_states=encoder_hidden_states,
            encoder_attention_mask=attention_mask,
            past_key_values=past_key_values,
        )
        return self.output(context, hidden_states), probabilities


def correct_attention(model: nn.Module) -> None:
    """Swap the attention classes of a BLIP model for ours, in place; names in state_dict stay those of transformers."""
    for module in model.modules():
        if type(module) is BlipAttention:
            module.__class__ = VisionAttention
        elif type(module) is BlipTextAttention:
            module.__class__ = TextAttention


class CorrectedBlip(BlipPreTrainedModel):
    """First base of our BLIP classes, before the class of transformers: builds that class and corrects its attention.

    ``sdpa`` and ``eager`` choose how the vision tower attends. Text is short and always attends eagerly: its attention
    takes additive masks.
    """

    _supports_sdpa = True

    def __init__(self, config: BlipConfig) -> None:
        chosen = config._attn_implementation
        # the towers are built by classes that know eager only
        config._attn_implementation = "eager"
        config._attn_implementation_internal = chosen
        super().__init__(config)
        config.vision_config._attn_implementation_internal = config._attn_implementation
        correct_attention(self)

    def set_attn_implementation(self, attn_implementation: Any, allow_all_kernels: bool = False) -> None:
        """Choose ``sdpa`` or ``eager`` for the vision tower."""
        chosen = self._check_and_adjust_attn_implementation(
            attn_implementation, is_init_check=False, allow_all_kernels=allow_all_kernels
        )
        self.config._attn_implementation_internal = chosen
        self.config.vision_config._attn_implementation_internal = chosen


def vision_tokens(model: nn.Module, path: str) -> int:
    """Tokens of one image in the BlipVisionModel at ``path``: its patches and the class token."""
    vision = model.get_submodule(path)
    assert isinstance(vision, BlipVisionModel)
    return int(vision.embeddings.num_positions)


def vision_sites(model: nn.Module, path: str, images: int = 1) -> list[Site]:
    """Sites ``vision.{i}.attn`` and ``vision.{i}.mlp`` of the BlipVisionModel at ``path``.

    :param images: of one example
    """
    vision, tokens = model.get_submodule(path), vision_tokens(model, path)
    assert isinstance(vision, BlipVisionModel)
    sites: list[Site] = []
    for index, layer in enumerate(vision.encoder.layers):
        at, name = f"{path}.encoder.layers.{index}", f"vision.{index}"
        # a token looks at those of its own image
        attention = Attention(
            [f"{at}.self_attn.qkv"], f"{at}.self_attn.projection", layer.self_attn.num_heads, images * tokens, tokens
        )
        sites.append(attention_site(model, f"{name}.attn", "vision", attention))
        sites.append(mlp_site(model, f"{name}.mlp", "vision", (f"{at}.mlp.fc1", f"{at}.mlp.fc2"), images * tokens))
    return sites


#: how a site of cross attention is called -> paths of the attention and of its output projection in the layer
CROSSING: Mapping[str, tuple[str, str]] = {"cross": ("crossattention.self", "crossattention.output.dense")}


@dataclass(frozen=True)
class TextStack:
    """A BlipTextEncoder inside a model.

    :param path: of the BlipTextEncoder (the module with ``layer``)
    :param name: how site names begin
    :param tokens: text tokens of one example
    :param encoder_tokens: tokens that cross attention looks at
    :param passes: how often one example passes self attention and MLPs; it passes cross attention once
    :param crossings: the cross attentions of a layer
    """

    path: str
    name: str
    tokens: int
    encoder_tokens: int
    passes: int = 1
    crossings: Mapping[str, tuple[str, str]] = field(default_factory=lambda: CROSSING)


def text_sites(model: nn.Module, stack: TextStack) -> list[Site]:
    """Sites ``{name}.{i}.attn``, ``.cross`` (or as ``crossings`` names them) and ``.mlp`` of each layer of a stack."""
    encoder = model.get_submodule(stack.path)
    sites: list[Site] = []
    for index in range(len(encoder.layer)):  # type: ignore[arg-type]
        at, name = f"{stack.path}.layer.{index}", f"{stack.name}.{index}"
        own = text_attention(model, f"{at}.attention.self", f"{at}.attention.output.dense", (stack.tokens,) * 2)
        mlp = (f"{at}.intermediate.dense", f"{at}.output.dense")
        sites.append(_repeated(attention_site(model, f"{name}.attn", "language", own), stack.passes))
        for crossing, (attention, out) in stack.crossings.items():
            tokens = (stack.tokens, stack.encoder_tokens)
            cross = text_attention(model, f"{at}.{attention}", f"{at}.{out}", tokens)
            sites.append(attention_site(model, f"{name}.{crossing}", "cross", cross))
        sites.append(_repeated(mlp_site(model, f"{name}.mlp", "language", mlp, stack.tokens), stack.passes))
    return sites


def text_attention(model: nn.Module, path: str, out: str, tokens: tuple[int, int]) -> Attention:
    """The BlipTextSelfAttention at ``path`` with its output projection.

    :param tokens: of one example, those that ask and those that are asked
    """
    module = model.get_submodule(path)
    assert isinstance(module, BlipTextSelfAttention)
    return Attention([f"{path}.{part}" for part in ("query", "key", "value")], out, module.num_attention_heads, *tokens)


def set_head_widths(model: nn.Module, sites: tuple[Site, ...], kept: Mapping[str, int]) -> None:
    """Make text attentions reshape by the widths of a sliced model; the vision tower reads its own off its weights.

    :param kept: width of every site, as ``models.sliced.narrow`` gives it
    """
    for site in sites:
        module = model.get_submodule(site.producers[0].module.rpartition(".")[0])
        if isinstance(module, BlipTextSelfAttention):
            module.attention_head_size = kept[site.name]
            module.all_head_size = module.num_attention_heads * kept[site.name]


def fold_softmax_scale(state: dict[str, Tensor], sites: tuple[Site, ...], keep: Keep) -> None:
    """Multiply sqrt(kept / before) into the sliced queries of text attentions, in place.

    BlipTextSelfAttention divides by sqrt(kept width); with this the scale stays that of the width before, and so that
    of the dense model however often a model is sliced.

    :param state: state dict of the sliced model
    :param sites: of the model before it was sliced
    """
    for site in sites:
        if site.kind == "attention" and _has_own_query(site.producers):
            factor = (int(keep[site.name].sum()) / site.units) ** 0.5
            for part in ("weight", "bias"):
                name = f"{site.producers[0].module}.{part}"
                state[name] = state[name] * torch.tensor(factor, dtype=torch.float64).to(state[name])


def _has_own_query(producers: tuple[Slot, ...]) -> bool:
    return len(producers) == 3  # the vision tower fuses query, key and value


def _repeated(site: Site, passes: int) -> Site:
    return replace(
        site,
        producers=tuple(replace(slot, tokens=passes * slot.tokens) for slot in site.producers),
        consumers=tuple(replace(slot, tokens=passes * slot.tokens) for slot in site.consumers),
        product_macs=passes * site.product_macs,
    )
