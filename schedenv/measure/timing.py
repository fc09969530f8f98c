"""How often a kernel is timed: a cheap first look, repeats only where they can matter.

Every sample of a candidate is paired with one of the reference kernel. The ratio of the reference
to its undisturbed time says how slow the machine was just then, and the candidate's samples are
scaled by it: on a shared machine the speed changes by a factor of two within seconds, and
candidates measured a minute apart could not be compared otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import msgspec

from schedenv.measure.result import robust_estimate

HOPELESS_FACTOR = 2.5
"""A candidate this many times slower than the incumbent is not timed any further."""

CLOSE_FACTOR = 1.15
"""A candidate within this factor of the incumbent is looked at again, at another moment."""

_COLD_FACTOR = 4.0
_SAMPLE_S = 0.5e-3
_SAMPLES = 10
_FEWEST_SAMPLES = 3
_BUDGET_S = 0.1
_LONG_CALL_S = 0.5


class Look(msgspec.Struct, frozen=True):
    """One sequence of samples of a kernel.

    Attributes:
        samples_s: As the clock gave them, seconds a call.
        slowdown: The reference kernel's time over its undisturbed time, meanwhile.
        early_stopped: Whether it was cut short because the kernel is clearly too slow.
    """

    samples_s: tuple[float, ...]
    slowdown: float
    early_stopped: bool = False

    @property
    def nominal_s(self) -> tuple[float, ...]:
        """The samples as they would be on the undisturbed machine."""
        return tuple(sample / self.slowdown for sample in self.samples_s)


class Timer:
    """Times one kernel beside the reference kernel.

    Args:
        kernel_s: `kernel_s(number)` is the mean of that many calls of the kernel.
        reference_s: One call of the reference kernel.
        undisturbed_s: What a call of the reference kernel takes on the undisturbed machine.
    """

    def __init__(
        self,
        kernel_s: Callable[[int], float],
        reference_s: Callable[[], float],
        undisturbed_s: float,
    ) -> None:
        self._kernel_s, self._reference_s = kernel_s, reference_s
        self._undisturbed_s = undisturbed_s

    def first_look(self, first_call_s: float, incumbent_s: float | None) -> Look:
        """Time a kernel that was just verified.

        Args:
            first_call_s: What the verifying call took; slower than later ones, caches being cold.
            incumbent_s: Estimate of the best candidate so far; None if there is none.
        """
        hopeless_s = math.inf if incumbent_s is None else HOPELESS_FACTOR * incumbent_s
        slowdown = self._slowdown([self._reference_s()])
        if first_call_s / slowdown > _COLD_FACTOR * hopeless_s:
            return Look((first_call_s,), slowdown, early_stopped=True)
        samples, references = self._pairs(1, 1)
        if samples[0] < _LONG_CALL_S:
            more = self._pairs(1, 1)
            samples, references = samples + more[0], references + more[1]
        look = Look(tuple(samples), self._slowdown(references))
        call_s = min(look.nominal_s)
        if call_s > hopeless_s or samples[0] >= _LONG_CALL_S:
            return msgspec.structs.replace(look, early_stopped=call_s > hopeless_s)
        return self.look(call_s)

    def look(self, call_s: float) -> Look:
        """Time a kernel whose calls are known to last about `call_s`."""
        samples, references = self._pairs(calls_per_sample(call_s), sample_count(call_s))
        return Look(tuple(samples), self._slowdown(references))

    def _pairs(self, number: int, count: int) -> tuple[list[float], list[float]]:
        pairs = [(self._kernel_s(number), self._reference_s()) for _ in range(count)]
        return [sample for sample, _ in pairs], [reference for _, reference in pairs]

    def _slowdown(self, references: Sequence[float]) -> float:
        return robust_estimate(references) / self._undisturbed_s


def calls_per_sample(call_s: float) -> int:
    """Calls that make one sample long enough for the clock, short enough to dodge noise bursts."""
    return max(1, math.ceil(_SAMPLE_S / max(call_s, 1e-9)))


def sample_count(call_s: float) -> int:
    """Samples of a call that lasts `call_s`, within a budget of a tenth of a second."""
    sample_s = call_s * calls_per_sample(call_s)
    return max(_FEWEST_SAMPLES, min(_SAMPLES, int(_BUDGET_S / sample_s)))
