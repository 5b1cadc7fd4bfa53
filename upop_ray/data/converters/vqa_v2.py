"""VQAv2 on COCO, with questions of Visual Genome in training where they are there.

The published runs train on train and val of VQAv2 and on Visual Genome, and are measured by a server on questions
without public answers. Here a tenth of the val2014 images is held out of training, half of it to choose and half of it
to report, so that there is a test at all; what is trained on is the rest.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from upop_ray.data.converters import visual_genome
from upop_ray.data.converters.base import ASKED, Conversion, Converter, Count, Item, Piece
from upop_ray.data.converters.coco import image_id
from upop_ray.data.converters.holding import ranked
from upop_ray.data.converters.source import Source, clean_texts
from upop_ray.errors import DataError

_SUBSETS = ("train2014", "val2014")
_PUBLISHED = {"train2014": 443_757, "val2014": 214_354}
_BLIP = {"train2014": "vqa_train.json", "val2014": "vqa_val.json"}
_ANSWERS = "answer_list.json"
#: share of the val2014 images
_HELD_OUT = 0.1
#: times that a training answer must be the most common one of a question to be in the list of answers
_MIN_OCCURRENCES = 9

Question = dict[str, Any]
#: address of an image -> its questions
Asked = dict[str, list[Question]]


def _read(source: Source) -> Conversion:
    for subset in _SUBSETS:
        source.need_folder(subset)
    official = source.find(f"v2_OpenEnded_mscoco_{_SUBSETS[0]}_questions.json")
    asked = {subset: (_official if official else _of_blip)(source, subset) for subset in _SUBSETS}
    _require_single(source, asked)
    held = _held_out(asked["val2014"])
    training = {**asked["train2014"], **{path: q for path, q in asked["val2014"].items() if path not in held}}
    genome = visual_genome.read(source, {image_id(path) for path in held})
    answers, made = _answer_list(source, training.values())
    val, test = set(held[::2]), set(held[1::2])
    splits = {
        "train": [*_items(training), *genome.items],
        "val": _items({path: asked["val2014"][path] for path in held if path in val}),
        "test": _items({path: asked["val2014"][path] for path in held if path in test}),
    }
    notes = ("an answer weighs the share of the annotators who gave it", made, *genome.notes)
    origin = _origin(len(val), len(test), genome)
    return Conversion(splits, origin, {"answers": answers}, genome.skipped, notes, _counts(asked))


def _counts(asked: Mapping[str, Asked]) -> dict[str, Count]:
    found = {subset: sum(map(len, asked[subset].values())) for subset in _SUBSETS}
    return {subset: Count(found[subset], number, "questions") for subset, number in _PUBLISHED.items()}


def _require_single(source: Source, asked: Mapping[str, Asked]) -> None:
    seen: dict[str, str] = {}
    for path, questions in (pair for subset in _SUBSETS for pair in asked[subset].items()):
        for question in questions:
            id = question["question_id"]
            if id in seen:
                raise DataError(
                    f"{source.root}: question_id {id} is there twice, of {seen[id]} and {path}; correct one"
                )
            seen[id] = path


def _origin(val: int, test: int, genome: visual_genome.Genome) -> dict[str, str]:
    more = f", and {len(genome.items):,} images of Visual Genome" if genome.items else ", without Visual Genome"
    return {
        "train": f"train2014 and what is not held out of val2014{more}",
        "val": f"{val:,} images of val2014 (half of the tenth that is held out of training)",
        "test": f"{test:,} other images of val2014 (the other half); the published test has no public answers",
    }


def _held_out(asked: Asked) -> list[str]:
    paths = {image_id(path): path for path in asked}
    count = max(2, round(_HELD_OUT * len(paths)))
    return [paths[id] for id in ranked(list(paths), CONVERTER.name)[:count]]


def _items(asked: Asked) -> list[Item]:
    return [
        Item(image_id(path), {"image": Piece(path)}, {"image_id": image_id(path), "questions": questions})
        for path, questions in asked.items()
    ]


def _official(source: Source, subset: str) -> Asked:
    annotations = source.need(f"v2_mscoco_{subset}_annotations.json")
    found = source.entries(annotations, ("question_id", "answers"), under="annotations")
    by_question = {entry["question_id"]: entry for entry in found}
    if len(by_question) < len(found):
        twice = Counter(entry["question_id"] for entry in found).most_common(1)[0][0]
        raise DataError(f"{source.root / annotations}: question_id {twice} is there twice; fetch it again")
    name = source.need(f"v2_OpenEnded_mscoco_{subset}_questions.json")
    asked: Asked = {}
    for entry in source.entries(name, ("image_id", "question", "question_id"), under="questions"):
        place = f"{source.root / name}, question {entry['question_id']}"
        if entry["question_id"] not in by_question:
            raise DataError(f"{place}: has no answers in {annotations}; fetch questions and annotations of one version")
        given = [answer["answer"] for answer in by_question[entry["question_id"]]["answers"]]
        path = f"{subset}/COCO_{subset}_{entry['image_id']:012d}.jpg"
        asked.setdefault(path, []).append(_question(entry, given, place))
    return asked


def _of_blip(source: Source, subset: str) -> Asked:
    name = source.need(_BLIP[subset])
    asked: Asked = {}
    for entry in source.entries(name, ("image", "question", "question_id", "answer")):
        question = _question(entry, entry["answer"], f"{source.root / name}, question {entry['question_id']}")
        asked.setdefault(entry["image"], []).append(question)
    return asked


def _question(entry: Any, given: list[str], place: str) -> Question:
    """An answer's weight is the share of the annotators who gave it."""
    counts = Counter(clean_texts(given, place))
    return {
        "question_id": str(entry["question_id"]),
        "question": clean_texts([entry["question"]], place)[0],
        "answers": list(counts),
        "weights": [count / counts.total() for count in counts.values()],
    }


def _answer_list(source: Source, questions: Iterable[Sequence[Question]]) -> tuple[list[str], str]:
    """The answers to choose from, and where they are from."""
    name = source.find(_ANSWERS)
    if name is not None:
        answers = source.json(name)
        if not isinstance(answers, list) or len(set(map(str, answers))) < len(answers):
            raise DataError(f"{source.root / name}: must be a list that names each answer once")
        return clean_texts(answers, str(source.root / name)), f"the {len(answers):,} `answers` are those of {_ANSWERS}"
    counts = Counter(_most_given(question) for asked in questions for question in asked)
    answers = sorted(answer for answer, count in counts.items() if count >= _MIN_OCCURRENCES)
    if not answers:
        raise source.wrong(f"no answer is the most common one of {_MIN_OCCURRENCES} questions; give an {_ANSWERS}")
    made = f"the {len(answers):,} `answers` are the most common one of at least {_MIN_OCCURRENCES} training questions"
    return answers, made


def _most_given(question: Question) -> str:
    """The first of those that most annotators gave."""
    place = max(range(len(question["weights"])), key=lambda number: question["weights"][number])
    return str(question["answers"][place])


CONVERTER = Converter(
    name="vqa_v2",
    title="VQA v2 on COCO 2014",
    home="https://visualqa.org",
    licence="annotations CC BY 4.0, as those of Visual Genome; COCO images under the Flickr Terms of Use",
    expects=(
        "train2014/, val2014/, v2_OpenEnded_mscoco_{train2014,val2014}_questions.json and "
        "v2_mscoco_{train2014,val2014}_annotations.json (or BLIP's vqa_train.json and vqa_val.json), and if wanted "
        "answer_list.json, and visual_genome/ with images, image_data.json and question_answers.json (or vg_qa.json)"
    ),
    schema=ASKED,
    read=_read,
)
