"""A store in a folder: local or on NFS."""

import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from upop_ray.errors import StoreError

_UNFINISHED = ".tmp"
_SCRATCH = re.compile(rf"(.+)\.[0-9a-f]{{32}}{re.escape(_UNFINISHED)}")


class Folder:
    """Files under one folder. What is written is complete under another name first, and on the disk."""

    def __init__(self, root: str) -> None:
        self._root = Path(os.path.abspath(os.path.expanduser(root)))

    @property
    def uri(self) -> str:
        return str(self._root)

    def read(self, name: str, start: int) -> bytes:
        with self._at(name).open("rb") as file:
            file.seek(start)
            return file.read()

    def write(self, name: str, content: bytes) -> None:
        with self.scratch(name) as unfinished:
            unfinished.write_bytes(content)
            self.adopt(unfinished, name)

    def put(self, local: Path, name: str) -> None:
        with self.scratch(name) as unfinished:
            shutil.copyfile(local, unfinished)
            self.adopt(unfinished, name)

    def create(self, name: str, content: bytes) -> None:
        """:raises FileExistsError: somebody was first"""
        path = self._at(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            file.write(content)

    @contextmanager
    def scratch(self, name: str) -> Iterator[Path]:
        """A path beside the file's own, to be filled and adopted."""
        path = self._at(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f"{path.name}.{uuid.uuid4().hex}{_UNFINISHED}")
        try:
            yield unfinished
        finally:
            unfinished.unlink(missing_ok=True)

    def adopt(self, local: Path, name: str) -> None:
        """Give a filled scratch its name, once it is on the disk."""
        with local.open("rb") as file:
            os.fsync(file.fileno())
        local.replace(self._at(name))

    @contextmanager
    def fetched(self, name: str) -> Iterator[Path]:
        path = self._at(name)
        path.open("rb").close()
        yield path

    def exists(self, name: str) -> bool:
        return self._at(name).is_file()

    def list(self, folder: str) -> set[str]:
        try:
            return {name for name in os.listdir(self._at(folder)) if not name.endswith(_UNFINISHED)}
        except (FileNotFoundError, NotADirectoryError):
            return set()

    def sizes(self, folder: str) -> dict[str, int]:
        top, found = self._at(folder), {}
        for place, _, files in os.walk(top):
            for path in (Path(place) / name for name in files if not name.endswith(_UNFINISHED)):
                # another process may remove it meanwhile
                with suppress(FileNotFoundError):
                    found[f"{folder}/{path.relative_to(top).as_posix()}"] = path.stat().st_size
        return found

    def remove(self, name: str) -> None:
        path = self._at(name)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    def _at(self, name: str) -> Path:
        path = self._root / name
        if not path.resolve().is_relative_to(self._root.resolve()):
            raise StoreError(f"{path}: leads out of the store through a link; name the other folder as store instead")
        return path


def unfinished(folder: Path) -> Iterator[tuple[str, Path]]:
    """Files in a folder that are being written, or were when a process died: the name each was to have, and where."""
    for path in folder.iterdir() if folder.is_dir() else ():
        match = _SCRATCH.fullmatch(path.name)
        if match:
            yield match[1], path
