"""What times mean: medians, intervals and words, by hand."""

import itertools

import pytest

from upop_ray.deploy import latency_rounds
from upop_ray.deploy.latency import Case, Latency, Row, Speedup, as_json, row_of, speedup, spread, verdicts
from upop_ray.deploy.latency_rounds import interleaved


def measurement(*rows: Row, dense: int | None = 200) -> Latency:
    counts = {"sliced": 116} | ({} if dense is None else {"dense": dense})
    return Latency("a machine", 2, (0.0, 0.0), {"torch": "2"}, counts, counts, rows)


def test_a_spread_is_median_and_tenths() -> None:
    found = spread([float(value) for value in range(11)])
    assert (found.median, found.p10, found.p90) == (5, 1, 9)


def test_the_interval_of_a_median_is_that_of_the_sign_test() -> None:
    # of 100 values the 41st to the 61st: with 95% certainty 40 to 60 of 100 fair coins fall on one side
    found = speedup([float(value) for value in range(100, 0, -1)])
    assert (found.median, found.low, found.high) == (50.5, 41, 61)


def test_speedups_are_paired_round_by_round() -> None:
    # a machine that becomes three times as slow in the middle changes no ratio
    row = row_of(Case("eager", "fp32", 1), [0.001, 0.003] * 10, [0.002, 0.006] * 10)
    assert row.speedup == Speedup(2, 2, 2)
    assert row.sliced is not None and row.sliced.median == pytest.approx(2) and row.rounds == 20


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (Speedup(1.42, 1.3, 1.5), "1.42x as fast"),
        (Speedup(1.10, 0.99, 1.2), "not faster"),
        (Speedup(1.01, 1.005, 1.02), "not faster"),
        (Speedup(0.99, 0.98, 0.995), "not faster"),
        (Speedup(0.80, 0.7, 0.9), "slower (0.80x)"),
    ],
)
def test_a_difference_counts_when_it_is_certain_and_worth_it(found: Speedup, words: str) -> None:
    assert found.verdict == words


def test_the_verdict_stands_against_the_share_of_macs() -> None:
    fast, even = [0.001] * 10, [0.002] * 10
    rows = [row_of(Case("eager", "fp32", 1), even, even), row_of(Case("eager", "fp32", 8), fast, even)]
    failed = Row(Case("compile", "fp32", 1), problem="InvalidCxxCompiler: none")
    found = measurement(*rows, failed)
    assert verdicts(found) == [
        "58% of the MACs (at best 1.72x): eager fp32 not faster at batch 1, 2.00x as fast at batch 8"
    ]
    assert verdicts(measurement(row_of(Case("eager", "fp32", 1), even, None), dense=None)) == []


def test_the_headline_is_the_first_case_that_was_measured() -> None:
    failed = Row(Case("eager", "fp32", 1), problem="no")
    row = row_of(Case("onnx", "fp32", 8), [0.002] * 10, [0.003] * 10)
    content = as_json(measurement(failed, row))
    assert content["headline"] == {
        "milliseconds": 2.0, "dense_milliseconds": 3.0, "backend": "onnx", "precision": "fp32", "batch": 8
    }  # fmt: skip
    assert [entry["problem"] for entry in content["rows"]] == ["no", ""]
    assert content["rows"][1]["sliced"] == {"median": 2.0, "p10": 2.0, "p90": 2.0}
    assert as_json(measurement(failed))["headline"] is None


def test_models_take_turns_and_every_second_round_goes_backwards(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count()
    monkeypatch.setattr(latency_rounds.time, "perf_counter", lambda: float(next(clock)))
    said: list[str] = []
    times = interleaved([lambda: said.append("a"), lambda: said.append("b")], seconds=0)
    # 3 to warm up and 1 to see how long it takes, then the fewest rounds
    assert said == ["a"] * 3 + ["b"] * 3 + ["a", "b"] + ["a", "b", "b", "a"] * 5
    assert times == [[1.0] * 10, [1.0] * 10]


def test_a_short_call_is_repeated_within_a_round(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count()
    monkeypatch.setattr(latency_rounds.time, "perf_counter", lambda: next(clock) * 0.0005)
    calls: list[int] = []
    (times,) = interleaved([lambda: calls.append(1)], seconds=0)
    assert len(calls) == 4 + 4 * len(times) and times[0] == pytest.approx(0.0005 / 4)
