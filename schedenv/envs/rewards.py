"""Where rewards come from: real hardware, a recorded table, or a cost model."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from schedenv.errors import InputError, MachineError, ModelOutputError, PointNotRecordedError
from schedenv.hardware import Hardware
from schedenv.measure import Result, Status
from schedenv.measure.local import LocalMeasurer
from schedenv.measure.table import Table
from schedenv.space import UNTUNED, Point, SearchSpace
from schedenv.tasks import Task

FAILURE_REWARD = -1.0
"""For a step to a candidate that fails: it costs, never pays."""

ILLEGAL_REWARD = -0.1
"""For an illegal action, which does nothing."""

MOST_LOG_SPEEDUP = 100.0
"""A score further than this from the plainest point's is no logarithm of a speed-up."""


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


class Predictor(Protocol):
    """What is asked of a cost model; `schedenv.costmodel.CostModel` is one."""

    def predict(
        self, task: Task, space: SearchSpace, points: Sequence[Point]
    ) -> npt.NDArray[np.float32]:
        """Scores, shape (n,), higher is faster; differences are natural-log speed-ups."""
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
        """Stop the workers; the next evaluation would start new ones."""
        if self._measurer is not None:
            self._measurer.close()
            self._measurer = None

    def _open(self) -> LocalMeasurer:
        if self._measurer is None:
            # One step measures one point: a second worker would only wait.
            self._measurer = LocalMeasurer(self._task, self._hardware, workers=1)
        return self._measurer


class RecordedReward:
    """Rewards from a recorded table: exact, without TVM, the same every time."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def baseline_s(self) -> float:
        """Seconds a call of the untuned program, as recorded."""
        return self._table.info.untuned_s

    def evaluate(self, point: Point, best_s: float | None) -> Result:
        """What was recorded; `best_s` does not matter.

        Raises:
            PointNotRecordedError: The table does not hold the point.
        """
        del best_s
        row = self._table.by_point.get(point)
        if row is None:
            raise PointNotRecordedError(
                f"{point} is not one of the {len(self._table.rows)} points of the recorded table "
                f"{self._table.source or self._table.info.task.name}; stay within its own space "
                "(Table.space())"
            )
        return row.result()

    def close(self) -> None:
        """There is nothing to release."""


class PredictedReward:
    """Rewards from a cost model, which knows speed-ups and no times.

    Times are therefore relative: the plainest point of the space (`SearchSpace.default`) takes
    one unit. It stands for the untuned program, which is not a point.

    Args:
        model: The cost model.
        name: The model's folder, for messages.
        task: What is scheduled.
        space: Its points.
    """

    def __init__(self, model: Predictor, name: str, task: Task, space: SearchSpace) -> None:
        self._model, self._name, self._task, self._space = model, name, task, space
        self._origin: float | None = None

    def baseline_s(self) -> float:
        """The unit: 1."""
        return 1.0

    def evaluate(self, point: Point, best_s: float | None) -> Result:
        """What the model says, in units of the plainest point; `best_s` does not matter.

        Raises:
            ModelOutputError: The model's answer is not one finite score, or no log speed-up.
        """
        del best_s
        if self._origin is None:
            self._origin = self._score(self._space.default())
        gain = self._score(point) - self._origin
        if abs(gain) > MOST_LOG_SPEEDUP:
            raise ModelOutputError(
                f"the cost model {self._name} gave {point} of {self._task.name} a log speed-up of "
                f"{gain:.3g} over the plainest point; expected at most {MOST_LOG_SPEEDUP:g} either "
                "way: scores must estimate natural logarithms of speed-ups; fit it again"
            )
        return Result(point=point, status=Status.OK, estimate_s=math.exp(-gain))

    def close(self) -> None:
        """There is nothing to release."""

    def _score(self, point: Point) -> float:
        scores = np.asarray(self._model.predict(self._task, self._space, [point]))
        if scores.shape != (1,) or not np.isfinite(scores[0]):
            raise ModelOutputError(
                f"the cost model {self._name} answered {scores.tolist()} for {point} of "
                f"{self._task.name}; expected one finite score: its training diverged, or it saw "
                "data that is not finite; fit it again"
            )
        return float(scores[0])


SOURCES: dict[str, Callable[[Task, Hardware], RewardSource]] = {"measured": MeasuredReward}
"""The sources that need a task and a machine, by name."""

REWARDS = ("measured", "predicted", "recorded")


def make_source(name: str, task: Task, hardware: Hardware) -> RewardSource:
    """Create a source that needs nothing but a task and a machine, by name.

    Raises:
        InputError: No such source.
    """
    if name not in SOURCES:
        raise InputError(f"expected reward to be one of {known_rewards()}, got {name!r}")
    return SOURCES[name](task, hardware)


def known_rewards() -> list[str]:
    """The names that the argument `reward` may have."""
    return sorted({*REWARDS, *SOURCES})


def load_predictor(folder: str) -> Any:
    """The cost model saved in a folder.

    Raises:
        SchedenvError: It cannot be read.
    """
    # By name, so that environments without predictions do without the package of models.
    return importlib.import_module("schedenv.costmodel").load_model(Path(folder))
