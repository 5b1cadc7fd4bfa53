"""Segmenter: the published network by other means, the exact slice, and what the paper counts."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import AutoModel, AutoModelForSemanticSegmentation, ViTConfig, ViTImageProcessorPil, ViTModel

from tests.slicing import (
    TOLERANCE,
    assert_drops_by_unit_costs,
    assert_sliced_equals_masked,
    difference,
    enliven,
    masked,
    random_keep,
)
from upop_ray.errors import CheckpointError
from upop_ray.models.segmenter import SPEC, Segmenter, SegmenterConfig, SlicedSegmenter, load_segmenter
from upop_ray.models.segmenter.names import load_original
from upop_ray.models.spec import Source
from upop_ray.pruning.cost import count_parameters, parameters_per_unit, unit_costs
from upop_ray.pruning.ranking import Ranking, keep_masks
from upop_ray.pruning.site import kept_counts

WIDTH, PATCH, SIDE, CLASSES, LAYERS, HEAD_WIDTH = 32, 8, 32, 5, 3, 16


@pytest.fixture
def model() -> Segmenter:
    """A tiny Segmenter."""
    config = SegmenterConfig(
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=WIDTH // HEAD_WIDTH,
        image_size=SIDE,
        patch_size=PATCH,
        num_labels=CLASSES,
    )
    torch.manual_seed(0)
    segmenter = Segmenter(config).eval()
    enliven(segmenter)
    return segmenter


def images(side: tuple[int, int] = (SIDE, SIDE)) -> Tensor:
    return torch.randn(2, 3, *side, generator=torch.Generator().manual_seed(1))


def original_state(layers: int = LAYERS, decoder_layers: int = 2) -> dict[str, Tensor]:
    """Random weights of a tiny Segmenter under the names and in the shapes of its authors' files."""
    shapes: dict[str, tuple[int, ...]] = {
        "encoder.cls_token": (1, 1, WIDTH),
        "encoder.pos_embed": (1, 1 + (SIDE // PATCH) ** 2, WIDTH),
        "encoder.patch_embed.proj.weight": (WIDTH, 3, PATCH, PATCH),
        "encoder.patch_embed.proj.bias": (WIDTH,),
        "encoder.head.weight": (1000, WIDTH),
        "encoder.head.bias": (1000,),
        "decoder.cls_emb": (1, CLASSES, WIDTH),
        "decoder.proj_dec.weight": (WIDTH, WIDTH),
        "decoder.proj_dec.bias": (WIDTH,),
        "decoder.proj_patch": (WIDTH, WIDTH),
        "decoder.proj_classes": (WIDTH, WIDTH),
    }
    norms = {"encoder.norm": WIDTH, "decoder.decoder_norm": WIDTH, "decoder.mask_norm": CLASSES}
    for part, count in (("encoder", layers), ("decoder", decoder_layers)):
        for block in (f"{part}.blocks.{index}" for index in range(count)):
            norms |= {f"{block}.norm1": WIDTH, f"{block}.norm2": WIDTH}
            layer = {"attn.qkv": (3, 1), "attn.proj": (1, 1), "mlp.fc1": (4, 1), "mlp.fc2": (1, 4)}
            for name, (out, fan_in) in layer.items():
                shapes |= {
                    f"{block}.{name}.weight": (out * WIDTH, fan_in * WIDTH),
                    f"{block}.{name}.bias": (out * WIDTH,),
                }
    for name, width in norms.items():
        shapes |= {f"{name}.weight": (width,), f"{name}.bias": (width,)}
    generator = torch.Generator().manual_seed(2)
    return {name: 0.3 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def published_forward(state: dict[str, Tensor], pixels: Tensor) -> Tensor:
    """Logits of a Segmenter computed from its authors' names, for images of the configured size."""

    def norm(x: Tensor, name: str) -> Tensor:
        return functional.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"])

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def block(x: Tensor, name: str) -> Tensor:
        fused = linear(norm(x, f"{name}.norm1"), f"{name}.attn.qkv")
        query, key, value = fused.reshape(*x.shape[:2], 3, -1, HEAD_WIDTH).permute(2, 0, 3, 1, 4)
        weights = (query @ key.transpose(-2, -1) / HEAD_WIDTH**0.5).softmax(-1)
        x = x + linear((weights @ value).transpose(1, 2).reshape(x.shape), f"{name}.attn.proj")
        hidden = functional.gelu(linear(norm(x, f"{name}.norm2"), f"{name}.mlp.fc1"))
        return x + linear(hidden, f"{name}.mlp.fc2")

    def blocks(x: Tensor, part: str) -> Tensor:
        for index in range(sum(name.endswith("norm1.bias") and name.startswith(part) for name in state)):
            x = block(x, f"{part}.blocks.{index}")
        return x

    patch = "encoder.patch_embed.proj"
    x = functional.conv2d(pixels, state[f"{patch}.weight"], state[f"{patch}.bias"], stride=PATCH).flatten(2).mT
    x = torch.cat([state["encoder.cls_token"].expand(len(x), -1, -1), x], 1) + state["encoder.pos_embed"]
    x = linear(norm(blocks(x, "encoder"), "encoder.norm")[:, 1:], "decoder.proj_dec")
    x = torch.cat([x, state["decoder.cls_emb"].expand(len(x), -1, -1)], 1)
    x = norm(blocks(x, "decoder"), "decoder.decoder_norm")
    patches, classes = x[:, :-CLASSES] @ state["decoder.proj_patch"], x[:, -CLASSES:] @ state["decoder.proj_classes"]
    patches, classes = (part / part.norm(dim=-1, keepdim=True) for part in (patches, classes))
    masks = norm(patches @ classes.mT, "decoder.mask_norm").mT.unflatten(2, (SIDE // PATCH, SIDE // PATCH))
    return functional.interpolate(masks, (SIDE, SIDE), mode="bilinear")


@torch.no_grad()
def test_an_original_checkpoint_computes_what_its_authors_do(tmp_path: Path) -> None:
    state = original_state()
    torch.save({"model": state}, tmp_path / "checkpoint.pth")
    loaded = load_original(tmp_path / "checkpoint.pth", HEAD_WIDTH)
    assert not loaded.training
    expected = published_forward(state, images())
    torch.testing.assert_close(loaded(images()).logits, expected, rtol=0, atol=TOLERANCE)
    assert expected.std() > 0.1
    # all but the classifier that nothing uses
    unused = sum(state[f"encoder.head.{kind}"].numel() for kind in ("weight", "bias"))
    assert count_parameters(loaded) == sum(value.numel() for value in state.values()) - unused
    # heads are 64 wide unless said otherwise, which does not fit here
    with pytest.raises(CheckpointError, match="no multiple of the 64 of a head"):
        load_original(tmp_path / "checkpoint.pth")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"decoder.cls_emb": None}, "lacks decoder.cls_emb"),
        ({"encoder.dist_token": torch.zeros(1, 1, WIDTH)}, "distillation token"),
        ({"decoder.proj_patch": None}, "decoder.patch_projection"),
        ({"decoder.extra": torch.zeros(1)}, "decoder.extra"),
    ],
)
def test_other_checkpoints_are_errors_of_one_line(
    tmp_path: Path, change: dict[str, Tensor | None], message: str
) -> None:
    state = {name: value for name, value in (original_state() | change).items() if value is not None}
    torch.save(state, tmp_path / "checkpoint.pth")
    with pytest.raises(CheckpointError, match=message) as caught:
        load_original(tmp_path / "checkpoint.pth", HEAD_WIDTH)
    assert "\n" not in str(caught.value)


@torch.no_grad()
def test_the_backbone_is_a_vit(model: Segmenter) -> None:
    settings = {name: getattr(model.config, name) for name in ("hidden_size", "intermediate_size", "layer_norm_eps")}
    settings |= {"num_hidden_layers": LAYERS, "num_attention_heads": WIDTH // HEAD_WIDTH}
    vit = ViTModel(ViTConfig(**settings, image_size=SIDE, patch_size=PATCH), add_pooling_layer=False).eval()
    vit.load_state_dict(model.vit.state_dict())
    patches = vit(images()).last_hidden_state[:, 1:]
    masks = model.decoder(patches).mT.unflatten(2, (SIDE // PATCH, SIDE // PATCH))
    expected = functional.interpolate(masks, (SIDE, SIDE), mode="bilinear")
    torch.testing.assert_close(model(images()).logits, expected, rtol=0, atol=1e-6)


@torch.no_grad()
def test_images_are_padded_to_whole_patches_and_cropped_again(model: Segmenter) -> None:
    odd = images((29, 21))
    padded = torch.zeros(2, 3, 32, 24)
    padded[:, :, :29, :21] = odd
    assert model(odd).logits.shape == (2, CLASSES, 29, 21)
    torch.testing.assert_close(model(odd).logits, model(padded).logits[:, :, :29, :21])


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_sliced_equals_masked(model: Segmenter, share: float, attention: str) -> None:
    model.set_attn_implementation(attention)
    assert_sliced_equals_masked(SPEC, model, share)


def test_all_that_differs_is_rounding_also_on_images_of_another_size(model: Segmenter) -> None:
    model = model.double()
    keep = random_keep(SPEC.sites(model), 0.0)
    assert set(kept_counts(keep).values()) == {1}
    sliced = SPEC.sliced(model, model.state_dict(), keep)
    for pixels in (images(), images((20, 40))):
        assert difference(SPEC, masked(SPEC, model, keep), sliced, {"pixel_values": pixels.double()}) < 1e-12


def test_parameters_and_macs_fall_by_the_costs_of_units(model: Segmenter) -> None:
    assert_drops_by_unit_costs(SPEC, model)


def test_sites_are_those_of_backbone_and_decoder(model: Segmenter) -> None:
    sites = {site.name: site for site in SPEC.sites(model)}
    layers = [*(f"encoder.{index}" for index in range(LAYERS)), "decoder.0", "decoder.1"]
    assert list(sites) == [f"{layer}.{kind}" for layer in layers for kind in ("attn", "mlp")]
    assert {site.tower for site in sites.values()} == {"vision"}
    # 16 patches with the class token, or with the embeddings of five classes
    assert {slot.tokens for slot in sites["encoder.0.attn"].producers} == {17}
    assert {slot.tokens for slot in sites["decoder.1.mlp"].consumers} == {21}


@torch.no_grad()
def test_dense_and_sliced_load_through_the_auto_classes(model: Segmenter, tmp_path: Path) -> None:
    model.config.id2label = {number: f"class {number}" for number in range(CLASSES)}
    keep = random_keep(SPEC.sites(model), 0.4)
    sliced = SPEC.sliced(model, model.state_dict(), keep)
    for each in (model, sliced):
        folder = tmp_path / type(each).__name__
        each.save_pretrained(folder)
        for auto in (AutoModel, AutoModelForSemanticSegmentation):
            loaded = auto.from_pretrained(folder)
            assert type(loaded) is type(each) and loaded.config.id2label == model.config.id2label
            torch.testing.assert_close(loaded(images()).logits, each(images()).logits)
    assert json.loads((folder / "config.json").read_text())["kept_units"] == kept_counts(keep)
    ViTImageProcessorPil(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)
    again, processor = load_segmenter(Source(folder))
    assert isinstance(again, SlicedSegmenter) and processor.size["height"] == SIDE


@torch.no_grad()
def test_positions_are_interpolated_to_the_asked_image_size(model: Segmenter, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    ViTImageProcessorPil().save_pretrained(tmp_path)
    larger, _ = load_segmenter(Source(tmp_path, image_size=2 * SIDE))
    assert larger.config.image_size == 2 * SIDE
    pixels = images((2 * SIDE, 2 * SIDE))
    # as for a single image of that size
    torch.testing.assert_close(larger(pixels).logits, model(pixels).logits)
    tokens = {site.name: site.producers[0].tokens for site in SPEC.sites(larger)}
    assert tokens["encoder.0.attn"] == 65 and tokens["decoder.0.mlp"] == 64 + CLASSES


def test_the_deployable_model_lacks_the_unused_head() -> None:
    with torch.device("meta"):
        small = SPEC.published["small"]()
    assert count_parameters(small) == pytest.approx(26.034e6, abs=500)


@pytest.mark.parametrize(("ratio", "millions"), [(0.1, 23.94), (0.15, 22.70), (0.2, 21.46), (0.3, 18.98)])
def test_the_papers_units_give_the_published_sizes(ratio: float, millions: float) -> None:
    """Uncompressed 26.42 M less the ratio of the 24.81 M in units, whatever the scores (ALGORITHM, section 6)."""
    with torch.device("meta"):
        small = SPEC.published["small"]()
    sites = SPEC.sites(small)
    ranking = Ranking(sites, unit_costs(small, sites, "units", SPEC.paper_attention_cost), published=True)
    generator = torch.Generator().manual_seed(0)
    keep = keep_masks({site.name: torch.randn(site.units, generator=generator) for site in sites}, ranking, ratio)
    removed = sum(int((~keep[site.name]).sum()) * parameters_per_unit(small, site) for site in sites)
    assert SPEC.paper_size is not None
    assert (SPEC.paper_size(small).parameters - removed) / 1e6 == pytest.approx(millions, abs=0.01)
