"""Many small files at once: a bucket answers each request late, but many at a time."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from upop_ray.errors import StoreError
from upop_ray.store.files import Store

_AT_ONCE = 32


def read_json_if_there(store: Store, name: str) -> Any:
    """Content of a JSON file, or None when it is missing, in one request."""
    try:
        return store.read_json(name)
    except StoreError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise


def read_jsons(store: Store, names: Sequence[str]) -> list[Any]:
    """Content of JSON files in the order of their names, None for each that is missing."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(lambda name: read_json_if_there(store, name), names))


def list_folders(store: Store, folders: Sequence[str]) -> list[list[str]]:
    """Names directly under each of the folders, none for each that is missing."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(store.list, folders))
