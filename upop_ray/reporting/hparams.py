"""What TensorBoard's HParams page compares: the settings and results of each finished point."""

import io
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.plugins.hparams import api_pb2, metadata
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo, SessionStartInfo
from tensorboard.summary.writer.record_writer import RecordWriter

from upop_ray.errors import StoreError
from upop_ray.reporting.points import PointRow
from upop_ray.store import Store, SweepPaths

_LOG = logging.getLogger(__name__)
_AT_ONCE = 32
#: begins the name, which ends with the point's hash; event files of a run are read in the order of their names: after
#: those of the point itself, which begin with a time
_FILE = "events.out.tfevents.9999999999."


class Comparison:
    """Keeps one small event file beside the curves of each finished point, also of one that another sweep computed.

    :param settings: dotted names that the sweep varies besides method and ratio
    """

    def __init__(self, store: Store, sweep: str, settings: Iterable[str]) -> None:
        self._store, self._folder = store, f"{SweepPaths(sweep).tensorboard}/points"
        self._settings = set(settings)

    def begin(self, rows: Sequence[PointRow]) -> None:
        """Write what is missing, or was written when the sweep varied other settings.

        Runs of other points than these are removed: a sweep whose settings were changed has new points under the names
        of the old ones, and one run of two points shows neither.

        :param rows: all points that the sweep has with its present settings
        """
        self._settings |= {name for row in rows for name in row.drawn}
        if len({row.seed for row in rows}) > 1:
            self._settings.add("seed")
        there = self._without_others(rows, self._store.sizes(self._folder))
        contents = {self._name(row): self._content(row) for row in rows if row.manifest}
        new = [name for name, content in contents.items() if there.get(name) != len(content)]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(lambda name: self._write(name, contents[name]), new))

    def add(self, row: PointRow) -> None:
        """Write the file of a point that has finished."""
        self._write(self._name(row), self._content(row))

    def _without_others(self, rows: Sequence[PointRow], there: Mapping[str, int]) -> dict[str, int]:
        """Remove the runs of other points; returns the files that stay."""
        own = {row.label: row.hash for row in rows}
        others = set()
        for label, _, file in (name.removeprefix(f"{self._folder}/").partition("/") for name in there):
            if label not in own or (file.startswith(_FILE) and file != f"{_FILE}{own[label]}"):
                others.add(f"{self._folder}/{label}")
        for run in sorted(others):
            self._store.remove(run)
        return {name: size for name, size in there.items() if name.rpartition("/")[0] not in others}

    def _name(self, row: PointRow) -> str:
        return f"{self._folder}/{row.label}/{_FILE}{row.hash}"

    def _write(self, name: str, content: bytes) -> None:
        try:
            self._store.hasty().write(name, content)
        except StoreError as error:
            _LOG.warning(f"missing on the HParams page until the sweep is started again: {error}")

    def _content(self, row: PointRow) -> bytes:
        assert row.manifest is not None
        values: dict[str, float | str] = {"ratio": row.ratio, "method": row.method}
        names = sorted(self._settings)
        settings = {name: found for name in names if (found := _setting(row.manifest["settings"], name)) is not None}
        columns = {**values, **dict.fromkeys(names, 0.0), **settings}
        return event_file([_columns(columns, row.manifest), *_session(row, values | settings)])


def results(manifest: Mapping[str, Any]) -> dict[str, float]:
    """What points are compared by, by scalar tag."""
    headline, metrics = manifest["headline"], manifest["metrics"]
    return {
        f"result/validation {headline}": metrics["validation"][headline],
        f"result/test {headline}": metrics["test"][headline],
        "result/before retraining": metrics["before_retraining"][headline],
        "result/parameters (M)": manifest["parameters"] / 1e6,
        "result/MACs (M)": manifest["macs"] / 1e6,
    }


def event_file(summaries: Iterable[Summary]) -> bytes:
    """Content of an event file that holds summaries, all at step 0."""
    buffer, now = io.BytesIO(), time.time()
    writer = RecordWriter(buffer)
    writer.write(Event(wall_time=now, file_version="brain.Event:2").SerializeToString())
    for summary in summaries:
        writer.write(Event(wall_time=now, summary=summary).SerializeToString())
    return buffer.getvalue()


def _columns(settings: Mapping[str, float | str], manifest: Mapping[str, Any]) -> Summary:
    """The columns of the page; TensorBoard takes those of any run, so that all points have the same."""
    experiment = api_pb2.Experiment(
        hparam_infos=[
            api_pb2.HParamInfo(
                name=name, type=api_pb2.DATA_TYPE_STRING if isinstance(value, str) else api_pb2.DATA_TYPE_FLOAT64
            )
            for name, value in settings.items()
        ],
        metric_infos=[
            api_pb2.MetricInfo(name=api_pb2.MetricName(tag=tag), display_name=tag.partition("/")[2])
            for tag in results(manifest)
        ],
    )
    return _summary(metadata.EXPERIMENT_TAG, HParamsPluginData(experiment=experiment))


def _session(row: PointRow, settings: Mapping[str, float | str]) -> list[Summary]:
    assert row.manifest is not None
    # the group's name is what the page calls the trial
    start = SessionStartInfo(group_name=row.label)
    for name, value in settings.items():
        if isinstance(value, str):
            start.hparams[name].string_value = value
        else:
            start.hparams[name].number_value = value
    end = SessionEndInfo(status=api_pb2.STATUS_SUCCESS)
    return [
        _summary(metadata.SESSION_START_INFO_TAG, HParamsPluginData(session_start_info=start)),
        _summary(metadata.SESSION_END_INFO_TAG, HParamsPluginData(session_end_info=end)),
        *(Summary(value=[Summary.Value(tag=tag, simple_value=v)]) for tag, v in results(row.manifest).items()),
    ]


def _summary(tag: str, content: HParamsPluginData) -> Summary:
    content.version = metadata.PLUGIN_DATA_VERSION
    plugin = SummaryMetadata.PluginData(plugin_name=metadata.PLUGIN_NAME, content=content.SerializeToString())
    return Summary(value=[Summary.Value(tag=tag, metadata=SummaryMetadata(plugin_data=plugin))])


def _setting(settings: Mapping[str, Any], name: str) -> float | str | None:
    """Value of a dotted setting; None where the point's method does not read it."""
    value: Any = settings
    for part in name.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return None
        value = value[part]
    if value is None:
        return None
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else str(value)
