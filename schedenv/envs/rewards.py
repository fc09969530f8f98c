"""Where rewards come from."""

from __future__ import annotations

import math
from typing import Protocol

from schedenv.errors import InputError, MachineError
from schedenv.hardware import Hardware
from schedenv.measure import Result
from schedenv.measure.local import LocalMeasurer
from schedenv.space import UNTUNED, Point
from schedenv.tasks import Task

FAILURE_REWARD = -1.0
"""For a step to a candidate that fails: it costs, never pays."""

ILLEGAL_REWARD = -0.1
"""For an illegal action, which does nothing."""


class RewardSource(Protocol):
    """Tells how fast a point is."""

    def baseline_s(self) -> float:
        """Seconds a call of the untuned program."""
        ...

    def evaluate(self, point: Point, best_s: float | None) -> Result:
        """The result of a point; `best_s` is the best estimate so far, None if there is none."""
        ...

    def close(self) -> None:
        """Release everything; a second call does nothing."""
        ...


class MeasuredReward:
    """Rewards from real hardware. Workers start at the first evaluation."""

    def __init__(self, task: Task, hardware: Hardware) -> None:
        self._task, self._hardware = task, hardware
        self._measurer: LocalMeasurer | None = None
        self._baseline_s: float | None = None

    def baseline_s(self) -> float:
        """Seconds a call of the untuned program, measured once.

        Raises:
            MachineError: It cannot be measured.
        """
        if self._baseline_s is None:
            result = self._open().measure([UNTUNED])[0]
            if result.estimate_s is None:
                raise MachineError(
                    f"the untuned program of {self._task.name} failed ({result.status.value}: "
                    f"{result.reason}); run: schedenv doctor"
                )
            self._baseline_s = result.estimate_s
        return self._baseline_s

    def evaluate(self, point: Point, best_s: float | None) -> Result:
        """Build, verify and time a point."""
        return self._open().measure([point], best_s)[0]

    def close(self) -> None:
        """Stop the workers."""
        if self._measurer is not None:
            self._measurer.close()
            self._measurer = None

    def _open(self) -> LocalMeasurer:
        if self._measurer is None:
            # One step measures one point: a second worker would only wait.
            self._measurer = LocalMeasurer(self._task, self._hardware, workers=1)
        return self._measurer


SOURCES = {"measured": MeasuredReward}


def make_source(name: str, task: Task, hardware: Hardware) -> RewardSource:
    """Create a reward source by name.

    Raises:
        InputError: No such source.
    """
    if name not in SOURCES:
        raise InputError(f"expected reward to be one of {sorted(SOURCES)}, got {name!r}")
    return SOURCES[name](task, hardware)


def step_reward(before_s: float, after_s: float) -> float:
    """Log speed-up of one step; over an episode these add up to log(first / last)."""
    return math.log(before_s / after_s)
