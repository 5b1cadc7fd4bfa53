"""Settings of each task; ``task.name`` says which of them an experiment has."""

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Discriminator, Field, Tag

from upop_ray.config.base import FromList, NonNegativeFloat, Part, Positive, PositiveFloat, Share

#: the published recipe for photographs of any size and for their texts (lower case, without most punctuation), or the
#: gentle changes that drawings on white bear, of one size, and texts as they are
Augmentation: TypeAlias = Literal["photographs", "drawings"]


class Momentum(Part):
    """The momentum encoder and queue of the published recipe (ALGORITHM, section 3)."""

    decay: Annotated[float, Field(gt=0, lt=1)] = 0.995
    queue_size: Positive = 57_600
    teacher_weight: Share = 0.4
    enqueue: Literal["momentum", "online"] = "momentum"
    #: modules that the momentum encoder takes over instead of averaging (published CLIP: the last text norm)
    shared: Annotated[tuple[str, ...], FromList] = ()


class Retrieval(Part):
    """Retrieval of dual encoders; ``in_batch`` contrasts the global batch, ``momentum`` is the published ITC."""

    name: Literal["retrieval"] = "retrieval"
    loss: Literal["in_batch", "momentum"] = "in_batch"
    momentum: Momentum = Momentum()
    augmentation: Augmentation = "photographs"


class RerankedRetrieval(Part):
    """Image-text retrieval of BLIP: contrast and matching in training, contrast re-ranked by matching in evaluation.

    ``loss`` says how the contrast is made, as for :class:`Retrieval`.
    """

    name: Literal["retrieval_itm"]
    loss: Literal["in_batch", "momentum"] = "momentum"
    momentum: Momentum = Momentum()
    #: candidates of a query that the matching head ranks again (published: 256 on COCO, 128 on Flickr30K)
    candidates: Positive = 128
    #: tokens of a caption
    text_length: Positive = 35
    augmentation: Augmentation = "photographs"


class Caption(Part):
    """Captioning with a language model loss; evaluation by beam search."""

    name: Literal["caption"]
    label_smoothing: Share = 0.1
    #: what every caption starts with; its tokens bear no loss
    prompt: str = "a picture of "
    #: tokens of prompt and caption
    text_length: Positive = 40
    beams: Positive = 3
    min_length: Positive = 5
    max_length: Positive = 20
    #: scores of generated captions; those that need Java are left out with a note where there is none
    metrics: Annotated[
        tuple[Literal["bleu", "meteor", "rouge", "cider", "spice", "exact", "f1"], ...], FromList, Field(min_length=1)
    ] = ("bleu", "meteor", "rouge", "cider", "spice")
    #: the score that curves show and choices are made on
    headline: str = "cider"
    augmentation: Augmentation = "photographs"


class Vqa(Part):
    """Visual question answering: weighted answers in training; ranking of a fixed answer list, or generation."""

    name: Literal["vqa"]
    label_smoothing: Share = 0.1
    inference: Literal["rank", "generate"] = "rank"
    #: answers that are ranked by their likelihood, after the first token chose them (published: 128)
    candidates: Positive = 128
    question_length: Positive = 35
    answer_length: Positive = 10
    #: answers of one step over all workers are bounded by this many for each question
    answers_per_question: Positive = 10
    augmentation: Augmentation = "photographs"


class Reasoning(Part):
    """Whether a statement is true of two images (NLVR2)."""

    name: Literal["nlvr"]
    text_length: Positive = 36
    augmentation: Augmentation = "photographs"


class Classification(Part):
    """Image classification with the training recipe of DeiT; each augmentation is off at 0 (or an empty string)."""

    name: Literal["classification"]
    label_smoothing: Share = 0.1
    mixup: NonNegativeFloat = 0.8
    cutmix: NonNegativeFloat = 1.0
    #: timm's notation
    rand_augment: str = "rand-m9-mstd0.5-inc1"
    erasing: Share = 0.25
    #: copies of an image in one epoch's order (repeated augmentation; published 3)
    repeats: Positive = 1
    augmentation: Augmentation = "photographs"


class Segmentation(Part):
    """Semantic segmentation; evaluation by a sliding window at one or several scales."""

    name: Literal["segmentation"]
    #: side of training crops and of the evaluation window, in pixels; 0 takes the model's image size
    window: Annotated[int, Field(ge=0)] = 0
    #: step of the window; 0 takes the window's side
    stride: Annotated[int, Field(ge=0)] = 0
    #: scales of the evaluation, of the size at which the shorter side fills the window (published multi scale: 0.5,
    #: 0.75, 1.0, 1.25, 1.5, 1.75, each with its mirror image)
    scales: Annotated[tuple[Annotated[float, Field(ge=0.1, le=10)], ...], FromList, Field(min_length=1)] = (1.0,)
    mirror: bool = False
    #: range of the random scale of training photographs, of the size at which the shorter side fills the window
    resize: Annotated[tuple[PositiveFloat, PositiveFloat], FromList] = (0.5, 2.0)
    augmentation: Augmentation = "photographs"


def _name_of(value: Any) -> str:
    name = value.get("name", "retrieval") if isinstance(value, dict) else getattr(value, "name", None)
    return str(name)


TaskSettings: TypeAlias = Annotated[
    Annotated[Retrieval, Tag("retrieval")]
    | Annotated[RerankedRetrieval, Tag("retrieval_itm")]
    | Annotated[Caption, Tag("caption")]
    | Annotated[Vqa, Tag("vqa")]
    | Annotated[Reasoning, Tag("nlvr")]
    | Annotated[Classification, Tag("classification")]
    | Annotated[Segmentation, Tag("segmentation")],
    Discriminator(_name_of),
]
