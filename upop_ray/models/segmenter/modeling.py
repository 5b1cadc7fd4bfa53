"""Segmenter (Strudel et al., ICCV 2021): a ViT backbone and a mask transformer; transformers has none."""

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import ViTConfig, ViTModel, ViTPreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import SemanticSegmenterOutput
from transformers.models.vit.modeling_vit import ViTLayer


class SegmenterConfig(ViTConfig):
    """Configuration of a dense Segmenter: that of its ViT, with ``num_labels`` classes and the mask transformer.

    Layers of the mask transformer are as wide and have as many heads as those of the backbone. Published models
    are trained with a ``decoder_dropout`` of 0.1.

    :param decoder_layers: of the mask transformer
    :param decoder_dropout: in the mask transformer, where ``hidden_dropout_prob`` is that of the backbone
    """

    model_type = "upop_segmenter_dense"

    image_size: int = 512
    patch_size: int = 16
    layer_norm_eps: float = 1e-5
    decoder_layers: int = 2
    decoder_dropout: float = 0.0


class MaskTransformer(nn.Module):
    """The decoder: patches and class embeddings attend to each other, and their similarity is the mask."""

    def __init__(self, config: SegmenterConfig) -> None:
        super().__init__()
        width, classes = config.hidden_size, config.num_labels
        self.input_projection = nn.Linear(width, width)
        self.class_embeddings = nn.Parameter(torch.zeros(1, classes, width))
        self.layers = nn.ModuleList([_decoder_layer(config) for _ in range(config.decoder_layers)])
        self.layernorm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.patch_projection = nn.Parameter(torch.zeros(width, width))
        self.class_projection = nn.Parameter(torch.zeros(width, width))
        self.mask_layernorm = nn.LayerNorm(classes)

    def forward(self, patches: Tensor) -> Tensor:
        """Logits of each patch, (b, patches, classes), from the backbone's (b, patches, width)."""
        count = patches.shape[1]
        embeddings = self.class_embeddings.expand(len(patches), -1, -1)
        hidden = torch.cat([self.input_projection(patches), embeddings], 1)
        for layer in self.layers:
            hidden = layer(hidden)
        hidden = self.layernorm(hidden)
        found = functional.normalize(hidden[:, :count] @ self.patch_projection, dim=-1)
        wanted = functional.normalize(hidden[:, count:] @ self.class_projection, dim=-1)
        masks: Tensor = self.mask_layernorm(found @ wanted.transpose(1, 2))
        return masks


class Segmenter(ViTPreTrainedModel):
    """Classes of pixels: ``logits`` of the size of the image."""

    config_class = SegmenterConfig

    def __init__(self, config: SegmenterConfig) -> None:
        super().__init__(config)
        self.vit = ViTModel(config, add_pooling_layer=False)
        self.decoder = MaskTransformer(config)
        self.post_init()

    def forward(self, pixel_values: Tensor) -> SemanticSegmenterOutput:
        """Segment images.

        :param pixel_values: (b, 3, H, W) of any size; it is padded with zeros at the right and the bottom to a
            multiple of the patch size, and positions are interpolated where the grid is not the configured one
        :returns: ``logits`` (b, classes, H, W), those of patches interpolated bilinearly
        """
        height, width = pixel_values.shape[-2:]
        patch = self.config.patch_size
        padded = functional.pad(pixel_values, (0, -width % patch, 0, -height % patch))
        grid = (padded.shape[-2] // patch, padded.shape[-1] // patch)
        # the class token is of no use to the decoder
        patches = self.vit(padded, interpolate_pos_encoding=True).last_hidden_state[:, 1:]
        masks = self.decoder(patches).transpose(1, 2).unflatten(2, grid)
        logits = functional.interpolate(masks, padded.shape[-2:], mode="bilinear", align_corners=False)
        return SemanticSegmenterOutput(logits=logits[..., :height, :width])

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, MaskTransformer):
            init.trunc_normal_(module.class_embeddings, std=self.config.initializer_range)
            for projection in (module.patch_projection, module.class_projection):
                init.normal_(projection, std=self.config.hidden_size**-0.5)


def _decoder_layer(config: SegmenterConfig) -> ViTLayer:
    layer = ViTLayer(config)
    # it shares the config of the backbone, which the attention implementation is switched by
    layer.attention.attention_dropout = config.decoder_dropout
    layer.dropout = nn.Dropout(config.decoder_dropout)
    # published: also between the layers of the MLP
    layer.mlp.activation_fn = nn.Sequential(layer.mlp.activation_fn, nn.Dropout(config.decoder_dropout))
    return layer
