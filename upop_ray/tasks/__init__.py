"""Tasks: batches, loss, evaluation and headline metric, one file each."""

from collections.abc import Mapping

from upop_ray.tasks.retrieval import Retrieval

TASKS: Mapping[str, type[Retrieval]] = {"retrieval": Retrieval}
