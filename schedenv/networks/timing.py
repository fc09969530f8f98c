"""How long a call of a network takes, measured in several turns.

What one process shows for a few seconds is not what the next one shows: a neighbour on the machine
slows all of them down for a turn, and a process keeps for its life what it was given at its start.
Both are a tenth and more, where the samples of one process agree within 2 %. So each turn has
processes of its own, and intervals are over turns: the range of the order statistics that the
median lies between (distribution-free; Conover, Practical Nonparametric Statistics, section 3.2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from schedenv.measure.result import robust_estimate
from schedenv.tuning.finalists import Timing, paired_ratio

Samples = tuple[float, ...]
Range = tuple[float, float, float]
"""Low end, estimate and high end of a 95 % interval."""


@dataclass(frozen=True)
class TurnTimes:
    """A contender's samples.

    Attributes:
        samples_s: Seconds a call, by turn, each of a process of its own.
    """

    samples_s: tuple[Samples, ...]

    @property
    def latency_s(self) -> float:
        """Median of the turns' `robust_estimate`s."""
        return self.interval()[1]

    def interval(self) -> Range:
        """The latency; the interval is over turns, or over the samples of a single one."""
        if len(self.samples_s) == 1:
            timing = Timing.of(self.samples_s[0])
            return timing.low_s, timing.latency_s, timing.high_s
        return median([robust_estimate(samples) for samples in self.samples_s])

    def ratio(self, other: TurnTimes) -> Range:
        """This one's latency over the other's, the median of the turns' ratios.

        Where only one turn is common to both, the interval is over its rounds.
        """
        pairs = list(zip(self.samples_s, other.samples_s, strict=False))
        if len(pairs) == 1:
            ((mine, others),) = pairs
            rounds = min(len(mine), len(others))
            return paired_ratio(mine[:rounds], others[:rounds])
        return median([robust_estimate(mine) / robust_estimate(others) for mine, others in pairs])


def median(values: Sequence[float]) -> Range:
    """A median with its interval, which is the whole range of less than nine values.

    That of six to eight holds the true median with at least 95 % probability, of five with 94 %, of
    three with 75 %.
    """
    from scipy.stats import binom

    ordered = sorted(values)
    # The true median is below the k-th of n values when less than k of them are below it.
    outside = max(0, int(binom.ppf(0.025, len(ordered), 0.5)) - 1)
    return ordered[outside], float(np.median(ordered)), ordered[-1 - outside]
