"""BLIP-NLVR2, which transformers lacks, of its BLIP parts: BLIP with two cross attentions in each layer."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import BlipConfig, BlipPreTrainedModel, BlipTextModel, BlipVisionModel
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.models.blip.configuration_blip import BlipTextConfig
from transformers.models.blip.modeling_blip_text import BlipTextSelfAttention

from upop_ray.models.blip.layers import CorrectedBlip
from upop_ray.models.sliced import settings_of

#: of one text
IMAGES = 2


class BlipNlvrConfig(BlipConfig):
    """Configuration of a dense BLIP-NLVR2: that of a BLIP."""

    model_type = "upop_blip_nlvr_dense"


class TwinOutput(nn.Module):
    """Joins what was seen in two images, and adds it to the hidden state.

    :param merges: whether the two projections go through a linear layer without activation, or are averaged
    """

    def __init__(self, config: BlipTextConfig, merges: bool) -> None:
        super().__init__()
        width = config.hidden_size
        self.dense0 = nn.Linear(width, width)
        self.dense1 = nn.Linear(width, width)
        self.merge_layer = nn.Linear(2 * width, width) if merges else None
        self.LayerNorm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, context0: Tensor, context1: Tensor, hidden_states: Tensor) -> Tensor:
        """Join two contexts (b, tokens, all heads) and the hidden state (b, tokens, width)."""
        seen = self.dense0(context0), self.dense1(context1)
        joined = (seen[0] + seen[1]) / 2 if self.merge_layer is None else self.merge_layer(torch.cat(seen, dim=-1))
        output: Tensor = self.LayerNorm(self.dropout(joined) + hidden_states)
        return output


class TwinCrossAttention(nn.Module):
    """Two cross attentions from one hidden state, one to each image.

    The first half of the layers averages what they see, the second half merges it (ALGORITHM, section 5).
    """

    def __init__(self, config: BlipTextConfig, layer: int) -> None:
        super().__init__()
        self.self0 = BlipTextSelfAttention(config, is_cross_attention=True, layer_idx=layer)
        self.self1 = BlipTextSelfAttention(config, is_cross_attention=True, layer_idx=layer)
        self.output = TwinOutput(config, merges=layer >= config.num_hidden_layers // 2)

    def forward(self, hidden_states: Tensor, encoder_hidden_states: Tensor, **kwargs: Any) -> tuple[Tensor, None]:
        """Attend from (b, tokens, width) to (2b, image tokens, image width), all first images before the second ones.

        :returns: (b, tokens, width), and no probabilities
        """
        # not chunk: the ONNX exporter cannot split a dimension whose length it does not know
        first, second = encoder_hidden_states.unflatten(0, (IMAGES, -1)).unbind()  # type: ignore[no-untyped-call]
        context0, _ = self.self0(hidden_states, encoder_hidden_states=first)
        context1, _ = self.self1(hidden_states, encoder_hidden_states=second)
        return self.output(context0, context1, hidden_states), None


class _TransformersNlvr(BlipPreTrainedModel):
    """The model as transformers would have it, with the attention that BlipNlvr corrects."""

    def __init__(self, config: BlipNlvrConfig) -> None:
        super().__init__(config)
        self.vision_model = BlipVisionModel(config.vision_config)
        self.text_encoder = BlipTextModel(config.text_config, add_pooling_layer=False)
        for index, layer in enumerate(self.text_encoder.encoder.layer):
            layer.crossattention = TwinCrossAttention(config.text_config, index)
        width = config.text_config.hidden_size
        self.classifier = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 2))
        self.post_init()

    def forward(
        self, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor | None = None, **kwargs: Any
    ) -> SequenceClassifierOutput:
        """Classify each text as false (0) or true (1) of its two images.

        :param pixel_values: (2b, 3, S, S), all first images, then all second images
        :param input_ids: (b, tokens), taken as they are; the published model expects [ENC] as the first token
        :param attention_mask: (b, tokens), 0 where a text is padded
        :returns: ``logits`` (b, 2)
        :raises ValueError: there are not two images for each text
        """
        if len(pixel_values) != IMAGES * len(input_ids):
            raise ValueError(f"two images for each text, got {len(pixel_values)} images and {len(input_ids)} texts")
        images = self.vision_model(pixel_values=pixel_values).last_hidden_state
        text = self.text_encoder(input_ids, attention_mask=attention_mask, encoder_hidden_states=images)
        return SequenceClassifierOutput(logits=self.classifier(text.last_hidden_state[:, 0]))


class BlipNlvr(CorrectedBlip, _TransformersNlvr):
    """BLIP-NLVR2 (Li et al., BLIP, section 5.4): is a text true of two images?"""

    config_class = BlipNlvrConfig

    def __init__(self, config: BlipConfig) -> None:
        # a plain BLIP's config names another class, and what is saved with it would load as that
        super().__init__(config if isinstance(config, BlipNlvrConfig) else BlipNlvrConfig(**settings_of(config)))
