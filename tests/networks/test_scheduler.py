"""Task schedulers: functions of what the slices have brought."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedenv.errors import UnknownNameError
from schedenv.networks.scheduler import (
    SCHEDULERS,
    Scheduler,
    TaskState,
    find_scheduler,
    gradient,
    round_robin,
    ucb,
)

every = pytest.mark.parametrize("scheduler", SCHEDULERS.values(), ids=SCHEDULERS)


def task(calls: int = 1, roofline_s: float = 1e-4, family: str = "conv2d") -> TaskState:
    return TaskState(calls, 1e8, family, roofline_s)


def play(scheduler: Scheduler, tasks: list[TaskState], curves: list[list[float]]) -> list[int]:
    """Run a search in which each task's best after each slice is given; the last one stays."""
    history: list[int] = []
    for _ in range(60):
        chosen = scheduler(tasks, history)
        if chosen is None:
            break
        curve, done = curves[chosen], len(tasks[chosen].best_s)
        tasks[chosen].untuned_s = curve[0]
        tasks[chosen].best_s.append(curve[min(done + 1, len(curve) - 1)])
        history.append(chosen)
    return history


@every
def test_every_task_has_a_slice_before_any_has_two(scheduler: Scheduler) -> None:
    tasks = [task(1), task(5), task(2), task(3)]
    history = play(scheduler, tasks, [[1.0, 0.1]] * 4)
    assert history[:4] == [1, 3, 2, 0], "the heaviest first"


@every
def test_finished_tasks_are_left_alone(scheduler: Scheduler) -> None:
    tasks = [task(), task()]
    tasks[0].finished = True
    assert set(play(scheduler, tasks, [[1.0, 0.5]] * 2)) == {1}
    tasks[1].finished = True
    assert scheduler(tasks, []) is None


@every
def test_no_tasks(scheduler: Scheduler) -> None:
    assert scheduler([], []) is None


@every
@given(
    st.lists(
        st.tuples(
            st.integers(1, 4),
            st.lists(st.floats(1e-6, 1.0), min_size=2, max_size=8),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_choices_are_legal_and_repeatable(
    scheduler: Scheduler, given_tasks: list[tuple[int, list[float]]]
) -> None:
    curves = [sorted(curve, reverse=True) for _, curve in given_tasks]
    first = play(scheduler, [task(calls) for calls, _ in given_tasks], curves)
    assert first == play(scheduler, [task(calls) for calls, _ in given_tasks], curves)
    assert set(first) == set(range(len(given_tasks)))


def test_round_robin_is_fair() -> None:
    history = play(round_robin, [task(), task(9), task()], [[1.0, 0.5], [1.0, 0.1], [9.0, 8.0]])
    assert [history.count(index) for index in range(3)] == [20, 20, 20]


@pytest.mark.parametrize("scheduler", [gradient, ucb], ids=["gradient", "ucb"])
def test_the_budget_goes_where_the_network_gains(scheduler: Scheduler) -> None:
    gaining = [1.0 * 0.9**step for step in range(40)]
    stuck = [0.01]
    history = play(scheduler, [task(), task()], [gaining, stuck])
    assert history.count(0) > 2 * history.count(1)


def test_gradient_sees_calls_as_weights() -> None:
    history = play(gradient, [task(10), task(1)], [[1.0, 0.5], [1.0, 0.5]])
    assert history.count(0) > history.count(1)


def test_gradient_expects_more_of_a_task_slower_than_its_family() -> None:
    fast, slow = task(family="conv2d"), task(family="conv2d")
    other = task(family="mean")
    curves = [[1.0, 1e-3], [1.0, 1e-2], [1.0, 1e-2]]
    history = play(gradient, [fast, slow, other], curves)
    assert history.count(1) >= history.count(0)


def test_unknown_names() -> None:
    assert find_scheduler("ucb") is ucb
    with pytest.raises(UnknownNameError, match="unknown task scheduler 'greedy'"):
        find_scheduler("greedy")
