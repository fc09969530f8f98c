"""The finals of a live race, with kernels whose times are made up."""

from collections.abc import Sequence
from types import TracebackType

import pytest

from schedenv.comparison.attempts import Attempt
from schedenv.comparison.finals import MOST_KERNELS, confirm_all, is_current
from schedenv.errors import MachineError
from schedenv.hardware import Hardware
from schedenv.space import UNTUNED, Point
from schedenv.tasks import Task

from ..tuning.synthetic import SteadyKernel, failed, ok
from .helpers import attempt

UNTUNED_S = 1e-3


class Comparer:
    """Stands for the machine: the time of a point is its only value, in microseconds.

    Point -1 fails; all of the second group take twice as long, for the machine has got slower.

    Attributes:
        opened: What was loaded first each time it was opened.
    """

    opened: list[list[Point]]
    now: float | None = None

    def __init__(self) -> None:
        self.opened = []
        self._entered = 0

    def __call__(self, seed: int) -> "Comparer":
        self._entered += 1
        return self

    def __enter__(self) -> "Comparer":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass

    def load(self, points: Sequence[Point]) -> list[SteadyKernel]:
        if len(self.opened) < self._entered:
            self.opened.append(list(points))
        return [self._kernel(point) for point in points]

    def renew(self) -> bool:
        return True

    def slowdown(self) -> float | None:
        return self.now

    def _kernel(self, point: Point) -> SteadyKernel:
        each_s = UNTUNED_S if point == UNTUNED else point.values[0] * 1e-6
        if each_s < 0:
            return SteadyKernel(failed(point), 0.0)
        each_s *= len(self.opened)
        return SteadyKernel(ok(point, each_s), each_s)


def entered(agent: str, *times_us: int, seed: int = 0, believed_us: float = 1.0) -> Attempt:
    finalists = tuple(str(Point(0, (time_us,))) for time_us in times_us)
    return attempt(agent, (1.0, 1, believed_us * 1e-6), seed=seed, finalists=finalists)


def test_each_attempt_is_judged_by_its_fastest_finalist(
    tiny_task: Task, hardware: Hardware
) -> None:
    attempts = [
        entered("a", 9, 7, 8),
        entered("b", 7, -1),
        entered("slow", 5000),
        entered("broken", -1),
        attempt("silent"),
    ]
    comparer = Comparer()
    told = []
    finals = confirm_all(tiny_task, hardware, attempts, told.append, comparer)
    assert finals.untuned_s == pytest.approx(UNTUNED_S)
    judged = {one.agent: (one.point, one.latency_s) for one in finals.results}
    assert judged["a"] == ("0:7", pytest.approx(7e-6))
    assert judged["b"] == ("0:7", pytest.approx(7e-6))
    for nothing in ("slow", "broken", "silent"):
        assert judged[nothing] == (None, pytest.approx(UNTUNED_S))
    # A point that two contestants found is timed once.
    assert told == [len(comparer.opened[0])] == [6]


def test_finals_say_how_disturbed_the_machine_was(tiny_task: Task, hardware: Hardware) -> None:
    comparer = Comparer()
    assert (
        confirm_all(tiny_task, hardware, [entered("a", 9)], open_comparer=comparer).slowdown is None
    )
    comparer.now = 1.1
    finals = confirm_all(tiny_task, hardware, [entered("a", 9)], open_comparer=comparer)
    assert finals.slowdown == pytest.approx(1.1)


def test_groups_are_put_to_one_scale_by_the_kernel_that_all_have(
    tiny_task: Task, hardware: Hardware
) -> None:
    attempts = [
        entered(f"agent {number}", 10 + number, seed=seed, believed_us=10 + number)
        for seed in (0, 1)
        for number in range(MOST_KERNELS // 2 + 1)
    ]
    comparer = Comparer()
    finals = confirm_all(tiny_task, hardware, attempts, open_comparer=comparer)
    assert len(comparer.opened) == 2
    assert all(Point(0, (10,)) in opened for opened in comparer.opened)
    for one in finals.results:
        assert one.point is not None
        assert one.latency_s == pytest.approx(int(one.point[2:]) * 1e-6)


def test_finals_are_current_as_long_as_no_attempt_is_added(
    tiny_task: Task, hardware: Hardware
) -> None:
    attempts = [entered("a", 9), entered("b", 7)]
    finals = confirm_all(tiny_task, hardware, attempts, open_comparer=Comparer())
    assert is_current(finals, attempts)
    assert not is_current(finals, [*attempts, entered("c", 8)])
    assert not is_current(None, attempts)


def test_an_untuned_program_that_cannot_be_timed_is_the_machines_fault(
    tiny_task: Task, hardware: Hardware
) -> None:
    class Broken(Comparer):
        def _kernel(self, point: Point) -> SteadyKernel:
            return SteadyKernel(failed(point), 0.0)

    with pytest.raises(MachineError, match="run: schedenv doctor"):
        confirm_all(tiny_task, hardware, [entered("a", 9)], open_comparer=Broken())
