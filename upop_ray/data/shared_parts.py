"""Checkpoints that are shipped without a part that another one has: they are put together on first use."""

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from upop_ray.data.folders import cache_root
from upop_ray.data.shards import file_hash
from upop_ray.errors import CheckpointError

WEIGHTS = "model.safetensors"
RECORD_NAME = "pretrain.json"


@dataclass(frozen=True)
class SharedPart:
    """Weights whose names start with ``prefix`` are those of another checkpoint, under the same names."""

    prefix: str
    other: Path


def without_part(folder: Path, part: SharedPart) -> None:
    """Remove from a checkpoint the weights that another one has.

    :raises CheckpointError: the other one has other weights
    """
    path = folder / WEIGHTS
    state, shared = load_file(path), _part_of(part)
    own = {name: value for name, value in state.items() if not name.startswith(part.prefix)}
    if set(state) - set(own) != set(shared) or any(not state[name].equal(value) for name, value in shared.items()):
        raise CheckpointError(f"{path}: {part.prefix}* differs from {part.other}; train with that part frozen")
    save_file(own, path, {"format": "pt"})


def whole(folder: Path, part: SharedPart) -> Path:
    """The folder in the cache that holds a checkpoint with all its weights; made if it is missing.

    :param folder: verified, as is that of the part
    """
    parts = f"{file_hash((folder / WEIGHTS).read_bytes())} {file_hash((part.other / WEIGHTS).read_bytes())}"
    made = cache_root() / "checkpoints" / f"{folder.name}-{file_hash(parts.encode())[:16]}"
    if not made.is_dir():
        made.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=made.parent, prefix=".making-") as making:
            # the record ties the weights as they are shipped
            left_out = shutil.ignore_patterns(RECORD_NAME)
            copy = Path(shutil.copytree(folder, Path(making) / folder.name, ignore=left_out))
            save_file({**load_file(folder / WEIGHTS), **_part_of(part)}, copy / WEIGHTS, {"format": "pt"})
            _move(copy, made)
    return made


def _move(folder: Path, to: Path) -> None:
    try:
        os.rename(folder, to)
    except OSError:
        # another process was faster, and made the same
        if not to.is_dir():
            raise


def _part_of(part: SharedPart) -> dict[str, Tensor]:
    return {name: value for name, value in load_file(part.other / WEIGHTS).items() if name.startswith(part.prefix)}
