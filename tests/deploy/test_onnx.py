"""ONNX files compute what the model does, at batch sizes and on texts that were not traced."""

import copy
import dataclasses
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from tests.deploy.exports import NAMES, subject
from upop_ray.deploy import checks
from upop_ray.deploy.checks import BATCHES, write_onnx
from upop_ray.deploy.graphs import described, graphs
from upop_ray.deploy.onnx import PARITY_TOLERANCE, Graph, parity, require_onnx, session, to_onnx, whole
from upop_ray.deploy.samples import samples
from upop_ray.errors import CheckpointError, ConfigError


class Mixed(nn.Module):
    """A layer over all tokens of each text."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, states: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = self.layer(states)
        return hidden, (hidden * mask[..., None]).sum(1)


def mixed(module: nn.Module, rows: int, tokens: int) -> Graph:
    generator = torch.Generator().manual_seed(rows)
    inputs = {"states": torch.randn(rows, tokens, 4, generator=generator), "mask": torch.ones(rows, tokens)}
    return Graph("mixed", module, inputs, ("hidden", "total"), ("states", "mask"))


def test_rows_and_tokens_of_a_file_are_free(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, path = Mixed(), tmp_path / "mixed.onnx"
    to_onnx(mixed(module, 2, 5), path)
    onnx.checker.check_model(path)
    assert parity([mixed(module, rows, tokens) for rows, tokens in ((1, 5), (3, 2), (7, 9))], path) < 1e-6
    found = session(path).run(["total"], {k: v.numpy() for k, v in mixed(module, 1, 2).inputs.items()})
    assert np.allclose(found[0], module(*mixed(module, 1, 2).inputs.values())[1].detach().numpy(), atol=1e-6)
    with torch.no_grad():
        module.layer.bias[0] += 1
    # what was changed since is found, and in which size: of outputs that are larger than 1, a share
    assert parity([mixed(module, 1, 5)], path) > 0.1


def test_a_missing_package_is_one_line_with_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ConfigError, match=r'onnxscript is not installed; pip install "upop_ray\[export\]"'):
        require_onnx()


@pytest.mark.parametrize("wrong", [1.0, torch.nan])
def test_a_file_that_differs_or_gives_no_number_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: float
) -> None:
    module = Mixed()

    def written_wrong(graph: Graph, path: Path) -> None:
        other = copy.deepcopy(module)
        other.layer.bias.data[0] = wrong
        to_onnx(dataclasses.replace(graph, module=other), path)

    monkeypatch.setattr(checks, "samples", lambda family, model, processor, count: count)
    monkeypatch.setattr(checks, "graphs", lambda family, model, count: (mixed(module, count, 5),))
    monkeypatch.setattr(checks, "to_onnx", written_wrong)
    with pytest.raises(CheckpointError, match=r"mixed\.onnx: ONNX Runtime differs .*: not exported"):
        write_onnx(subject("vit"), tmp_path / "onnx")
    assert not parity([mixed(module, 3, 5)], tmp_path / "onnx" / "mixed.onnx") < 0.1


@pytest.mark.parametrize("name", NAMES)
def test_parts_put_together_are_the_model(name: str) -> None:
    """The last part of each family gives what the whole forward pass does."""
    found = subject(name)
    batch = samples(found.family, found.model, found.processor, 3)
    parts = graphs(found.family, found.model, batch)
    with torch.no_grad():
        expected = found.spec.outputs(found.model, batch)[-1]
        last = parts[-1].module(*parts[-1].inputs.values())
    assert torch.allclose(last if isinstance(last, torch.Tensor) else last[-1], expected, atol=1e-5)
    assert all(f"onnx/{part.name}.onnx" in described(parts) for part in parts)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_family_passes_parity_on_real_inputs(name: str, tmp_path: Path) -> None:
    written, worst = write_onnx(subject(name), tmp_path / "onnx")
    assert worst <= PARITY_TOLERANCE
    assert {file.name for file in (tmp_path / "onnx").iterdir()} == {f"{graph.name}.onnx" for graph in written}
    assert 2 not in BATCHES


@pytest.mark.slow
@torch.no_grad()
def test_a_loop_around_the_decoder_writes_what_generate_does(tmp_path: Path) -> None:
    found, tokens = subject("blip_caption"), 6
    write_onnx(found, tmp_path / "onnx")
    image, decoder = (session(tmp_path / "onnx" / f"{name}.onnx") for name in ("image", "decoder"))
    pixels = samples("blip_caption", found.model, found.processor, 4)["pixel_values"]
    (states,) = image.run(None, {"pixel_values": pixels.numpy()})
    ids = np.full((4, 1), found.model.config.text_config.bos_token_id, dtype=np.int64)
    for _ in range(tokens):
        inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "image_states": states}
        (logits,) = decoder.run(None, inputs)
        ids = np.concatenate([ids, logits[:, -1].argmax(-1)[:, None]], axis=1)
    # no end, so that both write as many
    expected = found.model.generate(pixels, max_new_tokens=tokens, min_new_tokens=tokens, num_beams=1, do_sample=False)
    ended = found.model.config.text_config.sep_token_id
    for own, theirs in zip(ids.tolist(), expected.tolist(), strict=True):
        length = own.index(ended) if ended in own else len(own)
        assert own[:length] == theirs[:length]


@pytest.mark.slow
def test_the_whole_forward_pass_is_one_file(tmp_path: Path) -> None:
    found = subject("deit")
    inputs = [samples("vit", found.model, found.processor, count) for count in (2, 5)]
    traced, other = (whole(found.spec, found.model, batch, 1) for batch in inputs)
    to_onnx(traced, tmp_path / "model.onnx")
    assert parity([other], tmp_path / "model.onnx") < 1e-5
