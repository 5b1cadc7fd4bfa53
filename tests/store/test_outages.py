"""Faults of an S3 server: what passes costs time, what does not is told at once, in a line with its cure."""

import os
import time
import uuid
from pathlib import Path

import pytest
import s3fs

from tests.s3 import S3
from tests.s3_proxy import Proxy
from upop_ray.errors import StoreError
from upop_ray.store import Store, objects
from upop_ray.store.patience import at_most, persevere


def test_overload_costs_time_only(proxy: Proxy, behind_proxy: Store, tmp_path: Path) -> None:
    """Every operation, of small files and of one in parts, while a fifth of the requests is answered with 503."""
    large = tmp_path / "large"
    large.write_bytes(os.urandom(70 * 2**20))
    proxy.refused = 0.2
    for number in range(8):
        behind_proxy.write(f"f/{number}", b"%d" % number)
        assert behind_proxy.read(f"f/{number}") == b"%d" % number and behind_proxy.exists(f"f/{number}")
    behind_proxy.put(large, "f/large")
    with behind_proxy.fetched("f/large") as file:
        assert file.read_bytes() == large.read_bytes()
    assert len(behind_proxy.sizes("f")) == len(behind_proxy.list("f")) == 9
    behind_proxy.remove("f")
    assert behind_proxy.sizes("f") == {} and proxy.failed > 2


@pytest.mark.parametrize("seconds", [3, pytest.param(30, marks=pytest.mark.slow)])
def test_an_outage_shorter_than_the_deadline_costs_time_only(
    proxy: Proxy, behind_proxy: Store, seconds: int, caplog: pytest.LogCaptureFixture
) -> None:
    behind_proxy.write("a", b"old")
    proxy.cut(seconds)
    begun = time.monotonic()
    behind_proxy.write("a", b"new")
    assert time.monotonic() - begun >= seconds * 0.9
    assert behind_proxy.read("a") == b"new"
    if seconds > 10:
        # one line while it waits, one when it is over
        assert [record.getMessage().partition("/a ")[2][:18] for record in caplog.records] == [
            "does not work, tri",
            "works again after ",
        ]


def test_an_outage_longer_than_the_deadline_is_an_error(proxy: Proxy, s3: S3) -> None:
    store = Store(s3.uri(uuid.uuid4().hex), timeout=1)
    proxy.cut(60)
    for call in (lambda: store.write("a", b""), lambda: store.list("a")):
        with pytest.raises(StoreError, match=r"/a: cannot be \w+: no answer .*check the network, and AWS_ENDPOINT_URL"):
            call()


def test_a_claim_whose_answer_got_lost_is_still_ours(proxy: Proxy, behind_proxy: Store) -> None:
    proxy.lost = 1
    assert behind_proxy.create("claim", b"ours")
    assert [request.partition(" ")[0] for request in proxy.requests] == ["PUT", "PUT", "GET"]
    assert not behind_proxy.create("claim", b"theirs")


def test_a_server_that_hangs_is_tried_again(proxy: Proxy, behind_proxy: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "SENDING", 1.0)
    proxy.hung = 1
    begun = time.monotonic()
    behind_proxy.write("a", b"here")
    assert behind_proxy.read("a") == b"here" and time.monotonic() - begun < 8


def test_parts_that_break_off_leave_no_file(proxy: Proxy, s3: S3, tmp_path: Path) -> None:
    store, large = Store(s3.uri(uuid.uuid4().hex), timeout=0.5), tmp_path / "large"
    large.write_bytes(bytes(3 * objects.PART))
    proxy.refused = 1.0
    with pytest.raises(StoreError, match="large: cannot be written: the server answers 503"):
        store.put(large, "large")
    proxy.refused = 0.0
    assert not store.exists("large")


def test_what_does_not_pass_is_not_tried_again(proxy: Proxy, behind_proxy: Store, s3: S3) -> None:
    with pytest.raises(StoreError, match="missing"):
        behind_proxy.read("none")
    with pytest.raises(StoreError, match="there is no such bucket; create it or correct its name"):
        Store("s3://nosuchbucket/x").read("none")
    assert len(proxy.requests) == 2


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("AWS_SECRET_ACCESS_KEY", "wrong", r"the credentials are wrong \(SignatureDoesNotMatch\); correct AWS_ACCESS"),
        ("AWS_ACCESS_KEY_ID", "wrong", r"the credentials are wrong \(InvalidAccessKeyId\); correct AWS_ACCESS"),
        ("AWS_ACCESS_KEY_ID", None, r"there are no credentials; set AWS_ACCESS_KEY_ID and .*AWS_PROFILE"),
        ("AWS_PROFILE", "nosuch", r"profile \(nosuch\) could not be found; correct AWS_PROFILE"),
        ("AWS_ENDPOINT_URL", "nonsense", "Invalid endpoint: nonsense; correct AWS_ENDPOINT_URL"),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:1", "no answer .*check the network, and AWS_ENDPOINT_URL"),
    ],
)
def test_a_store_that_cannot_be_reached_says_why(
    s3: S3, monkeypatch: pytest.MonkeyPatch, variable: str, value: str | None, said: str
) -> None:
    # no role is asked for, which takes seconds
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    if value is None:
        monkeypatch.delenv(variable)
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    else:
        monkeypatch.setenv(variable, value)
    s3fs.S3FileSystem.clear_instance_cache()
    try:
        with pytest.raises(StoreError, match=f"store: {s3.uri('x')}: cannot be written: .*{said}") as caught:
            Store(s3.uri("x"), timeout=1).check()
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 300
    finally:
        s3fs.S3FileSystem.clear_instance_cache()


def test_a_command_that_answers_at_once_waits_for_no_outage() -> None:
    def away() -> None:
        raise ConnectionError("nobody there")

    begun = time.monotonic()
    with pytest.raises(ConnectionError), at_most(0.5):
        persevere(away, "reading", 600.0)
    assert time.monotonic() - begun < 5
