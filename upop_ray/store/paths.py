"""Where things lie in a store: the one place that knows its names."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PointPaths:
    """Where everything of one point lies."""

    hash: str

    @property
    def root(self) -> str:
        return f"points/{self.hash}"

    @property
    def settings(self) -> str:
        return f"{self.root}/experiment.json"

    @property
    def manifest(self) -> str:
        return f"{self.root}/manifest.json"

    @property
    def metrics(self) -> str:
        return f"{self.root}/metrics.parquet"

    @property
    def masks(self) -> str:
        """Which units each site keeps, one boolean tensor a site."""
        return f"{self.root}/masks.safetensors"

    @property
    def latency(self) -> str:
        """What ``python -m upop_ray.bench`` measured."""
        return f"{self.root}/latency.json"

    @property
    def model(self) -> str:
        return f"{self.root}/model"

    @property
    def attempts(self) -> str:
        return f"{self.root}/attempts"

    def attempt(self, number: int) -> str:
        return f"{self.attempts}/{number:04d}"

    def cost(self, number: int) -> str:
        """How long an attempt has held which devices."""
        return f"{self.attempt(number)}/cost.json"


@dataclass(frozen=True)
class SweepPaths:
    """Where everything of one sweep lies."""

    name: str

    @property
    def root(self) -> str:
        return f"sweeps/{self.name}"

    @property
    def experiment(self) -> str:
        return f"{self.root}/experiment.yaml"

    @property
    def members(self) -> str:
        """One small file for each point that the sweep has proposed."""
        return f"{self.root}/points"

    @property
    def reservations(self) -> str:
        """One small file for each run of the sweep: what it has reserved of the cluster."""
        return f"{self.root}/reservations"

    @property
    def progress(self) -> str:
        """How far a run of the sweep is, written while it runs."""
        return f"{self.root}/progress.json"

    @property
    def tensorboard(self) -> str:
        return f"{self.root}/tensorboard"


def dense_path(hash: str) -> str:
    """Evaluation of a dense model on a data set."""
    return f"dense/{hash}.json"
