"""How much of the yardstick's slowdown is the machine's, and thus any other candidate's as well."""

from __future__ import annotations

import math
import statistics
from collections import deque
from dataclasses import dataclass

from schedenv.measure.result import robust_estimate
from schedenv.measure.timing import Look

_SHARED_PART = 0.5
_LEARNING_RATE = 0.25
_CREDIBLE_SLOWDOWNS = (0.4, 2.5)
_LOOKS_TO_SETTLE = 24
_FEWEST_LOOKS = 12


class Drift:
    """Follows the speed of the machine through the slowdowns of one kernel.

    What lasts over several looks (a lower clock, a busy neighbour) slows all schedules of a task
    down alike; of what is new in the latest look, about half is shared by the candidate that runs
    next, the rest is noise of the one or of the other. So the lasting part, an exponential mean
    in logarithms, counts in full and the deviation from it by half: the least spread of those
    tried (`runs/drift.py`). A slowdown beyond what machines do is noise, and not followed:
    dividing by it would make a kernel look faster than any machine.
    """

    def __init__(self) -> None:
        self._level = 0.0

    @property
    def lasting(self) -> float:
        """What to divide samples by of which nothing new is known."""
        return math.exp(self._level)

    def start(self, slowdown: float) -> None:
        """Have no past, and take this for what lasts."""
        self._level = math.log(_credible(slowdown))

    def follow(self, slowdown: float) -> float:
        """What to divide samples by that are taken now.

        Args:
            slowdown: The kernel's time of this moment over its estimate.
        """
        news = math.log(_credible(slowdown)) - self._level
        drift = math.exp(self._level + _SHARED_PART * news)
        self._level += _LEARNING_RATE * news
        return drift

    def rebase(self, factor: float) -> None:
        """Count slowdowns from an estimate that is so many times longer."""
        self._level -= math.log(factor)


def _credible(slowdown: float) -> float:
    low, high = _CREDIBLE_SLOWDOWNS
    return min(high, max(low, slowdown))


@dataclass(frozen=True)
class Divisors:
    """What to divide samples by that are taken at some moment.

    Attributes:
        calm: If nothing disturbs them.
        disturbed: If something does.
        likely: The one of these that fits the moment in which the yardstick was timed.
    """

    calm: float
    disturbed: float
    likely: float

    def of(self, look: Look) -> float:
        """The one that fits a look."""
        return self.calm if look.calm else self.disturbed


class Scale:
    """The yardstick's slowdowns, and the estimate that they are counted from.

    What a kernel took as a candidate was timed within a fraction of a second. If that was a fast
    one, all that follows would be divided by the difference for the rest of the run, and stand
    below anything that the clock ever showed. So the estimate is settled after a while, once: to
    the median of what the kernel takes between the other candidates. That is the machine's usual
    speed for the first yardstick; the median of one that replaces it is put to that scale. Until
    then it follows that median, if the reference kernel says that the moments are calm: by the
    time that a scale is settled, what was measured at a wrong one may lead for good.

    Calm and disturbed moments are kept apart. A neighbour on the core slows the kernels of one
    task down by different factors, so what lasted over disturbed moments says nothing about calm
    ones; and only calm ones can settle the scale, for the others do not come back alike, and
    whatever was told before would be at another scale than what is told after.

    Args:
        estimate_s: What the kernel took as a candidate.
        settled: Whether that has to stay: it is at the scale of earlier results, or of disturbed
            moments.

    Attributes:
        estimate_s: What it takes when samples are divided by 1.
    """

    def __init__(self, estimate_s: float, *, settled: bool = False) -> None:
        self.estimate_s = estimate_s
        self._settled = settled
        self._drifts: dict[bool, Drift] = {}
        self._usual = 1.0
        self._calm_s: deque[float] = deque(maxlen=_LOOKS_TO_SETTLE)

    def successor(self, ratio: float) -> Scale:
        """The scale of another kernel, which takes `ratio` times as long as this one."""
        known = len(self._calm_s) >= _FEWEST_LOOKS
        scale = Scale(self.estimate_s * ratio, settled=self._settled and not known)
        scale._drifts, scale._usual = self._drifts, self._usual
        if self._settled and known:
            scale._usual = statistics.median(self._calm_s) / self.estimate_s
        return scale

    def follow(self, look: Look) -> Divisors:
        """What to divide samples by that are taken now.

        Args:
            look: At the yardstick, just now.
        """
        now_s = robust_estimate(look.samples_s)
        if now_s < _CREDIBLE_SLOWDOWNS[0] * self.estimate_s:
            # Noise only adds time: it was estimated in a very bad moment.
            self.estimate_s, self._settled, self._usual = now_s, not look.calm, 1.0
            self._drifts = {}
            self._calm_s.clear()
        if look.calm:
            self._calm_s.append(now_s)
        settles = len(self._calm_s) == _LOOKS_TO_SETTLE
        if not self._settled and (settles or (look.calm and look.slowdown is not None)):
            self._move_to(statistics.median(self._calm_s) / self._usual)
            self._settled = settles
        slowdown = now_s / self.estimate_s
        likely = self._drift(look.calm, slowdown).follow(slowdown)
        other_kind = self._drifts.get(not look.calm)
        other = likely if other_kind is None else other_kind.lasting
        return Divisors(likely, other, likely) if look.calm else Divisors(other, likely, likely)

    def _drift(self, calm: bool, slowdown: float) -> Drift:
        """That of such moments; the estimate is of those that came first."""
        if calm not in self._drifts:
            drift = self._drifts[calm] = Drift()
            if len(self._drifts) > 1:
                drift.start(slowdown)
        return self._drifts[calm]

    def _move_to(self, estimate_s: float) -> None:
        for drift in self._drifts.values():
            drift.rebase(estimate_s / self.estimate_s)
        self.estimate_s = estimate_s
