"""The latency of a tiny CLIP as a user asks for it, and what cannot be measured is said."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel, AutoProcessor

from tests.test_commands import refused
from upop_ray import bench
from upop_ray.deploy import latency_backends
from upop_ray.deploy.latency_backends import onnx, variant_of
from upop_ray.errors import ConfigError, StoreError
from upop_ray.models.clip import SPEC
from upop_ray.pruning.site import keep_all
from upop_ray.store import PointPaths, Store

QUICK = ("--seconds", "0.01", "--threads", "1", "--batches", "1", "2")
HASH = "0123456789abcdef"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, clip_folder: Path) -> Path:
    """A store with one finished point, of half of each site."""
    root = tmp_path_factory.mktemp("bench") / "store"
    model = AutoModel.from_pretrained(clip_folder)
    sites = SPEC.sites(model)
    keep = {name: torch.arange(len(mask)) % 2 == 0 for name, mask in keep_all(sites).items()}
    folder = root / PointPaths(HASH).model
    SPEC.sliced(model, model.state_dict(), keep).save_pretrained(folder)
    AutoProcessor.from_pretrained(clip_folder).save_pretrained(folder)
    settings = {"model": {"family": "clip", "path": str(clip_folder)}}
    Store(str(root)).write_json(PointPaths(HASH).manifest, {"hash": HASH, "settings": settings})
    return root


def stored(store: Path) -> bytes | None:
    file = store / PointPaths(HASH).latency
    return file.read_bytes() if file.exists() else None


def measured(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert bench.main([*arguments, *QUICK, "--json"]) == 0
    return dict(json.loads(capsys.readouterr().out))


def test_a_point_is_measured_beside_its_dense_model_and_the_result_is_stored(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = measured(capsys, HASH[:5], "--store", str(store), "--backends", "eager")
    cases = [(row["backend"], row["precision"], row["batch"]) for row in found["rows"]]
    assert cases == [("eager", precision, batch) for precision in ("fp32", "bf16") for batch in (1, 2)]
    assert all(not row["problem"] and row["rounds"] >= 10 and row["speedup"]["median"] > 0 for row in found["rows"])
    assert found["macs"]["sliced"] < found["macs"]["dense"] and found["threads"] == 1
    assert found["headline"]["milliseconds"] == found["rows"][0]["sliced"]["median"]
    assert Store(str(store)).read_json(PointPaths(HASH).latency) == found


def test_a_folder_alone_has_times_and_no_verdict(clip_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = measured(capsys, str(clip_folder), "--backends", "eager", "--precisions", "fp32")
    assert found["verdicts"] == [] and found["rows"][0]["dense"] is None and found["rows"][0]["sliced"]["median"] > 0


def test_the_table_says_on_what_it_was_measured(
    store: Path, clip_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(store / PointPaths(HASH).model)
    before = stored(store)
    arguments = [folder, "--against", str(clip_folder), *QUICK, "--backends", "eager", "--precisions", "fp32"]
    assert bench.main(arguments) == 0
    text = capsys.readouterr().out
    assert "1 thread a call; load " in text and "of the MACs (at best " in text and "speed-up (95%)" in text
    # another model than the point was made of would be shown as that
    assert f"not stored: measured against {clip_folder}" in text and stored(store) == before


def test_a_backend_that_fails_is_a_row_that_says_why(
    store: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(variant: object) -> object:
        raise RuntimeError("No working C++ compiler found\nat length")

    monkeypatch.setitem(latency_backends.BACKENDS, "compile", broken)  # type: ignore[arg-type]
    arguments = [HASH, "--store", str(store), *QUICK, "--backends", "compile", "eager", "--precisions", "fp32"]
    assert bench.main(arguments) == 0
    text = capsys.readouterr().out
    assert "not measured: compile fp32 batch 1: RuntimeError: No working C++ compiler found\n" in text
    assert "eager fp32" in text.splitlines()[-2]
    before = stored(store)
    assert "--backends: none of them could be measured" in refused(bench.main, *arguments, "--backends", "compile")
    assert "not measured: compile fp32 batch 2" in capsys.readouterr().out and stored(store) == before


def test_what_was_measured_is_shown_also_when_the_store_refuses_it(
    store: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise StoreError("the store is full")

    monkeypatch.setattr(Store, "write_json", full)
    arguments = [HASH, "--store", str(store), *QUICK, "--backends", "eager", "--precisions", "fp32"]
    for form in ([], ["--json"]):
        assert "the store is full" in refused(bench.main, *arguments, *form)
        text = capsys.readouterr().out
        assert json.loads(text)["headline"] if form else "speed-up (95%)" in text


def test_what_is_timed_is_the_forward_pass_on_so_many_examples(clip_folder: Path) -> None:
    model = AutoModel.from_pretrained(clip_folder)
    variant = variant_of(SPEC, model, "bf16", torch.device("cpu"))
    batch = variant.batch(3)
    assert batch["pixel_values"].shape[0] == 3 and batch["pixel_values"].dtype == torch.bfloat16
    assert batch["input_ids"].dtype == torch.long
    assert variant.forward(batch)[0].dtype == torch.bfloat16
    # the model itself is as it was
    assert model.dtype == torch.float32


def test_onnx_is_not_measured_in_other_precisions(clip_folder: Path) -> None:
    model = AutoModel.from_pretrained(clip_folder)
    with pytest.raises(ConfigError, match="onnx is measured on the CPU in fp32, not cpu bf16"):
        onnx(variant_of(SPEC, model, "bf16", torch.device("cpu")))


@pytest.mark.slow
def test_compiled_and_in_onnx_runtime(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = measured(capsys, HASH, "--store", str(store), "--backends", "compile", "onnx")
    cases = [("compile", p, b) for p in ("fp32", "bf16") for b in (1, 2)] + [("onnx", "fp32", b) for b in (1, 2)]
    assert [(row["backend"], row["precision"], row["batch"]) for row in found["rows"]] == cases
    assert not [row["problem"] for row in found["rows"] if row["problem"]]
    assert all(row["rounds"] >= 10 and row["speedup"]["median"] > 0 for row in found["rows"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["/nowhere/at/all"], ["/nowhere/at/all", "hash"]),
        (["abcd"], ["holds no point 'abcd'", "--store"]),
        ([HASH, "--against", "/nowhere"], ["/nowhere", "builtin:clip"]),
        ([HASH, "--precisions", "fp16", "--device", "cpu"], ["--precisions", "fp16", "bf16"]),
        ([HASH, "--backends", "onnx", "--precisions", "bf16"], ["--precisions", "onnx is measured in fp32", "bf16"]),
    ],
)
def test_bad_input_is_one_line(store: Path, arguments: list[str], words: list[str]) -> None:
    line = refused(bench.main, *arguments, "--store", str(store))
    assert all(word in line for word in words), line


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    assert f"{tmp_path}/config.json" in refused(bench.main, str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    assert "'gpt2'" in refused(bench.main, str(tmp_path))
    (tmp_path / "config.json").write_text("[1]")
    assert f"{tmp_path}/config.json" in refused(bench.main, str(tmp_path))
