"""Folders that bring their own code: it is this package's, needs nothing of it, and computes the same."""

import ast
import copy
import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
import venv
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from tests.deploy.card_lines import WRITTEN, card_script, settings, task_writes
from tests.deploy.exports import NAMES, subject
from upop_ray.deploy import outside
from upop_ray.deploy.bundle import bundle
from upop_ray.deploy.checks import remote_code_difference
from upop_ray.deploy.padded import padded
from upop_ray.deploy.remote_code import autos_of, code_of, write_remote_code
from upop_ray.deploy.samples import samples
from upop_ray.deploy.subject import Subject, open_subject
from upop_ray.errors import CheckpointError
from upop_ray.models import clip
from upop_ray.models.blip import vqa
from upop_ray.pruning.site import keep_all


def of_a_task(name: str) -> Subject:
    """The subject of a name, where it writes as of a point with settings of its own."""
    found = subject(name)
    if found.family not in WRITTEN:
        return found
    return dataclasses.replace(found, manifest={"settings": {"task": settings(found.family)}})


def run_alone(file: Path) -> ModuleType:
    """A generated file as a module."""
    spec = importlib.util.spec_from_file_location(f"alone_{file.stem}_{id(file)}", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def loaded(folder: Path) -> PreTrainedModel:
    """The model of a folder by the code in it."""
    config = json.loads((folder / "config.json").read_text())
    module, _, name = config["auto_map"]["AutoModel"].partition(".")
    found: PreTrainedModel = getattr(run_alone(folder / f"{module}.py"), name).from_pretrained(folder)
    return found.eval()


#: others run with the slow tests, where a clean environment loads every family
QUICK = ("clip", "siglip", "deit", "blip_vqa", "blip_nlvr")


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in NAMES]
)
def test_the_code_in_the_folder_computes_what_the_model_does(name: str, tmp_path: Path) -> None:
    found = subject(name)
    write_remote_code(found.model, found.folder, tmp_path)
    model = loaded(tmp_path)
    assert not [each for each in type(model).__mro__ if each.__module__.startswith("upop_ray")]
    inputs = samples(found.family, found.model, found.processor, 3)
    expected = outside.observed(found.model, found.processor, inputs)
    written = outside.observed(model, found.processor, inputs)
    assert expected.keys() == written.keys()
    assert all(torch.equal(expected[key], written[key]) for key in expected)


@pytest.mark.parametrize("name", NAMES)
def test_the_code_needs_torch_and_transformers_alone(name: str) -> None:
    tree = ast.parse(code_of(subject(name).model))
    needed = {node.module.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    needed |= {
        alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    }
    assert needed - set(sys.stdlib_module_names) <= {"torch", "transformers"}


def test_definitions_are_copied_as_they_are_written() -> None:
    source = Path(clip.__file__).read_text()
    begin = source.index("class SlicedCLIPModel")
    definition = source[begin : source.index("def register")].rstrip()
    made = bundle([clip.SlicedCLIPConfig, clip.SlicedCLIPModel], "Title.", ("1", "2"))
    assert definition in made
    # what the class does not use stays behind
    assert "def load_clip" not in made and "def clip_sites" in made


def test_auto_classes_are_those_that_the_family_registered() -> None:
    assert autos_of(subject("blip_vqa").model) == ("AutoModel", "AutoModelForVisualQuestionAnswering")
    assert autos_of(subject("blip_nlvr").model) == ("AutoModel",)
    assert vqa.SlicedBlipVqa is type(subject("blip_vqa").model)


def test_files_of_the_model_are_copied_byte_for_byte(tmp_path: Path) -> None:
    found = subject("vit")
    write_remote_code(found.model, found.folder, tmp_path)
    changed = {"config.json"}
    for file in found.folder.iterdir():
        assert ((tmp_path / file.name).read_bytes() == file.read_bytes()) == (file.name not in changed), file.name


def test_what_is_made_of_an_export_names_no_code_but_its_own(tmp_path: Path) -> None:
    found = subject("deit")
    for name in ("export", "again", "stock", "pruned"):
        (tmp_path / name).mkdir()
    write_remote_code(found.model, found.folder, tmp_path / "export")
    opened = open_subject(str(tmp_path / "export"), "results", tmp_path)
    padded(opened.family, opened.model).save_pretrained(tmp_path / "stock")
    keep = keep_all(opened.spec.sites(opened.model))
    opened.spec.sliced(opened.model, opened.model.state_dict(), keep).save_pretrained(tmp_path / "pruned")
    write_remote_code(opened.model, opened.folder, tmp_path / "again")
    named = {
        name: json.loads((tmp_path / name / "config.json").read_text()).get("auto_map", {}).get("AutoModel")
        for name in ("export", "again", "stock", "pruned")
    }
    own = f"modeling_upop_deit.{type(found.model).__name__}"
    assert named == {"export": own, "again": own, "stock": None, "pruned": None}
    assert not list((tmp_path / "stock").glob("*.py"))


def test_a_process_without_this_package_loads_it_and_writes_the_same_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = subject("blip_caption")
    write_remote_code(found.model, found.folder, tmp_path)
    # torch is where the environment says, as it is in a user's own site-packages; so is upop_ray, which is not seen
    venv.create(tmp_path / "bare")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, sys.path)]))
    assert remote_code_difference(found, tmp_path, str(tmp_path / "bare" / "bin" / "python")) == 0


def test_a_process_that_takes_too_long_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("upop_ray.deploy.checks._SECONDS", 0.01)
    with pytest.raises(CheckpointError, match=r"was not loaded without upop_ray within 0\.01 s, so it is not exported"):
        remote_code_difference(subject("vit"), tmp_path)


def test_a_folder_with_other_weights_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = subject("vit")
    inputs = samples("vit", found.model, found.processor, 3)
    other = outside.observed(found.model, found.processor, inputs)
    other["logits"] = other["logits"] + 1e-2
    monkeypatch.setattr("upop_ray.deploy.checks.observed_outside", lambda *_: other)
    with pytest.raises(CheckpointError, match=r"logits differs .* not exported"):
        remote_code_difference(found, tmp_path)
    other["logits"] = torch.full_like(other["logits"], torch.nan)
    with pytest.raises(CheckpointError, match="not exported"):
        remote_code_difference(found, tmp_path)


@pytest.mark.slow
def test_a_folder_that_does_not_load_is_told_by_the_error_of_its_code(tmp_path: Path) -> None:
    found = subject("deit")
    write_remote_code(found.model, found.folder, tmp_path)
    (code,) = tmp_path.glob("modeling_*.py")
    code.write_text("import upop_ray\n" + code.read_text())
    with pytest.raises(CheckpointError, match=r"does not load without upop_ray: .*upop_ray"):
        remote_code_difference(found, tmp_path)


@pytest.fixture(scope="module")
def clean_python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Python with transformers and torch in the versions of this one, and what transformers' processors need."""
    folder = tmp_path_factory.mktemp("clean") / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    pins = Path(__file__).parents[2] / "cluster" / "constraints.txt"
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "-c", str(pins)]
    subprocess.run(
        [*pip, "torch", "transformers", "pillow", "sentencepiece", "protobuf"],
        check=True,
        env=os.environ | {"PYTHONPATH": ""},
    )
    return str(folder / "bin" / "python")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_clean_environment_of_transformers_and_torch_loads_it(name: str, tmp_path: Path, clean_python: str) -> None:
    assert subprocess.run([clean_python, "-c", "import upop_ray"], capture_output=True, cwd=tmp_path).returncode == 1
    found = subject(name)
    write_remote_code(found.model, found.folder, tmp_path)
    assert remote_code_difference(found, tmp_path, clean_python) <= 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_lines_on_the_card_run_in_a_clean_environment(name: str, tmp_path: Path, clean_python: str) -> None:
    found = of_a_task(name)
    (tmp_path / "export").mkdir()
    write_remote_code(found.model, found.folder, tmp_path / "export")
    script = card_script(found, found.model, tmp_path / "export", stock=False)
    environment = os.environ | {"HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""}
    ran = subprocess.run([clean_python, "-c", script], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    # nothing else is said, and nothing asked
    assert ran.stdout.strip() == (task_writes(found, tmp_path) if found.family in WRITTEN else "")


@pytest.mark.parametrize("name", ["clip", "blip_retrieval", "blip_caption"])
def test_the_lines_on_the_card_of_a_stock_model_run(name: str, tmp_path: Path) -> None:
    found, names = of_a_task(name), dict[str, Any]()
    padded(found.family, found.model).save_pretrained(tmp_path / "export")
    found.processor.save_pretrained(tmp_path / "export")
    exec(card_script(found, padded(found.family, found.model), tmp_path / "export", stock=True), names)
    if found.family in WRITTEN:
        assert names[WRITTEN[found.family]] == task_writes(found, tmp_path)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("name", WRITTEN)
def test_the_lines_on_the_card_write_what_the_task_does(name: str, known: bool, tmp_path: Path) -> None:
    found = of_a_task(name) if known else subject(name)
    model: Any = copy.deepcopy(found.model)
    if name == "blip_vqa":
        # as it was trained it hardly minds whether questions begin with [ENC]
        torch.manual_seed(0)
        torch.nn.init.normal_(model.text_encoder.embeddings.word_embeddings.weight[-1:].data)
    found = dataclasses.replace(found, model=model)
    script = card_script(found, model, tmp_path / "export", stock=False)
    # the model and the processor are there already
    lines = [line for line in script.splitlines() if "from_pretrained(" not in line]
    names = {"model": model, "processor": found.processor}
    exec("\n".join(lines), names)
    assert names[WRITTEN[name]] == task_writes(found, tmp_path) != ""
