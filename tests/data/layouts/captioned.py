"""COCO, Flickr30K, VQA v2, Visual Genome, NLVR2, and captions in JSON lines."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tests.data.layouts.files import jpeg, png, write


def captions(number: int) -> list[str]:
    """Five captions of an image, one with the space around it that real ones have."""
    return [f"Caption {place} of image {number}." for place in range(4)] + [f" The last of image {number} "]


def coco_images(folder: Path, train: int = 8, val: int = 6) -> tuple[list[str], list[str]]:
    """train2014/ and val2014/; the names with their folders. The number of an image is its seed."""
    parts = {"train2014": range(1, train + 1), "val2014": range(101, 101 + val)}
    names = {}
    for part, numbers in parts.items():
        names[part] = [f"{part}/COCO_{part}_{number:012d}.jpg" for number in numbers]
        for name, number in zip(names[part], numbers, strict=True):
            write(folder / name, jpeg(number))
    return names["train2014"], names["val2014"]


def coco_number(name: str) -> int:
    """The number of a COCO image by its name."""
    return int(name[-16:-4])


def coco_karpathy(folder: Path) -> None:
    """COCO as Karpathy's dataset_coco.json divides it: val2014 is restval (2), val (2) and test (2)."""
    train, val = coco_images(folder)
    splits = ["train"] * len(train) + ["restval", "restval", "val", "val", "test", "test"]
    images = []
    for imgid, (name, split) in enumerate(zip(train + val, splits, strict=True)):
        filepath, filename = name.split("/")
        images.append({"filepath": filepath, "filename": filename, "cocoid": coco_number(name), "imgid": imgid})
        images[-1] |= {"split": split} | _sentences(imgid, captions(coco_number(name)))
    write(folder / "dataset_coco.json", {"images": images, "dataset": "coco"})


def _sentences(imgid: int, texts: list[str]) -> dict[str, Any]:
    sentids = [imgid * len(texts) + place for place in range(len(texts))]
    sentences = [
        {"tokens": text.lower().strip(" .").split(), "raw": text, "imgid": imgid, "sentid": sentid}
        for text, sentid in zip(texts, sentids, strict=True)
    ]
    return {"sentids": sentids, "sentences": sentences}


def coco_blip(folder: Path) -> None:
    """COCO with BLIP's files: a caption an entry in training, all captions of an image an entry elsewhere."""
    train, val = coco_images(folder)
    parts = {"train": train + val[:2], "val": val[2:4], "test": val[4:]}
    _blip_captions(folder / "annotation", "coco_karpathy", "coco", parts, coco_number)


def _blip_captions(folder: Path, prefix: str, dataset: str, parts: Mapping[str, list[str]], number: Any) -> None:
    training = [
        {"caption": text, "image": name, "image_id": f"{dataset}_{number(name)}"}
        for name in parts["train"]
        for text in captions(number(name))
    ]
    write(folder / f"{prefix}_train.json", training)
    for split in ("val", "test"):
        entries = [{"image": name, "caption": captions(number(name))} for name in parts[split]]
        write(folder / f"{prefix}_{split}.json", entries)


def flickr_karpathy(folder: Path) -> None:
    """Flickr30K with Karpathy's file: 6 training images, 2 to validate, 2 to test."""
    images = []
    for imgid, split in enumerate(["train"] * 6 + ["val"] * 2 + ["test"] * 2):
        filename = f"{1000 + imgid}.jpg"
        write(folder / "flickr30k-images" / filename, jpeg(1000 + imgid))
        images.append({"filename": filename, "imgid": imgid, "split": split})
        images[-1] |= _sentences(imgid, captions(1000 + imgid))
    write(folder / "dataset_flickr30k.json", {"images": images, "dataset": "flickr30k"})


def flickr_blip(folder: Path) -> None:
    """The same with BLIP's files."""
    flickr_karpathy(folder)
    (folder / "dataset_flickr30k.json").unlink()
    names = [f"flickr30k-images/{1000 + imgid}.jpg" for imgid in range(10)]
    parts = {"train": names[:6], "val": names[6:8], "test": names[8:]}
    _blip_captions(folder, "flickr30k", "flickr30k", parts, lambda name: int(name[-8:-4]))


def vqa_answers(question_id: int) -> list[str]:
    """Ten annotators: seven say yes or no, two say maybe, one is not sure."""
    return [("yes", "no")[question_id % 2]] * 7 + ["maybe"] * 2 + ["not sure"]


def _vqa_entries(names: Iterable[str]) -> list[dict[str, Any]]:
    """Three questions an image, numbered as those of VQA are."""
    return [
        {"image": coco_number(name), "path": name, "question_id": coco_number(name) * 1000 + place}
        for name in names
        for place in range(3)
    ]


def vqa_official(folder: Path, train: int = 12, val: int = 40) -> None:
    """VQA v2 with the owners' questions and annotations."""
    for subset, names in zip(("train2014", "val2014"), coco_images(folder, train, val), strict=True):
        entries = _vqa_entries(names)
        questions = [
            {"image_id": entry["image"], "question": f"Is it {entry['question_id']}?"} | _id(entry) for entry in entries
        ]
        header = {"info": {"version": "2.0"}, "data_type": "mscoco", "data_subtype": subset, "license": {}}
        document = header | {"task_type": "Open-Ended", "questions": questions}
        write(folder / f"v2_OpenEnded_mscoco_{subset}_questions.json", document)
        annotations = [_vqa_annotation(entry) for entry in entries]
        write(folder / f"v2_mscoco_{subset}_annotations.json", header | {"annotations": annotations})


def _id(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {"question_id": entry["question_id"]}


def _vqa_annotation(entry: Mapping[str, Any]) -> dict[str, Any]:
    given = vqa_answers(entry["question_id"])
    answers = [
        {"answer": answer, "answer_confidence": "yes", "answer_id": place} for place, answer in enumerate(given, 1)
    ]
    facts = {"question_type": "is it", "answer_type": "yes/no", "multiple_choice_answer": given[0]}
    return facts | {"answers": answers, "image_id": entry["image"]} | _id(entry)


def vqa_blip(folder: Path, train: int = 12, val: int = 40) -> None:
    """VQA v2 with BLIP's files, which bring the answer list."""
    for name, names in zip(("vqa_train", "vqa_val"), coco_images(folder, train, val), strict=True):
        entries = [
            {"question": f"Is it {entry['question_id']}?", "answer": vqa_answers(entry["question_id"])}
            | {"image": entry["path"], "dataset": "vqa"}
            | _id(entry)
            for entry in _vqa_entries(names)
        ]
        write(folder / "annotation" / f"{name}.json", entries)
    write(folder / "annotation" / "answer_list.json", ["yes", "no", "maybe", "not sure"])


def visual_genome(folder: Path, coco_ids: Mapping[int, int | None]) -> None:
    """Two questions an image, in visual_genome/.

    :param coco_ids: image -> the COCO image that it is
    """
    root = folder / "visual_genome"
    images, asked = [], []
    for place, (image, coco_id) in enumerate(coco_ids.items()):
        part = ("VG_100K", "VG_100K_2")[place % 2]
        write(root / part / f"{image}.jpg", jpeg(image))
        images.append({"width": 24, "height": 16, "url": f"https://example.org/rak248/{part}/{image}.jpg"})
        images[-1] |= {"image_id": image, "coco_id": coco_id, "flickr_id": None}
        pairs = [("What is it?", "A Tree."), ("Where is it?", "On the wall.")]
        asked.append({"id": image, "qas": [_qa(image, *pair, place) for place, pair in enumerate(pairs)]})
    write(root / "image_data.json", images)
    write(root / "question_answers.json", asked)


def _qa(image: int, question: str, answer: str, place: int) -> dict[str, Any]:
    objects: dict[str, Any] = {"a_objects": [], "q_objects": []}
    return objects | {"question": question, "answer": answer, "image_id": image, "qa_id": image * 10 + place}


NLVR_PAIRS = {"train": 5, "dev": 3, "test1": 3}


def nlvr_official(folder: Path) -> None:
    """NLVR2: two statements a pair, JSON lines in data/, training images in numbered folders."""
    for split, pairs in NLVR_PAIRS.items():
        lines = []
        for pair in range(pairs):
            directory = {"directory": pair % 2} if split == "train" else {}
            inner = f"images/{split}/{pair % 2}" if split == "train" else f"images/{split}"
            for side in range(2):
                write(folder / inner / f"{split}-{pair}-0-img{side}.png", png(10 * pair + side))
            lines += [_nlvr_line(split, pair, sentence) | directory for sentence in range(2)]
        write(folder / "data" / f"{split}.json", "".join(json.dumps(line) + "\n" for line in lines))


def _nlvr_line(split: str, pair: int, sentence: int) -> dict[str, Any]:
    return {
        "validation": {"1": "True"},
        "sentence": f"The left image has {sentence} dogs.",
        "left_url": "https://example.org/left.jpg",
        "right_url": "https://example.org/right.jpg",
        "writer": 7,
        "identifier": f"{split}-{pair}-0-{sentence}",
        "label": str(sentence == 0),
        "synset": "dog",
        "query": "two dogs1",
    }


def nlvr_blip(folder: Path) -> None:
    """The same with BLIP's files."""
    nlvr_official(folder)
    for split, name in {"train": "train", "dev": "dev", "test1": "test"}.items():
        entries = []
        for pair in range(NLVR_PAIRS[split]):
            inner = f"train/{pair % 2}" if split == "train" else split
            images = [f"{inner}/{split}-{pair}-0-img{side}.png" for side in range(2)]
            entries += [
                {"sentence": f"The left image has {sentence} dogs.", "label": str(sentence == 0), "images": images}
                for sentence in range(2)
            ]
        write(folder / "annotation" / f"nlvr_{name}.json", entries)
        (folder / "data" / f"{split}.json").unlink()


def json_lines(folder: Path, splits: Mapping[str, int]) -> None:
    """Captioned images in photos/.

    :param splits: images of each split
    """
    for place, (split, count) in enumerate(splits.items()):
        lines = []
        for number in range(count):
            name = f"photos/{split}_{number}.png"
            write(folder / name, png(100 * place + number))
            lines.append(json.dumps({"image": name, "captions": captions(number)[:2]}, ensure_ascii=False))
        write(folder / f"{split}.jsonl", "\n".join(lines) + "\n")
