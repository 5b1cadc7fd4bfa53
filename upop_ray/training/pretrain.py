"""Train the built-in dense CLIP and its tokenizer on the built-in data, and write a checkpoint that transformers loads.

    python -m upop_ray.training.pretrain --to FOLDER

Whatever is chosen is chosen on the validation split; the test split is evaluated once, at the end.
"""

import argparse
import json
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import nn
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPProcessor, CLIPTokenizer

from upop_ray.data.checkpoints import seal_checkpoint, verify_checkpoint
from upop_ray.data.image_text import (
    ImageTextBatch,
    ImageTextBatches,
    ImageTextSplit,
    evaluation_pairs,
    fixed_length,
    load_image_text,
)
from upop_ray.data.images import Preprocessing
from upop_ray.data.shards import ShardedDataset, open_dataset
from upop_ray.tasks.contrastive import LOGIT_SCALE_BOUNDS, Features, in_batch_loss, temperature
from upop_ray.tasks.retrieval import evaluate_pairs

_LOG = logging.getLogger(__name__)

VOCABULARY = 2000
CONTEXT = 16
IMAGE_SIZE = 64
_START, _END, _END_OF_WORD = "<|startoftext|>", "<|endoftext|>", "</w>"
_EPOCHS_PER_VALIDATION = 5


@dataclass(frozen=True)
class Recipe:
    """How the dense model is trained; learning rates are those after the warm-up."""

    data: str = "builtin:emoji"
    epochs: int = 60
    batch_size: int = 128
    seed: int = 0
    muon_lr: float = 0.02
    adamw_lr: float = 2e-3
    weight_decay: float = 0.05
    warm_up: float = 0.1
    max_norm: float = 1.0


def train_tokenizer(split: ImageTextSplit) -> CLIPTokenizer:
    """Train a byte-level BPE of 2,000 tokens on the labels and training tags of a split.

    All bytes are in it, also at the end of a word, so that no text gives an unknown token: CLIP's is the end token, at
    which the text is pooled. The end token has the highest id, which pools rightly by either rule of transformers.
    """
    bytes_ = sorted(pre_tokenizers.ByteLevel.alphabet())
    untrained = Tokenizer(models.BPE(end_of_word_suffix=_END_OF_WORD))
    form = CLIPTokenizer().backend_tokenizer
    untrained.normalizer, untrained.pre_tokenizer = form.normalizer, form.pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - 2,
        special_tokens=bytes_ + [byte + _END_OF_WORD for byte in bytes_],
        initial_alphabet=bytes_,
        end_of_word_suffix=_END_OF_WORD,
        show_progress=False,
    )
    texts = sorted({*split.labels, *(tag for tags in split.tags for tag in tags)})
    untrained.train_from_iterator(texts, trainer)
    trained = json.loads(untrained.to_str())["model"]
    vocabulary = trained["vocab"] | {_START: len(trained["vocab"]), _END: len(trained["vocab"]) + 1}
    merges: Any = [tuple(merge) for merge in trained["merges"]]
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=CONTEXT)


def dense_config(tokenizer: CLIPTokenizer) -> CLIPConfig:
    """Return the configuration of the dense model: 1.78 M parameters, 4 vision and 3 text layers of width 128."""
    width = {"hidden_size": 128, "intermediate_size": 512, "num_attention_heads": 4, "projection_dim": 128}
    tokens = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    text = {"vocab_size": len(tokenizer), "max_position_embeddings": CONTEXT, "num_hidden_layers": 3}
    return CLIPConfig(
        text_config=width | text | tokens | {"pad_token_id": tokenizer.pad_token_id},
        vision_config=width | {"image_size": IMAGE_SIZE, "patch_size": 16, "num_hidden_layers": 4},
        projection_dim=width["projection_dim"],
    )


def image_processor() -> CLIPImageProcessorPil:
    """Return CLIP's own preprocessing at 64 pixels."""
    side = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    return CLIPImageProcessorPil(size={"shortest_edge": IMAGE_SIZE}, crop_size=side)


def optimizers(model: CLIPModel, recipe: Recipe) -> tuple[torch.optim.Optimizer, ...]:
    """Return Muon for the matrices of the blocks, and AdamW for all other parameters."""
    blocks = {name for name, parameter in model.named_parameters() if ".layers." in name and parameter.ndim == 2}
    matrices = [parameter for name, parameter in model.named_parameters() if name in blocks]
    others = [parameter for name, parameter in model.named_parameters() if name not in blocks]
    groups: list[dict[str, Any]] = [
        {"params": [parameter for parameter in others if parameter.ndim > 1]},
        {"params": [parameter for parameter in others if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    muon = torch.optim.Muon(matrices, lr=recipe.muon_lr, weight_decay=recipe.weight_decay)
    adamw = torch.optim.AdamW(groups, lr=recipe.adamw_lr, betas=(0.9, 0.98), weight_decay=recipe.weight_decay)
    return muon, adamw


def rate(step: int, steps: int, warm_up: float) -> float:
    """Return the factor of the learning rates at a step: a linear warm-up, then half a cosine down to 0."""
    rising = max(1, round(steps * warm_up))
    if step < rising:
        return (step + 1) / rising
    progress = torch.tensor((step - rising) / max(1, steps - rising))
    return float((1 + torch.cos(torch.pi * progress)) / 2)


def train(
    model: CLIPModel, batches: ImageTextBatches, recipe: Recipe, after_epoch: Callable[[int, float], None]
) -> None:
    """Train a model in place.

    :param after_epoch: called with the number of finished epochs and the mean loss of the last one
    """
    steps = recipe.epochs * len(batches)
    optimizer_pair = optimizers(model, recipe)
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, steps, recipe.warm_up))
        for optimizer in optimizer_pair
    ]
    for epoch in range(recipe.epochs):
        model.train()
        total = 0.0
        for index in range(len(batches)):
            total += _step(model, batches.batch(epoch, index), optimizer_pair, recipe.max_norm)
            for schedule in schedules:
                schedule.step()
        after_epoch(epoch + 1, total / len(batches))


def _step(
    model: CLIPModel, batch: ImageTextBatch, optimizer_pair: Iterable[torch.optim.Optimizer], max_norm: float
) -> float:
    out = model(batch.input_ids, batch.pixel_values, batch.attention_mask)
    features = Features(out.image_embeds, out.text_embeds, batch.concept_ids)
    loss = in_batch_loss(features, temperature(model.logit_scale))
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(model.parameters(), max_norm)
    for optimizer in optimizer_pair:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    with torch.no_grad():
        model.logit_scale.clamp_(*LOGIT_SCALE_BOUNDS)
    return float(loss.detach())


def save(model: CLIPModel, tokenizer: CLIPTokenizer, folder: Path) -> None:
    """Write weights in fp16, configuration, tokenizer and processor; the configuration asks for fp32 in memory."""
    folder.mkdir(parents=True, exist_ok=True)
    model.half().save_pretrained(folder)  # type: ignore[no-untyped-call]
    model.float().config.dtype = torch.float32  # type: ignore[no-untyped-call]
    model.config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    CLIPProcessor(image_processor(), tokenizer).save_pretrained(folder)  # type: ignore[no-untyped-call]


def pretrain(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """Train, write the checkpoint, evaluate what was written, and seal it.

    :returns: the content of pretrain.json
    :raises DataError: the data cannot be read
    """
    torch.manual_seed(recipe.seed)
    dataset = open_dataset(recipe.data)
    split = load_image_text(dataset, "train")
    tokenizer = train_tokenizer(split)
    tokenize, preprocessing = fixed_length(tokenizer, CONTEXT), clip_preprocessing(image_processor())
    validation = evaluation_pairs(load_image_text(dataset, "val"), tokenize, preprocessing)
    model = CLIPModel(dense_config(tokenizer))
    batches = ImageTextBatches(split, tokenize, preprocessing, recipe.batch_size, recipe.seed)
    started = time.monotonic()

    def report(epoch: int, loss: float) -> None:
        _LOG.info("epoch %d of %d: loss %.3f, %.0f s", epoch, recipe.epochs, loss, time.monotonic() - started)
        if epoch % _EPOCHS_PER_VALIDATION == 0:
            _LOG.info("val r_mean %.1f", evaluate_pairs(model, validation)["r_mean"])

    train(model, batches, recipe, report)
    save(model, tokenizer, folder)
    record = {
        "recipe": asdict(recipe),
        "seconds": round(time.monotonic() - started),
        "parameters": model.num_parameters(),
        "data_content_hash": dataset.content_hash,
        **{name: evaluate_saved(folder, dataset, name) for name in ("val", "test")},
    }
    seal_checkpoint(folder, record)
    return verify_checkpoint(folder)


def clip_preprocessing(processor: CLIPImageProcessorPil) -> Preprocessing:
    """Return the preprocessing that a CLIP image processor describes."""
    return Preprocessing(processor.crop_size["height"], tuple(processor.image_mean), tuple(processor.image_std))


def evaluate_saved(folder: Path, dataset: ShardedDataset, split: str) -> dict[str, float]:
    """Return the recalls of a written checkpoint, rounded to fp16 as it is, and the numbers of images and captions."""
    model = CLIPModel.from_pretrained(folder, dtype=torch.float32)
    tokenize = fixed_length(CLIPTokenizer.from_pretrained(folder), CONTEXT)
    preprocessing = clip_preprocessing(CLIPImageProcessorPil.from_pretrained(folder))
    pairs = evaluation_pairs(load_image_text(dataset, split), tokenize, preprocessing)
    return evaluate_pairs(model.eval(), pairs) | {"images": len(pairs), "captions": len(pairs.caption_image)}


def main() -> None:
    """Entry point of `python -m upop_ray.training.pretrain`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, required=True, metavar="FOLDER", help="where the checkpoint is written")
    parser.add_argument("--data", default=Recipe.data, help="built-in name, folder or URI (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=Recipe.epochs, help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=Recipe.seed, help="(default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: %(default)s)")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(arguments.threads)
    recipe = Recipe(data=arguments.data, epochs=arguments.epochs, seed=arguments.seed)
    print(json.dumps(pretrain(recipe, arguments.to), indent=2))


if __name__ == "__main__":
    main()
