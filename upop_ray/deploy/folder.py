"""Makes the folder of an export: written elsewhere, checked there, and then renamed."""

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import ModelCard
from yaml import YAMLError

from upop_ray.deploy.card import TAG, Contents, card
from upop_ray.deploy.checks import remote_code_difference, stock_difference, write_onnx
from upop_ray.deploy.licences import licence_of
from upop_ray.deploy.onnx import require_onnx
from upop_ray.deploy.padded import padded, require_stock
from upop_ray.deploy.remote_code import write_remote_code
from upop_ray.deploy.standing import standing_of
from upop_ray.deploy.subject import Subject
from upop_ray.errors import ConfigError

_CARD = "README.md"


@dataclass(frozen=True)
class Wanted:
    """What an export shall hold.

    :param stock: the padded model of transformers' class, instead of the small one with its code
    :param licence: of the weights, as hubs call it
    """

    stock: bool = False
    onnx: bool = False
    licence: str | None = None


def export(subject: Subject, target: Path, wanted: Wanted, overwrite: bool = False) -> Contents:
    """Write, check and only then show an export.

    :param target: absolute
    :param overwrite: whether an earlier export may lie at ``target``; it is replaced
    :raises ConfigError: something else lies there, or what is wanted cannot be had
    :raises CheckpointError: it does not compute what the point's model does
    """
    if wanted.stock:
        require_stock(subject.family)
    if wanted.onnx:
        require_onnx()
    with _appearing(target, overwrite) as folder:
        contents = (_stock if wanted.stock else _sliced)(subject, folder, wanted)
        for file in contents.licence.files:
            shutil.copyfile(file, folder / file.name)
        standing = None if subject.place is None else standing_of(subject.place)
        (folder / _CARD).write_text(card(subject, contents, standing))
    return contents


def require_free(target: Path, overwrite: bool) -> None:
    """Make sure that an export may be written to ``target``.

    :param target: absolute
    :raises ConfigError: something lies there that is not to be replaced
    """
    if not target.exists():
        return
    if not overwrite:
        raise ConfigError("--to", f"{target} exists", "name another folder, or replace that export with --overwrite")
    if not _is_export(target):
        problem = f"{target} is no export (a folder with config.json, a card with the tag {TAG}, and no .git)"
        raise ConfigError("--overwrite", problem, "name another folder")
    if Path.cwd().is_relative_to(target):
        raise ConfigError("--to", f"{target} cannot be replaced from within", "run this in another folder")


def _is_export(folder: Path) -> bool:
    """Whether nothing is lost with a folder that cannot be exported again."""
    if not (folder / "config.json").is_file() or (folder / ".git").exists():
        return False
    try:
        tags = ModelCard((folder / _CARD).read_text()).data.to_dict().get("tags")  # type: ignore[no-untyped-call]
    except (OSError, ValueError, TypeError, YAMLError):
        return False
    return TAG in (tags or ())


def _sliced(subject: Subject, folder: Path, wanted: Wanted) -> Contents:
    write_remote_code(subject.model, subject.folder, folder)
    difference = remote_code_difference(subject, folder)
    onnx = write_onnx(subject, folder / "onnx") if wanted.onnx else None
    return Contents(subject.model, False, difference, onnx, licence_of(subject.manifest, wanted.licence))


def _stock(subject: Subject, folder: Path, wanted: Wanted) -> Contents:
    model = padded(subject.family, subject.model)
    model.save_pretrained(folder)
    subject.processor.save_pretrained(folder)
    difference = stock_difference(subject, folder)
    return Contents(model, True, difference, None, licence_of(subject.manifest, wanted.licence))


@contextmanager
def _appearing(target: Path, overwrite: bool) -> Iterator[Path]:
    """A folder beside ``target`` that takes its name at the end, if nothing failed."""
    require_free(target, overwrite)
    unfinished = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    try:
        unfinished.mkdir(parents=True)
    except OSError as error:
        raise ConfigError("--to", f"{target} cannot be written ({error.strerror})", "name another folder") from error
    try:
        yield unfinished
        require_free(target, overwrite)
        if target.exists():
            shutil.rmtree(target)
        unfinished.rename(target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
