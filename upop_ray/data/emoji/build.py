"""Build the shards of the built-in data from registry packages.

Fetch the packages with the ordinary client into a folder, then build:

    python -m upop_ray.data.emoji.build --list | xargs npm pack --pack-destination FOLDER
    python -m upop_ray.data.emoji.build --packages FOLDER

Every package is pinned by version and sha256. Needs the `data` extra (resvg-py draws the SVG files).
"""

import argparse
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from upop_ray.data.emoji import rows as making
from upop_ray.data.emoji.attribution import attribution
from upop_ray.data.emoji.readers import Concept, Drawing, read_concepts
from upop_ray.data.emoji.rows import IMAGE_SIZE, SPLITS, Row
from upop_ray.data.emoji.sources import ANNOTATIONS, STYLES, verify
from upop_ray.data.shards import MANIFEST_NAME, SCHEMA_VERSION, SHARD_FOLDER, content_hash, file_hash

_ROWS_PER_SHARD = 2500
_STRINGS = pa.list_(pa.string())
_SCHEMA = pa.schema(
    [
        ("image", pa.binary()),
        ("concept", pa.string()),
        ("label", pa.string()),
        ("tags", _STRINGS),
        ("held_out_tags", _STRINGS),
        ("captions", _STRINGS),
        ("shortcodes", _STRINGS),
        ("group", pa.string()),
        ("subgroup", pa.string()),
        ("style", pa.string()),
        ("style_family", pa.string()),
        ("licence", pa.string()),
        ("split", pa.string()),
    ]
)


def build(packages: Path, folder: Path) -> dict[str, Any]:
    """Write shards, manifest and attribution into `folder`, and return the manifest.

    :param packages: the folder that holds the registry packages
    :raises DataError: a package is missing or is not the pinned one
    """
    made = make_rows(packages)
    shards = folder / SHARD_FOLDER
    shards.mkdir(parents=True, exist_ok=True)
    for old in shards.glob("*.parquet"):
        old.unlink()
    for split in SPLITS:
        _write_split(shards, split, [row for row in made if row.split == split])
    manifest = _manifest(folder, made)
    (folder / MANIFEST_NAME).write_text(json.dumps(manifest, indent=2) + "\n")
    (folder / "ATTRIBUTION.md").write_text(attribution(Counter(row.style.name for row in made)))
    return manifest


def make_rows(packages: Path) -> list[Row]:
    """Join, render and split everything; rows are ordered by split, concept and style."""
    concepts = {concept.hexcode: concept for concept in read_concepts(verify(packages, ANNOTATIONS))}
    drawings = {style.name: style.read(verify(packages, style.source), list(concepts.values())) for style in STYLES}
    families = defaultdict(list)
    for style in STYLES:
        for code in drawings[style.name]:
            families[code].append(style.family)
    splits = making.assign_splits(families)
    made = making.one_image_a_concept(list(_rows(concepts, drawings, splits)))
    return sorted(
        (making.with_captions(row) for row in made),
        key=lambda row: (SPLITS.index(row.split), row.concept.hexcode, row.style.name),
    )


def _rows(
    concepts: dict[str, Concept], drawings: dict[str, dict[str, Drawing]], splits: dict[tuple[str, str], str]
) -> Iterator[Row]:
    for style in STYLES:
        for code, drawing in drawings[style.name].items():
            if (code, style.family) not in splits:
                continue
            secret = making.held_out(concepts[code])
            yield Row(
                image=making.palette_png(making.render(drawing)),
                concept=concepts[code],
                tags=tuple(tag for tag in concepts[code].tags if tag not in secret),
                held_out_tags=secret,
                captions=(),
                style=style,
                split=splits[code, style.family],
            )


def _write_split(shards: Path, split: str, made: list[Row]) -> None:
    for number, start in enumerate(range(0, len(made), _ROWS_PER_SHARD)):
        records = [_record(row) for row in made[start : start + _ROWS_PER_SHARD]]
        table = pa.Table.from_pylist(records, schema=_SCHEMA)
        pq.write_table(table, shards / f"{split}-{number:04d}.parquet", compression="zstd", compression_level=19)


def _record(row: Row) -> dict[str, Any]:
    return {
        "image": row.image,
        "concept": row.concept.hexcode,
        "label": row.concept.label,
        "tags": row.tags,
        "held_out_tags": row.held_out_tags,
        "captions": row.captions,
        "shortcodes": row.concept.shortcodes,
        "group": row.concept.group,
        "subgroup": row.concept.subgroup,
        "style": row.style.name,
        "style_family": row.style.family,
        "licence": row.style.source.licence,
        "split": row.split,
    }


def _manifest(folder: Path, made: list[Row]) -> dict[str, Any]:
    paths = sorted((folder / SHARD_FOLDER).glob("*.parquet"))
    files = [_file_entry(folder, path) for path in paths]
    return {
        "schema_version": SCHEMA_VERSION,
        "name": "emoji",
        "image_size": IMAGE_SIZE,
        "rows": _counts(row.split for row in made),
        "concepts": {split: len({row.concept.hexcode for row in made if row.split == split}) for split in SPLITS},
        "styles": _counts(row.style.name for row in made),
        "licences": _counts(row.style.source.licence for row in made),
        "sources": {
            f"{source.package}@{source.version}": source.sha256
            for source in (ANNOTATIONS, *(style.source for style in STYLES))
        },
        "files": files,
        "content_hash": content_hash(files),
    }


def _counts(values: Iterable[str]) -> dict[str, int]:
    return dict(Counter(values))


def _file_entry(folder: Path, path: Path) -> dict[str, Any]:
    metadata = pq.read_metadata(path)
    return {
        "path": path.relative_to(folder).as_posix(),
        "split": path.stem.rsplit("-", 1)[0],
        "rows": metadata.num_rows,
        "bytes": path.stat().st_size,
        "sha256": file_hash(path.read_bytes()),
    }


def main() -> None:
    """Entry point of `python -m upop_ray.data.emoji.build`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--packages", type=Path, metavar="FOLDER", help="the folder with the fetched packages")
    action.add_argument("--list", action="store_true", help="print the packages to fetch, as NAME@VERSION")
    parser.add_argument("--to", type=Path, metavar="FOLDER", default=Path(__file__).parent, help="where to write")
    arguments = parser.parse_args()
    if arguments.list:
        print(*(f"{s.package}@{s.version}" for s in (ANNOTATIONS, *(style.source for style in STYLES))), sep="\n")
        return
    manifest = build(arguments.packages, arguments.to)
    print(json.dumps({key: manifest[key] for key in ("rows", "concepts", "licences", "content_hash")}, indent=2))


if __name__ == "__main__":
    main()
