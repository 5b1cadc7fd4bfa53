"""Many calls of one function as Ray tasks."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import ray
from ray.exceptions import RayError, RayTaskError

from upop_ray.distributed.cluster import connected
from upop_ray.errors import UpopError

Job = TypeVar("Job")
Result = TypeVar("Result")


def map_jobs(function: Callable[[Job], Result], jobs: Sequence[Job], workers: int = 0) -> Iterator[Result]:
    """Call a function on every job, each in a task with one CPU, and yield results as they come.

    Ray is started where it does not run, and stopped again.

    :param workers: calls at the same time; 0 is as many as there are CPUs
    :raises ConfigError: the cluster of RAY_ADDRESS cannot be reached
    :raises UpopError: what the function raised first; or a worker was lost several times
    """
    with connected():
        most = workers or int(ray.cluster_resources().get("CPU", 1))
        yield from _results(ray.remote(num_cpus=1)(function), jobs, most)


def _results(task: Any, jobs: Sequence[Job], most: int) -> Iterator[Any]:
    """What is waiting is kept here and not in Ray, so that an error or Ctrl-C leaves little behind."""
    waiting = iter(jobs)
    running = [task.remote(job) for job in (next(waiting, None) for _ in range(most)) if job is not None]
    try:
        while running:
            [done], running = ray.wait(running)
            yield _result(done)
            following = next(waiting, None)
            if following is not None:
                running.append(task.remote(following))
    finally:
        for reference in running:
            ray.cancel(reference, force=True)


def _result(reference: Any) -> Any:
    try:
        return ray.get(reference)
    except RayTaskError as error:
        if isinstance(error.cause, UpopError):
            raise error.cause from None
        raise
    except RayError as error:
        reason = str(error).strip().splitlines()[0]
        raise UpopError(f"a worker was lost: {reason}; start it again, what is finished is kept") from error
