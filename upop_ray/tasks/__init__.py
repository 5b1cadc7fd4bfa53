"""Tasks: batches, loss, evaluation and headline metric, one file each."""

from collections.abc import Callable, Mapping

from upop_ray.tasks.retrieval import Retrieval
from upop_ray.tasks.retrieval_itm import RetrievalItm
from upop_ray.tasks.spec import Task

#: ``task.name`` -> the task, made of (experiment, data set, processor, dense model)
TASKS: Mapping[str, Callable[..., Task]] = {"retrieval": Retrieval, "retrieval_itm": RetrievalItm}
