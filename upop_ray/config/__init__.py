"""Experiments: strict, validated, from YAML plus ``a.b=c`` overrides."""

from upop_ray.config.base import Part
from upop_ray.config.experiment import (
    Data,
    Distillation,
    EarlyStopping,
    Experiment,
    GatePenalty,
    Model,
    Optimizer,
    Regularisation,
    Replica,
    Retrain,
    Search,
    Sweep,
)
from upop_ray.config.published import Published, PublishedPoint
from upop_ray.config.reading import BUILTIN_EXPERIMENT, at_ratio, load, parse, replaced, set_field
from upop_ray.config.tasks import (
    Caption,
    Classification,
    Momentum,
    Reasoning,
    RerankedRetrieval,
    Retrieval,
    Segmentation,
    TaskSettings,
    Vqa,
)

__all__ = [
    "BUILTIN_EXPERIMENT",
    "Caption",
    "Classification",
    "Data",
    "Distillation",
    "EarlyStopping",
    "Experiment",
    "GatePenalty",
    "Model",
    "Momentum",
    "Optimizer",
    "Part",
    "Published",
    "PublishedPoint",
    "Reasoning",
    "Regularisation",
    "Replica",
    "RerankedRetrieval",
    "Retrain",
    "Retrieval",
    "Search",
    "Segmentation",
    "Sweep",
    "TaskSettings",
    "Vqa",
    "at_ratio",
    "load",
    "parse",
    "replaced",
    "set_field",
]
