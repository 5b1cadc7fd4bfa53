"""Say what a sweep would compute and cost, before it runs: ``python -m upop_ray.plan FILE.yaml``."""

from upop_ray.plan.command import main

__all__ = ["main"]
