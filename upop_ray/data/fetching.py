"""Files of data sets wherever they lie: an outage is waited for, and what fails is said in one line."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import fsspec
import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem

from upop_ray.errors import DataError
from upop_ray.store import TIMEOUT
from upop_ray.store.failures import FAILURES, explained, no_bucket
from upop_ray.store.patience import persevere

Result = TypeVar("Result")


class MissingError(DataError):
    """A file is not there."""


def file_system(root: str, options: Mapping[str, Any]) -> tuple[fsspec.AbstractFileSystem, str]:
    """What reads files under a folder or URI, and the place of the root in it.

    :raises DataError: an unknown kind of address, or its package is missing
    """
    try:
        files, place = fsspec.core.url_to_fs(root, **options)
    except (ImportError, ValueError) as error:
        raise DataError(f"{root}: cannot be read: {error}") from error
    return files, str(place)


def is_local(files: fsspec.AbstractFileSystem) -> bool:
    """Whether these files lie in a folder of this machine."""
    return isinstance(files, LocalFileSystem)


def fetch(files: fsspec.AbstractFileSystem, place: str, action: Callable[[], Result]) -> Result:
    """What `action` reads, tried again while a remote store is away or overloaded.

    :param place: names the file in errors
    :raises MissingError: the file is not there
    :raises DataError: the bucket is not there, access is denied, the store does not answer
    """
    try:
        return action() if is_local(files) else persevere(action, f"reading {place}", TIMEOUT)
    except pa.ArrowException:
        # these are ValueErrors and OSErrors too, and about what a file holds
        raise
    except FAILURES as error:
        if isinstance(error, FileNotFoundError) and not no_bucket(error):
            raise MissingError(f"{place}: missing") from error
        raise DataError(f"{place}: cannot be read: {explained(error)}") from error
