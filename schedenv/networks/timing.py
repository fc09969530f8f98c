"""How long a call of a network takes, measured in several processes.

A process keeps what it was given when it started: where its weights lie in physical memory, say.
Two processes of one library differ by more than the samples of one process tell, by up to a tenth
in networks of 2 ms. So the interval is over processes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from schedenv.measure.result import robust_estimate
from schedenv.tuning.finalists import Timing, paired_ratio

Samples = tuple[float, ...]
Range = tuple[float, float, float]
"""Low end, estimate and high end of a 95 % interval."""


@dataclass(frozen=True)
class ProcessTimes:
    """A contender's samples.

    Attributes:
        samples_s: Seconds a call; by process, in the order in which they were started.
    """

    samples_s: tuple[Samples, ...]

    @property
    def latency_s(self) -> float:
        """Geometric mean of the processes' `robust_estimate`s."""
        return self.interval()[1]

    def interval(self) -> Range:
        """The latency; the interval is over processes, or over the samples of a single one."""
        if len(self.samples_s) == 1:
            timing = Timing.of(self.samples_s[0])
            return timing.low_s, timing.latency_s, timing.high_s
        return geometric_mean([robust_estimate(samples) for samples in self.samples_s])

    def ratio(self, other: ProcessTimes) -> Range:
        """This one's latency over the other's, paired by turns.

        Where only one turn is common to both, the interval is over its rounds.
        """
        pairs = list(zip(self.samples_s, other.samples_s, strict=False))
        if len(pairs) == 1:
            ((mine, others),) = pairs
            rounds = min(len(mine), len(others))
            return paired_ratio(mine[:rounds], others[:rounds])
        return geometric_mean(
            [robust_estimate(mine) / robust_estimate(others) for mine, others in pairs]
        )


def geometric_mean(values: Sequence[float]) -> Range:
    """Of positive values; the interval is Student's, on their logarithms.

    Args:
        values: At least one. The ends of the interval of a single one are not numbers.
    """
    from scipy.stats import t as student

    logs = np.log(values)
    mean = float(logs.mean())
    if len(values) == 1:
        return math.nan, math.exp(mean), math.nan
    half = float(student.ppf(0.975, len(logs) - 1) * logs.std(ddof=1)) / math.sqrt(len(logs))
    return math.exp(mean - half), math.exp(mean), math.exp(mean + half)
