"""How an export is loaded, as its card shows it."""

from collections.abc import Mapping

from transformers import PreTrainedModel

from upop_ray.deploy.remote_code import autos_of
from upop_ray.deploy.subject import Subject

#: the least that a program has to do with the model, by family
_CALLS: Mapping[str, str] = {
    "clip": 'output = model(**processor(text=["a cat"], images=image, return_tensors="pt", padding=True))',
    "siglip": 'output = model(**processor(text=["a cat"], images=image, return_tensors="pt", padding="max_length"))',
    "vit": 'label = model(**processor(image, return_tensors="pt")).logits.argmax(-1)',
    "segmenter": 'classes = model(**processor(image, return_tensors="pt")).logits.argmax(1)  # of each pixel',
    "blip_caption": 'caption = model.generate(**processor(images=image, return_tensors="pt"))',
    "blip_vqa": 'answer = model.generate(**processor(images=image, text="what is it?", return_tensors="pt"))',
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
    trusted = "" if stock else ", trust_remote_code=True"
    call = _STOCK_CALLS.get(subject.family, _CALLS[subject.family]) if stock else _CALLS[subject.family]
    notes = [] if stock else ["The classes are in the folder (`trust_remote_code`): read them; upop_ray is not needed."]
    if subject.family == "siglip":
        notes.append("The tokenizer is transformers' own, which needs `pip install sentencepiece protobuf`.")
    return f"""```python
from transformers import {", ".join(sorted((processor, name)))}

model = {name}.from_pretrained("FOLDER"{trusted})
processor = {processor}.from_pretrained("FOLDER")
{call}
```

{" ".join(notes)}""".rstrip()
