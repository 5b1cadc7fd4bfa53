"""A transformers folder that brings the code of its classes, for environments without this package."""

import importlib.metadata
import json
import shutil
from pathlib import Path

import transformers
from transformers import PreTrainedModel

from upop_ray.deploy.bundle import PACKAGE, bundle

#: Auto classes that families make their models known to
_AUTOS = (
    "AutoModel",
    "AutoModelForImageClassification",
    "AutoModelForImageTextToText",
    "AutoModelForSemanticSegmentation",
    "AutoModelForVisualQuestionAnswering",
    "AutoModelForZeroShotImageClassification",
)
#: of a model folder, what another program has no use for
_LEFT = ("pretrain.json",)


def code_of(model: PreTrainedModel) -> str:
    """Source text with the class of a model and of its config."""
    version = importlib.metadata.version(PACKAGE)
    title = f"{type(model).__name__}: a model that UPop has made smaller, for transformers' Auto classes."
    return bundle([type(model.config), type(model)], title, (version, transformers.__version__))


def autos_of(model: PreTrainedModel) -> tuple[str, ...]:
    """Names of the Auto classes that give a model of this class for its config."""
    config = type(model.config)
    known = {name: getattr(transformers, name)._model_mapping.get(config, None) for name in _AUTOS}
    return tuple(name for name, target in known.items() if target is type(model))


def write_remote_code(model: PreTrainedModel, source: Path, target: Path) -> None:
    """Copy a model folder, with the code of its classes and a config that names it.

    :param source: as ``save_pretrained`` wrote it; weights, tokenizer and processor stay as they are, byte for byte
    """
    for file in sorted(path for path in source.iterdir() if path.is_file() and path.name not in _LEFT):
        shutil.copyfile(file, target / file.name)
    module = f"modeling_{type(model.config).model_type}"
    (target / f"{module}.py").write_text(code_of(model))
    config = json.loads((target / "config.json").read_text())
    names = {"AutoConfig": type(model.config).__name__} | dict.fromkeys(autos_of(model), type(model).__name__)
    config["auto_map"] = {auto: f"{module}.{name}" for auto, name in names.items()}
    (target / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
