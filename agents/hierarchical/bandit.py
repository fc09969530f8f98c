"""Which sketch to search next: a bandit whose rewards change while the search goes on."""

from __future__ import annotations

import math
from collections import deque


class SlidingWindowBandit:
    """Upper confidence bounds over the last few choices.

    Garivier and Moulines, "On Upper-Confidence Bound Policies for Switching Bandit Problems" (ALT
    2011), as HARL uses it: score = mean reward in the window + c sqrt(ln(min(t, window)) / n).

    Args:
        arms: How many there are.
        exploration: c.
        window: Choices that count.
    """

    def __init__(self, arms: int, exploration: float, window: int) -> None:
        self._arms, self._exploration = arms, exploration
        self._history: deque[tuple[int, float]] = deque(maxlen=window)

    def choose(self) -> int:
        """The arm with the highest score; of arms not in the window, the first."""
        counts, sums = [0] * self._arms, [0.0] * self._arms
        for arm, reward in self._history:
            counts[arm] += 1
            sums[arm] += reward
        if 0 in counts:
            return counts.index(0)
        spread = math.log(len(self._history))
        scores = [
            total / count + self._exploration * math.sqrt(spread / count)
            for total, count in zip(sums, counts, strict=True)
        ]
        return scores.index(max(scores))

    def reward(self, arm: int, reward: float) -> None:
        """Tell what a choice brought, between 0 and 1."""
        self._history.append((arm, reward))
