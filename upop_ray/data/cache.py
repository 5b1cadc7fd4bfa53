"""A folder on this machine for what was fetched from afar: a size limit, shared by all processes, checked when read."""

import logging
import os
import tempfile
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
from filelock import FileLock, Timeout

from upop_ray.errors import DataError

_log = logging.getLogger(__name__)

_SUFFIX, _UNFINISHED = ".arrow", ".tmp"
_CHECKSUM_BYTES = 8
#: names share lock files, which are never removed
_LOCKS = 64
#: seconds that another process may take to fetch a file; then it hangs
_PATIENCE = 1200.0
#: seconds after which an unfinished file was left by a process that died
_ABANDONED = 3600.0
#: seconds to wait for others who make room; that takes milliseconds
_ROOM_PATIENCE, _ROOM_POLL = 10.0, 0.005


class TableCache:
    """Arrow tables in files that all processes of a machine map into memory; the least recently used go first.

    A file is an Arrow stream and its CRC-32. It appears whole or not at all, and is fetched again when it is damaged.
    Room is made before a file is written, under a lock, and a file that is being written counts with its full size.
    What takes more than the limit all the same: files that are being written when they alone are larger than it, what
    was removed while a process still reads it, and what is written while the lock is held by a process that hangs.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        """Keep the place; nothing is read or written yet.

        :param limit: bytes that all files may take together; the newest is kept even if it alone is larger
        """
        self.folder, self.limit = folder, limit

    def get(self, name: str, fetch: Callable[[], pa.Table]) -> pa.Table:
        """The table of that name, fetched if it is not there; processes that want it at once fetch it once.

        :param name: a plain file name that stands for the content
        :raises DataError: the folder cannot be written, or another process does not finish
        """
        path = self.folder / f"{name}{_SUFFIX}"
        found = _mapped(path)
        if found is not None:
            return found
        try:
            return self._fetched(path, fetch)
        except Timeout as error:
            problem = f"another process has been fetching for more than {_PATIENCE:.0f} s"
            raise DataError(f"{path}: {problem}; end it, or set data.cache to another folder") from error
        except OSError as error:
            cure = "free space there, lower data.cache_gb, or set data.cache to a folder that can"
            raise DataError(f"{path}: cannot be written: {error.strerror or error}; {cure}") from error

    def _fetched(self, path: Path, fetch: Callable[[], pa.Table]) -> pa.Table:
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self._lock(f"{zlib.crc32(path.name.encode()) % _LOCKS:02d}"), timeout=_PATIENCE):
            # another process may have been first
            found = _mapped(path)
            if found is None:
                fetched = fetch()
                self._write(path, fetched)
                found = _mapped(path)
            # room for another one may have been made meanwhile
            return fetched if found is None else found

    def _write(self, path: Path, table: pa.Table) -> None:
        content = _serialised(table)
        unfinished = self._reserved(path, content.size + _CHECKSUM_BYTES)
        try:
            with unfinished.open("r+b") as file:
                file.write(content)
                file.write(zlib.crc32(content).to_bytes(_CHECKSUM_BYTES, "little"))
            os.replace(unfinished, path)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise

    def _reserved(self, path: Path, size: int) -> Path:
        """An unfinished file of a size, for which there is room."""
        lock = FileLock(self._lock("shrink"))
        with suppress(Timeout):
            lock.acquire(timeout=_ROOM_PATIENCE, poll_interval=_ROOM_POLL)
        try:
            self._shrink(self.limit - size)
            descriptor, unfinished = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=_UNFINISHED)
            with os.fdopen(descriptor, "wb") as file:
                file.truncate(size)
        finally:
            lock.release()
        return Path(unfinished)

    def _shrink(self, limit: int) -> None:
        """Remove what was used longest ago, until the rest fits."""
        found = sorted(_facts(path) for path in self.folder.iterdir() if path.suffix in (_SUFFIX, _UNFINISHED))
        excess = sum(size for _, size, _ in found) - limit
        for used, size, path in found:
            if path.suffix == _UNFINISHED and used >= time.time() - _ABANDONED:
                continue
            if excess > 0 or path.suffix == _UNFINISHED:
                path.unlink(missing_ok=True)
                excess -= size

    def _lock(self, name: str) -> str:
        return str(self.folder / f"{name}.lock")


def _facts(path: Path) -> tuple[float, int, Path]:
    """When a file was last used and its size; 0 where it has just been removed."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return 0.0, 0, path
    return found.st_mtime, found.st_size, path


def _serialised(table: pa.Table) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def _mapped(path: Path) -> pa.Table | None:
    """The table of a file without a copy in memory; None where there is none that is whole."""
    try:
        with pa.memory_map(str(path)) as source:
            content = source.read_buffer()
        # least recently used files are those of the oldest time
        os.utime(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        _log.warning(f"{path}: cannot be read ({error}), it is fetched again")
        return None
    size = content.size - _CHECKSUM_BYTES
    if size <= 0 or zlib.crc32(content[:size]) != int.from_bytes(content[size:], "little"):
        _log.warning(f"{path}: damaged, it is fetched again")
        return None
    return pa.ipc.open_stream(content[:size]).read_all()
