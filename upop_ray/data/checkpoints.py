"""Dense checkpoints: their built-in names, and the tie between weights and the tokenizer they were trained with.

A rebuilt BPE has the same words under other ids: nothing fails, and the model is a little worse. So a checkpoint
carries the hashes of its files, and is used only if they still hold.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from upop_ray.data.shards import file_hash
from upop_ray.data.shared_parts import RECORD_NAME, WEIGHTS, SharedPart, whole, without_part
from upop_ray.errors import CheckpointError

SCHEMA_VERSION = 1
_NAMES = ("clip", "blip_retrieval", "blip_caption", "blip_vqa", "blip_nlvr", "vit", "segmenter")
BUILTIN_CHECKPOINTS = {f"builtin:{name}": Path(__file__).parent / "emoji" / name for name in _NAMES}
#: what is not shipped twice
SHARED_PARTS = {"builtin:blip_nlvr": SharedPart("vision_model.", BUILTIN_CHECKPOINTS["builtin:blip_vqa"])}

#: what a checkpoint must not be used without; those for text are there where the model reads text
_TIED = (WEIGHTS, "config.json", "tokenizer.json", "tokenizer_config.json")


def resolve_checkpoint(name: str) -> str:
    """Return what `from_pretrained` takes: the verified folder of a built-in name; any other name as it is.

    :raises CheckpointError: unknown built-in name, or a built-in checkpoint that does not hold together
    """
    if not name.startswith("builtin:"):
        return name
    if name not in BUILTIN_CHECKPOINTS:
        raise CheckpointError(f"{name}: no such built-in checkpoint; there is {', '.join(BUILTIN_CHECKPOINTS)}")
    folder = BUILTIN_CHECKPOINTS[name]
    verify_checkpoint(folder)
    if name not in SHARED_PARTS:
        return str(folder)
    verify_checkpoint(SHARED_PARTS[name].other)
    return str(whole(folder, SHARED_PARTS[name]))


def seal_checkpoint(folder: Path, record: Mapping[str, Any]) -> None:
    """Write pretrain.json: `record`, and the sha256 of weights, configuration and tokenizer as they are now."""
    files = {name: file_hash((folder / name).read_bytes()) for name in _TIED if (folder / name).is_file()}
    content = {"schema_version": SCHEMA_VERSION, **record, "sha256": files}
    (folder / RECORD_NAME).write_text(json.dumps(content, indent=2) + "\n")


def ship_checkpoint(name: str, folder: Path) -> None:
    """Make a trained checkpoint what the package holds of it: without what another one has, and sealed again.

    :param name: a built-in name
    :raises CheckpointError: it is damaged, or its shared part was trained
    """
    record = verify_checkpoint(folder)
    if name in SHARED_PARTS:
        without_part(folder, SHARED_PARTS[name])
        seal_checkpoint(folder, record)


def verify_checkpoint(folder: str | Path) -> dict[str, Any]:
    """Return the content of pretrain.json after checking that weights, configuration and tokenizer belong together.

    :raises CheckpointError: a file is missing or is not the one that was sealed; the message names it
    """
    record = _read_record(Path(folder) / RECORD_NAME)
    for name, expected in record["sha256"].items():
        path = Path(folder) / name
        if not path.is_file():
            raise CheckpointError(f"{path}: missing")
        if file_hash(path.read_bytes()) != expected:
            raise CheckpointError(f"{path}: not the file that the checkpoint was trained with; {_cure(name)}")
    return record


def _cure(name: str) -> str:
    if name == WEIGHTS:
        return "it is damaged or was trained again: restore it, or run upop_ray.training.pretrain"
    return "restore it: weights are only right with their own tokenizer and configuration"


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: missing, so the weights cannot be matched with their tokenizer") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from error
    if not isinstance(record, dict) or record.get("schema_version") != SCHEMA_VERSION or "sha256" not in record:
        raise CheckpointError(f"{path}: not a record of schema_version {SCHEMA_VERSION}")
    return record
