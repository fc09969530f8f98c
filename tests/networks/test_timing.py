"""What several processes say together."""

import math

import numpy as np
import pytest

from schedenv.measure.result import robust_estimate
from schedenv.networks.timing import ProcessTimes, geometric_mean
from schedenv.tuning.finalists import Timing


def processes(rng: np.random.Generator, count: int, spread: float) -> ProcessTimes:
    """A second a call; processes differ by `spread`, samples of one hardly."""
    return ProcessTimes(
        tuple(
            tuple(float(level * (1 + 0.001 * rng.random())) for _ in range(6))
            for level in np.exp(rng.normal(0.0, spread, count))
        )
    )


def test_the_latency_is_the_mean_of_the_processes() -> None:
    times = ProcessTimes(((1.0, 1.0, 9.0), (4.0, 4.0, 4.0)))
    assert times.latency_s == pytest.approx(2.0)


def test_the_interval_covers_the_truth_nineteen_times_of_twenty() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        low, _, high = processes(rng, 6, spread=0.05).interval()
        covered += low <= 1.0005 <= high
    assert 0.92 <= covered / 400 <= 0.98


def test_what_a_turn_does_to_everybody_leaves_the_ratio() -> None:
    rng = np.random.default_rng(0)
    theirs = processes(rng, 6, spread=0.1)
    ours = ProcessTimes(tuple(tuple(2 * s for s in process) for process in theirs.samples_s))
    assert ours.ratio(theirs) == pytest.approx((2.0, 2.0, 2.0))


def test_one_process_has_the_interval_of_its_samples() -> None:
    samples = (1.0, 1.1, 1.2, 1.3, 1.05, 1.15)
    timing = Timing.of(samples)
    assert ProcessTimes((samples,)).interval() == (timing.low_s, timing.latency_s, timing.high_s)


def test_the_ratio_to_one_process_is_of_the_rounds_of_its_turn() -> None:
    slow = ProcessTimes(((200.0, 202.0, 201.0),))
    fast = ProcessTimes(((2.0, 2.02, 2.01, 2.0), (3.0, 3.0, 3.0, 3.0)))
    low, ratio, high = slow.ratio(fast)
    assert low <= ratio <= high
    assert ratio == pytest.approx(robust_estimate((200.0, 202.0, 201.0)) / 2.005, rel=0.01)


def test_a_single_value_has_no_interval() -> None:
    low, mean, high = geometric_mean([3.0])
    assert mean == pytest.approx(3.0)
    assert math.isnan(low)
    assert math.isnan(high)
