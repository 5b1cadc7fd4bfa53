"""Addresses and names: what could lead out of a store, mean something else, or give a secret away is refused."""

import pytest

from upop_ray.errors import StoreError
from upop_ray.store import PointPaths, Store


@pytest.mark.parametrize(
    "name",
    [
        *("../out", "a/../../out", "a/..", "/etc/passwd", "..", ".", "", "a//b", "a/", "a\x00b", "a\nb", "a\\b"),
        *("%2e%2e/out", "a%2fb", "a*", "a?versionId=1", "[ab]", "a#b"),
    ],
)
def test_a_name_that_leads_elsewhere_is_refused(store: Store, name: str) -> None:
    calls = (
        lambda: store.read(name),
        lambda: store.write(name, b""),
        lambda: store.create(name, b""),
        lambda: store.remove(name),
        lambda: store.exists(name),
        lambda: store.list(name),
        lambda: store.sizes(name),
        lambda: store.path(name),
        lambda: store.fetched(name).__enter__(),
        lambda: store.filled(name).__enter__(),
    )
    for call in calls:
        with pytest.raises(StoreError, match="leads out of the store; use a plain name"):
            call()


@pytest.mark.parametrize("uri", ["nosuch://bucket/x", "s4://x", "http://host/x", "simplecache::s3://bucket/x"])
def test_an_unknown_kind_of_store_is_refused(uri: str) -> None:
    with pytest.raises(StoreError, match=f"store: {uri} is no kind of store.*use a folder or s3://bucket/prefix"):
        Store(uri)


@pytest.mark.parametrize("uri", ["s3://", "s3:///x//y", "s3://bucket/../other", "s3://bucket/a*", "s3://bucket/a?b=c"])
def test_an_address_of_no_bucket_is_refused(uri: str) -> None:
    with pytest.raises(StoreError, match="names no bucket and prefix; use s3://bucket/prefix"):
        Store(uri)


@pytest.mark.parametrize("uri", ["s3://KEYKEY:TOPSECRET@bucket/x", "gs://TOPSECRET@bucket/x", "x://a:TOPSECRET@b"])
def test_credentials_in_an_address_are_refused_and_not_repeated(uri: str) -> None:
    with pytest.raises(StoreError, match="holds credentials, which would be written to files and logs") as caught:
        Store(uri)
    assert "TOPSECRET" not in str(caught.value) and "KEYKEY" not in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(("uri", "package"), [("gs://bucket/x", "gcsfs"), ("az://container/x", "adlfs")])
def test_a_missing_package_is_named(uri: str, package: str) -> None:
    with pytest.raises(StoreError, match=f"store: {uri} needs the package {package}; pip install {package}"):
        Store(uri)


def test_everything_of_a_point_lies_under_its_hash() -> None:
    paths = PointPaths("abc")
    places = (paths.settings, paths.manifest, paths.metrics, paths.model, paths.attempts, paths.attempt(3))
    assert all(place.startswith("points/abc/") for place in places) and len(set(places)) == len(places)
    # sorted by name, attempts are sorted by number
    assert paths.attempt(9) < paths.attempt(10)
