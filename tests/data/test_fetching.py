"""Remote data sets that cannot be reached: waited for, or one line."""

import fsspec
import pytest
from botocore.exceptions import EndpointConnectionError, NoCredentialsError

from tests.s3 import S3
from upop_ray.data.fetching import fetch
from upop_ray.data.shards import open_dataset
from upop_ray.errors import DataError

MEMORY = fsspec.filesystem("memory")
AWAY = EndpointConnectionError(endpoint_url="http://127.0.0.1:1")


def test_an_outage_is_waited_for() -> None:
    answers = iter([AWAY, AWAY, b"content"])

    def action() -> bytes:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert fetch(MEMORY, "s3://bucket/a", action) == b"content"


def test_what_does_not_pass_is_one_line_with_the_cure() -> None:
    def action() -> bytes:
        raise NoCredentialsError

    with pytest.raises(DataError, match=r"^s3://bucket/a: cannot be read: there are no credentials; set AWS_ACCESS"):
        fetch(MEMORY, "s3://bucket/a", action)


@pytest.mark.parametrize("error", [NoCredentialsError(), PermissionError("denied")])
def test_a_manifest_or_listing_that_cannot_be_read_is_one_line(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> bytes:
        raise error

    monkeypatch.setattr(type(MEMORY), "cat_file", fail)
    with pytest.raises(DataError, match=r"memory://data/manifest.json: cannot be read: ") as caught:
        open_dataset("memory://data")
    monkeypatch.undo()
    monkeypatch.setattr(type(MEMORY), "ls", fail)
    with pytest.raises(DataError, match=r"memory://data: cannot be read: "):
        open_dataset("memory://data")
    assert "\n" not in str(caught.value)


def test_a_bucket_that_is_not_there_is_said(s3: S3) -> None:
    with pytest.raises(DataError, match=r"no-such-bucket/x.*there is no such bucket"):
        open_dataset("s3://no-such-bucket/x")
    with pytest.raises(DataError, match=r"nothing/manifest.json: missing, and there is no data/SPLIT"):
        open_dataset(s3.uri("nothing"))


def test_an_address_of_no_known_kind_is_said() -> None:
    with pytest.raises(DataError, match=r"abc://x/manifest.json: cannot be read: Protocol not known: abc"):
        open_dataset("abc://x")
