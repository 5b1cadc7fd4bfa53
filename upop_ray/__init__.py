"""Compress vision-language transformers with UPop on Ray; importing it lets sliced models load through Auto classes."""

import sys

__version__ = "0.1.0"

#: `python -m upop_ray.VERB` imports models where it needs them: its help and a wrong setting need not wait for torch
_is_entry_point = sys.argv[:1] == ["-m"] and any(word.startswith("upop_ray.") for word in sys.orig_argv)

if not _is_entry_point:
    from upop_ray import models as models
