"""How an export is loaded, as its card shows it."""

import json
from collections.abc import Mapping
from string import Template

from transformers import PreTrainedModel

from upop_ray.config import Caption, Vqa
from upop_ray.deploy.remote_code import autos_of
from upop_ray.deploy.subject import Subject

#: the least that a program has to do with the model, by family; settings of the task are filled in
_CALLS: Mapping[str, str] = {
    "clip": 'output = model(**processor(text=["a cat"], images=image, return_tensors="pt", padding=True))',
    "siglip": 'output = model(**processor(text=["a cat"], images=image, return_tensors="pt", padding="max_length"))',
    "vit": 'label = model(**processor(image, return_tensors="pt")).logits.argmax(-1)',
    "segmenter": 'classes = model(**processor(image, return_tensors="pt")).logits.argmax(1)  # of each pixel',
    "blip_caption": """\
inputs = processor(images=image, text=$prompt, return_tensors="pt")
tokens = model.generate(**inputs, num_beams=$beams, min_length=$min_length, max_length=$max_length, do_sample=False)
given = inputs["input_ids"].shape[1] - 1  # tokens of the prompt, which begin what is generated
caption = processor.decode(tokens[0, given:], skip_special_tokens=True)""",
    "blip_vqa": """\
inputs = processor(images=image, text="what is it?", return_tensors="pt")
inputs["input_ids"][:, 0] = model.config.text_config.vocab_size - 1  # [ENC], with which questions begin
tokens = model.generate(**inputs, num_beams=3, min_length=1, max_length=$answer_length, do_sample=False)
answer = processor.decode(tokens[0, 1:], skip_special_tokens=True)  # without [DEC]""",
    "blip_retrieval": """\
inputs = processor(images=image, text=["a cat"], return_tensors="pt")
output = model(inputs["pixel_values"], inputs["input_ids"])  # image_embeds, text_embeds, image_states
inputs["input_ids"][:, 0] = model.config.text_config.vocab_size - 1  # [ENC], with which matched captions begin
score = model(input_ids=inputs["input_ids"], image_states=output.image_states).itm_score""",
    "blip_nlvr": """\
inputs = processor(images=[left, right], text="both are cats", return_tensors="pt")
inputs["input_ids"][:, 0] = model.config.text_config.vocab_size - 1  # [ENC], with which statements begin
true = model(inputs["pixel_values"], inputs["input_ids"]).logits.argmax(-1)""",
}
#: transformers' retrieval model has another forward
_STOCK_CALLS = {
    "blip_retrieval": """\
inputs = processor(images=image, text=["a cat"], return_tensors="pt")
similarity = model(**inputs, use_itm_head=False).itm_score
inputs["input_ids"][:, 0] = model.config.text_config.vocab_size - 1  # [ENC], with which matched captions begin
score = model(**inputs).itm_score""",
}


def loading_lines(subject: Subject, model: PreTrainedModel, stock: bool) -> str:
    """Markdown with the lines of Python that load an export and call it."""
    processor = "AutoProcessor" if hasattr(subject.processor, "tokenizer") else "AutoImageProcessor"
    name = type(model).__name__ if stock else autos_of(model)[-1]
    # a tokenizer reads the config too, and without a word would ask on the terminal
    trusted = "" if stock else ", trust_remote_code=True"
    call = _STOCK_CALLS.get(subject.family, _CALLS[subject.family]) if stock else _CALLS[subject.family]
    call = Template(call).substitute(_settings(subject))
    notes = [] if stock else ["The classes are in the folder (`trust_remote_code`): read them; upop_ray is not needed."]
    if subject.family == "siglip":
        notes.append("The tokenizer is transformers' own, which needs `pip install sentencepiece protobuf`.")
    return f"""```python
from transformers import {", ".join(sorted((processor, name)))}

model = {name}.from_pretrained("FOLDER"{trusted})
processor = {processor}.from_pretrained("FOLDER"{trusted})
{call}
```

{" ".join(notes)}""".rstrip()


def _settings(subject: Subject) -> dict[str, str]:
    """What the task of the point generates by, as Python; of a folder that belongs to no point the defaults."""
    task = {} if subject.manifest is None else subject.manifest["settings"]["task"]
    defaults = {**Caption(name="caption").model_dump(), **Vqa(name="vqa").model_dump()}
    # as Python writes it, in the quotes of the other lines
    return {name: json.dumps(value, ensure_ascii=False) for name, value in (defaults | task).items()}
