"""The data card that lies beside a manifest: what the data set is, and how it was made."""

from collections.abc import Mapping, Sequence
from typing import Any

_SHOWN = 20


def data_card(manifest: Mapping[str, Any], broken: Sequence[Mapping[str, str]]) -> str:
    """The card in Markdown.

    :param broken: rows that were left out: `item`, `file`, `reason`
    """
    source = manifest["source"]
    parts = [
        f"# {manifest['title']}",
        f"`{manifest['name']}`, prepared by upop_ray. Home: {source['home']}. Licence: {source['licence']}.",
        _splits(manifest),
        "## Columns\n\n" + "\n".join(f"* `{name}`: {kind}" for name, kind in manifest["columns"].items()),
        _left_out(manifest["skipped"], broken),
        _making(manifest),
    ]
    return "\n\n".join(parts).rstrip() + "\n"


def _splits(manifest: Mapping[str, Any]) -> str:
    limit = manifest["limit"]
    lines = [
        "## Splits",
        "",
        "| split | rows | shards | bytes | from |",
        "|---|---|---|---|---|",
        *(
            f"| {name} | {counts['rows']:,} | {counts['shards']} | {counts['bytes']:,} | {counts['origin']} |"
            for name, counts in manifest["splits"].items()
        ),
    ]
    if limit:
        lines += [
            "",
            f"Cut to {limit} rows of each split, drawn at random (`--limit`): a part of what has this name.",
        ]
    if manifest["differing"]:
        parts = "; ".join(f"{part}: {count}" for part, count in manifest["differing"].items())
        lines += ["", f"Made from another number of rows than the published data set has: {parts}."]
    return "\n".join(lines)


def _left_out(skipped: Mapping[str, int], broken: Sequence[Mapping[str, str]]) -> str:
    lines = [f"* {count:,} {what}" for what, count in skipped.items()]
    lines += [f"* {entry['file']}: {entry['reason']}" for entry in broken[:_SHOWN]]
    if len(broken) > _SHOWN:
        lines.append(f"* and {len(broken) - _SHOWN:,} more rows, all of them in `broken.jsonl`")
    return "## Left out\n\n" + ("\n".join(lines) or "Nothing.")


def _making(manifest: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in manifest["versions"].items())
    made = f"Content hash `{manifest['content_hash']}`; converter version {manifest['converter_version']}; {versions}."
    notes = ("images are the bytes of the source, each was decoded once", manifest["order"], *manifest["notes"])
    return f"## How it was made\n\n{made}\n\n" + "\n".join(f"* {note}" for note in notes)
