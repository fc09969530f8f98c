"""No tuning at all: the program as it came."""

from __future__ import annotations

from pathlib import Path

from schedenv.comparison.contestant import Entry
from schedenv.errors import MachineError
from schedenv.hardware import Hardware
from schedenv.measure.local import LocalMeasurer
from schedenv.space import UNTUNED
from schedenv.tasks import Task
from schedenv.tuning.budget import Budget


class Untuned:
    """The contestant that does nothing: what any tuning is worth is measured from here."""

    name = "untuned"

    def run(self, task: Task, hardware: Hardware, budget: Budget, seed: int, out: Path) -> Entry:
        """Time the program once; no trial is spent, and no second.

        Raises:
            MachineError: The program cannot be timed.
        """
        del budget, out
        with LocalMeasurer(task, hardware, workers=1, seed=seed) as measurer:
            (result,) = measurer.measure([UNTUNED])
        if result.estimate_s is None:
            raise MachineError(
                f"the untuned program of {task.name} failed ({result.status.value}: "
                f"{result.reason}); run: schedenv doctor"
            )
        return Entry(((0.0, 0, result.estimate_s),), 0, 0.0, {}, (UNTUNED,))
