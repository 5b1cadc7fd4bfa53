"""Jobs as Ray tasks: results, how many run at once, and errors."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from upop_ray.distributed.cluster import connected
from upop_ray.distributed.parallel import map_jobs
from upop_ray.errors import DataError, UpopError


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """Ray on this machine for all tests here, since starting it takes seconds."""
    with connected():
        yield


def doubled(number: int) -> int:
    """What a task does."""
    return 2 * number


def test_every_job_has_its_result() -> None:
    assert sorted(map_jobs(doubled, range(20), workers=2)) == list(range(0, 40, 2))
    assert ray.is_initialized()


def test_no_more_run_than_asked_for(tmp_path: Path) -> None:
    def alone(number: int) -> int:
        (tmp_path / "running").mkdir()
        time.sleep(0.05)
        (tmp_path / "running").rmdir()
        return number

    assert sorted(map_jobs(alone, range(6), workers=1)) == list(range(6))


def test_an_error_that_a_user_can_cure_comes_as_it_was_raised() -> None:
    def fails(number: int) -> int:
        if number == 3:
            raise DataError(f"image {number}: broken; mend it")
        return number

    with pytest.raises(DataError) as caught:
        list(map_jobs(fails, range(8), workers=2))
    assert str(caught.value) == "image 3: broken; mend it" and type(caught.value) is DataError


def test_a_worker_that_dies_again_and_again_is_one_line() -> None:
    def dies(number: int) -> int:
        os._exit(1)

    with pytest.raises(UpopError, match=r"a worker was lost: .*; start it again, what is finished is kept") as caught:
        list(map_jobs(dies, [1], workers=1))
    assert "\n" not in str(caught.value)
