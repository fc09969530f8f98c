"""How often a kernel is timed: a cheap first look, repeats only where they can matter.

The reference kernel is timed before and after each look, so that the records show whether a
neighbour had part of a core. The samples are not corrected by it: what slows pure arithmetic down
(a neighbour on the sibling hardware thread, a lower clock) doubles the time of some kernels and
leaves others alone, and correcting those makes them look faster than they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import msgspec

HOPELESS_FACTOR = 2.5
"""A candidate this many times slower than the incumbent is not timed any further."""

CLOSE_FACTOR = 1.15
"""A candidate within this factor of the incumbent is looked at again, at another moment."""

CALM = 1.15
"""The moments count as calm in which the reference kernel is slowed down by less."""

_COLD_FACTOR = 1.5
_BARELY_COLD_S = 4e-3
_NEVER_COLD_S = 10e-3
_WAKING_S = 1e-3
_SAMPLE_S = 0.5e-3
_SAMPLES = 10
_FEWEST_SAMPLES = 3
_BUDGET_S = 0.1
_LONG_CALL_S = 0.1
_SHORTEST_CALL_S = 1e-7
_SECOND_SAMPLES = 4
_REFERENCES = 2
_SETTLING_S = 4e-3
_UNCOUNTED = 4


class Look(msgspec.Struct, frozen=True):
    """One sequence of samples of a kernel.

    Attributes:
        samples_s: As the clock gave them, seconds a call.
        slowdown: The reference kernel's time over its undisturbed time, just before or, if that
            is longer, just after; None if it was not timed.
        early_stopped: Whether it was cut short because the kernel is clearly too slow.
    """

    samples_s: tuple[float, ...]
    slowdown: float | None = None
    early_stopped: bool = False

    @property
    def calm(self) -> bool:
        """Whether nothing is known to have disturbed it."""
        return self.slowdown is None or self.slowdown < CALM


def calmest(looks: Sequence[Look]) -> Sequence[Look]:
    """The calm ones, if there are any.

    What a disturbed kernel takes says little about others, or about itself undisturbed, so the
    luckiest of disturbed looks is far from the truth.
    """
    return [look for look in looks if look.calm] or looks


def counted_samples(kept: Sequence[Look], looks: Sequence[Look]) -> tuple[bool, ...]:
    """For each sample of some looks, whether it is of one that is kept."""
    return tuple(any(look is one for one in kept) for look in looks for _ in look.samples_s)


class Timer:
    """Times one kernel, and the reference kernel now and then.

    Args:
        call_s: One call of the kernel, timed as it comes.
        kernel_s: `kernel_s(number, count)` is that many samples, each the mean of `number` calls,
            after one call that is not counted.
        reference_s: One call of the reference kernel.
        undisturbed_s: What a call of the reference kernel takes on the undisturbed machine.
    """

    def __init__(
        self,
        call_s: Callable[[], float],
        kernel_s: Callable[[int, int], Sequence[float]],
        reference_s: Callable[[], float],
        undisturbed_s: float,
    ) -> None:
        self._call_s, self._kernel_s, self._reference_s = call_s, kernel_s, reference_s
        self._undisturbed_s = undisturbed_s

    def first_look(self, first_call_s: float, incumbent_s: float | None) -> Look:
        """Time a kernel that was just verified, and the reference kernel before it.

        Args:
            first_call_s: What the verifying call took; slower than later ones, caches being cold.
            incumbent_s: Estimate of the best candidate so far; None if there is none.
        """
        hopeless_s = math.inf if incumbent_s is None else HOPELESS_FACTOR * incumbent_s
        # Without an incumbent a rough look at a slow kernel will do: if it turns out to be among
        # the fast ones, it takes turns later.
        rough_s = _BARELY_COLD_S if incumbent_s is None else hopeless_s
        slowdown = self._slowdown()
        if first_call_s > max(_COLD_FACTOR * hopeless_s, _NEVER_COLD_S):
            return Look((first_call_s,), slowdown, early_stopped=True)
        samples = [self._call_s()]
        if not 0 < samples[0] < math.inf:
            # The clock is broken; whoever asked will see.
            return Look(tuple(samples), slowdown)
        if rough_s < samples[0] < _LONG_CALL_S:
            samples += self._second_opinion(samples[0], first_call_s)
        call_s = min(samples)
        if call_s > rough_s or call_s >= _LONG_CALL_S:
            return Look(tuple(samples), slowdown, early_stopped=call_s > hopeless_s)
        return self._look(call_s, slowdown)

    def _second_opinion(self, call_s: float, first_call_s: float) -> Sequence[float]:
        """More samples of what seems to be slow: a burst of noise may have hit that one call."""
        if call_s <= _WAKING_S:
            # Most of a short call may be sleeping threads.
            return self._kernel_s(calls_per_sample(call_s), _SECOND_SAMPLES)
        if min(call_s, first_call_s) > _BARELY_COLD_S:
            # Little of a call of milliseconds is cold caches: the verifying call tells as much.
            return [first_call_s]
        return [self._call_s()]

    def look(self, call_s: float) -> Look:
        """Time a kernel whose calls are known to last about `call_s`."""
        return self._look(call_s, self._slowdown())

    def _look(self, call_s: float, before: float) -> Look:
        samples_s = tuple(self._kernel_s(calls_per_sample(call_s), sample_count(call_s)))
        # Now the cores are awake, and what slows them down may be over in a millisecond.
        return Look(samples_s, max(before, self._slowdown(settling_s=0.0)))

    def _slowdown(self, settling_s: float = _SETTLING_S) -> float:
        return slowdown_now(self._reference_s, self._undisturbed_s, settling_s)


def slowdown_now(
    reference_s: Callable[[], float], undisturbed_s: float, settling_s: float = _SETTLING_S
) -> float:
    """How much slower than undisturbed the reference kernel is, once cores that idled are not.

    On some virtual machines a core that was idle for milliseconds then takes up to two times as
    long for everything, for three more milliseconds of work (`runs/waking.py`), and the threads of
    the process that ran before spin for one. So the kernel is repeated until two calls in a row
    are not slow, or no longer for either reason. It also wakes the cores for what is timed next.
    The first call is not counted: after a kernel of one thread it wakes the others of the pool.

    Args:
        reference_s: One call of the reference kernel, seconds.
        undisturbed_s: What it takes on the undisturbed machine.
        settling_s: Seconds of calls until slow ones are believed.
    """
    spent_s = reference_s()
    references: list[float] = []
    while True:
        references.append(reference_s())
        spent_s += references[-1]
        if len(references) >= _REFERENCES:
            slowdown = max(references[-_REFERENCES:]) / undisturbed_s
            if slowdown < CALM or not spent_s < settling_s:
                return slowdown


def calls_per_sample(call_s: float) -> int:
    """Calls that make one sample long enough for the clock, short enough to dodge noise bursts."""
    return max(1, math.ceil(_SAMPLE_S / max(call_s, _SHORTEST_CALL_S)))


def uncounted_samples(number: int) -> int:
    """Samples to take and forget before one that is taken alone, after something else ran.

    Where `number` calls make one sample they are short, and the first two milliseconds go to
    threads that slept, or fight with those of the process before, and to cold caches. In a row of
    samples the estimate leaves that part out.
    """
    return _UNCOUNTED if number > 1 else 0


def sample_count(call_s: float) -> int:
    """Samples of a call that lasts `call_s`, within a budget of a tenth of a second."""
    sample_s = call_s * calls_per_sample(call_s)
    return max(_FEWEST_SAMPLES, min(_SAMPLES, int(_BUDGET_S / sample_s)))
