"""Compress vision-language transformers with UPop on Ray; importing it lets sliced models load through Auto classes."""

from upop_ray.models import register

__version__ = "0.1.0"

register()
