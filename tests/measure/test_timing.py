"""How often a candidate is timed, and against what, with scripted clocks."""

import itertools
import math

import numpy as np
import pytest

from schedenv.measure import Phases, robust_estimate, timing
from schedenv.measure.timing import Timer, slowdown_now


class Machine:
    """A kernel and the reference kernel on a machine that may be slowed down.

    Attributes:
        calls: Single calls made.
        asked: (number, count) of each series of samples asked for.
    """

    def __init__(self, call_s: float, slowdown: float = 1.0) -> None:
        self.seconds, self.slowdown = call_s, slowdown
        self.calls = 0
        self.asked: list[tuple[int, int]] = []
        self.timer = Timer(self._call_s, self._kernel_s, lambda: 2e-4 * self.slowdown, 2e-4)

    def _call_s(self) -> float:
        self.calls += 1
        return self.seconds * self.slowdown

    def _kernel_s(self, number: int, count: int) -> list[float]:
        self.asked.append((number, count))
        return [self.seconds * self.slowdown] * count


def test_without_an_incumbent_the_full_protocol_is_run() -> None:
    machine = Machine(10e-6)
    look = machine.timer.first_look(20e-6, None)
    assert look == timing.Look((10e-6,) * 10, 1.0)
    assert machine.calls == 1
    assert machine.asked == [(50, 10)]


def test_a_first_call_far_slower_than_the_incumbent_is_all_the_timing_there_is() -> None:
    machine = Machine(30e-3)
    look = machine.timer.first_look(31e-3, 2e-3)
    assert look == timing.Look((31e-3,), 1.0, early_stopped=True)
    assert machine.calls == 0


def test_a_slow_first_call_alone_does_not_condemn_for_caches_are_cold() -> None:
    look = Machine(0.1e-3).timer.first_look(0.9e-3, 0.1e-3)
    assert not look.early_stopped
    assert len(look.samples_s) == 10


def test_a_hopeless_candidate_is_stopped_after_two_calls() -> None:
    hopeless, bearable = Machine(2.6e-3), Machine(2.4e-3)
    assert hopeless.timer.first_look(3e-3, 1e-3).early_stopped
    assert not bearable.timer.first_look(3e-3, 1e-3).early_stopped
    assert (hopeless.calls, hopeless.asked) == (2, [])
    assert (bearable.calls, bearable.asked) == (1, [(1, 10)])


def test_the_verifying_call_is_one_of_the_two_where_cold_caches_cost_little() -> None:
    machine = Machine(6e-3)
    look = machine.timer.first_look(6.5e-3, 1e-3)
    assert look == timing.Look((6e-3, 6.5e-3), 1.0, early_stopped=True)
    assert (machine.calls, machine.asked) == (1, [])


def test_a_verifying_call_hit_by_a_burst_does_not_condemn() -> None:
    machine = Machine(1.2e-3)
    look = machine.timer.first_look(9e-3, 1e-3)
    assert look == timing.Look((1.2e-3,) * 10, 1.0)


def test_without_an_incumbent_a_slow_kernel_gets_a_rough_look() -> None:
    machine = Machine(6e-3)
    look = machine.timer.first_look(6.5e-3, None)
    assert look == timing.Look((6e-3, 6.5e-3), 1.0, early_stopped=False)
    assert (machine.calls, machine.asked) == (1, [])


def test_calls_made_long_by_sleeping_threads_do_not_condemn_a_short_kernel() -> None:
    timer = Timer(lambda: 90e-6, lambda _, count: [10e-6] * count, lambda: 2e-4, 2e-4)
    look = timer.first_look(1500e-6, 8e-6)
    assert not look.early_stopped
    assert set(look.samples_s) == {10e-6}


def test_one_call_hit_by_a_burst_does_not_condemn() -> None:
    takes = iter([9e-3])
    timer = Timer(
        lambda: next(takes, 0.1e-3), lambda _, count: [0.1e-3] * count, lambda: 2e-4, 2e-4
    )
    look = timer.first_look(0.2e-3, 0.1e-3)
    assert not look.early_stopped
    assert set(look.samples_s) == {0.1e-3}


def test_the_first_look_says_how_disturbed_the_machine_is_and_leaves_the_samples_alone() -> None:
    look = Machine(0.1e-3, slowdown=2.0).timer.first_look(0.1e-3, None)
    assert look.slowdown == pytest.approx(2.0)
    assert look.samples_s == pytest.approx([0.2e-3] * 10)


def test_cores_that_idled_are_given_time_to_become_fast_before_a_kernel_is_timed() -> None:
    clock = iter([2.0] * 6 + [1.0] * 100)
    machine = Machine(0.1e-3)
    machine.timer = Timer(machine._call_s, machine._kernel_s, lambda: 2e-4 * next(clock), 2e-4)
    assert machine.timer.first_look(0.1e-3, None).slowdown == pytest.approx(1.0)
    assert sum(1 for _ in clock) == 100 - 2 - 3


def test_the_check_for_calm_wakes_the_cores_first() -> None:
    clock = iter([2.0] * 6 + [1.0] * 100)
    assert slowdown_now(lambda: 2e-4 * next(clock), 2e-4) == pytest.approx(1.0)
    assert sum(1 for _ in clock) == 100 - 2


def test_one_slow_call_among_two_is_a_disturbance_if_it_lasts() -> None:
    clock = itertools.cycle([1.0, 1.6])
    assert slowdown_now(lambda: 2e-4 * next(clock), 2e-4) == pytest.approx(1.6)


def test_a_machine_that_stays_slow_is_not_waited_for() -> None:
    calls = []
    machine = Machine(0.1e-3)
    machine.timer = Timer(
        machine._call_s, machine._kernel_s, lambda: calls.append(None) or 4e-4, 2e-4
    )
    assert machine.timer.first_look(0.1e-3, None).slowdown == pytest.approx(2.0)
    # Calls of 0.4 ms: for 4 ms before the samples, and three after them.
    assert len(calls) == 10 + 3


def test_a_disturbance_that_ends_just_after_a_look_is_not_overlooked() -> None:
    slowdowns = iter([1.0, 1.0, 1.0, 1.6, 1.6, 1.6])
    machine = Machine(0.1e-3)
    machine.timer = Timer(
        machine._call_s, machine._kernel_s, lambda: 2e-4 * next(slowdowns, 1.0), 2e-4
    )
    assert machine.timer.look(0.1e-3).slowdown == pytest.approx(1.6)


@pytest.mark.parametrize(("before", "after"), [(1.0, 1.8), (1.8, 1.0)])
def test_a_look_says_how_disturbed_the_machine_was_before_or_after_it(
    before: float, after: float
) -> None:
    waking = 9.0
    reference = iter([waking, 1.0, before, waking, after, 1.0])
    timer = Timer(lambda: 1e-4, lambda _, n: [1e-4] * n, lambda: next(reference), 1.0)
    assert timer.look(1e-4) == timing.Look((1e-4,) * 10, 1.8)


def test_a_broken_reference_clock_is_not_read_for_ever() -> None:
    machine = Machine(0.1e-3)
    machine.timer = Timer(machine._call_s, machine._kernel_s, lambda: math.nan, 2e-4)
    assert math.isnan(machine.timer.first_look(0.1e-3, None).slowdown or 0.0)


def test_a_call_of_more_than_a_tenth_of_a_second_is_timed_once() -> None:
    machine = Machine(0.12)
    assert machine.timer.first_look(0.14, None) == timing.Look((0.12,), 1.0)
    assert machine.timer.first_look(0.14, 0.1) == timing.Look((0.12,), 1.0)
    assert machine.timer.first_look(0.14, 0.04) == timing.Look((0.12,), 1.0, early_stopped=True)
    assert (machine.calls, machine.asked) == (3, [])


@pytest.mark.parametrize(
    ("call_s", "calls", "samples"),
    [(3e-6, 167, 10), (0.3e-3, 2, 10), (1e-3, 1, 10), (0.02, 1, 5), (0.4, 1, 3)],
)
def test_samples_fill_half_a_millisecond_and_the_lot_a_tenth_of_a_second(
    call_s: float, calls: int, samples: int
) -> None:
    assert timing.calls_per_sample(call_s) == calls
    assert timing.sample_count(call_s) == samples


def test_a_call_too_short_for_the_clock_is_not_timed_for_ever() -> None:
    assert timing.calls_per_sample(0.0) == 5_000


def test_the_estimate_ignores_bursts_that_hit_most_of_the_samples() -> None:
    quiet = [1.0, 1.01, 1.02, 1.03]
    assert robust_estimate([*quiet, 5.0, 6.0, 7.0, 8.0]) < 1.03
    assert robust_estimate([2.0]) == 2.0


def test_the_estimate_does_not_reward_one_lucky_sample() -> None:
    assert robust_estimate([0.1, *[1.0] * 9]) == 1.0


def test_the_estimate_does_not_depend_on_the_order_and_scales() -> None:
    samples = list(np.random.default_rng(0).uniform(1, 2, 21))
    assert robust_estimate(samples[::-1]) == robust_estimate(samples) == sorted(samples)[5]
    assert robust_estimate([2 * s for s in samples]) == pytest.approx(2 * robust_estimate(samples))


def test_the_total_of_the_phases_is_their_sum() -> None:
    assert Phases(1.0, 2.0, 4.0, 8.0, 16.0).total_s == 31.0


def test_a_sample_of_many_short_calls_is_not_the_first_of_its_row() -> None:
    assert timing.uncounted_samples(timing.calls_per_sample(10e-6)) == 4
    assert timing.uncounted_samples(timing.calls_per_sample(20e-3)) == 0
