"""The folder that a data set is converted from, and what can be wrong with it."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from upop_ray.errors import DataError

#: where annotation files lie, in the layouts that are in use
_ANNOTATION_FOLDERS = ("", "annotations", "annotation", "data")
_SHOWN = 8
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")


@dataclass(frozen=True)
class Source:
    """A folder as its owners distribute it.

    :param expects: its layout in words, for errors
    :ivar texts: names of the text files that were read so far, in this order
    """

    root: Path
    expects: str
    texts: list[str] = field(default_factory=list, init=False)

    def wrong(self, problem: str) -> DataError:
        """The error that says what is wrong, what was expected, and what lies there."""
        names = sorted(path.name for path in self.root.iterdir()) if self.root.is_dir() else []
        shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
        return DataError(f"{self.root}: {problem}; expected {self.expects}; found {shown or 'nothing'}")

    def find(self, *names: str) -> str | None:
        """The first of these files or folders that is there, in the folder itself or in one for annotations."""
        for name in names:
            for folder in _ANNOTATION_FOLDERS:
                path = f"{folder}/{name}" if folder else name
                if (self.root / path).exists():
                    return path
        return None

    def need(self, *names: str) -> str:
        """Like :meth:`find`.

        :raises DataError: none of them is there
        """
        found = self.find(*names)
        if found is None:
            raise self.wrong(f"no {' or '.join(names)}")
        return found

    def need_folder(self, *names: str) -> str:
        """The first of these folders that is there.

        :raises DataError: none of them is there, or it is empty
        """
        for name in names:
            if (self.root / name).is_dir():
                if not any((self.root / name).iterdir()):
                    raise self.wrong(f"the folder {name} is empty")
                return name
        raise self.wrong(f"no folder {' or '.join(names)}")

    def listing(self, folder: str) -> list[str]:
        """Names in a folder, sorted."""
        return sorted(path.name for path in (self.root / folder).iterdir())

    def images(self, folder: str) -> list[str]:
        """Names of the images in a folder, sorted."""
        return [name for name in self.listing(folder) if name.lower().endswith(IMAGE_SUFFIXES)]

    def text(self, name: str) -> str:
        """Content of a text file.

        :raises DataError: it cannot be read, or is not UTF-8
        """
        self.texts.append(name)
        try:
            return (self.root / name).read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            problem = f"not UTF-8 at byte {error.start}: {error.object[error.start : error.start + 4]!r}"
            raise DataError(f"{self.root / name}: {problem}; save it as UTF-8") from error
        except OSError as error:
            raise DataError(f"{self.root / name}: cannot be read: {error}") from error

    def json(self, name: str) -> Any:
        """Content of a JSON file.

        :raises DataError: see :meth:`text`; it is not JSON
        """
        try:
            return json.loads(self.text(name))
        except ValueError as error:
            raise DataError(f"{self.root / name}: not JSON: {error}; fetch it again") from error

    def entries(self, name: str, keys: Sequence[str], under: str = "") -> list[dict[str, Any]]:
        """The list in a JSON file.

        :param keys: what every entry of it must have
        :param under: where the list is in the file; without it the file is the list
        :raises DataError: see :meth:`json`; no such list, or an entry that lacks a key
        """
        content = self.json(name)
        if under:
            content = content.get(under) if isinstance(content, dict) else None
        if not isinstance(content, list):
            raise DataError(f"{self.root / name}: must hold a list{f' as {under!r}' if under else ''}; fetch it again")
        for number, entry in enumerate(content):
            self._require(entry, keys, f"{self.root / name}, entry {number}")
        return content

    def lines(self, name: str, keys: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        """The place and the content of each line of a file with JSON lines.

        :param keys: what every line must have
        :raises DataError: see :meth:`text`; a line is not JSON or lacks a key
        """
        for number, line in enumerate(self.text(name).split("\n"), 1):
            if not line.strip():
                continue
            place = f"{self.root / name}, line {number}"
            try:
                entry = json.loads(line)
            except ValueError as error:
                raise DataError(f"{place}: not JSON: {error}; write one object a line") from error
            self._require(entry, keys, place)
            yield place, entry

    def _require(self, entry: Any, keys: Sequence[str], place: str) -> None:
        missing = [key for key in keys if not isinstance(entry, dict) or key not in entry]
        if missing:
            raise DataError(f"{place}: has no {', '.join(map(repr, missing))}; every entry needs {', '.join(keys)}")


def clean_texts(texts: Any, place: str) -> list[str]:
    """Like :func:`utf8_texts`, and at least one.

    :raises DataError: no text that says anything
    """
    kept = utf8_texts(texts, place)
    if not kept:
        raise DataError(f"{place}: no text that says anything; write one or remove the entry")
    return kept


def utf8_texts(texts: Any, place: str) -> list[str]:
    """Texts without the space around them, and without empty ones.

    :raises DataError: not a list of texts, or one that UTF-8 cannot hold
    """
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise DataError(f"{place}: must be a list of texts, got {str(texts)[:60]!r}")
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise DataError(f"{place}: {text[:60]!r} is not UTF-8: {error.reason}; correct it") from error
    return [text.strip() for text in texts if text.strip()]
