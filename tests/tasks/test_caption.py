"""Captioning: the loss against a loop over tokens and transformers' own, generation, and two processes against one."""

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import BlipForConditionalGeneration

from tests.datasets import encoded
from tests.ranks import Ranks
from tests.tasks.texts import END, PAD, START, VOCABULARY, experiment, ids, processor, tiny_model, write_dataset
from upop_ray.data.captions import CaptionBatch
from upop_ray.data.order import Cursor
from upop_ray.data.pictures import HeldPictures, Pictures
from upop_ray.data.shards import ShardedDataset, open_dataset
from upop_ray.errors import ConfigError
from upop_ray.models.blip.caption import BlipCaption
from upop_ray.tasks import TASKS
from upop_ray.tasks.caption import Caption
from upop_ray.tasks.collective import average, rank, world_size
from upop_ray.tasks.language import tokenised

SETTINGS = {"name": "caption", "text_length": 12, "max_length": 12, "metrics": ["exact", "f1"], "headline": "f1"}
TRAINING = [
    "red cat",
    "big blue bird on grass",
    "dog",
    "red dog on grass",
    "a bird",
    "a big big big big cat",
    "blue",
    "a",
]
EVALUATION = ["red cat", "blue dog on grass", "a bird"]
TIGHT = {"rtol": 1e-9, "atol": 1e-12}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> ShardedDataset:
    splits = {"train": TRAINING, "val": EVALUATION, "test": EVALUATION}
    rows = {split: [{"captions": [text]} for text in texts] for split, texts in splits.items()}
    return write_dataset(tmp_path_factory.mktemp("data") / "captions", rows)


def task_of(dataset: ShardedDataset, batch_size: int = 4, **settings: Any) -> Caption:
    return Caption(experiment(SETTINGS | settings, batch_size), dataset, processor(), tiny_model(BlipCaption))


def held(images: Tensor) -> Pictures:
    """Images, uint8 (n, 3, H, W), as a split holds them."""
    return HeldPictures([encoded(image) for image in images.permute(0, 2, 3, 1).numpy()], "somewhere")


def double(batch: CaptionBatch) -> CaptionBatch:
    return replace(batch, pixel_values=batch.pixel_values.double())


def in_double(model: BlipCaption) -> Any:
    """The model as it has to be called with inputs in fp32."""
    model.register_forward_pre_hook(
        lambda module, args, kwargs: (args, kwargs | {"pixel_values": kwargs["pixel_values"].double()}),
        with_kwargs=True,
    )
    return model


def expected_loss(model: BlipCaption, batch: CaptionBatch, smoothing: float) -> Tensor:
    """Token by token, one caption at a time, without padding."""
    losses = []
    for pixels, caption in zip(batch.pixel_values, batch.captions, strict=True):
        tokens = ids(f"a picture of {caption}", START)
        output = model(pixel_values=pixels[None], input_ids=torch.tensor([tokens]))
        logs = output.logits[0].log_softmax(1)
        # the first three targets are the prompt
        for place in range(3, len(tokens) - 1):
            smooth = logs[place].mean()
            losses.append(-(1 - smoothing) * logs[place, tokens[place + 1]] - smoothing * smooth)
    return torch.stack(losses).mean()


def test_the_task_is_registered() -> None:
    assert TASKS["caption"] is Caption


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_is_smoothed_and_over_the_tokens_after_the_prompt(dataset: ShardedDataset, smoothing: float) -> None:
    task, model = task_of(dataset, label_smoothing=smoothing), tiny_model(BlipCaption)
    batch = double(task.batch(Cursor(), 0, 1))
    loss = task.loss(model, model, batch, Cursor())
    torch.testing.assert_close(loss.value, expected_loss(model, batch, smoothing), **TIGHT)
    # words and [SEP] of each caption
    assert loss.logits.shape == (sum(len(text.split()) + 1 for text in batch.captions), len(VOCABULARY))
    assert torch.equal(task.logits(model, batch), loss.logits)


def test_loss_is_that_of_transformers(dataset: ShardedDataset) -> None:
    task, model = task_of(dataset), tiny_model(BlipForConditionalGeneration)
    batch = double(task.batch(Cursor(), 0, 1))
    texts = [f"a picture of {caption}" for caption in batch.captions]
    tokens = tokenised(task.tokenizer, texts, 12, START)
    labels = tokens.ids.masked_fill(tokens.ids == PAD, -100)
    labels[:, :4] = -100
    model.text_decoder.label_smoothing = 0.1
    output = model(pixel_values=batch.pixel_values, input_ids=tokens.ids, attention_mask=tokens.mask, labels=labels)
    torch.testing.assert_close(task.loss(model, model, batch, Cursor()).value, output.loss, **TIGHT)


def test_padding_and_prompt_bear_no_loss(dataset: ShardedDataset) -> None:
    task, model = task_of(dataset), tiny_model(BlipCaption)
    batch = double(task.batch(Cursor(), 0, 1))
    given = torch.zeros(1)

    def spoiled(**inputs: Tensor) -> Any:
        output = model(**inputs)
        behind = inputs["attention_mask"].roll(-1, 1).clone()
        behind[:, -1] = 0
        # logits of the prompt's tokens, of [SEP] and of padding
        output.logits = output.logits.masked_fill((behind == 0)[..., None], 7.0)
        output.logits[:, :3] = 9.0
        given.add_(1)
        return output

    loss = task.loss(model, spoiled, batch, Cursor()).value
    assert given == 1
    torch.testing.assert_close(loss, expected_loss(model, batch, 0.1), **TIGHT)


def test_captions_are_cut_to_the_text_length(dataset: ShardedDataset) -> None:
    task, model = task_of(dataset, text_length=6), tiny_model(BlipCaption)
    batch = replace(double(task.batch(Cursor(), 0, 1)), captions=["red dog on grass"] * 4)
    # [DEC] a picture of red [SEP]
    assert len(task.logits(model, batch)) == 4 * 2


def test_punctuation_and_case_of_captions_are_dropped(dataset: ShardedDataset) -> None:
    task, model = task_of(dataset), tiny_model(BlipCaption)
    batch = double(task.batch(Cursor(), 0, 1))
    plain, loud = (replace(batch, captions=[text] * 4) for text in ("red cat on grass", 'Red "cat"; (on) grass!!'))
    assert torch.equal(task.logits(model, plain), task.logits(model, loud))


def loss_and_gradient(folder: str) -> tuple[Tensor, Tensor]:
    task, model = task_of(open_dataset(folder)), in_double(tiny_model(BlipCaption))
    loss = task.loss(model, model, task.batch(Cursor(), rank(), world_size()), Cursor()).value
    loss.backward()
    return average(loss.detach()), average(model.vision_model.encoder.layers[0].mlp.fc1.weight.grad)


def test_the_batch_of_two_processes_is_that_of_one(two_ranks: Ranks, dataset: ShardedDataset) -> None:
    expected = loss_and_gradient(dataset.root)
    for answer in two_ranks.run(loss_and_gradient, dataset.root):
        torch.testing.assert_close(answer, expected, **TIGHT)


class Scripted:
    """A model that continues the prompt of each image with given words."""

    def __init__(self, words: list[str]) -> None:
        self.words, self.calls = list(words), []

    def eval(self) -> None:
        pass

    def parameters(self) -> Any:
        return iter([torch.zeros(1)])

    def generate(self, input_ids: Tensor, **settings: Any) -> Tensor:
        self.calls.append((input_ids.clone(), settings))
        input_ids[:, 0] = -1
        said = [[*ids(f"a picture of {self.words.pop(0)}", START), PAD] for _ in input_ids]
        longest = max(map(len, said))
        return torch.tensor([tokens + [PAD] * (longest - len(tokens)) for tokens in said])


def test_generation_gives_the_prompt_and_decodes_what_follows(
    dataset: ShardedDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("upop_ray.tasks.caption._IMAGES", 2)
    task = task_of(dataset, beams=2, min_length=6)
    model: Any = Scripted(["red cat", "a", "a picture of a dog"])
    assert task.captions(model, held(torch.zeros(3, 3, 16, 16, dtype=torch.uint8))) == [
        "red cat",
        "a",
        "a picture of a dog",
    ]
    for count, (prompt, settings) in zip((2, 1), model.calls, strict=True):
        assert prompt.tolist() == [ids("a picture of", START)] * count
        assert settings["attention_mask"].tolist() == [[1] * 5] * count
        assert settings["pixel_values"].shape == (count, 3, 16, 16)
        chosen = {name: settings[name] for name in ("num_beams", "min_length", "max_length", "do_sample")}
        assert chosen == {"num_beams": 2, "min_length": 6, "max_length": 12, "do_sample": False}


def test_metrics_are_of_the_generated_captions(dataset: ShardedDataset) -> None:
    model: Any = Scripted(["red cat", "blue cat on grass", "dog"])
    # two words of two; three of four on both sides; none
    assert task_of(dataset).evaluate(model, "test") == {"exact": pytest.approx(100 / 3), "f1": pytest.approx(175 / 3)}


def captions_and_scores(folder: str) -> tuple[list[str], dict[str, float]]:
    task, model = task_of(open_dataset(folder), headline="exact"), tiny_model(BlipCaption).float()
    images = torch.arange(40 * 3 * 256).reshape(40, 3, 16, 16).mul(31).remainder(251).to(torch.uint8)
    return task.captions(model, held(images)), task.evaluate(model, "validation")


def test_evaluation_of_two_processes_is_that_of_one(two_ranks: Ranks, dataset: ShardedDataset) -> None:
    expected = captions_and_scores(dataset.root)
    assert len(set(expected[0])) > 1
    assert captions_and_scores(dataset.root) == expected
    assert two_ranks.run(captions_and_scores, dataset.root) == [expected, expected]


def test_beam_search_is_that_of_transformers(dataset: ShardedDataset) -> None:
    task, model = task_of(dataset), tiny_model(BlipForConditionalGeneration).float()
    images = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    prompt = torch.tensor([ids("a picture of", START)] * 2)
    pixels = task.views.evaluation(held(images), range(2))
    found = model.generate(pixels, prompt, num_beams=3, min_length=5, max_length=12)
    words = [
        [VOCABULARY[token] for token in row if token not in (PAD, END, START, START + 1)] for row in found.tolist()
    ]
    assert [text.split() for text in task.captions(model, held(images))] == [row[3:] for row in words]


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"max_length": 5}, "task.max_length"),
        ({"text_length": 5}, "task.text_length"),
        ({"text_length": 17}, "task.text_length"),
        ({"min_length": 13}, "task.min_length"),
        ({"headline": "cider"}, "task.headline"),
        ({"headline": "bleu", "metrics": ["bleu"]}, "task.headline"),
    ],
)
def test_settings_without_sense_are_refused(dataset: ShardedDataset, settings: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError, match=field):
        task_of(dataset, **settings)


def test_the_headline_is_of_the_settings(dataset: ShardedDataset) -> None:
    make = partial(task_of, dataset)
    assert make().headline == "f1" and make(headline="exact").headline == "exact"
