"""Metric sinks: rows for Parquet, and TensorBoard event files in the store."""

import io
import logging
import math
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL.Image import Image
from transformers.utils import logging as transformers_logging

from upop_ray.errors import StoreError
from upop_ray.store import Store

_LOG = logging.getLogger(__name__)
#: where TensorBoard shows curves first; its own smoothing would bend those of few points
FIRST_PAGE = "http://localhost:6006/?smoothing=0#timeseries"
#: seconds between two uploads of a point's curves
UPLOAD_EVERY = 30.0
#: columns of metrics.parquet; one row is one value of one metric at one step of one phase
SCHEMA = pa.schema(
    [
        ("phase", pa.string()),
        ("step", pa.int64()),
        ("name", pa.string()),
        ("value", pa.float64()),
        ("time", pa.float64()),
    ]
)


class MetricRows:
    """Every logged value, in order; goes through checkpoints, so that a resumed point has all its rows."""

    def __init__(self, rows: list[dict[str, Any]] | None = None) -> None:
        self.rows = rows or []

    def log(self, phase: str, step: int, metrics: Mapping[str, float]) -> None:
        """Add one row for each metric."""
        now = time.time()
        for name, value in metrics.items():
            self.rows.append({"phase": phase, "step": step, "name": name, "value": float(value), "time": now})

    def to_parquet(self) -> bytes:
        """The rows as the content of a Parquet file."""
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(self.rows, schema=SCHEMA), buffer, compression="zstd")
        return buffer.getvalue()

    @classmethod
    def from_parquet(cls, content: bytes, name: str) -> "MetricRows":
        """Rows from the content of a Parquet file.

        :raises StoreError: it is not one; the message gives ``name``
        """
        try:
            return cls(pq.read_table(io.BytesIO(content)).to_pylist())
        except (pa.ArrowException, OSError) as error:
            raise StoreError(f"{name}: not a readable Parquet file: {error}") from error


class TensorBoard:
    """One run of TensorBoard. In a folder it is written in place; elsewhere to a local folder that is uploaded.

    Objects cannot be appended to, so a file that has grown is uploaded again as a whole.

    :param every: seconds between two uploads; what is flushed sooner is uploaded later, at the latest by :meth:`close`
    """

    def __init__(self, store: Store, folder: str, every: float = 0.0) -> None:
        quieten()
        from torch.utils.tensorboard import SummaryWriter

        self._store, self._folder, self._every = store, folder, every
        self._temporary = None if store.is_local else tempfile.TemporaryDirectory(prefix="upop-tensorboard-")
        self._local = Path(self._temporary.name if self._temporary else store.path(folder))
        self._uploaded: dict[Path, int] = {}
        self._last_upload = -math.inf
        self._writer = SummaryWriter(str(self._local))  # type: ignore[no-untyped-call]

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Add one value to each scalar."""
        for tag, value in values.items():
            self._writer.add_scalar(tag, value, step)  # type: ignore[no-untyped-call]

    def image(self, tag: str, step: int, picture: Image) -> None:
        """Add a picture."""
        self._writer.add_image(tag, np.asarray(picture), step, dataformats="HWC")  # type: ignore[no-untyped-call]

    def text(self, tag: str, step: int, markdown: str) -> None:
        """Add a text."""
        self._writer.add_text(tag, markdown, step)  # type: ignore[no-untyped-call]

    def layout(self, charts: Mapping[str, Mapping[str, tuple[str, list[str]]]]) -> None:
        """Say which charts the page of custom scalars has: category -> title -> (Multiline or Margin, tags)."""
        self._writer.add_custom_scalars(charts)  # type: ignore[no-untyped-call]

    def flush(self) -> None:
        """Make what was added visible. Curves are a view: while the store does not answer, they wait."""
        self._writer.flush()  # type: ignore[no-untyped-call]
        if self._temporary is not None and time.monotonic() - self._last_upload >= self._every:
            try:
                self._upload(self._store.hasty())
            except StoreError as error:
                _LOG.warning(f"curves are uploaded later: {error}")
            self._last_upload = time.monotonic()

    def close(self) -> None:
        """Flush and end the run.

        :raises StoreError: it cannot be uploaded
        """
        self._writer.close()  # type: ignore[no-untyped-call]
        if self._temporary is not None:
            self._upload(self._store)
            self._temporary.cleanup()

    def _upload(self, store: Store) -> None:
        """Upload the files that have grown."""
        for file in sorted(path for path in self._local.rglob("*") if path.is_file()):
            size = file.stat().st_size
            if size != self._uploaded.get(file):
                store.put(file, f"{self._folder}/{file.relative_to(self._local).as_posix()}")
                self._uploaded[file] = size


def viewer(store: Store, folder: str) -> str:
    """The command that shows what lies under ``folder`` of the store, also as it grows."""
    # fsspec, through which TensorBoard reads object stores, would list each folder once and never again
    fresh = (
        "" if store.is_local else f"""FSSPEC_{store.uri.partition(":")[0].upper()}='{{"use_listings_cache": false}}' """
    )
    return f"{fresh}tensorboard --logdir {store.path(folder)}"


def quieten() -> None:
    """Keep libraries from writing notes that a user can do nothing about."""
    for name in ("torch.utils.tensorboard", "DeepSpeed", "transformers", "ray.train"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # a trial's failure is told by its cause, in the table and in the store
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    transformers_logging.disable_progress_bar()
