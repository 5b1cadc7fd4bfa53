"""Compress vision-language transformers with UPop on Ray; importing it makes sliced models load through Auto classes."""

from upop_ray.models import register

__version__ = "0.1.0"

register()
