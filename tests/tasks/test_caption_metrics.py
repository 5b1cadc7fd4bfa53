"""Scores of captions: hand computed, against CIDEr-D written anew, and where Java or the package is missing."""

import importlib.util
import logging
import math
import shutil
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from upop_ray.errors import ConfigError
from upop_ray.tasks import caption_metrics
from upop_ray.tasks.caption_metrics import Captions, CaptionScores, stanford_tokens, words

GENERATED = ["a red cat", "Two dogs play, on the grass."]
REFERENCES = [["a red dog", "one cat"], ["two dogs are playing on grass", "the dogs play on the grass"]]
COCO = ("bleu", "rouge", "cider")
TEXTS = [
    "A man's riding a horse; isn't he?",
    "two black-and-white dogs on the beach...",
    "it's 5:30, we're late",
    "women's t-shirts I'm sure they'd buy",
    "1,000 people at 3.5 feet",
    "",
]
with_java = pytest.mark.skipif(shutil.which("java") is None, reason="tests what a Java program says")


def scores(metrics: Sequence[str], headline: str, generated: Any = GENERATED, references: Any = REFERENCES) -> Any:
    return CaptionScores(metrics, headline)(generated, references, torch.device("cpu"))


def test_words() -> None:
    assert words("A man's riding; isn't he?") == ["a", "man", "'s", "riding", "is", "n't", "he"]


def test_exact_and_f1_by_hand() -> None:
    found = scores(("exact", "f1"), "f1", ["a red cat", "Dogs!"], [["a red dog", "cat"], ["cats", "dogs"]])
    # two of three words both ways, or one of three and one of one
    assert found == {"exact": 50.0, "f1": pytest.approx(100 * (2 / 3 + 1) / 2)}


def test_bleu_and_rouge_by_hand() -> None:
    found = scores(("bleu", "rouge"), "bleu_4", ["a red cat", "a dog"], [["a red dog"], ["a big dog", "a bird sings"]])
    # unigrams 2 of 3 and 2 of 2, bigrams 1 of 2 and 0 of 1; 5 tokens against the closest references' 6
    brevity = math.exp(1 - 6 / 5)
    assert found["bleu_1"] == pytest.approx(100 * brevity * 4 / 5, rel=1e-6)
    assert found["bleu_2"] == pytest.approx(100 * brevity * math.sqrt(4 / 5 * 1 / 3), rel=1e-6)
    # longest common subsequences of 2 with lengths 3, 3 and 2, 3; recall counts 1.2 squared times
    second = (1 + 1.44) * 1 * (2 / 3) / (2 / 3 + 1.44)
    assert found["rouge"] == pytest.approx(100 * (2 / 3 + second) / 2, rel=1e-6)


def cider_d(generated: list[list[str]], references: list[list[list[str]]]) -> float:
    """CIDEr-D from its definition (Vedantam et al., 2015): clipped tf-idf of n-grams, a penalty on lengths."""

    def grams(tokens: list[str], n: int) -> Counter[tuple[str, ...]]:
        return Counter(tuple(tokens[place : place + n]) for place in range(len(tokens) - n + 1))

    total = 0.0
    for n in (1, 2, 3, 4):
        frequency = Counter(gram for texts in references for gram in {g for text in texts for g in grams(text, n)})
        inverse = {gram: math.log(len(references) / count) for gram, count in frequency.items()}
        for text, others in zip(generated, references, strict=True):
            own = {g: c * inverse.get(g, math.log(len(references))) for g, c in grams(text, n).items()}
            for other in others:
                theirs = {g: c * inverse[g] for g, c in grams(other, n).items()}
                shared = sum(min(weight, theirs.get(g, 0.0)) * theirs.get(g, 0.0) for g, weight in own.items())
                norms = math.hypot(*own.values()) * math.hypot(*theirs.values())
                penalty = math.exp(-((len(text) - len(other)) ** 2) / (2 * 6**2))
                total += shared / norms * penalty / len(others) if norms else 0.0
    return 1000 * total / 4 / len(generated)


def test_cider_is_its_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    generated = [*GENERATED, "a bird sits on the grass and sings"]
    references = [*REFERENCES, ["a bird sings on the grass", "a small bird sits and sings"]]
    expected = cider_d([words(text) for text in generated], [[words(t) for t in texts] for texts in references])
    assert scores(("cider",), "cider", generated, references)["cider"] == pytest.approx(expected, rel=1e-9)


@with_java
def test_coco_scores_are_those_of_the_package_on_its_own_tokens() -> None:
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    tokenizer = PTBTokenizer()
    references = tokenizer.tokenize({row: [{"caption": t} for t in texts] for row, texts in enumerate(REFERENCES)})
    generated = tokenizer.tokenize({row: [{"caption": text}] for row, text in enumerate(GENERATED)})
    bleu = Bleu(4).compute_score(references, generated, verbose=0)[0]
    expected = dict(zip(("bleu_1", "bleu_2", "bleu_3", "bleu_4"), bleu, strict=True))
    for name, scorer in (("rouge", Rouge()), ("cider", Cider())):
        expected[name] = scorer.compute_score(references, generated)[0]
    found = scores(COCO, "cider")
    assert found == {name: pytest.approx(100 * value, rel=1e-12) for name, value in expected.items()}


@with_java
def test_words_are_those_of_stanford() -> None:
    assert stanford_tokens(TEXTS) == {text: " ".join(words(text)) for text in TEXTS}


@with_java
def test_an_empty_caption_scores_nothing() -> None:
    found = scores(COCO, "cider", ["", "two dogs"], [["a cat on grass"], ["big birds"]])
    assert found == {name: pytest.approx(0, abs=1e-4) for name in found}


@with_java
@pytest.mark.slow
def test_meteor_of_a_repeated_caption_is_full_and_of_a_foreign_one_nothing() -> None:
    sentence = "two dogs are playing on the green grass"
    assert scores(("meteor",), "meteor", [sentence], [[sentence]])["meteor"] == pytest.approx(100, abs=1)
    assert scores(("meteor",), "meteor", ["qwerty"], [[sentence]])["meteor"] == 0


def test_without_java_the_others_run(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with caplog.at_level(logging.WARNING):
        found = scores((*COCO, "meteor", "spice", "exact", "f1"), "cider")
    assert set(found) == {"bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge", "cider", "exact", "f1"}
    left_out = [record.getMessage() for record in caplog.records]
    assert len(left_out) == 2 and all("needs Java" in line for line in left_out)
    assert "meteor" in left_out[0] and "spice" in left_out[1]


def test_a_headline_without_java_is_refused_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match=r"task\.headline: meteor needs Java.*; install"):
        CaptionScores(("cider", "meteor"), "meteor")


def test_without_the_package_what_needs_none_runs(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert set(scores(("cider", "f1"), "f1")) == {"f1"}
    assert "upop_ray[captions]" in caplog.text
    with pytest.raises(ConfigError, match=r"task\.headline: cider needs the package pycocoevalcap"):
        CaptionScores(("cider", "f1"), "cider")


def test_spice_without_its_parser_is_refused_at_the_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/java")
    monkeypatch.setattr(caption_metrics, "_parser_file", lambda: tmp_path / "missing.jar")
    with pytest.raises(ConfigError, match=r"task\.headline: spice needs the Stanford parser.*get_stanford_models"):
        CaptionScores(("spice",), "spice")


def test_a_java_program_that_fails_is_left_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Any
) -> None:
    broken = tmp_path / "java"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert set(scores(("meteor", "rouge"), "rouge")) == {"rouge"}
    assert "the Java tokenizer failed" in caplog.text and "meteor is left out this time" in caplog.text
    with pytest.raises(ConfigError, match=r"task\.headline: meteor could not be computed"):
        scores(("meteor", "rouge"), "meteor")


def test_references_are_many_to_one() -> None:
    captions = Captions(["a cat"], [["the dog", "a cat"]])
    assert list(captions) == [("a cat", ["the dog", "a cat"])]
