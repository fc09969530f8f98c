"""How much of the yardstick's slowdown is the machine's, and thus any other candidate's as well."""

from __future__ import annotations

import math

_SHARED_PART = 0.5
_LEARNING_RATE = 0.25
_CREDIBLE_SLOWDOWNS = (0.4, 2.5)


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
