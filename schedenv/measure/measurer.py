"""What every measurer promises, whatever stands behind it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from schedenv.measure.result import Result
from schedenv.space import Point


class Measurer(Protocol):
    """Builds, verifies and times points of one task.

    `measure` returns one result a point, always, in order; a candidate's failure is a status. Only
    a fault of the machine is an exception (`schedenv.errors.MachineError`).
    """

    def measure(
        self,
        points: Sequence[Point],
        incumbent_s: float | None = None,
        on_result: Callable[[Result], None] | None = None,
    ) -> list[Result]:
        """Measure the points.

        Args:
            points: Legal points of the task's space, or `UNTUNED`.
            incumbent_s: Estimate of the best candidate so far; clearly slower ones are timed
                roughly. None if there is none.
            on_result: Called with each new result as soon as it is known, in any order, so that
                it can be stored before the rest of the batch is done. Not called for a point whose
                program or code was measured before: its result is marked `repeated`.
        """
        ...

    def remember(self, results: Sequence[Result]) -> None:
        """Take over the results of an earlier run, so that equal programs are not measured again.

        A measurer that answers every point anew may ignore them.
        """
        ...

    def close(self) -> None:
        """Stop all workers and remove all scratch files; a second call does nothing."""
        ...
