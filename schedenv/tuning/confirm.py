"""The numbers that a tuning run reports: its finalists against the untuned program.

The best few candidates and the baseline are timed again, interleaved, on other inputs, in fresh
processes (`schedenv.tuning.heats`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

from schedenv.errors import DeviceLostError, MachineError
from schedenv.hardware import Hardware
from schedenv.measure.local import LocalMeasurer
from schedenv.space import UNTUNED, Point
from schedenv.tasks import Task
from schedenv.tuning.finalists import Open, Timing
from schedenv.tuning.heats import Heats, hold_heats

_DEVICES = 3
"""Devices that may be lost, one after the other, before the comparison is given up."""


@dataclass(frozen=True)
class Verdict:
    """What a tuning run has achieved.

    Attributes:
        point: The winner; `UNTUNED` if no candidate beat the unscheduled program.
        tuned: Its latency.
        baseline: The unscheduled program's latency.
        ratios: Baseline over tuned, low end, estimate and high end of the 95 % interval.
        max_error: The winner's deviation from the reference, 1 being tolerated.
    """

    point: Point
    tuned: Timing
    baseline: Timing
    ratios: tuple[float, float, float]
    max_error: float | None


def confirm(
    task: Task,
    hardware: Hardware,
    finalists: Sequence[Point],
    seed: int = 0,
    open_comparer: Open | None = None,
) -> Verdict:
    """Time the finalists and the untuned program against each other in fresh processes.

    Args:
        task: What they compute.
        hardware: What they run on.
        finalists: The candidates.
        seed: Of the order; the verification inputs get another one.
        open_comparer: Where they run; None for this machine.

    Raises:
        MachineError: Not even the untuned program can be timed.
    """

    def open_local(inputs_seed: int) -> LocalMeasurer:
        return LocalMeasurer(task, hardware, workers=1, seed=inputs_seed)

    heats = _compare(open_comparer or open_local, finalists, seed)
    untuned = heats.untuned
    if untuned is None:
        raise MachineError(
            f"the untuned program of {task.name} cannot be timed: "
            f"{heats.results[UNTUNED].reason}; run: schedenv doctor"
        )
    winner = heats.winners[0] or untuned
    tuned, baseline = winner.timing, untuned.timing
    ratios = (
        baseline.low_s / tuned.high_s,
        baseline.latency_s / tuned.latency_s,
        baseline.high_s / tuned.low_s,
    )
    if winner.result.point == UNTUNED:
        ratios = (1.0, 1.0, 1.0)
    return Verdict(winner.result.point, tuned, baseline, ratios, winner.result.max_error)


def _compare(open_comparer: Open, finalists: Sequence[Point], seed: int) -> Heats:
    """All samples come from one device; if it is lost, from the beginning on another."""
    for _ in range(_DEVICES - 1):
        # Other inputs than during the search: a kernel that is right for those alone is caught.
        with contextlib.suppress(DeviceLostError), open_comparer(seed + 1) as comparer:
            return hold_heats(comparer, [finalists], seed)
    with open_comparer(seed + 1) as comparer:
        return hold_heats(comparer, [finalists], seed)
