"""Where what is made or fetched on first use lies on this machine."""

import os
from pathlib import Path


def cache_root() -> Path:
    """``$UPOP_CACHE``, or ``~/.cache/upop_ray``."""
    return Path(os.environ.get("UPOP_CACHE") or Path.home() / ".cache" / "upop_ray")
