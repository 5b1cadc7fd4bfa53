"""Entry point of ``python -m upop_ray.plan``."""

from upop_ray.plan.command import main
from upop_ray.terminal import guarded

if __name__ == "__main__":
    guarded(main)
