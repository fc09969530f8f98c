"""The numbers that are reported: finalists timed against each other and the untuned program.

The search's own minimum is the winner of a lottery. So the best few candidates and the baseline
are timed again, interleaved, in a fresh process: the first half of the rounds picks the winner,
the second half, which the choice has not seen, says how fast it is.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from schedenv.errors import DeviceLostError, MachineError
from schedenv.hardware import Hardware
from schedenv.measure.local import LocalMeasurer
from schedenv.measure.result import Result, robust_estimate
from schedenv.measure.timing import CALM
from schedenv.space import UNTUNED, Point
from schedenv.tasks import Task

FINALISTS = 4
ROUNDS = 60
BUDGET_S = 12.0

_BOOTSTRAPS = 2000
_FEWEST_ROUNDS = 4
_PATIENCE_S = 0.025
_DEVICES = 3
"""Devices that may be lost, one after the other, before the comparison is given up."""


class Kernel(Protocol):
    """A kernel that is ready to run: on this machine or on a device."""

    @property
    def result(self) -> Result:
        """How its verification and first timing went."""
        ...

    def sample_s(self) -> float:
        """Take one more sample, seconds a call."""
        ...


class Comparer(Protocol):
    """What holds kernels ready; both measurers do."""

    def load(self, points: Sequence[Point]) -> Sequence[Kernel]:
        """Build, verify and time points, and keep them loaded."""
        ...

    def slowdown(self) -> float | None:
        """How much slower than undisturbed the machine is now; None if nobody can tell."""
        ...


Open = Callable[[int], AbstractContextManager[Comparer]]
"""Opens a fresh comparer, given the seed of its verification inputs."""


@dataclass(frozen=True)
class Timing:
    """A verified latency with its 95 % bootstrap interval.

    Attributes:
        latency_s: `robust_estimate` of the samples, seconds a call.
        low_s: Lower end of the interval.
        high_s: Upper end of the interval.
        samples_s: What it was computed from.
    """

    latency_s: float
    low_s: float
    high_s: float
    samples_s: tuple[float, ...]

    @classmethod
    def of(cls, samples_s: Sequence[float], seed: int = 0) -> Timing:
        """Estimate from samples; the interval is a percentile bootstrap."""
        samples = np.asarray(samples_s)
        rng = np.random.default_rng(seed)
        draws = rng.choice(samples, (_BOOTSTRAPS, len(samples)))
        low, high = np.quantile(np.quantile(draws, 0.25, axis=1), [0.025, 0.975])
        return cls(robust_estimate(samples_s), float(low), float(high), tuple(samples_s))


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


def paired_ratio(
    numerator_s: Sequence[float], denominator_s: Sequence[float], seed: int = 0
) -> tuple[float, float, float]:
    """Ratio of two interleaved timings' estimates, with its 95 % paired bootstrap interval.

    Args:
        numerator_s: Samples of the numerator, one a round.
        denominator_s: Samples of the denominator, of the same rounds.
        seed: Of the bootstrap.

    Returns:
        Low end, estimate and high end.
    """
    numerator, denominator = np.asarray(numerator_s), np.asarray(denominator_s)
    rng = np.random.default_rng(seed)
    rounds = rng.integers(len(numerator), size=(_BOOTSTRAPS, len(numerator)))
    draws = np.quantile(numerator[rounds], 0.25, axis=1) / np.quantile(
        denominator[rounds], 0.25, axis=1
    )
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), robust_estimate(numerator_s) / robust_estimate(denominator_s), float(high)


def best_candidates(results: Sequence[Result], count: int = FINALISTS) -> list[Point]:
    """The points of the fastest verified results, one of those that are compiled to equal code."""
    ranked = sorted(
        (result.estimate_s, result.point, result.code or "")
        for result in results
        if result.estimate_s is not None and not result.early_stopped
    )
    distinct: dict[str | Point, Point] = {}
    for _, point, code in ranked:
        distinct.setdefault(code or point, point)
    return list(distinct.values())[:count]


def interleave(
    kernels: Sequence[Kernel],
    rounds: int,
    budget_s: float,
    seed: int = 0,
    slowdown: Callable[[], float | None] | None = None,
) -> list[tuple[Result, tuple[float, ...]]]:
    """Time kernels against each other: one sample of each a round, in random order.

    Drift and bursts of noise then hit all of them alike. A sample taken in a disturbed moment is
    taken again, a few times: a neighbour that has part of a core doubles the time of one kernel and
    leaves another alone.

    Args:
        kernels: The finalists and what they are compared with.
        rounds: Samples of each; a kernel so slow that its samples alone would take more than its
            share of the budget is sampled in every n-th round only.
        budget_s: Stop after about this long, but not before four rounds.
        seed: Of the order.
        slowdown: Tells how much slower than undisturbed the machine is now, as `Comparer.slowdown`
            does; None to take every sample as it comes.

    Returns:
        For each kernel its first result and its samples (none for one that failed).
    """
    share_s = budget_s / max(1, len(kernels))
    strides = [
        max(1, math.ceil(rounds * (kernel.result.estimate_s or 0.0) / share_s))
        for kernel in kernels
    ]
    samples: list[list[float]] = [[] for _ in kernels]
    good = [index for index, kernel in enumerate(kernels) if kernel.result.ok]
    rng = np.random.default_rng(seed)
    end_s = time.monotonic() + budget_s
    for number in range(rounds):
        if number >= _FEWEST_ROUNDS and time.monotonic() > end_s:
            break
        for index in rng.permutation(good):
            if number < _FEWEST_ROUNDS or number % strides[index] == 0:
                samples[index].append(_calm_sample_s(kernels[index], slowdown))
    return [(kernel.result, tuple(taken)) for kernel, taken in zip(kernels, samples, strict=True)]


def _calm_sample_s(kernel: Kernel, slowdown: Callable[[], float | None] | None) -> float:
    """A sample of the calmest moment of a few, which the kernel's own time has no part in."""
    if slowdown is None:
        return kernel.sample_s()
    end_s = time.monotonic() + _PATIENCE_S
    calmest, kept_s = math.inf, None
    before = slowdown()
    while True:
        sample_s = kernel.sample_s()
        after = slowdown()
        if before is None or after is None:
            return sample_s
        disturbed = max(before, after)
        if kept_s is None or disturbed < calmest:
            calmest, kept_s = disturbed, sample_s
        if calmest < CALM or time.monotonic() > end_s:
            return kept_s
        before = after


def confirm(
    task: Task,
    hardware: Hardware,
    finalists: Sequence[Point],
    seed: int = 0,
    open_comparer: Open | None = None,
) -> Verdict:
    """Time the finalists and the untuned program against each other in a fresh process.

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

    compared = _compare(open_comparer or open_local, [UNTUNED, *finalists], seed)
    timed = [(result, samples) for result, samples in compared if len(samples) >= 2]
    if not timed or timed[0][0].point != UNTUNED:
        raise MachineError(
            f"the untuned program of {task.name} cannot be timed: {compared[0][0].reason}; "
            "run: schedenv doctor"
        )

    def first_half_s(entry: tuple[Result, tuple[float, ...]]) -> float:
        return robust_estimate(entry[1][: len(entry[1]) // 2])

    winner, samples = min(timed, key=first_half_s)
    tuned = Timing.of(samples[len(samples) // 2 :], seed)
    baseline_samples = timed[0][1]
    baseline = Timing.of(baseline_samples[len(baseline_samples) // 2 :], seed + 1)
    ratios = (
        baseline.low_s / tuned.high_s,
        baseline.latency_s / tuned.latency_s,
        baseline.high_s / tuned.low_s,
    )
    if winner.point == UNTUNED:
        ratios = (1.0, 1.0, 1.0)
    return Verdict(winner.point, tuned, baseline, ratios, winner.max_error)


def _compare(
    open_comparer: Open, points: Sequence[Point], seed: int
) -> list[tuple[Result, tuple[float, ...]]]:
    """All samples come from one device; if it is lost, from the beginning on another."""
    for _ in range(_DEVICES - 1):
        # Other inputs than during the search: a kernel that is right for those alone is caught.
        with contextlib.suppress(DeviceLostError), open_comparer(seed + 1) as comparer:
            return _take_turns(comparer, points, seed)
    with open_comparer(seed + 1) as comparer:
        return _take_turns(comparer, points, seed)


def _take_turns(
    comparer: Comparer, points: Sequence[Point], seed: int
) -> list[tuple[Result, tuple[float, ...]]]:
    return interleave(comparer.load(points), ROUNDS, BUDGET_S, seed, comparer.slowdown)
