"""How much of the yardstick's slowdown is the machine's, and thus any other candidate's as well."""

from __future__ import annotations

import math
import statistics
from collections import deque

_SHARED_PART = 0.5
_LEARNING_RATE = 0.25
_CREDIBLE_SLOWDOWNS = (0.4, 2.5)
_LOOKS_TO_SETTLE = 24


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

    def follow(self, slowdown: float) -> float:
        """What to divide samples by that are taken now.

        Args:
            slowdown: The kernel's time of this moment over its estimate.
        """
        low, high = _CREDIBLE_SLOWDOWNS
        news = math.log(min(high, max(low, slowdown))) - self._level
        drift = math.exp(self._level + _SHARED_PART * news)
        self._level += _LEARNING_RATE * news
        return drift

    def rebase(self, factor: float) -> None:
        """Count slowdowns from an estimate that is so many times longer."""
        self._level -= math.log(factor)


class Scale:
    """The yardstick's slowdowns, and the estimate that they are counted from.

    What a kernel took as a candidate was timed within a fraction of a second. If that was a fast
    one, all that follows would be divided by the difference for the rest of the run, and stand
    below anything that the clock ever showed. So the estimate is settled after a while, once: to
    the median of what the kernel takes between the other candidates. That is the machine's usual
    speed for the first yardstick; the median of one that replaces it is put to that scale.

    Args:
        estimate_s: What the kernel took as a candidate.
        settled: Whether that is at the scale of earlier results, and has to stay.

    Attributes:
        estimate_s: What it takes when samples are divided by 1.
    """

    def __init__(self, estimate_s: float, *, settled: bool = False) -> None:
        self.estimate_s = estimate_s
        self._settled = settled
        self._drift = Drift()
        self._usual = 1.0
        self._looks_s: deque[float] = deque(maxlen=_LOOKS_TO_SETTLE)

    def successor(self, ratio: float) -> Scale:
        """The scale of another kernel, which takes `ratio` times as long as this one."""
        scale = Scale(self.estimate_s * ratio)
        scale._drift = self._drift
        if self._settled and self._looks_s:
            scale._usual = statistics.median(self._looks_s) / self.estimate_s
        return scale

    def follow(self, now_s: float) -> float:
        """What to divide samples by that are taken now.

        Args:
            now_s: What the yardstick just took.
        """
        if now_s < _CREDIBLE_SLOWDOWNS[0] * self.estimate_s:
            # Noise only adds time: it was estimated in a very bad moment.
            self.estimate_s, self._settled, self._usual = now_s, False, 1.0
            self._drift = Drift()
            self._looks_s.clear()
        self._looks_s.append(now_s)
        if not self._settled and len(self._looks_s) == _LOOKS_TO_SETTLE:
            self._settle(statistics.median(self._looks_s) / self._usual)
        return self._drift.follow(now_s / self.estimate_s)

    def _settle(self, estimate_s: float) -> None:
        self._drift.rebase(estimate_s / self.estimate_s)
        self.estimate_s, self._settled = estimate_s, True
