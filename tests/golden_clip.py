"""The golden tiny CLIP as a transformers model, loaded from OpenAI's names."""

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import CLIPModel

from upop_ray.models.clip_names import clip_of_state

GOLDEN = Path(__file__).parent / "golden"
FACTS = json.loads((GOLDEN / "clip.json").read_text())


def arrays(name: str) -> dict[str, Tensor]:
    with np.load(GOLDEN / f"{name}.npz") as file:
        return {key: torch.from_numpy(file[key].copy()) for key in file.files}


def golden_model(dtype: torch.dtype = torch.float64) -> CLIPModel:
    path = GOLDEN / "clip_state_init.npz"
    # text heads are narrower than in any published CLIP
    return clip_of_state(arrays(path.stem), path, head_widths=(64, 16)).to(dtype)
