"""The builder, on tiny packages made here."""

import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from upop_ray.data.emoji import build, rows, sources
from upop_ray.data.emoji.readers import Concept, Drawing
from upop_ray.data.shards import file_hash, open_dataset
from upop_ray.errors import DataError

FAMILIES = ["noto", "twemoji", "fluent", "fxemoji", "emojione"]
CODES = range(0x1F400, 0x1F440)
NAMES = {"groups": {"3": "animals-nature", "9": "flags"}, "subgroups": {"0": "animal"}}


def concept(code: str = "1F400", tags: tuple[str, ...] = ()) -> Concept:
    return Concept(code, "rat", tags, (), "animals-nature", "animal")


def tarball(path: Path, files: dict[str, bytes]) -> str:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"package/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return file_hash(path.read_bytes())


def annotations() -> dict[str, bytes]:
    entries = [
        {
            "hexcode": f"{code:X}-FE0F",
            "label": f"Animal {code}",
            "tags": ["a", "b", "c", "d"],
            "group": 3,
            "subgroup": 0,
        }
        for code in CODES
    ]
    unwanted = [
        {"hexcode": "1F3C1", "label": "flag", "group": 9, "subgroup": 0},
        {"hexcode": "1F400-200D-2640-FE0F", "label": "female rat", "group": 3, "subgroup": 0},
        {"hexcode": "1F1E6", "label": "regional indicator"},
    ]
    shortcodes = {entry["hexcode"]: "one" for entry in entries}
    contents = {
        "en/data.json": entries + unwanted,
        "meta/groups.json": NAMES,
        "en/shortcodes/emojibase.json": shortcodes,
    }
    return {name: json.dumps(content).encode() for name, content in contents.items()}


def icon_set(colour: str) -> dict[str, bytes]:
    body = f'<rect width="16" height="8" fill="{colour}"/>'
    icons = {"icons": {f"animal-{code}": {"body": body} for code in CODES}, "width": 16, "height": 16}
    return {"icons.json": json.dumps(icons).encode(), "chars.json": b"{}"}


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    digest = tarball(tmp_path / sources.ANNOTATIONS.file, annotations())
    monkeypatch.setattr(build, "ANNOTATIONS", replace(sources.ANNOTATIONS, sha256=digest))
    styles = []
    for style, colour in zip(sources.STYLES[:2], ["red", "blue"], strict=True):
        digest = tarball(tmp_path / style.source.file, icon_set(colour))
        styles.append(replace(style, source=replace(style.source, sha256=digest)))
    monkeypatch.setattr(build, "STYLES", tuple(styles))
    return tmp_path


def test_packages_become_a_data_set(packages: Path, tmp_path: Path) -> None:
    manifest = build.build(packages, tmp_path / "built")
    dataset = open_dataset(str(tmp_path / "built"))
    made = [row for split in dataset.splits for row in dataset.split(split).to_pylist()]
    assert manifest["content_hash"] == dataset.content_hash
    assert {row["concept"] for row in made} <= {f"{code:X}" for code in CODES}
    assert {row["shortcodes"][0] for row in made} == {"one"}
    top_left = {row["style"]: Image.open(io.BytesIO(row["image"])).convert("RGB").getpixel((5, 5)) for row in made}
    assert top_left == {"noto": (255, 0, 0), "noto-v1": (0, 0, 255)}


def test_building_again_gives_the_same_hash(packages: Path, tmp_path: Path) -> None:
    first, second = (build.build(packages, tmp_path / name)["content_hash"] for name in ("one", "two"))
    assert first == second


def test_another_package_than_the_pinned_one_is_refused(packages: Path, tmp_path: Path) -> None:
    path = packages / sources.STYLES[0].source.file
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(DataError, match=rf"{path.name}: sha256"):
        build.build(packages, tmp_path / "built")


def test_a_missing_package_is_named_with_its_cure(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"emojibase-data-17.0.0.tgz: missing; fetch it with `npm pack"):
        sources.verify(tmp_path, sources.ANNOTATIONS)


def test_drawings_are_centred_on_white() -> None:
    svg = b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 2 1"><rect width="2" height="1" fill="#00f"/></svg>'
    pixels = np.asarray(rows.render(Drawing(svg, is_svg=True)))
    assert pixels.shape == (64, 64, 3)
    assert (pixels[:15] == 255).all() and (pixels[-15:] == 255).all()
    assert (pixels[20:44] == (0, 0, 255)).all()


def test_splits_are_eight_one_one_and_evaluation_needs_training() -> None:
    splits = rows.assign_splits({f"{number:X}": FAMILIES for number in range(4000)})
    share = sum(split == "train" for split in splits.values()) / (4000 * len(FAMILIES))
    assert share == pytest.approx(0.8, abs=0.01)
    trained = {code for (code, _), split in splits.items() if split == "train"}
    for wanted in ("val", "test"):
        codes = [code for (code, _), split in splits.items() if split == wanted]
        # at least one of five families falls into the split
        assert len(codes) / 4000 == pytest.approx(1 - 0.9**5, abs=0.03)
        assert len(codes) == len(set(codes)) and set(codes) <= trained


def test_a_concept_of_a_single_artist_is_never_evaluated() -> None:
    splits = rows.assign_splits({f"{number:X}": ["noto"] for number in range(200)})
    assert set(splits.values()) == {"train"}


def test_a_quarter_of_at_least_four_tags_is_held_out() -> None:
    assert rows.held_out(concept(tags=("a", "b", "c"))) == ()
    assert len(rows.held_out(concept(tags=tuple("abcdefgh")))) == 2


def test_evaluation_captions_ask_for_held_out_tags_first() -> None:
    row = rows.Row(b"", concept(), ("known",), ("secret",), (), sources.STYLES[0], "test")
    assert rows.with_captions(row).captions == ("rat", "rat, secret, known", "secret, known")
    assert rows.with_captions(replace(row, split="train")).captions == ()
    assert rows.with_captions(replace(row, tags=("rat",), held_out_tags=())).captions == ("rat", "rat", "rat")
