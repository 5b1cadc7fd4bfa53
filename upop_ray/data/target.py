"""Where a data set is prepared: nothing that lies there is touched but what preparing has made."""

import re
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

from upop_ray.data.shards import MANIFEST_NAME, SHARD_FOLDER
from upop_ray.errors import DataError
from upop_ray.store import Store
from upop_ray.store.folder import unfinished

BROKEN_NAME = "broken.jsonl"
CARD_NAME = "README.md"
#: says whose folder it is, from before the first shard on
BEGUN_NAME = "prepare.json"
_OURS = re.compile(r"(train|val|test)-\d{5}\.(parquet|json)")
#: seconds after which a file that nobody has written to was left by a process that died
_ABANDONED = 600.0


class Target:
    """A folder or bucket to which a data set may be written.

    :ivar manifest: of the same data set, prepared before; else empty
    :raises DataError: it holds another data set, or files that preparing has not made
    """

    def __init__(self, store: Store, name: str) -> None:
        self.store, self._name = store, name
        self.manifest = self._owned(MANIFEST_NAME, "belongs to")
        if not self.manifest and not self._owned(BEGUN_NAME, "was begun for"):
            self._require_empty()

    def begin(self, source: str) -> None:
        """Mark it as that of this data set, and remove what dead processes have left."""
        self.store.write_json(BEGUN_NAME, {"name": self._name, "source": source})
        self._forget_unfinished(_ABANDONED)

    def tidy(self, expected: Collection[str]) -> None:
        """Remove shards of an earlier plan, and what is unfinished.

        :param expected: names of the shards and records that stay
        """
        for name in self.store.list(SHARD_FOLDER):
            if _OURS.fullmatch(name) and f"{SHARD_FOLDER}/{name}" not in expected:
                self.store.remove(f"{SHARD_FOLDER}/{name}")
        self._forget_unfinished(0)

    def _owned(self, name: str, verb: str) -> dict[str, Any]:
        if not self.store.exists(name):
            return {}
        found = self.store.read_json(name)
        owner = found.get("name") if isinstance(found, dict) else None
        if owner != self._name:
            place = self.store.path(name)
            raise DataError(f"{place}: {verb} the data set {owner!r}; prepare into another folder")
        return dict(found)

    def _require_empty(self) -> None:
        taken = [name for name in (CARD_NAME, BROKEN_NAME) if self.store.exists(name)]
        taken += [f"{SHARD_FOLDER}/{name}" for name in self.store.list(SHARD_FOLDER)]
        if taken:
            problem = f"holds {taken[0]}, but neither {MANIFEST_NAME} nor {BEGUN_NAME}, so others have made it"
            raise DataError(f"{self.store.uri}: {problem}; prepare into an empty folder")

    def _forget_unfinished(self, seconds: float) -> None:
        if not self.store.is_local:
            return
        for name, path in unfinished(Path(self.store.uri) / SHARD_FOLDER):
            if _OURS.fullmatch(name) and path.stat().st_mtime <= time.time() - seconds:
                path.unlink(missing_ok=True)
