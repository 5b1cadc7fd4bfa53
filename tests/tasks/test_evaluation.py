"""Evaluation prepares batches in a thread ahead of the model; ranks are tested in test_contrastive.py."""

import threading

import pytest
import torch

from upop_ray.errors import DataError
from upop_ray.tasks.evaluation import over_ranks, row_batches


def test_batches_are_prepared_in_order_beside_the_model() -> None:
    threads = {"prepared": set[int](), "computed": set[int]()}
    begun = [threading.Event() for _ in range(4)]

    def prepare(rows: range) -> torch.Tensor:
        threads["prepared"].add(threading.get_ident())
        begun[rows.start // 3].set()
        return torch.arange(rows.start, rows.stop)

    def compute(values: torch.Tensor) -> torch.Tensor:
        threads["computed"].add(threading.get_ident())
        coming = int(values[0]) // 3 + 1
        # the next batch is begun while this one is computed
        assert coming == 4 or begun[coming].wait(10)
        return values * 2

    assert over_ranks(row_batches(11, 3), prepare, compute).tolist() == list(range(0, 22, 2))
    assert len(threads["prepared"]) == 1 and not threads["prepared"] & threads["computed"]


def test_an_image_that_cannot_be_read_stops_the_evaluation_with_its_line() -> None:
    def prepare(rows: range) -> torch.Tensor:
        if rows.start == 3:
            raise DataError("val, row 4: is no image")
        return torch.arange(rows.start, rows.stop)

    with pytest.raises(DataError, match="row 4"):
        over_ranks(row_batches(11, 3), prepare, lambda values: values)
