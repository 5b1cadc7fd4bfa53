"""Scores of generated captions: those of coco-caption, by pycocoevalcap, and what is right word by word.

All are given in the units of published tables, times 100 (a CIDEr of 1.33 is 133). METEOR and SPICE are Java programs.
"""

import importlib.util
import logging
import math
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean

import torch

from upop_ray.errors import ConfigError
from upop_ray.tasks.collective import gather, rank

_LOG = logging.getLogger(__name__)

#: ``task.metrics`` -> names of the scores that it gives
SCORES: Mapping[str, tuple[str, ...]] = {
    "bleu": ("bleu_1", "bleu_2", "bleu_3", "bleu_4"),
    "meteor": ("meteor",),
    "rouge": ("rouge",),
    "cider": ("cider",),
    "spice": ("spice",),
    "exact": ("exact",),
    "f1": ("f1",),
}
_NEED_JAVA = ("meteor", "spice")
_NEED_NOTHING = ("exact", "f1")
#: words with their inner hyphens, figures and so on, and what English contracts with them
_WORD = re.compile(r"\w+(?=n't\b)|n't\b|'(?:s|m|d|re|ve|ll)\b|\w+(?:[-./:,&]\w+)*")


class MetricFailed(Exception):
    """A metric that seemed possible could not be computed."""


@dataclass(frozen=True)
class Captions:
    """One generated caption for each image, and its references, at least one."""

    generated: Sequence[str]
    references: Sequence[Sequence[str]]

    def __iter__(self) -> Iterator[tuple[str, Sequence[str]]]:
        return iter(zip(self.generated, self.references, strict=True))

    @cached_property
    def tokens(self) -> tuple[dict[int, list[str]], dict[int, list[str]]]:
        """References and generated captions by image, as pycocoevalcap takes them.

        They are taken apart by Stanford's tokenizer as in coco-caption, or word by word where there is no Java.
        """
        tokens = _tokens({*self.generated, *(text for texts in self.references for text in texts)})
        return (
            {row: [tokens[text] for text in texts] for row, texts in enumerate(self.references)},
            {row: [tokens[text]] for row, text in enumerate(self.generated)},
        )


class CaptionScores:
    """The metrics of an experiment, less those that cannot be computed here, each of which is logged once."""

    def __init__(self, metrics: Sequence[str], headline: str) -> None:
        """Find out what can be computed, on rank 0, which computes for all.

        :raises ConfigError: the headline is none of the scores, or cannot be computed here
        """
        self.names = [name for metric in metrics for name in SCORES[metric]]
        self.headline = headline
        if headline not in self.names:
            raise ConfigError(
                "task.headline", f"{headline} is no score of task.metrics", f"choose one of {', '.join(self.names)}"
            )
        self.metrics = [metric for metric in metrics if rank() == 0 and self._is_possible(metric)]

    def __call__(
        self, generated: Sequence[str], references: Sequence[Sequence[str]], device: torch.device
    ) -> dict[str, float]:
        """Scores by name, the same on every rank.

        :param references: of each generated caption, at least one
        :param device: over which ranks communicate
        :raises ConfigError: the headline could not be computed
        """
        found = self._computed(Captions(generated, references)) if rank() == 0 else {}
        values = torch.tensor([found.get(name, math.nan) for name in self.names], dtype=torch.float64, device=device)
        shared = gather(values)[: len(self.names)].tolist()
        scores = {name: value for name, value in zip(self.names, shared, strict=True) if not math.isnan(value)}
        if self.headline not in scores:
            raise ConfigError(
                "task.headline", f"{self.headline} could not be computed, see the log", "choose another score"
            )
        return scores

    def _is_possible(self, metric: str) -> bool:
        problem = obstacle(metric)
        if problem is not None and self.headline in SCORES[metric]:
            raise ConfigError("task.headline", f"{metric} {problem[0]}", problem[1])
        if problem is not None:
            _LOG.warning("task.metrics: %s is left out: it %s; %s", metric, *problem)
        return problem is None

    def _computed(self, captions: Captions) -> dict[str, float]:
        found: dict[str, float] = {}
        for metric in self.metrics:
            try:
                values = _METRICS[metric](captions)
            except MetricFailed as error:
                _LOG.warning("task.metrics: %s is left out this time: %s", metric, error)
                continue
            found |= {name: 100 * value for name, value in zip(SCORES[metric], values, strict=True)}
        return found


def obstacle(metric: str) -> tuple[str, str] | None:
    """Why a metric cannot be computed on this machine, and the cure; None where it can."""
    if metric in _NEED_NOTHING:
        return None
    if importlib.util.find_spec("pycocoevalcap") is None:
        return "needs the package pycocoevalcap", "pip install 'upop_ray[captions]'"
    if metric in _NEED_JAVA and shutil.which("java") is None:
        return "needs Java and there is none", "install a Java runtime"
    if metric == "spice" and not _parser_file().is_file():
        return (
            "needs the Stanford parser, which is not there",
            "run `python -m pycocoevalcap.spice.get_stanford_models` once on every node",
        )
    return None


def words(text: str) -> list[str]:
    """The words of a text in lower case, contractions taken apart."""
    return _WORD.findall(text.lower())


def exact_match(captions: Captions) -> list[float]:
    """Share of captions that say what one of their references says, word for word."""
    return [fmean(words(text) in [words(other) for other in others] for text, others in captions)]


def word_f1(captions: Captions) -> list[float]:
    """Harmonic mean of the precision and recall of words with the best reference, mean over captions."""
    return [fmean(max(_f1(text, other) for other in others) for text, others in captions)]


def _f1(text: str, other: str) -> float:
    first, second = Counter(words(text)), Counter(words(other))
    shared = (first & second).total()
    return 2 * shared / max(first.total() + second.total(), 1)


def _tokens(texts: set[str]) -> dict[str, str]:
    """Each text as tokens parted by spaces, without punctuation."""
    if shutil.which("java") is not None:
        try:
            return stanford_tokens(sorted(texts))
        except MetricFailed as error:
            _LOG.warning("task.metrics: captions are taken apart without Java: %s", error)
    return {text: " ".join(words(text)) for text in texts}


def stanford_tokens(texts: Sequence[str]) -> dict[str, str]:
    """Each text as the tokens of Stanford's PTBTokenizer parted by spaces, without what coco-caption drops.

    :raises MetricFailed: its Java program failed
    """
    from pycocoevalcap.tokenizer import ptbtokenizer

    jar = Path(ptbtokenizer.__file__).with_name(ptbtokenizer.STANFORD_CORENLP_3_4_1_JAR)
    options = ["-preserveLines", "-lowerCase", "-encoding", "UTF-8"]
    command = ["java", "-cp", str(jar), "edu.stanford.nlp.process.PTBTokenizer", *options]
    lines = "".join(" ".join(text.split()) + "\n" for text in texts)
    try:
        result = subprocess.run(command, input=lines.encode(), capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise MetricFailed(f"the Java tokenizer failed: {error}") from error
    found = result.stdout.decode().split("\n")[: len(texts)]
    dropped = set(ptbtokenizer.PUNCTUATIONS)
    kept = [" ".join(token for token in line.split() if token not in dropped) for line in found]
    return dict(zip(texts, kept, strict=True))


def _bleu(captions: Captions) -> list[float]:
    from pycocoevalcap.bleu.bleu import Bleu

    return list(Bleu(4).compute_score(*captions.tokens, verbose=0)[0])


def _rouge(captions: Captions) -> list[float]:
    from pycocoevalcap.rouge.rouge import Rouge

    return [float(Rouge().compute_score(*captions.tokens)[0])]


def _cider(captions: Captions) -> list[float]:
    from pycocoevalcap.cider.cider import Cider

    return [float(Cider().compute_score(*captions.tokens)[0])]


def _meteor(captions: Captions) -> list[float]:
    from pycocoevalcap.meteor.meteor import Meteor

    scorer = Meteor()
    try:
        return [float(scorer.compute_score(*captions.tokens)[0])]
    except (OSError, ValueError) as error:
        # its destructor waits for the lock that it still holds, and sends what is left
        scorer.lock.release()
        with suppress(OSError):
            scorer.meteor_p.stdin.close()
        raise MetricFailed(f"the Java program failed: {error}") from error


def _spice(captions: Captions) -> list[float]:
    from pycocoevalcap.spice.spice import Spice

    try:
        return [float(Spice().compute_score(*captions.tokens)[0])]
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        raise MetricFailed(f"the Java program, which was made for Java 8, failed: {error}") from error


def _parser_file() -> Path:
    from pycocoevalcap.spice import get_stanford_models as stanford

    return Path(stanford.SPICEDIR, stanford.SPICELIB, f"{stanford.JAR}.jar")


_METRICS: Mapping[str, Callable[[Captions], list[float]]] = {
    "bleu": _bleu,
    "meteor": _meteor,
    "rouge": _rouge,
    "cider": _cider,
    "spice": _spice,
    "exact": exact_match,
    "f1": word_f1,
}
