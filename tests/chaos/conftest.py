"""The cluster that things happen to, and the table of what was found."""

from collections.abc import Iterator
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from tests.chaos.cluster import LocalCluster
from tests.chaos.sweep import Sweep
from tests.s3 import S3, s3
from tests.s3_proxy import Proxy, proxied

__all__ = ["s3"]
_FOUND = pytest.StashKey[list["Found"]]()


@dataclass(frozen=True)
class Found:
    """One line of the table."""

    fault: str
    store: str
    times: int
    points_lost: int
    points_recomputed: int
    steps_twice: int
    seconds_to_recover: str
    metrics: str

    def __post_init__(self) -> None:
        # at once: a run may be broken off before its table
        print(f"\n{self}")


@pytest.fixture(scope="session")
def proxy(s3: S3) -> Iterator[Proxy]:
    """Everything goes to the S3 server through it."""
    with proxied(s3.endpoint) as proxy, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        yield proxy


@pytest.fixture(scope="session")
def cluster(proxy: Proxy) -> Iterator[LocalCluster]:
    """Its nodes have the credentials of the S3 server, which is there before them."""
    cluster = LocalCluster()
    yield cluster
    cluster.stop()


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("chaos")


@pytest.fixture(scope="session")
def undisturbed(cluster: LocalCluster, root: Path) -> dict[str, Any]:
    """What the points find when nothing happens."""
    sweep = Sweep(root, str(root / "undisturbed"), cluster.address)
    sweep.start()
    assert sweep.wait() == 0, sweep.output()
    return sweep.results()


@pytest.fixture(scope="session")
def table(request: pytest.FixtureRequest) -> list[Found]:
    return request.config.stash.setdefault(_FOUND, [])


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    rows = config.stash.get(_FOUND, [])
    if not rows:
        return
    shown = Table(
        box=None, pad_edge=False, header_style="bold", title="faults, and what they cost", title_justify="left"
    )
    for field in fields(Found):
        shown.add_column(field.name.replace("_", " "))
    for row in rows:
        shown.add_row(*map(str, astuple(row)))
    terminalreporter.write_line("")
    Console(width=160).print(shown)
