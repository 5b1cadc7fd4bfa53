"""The TensorBoard run of one point, while it is computed."""

from collections.abc import Mapping
from typing import Any

from upop_ray.config import Experiment
from upop_ray.reporting.heat_map import heat_map
from upop_ray.store import Store, SweepPaths
from upop_ray.tracking import UPLOAD_EVERY, TensorBoard

#: heat maps of a search; TensorBoard shows as many of a run unless told otherwise
_PICTURES = 10
ALLOCATION = "kept/share of each layer"


class PointBoard:
    """``STORE/sweeps/NAME/tensorboard/points/LABEL``: scalars of both phases, and what the masks keep as pictures."""

    def __init__(self, store: Store, experiment: Experiment, label: str) -> None:
        folder = f"{SweepPaths(experiment.name).tensorboard}/points/{label}"
        self._label, self._board = label, TensorBoard(store, folder, UPLOAD_EVERY)
        self._drawn: Mapping[str, float] = {}
        self._part = 0

    def log(self, phase: str, step: int, metrics: Mapping[str, float]) -> None:
        """Add the metrics of a report."""
        self._board.scalars(step, {f"{phase}/{name}": value for name, value in metrics.items()})
        self._board.flush()

    def masks(self, step: int, steps: int, kept: Mapping[str, float]) -> None:
        """Draw what the search keeps after ``step`` of ``steps``, if it has changed: once in each tenth of the search.

        :param kept: site -> share of its units
        """
        part = _PICTURES * step // steps
        if part > self._part and kept != self._drawn:
            self._part = part
            self._draw(step, kept)

    def finish(self, manifest: Mapping[str, Any]) -> None:
        """Draw what the finished model keeps, where no search did: its last picture shows that."""
        if "search" not in manifest["seconds"]:
            sites, kept = manifest["sites"], manifest["kept_units"]
            self._draw(0, {name: kept[name] / site["units"] for name, site in sites.items()})

    def close(self) -> None:
        """End the run."""
        self._board.close()

    def _draw(self, step: int, kept: Mapping[str, float]) -> None:
        self._drawn = dict(kept)
        title = f"{self._label}: % kept" + (f" after step {step}" if step else "")
        self._board.image(ALLOCATION, step, heat_map(title, kept))
