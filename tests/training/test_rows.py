"""Each row of the paper's table through one point: searched, sliced, retrained, exported, resumed, taught."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel

from tests.rows import ROWS, row_experiment
from tests.training.test_point import begin, manifest_of, results
from upop_ray.models import MODELS
from upop_ray.models.spec import Source
from upop_ray.pruning.cost import count_parameters
from upop_ray.store import PointPaths, Store
from upop_ray.training.prepared import prepare


@pytest.mark.parametrize("name", ROWS)
def test_a_point_is_exact_meets_its_budget_and_loads(name: str, tmp_path: Path) -> None:
    distill = {"weight": 0.5, "temperature": 2.0}
    experiment = row_experiment(name, tmp_path, distill=distill, data={"workers": 1})
    manifest = manifest_of(experiment)
    folder = Store(experiment.store).path(PointPaths(manifest["hash"]).model)
    model = AutoModel.from_pretrained(folder)
    removed = manifest["budget"]["removed"]["params"]
    # logits of the Segmenter are the largest, and so is their rounding
    assert manifest["checks"]["masked_vs_sliced"] <= (2e-5 if name == "segmenter" else 1e-5)
    assert removed / manifest["budget"]["removable"]["params"] == pytest.approx(0.5, abs=0.005)
    assert count_parameters(model) == manifest["dense"]["parameters"] - removed
    assert prepare(experiment).task().evaluate(model, "test") == manifest["metrics"]["test"]
    # what was exported is a model that can be pruned again
    again, _ = MODELS[experiment.model.family].load(Source(Path(folder)))
    kept = {site.name: site.units for site in MODELS[experiment.model.family].sites(again)}
    assert kept == manifest["kept_units"]


@pytest.mark.slow
@pytest.mark.parametrize("reports", [1, 3])
@pytest.mark.parametrize("name", ROWS)
def test_a_killed_point_goes_on_bit_for_bit(name: str, reports: int, tmp_path: Path) -> None:
    undisturbed = row_experiment(name, tmp_path, store=str(tmp_path / "a"), model={"drop_path": 0.2})
    manifest_of(undisturbed)
    # with batches from another process besides
    killed = row_experiment(name, tmp_path, store=str(tmp_path / "b"), model={"drop_path": 0.2}, data={"workers": 1})
    steps = begin(killed)
    for _ in range(reports):
        next(steps)
    del steps
    manifest_of(killed)
    metrics, weights = results(undisturbed)
    resumed_metrics, resumed_weights = results(killed)
    assert resumed_metrics == metrics
    assert all(torch.equal(resumed_weights[key], value) for key, value in weights.items())


@pytest.mark.parametrize("method", ["mask", "magnitude"])
def test_drop_path_changes_what_is_trained_and_nothing_else(method: str, tmp_path: Path) -> None:
    search = {"method": method, "ratio": 0.5}
    plain = row_experiment("vit", tmp_path, search=search)
    dropping = row_experiment("vit", tmp_path, search=search, model={"drop_path": 0.2})
    manifests = [manifest_of(plain), manifest_of(dropping)]
    assert manifests[0]["hash"] != manifests[1]["hash"]
    assert all(manifest["checks"]["masked_vs_sliced"] <= 1e-5 for manifest in manifests)
    assert manifests[0]["dense"] == manifests[1]["dense"]
    # gates that learn otherwise choose other units
    assert all(manifest["budget"]["achieved"] == pytest.approx(0.5, abs=0.005) for manifest in manifests)
    (_, first), (_, second) = results(plain), results(dropping)
    assert first.keys() == second.keys()
    assert not any(torch.equal(first[key], second[key]) for key in first if key.endswith(".mlp.fc2.bias"))


@pytest.mark.parametrize("method", ["mask", "magnitude"])
def test_baselines_prune_models_of_several_towers(method: str, tmp_path: Path) -> None:
    experiment = row_experiment("blip_nlvr", tmp_path, search={"method": method, "ratio": 0.75})
    manifest = manifest_of(experiment)
    assert manifest["budget"]["achieved"] == pytest.approx(0.75, abs=0.005)
    assert set(manifest["kept_share"]) == {
        f"{tower}/{kind}" for tower, kind in [("vision", "attention"), ("vision", "mlp"), ("language", "attention"),
                                              ("language", "mlp"), ("cross", "attention")]
    }  # fmt: skip


def test_the_tied_weights_of_a_decoder_stay_tied(tmp_path: Path) -> None:
    experiment = row_experiment("blip_caption", tmp_path)
    manifest = manifest_of(experiment)
    folder = Path(Store(experiment.store).path(PointPaths(manifest["hash"]).model))
    model = AutoModel.from_pretrained(folder)
    head, words = model.get_output_embeddings(), model.get_input_embeddings()
    assert head is None or head.weight is words.weight
    # written once
    assert sum(tensor.numel() for tensor in load_file(folder / "model.safetensors").values()) == manifest["parameters"]
