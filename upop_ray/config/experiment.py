"""An experiment: a point, and the sweep around it."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from upop_ray.config.base import (
    Finite,
    Floors,
    FromList,
    FromText,
    NonNegativeFloat,
    Part,
    Positive,
    PositiveFloat,
    Ratio,
    Share,
)
from upop_ray.config.published import Published
from upop_ray.config.tasks import RerankedRetrieval, Retrieval, TaskSettings
from upop_ray.errors import ConfigError

MethodName = Literal["upop", "unified", "mask", "magnitude", "magnitude_uniform", "random"]


class Model(Part):
    """The dense model: its family, and a folder, a hub name, a file in the original format, or ``builtin:clip``."""

    family: str = "clip"
    path: str = "builtin:clip"
    #: folder or hub name of the tokenizer and image processor, for checkpoints that hold none (original formats)
    processor: str | None = None
    #: side of the images in pixels, where it is to differ from the checkpoint's; positions are interpolated
    image_size: Positive | None = None
    #: rate at which training drops residual branches of the last layer of the vision backbone, rising from 0 at the
    #: first (published: 0.1 for DeiT, Segmenter, BLIP-VQA and BLIP-NLVR2)
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.0
    #: published size, from which a plan is made where the checkpoint is not at hand
    size: str | None = None


class Data(Part):
    """The data set: a folder or URI of Parquet shards, or ``builtin:emoji``, and how it is read."""

    path: str = "builtin:emoji"
    #: what a task asks for -> what it is called, in the files of a data set without a manifest; for example
    #: ``{captions: text}``
    columns: dict[str, str] = {}
    #: processes beside each worker of the replica that make its batches ahead; 0 makes them when they are needed.
    #: They compute: count them in ``replica.cpus_per_worker``
    workers: Annotated[int, Field(ge=0)] = 0
    #: pieces of the data from which a batch takes equal parts: the largest number up to this that divides batch_size.
    #: Where ``replica.workers`` divides it, each worker reads its own pieces alone; not for built-in data
    lanes: Positive = 8
    #: rows of a piece that are shuffled together, and are in memory at a time; not for built-in data
    buffer: Positive = 2048
    #: folder on a disk of each node for what is fetched from s3:// and the like; null is ~/.cache/upop_ray/data
    cache: str | None = None
    #: what that folder may take, in 10^9 bytes; what was not used for longest goes first
    cache_gb: PositiveFloat = 20.0
    #: images of a split whose files take up to so many 10^6 bytes are held in memory
    in_memory_mb: NonNegativeFloat = 512.0


class Optimizer(Part):
    """Optimizer of both phases; the learning rate stands with the phase."""

    name: Literal["adamw", "sgd"] = "adamw"
    weight_decay: NonNegativeFloat = 0.05
    #: of sgd, in Nesterov's form where it is not 0 (published Segmenter: 0.9)
    momentum: Share = 0.0
    betas: Annotated[tuple[Finite, Finite], FromList] = (0.9, 0.999)
    epsilon: PositiveFloat = 1e-8
    #: largest gradient norm; 0 does not clip, as published
    gradient_clipping: NonNegativeFloat = 0.0


class Regularisation(Part):
    """Prices added to standardised scores, per kind and per tower; positive removes more there, 0 is as published."""

    attention: Finite = 0.0
    mlp: Finite = 0.0
    vision: Finite = 0.0
    language: Finite = 0.0
    cross: Finite = 0.0


class GatePenalty(Part):
    """L1 weights of the gates, per kind: they train the gates of ``mask``; elsewhere they change no mask."""

    attention: NonNegativeFloat = 0.0
    mlp: NonNegativeFloat = 0.0


class Search(Part):
    """The mask search."""

    method: MethodName = "upop"
    ratio: Ratio = 0.5
    budget: Literal["params", "macs", "units"] = "params"
    score: Literal["signed", "absolute"] = "signed"
    epochs: Positive = 1
    interval: Positive = 10
    learning_rate: PositiveFloat = 1e-4
    #: units that every site keeps
    floor: Positive = 1
    #: share (below 1) or count of units that stay, of what a name stands for: ``language/attention`` or a site for its
    #: own, ``language`` or ``attention`` for each kind in it or each tower with it
    floors: Floors = {}
    #: kept widths of heads and MLPs are multiples of it, or dense
    align: Positive = 1
    #: a tower that keeps a smaller share of a kind of its units is warned of; 0 warns of none
    collapse_share: Annotated[float, Field(ge=0, lt=1)] = 0.05
    regularisation: Regularisation = Regularisation()
    penalty: GatePenalty = GatePenalty()
    #: learning rate of the gates, used by method ``mask`` alone
    gate_learning_rate: PositiveFloat = 1e-2

    @model_validator(mode="after")
    def _published_cut_is_not_aligned(self) -> "Search":
        if self.align > 1 and self.budget == "units":
            raise ConfigError(
                "search.align",
                f"{self.align} asked, the paper's cut (search.budget=units) knows no widths",
                "use params",
            )
        return self


class Retrain(Part):
    """Training of the sliced model.

    ``schedule``: a cosine that falls each ``step`` or each ``epoch`` (published), or ``polynomial`` with power 0.9 each
    step (published Segmenter).
    """

    epochs: Positive = 1
    learning_rate: PositiveFloat = 1e-4
    minimum_learning_rate: NonNegativeFloat = 0.0
    schedule: Literal["step", "epoch", "polynomial"] = "step"


class Distillation(Part):
    """The dense model as a teacher in both phases: ``weight * temperature^2 * KL(teacher || student)`` is added."""

    #: 0 is without a teacher, as published
    weight: NonNegativeFloat = 0.0
    temperature: PositiveFloat = 1.0


class Replica(Part):
    """The workers that together hold one model."""

    workers: Positive = 1
    cpus_per_worker: Annotated[float, Field(ge=0.1, allow_inf_nan=False)] = 1.0
    gpus_per_worker: NonNegativeFloat = 0.0
    zero_stage: Literal[0, 1, 2, 3] = 2
    backend: Literal["gloo", "nccl"] = "gloo"
    #: seconds a worker may take to start, and to go from one report to the next, besides waiting for the store
    timeout: PositiveFloat = 600.0
    #: seconds after which a process of the replica that answers nothing counts as lost
    heartbeat: PositiveFloat = 60.0
    #: further DeepSpeed settings, merged over ours
    deepspeed: dict[str, Any] = {}

    @model_validator(mode="after")
    def _backend_has_its_device(self) -> "Replica":
        if self.backend == "nccl" and self.gpus_per_worker == 0:
            raise ConfigError(
                "replica.backend", "nccl needs replica.gpus_per_worker of at least 1, got 0", "use gloo on CPUs"
            )
        return self


class EarlyStopping(Part):
    """Successive halving on the validation metric, among points of the same ratio and method only."""

    grace_epochs: Positive = 1
    reduction: Annotated[int, Field(ge=2)] = 4


class Price(Part):
    """What an hour costs, in any currency; 0 counts hours alone."""

    cpu_hour: NonNegativeFloat = 0.0
    gpu_hour: NonNegativeFloat = 0.0


class Sweep(Part):
    """What varies: a grid, and draws from ``space`` for each of its cells."""

    ratios: Annotated[tuple[Ratio, ...], FromList] = (0.5,)
    methods: Annotated[tuple[MethodName, ...], FromList] = ("upop",)
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], FromList] = (0,)
    #: dotted setting -> {uniform: [low, high]} | {log_uniform: [low, high]} | {choice: [...]}
    space: dict[str, dict[str, list[Any]]] = {}
    samples: Positive = 1
    #: ratio -> dotted settings of training that differ there, for example ``{0.75: {search.epochs: 8}}``
    by_ratio: dict[Annotated[Ratio, FromText], dict[str, Any]] = {}
    early_stopping: EarlyStopping | None = None
    #: how often a point is taken up again after a crash of its workers; the loss of a node does not count
    retries: Annotated[int, Field(ge=0)] = 2
    #: points at once; 0 means as many as the resources allow
    max_concurrent: Annotated[int, Field(ge=0)] = 0
    #: whether a drawn setting that was seen to change nothing with a method keeps one value there from then on; a cell
    #: in which no other setting is drawn then has no further points. For this, the first draws of the first cell of
    #: each method change one setting at a time
    fix_dead_settings: bool = False
    price: Price = Price()

    @field_validator("ratios", "methods", "seeds")
    @classmethod
    def _some_and_distinct(cls, value: tuple[Any, ...]) -> tuple[Any, ...]:
        if not value:
            raise ValueError("is empty; name at least one")
        if len(set(value)) < len(value):
            raise ValueError("names a value twice; each value is one column of the grid")
        return value


class Experiment(Part):
    """One experiment: a point, and the sweep around it."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = "experiment"
    store: str = "results"
    #: seconds that an outage of the store may last before it is an error
    store_timeout: PositiveFloat = 600.0
    seed: Annotated[int, Field(ge=0)] = 0
    #: examples of one step over all workers
    batch_size: Positive = 128
    #: steps that count as an epoch, each epoch over other examples; 0 is a pass over the data
    epoch_steps: Annotated[int, Field(ge=0)] = 0
    precision: Literal["fp32", "bf16"] = "fp32"
    #: steps between checkpoints; 0 keeps only those between phases
    checkpoint_steps: Annotated[int, Field(ge=0)] = 50
    #: checkpoints that stay of a finished point; while it is computed it has the newest two, or as many
    keep_checkpoints: Annotated[int, Field(ge=0)] = 0
    #: steps between two reports of loss and throughput
    report_steps: Positive = 10
    model: Model = Model()
    data: Data = Data()
    task: TaskSettings = Retrieval()
    optimizer: Optimizer = Optimizer()
    search: Search = Search()
    retrain: Retrain = Retrain()
    distill: Distillation = Distillation()
    replica: Replica = Replica()
    sweep: Sweep = Sweep()
    #: reference points that reports show beside ours
    published: Published | None = None

    @model_validator(mode="after")
    def _batch_is_shared_evenly(self) -> "Experiment":
        if self.batch_size % self.replica.workers:
            raise ConfigError(
                "batch_size",
                f"{self.batch_size} is not a multiple of replica.workers {self.replica.workers}",
                f"use a multiple of {self.replica.workers}",
            )
        task = self.task
        if not isinstance(task, Retrieval | RerankedRetrieval) or task.loss != "momentum":
            return self
        if task.momentum.queue_size % self.batch_size:
            raise ConfigError(
                "task.momentum.queue_size",
                f"{task.momentum.queue_size} is not a multiple of batch_size {self.batch_size}",
                f"use a multiple of {self.batch_size}",
            )
        return self
