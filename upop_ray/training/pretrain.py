"""Train the dense model of a built-in experiment, and write a checkpoint that transformers loads.

    python -m upop_ray.training.pretrain clip --to FOLDER

Data, task and batch size are those of `experiments/builtin_NAME.yaml`. Whatever is chosen is chosen on the validation
split; the test split is evaluated once, at the end.
"""

import argparse
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from upop_ray import config
from upop_ray.config import BUILTIN_EXPERIMENT, Experiment
from upop_ray.data.checkpoints import seal_checkpoint, ship_checkpoint, verify_checkpoint
from upop_ray.data.order import Cursor
from upop_ray.data.shards import open_dataset
from upop_ray.models import family
from upop_ray.models.spec import Source
from upop_ray.tasks import TASKS
from upop_ray.tasks.spec import Task
from upop_ray.terminal import guarded
from upop_ray.training.dense import DENSE

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recipe:
    """How a dense model is trained; learning rates are those after the warm-up."""

    epochs: int = 60
    seed: int = 0
    muon_lr: float = 0.02
    adamw_lr: float = 2e-3
    weight_decay: float = 0.05
    warm_up: float = 0.1
    max_norm: float = 1.0


def optimizers(model: nn.Module, recipe: Recipe) -> tuple[torch.optim.Optimizer, ...]:
    """Return Muon for the matrices of the blocks, and AdamW for all other parameters; what is frozen stays."""
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    matrices = [parameter for name, parameter in named if _of_a_block(name) and parameter.ndim == 2]
    others = [parameter for name, parameter in named if not (_of_a_block(name) and parameter.ndim == 2)]
    groups: list[dict[str, Any]] = [
        {"params": [parameter for parameter in others if parameter.ndim > 1]},
        {"params": [parameter for parameter in others if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    muon = torch.optim.Muon(matrices, lr=recipe.muon_lr, weight_decay=recipe.weight_decay)
    adamw = torch.optim.AdamW(groups, lr=recipe.adamw_lr, betas=(0.9, 0.98), weight_decay=recipe.weight_decay)
    return muon, adamw


def _of_a_block(name: str) -> bool:
    # modules of a list have numbers for names
    return any(part.isdigit() for part in name.split("."))


def rate(step: int, steps: int, warm_up: float) -> float:
    """Return the factor of the learning rates at a step: a linear warm-up, then half a cosine down to 0."""
    rising = max(1, round(steps * warm_up))
    if step < rising:
        return (step + 1) / rising
    progress = torch.tensor((step - rising) / max(1, steps - rising))
    return float((1 + torch.cos(torch.pi * progress)) / 2)


def train(model: nn.Module, task: Task, recipe: Recipe, after_epoch: Callable[[int, float], None]) -> None:
    """Train a model in place.

    :param after_epoch: called with the number of finished epochs and the mean loss of the last one
    """
    steps = recipe.epochs * task.steps_per_epoch()
    optimizer_pair = optimizers(model, recipe)
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, steps, recipe.warm_up))
        for optimizer in optimizer_pair
    ]
    task.start(model)
    for epoch in range(recipe.epochs):
        model.train()
        total = 0.0
        for index in range(task.steps_per_epoch()):
            total += _step(model, task, Cursor(epoch, index), optimizer_pair, recipe.max_norm)
            for schedule in schedules:
                schedule.step()
        after_epoch(epoch + 1, total / task.steps_per_epoch())


def _step(
    model: nn.Module, task: Task, cursor: Cursor, optimizer_pair: Sequence[torch.optim.Optimizer], max_norm: float
) -> float:
    loss = task.loss(model, model, task.batch(cursor, 0, 1), cursor).value
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(model.parameters(), max_norm)
    for optimizer in optimizer_pair:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return float(loss.detach())


def save(model: PreTrainedModel, processor: Any, folder: Path) -> None:
    """Write weights in fp16, configuration, tokenizer and processor; the configuration asks for fp32 in memory."""
    folder.mkdir(parents=True, exist_ok=True)
    model.half().save_pretrained(folder)  # type: ignore[no-untyped-call]
    model.float().config.dtype = torch.float32  # type: ignore[no-untyped-call]
    model.config.save_pretrained(folder)
    processor.save_pretrained(folder)


def pretrain(name: str, recipe: Recipe, folder: Path, experiment: Experiment | None = None) -> dict[str, Any]:
    """Train, write the checkpoint, evaluate what was written, and seal it.

    :param name: a key of ``DENSE``
    :param experiment: data, task and batch size; those of the built-in experiment without it
    :returns: the content of pretrain.json
    :raises DataError: the data cannot be read
    """
    experiment = experiment or config.load(BUILTIN_EXPERIMENT.with_name(f"builtin_{name}.yaml"))
    torch.manual_seed(recipe.seed)
    dataset = open_dataset(experiment.data.path, columns=experiment.data.columns)
    model, processor = DENSE[name](dataset)
    task = TASKS[experiment.task.name](experiment, dataset, processor, model)
    started = time.monotonic()

    def report(epoch: int, loss: float) -> None:
        _LOG.info("epoch %d of %d: loss %.3f, %.0f s", epoch, recipe.epochs, loss, time.monotonic() - started)
        if epoch % max(1, recipe.epochs // 6) == 0:
            _LOG.info("validation %s %.1f", task.headline, task.evaluate(model, "validation")[task.headline])

    train(model, task, recipe, report)
    save(model, processor, folder)
    seconds = round(time.monotonic() - started)
    written, _ = family(experiment.model.family, experiment.task.name).load(Source(folder))
    record = {
        "experiment": experiment.model_dump(mode="json", include={"data", "task", "batch_size", "seed"}),
        "recipe": asdict(recipe),
        "seconds": seconds,
        "parameters": model.num_parameters(),
        "data_content_hash": dataset.content_hash,
        **{split: task.evaluate(written, split) for split in ("validation", "test")},
    }
    seal_checkpoint(folder, record)
    return verify_checkpoint(folder)


def main() -> int:
    """Entry point of `python -m upop_ray.training.pretrain`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=sorted(DENSE), help="which built-in experiment's model")
    parser.add_argument("--to", type=Path, required=True, metavar="FOLDER", help="where the checkpoint is written")
    parser.add_argument("--epochs", type=int, default=Recipe.epochs, help="(default: %(default)s)")
    parser.add_argument("--muon-lr", type=float, default=Recipe.muon_lr, help="(default: %(default)s)")
    parser.add_argument("--adamw-lr", type=float, default=Recipe.adamw_lr, help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=Recipe.seed, help="(default: %(default)s)")
    parser.add_argument("--ship", action="store_true", help="leave out what another built-in checkpoint has")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: %(default)s)")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(arguments.threads)
    recipe = Recipe(arguments.epochs, arguments.seed, arguments.muon_lr, arguments.adamw_lr)
    record = pretrain(arguments.name, recipe, arguments.to)
    if arguments.ship:
        ship_checkpoint(f"builtin:{arguments.name}", arguments.to)
    print(json.dumps(record, indent=2))
    return 0


if __name__ == "__main__":
    guarded(main)
