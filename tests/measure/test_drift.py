"""How much of the yardstick's slowdown is the machine's."""

import pytest

from schedenv.measure.drift import Drift, Scale
from schedenv.measure.timing import Look


def test_at_the_yardsticks_own_speed_nothing_is_corrected() -> None:
    assert Drift().follow(1.0) == 1.0


def test_half_of_what_is_new_counts_in_logarithms() -> None:
    assert Drift().follow(1.44) == pytest.approx(1.2)
    assert Drift().follow(1 / 1.44) == pytest.approx(1 / 1.2)


def test_a_slowdown_that_lasts_counts_in_full() -> None:
    drift = Drift()
    followed = [drift.follow(1.5) for _ in range(20)]
    assert followed == sorted(followed)
    assert followed[-1] == pytest.approx(1.5, rel=0.01)


def test_after_a_burst_the_correction_is_soon_gone() -> None:
    drift = Drift()
    drift.follow(2.0)
    after = [drift.follow(1.0) for _ in range(10)]
    assert after[0] < 1.1
    assert after[-1] == pytest.approx(1.0, rel=0.01)


@pytest.mark.parametrize("slowdown", [1e-9, 1e9])
def test_what_no_machine_does_is_not_followed(slowdown: float) -> None:
    drift = Drift()
    assert all(0.4 <= drift.follow(slowdown) <= 2.5 for _ in range(50))


def look(seconds: float, slowdown: float | None = None) -> Look:
    return Look((seconds,) * 3, slowdown)


def test_the_scale_is_settled_once_to_the_median_of_the_yardsticks_looks() -> None:
    scale = Scale(1.0)
    for _ in range(30):
        scale.follow(look(1.2))
        scale.follow(look(1.3))
    assert scale.estimate_s == pytest.approx(1.25)
    for _ in range(60):
        scale.follow(look(2.0))
    assert scale.estimate_s == pytest.approx(1.25)


def test_after_settling_nothing_that_lasted_until_then_is_divided_by() -> None:
    scale = Scale(1.0)
    drifts = [scale.follow(look(1.3)).likely for _ in range(24)]
    assert drifts[22] > 1.29
    assert drifts[23] == pytest.approx(1.0, abs=0.01)


def test_calm_moments_are_not_divided_by_a_time_from_a_lucky_one() -> None:
    scale = Scale(1.0)
    divisors = [scale.follow(look(1.3, slowdown=1.0)).calm for _ in range(30)]
    assert divisors == pytest.approx([1.0] * 30)
    assert scale.estimate_s == pytest.approx(1.3)


def test_before_it_is_settled_disturbed_moments_are_compared_with_calm_ones() -> None:
    scale = Scale(1.0)
    scale.follow(look(1.3, slowdown=1.0))
    assert scale.follow(look(1.95, slowdown=1.6)).disturbed == pytest.approx(1.5)
    assert scale.follow(look(1.3, slowdown=1.0)).calm == pytest.approx(1.0)


def test_disturbed_moments_do_not_settle_the_scale() -> None:
    scale = Scale(1.0)
    for _ in range(60):
        scale.follow(look(1.5, slowdown=1.6))
    assert scale.estimate_s == 1.0


def test_what_lasts_in_disturbed_moments_is_not_divided_by_in_calm_ones() -> None:
    scale = Scale(1.0)
    for _ in range(30):
        divisors = scale.follow(look(1.0, slowdown=1.0))
        divisors = scale.follow(look(1.5, slowdown=1.6))
    assert divisors.of(look(9.0, slowdown=1.6)) == pytest.approx(1.5, rel=0.01)
    assert divisors.of(look(9.0, slowdown=1.0)) == pytest.approx(1.0, rel=0.01)


def test_calm_moments_after_an_estimate_from_disturbed_ones_are_put_to_its_scale() -> None:
    scale = Scale(1.5, settled=True)
    scale.follow(look(1.5, slowdown=1.6))
    divisors = scale.follow(look(1.0, slowdown=1.0))
    assert divisors.calm == pytest.approx(1 / 1.5)
    assert divisors.disturbed == pytest.approx(1.0)


def test_before_such_a_moment_was_seen_the_other_kind_has_to_do() -> None:
    assert Scale(1.0).follow(look(1.0, slowdown=1.6)).calm == 1.0


def test_one_that_replaces_a_yardstick_before_it_was_settled_is_put_to_the_same_scale() -> None:
    first = Scale(1.0)
    for _ in range(24):
        first.follow(look(1.0))
    for _ in range(24):
        first.follow(look(1.2))
    second = first.successor(0.5)
    third = second.successor(0.5)
    for _ in range(24):
        third.follow(look(0.3))
    assert third.estimate_s == pytest.approx(0.25)
