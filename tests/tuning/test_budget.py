"""The budget of a run."""

import math

import pytest

from schedenv.errors import InputError
from schedenv.tuning import Budget


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.mark.parametrize(
    ("trials", "seconds", "message"),
    [
        (None, None, "a budget needs --trials, --seconds, or both; neither was given"),
        (0, None, "expected --trials of at least 1, got 0"),
        (-3, 10.0, "expected --trials of at least 1, got -3"),
        (None, 0.0, "expected --seconds above 0, got 0"),
        (5, -1.5, "expected --seconds above 0, got -1.5"),
        (None, math.nan, "expected --seconds above 0, got nan"),
    ],
)
def test_a_budget_that_allows_nothing_is_refused(
    trials: int | None, seconds: float | None, message: str
) -> None:
    with pytest.raises(InputError) as raised:
        Budget(trials=trials, seconds=seconds)
    assert str(raised.value) == message


def test_trials_end_a_budget() -> None:
    budget = Budget(trials=10)
    assert budget.clip(8) == 8
    budget.used_trials = 7
    assert not budget.exhausted
    assert budget.clip(8) == 3
    budget.used_trials = 10
    assert budget.exhausted
    assert budget.clip(8) == 0


def test_seconds_end_a_budget_and_count_from_the_start_and_from_earlier_runs() -> None:
    clock = Clock()
    budget = Budget(seconds=10, used_s=4, clock=clock)
    clock.now_s += 100
    assert budget.elapsed_s == 4
    budget.start()
    clock.now_s += 5.9
    assert budget.elapsed_s == pytest.approx(9.9)
    assert not budget.exhausted
    assert budget.clip(8) == 8
    clock.now_s += 0.2
    assert budget.exhausted


def test_whichever_ends_first_ends_the_budget() -> None:
    clock = Clock()
    budget = Budget(trials=2, seconds=10, clock=clock)
    budget.start()
    budget.used_trials = 2
    assert budget.exhausted
    budget.used_trials = 1
    assert not budget.exhausted
    clock.now_s += 10
    assert budget.exhausted


def test_the_rest_of_a_budget_is_estimated_from_what_it_has_cost_so_far() -> None:
    clock = Clock()
    budget = Budget(trials=10, clock=clock)
    budget.start()
    assert budget.remaining_s is None
    clock.now_s += 4
    budget.used_trials = 2
    assert budget.remaining_s == pytest.approx(16)
    budget.seconds = 10
    assert budget.remaining_s == pytest.approx(6)
    clock.now_s += 50
    assert budget.remaining_s == 0
