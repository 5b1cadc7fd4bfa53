"""The questions of Visual Genome, which the published VQA runs train on besides.

Half of its images are COCO images, some of them held out of training; image_data.json says which.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from upop_ray.data.converters.base import Item, Piece
from upop_ray.data.converters.source import Source, utf8_texts
from upop_ray.errors import DataError

_FOLDERS = ("visual_genome", "visual-genome", "vg")
#: weight of the one answer to a question, as in the published code
_WEIGHT = 0.2
_UNANSWERED = "Visual Genome questions without question or answer"
_HELD_OUT = "Visual Genome questions about COCO images that are held out of training"


@dataclass(frozen=True)
class Genome:
    """Training rows, how many questions were left out, and what was changed."""

    items: list[Item]
    skipped: Mapping[str, int]
    notes: tuple[str, ...] = ()


def read(source: Source, held_out: Collection[str]) -> Genome:
    """Read the questions; none where there is no such folder.

    :param held_out: COCO images that may not be trained on
    :raises DataError: see :class:`Source`; questions about an image that image_data.json does not list
    """
    folder = next((name for name in _FOLDERS if (source.root / name).is_dir()), None)
    if folder is None:
        return Genome([], {})
    images = _images(source, folder)
    skipped = {_UNANSWERED: 0, _HELD_OUT: 0}
    asked: dict[str, list[dict[str, Any]]] = {}
    for image, question, answer, id, place in _questions(source, folder):
        if image not in images:
            raise DataError(f"{place}: image {image} is not in image_data.json; fetch both of one version")
        texts = utf8_texts([question, answer], place)
        if len(texts) < 2:
            skipped[_UNANSWERED] += 1
        elif images[image]["coco_id"] in held_out:
            skipped[_HELD_OUT] += 1
        else:
            entry = {"question_id": f"vg_{id}", "question": texts[0], "answers": [_short(texts[1])]}
            asked.setdefault(image, []).append({**entry, "weights": [_WEIGHT]})
    items = [_item(image, images[image]["path"], questions) for image, questions in asked.items()]
    note = f"answers of Visual Genome weigh {_WEIGHT}; they are in lower case and without a final full stop"
    return Genome(items, {what: count for what, count in skipped.items() if count}, (note,))


def _item(image: str, path: str, questions: list[dict[str, Any]]) -> Item:
    id = f"vg_{image}"
    return Item(id, {"image": Piece(path)}, {"image_id": id, "questions": questions})


def _short(answer: str) -> str:
    """An answer as those of VQA are written: "On the wall." is "on the wall"."""
    return answer.lower().rstrip(".").strip() or answer


def _images(source: Source, folder: str) -> dict[str, dict[str, str]]:
    """Address of each image, and the COCO image that it is, if any."""
    name = f"{folder}/image_data.json"
    if not (source.root / name).is_file():
        raise source.wrong(f"no {name}, which says which images of Visual Genome are held-out COCO images")
    flat = next((other for other in ("image", "images") if (source.root / folder / other).is_dir()), None)
    if flat is None and not (source.root / folder / "VG_100K").is_dir():
        raise source.wrong(f"no folder {folder}/VG_100K nor {folder}/image")
    found: dict[str, dict[str, str]] = {}
    for entry in source.entries(name, ("url",)):
        parts = PurePosixPath(entry["url"]).parts
        path = f"{folder}/{flat}/{parts[-1]}" if flat else f"{folder}/{parts[-2]}/{parts[-1]}"
        # of version 1.0 and of later ones
        id = str(entry.get("image_id", entry.get("id")))
        facts = {"path": path, "coco_id": str(entry.get("coco_id"))}
        if found.setdefault(id, facts) != facts:
            problem = f"image {id} is there twice, as {found[id]['path']} and {path}"
            raise DataError(f"{source.root / name}: {problem}, or of two COCO images; fetch it again")
    return found


def _questions(source: Source, folder: str) -> Iterator[tuple[str, str, str, str, str]]:
    """Image, question, answer, id and place of each."""
    official = f"{folder}/question_answers.json"
    if (source.root / official).is_file():
        for entry in source.entries(official, ("id", "qas")):
            for asked in entry["qas"]:
                place = f"{source.root / official}, image {entry['id']}"
                yield str(entry["id"]), asked["question"], asked["answer"], str(asked["qa_id"]), place
        return
    name = source.find("vg_qa.json", f"{folder}/vg_qa.json")
    if name is None:
        raise source.wrong(f"no {official} nor vg_qa.json")
    for entry in source.entries(name, ("image", "question", "answer", "question_id")):
        place = f"{source.root / name}, question {entry['question_id']}"
        image = PurePosixPath(entry["image"]).stem
        yield image, entry["question"], entry["answer"], str(entry["question_id"]), place
