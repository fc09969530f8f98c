"""Timing kernels against each other: samples in turn, in calm moments, with intervals.

A search's own minimum is the winner of a lottery. What is reported comes from here, and from
`schedenv.tuning.heats`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.stats import t as student_t

from schedenv.measure.result import Result, robust_estimate
from schedenv.measure.timing import CALM
from schedenv.space import Point

FINALISTS = 12
ROUNDS = 60
BUDGET_S = 12.0

_BOOTSTRAPS = 2000
_FEWEST_ROUNDS = 4
_PATIENCE_S = 0.025


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
        """Build, verify and time points, and keep them loaded; what was before is forgotten."""
        ...

    def renew(self) -> bool:
        """Load what is loaded next into a fresh process; False if there is none to be had."""
        ...

    def slowdown(self) -> float | None:
        """How much slower than undisturbed the machine is now; None if nobody can tell."""
        ...


Open = Callable[[int], AbstractContextManager[Comparer]]
"""Opens a fresh comparer, given the seed of its verification inputs."""


@dataclass(frozen=True)
class Timing:
    """A verified latency with its 95 % interval.

    Attributes:
        latency_s: `robust_estimate` of the samples, seconds a call; of those of several processes
            the geometric mean.
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

    @classmethod
    def over(cls, processes: Sequence[Sequence[float]], seed: int = 0) -> Timing:
        """Estimate from the samples of several processes.

        The interval is Student's, of the logarithms of the processes' estimates: how far those are
        apart tells more than all samples of one. Of a single process it is `of`.
        """
        if len(processes) == 1:
            return cls.of(processes[0], seed)
        logs = np.log([robust_estimate(samples_s) for samples_s in processes])
        mean, error = float(logs.mean()), float(logs.std(ddof=1) / math.sqrt(len(logs)))
        reach = float(student_t.ppf(0.975, len(logs) - 1)) * error
        every = tuple(sample_s for samples_s in processes for sample_s in samples_s)
        return cls(math.exp(mean), math.exp(mean - reach), math.exp(mean + reach), every)


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
