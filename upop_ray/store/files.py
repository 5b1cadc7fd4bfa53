"""The store: files under one address, whole or not there, tried until a deadline."""

import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from upop_ray.errors import StoreError
from upop_ray.store.failures import FAILURES, exists_already, explained, no_bucket
from upop_ray.store.folder import Folder
from upop_ray.store.names import checked_name, split_address
from upop_ray.store.objects import Objects
from upop_ray.store.patience import persevere

#: seconds that an outage may last
TIMEOUT = 600.0
_CHECK_SECONDS = 20.0
_Result = TypeVar("_Result")


class Store:
    """Files under a folder, or under a prefix of a bucket; a file is there whole or not at all.

    What fails in a way that passes (an overload, an outage) is tried again for ``timeout`` seconds; the waiting is
    logged. Everything else, and what still fails then, is a :class:`StoreError` that names the file and the cure.

    :param uri: a folder, ``s3://bucket/prefix``, ``gs://...`` or ``az://...``; credentials and endpoint of S3 come from
        the usual places (environment, profile, the machine's role)
    :raises StoreError: the address is of no known kind, or holds credentials
    """

    def __init__(self, uri: str, timeout: float = TIMEOUT) -> None:
        scheme, root = split_address(uri)
        self._place: Folder | Objects = Objects(scheme, root) if scheme else Folder(root)
        self._timeout = timeout
        self.uri = self._place.uri

    @property
    def is_local(self) -> bool:
        """Whether the store is a folder of this file system."""
        return isinstance(self._place, Folder)

    def path(self, name: str) -> str:
        """Address of a file of the store, for people and for libraries that read URIs.

        :raises StoreError: ``name`` leads out of the store
        """
        return f"{self.uri}/{checked_name(name)}"

    def hasty(self, timeout: float = 0.0) -> "Store":
        """The same store for what need not succeed: an outage may last no longer than ``timeout``."""
        return Store(self.uri, min(self._timeout, timeout))

    def check(self) -> None:
        """Make sure that files can be made, made only once, read, listed and removed; gives up after 20 s or so.

        :raises StoreError: something of it cannot be done
        """
        name = f".check/{uuid.uuid4().hex}"
        try:
            self._try_out(self.hasty(_CHECK_SECONDS), name)
        except StoreError as error:
            raise StoreError(f"store: {str(error).replace(f'/{name}', '')}") from error

    def read(self, name: str, start: int = 0) -> bytes:
        """Content of a file from byte ``start`` on.

        :raises StoreError: it is missing or cannot be read; the message names it
        """
        return self._do(("reading", "read"), name, lambda: self._place.read(name, start))

    def write(self, name: str, content: bytes) -> None:
        """Write a file; readers see the old content or the new one."""
        self._do(("writing", "written"), name, lambda: self._place.write(name, content))

    def create(self, name: str, content: bytes) -> bool:
        """Write a file that must not be there yet; of many who try at once one succeeds.

        :param content: of this writer alone, so that it knows its own file where the answer to writing it got lost
        :returns: whether the file is this writer's
        """

        def attempt() -> bool:
            try:
                self._place.create(name, content)
            except FAILURES as error:
                if not exists_already(error):
                    raise
                return self._place.read(name, 0) == content
            return True

        return self._do(("writing", "written"), name, attempt)

    def put(self, local: Path, name: str) -> None:
        """Write a file with the content of a local one, which is not held in memory."""
        self._do(("writing", "written"), name, lambda: self._place.put(local, name))

    @contextmanager
    def filled(self, name: str) -> Iterator[Path]:
        """A path on this machine to write to; when the context ends, its content becomes the file's."""
        with self._place.scratch(checked_name(name)) as local:
            yield local
            self._do(("writing", "written"), name, lambda: self._place.adopt(local, name))

    @contextmanager
    def fetched(self, name: str) -> Iterator[Path]:
        """A file as one on this machine, for reading, as long as the context lasts.

        :raises StoreError: it is missing or cannot be read; the message names it
        """
        with ExitStack() as stack:
            yield self._do(("reading", "read"), name, lambda: stack.enter_context(self._place.fetched(name)))

    def exists(self, name: str) -> bool:
        """Whether the file is there."""
        return self._do(("looking for", "looked up"), name, lambda: self._place.exists(name))

    def list(self, folder: str) -> list[str]:
        """Names directly under ``folder``, sorted; none when it is missing."""
        return sorted(self._do(("listing", "listed"), folder, lambda: self._place.list(folder)))

    def sizes(self, folder: str) -> dict[str, int]:
        """Name and bytes of each file under ``folder``, at any depth; none when it is missing."""
        return self._do(("listing", "listed"), folder, lambda: self._place.sizes(folder))

    def remove(self, name: str) -> None:
        """Remove a file or folder if it is there."""
        self._do(("removing", "removed"), name, lambda: self._place.remove(name))

    def upload(self, local: Path, folder: str, before: Callable[[], None] = lambda: None) -> None:
        """Copy the files of a local folder into ``folder``.

        :param before: called before each file
        """
        for file in sorted(path for path in local.rglob("*") if path.is_file()):
            before()
            self.put(file, f"{folder}/{file.relative_to(local).as_posix()}")

    def read_json(self, name: str) -> Any:
        """Content of a JSON file.

        :raises StoreError: it is missing or not JSON; the message names it
        """
        try:
            return json.loads(self.read(name))
        except ValueError as error:
            raise StoreError(f"{self.path(name)}: is not JSON: {error}") from error

    def write_json(self, name: str, content: Any) -> None:
        """Write a JSON file."""
        self.write(name, as_json(content))

    def _try_out(self, hasty: "Store", name: str) -> None:
        hasty.create(name, b"first")
        if hasty.create(name, b"second") or hasty.read(name) != b"first" or name not in hasty.sizes(".check"):
            raise StoreError(
                f"{self.uri} writes over a file that was to be made new (it ignores If-None-Match), so two "
                "workers could take one point; use a server that knows conditional writes"
            )
        hasty.remove(name)

    def _do(self, verbs: tuple[str, str], name: str, action: Callable[[], _Result]) -> _Result:
        address = self.path(name)
        try:
            return persevere(action, f"{verbs[0]} {address}", self._timeout)
        except FAILURES as error:
            if verbs[1] == "read" and isinstance(error, FileNotFoundError) and not no_bucket(error):
                raise StoreError(f"{address}: missing") from error
            raise StoreError(f"{address}: cannot be {verbs[1]}: {explained(error)}") from error


def as_json(content: Any) -> bytes:
    """Content of a JSON file."""
    return (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()
