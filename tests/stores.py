"""Fixtures of stores: in a folder, in a bucket, and in the bucket behind a proxy that makes faults."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import s3fs

from tests.s3 import S3
from tests.s3_proxy import Proxy, proxied
from upop_ray.store import Store


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A new store, in a folder and in a bucket."""
    if request.param == "local":
        return Store(str(tmp_path / "results"))
    return Store(request.getfixturevalue("s3").uri(f"{uuid.uuid4().hex}/results"))


@pytest.fixture
def proxy(s3: S3, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A proxy before the S3 server, through which S3 is reached during the test."""
    with proxied(s3.endpoint) as found:
        monkeypatch.setenv("AWS_ENDPOINT_URL", found.endpoint)
        # connections to the server itself are remembered in the process
        s3fs.S3FileSystem.clear_instance_cache()
        yield found
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def behind_proxy(proxy: Proxy, s3: S3) -> Store:
    """A new store in the bucket, reached through the proxy."""
    return Store(s3.uri(uuid.uuid4().hex), timeout=60)
