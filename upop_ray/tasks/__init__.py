"""Tasks: batches, loss, evaluation and headline metric, one file each."""

from collections.abc import Callable, Mapping

from upop_ray.tasks.caption import Caption
from upop_ray.tasks.classification import Classification
from upop_ray.tasks.nlvr import Nlvr
from upop_ray.tasks.retrieval import Retrieval
from upop_ray.tasks.retrieval_itm import RetrievalItm
from upop_ray.tasks.segmentation import Segmentation
from upop_ray.tasks.spec import Task
from upop_ray.tasks.vqa import Vqa

#: ``task.name`` -> the task, made of (experiment, data set, processor, dense model)
TASKS: Mapping[str, Callable[..., Task]] = {
    "caption": Caption,
    "retrieval": Retrieval,
    "retrieval_itm": RetrievalItm,
    "segmentation": Segmentation,
    "classification": Classification,
    "nlvr": Nlvr,
    "vqa": Vqa,
}
