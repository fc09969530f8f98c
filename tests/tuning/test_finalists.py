"""What is reported at the end of a run."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from schedenv.measure import Result, Status, robust_estimate
from schedenv.space import Point
from schedenv.tuning import finalists
from schedenv.tuning.finalists import (
    Timing,
    best_candidates,
    interleave,
    paired_ratio,
)

from .synthetic import failed, ok


def at(number: int) -> Point:
    return Point(0, (number,))


def test_the_best_candidates_are_the_fastest_good_ones() -> None:
    results = [ok(at(n), latency) for n, latency in enumerate([5.0, 1.0, 4.0, 2.0, 3.0])]
    assert best_candidates([*results, failed(at(9))], 3) == [at(1), at(3), at(4)]


def test_a_candidate_that_was_timed_roughly_is_no_finalist() -> None:
    rough = Result(
        point=at(0), status=Status.OK, samples_s=(1.0,), estimate_s=1.0, early_stopped=True
    )
    assert best_candidates([rough, ok(at(1), 2.0)]) == [at(1)]
    assert best_candidates([rough, failed(at(1))]) == []


def test_of_equal_code_there_is_one_finalist() -> None:
    results = [
        Result(point=at(n), status=Status.OK, estimate_s=1.0 + n, code=code)
        for n, code in enumerate(["same", "same", "other", None, None])
    ]
    assert best_candidates(results) == [at(0), at(2), at(3), at(4)]


def test_a_timing_is_the_robust_estimate_inside_its_interval() -> None:
    samples = list(np.random.default_rng(0).normal(1.0, 0.05, 30))
    timing = Timing.of(samples)
    assert timing.latency_s == robust_estimate(samples)
    assert timing.low_s < timing.latency_s < timing.high_s
    assert timing.samples_s == tuple(samples)
    assert Timing.of(samples) == timing


def test_the_interval_narrows_with_more_samples_and_vanishes_without_noise() -> None:
    rng = np.random.default_rng(0)
    few, many = (Timing.of(list(rng.normal(1, 0.05, n))) for n in (10, 1000))
    assert many.high_s - many.low_s < (few.high_s - few.low_s) / 3
    assert Timing.of([2.0] * 5) == Timing(2.0, 2.0, 2.0, (2.0,) * 5)


def test_about_95_of_100_intervals_hold_the_true_quartile() -> None:
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(200):
        timing = Timing.of(list(rng.uniform(0, 1, 30)))
        held += timing.low_s <= 0.25 <= timing.high_s
    assert 175 <= held <= 200


def test_of_several_processes_the_geometric_mean_of_their_estimates_counts() -> None:
    timing = Timing.over([[1.0] * 8, [4.0] * 8])
    assert timing.latency_s == pytest.approx(2.0)
    assert timing.samples_s == (1.0,) * 8 + (4.0,) * 8
    assert Timing.over([[1.0, 2.0, 3.0]]) == Timing.of([1.0, 2.0, 3.0])


def test_the_interval_is_as_wide_as_the_processes_are_apart() -> None:
    alike, apart = (Timing.over([[s] * 20 for s in each]) for each in ([1.0] * 6, [1.0, 1.2] * 3))
    assert alike.low_s == alike.high_s
    # Student's t with five degrees of freedom, 2.571, on a standard error of 0.0408.
    assert apart.high_s / apart.latency_s == pytest.approx(np.exp(2.571 * 0.0408), rel=1e-3)


class Kernel:
    """Takes longer each time."""

    def __init__(self) -> None:
        self.result = ok(at(0), 1.0)
        self.samples = 0

    def sample_s(self) -> float:
        self.samples += 1
        return float(self.samples)


def one_sample(slowdown: Callable[[], float | None] | None) -> tuple[float, int]:
    """What is kept of the samples taken in one round, and how many those were."""
    kernel = Kernel()
    ((_, (kept_s,)),) = interleave([kernel], 1, 1.0, slowdown=slowdown)
    return kept_s, kernel.samples


def told(*slowdowns: float | None) -> Callable[[], float | None]:
    rest: Iterator[float | None] = iter(slowdowns)
    return lambda: next(rest)


def test_a_sample_of_a_disturbed_moment_is_taken_again_until_one_is_calm() -> None:
    assert one_sample(told(1.0, 1.1)) == (1.0, 1)
    assert one_sample(told(1.0, 1.6, 1.2, 1.1, 1.0)) == (4.0, 4)


def test_when_no_moment_is_calm_the_calmest_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 0.0, 0.01, 0.02, 0.03])
    monkeypatch.setattr(finalists.time, "monotonic", lambda: next(clock))
    assert one_sample(told(1.5, 1.4, 1.3, 1.9)) == (2.0, 3)


def test_samples_are_taken_as_they_come_where_nobody_can_tell() -> None:
    assert one_sample(None) == (1.0, 1)
    assert one_sample(told(None, None)) == (1.0, 1)


def test_the_ratio_of_paired_timings_is_not_moved_by_drift_that_hits_both() -> None:
    rng = np.random.default_rng(0)
    drift = np.repeat([1.0, 2.0], 40)
    ours = 1e-3 * drift * rng.uniform(1.0, 1.02, 80)
    theirs = 1.5e-3 * drift * rng.uniform(1.0, 1.02, 80)
    low, ratio, high = paired_ratio(list(theirs), list(ours))
    assert low <= ratio <= high
    assert low > 1.45
    assert high < 1.55


def test_equal_samples_have_the_ratio_one() -> None:
    samples = list(np.random.default_rng(1).uniform(1, 2, 30))
    assert paired_ratio(samples, samples) == (1.0, 1.0, 1.0)
