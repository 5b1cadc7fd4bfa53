"""Reading checkpoints: transformers folders, and single files in the original formats by mapping their names."""

import copy
import json
import pickle
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoImageProcessor, AutoProcessor, PreTrainedConfig, PreTrainedModel
from transformers import initialization as init

from upop_ray.errors import CheckpointError
from upop_ray.models.spec import Source

Model = TypeVar("Model", bound=PreTrainedModel)

#: what transformers and safetensors raise over a damaged or foreign folder, or over values of its config
UNREADABLE = (
    *(OSError, ValueError, RuntimeError, KeyError, SafetensorError),
    *(StrictDataclassError, TypeError, AttributeError, ArithmeticError),
)
#: names of a folder's weights; of several parts an index tells which holds what
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
#: either holds a whole vocabulary
_TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "vocab.txt", "spiece.model")
_SHOWN = 3


def first_line(error: Exception) -> str:
    """The first line of an error's text, and the second where the first announces it."""
    first, *others = (str(error).strip() or type(error).__name__).splitlines()
    return f"{first} {others[0].strip()}" if first.endswith(":") and others else first


def read_model_type(path: Path, model_types: tuple[str, ...]) -> str:
    """The ``model_type`` that the config of a transformers folder names.

    :param model_types: those that the family can hold
    :raises CheckpointError: the folder is missing, or holds another model
    """
    try:
        found = str(AutoConfig.from_pretrained(path).model_type)
    except UNREADABLE as error:
        raise CheckpointError(f"model.path: cannot load {path}: {first_line(error)}") from error
    if found not in model_types:
        raise CheckpointError(
            f"model.path: {path} holds a {found!r} model, model.family needs "
            f"{' or '.join(map(repr, model_types))}; choose the family of the checkpoint"
        )
    return found


def unfilled(target: type[Model], config: PreTrainedConfig) -> Model:
    """A model whose weights are whatever lay in memory, to be loaded: random ones take a large model seconds."""
    with init.no_init_weights():
        model: Model = target(config)
    model.tie_weights()
    return model


def load_folder(target: type[PreTrainedModel], path: Path, model_types: tuple[str, ...]) -> PreTrainedModel:
    """Load a transformers folder in fp32 and evaluation mode.

    :param model_types: ``model_type`` of configs that ``target`` can hold
    :raises CheckpointError: the folder is missing, holds another model, or lacks weights
    """
    read_model_type(path, model_types)
    try:
        # mismatched sizes are told below, by their names, which transformers' error leaves out
        model, report = target.from_pretrained(
            path, dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True
        )
    except UNREADABLE as error:
        raise CheckpointError(f"model.path: cannot load {path}: {first_line(error)}") from error
    _require_whole(path, report["missing_keys"], report["unexpected_keys"])
    _require_shapes(path, sorted(report["mismatched_keys"]))
    return model.eval()  # type: ignore[no-any-return]


def load_folder_state(path: Path) -> dict[str, Tensor]:
    """Tensors by name of a transformers folder, in one file or in parts, as :func:`load_file_state` reads them.

    :raises CheckpointError: the folder holds no weights, or a part is missing or cannot be read
    """
    for name in _WEIGHTS:
        index = path / f"{name}.index.json"
        parts = [path / name] if (path / name).is_file() else _parts(index) if index.is_file() else []
        if parts:
            return {key: value for part in parts for key, value in load_file_state(part).items()}
    others = sorted(file.name for file in path.iterdir() if file.suffix not in (".json", ".txt"))
    raise CheckpointError(f"model.path: {path} holds no {' or '.join(_WEIGHTS)}, whole or in parts, but {others}")


def _parts(index: Path) -> list[Path]:
    try:
        names = set(json.loads(index.read_text())["weight_map"].values())
    except UNREADABLE as error:
        raise CheckpointError(f"model.path: cannot read {index}: {first_line(error)}") from error
    return [index.parent / str(name) for name in sorted(names)]


def load_file_state(path: Path) -> dict[str, Tensor]:
    """Tensors by name of a ``.safetensors``, ``.pth``, ``.pt`` or ``.bin`` file, without the wrappers around them.

    Pickles are read with ``weights_only=True``: nothing in them is run.

    :raises CheckpointError: the file cannot be read so, or holds no tensors
    """
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        # mapped, so that what a checkpoint of training holds beside the model is never read
        content: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (*UNREADABLE, EOFError, pickle.UnpicklingError) as error:
        reason = first_line(error).partition(". ")[0]
        raise CheckpointError(
            f"model.path: cannot read {path} as plain weights ({reason}); give a file with its state_dict() alone"
        ) from error
    content = content if isinstance(content, dict) else {}
    for wrapper in ("model", "state_dict"):
        content = content[wrapper] if isinstance(content.get(wrapper), dict) else content
    state = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    if not state:
        raise CheckpointError(f"model.path: {path} holds no weights by name; give a state dict")
    return state


def load_named(model: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Load a state dict whose names are the model's already, into the precision of the model.

    :raises CheckpointError: names the first keys that are missing, unexpected, or of another shape
    """
    own = model.state_dict()
    aliases = set(getattr(model, "_tied_weights_keys", None) or {})
    missing = [name for name in own if name not in state and name not in aliases]
    unexpected = [name for name in state if name not in own]
    _require_whole(path, missing, unexpected)
    _require_shapes(path, [(k, v.shape, own[k].shape) for k, v in state.items() if v.shape != own[k].shape])
    model.load_state_dict(dict(state), strict=False)


def heads_of(width: int, head_width: int, path: Path) -> int:
    """Heads of an attention, which no shape in a state dict tells.

    :param path: names the file in errors
    :raises CheckpointError: the width is no multiple of the head width
    """
    if width % head_width:
        raise CheckpointError(
            f"model.path: {path} is {width} wide, no multiple of the {head_width} of a head; give a transformers folder"
        )
    return width // head_width


def load_processor(source: Source, text: bool = True) -> Any:
    """The processor beside a checkpoint, or the one that ``model.processor`` names.

    :param text: whether the family reads text; otherwise an image processor is enough
    :raises CheckpointError: there is none
    """
    folder = source.processor or source.path
    if folder.is_file():
        raise CheckpointError(
            f"model.processor: {folder.name} holds weights alone; name a folder or hub model with "
            f"{'tokenizer and ' if text else ''}image processor"
        )
    try:
        processor = AutoProcessor.from_pretrained(folder) if text else AutoImageProcessor.from_pretrained(folder)
    except UNREADABLE as error:
        raise CheckpointError(f"model.path: cannot load {folder}: {first_line(error)}") from error
    # transformers makes up an empty tokenizer, which reads every caption as the same
    if text and not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        raise CheckpointError(f"model.path: {folder} holds no tokenizer; add its {' or '.join(_TOKENIZER_FILES[:2])}")
    return processor


def interpolated_positions(positions: Tensor, side: int, prefix: int) -> Tensor:
    """Positional embeddings of a square grid of patches, brought to another side by bicubic interpolation.

    :param positions: (prefix + old_side ** 2, width)
    :param prefix: positions before the patches (class and distillation tokens), taken as they are
    :returns: (prefix + side ** 2, width)
    """
    first, grid = positions[:prefix], positions[prefix:]
    old = round(len(grid) ** 0.5)
    if old == side:
        return positions
    image = grid.reshape(1, old, old, -1).permute(0, 3, 1, 2)
    resized = nn.functional.interpolate(image.float(), (side, side), mode="bicubic", align_corners=False)
    return torch.cat([first, resized.permute(0, 2, 3, 1).reshape(side * side, -1).to(first)])


def with_image_size(model: PreTrainedModel, image_size: int | None, positions: str, prefix: int) -> PreTrainedModel:
    """The same weights in a model for images of another size, its positional embeddings interpolated.

    :param image_size: side in pixels; None, or the model's own, gives the model back
    :param positions: name of the positional embeddings in the state dict, (tokens, width) or (1, tokens, width)
    :param prefix: positions before those of the patches
    :raises CheckpointError: the size is no multiple of the patch size
    """
    config = copy.deepcopy(model.config)
    vision = getattr(config, "vision_config", config)
    if image_size is None or image_size == vision.image_size:
        return model
    if image_size % vision.patch_size:
        raise CheckpointError(
            f"model.image_size: {image_size} is no multiple of the patch size; use a multiple of {vision.patch_size}"
        )
    vision.image_size = image_size
    state = model.state_dict()
    old = state[positions]
    side = image_size // vision.patch_size
    state[positions] = interpolated_positions(old.reshape(-1, old.shape[-1]), side, prefix)
    resized = unfilled(type(model), config)
    state[positions] = state[positions].reshape(resized.state_dict()[positions].shape)
    # buffers such as position_ids are new
    resized.load_state_dict(
        {k: v for k, v in state.items() if k in dict(resized.named_parameters(remove_duplicate=False))}, assign=True
    )
    resized.tie_weights()
    return resized.eval()  # type: ignore[no-any-return]


def _require_whole(path: Path, missing: Any, unexpected: Any) -> None:
    if missing or unexpected:
        raise CheckpointError(
            f"model.path: {path} does not fit its config; missing {sorted(missing)[:_SHOWN]}, "
            f"unexpected {sorted(unexpected)[:_SHOWN]}"
        )


def _require_shapes(path: Path, mismatched: Sequence[tuple[str, torch.Size, torch.Size]]) -> None:
    """:param mismatched: name, shape in the checkpoint, and shape that the model has"""
    if mismatched:
        told = (f"{name} is {tuple(found)}, expected {tuple(own)}" for name, found, own in mismatched[:_SHOWN])
        raise CheckpointError(f"model.path: {path} does not fit: {'; '.join(told)}")
