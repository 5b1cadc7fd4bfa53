"""A store with two finished points, really computed, of which one belongs to a sweep with two others."""

import json
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.tiny import tiny_experiment
from upop_ray.run import run
from upop_ray.store import Store, SweepPaths

#: removed when the process ends
_FOLDERS: list[TemporaryDirectory[str]] = []


@cache
def finished() -> tuple[Path, tuple[dict[str, Any], ...]]:
    """The store's folder and the manifests of ratios 0.3 and 0.6; not to be changed."""
    _FOLDERS.append(TemporaryDirectory(prefix="upop-test-store-"))
    root = Path(_FOLDERS[-1].name)
    manifests = []
    for ratio in (0.3, 0.6):
        search = {"method": "magnitude_uniform", "ratio": ratio}
        manifests.append(run(tiny_experiment(root, epoch_steps=2, search=search)))
    store = Store(str(root / "store"))
    for manifest in manifests:
        cell = {"method": "magnitude_uniform", "ratio": manifest["budget"]["asked"], "seed": 0}
        member = {"cell": cell, "draw": 0, "drawn": {}, "hash": manifest["hash"], "state": "proposed", "cause": ""}
        store.write(f"{SweepPaths('tiny').members}/{manifest['hash']}.json", json.dumps(member).encode())
    return root / "store", tuple(manifests)
