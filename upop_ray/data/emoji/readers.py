"""Reading the registry packages: the concepts that CLDR annotates, and what each artist drew of them."""

import json
import re
import tarfile
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from upop_ray.errors import DataError

# U+FE0F only asks for the coloured form of a character; sets disagree on whether to write it.
_VARIATION_SELECTOR = "FE0F"
_GENDER_SIGNS = ("200D-2640", "200D-2642")
_LEFT_OUT_GROUPS = (None, "component", "flags")


@dataclass(frozen=True)
class Concept:
    """One emoji: code points (hexadecimal, joined by `-`, without U+FE0F) and what CLDR says about it."""

    hexcode: str
    label: str
    tags: tuple[str, ...]
    shortcodes: tuple[str, ...]
    group: str
    subgroup: str


@dataclass(frozen=True)
class Drawing:
    """The bytes of a drawing as its artist published it: an SVG text or an encoded picture."""

    content: bytes
    is_svg: bool


def read_concepts(path: Path) -> list[Concept]:
    """Return every emoji of emojibase-data but flags, components and gendered ZWJ variants, in code point order."""
    with tarfile.open(path) as archive:
        entries = _json(archive, "package/en/data.json")
        names = _json(archive, "package/meta/groups.json")
        shortcodes = _json(archive, "package/en/shortcodes/emojibase.json")
    concepts = [_concept(entry, names, shortcodes) for entry in entries if _is_wanted(entry, names["groups"])]
    return sorted(concepts, key=lambda concept: concept.hexcode)


def _is_wanted(entry: Mapping[str, Any], groups: Mapping[str, str]) -> bool:
    group = groups.get(str(entry.get("group")))
    gendered = any(sign in entry["hexcode"] for sign in _GENDER_SIGNS)
    return group not in _LEFT_OUT_GROUPS and not gendered


def _concept(entry: Mapping[str, Any], names: Mapping[str, Any], shortcodes: Mapping[str, Any]) -> Concept:
    codes = shortcodes.get(entry["hexcode"], [])
    return Concept(
        hexcode=_plain(entry["hexcode"]),
        label=_caption(entry["label"]),
        tags=tuple(sorted({_caption(tag) for tag in entry.get("tags", [])})),
        shortcodes=tuple([codes] if isinstance(codes, str) else codes),
        group=names["groups"][str(entry["group"])],
        subgroup=names["subgroups"][str(entry["subgroup"])],
    )


def _caption(text: str) -> str:
    return unicodedata.normalize("NFC", text).replace("\N{RIGHT SINGLE QUOTATION MARK}", "'").lower().strip()


def _plain(hexcode: str) -> str:
    return "-".join(part for part in hexcode.upper().split("-") if part != _VARIATION_SELECTOR)


def _slug(text: str) -> str:
    ascii_text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", ascii_text.lower().replace("'", "")).strip("-")


def _json(archive: tarfile.TarFile, name: str) -> Any:
    member = archive.extractfile(name)
    if member is None:
        raise DataError(f"{archive.name!r}: {name} is not a file")
    return json.load(member)


def read_icon_set(path: Path, concepts: Iterable[Concept]) -> dict[str, Drawing]:
    """Return the drawings of an Iconify package by hexcode, joined by code points, or by label where it has none."""
    with tarfile.open(path) as archive:
        icons = _json(archive, "package/icons.json")
        names_of_codes = _json(archive, "package/chars.json")
    by_code = {_plain(code): name for code, name in names_of_codes.items()}
    aliases = {name: alias["parent"] for name, alias in icons.get("aliases", {}).items() if set(alias) == {"parent"}}
    drawings = {}
    for concept in concepts:
        candidates = [by_code.get(concept.hexcode), _slug(concept.label)]
        body = _first_body(icons["icons"], aliases, [name for name in candidates if name])
        if body is not None:
            drawings[concept.hexcode] = Drawing(_svg(body, icons), is_svg=True)
    return drawings


def _first_body(icons: Mapping[str, Any], aliases: Mapping[str, str], names: list[str]) -> Mapping[str, Any] | None:
    for name in names:
        body = icons.get(name) or icons.get(aliases.get(name, ""))
        if body is not None:
            return dict(body)
    return None


def read_fxemoji(path: Path, concepts: Iterable[Concept]) -> dict[str, Drawing]:
    """Return the drawings of fxemoji by hexcode.

    The set has no code points: it is joined by the Unicode name, or the CLDR label, with only letters and digits left.
    """
    with tarfile.open(path) as archive:
        icons = _json(archive, "package/icons.json")
    drawings = {}
    for concept in concepts:
        body = _first_body(icons["icons"], {}, _squashed_names(concept))
        if body is not None:
            drawings[concept.hexcode] = Drawing(_svg(body, icons), is_svg=True)
    return drawings


def _squashed_names(concept: Concept) -> list[str]:
    names = []
    if "-" not in concept.hexcode:
        names.append(unicodedata.name(chr(int(concept.hexcode, 16)), ""))
    names.append(concept.label)
    return [_slug(name).replace("-", "") for name in names if name]


def _svg(body: Mapping[str, Any], icons: Mapping[str, Any]) -> bytes:
    def size(key: str, default: float) -> float:
        return float(body.get(key, icons.get(key, default)))

    box = f"{size('left', 0):g} {size('top', 0):g} {size('width', 16):g} {size('height', 16):g}"
    namespaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f'<svg {namespaces} viewBox="{box}">{body["body"]}</svg>'.encode()


def read_pictures(path: Path, concepts: Iterable[Concept]) -> dict[str, Drawing]:
    """Return the WebP pictures of a package by hexcode; their file names are code points."""
    wanted = {concept.hexcode for concept in concepts}
    drawings = {}
    with tarfile.open(path) as archive:
        for member in archive:
            code = _plain(Path(member.name).stem)
            handle = archive.extractfile(member) if code in wanted and member.name.endswith(".webp") else None
            if handle is not None:
                drawings[code] = Drawing(handle.read(), is_svg=False)
    return drawings
