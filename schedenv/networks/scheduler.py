"""Which task of a network gets the next slice of the budget.

A scheduler is a function of what the slices so far have brought, and of nothing else: that is what
makes a killed run go on as it would have.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from schedenv.errors import UnknownNameError


@dataclass
class TaskState:
    """What a scheduler knows of a task.

    Attributes:
        calls: How often the network calls the kernel: its weight in the network's latency.
        flops: Operations of one call.
        family: Its operators; tasks of one family reach similar speeds.
        roofline_s: Seconds a call at the machine's peaks; ranks tasks before anything is measured.
        untuned_s: Seconds a call of the unscheduled program; infinite until the first slice.
        best_s: Best seconds a call after each slice, at most the unscheduled program's.
        finished: Whether its agent has nothing more to ask.
    """

    calls: int
    flops: float
    family: str
    roofline_s: float
    untuned_s: float = math.inf
    best_s: list[float] = field(default_factory=list)
    finished: bool = False

    @property
    def now_s(self) -> float:
        """Best seconds a call known."""
        return self.best_s[-1] if self.best_s else self.untuned_s


Scheduler = Callable[[Sequence[TaskState], Sequence[int]], int | None]
"""Maps the tasks and the history (the task of each slice so far) to the next task, or None."""


def round_robin(tasks: Sequence[TaskState], _history: Sequence[int]) -> int | None:
    """Each unfinished task in turn, those that take most of the network's time first."""
    open_tasks = _open(tasks)
    if not open_tasks:
        return None
    return min(
        open_tasks,
        key=lambda index: (
            len(tasks[index].best_s),
            -tasks[index].calls * tasks[index].roofline_s,
            index,
        ),
    )


_ALPHA = 0.2
_BETA = 2.0
_WINDOW = 3


def gradient(tasks: Sequence[TaskState], _history: Sequence[int]) -> int | None:
    """Ansor's rule: the task whose next slice promises to take most off the network's latency.

    After one slice each, the steepest of

        calls * (a * (g(t) - g(t - 3)) / 3
                 + (1 - a) * (min(g(t) - g(t) / t, b * C / max_k V_k) - g(t)))

    with g the task's best latency after its t slices, C its operations and V_k the speeds reached
    by tasks of its family; a = 0.2, b = 2 (Zheng et al., OSDI 2020, section 6; TVM 0.15,
    `auto_scheduler/task_scheduler.py`).
    """
    first = _first(tasks)
    if first is not None:
        return first
    return min(_open(tasks), key=lambda index: (_slope(tasks, index), index), default=None)


def _slope(tasks: Sequence[TaskState], index: int) -> float:
    task = tasks[index]
    slices, now_s = len(task.best_s), task.now_s
    backward = 0.0
    if slices > _WINDOW:
        backward = (now_s - task.best_s[-1 - _WINDOW]) / _WINDOW
    expected_s = now_s - now_s / slices
    speeds = [
        other.flops / other.now_s
        for number, other in enumerate(tasks)
        if number != index and other.best_s and other.family == task.family and other.flops > 0
    ]
    if speeds and task.flops > 0:
        expected_s = min(expected_s, _BETA * task.flops / max(speeds))
    # A similar task's speed is no reason to expect a loss.
    forward = min(0.0, expected_s - now_s)
    return task.calls * (_ALPHA * backward + (1 - _ALPHA) * forward)


_UCB_WINDOW = 32
_EXPLORATION = 0.25


def ucb(tasks: Sequence[TaskState], history: Sequence[int]) -> int | None:
    """Sliding-window UCB, as HARL's: a bandit whose arms are the tasks.

    After one slice each, the largest of the mean reward within the last 32 slices plus
    0.25 * sqrt(ln(min(t, 32)) / n). A slice's reward is what it took off the network's latency,
    divided by the largest such gain in the window (Garivier and Moulines 2011; Zhang et al., ICPP
    2022).
    """
    first = _first(tasks)
    if first is not None:
        return first
    window = range(max(0, len(history) - _UCB_WINDOW), len(history))
    gains: dict[int, list[float]] = {index: [] for index in range(len(tasks))}
    taken = [0] * len(tasks)
    for number, index in enumerate(history):
        task = tasks[index]
        before_s = task.best_s[taken[index] - 1] if taken[index] else task.untuned_s
        gain_s = task.calls * max(0.0, before_s - task.best_s[taken[index]])
        taken[index] += 1
        # The first slice starts from plain loops: its gain says nothing about the next.
        if number in window and taken[index] > 1:
            gains[index].append(gain_s)
    largest_s = max((gain for arm in gains.values() for gain in arm), default=0.0) or 1.0

    def bound(index: int) -> float:
        arm = gains[index]
        if not arm:
            # Untried for a window: as good as the best, and the heavier task first.
            return math.inf
        mean = float(np.mean(arm)) / largest_s
        return mean + _EXPLORATION * math.sqrt(math.log(max(2, len(window))) / len(arm))

    return max(
        _open(tasks),
        key=lambda index: (bound(index), tasks[index].calls * tasks[index].now_s, -index),
        default=None,
    )


def _open(tasks: Sequence[TaskState]) -> list[int]:
    return [index for index, task in enumerate(tasks) if not task.finished]


def _first(tasks: Sequence[TaskState]) -> int | None:
    """The heaviest task that has had no slice yet."""
    fresh = [index for index in _open(tasks) if not tasks[index].best_s]
    return max(
        fresh,
        key=lambda index: (tasks[index].calls * tasks[index].roofline_s, -index),
        default=None,
    )


SCHEDULERS: Mapping[str, Scheduler] = MappingProxyType(
    {"gradient": gradient, "round-robin": round_robin, "ucb": ucb}
)


def find_scheduler(name: str) -> Scheduler:
    """A scheduler by name.

    Raises:
        UnknownNameError: There is none of that name.
    """
    if name not in SCHEDULERS:
        raise UnknownNameError("task scheduler", name, SCHEDULERS)
    return SCHEDULERS[name]
