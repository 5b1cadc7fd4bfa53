"""Files that layouts consist of."""

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def jpeg(seed: int, width: int = 24, height: int = 16) -> bytes:
    """A JPEG file of random colours."""
    return encoded(_pixels(seed, width, height), "JPEG")


def png(seed: int, width: int = 24, height: int = 16) -> bytes:
    """A PNG file of random colours."""
    return encoded(_pixels(seed, width, height), "PNG")


def _pixels(seed: int, width: int, height: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encoded(pixels: np.ndarray, kind: str) -> bytes:
    """An image file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def write(path: Path, content: bytes | str | dict[str, Any] | list[Any]) -> None:
    """A file, of text or JSON where the content is that."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, dict | list):
        content = json.dumps(content)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def tar(files: Mapping[str, bytes], mode: Any = "w") -> bytes:
    """The content of a tar file."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()
