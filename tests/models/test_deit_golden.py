"""A tiny DeiT of the published code in fp64: our loader, gates and slice reproduce its outputs and gate gradients."""

import copy
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from transformers import ViTForImageClassification

from tests.slicing import masked
from upop_ray.models.vit import SPEC
from upop_ray.models.vit_names import vit_of_state
from upop_ray.pruning.gates import Gates

PATH = Path(__file__).parents[1] / "golden" / "forward_deit.npz"


def arrays(prefix: str = "") -> dict[str, Tensor]:
    """Golden arrays whose names start so, by the rest of their names."""
    with np.load(PATH) as file:
        return {
            name.removeprefix(prefix): torch.from_numpy(file[name]) for name in file.files if name.startswith(prefix)
        }


def by_site(prefix: str) -> dict[str, Tensor]:
    """Arrays of ``blocks.i.attn.alpha`` and ``blocks.i.mlp.alpha`` under the names of sites."""
    return {name.replace("blocks.", "vision.").removesuffix(".alpha"): value for name, value in arrays(prefix).items()}


def golden_deit() -> ViTForImageClassification:
    """The golden weights; heads are 16 wide."""
    return vit_of_state(arrays("weight/"), PATH, head_width=16).double()


def logits(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return SPEC.outputs(model, {"pixel_values": arrays("input/")["images"]})[0]


def furthest(first: Tensor, second: Tensor) -> float:
    return (first - second).abs().max().item()


def test_gates_of_one_give_the_published_outputs() -> None:
    assert furthest(logits(golden_deit()), arrays()["out_alpha_one"]) < 1e-9


def test_random_gates_give_the_published_outputs_loss_and_gradients() -> None:
    model, inputs, expected = golden_deit(), arrays("input/"), arrays("rand/")
    gates = Gates(model, SPEC.sites(model))
    gates.attach(model)
    gates.load(by_site("rand/alpha/"), {name: torch.zeros_like(gate) for name, gate in gates.tensors.items()})
    output = SPEC.outputs(model, {"pixel_values": inputs["images"]})[0]
    loss = nn.functional.cross_entropy(output, inputs["targets"])
    loss.backward()
    assert furthest(output, expected["out"]) < 1e-9
    assert furthest(loss, expected["loss"]) < 1e-9
    gradients = by_site("rand/grad/")
    assert set(gradients) == set(gates.tensors)
    for name, score in gates.scores().items():
        assert furthest(score, gradients[name]) < 1e-9, name


def test_the_slice_gives_the_outputs_that_the_published_code_masks_and_compresses_to() -> None:
    model, expected = golden_deit(), arrays("binary/")
    keep = {name: alpha == 1 for name, alpha in by_site("binary/alpha/").items()}
    assert all(0 < int(mask.sum()) < len(mask) for mask in keep.values())
    reference = logits(masked(SPEC, model, keep))
    sliced = logits(SPEC.sliced(model, copy.deepcopy(model.state_dict()), keep))
    assert furthest(reference, expected["out_masked"]) < 1e-9
    assert furthest(sliced, reference) < 1e-12
    # with the bias that the published compression loses given back
    assert furthest(sliced, expected["out_ref_compressed_with_true_qkv_bias"]) < 1e-9
