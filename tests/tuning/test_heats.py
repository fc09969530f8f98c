"""Finalists in several processes, with kernels whose times are made up."""

from collections.abc import Callable, Sequence

import pytest

from schedenv.space import UNTUNED, Point
from schedenv.tuning import heats
from schedenv.tuning.heats import CHOOSING, KEPT, REPORTING, Heats, hold_heats

from .synthetic import SteadyKernel, failed, ok

Time = Callable[[int, Point], float]


class Comparer:
    """Stands for the machine: the time of a point in a process, by number; 0 for a failure."""

    def __init__(self, time_s: Time, renews: bool = True) -> None:
        self.loaded: list[list[Point]] = []
        self._time_s, self._renews = time_s, renews
        self._process = 0

    def load(self, points: Sequence[Point]) -> list[SteadyKernel]:
        self.loaded.append(list(points))
        return [self._kernel(point) for point in points]

    def renew(self) -> bool:
        self._process += self._renews
        return self._renews

    def slowdown(self) -> float | None:
        return None

    def _kernel(self, point: Point) -> SteadyKernel:
        each_s = 1e-3 if point == UNTUNED else self._time_s(self._process, point)
        return SteadyKernel(ok(point, each_s) if each_s else failed(point), each_s)


def at(number: int) -> Point:
    return Point(0, (number,))


def as_told(_: int, point: Point) -> float:
    return point.values[0] * 1e-6


def winner(outcome: Heats, field: int = 0) -> Point:
    judged = outcome.winners[field]
    assert judged is not None
    return judged.result.point


def test_who_is_lucky_in_one_process_does_not_win() -> None:
    def lucky_once(process: int, point: Point) -> float:
        return 6e-6 if point == at(9) and process == 0 else as_told(process, point)

    assert winner(hold_heats(Comparer(lucky_once), [[at(7), at(8), at(9)]])) == at(7)


def test_what_is_reported_comes_from_processes_that_had_no_part_in_the_choice() -> None:
    def slower_afterwards(process: int, point: Point) -> float:
        return as_told(process, point) * (1 if process < CHOOSING else 2)

    (judged,) = hold_heats(Comparer(slower_afterwards), [[at(7), at(8)]]).winners
    assert judged is not None
    assert judged.timing.latency_s == pytest.approx(14e-6)


def test_every_process_is_a_fresh_one_with_fewer_candidates_each_time() -> None:
    comparer = Comparer(as_told)
    hold_heats(comparer, [[at(number) for number in range(1, 10)]])
    sizes = [len(points) for points in comparer.loaded]
    assert sizes == [1 + 9] + [KEPT] * (CHOOSING - 1) + [1 + 1] * REPORTING


def test_the_interval_spans_what_processes_differ_by() -> None:
    def by_process(process: int, point: Point) -> float:
        return as_told(process, point) * (1.0 if process % 2 else 1.2)

    (judged,) = hold_heats(Comparer(by_process), [[at(7)]]).winners
    assert judged is not None
    assert judged.timing.low_s < 7e-6 * 1.05
    assert judged.timing.high_s > 7e-6 * 1.15


def test_each_field_has_a_winner_and_the_untuned_program_is_in_all() -> None:
    outcome = hold_heats(Comparer(as_told), [[at(8), at(7)], [at(5000)], []], also=[at(8)])
    assert [winner(outcome, field) for field in range(3)] == [at(7), UNTUNED, UNTUNED]
    assert outcome.others[at(8)].latency_s == pytest.approx(8e-6)
    assert outcome.untuned is not None
    assert outcome.untuned.timing.latency_s == pytest.approx(1e-3)


def test_who_fails_in_any_process_does_not_win() -> None:
    def fails_later(process: int, point: Point) -> float:
        return 0.0 if point == at(7) and process == 1 else as_told(process, point)

    assert winner(hold_heats(Comparer(fails_later), [[at(7), at(8)]])) == at(8)


def test_a_winner_that_fails_when_it_is_reported_leaves_the_untuned_program() -> None:
    def fails_at_the_end(process: int, point: Point) -> float:
        return 0.0 if process >= CHOOSING else as_told(process, point)

    assert winner(hold_heats(Comparer(fails_at_the_end), [[at(7)]])) == UNTUNED


def test_where_there_is_no_fresh_process_nothing_is_built_twice() -> None:
    comparer = Comparer(as_told, renews=False)
    assert winner(hold_heats(comparer, [[at(7), at(8)]])) == at(7)
    assert comparer.loaded == [[UNTUNED, at(7), at(8)]]


def test_a_slow_program_is_timed_in_one_process_of_each_kind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(heats, "SLOW_S", 1e-4)
    comparer = Comparer(as_told)
    outcome = hold_heats(comparer, [[at(7)]])
    assert [UNTUNED in points for points in comparer.loaded] == (
        [True] + [False] * (CHOOSING - 1) + [True] + [False] * (REPORTING - 1)
    )
    assert outcome.untuned is not None


def test_when_all_are_slow_no_process_is_started_for_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(heats, "SLOW_S", 1e-6)
    comparer = Comparer(as_told)
    outcome = hold_heats(comparer, [[at(7)]])
    assert winner(outcome) == at(7)
    assert len(comparer.loaded) == CHOOSING + 1


def test_an_untuned_program_that_fails_has_no_timing() -> None:
    class Broken(Comparer):
        def _kernel(self, point: Point) -> SteadyKernel:
            return SteadyKernel(failed(point), 0.0)

    outcome = hold_heats(Broken(as_told), [[at(7)]])
    assert outcome.untuned is None
    assert outcome.winners == (None,)
    assert outcome.results[UNTUNED].reason == "as scripted"
