"""Loads an exported folder as somebody would who has transformers and torch alone, and writes what it computes.

It is run as a file, ``python outside.py FOLDER INPUTS OUTPUTS``, also by a Python that has no upop_ray; where there is
one it is hidden. Inputs and outputs are tensors by name in .safetensors files.
"""

import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

#: new tokens that generating models write
_TOKENS = 5
_TEXT = "a red circle"
_SIDE = 40


@torch.no_grad()
def observed(model: Any, processor: Any, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All tensors that a model gives for ``inputs``, what it writes, and what its processor makes of a text and image.

    :param inputs: keyword arguments of its forward pass
    """
    found = {name: value for name, value in model(**inputs).items() if isinstance(value, Tensor)}
    if hasattr(model, "text_decoder"):
        # copies, since transformers writes the first token of a caption into what it is given
        prompt = {name: inputs[name].clone() for name in ("pixel_values", "input_ids", "attention_mask")}
        found["generated"] = model.generate(**prompt, max_new_tokens=_TOKENS, num_beams=1, do_sample=False)
    return found | _processed(processor)


def _processed(processor: Any) -> dict[str, Tensor]:
    ramp = torch.arange(3 * _SIDE * _SIDE).reshape(3, _SIDE, _SIDE) % 251
    images = getattr(processor, "image_processor", processor)
    found = {"processed_image": images(ramp.to(torch.uint8), return_tensors="pt")["pixel_values"]}
    if hasattr(processor, "tokenizer"):
        found["processed_text"] = processor.tokenizer(_TEXT, return_tensors="pt")["input_ids"]
    return found


def loaded(folder: str) -> tuple[Any, Any]:
    """Model and processor of an exported folder, through the Auto classes and the code in the folder."""
    from transformers import AutoImageProcessor, AutoModel, AutoProcessor

    model = AutoModel.from_pretrained(folder, trust_remote_code=True, dtype=torch.float32)
    reads_text = hasattr(model.config, "text_config")
    processor = AutoProcessor if reads_text else AutoImageProcessor
    return model.eval(), processor.from_pretrained(folder, trust_remote_code=True)


def main() -> None:
    """Entry point."""
    from safetensors.torch import load_file, save_file

    folder, inputs, outputs = sys.argv[1:]
    # an import of it fails from here on
    sys.modules["upop_ray"] = None  # type: ignore[assignment]
    torch.set_num_threads(1)
    found = observed(*loaded(folder), load_file(inputs))
    save_file({name: value.contiguous().clone() for name, value in found.items()}, outputs)


if __name__ == "__main__":
    main()
