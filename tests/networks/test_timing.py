"""What several turns say together."""

import numpy as np
import pytest

from schedenv.measure.result import robust_estimate
from schedenv.networks.timing import TurnTimes, median
from schedenv.tuning.finalists import Timing


def turns(rng: np.random.Generator, count: int, spread: float) -> TurnTimes:
    """A second a call; turns differ by `spread`, samples of one hardly."""
    return TurnTimes(
        tuple(
            tuple(float(level * (1 + 0.001 * rng.random())) for _ in range(6))
            for level in np.exp(rng.normal(0.0, spread, count))
        )
    )


def test_a_disturbed_turn_does_not_move_the_latency() -> None:
    quiet = [(1.0, 1.0, 9.0)] * 4
    assert TurnTimes((*quiet, (4.0, 4.0, 4.0))).latency_s == pytest.approx(1.0)


@pytest.mark.parametrize("count", [6, 9, 18])
def test_the_interval_covers_the_truth_nineteen_times_of_twenty(count: int) -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        low, _, high = turns(rng, count, spread=0.05).interval()
        covered += low <= 1.0003 <= high
    assert covered / 400 >= 0.93


def test_nine_turns_leave_out_the_extremes() -> None:
    assert median([9.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 1.0]) == (2.0, 5.0, 8.0)


def test_the_interval_of_few_turns_is_their_range() -> None:
    assert median([3.0, 1.0, 2.0]) == (1.0, 2.0, 3.0)
    assert median([3.0]) == (3.0, 3.0, 3.0)


def test_what_a_turn_does_to_everybody_leaves_the_ratio() -> None:
    rng = np.random.default_rng(0)
    theirs = turns(rng, 6, spread=0.1)
    ours = TurnTimes(tuple(tuple(2 * s for s in turn) for turn in theirs.samples_s))
    assert ours.ratio(theirs) == pytest.approx((2.0, 2.0, 2.0))


def test_one_turn_has_the_interval_of_its_samples() -> None:
    samples = (1.0, 1.1, 1.2, 1.3, 1.05, 1.15)
    timing = Timing.of(samples)
    assert TurnTimes((samples,)).interval() == (timing.low_s, timing.latency_s, timing.high_s)


def test_the_ratio_to_one_turn_is_of_its_rounds() -> None:
    slow = TurnTimes(((200.0, 202.0, 201.0),))
    fast = TurnTimes(((2.0, 2.02, 2.01, 2.0), (3.0, 3.0, 3.0, 3.0)))
    low, ratio, high = slow.ratio(fast)
    assert low <= ratio <= high
    assert ratio == pytest.approx(robust_estimate((200.0, 202.0, 201.0)) / 2.005, rel=0.01)
