"""How often a kernel is timed: a cheap first look, repeats only where they can matter."""

from __future__ import annotations

import math
from collections.abc import Callable

from schedenv.measure.result import robust_estimate

HOPELESS_FACTOR = 2.5
"""A candidate this many times slower than the incumbent is not timed any further."""

CLOSE_FACTOR = 1.15
"""A candidate within this factor of the incumbent is timed twice as often."""

_COLD_FACTOR = 4.0
_SAMPLE_S = 0.5e-3
_SAMPLES = 10
_FEWEST_SAMPLES = 3
_BUDGET_S = 0.1
_LONG_CALL_S = 0.5


def calls_per_sample(call_s: float) -> int:
    """Calls that make one sample long enough for the clock, short enough to dodge noise bursts."""
    return max(1, math.ceil(_SAMPLE_S / max(call_s, 1e-9)))


def sample_count(call_s: float) -> int:
    """Samples of a call that lasts `call_s`, within a budget of a tenth of a second."""
    sample_s = call_s * calls_per_sample(call_s)
    return max(_FEWEST_SAMPLES, min(_SAMPLES, int(_BUDGET_S / sample_s)))


def race(
    time_s: Callable[[int, int], list[float]], first_call_s: float, incumbent_s: float | None
) -> tuple[list[float], bool]:
    """Time one candidate.

    Args:
        time_s: `time_s(number, repeat)` returns `repeat` samples, each the mean of `number` calls.
        first_call_s: What the verifying call took; slower than later ones, caches being cold.
        incumbent_s: Estimate of the best candidate so far; None if there is none.

    Returns:
        The samples, in seconds a call, and whether timing was cut short because the candidate is
        clearly slower than the incumbent.
    """
    if incumbent_s is not None and first_call_s > _COLD_FACTOR * HOPELESS_FACTOR * incumbent_s:
        return [first_call_s], True
    first = time_s(1, 1)
    if first[0] > _LONG_CALL_S:
        return first, incumbent_s is not None and first[0] > HOPELESS_FACTOR * incumbent_s
    first += time_s(1, 1)
    if incumbent_s is not None and min(first) > HOPELESS_FACTOR * incumbent_s:
        return first, True
    call_s = min(first)
    number, count = calls_per_sample(call_s), sample_count(call_s)
    samples = time_s(number, count)
    if incumbent_s is not None and robust_estimate(samples) < CLOSE_FACTOR * incumbent_s:
        samples += time_s(number, count)
    return samples, False
