"""From drawings to rows: rendering, splits without leakage, and the captions of the evaluation splits."""

import hashlib
import io
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import resvg_py
from PIL import Image

from upop_ray.data.emoji.readers import Concept, Drawing
from upop_ray.data.emoji.sources import Style

IMAGE_SIZE = 64
PALETTE_COLOURS = 64
SPLITS = ("train", "val", "test")

# of ten (concept, style family) pairs, which part goes where; the rest trains
_PARTS_OF_TEN = {0: "val", 1: "test"}
_MIN_TAGS_TO_HOLD_OUT = 4
_HELD_OUT_SHARE = 4


@dataclass(frozen=True)
class Row:
    """One image with its annotations; `captions` is empty in the training split, where captions are drawn anew."""

    image: bytes
    concept: Concept
    tags: tuple[str, ...]
    held_out_tags: tuple[str, ...]
    captions: tuple[str, ...]
    style: Style
    split: str


def render(drawing: Drawing) -> Image.Image:
    """Return a drawing as a 64x64 RGB image on white, its longer side filling the square."""
    picture = Image.open(io.BytesIO(_raster(drawing) if drawing.is_svg else drawing.content)).convert("RGBA")
    picture.thumbnail((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.LANCZOS)
    canvas = Image.new("RGBA", (IMAGE_SIZE, IMAGE_SIZE), "white")
    canvas.alpha_composite(picture, ((IMAGE_SIZE - picture.width) // 2, (IMAGE_SIZE - picture.height) // 2))
    return canvas.convert("RGB")


def _raster(drawing: Drawing) -> bytes:
    # drawn at twice the size and reduced, so that every style gets the same smoothing
    return bytes(resvg_py.svg_to_bytes(svg_string=drawing.content.decode(), width=2 * IMAGE_SIZE))


def palette_png(image: Image.Image) -> bytes:
    """Return a PNG with a palette of at most 64 colours, chosen for this image, without dithering."""
    quantized = image.quantize(PALETTE_COLOURS, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    quantized.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def held_out(concept: Concept) -> tuple[str, ...]:
    """Return the quarter of a concept's tags, if it has at least four, that no training caption may show."""
    if len(concept.tags) < _MIN_TAGS_TO_HOLD_OUT:
        return ()
    order = sorted(concept.tags, key=lambda tag: _hash(concept.hexcode, "tag", tag))
    return tuple(sorted(order[: len(order) // _HELD_OUT_SHARE]))


def assign_splits(families: Mapping[str, Iterable[str]]) -> dict[tuple[str, str], str]:
    """Return the split of each (concept, style family) that is used; the rest is left out.

    A pair's split is its hash, 8/1/1. Validation and test keep one family a concept, and only concepts that some other
    family shows in training.

    :param families: the style families that draw each concept, by hexcode
    """
    splits: dict[tuple[str, str], str] = {}
    for concept, drawn_by in families.items():
        by_split = defaultdict(list)
        for family in sorted(set(drawn_by), key=lambda family: _hash(concept, "order", family)):
            by_split[_PARTS_OF_TEN.get(_hash(concept, "split", family) % 10, "train")].append(family)
        splits |= {(concept, family): "train" for family in by_split["train"]}
        if by_split["train"]:
            splits |= {(concept, by_split[split][0]): split for split in ("val", "test") if by_split[split]}
    return splits


def one_image_a_concept(rows: list[Row]) -> list[Row]:
    """Keep one style of each concept in validation and test, where a family of several styles would show it twice."""
    chosen: dict[tuple[str, str], Row] = {}
    for row in sorted(rows, key=lambda row: _hash(row.concept.hexcode, "style", row.style.name)):
        if row.split != "train":
            chosen.setdefault((row.concept.hexcode, row.split), row)
    return [row for row in rows if row.split == "train" or chosen[row.concept.hexcode, row.split] is row]


def with_captions(row: Row) -> Row:
    """Give a row of an evaluation split its three captions: the label; label and tags; tags alone.

    Tags are taken from the held-out ones first, so that captions of the last two kinds show words that training never
    paired with this concept.
    """
    if row.split == "train":
        return row
    order = [*_shuffled(row, row.held_out_tags), *_shuffled(row, row.tags)]
    own = [tag for tag in order if tag != row.concept.label]
    label = row.concept.label
    return replace(row, captions=(label, ", ".join([label, *own[:2]]), ", ".join(own[:3] or [label])))


def _shuffled(row: Row, tags: tuple[str, ...]) -> list[str]:
    return sorted(tags, key=lambda tag: _hash(row.concept.hexcode, "caption", tag))


def _hash(*parts: str) -> int:
    return int.from_bytes(hashlib.sha256("/".join(parts).encode()).digest()[:8])
