"""A tiny BLIP-NLVR2 of the published code in fp64: loader, gates and slice reproduce its outputs and gate gradients."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.slicing import difference, masked
from upop_ray.models.blip.names import blip_checkpoint
from upop_ray.models.blip.nlvr import SPEC, nlvr_of_blip
from upop_ray.models.blip.twins import BlipNlvr
from upop_ray.pruning.gates import Gates

FOLDER = Path(__file__).parents[1] / "golden"
#: a site of the published model -> the part of our name that follows the layer
SITES = {
    r"visual_encoder\.blocks\.(\d+)\.attn\.alpha": "vision.{}.attn",
    r"visual_encoder\.blocks\.(\d+)\.mlp\.alpha": "vision.{}.mlp",
    r"text_encoder\.encoder\.layer\.(\d+)\.attention\.self\.alpha": "text.{}.attn",
    r"text_encoder\.encoder\.layer\.(\d+)\.crossattention\.self0\.alpha": "text.{}.cross0",
    r"text_encoder\.encoder\.layer\.(\d+)\.crossattention\.self1\.alpha": "text.{}.cross1",
    r"text_encoder\.encoder\.layer\.(\d+)\.intermediate\.alpha": "text.{}.mlp",
}


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    with np.load(FOLDER / "forward_nlvr.npz") as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


@pytest.fixture
def model(golden: dict[str, Tensor], tmp_path: Path) -> BlipNlvr:
    """The golden weights by way of a file in the original format; heads are 16 wide."""
    path = tmp_path / "nlvr.pth"
    torch.save({"model": below(golden, "weight/")}, path)
    return nlvr_of_blip(*blip_checkpoint(path, "nlvr", head_width=16), path).double()


def below(golden: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Arrays whose names start so, by the rest of their names."""
    return {name.removeprefix(prefix): value for name, value in golden.items() if name.startswith(prefix)}


def by_site(golden: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {site_of(name): value for name, value in below(golden, prefix).items()}


def site_of(name: str) -> str:
    return next(ours.format(found[1]) for theirs, ours in SITES.items() if (found := re.fullmatch(theirs, name)))


def inputs(golden: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        "pixel_values": golden["input/images_4_first2_are_image0"],
        "input_ids": golden["input/input_ids"],
        "attention_mask": golden["input/attention_mask"],
    }


def furthest(first: Tensor, second: Tensor) -> float:
    return (first - second).abs().max().item()


def test_gates_of_one_give_the_published_outputs(golden: dict[str, Tensor], model: BlipNlvr) -> None:
    assert (golden["input/attention_mask"] == 0).any()
    Gates(model, SPEC.sites(model)).attach(model)
    with torch.no_grad():
        assert furthest(model(**inputs(golden)).logits, golden["out_alpha_one"]) < 1e-9


def test_random_gates_give_the_published_outputs_loss_and_gradients(golden: dict[str, Tensor], model: BlipNlvr) -> None:
    gates = Gates(model, SPEC.sites(model))
    gates.attach(model)
    gates.load(by_site(golden, "rand/alpha/"), {name: torch.zeros_like(gate) for name, gate in gates.tensors.items()})
    output = model(**inputs(golden)).logits
    loss = nn.functional.cross_entropy(output, golden["input/targets"])
    loss.backward()
    assert furthest(output, golden["rand/out"]) < 1e-9
    assert furthest(loss, golden["rand/loss"]) < 1e-9
    gradients = by_site(golden, "rand/grad/")
    assert set(gradients) == set(gates.tensors)
    for name, score in gates.scores().items():
        assert furthest(score, gradients[name]) < 1e-9, name


def test_the_slice_gives_what_the_published_code_masks_and_not_what_it_compresses_to(
    golden: dict[str, Tensor], model: BlipNlvr
) -> None:
    keep = {name: alpha == 1 for name, alpha in by_site(golden, "binary/alpha/").items()}
    assert all(0 < int(mask.sum()) < len(mask) for mask in keep.values())
    reference, sliced = masked(SPEC, model, keep), SPEC.sliced(model, model.state_dict(), keep)
    with torch.no_grad():
        ours = reference(**inputs(golden)).logits
        assert furthest(ours, golden["binary/out_masked"]) < 1e-9
        assert difference(SPEC, sliced, reference, inputs(golden)) < 1e-12

        compressed = golden["binary/out_ref_compressed_with_true_qkv_bias"]
        stated = json.loads((FOLDER / "forward.json").read_text())["masked_vs_compressed"]["nlvr"]
        assert furthest(ours, compressed) == pytest.approx(stated["after_qkv_bias_fix"], abs=1e-9)

        # its text attention divides by the square root of the kept width, where ours keeps that of the dense width
        for site in SPEC.sites(model):
            if site.kind == "attention" and site.tower != "vision":
                query = sliced.get_submodule(site.producers[0].module)
                for parameter in query.parameters():
                    parameter.mul_((site.units / int(keep[site.name].sum())) ** 0.5)
        assert furthest(sliced(**inputs(golden)).logits, compressed) < 1e-9
