"""What a sweep needs and this place does not have; nothing is started or connected to."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch

from upop_ray.config import Experiment
from upop_ray.plan.points import Examples
from upop_ray.plan.subject import Subject
from upop_ray.store import Store

_GIGA = 1e9


def missing(subject: Subject, examples: Examples, needed: int) -> list[str]:
    """One line for each thing that is missing, with where it is to be had.

    :param needed: bytes that the store has to take
    """
    return [*_inputs(subject, examples), *_resources(subject.experiment), *_space(subject.experiment, needed)]


def notes(experiment: Experiment, examples: Examples) -> list[str]:
    """What is there, and not as published."""
    published = experiment.published
    if published is None or examples.known_from != "data" or examples.count is None:
        return []
    factor = published.train_examples / examples.count
    if 0.99 < factor < 1.01:
        return []
    problem = f"an epoch has {examples.count:,} examples here, the published one {published.train_examples:,}"
    return [f"{problem}: multiply epochs by {factor:.3g} to train as long"]


def _inputs(subject: Subject, examples: Examples) -> Iterator[str]:
    published = subject.experiment.published
    if examples.problem is not None:
        cure = "" if published is None else f"; prepare it: {published.prepare}"
        yield f"data: {examples.problem}{cure}"
    if subject.problem is not None:
        cure = "" if published is None else f"; to be had: {published.checkpoint}"
        yield f"checkpoint: {subject.experiment.model.path} is not at hand ({subject.problem}){cure}"


def _resources(experiment: Experiment) -> Iterator[str]:
    replica = experiment.replica
    gpus, cpus = replica.workers * replica.gpus_per_worker, replica.workers * replica.cpus_per_worker
    if address := os.environ.get("RAY_ADDRESS"):
        yield f"cluster: {gpus:g} GPUs and {cpus:g} CPUs a replica have to be free at {address} (it was not asked)"
        return
    here = torch.cuda.device_count()
    if gpus > here:
        yield f"GPUs: {gpus:g} a replica, {here} here; run it on a Ray cluster (RAY_ADDRESS, ray job submit)"
    have = os.cpu_count() or 1
    if cpus > have:
        yield f"CPUs: {cpus:g} a replica, {have} here; run it on a Ray cluster (RAY_ADDRESS, ray job submit)"


def _space(experiment: Experiment, needed: int) -> Iterator[str]:
    store = Store(experiment.store)
    if not store.is_local:
        return
    folder = Path(store.uri)
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < needed:
        yield f"disk: {needed / _GIGA:.1f} GB for {store.uri}, {free / _GIGA:.1f} GB are free"
