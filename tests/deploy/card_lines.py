"""The lines of Python on a card as a script, and what the task of a point writes of the same image."""

from collections.abc import Mapping
from pathlib import Path

from transformers import PreTrainedModel

from tests.datasets import write_dataset
from upop_ray.config import Experiment, parse
from upop_ray.data.captions import load_captions
from upop_ray.data.questions import load_questions
from upop_ray.data.shards import open_dataset
from upop_ray.deploy.loading_lines import loading_lines
from upop_ray.deploy.subject import Subject
from upop_ray.tasks.caption import Caption
from upop_ray.tasks.vqa import Vqa

#: what the lines of families that write call it
WRITTEN = {"blip_caption": "caption", "blip_vqa": "answer"}
#: as on the card
QUESTION = "what is it?"


def settings(family: str) -> dict[str, object]:
    """Settings of a task that differ from their defaults."""
    if family == "blip_caption":
        return {"name": "caption", "prompt": 'a "red" picture of ', "beams": 2, "min_length": 9, "max_length": 12}
    return {"name": "vqa", "inference": "generate", "answer_length": 5}


def picture() -> bytes:
    """A built-in image."""
    found: bytes = open_dataset("builtin:emoji").split("test", ["image"])["image"][0].as_py()
    return found


def card_script(subject: Subject, model: PreTrainedModel, folder: Path, stock: bool) -> str:
    """The lines on the card of an export in ``folder``, with an image for them to look at; prints what they write."""
    code = loading_lines(subject, model, stock).partition("```python\n")[2].partition("```")[0]
    file = folder.parent / f"{folder.name}.png"
    file.write_bytes(picture())
    head = f"from PIL import Image\nimage = left = right = Image.open({str(file)!r}).convert('RGB')\n"
    end = f"print({WRITTEN[subject.family]})\n" if subject.family in WRITTEN else ""
    return head + code.replace("FOLDER", str(folder)) + end


def task_writes(subject: Subject, root: Path) -> str:
    """What the task with the settings of the point writes of that image."""
    row = {
        "image": picture(),
        "label": "it",
        "questions": [{"question": QUESTION, "answers": ["it"], "weights": [1.0]}],
    }
    dataset = write_dataset(root / "data", {split: [row] for split in ("train", "val", "test")})
    chosen = {} if subject.manifest is None else subject.manifest["settings"]["task"]
    if subject.family == "blip_caption":
        values = {"name": "caption", "text_length": 16, "metrics": ["exact"], "headline": "exact", **chosen}
        made = Caption(_experiment(values), dataset, subject.processor, subject.model)
        (text,) = made.captions(subject.model, load_captions(dataset, "test").pictures)
    else:
        values = {"name": "vqa", "question_length": 16, "inference": "generate", **chosen}
        made = Vqa(_experiment(values), dataset, subject.processor, subject.model)
        (text,) = made.answers(subject.model, load_questions(dataset, "test"))
    return str(text)


def _experiment(task: Mapping[str, object]) -> Experiment:
    return parse({"name": "card", "batch_size": 1, "task": {"augmentation": "drawings", **task}})
