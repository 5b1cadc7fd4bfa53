"""The registry packages that the built-in data is made of, pinned by version and sha256.

Nothing here opens the network.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from upop_ray.data.emoji.readers import Concept, Drawing, read_fxemoji, read_icon_set, read_pictures
from upop_ray.errors import DataError


@dataclass(frozen=True)
class Source:
    """One package: its name and version as the registry knows them, its file and the hash of that file."""

    package: str
    version: str
    sha256: str
    licence: str
    copyright: str
    home: str

    @property
    def file(self) -> str:
        """The file that `npm pack PACKAGE@VERSION` writes."""
        return f"{self.package.lstrip('@').replace('/', '-')}-{self.version}.tgz"


@dataclass(frozen=True)
class Style:
    """One artist's set of drawings; styles of one family never straddle splits."""

    name: str
    family: str
    source: Source
    read: Callable[[Path, "list[Concept]"], "dict[str, Drawing]"]


def verify(folder: Path, source: Source) -> Path:
    """Return the path of a package file after checking its hash.

    :raises DataError: the file is missing, or is not the pinned one
    """
    path = folder / source.file
    if not path.is_file():
        raise DataError(f"{path}: missing; fetch it with `npm pack {source.package}@{source.version}`")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != source.sha256:
        raise DataError(f"{path}: sha256 is {digest}, expected {source.sha256}; fetch version {source.version} again")
    return path


ANNOTATIONS = Source(
    package="emojibase-data",
    version="17.0.0",
    sha256="d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a",
    licence="MIT",
    copyright="Copyright (c) 2017-2019 Miles Johnson; from Unicode CLDR, Copyright (c) Unicode, Inc. (Unicode-3.0)",
    home="https://emojibase.dev",
)

_NOTO = "Copyright Google LLC"
_MICROSOFT = "Copyright (c) Microsoft Corporation"

STYLES = (
    Style(
        "noto",
        "noto",
        Source(
            "@iconify-json/noto",
            "1.2.9",
            "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad",
            "Apache-2.0",
            _NOTO,
            "https://github.com/googlefonts/noto-emoji",
        ),
        read_icon_set,
    ),
    Style(
        "noto-v1",
        "noto-v1",
        Source(
            "@iconify-json/noto-v1",
            "1.2.5",
            "2bf62c26c2c2884aa99e90aec942cdaee17a5921f05690694f4978ad4b017c37",
            "Apache-2.0",
            _NOTO,
            "https://github.com/googlefonts/noto-emoji",
        ),
        read_icon_set,
    ),
    Style(
        "fxemoji",
        "fxemoji",
        Source(
            "@iconify-json/fxemoji",
            "1.2.2",
            "f3e72b3c59d05e1db03b7e308d55c0d05bd7ba3f625a90da1b79313c12858eef",
            "Apache-2.0",
            "Copyright Mozilla Foundation",
            "https://github.com/mozilla/fxemoji",
        ),
        read_fxemoji,
    ),
    Style(
        "twemoji",
        "twemoji",
        Source(
            "@iconify-json/twemoji",
            "1.2.5",
            "19046dff7d8707ce96212ec86468b36ac5f8e60409629dd13f809265c6d0ebb7",
            "CC-BY-4.0",
            "Copyright Twitter, Inc. and other contributors",
            "https://github.com/jdecked/twemoji",
        ),
        read_icon_set,
    ),
    Style(
        "emojione",
        "emojione",
        Source(
            "@iconify-json/emojione",
            "1.2.3",
            "26a14f44284407e8bcde91799388dca2bfd91dbcd55a97f425524a1c5b73610e",
            "CC-BY-4.0",
            "Copyright Emoji One and the EmojiTwo contributors",
            "https://github.com/EmojiTwo/emojitwo",
        ),
        read_icon_set,
    ),
    Style(
        "fluent-emoji-flat",
        "fluent",
        Source(
            "@iconify-json/fluent-emoji-flat",
            "1.2.6",
            "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175",
            "MIT",
            _MICROSOFT,
            "https://github.com/microsoft/fluentui-emoji",
        ),
        read_icon_set,
    ),
    Style(
        "fluent-emoji-3d",
        "fluent",
        Source(
            "@lobehub/fluent-emoji-3d",
            "1.1.0",
            "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58",
            "MIT",
            f"{_MICROSOFT}; packaged by LobeHub",
            "https://github.com/lobehub/fluent-emoji",
        ),
        read_pictures,
    ),
)
