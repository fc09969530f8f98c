"""What steps of `Edit-v0` pay, given the latencies before and after them.

Every scheme takes one environment's numbers or arrays of many environments'.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from schedenv.errors import InputError

Seconds = float | npt.NDArray[np.float64]
Pay = float | npt.NDArray[np.float64]


def log_speedup(before_s: Seconds, after_s: Seconds) -> Pay:
    """Log speed-up of one step; over an episode these add up to log(first / last)."""
    gain: Pay = np.log(before_s / after_s)
    return gain


class Scheme(Protocol):
    """Pays for steps and for the end of an episode; penalties come on top."""

    def step(self, before_s: Seconds, after_s: Seconds, baseline_s: Seconds) -> Pay:
        """For a step from one latency to another; equal ones where the agent stayed."""
        ...

    def end(self, last_s: Seconds, baseline_s: Seconds) -> Pay:
        """Once more, for the episode's last point, at STOP or when the steps run out."""
        ...


@dataclass(frozen=True)
class LogRatio:
    """The log speed-up of each step; the return is the log speed-up over the start."""

    def step(self, before_s: Seconds, after_s: Seconds, baseline_s: Seconds) -> Pay:
        """ln(before / after)."""
        del baseline_s
        return log_speedup(before_s, after_s)

    def end(self, last_s: Seconds, baseline_s: Seconds) -> Pay:
        """Nothing."""
        del baseline_s
        return np.zeros_like(last_s)


@dataclass(frozen=True)
class Relative:
    """The relative change of performance of each step, HARL's reward (Zhang et al., ICPP 2022).

    It is not a difference of potentials: going up and down again pays. Kept for comparisons.
    """

    def step(self, before_s: Seconds, after_s: Seconds, baseline_s: Seconds) -> Pay:
        """What before / after exceeds 1 by: the change of 1 / latency in parts of what it was."""
        del baseline_s
        return before_s / after_s - 1.0

    def end(self, last_s: Seconds, baseline_s: Seconds) -> Pay:
        """Nothing."""
        del baseline_s
        return np.zeros_like(last_s)


@dataclass(frozen=True)
class Terminal:
    """Nothing until the end, then the log speed-up of the last point over the untuned program."""

    def step(self, before_s: Seconds, after_s: Seconds, baseline_s: Seconds) -> Pay:
        """Nothing."""
        del before_s, baseline_s
        return np.zeros_like(after_s)

    def end(self, last_s: Seconds, baseline_s: Seconds) -> Pay:
        """ln(baseline / last)."""
        return log_speedup(baseline_s, last_s)


@dataclass(frozen=True)
class Shaped:
    """`Terminal` with potential-based shaping, which does not change the best policy.

    The potential is ln(baseline / latency), 0 after the end (Ng, Harada and Russell, ICML 1999).

    Attributes:
        discount: The learner's; another one loses the guarantee.
    """

    discount: float = 0.99

    def step(self, before_s: Seconds, after_s: Seconds, baseline_s: Seconds) -> Pay:
        """The discounted potential after the step less the one before."""
        return self.discount * log_speedup(baseline_s, after_s) - log_speedup(baseline_s, before_s)

    def end(self, last_s: Seconds, baseline_s: Seconds) -> Pay:
        """The terminal reward, less the potential that the last step has paid."""
        return (1.0 - self.discount) * log_speedup(baseline_s, last_s)


SCHEMES = ("log_ratio", "relative", "shaped", "terminal")


def make_scheme(name: str, discount: float) -> Scheme:
    """A scheme by name.

    Args:
        name: One of `SCHEMES`.
        discount: For `shaped`, above 0 and up to 1.

    Raises:
        InputError: No such scheme, or no such discount.
    """
    if not 0.0 < discount <= 1.0:
        raise InputError(f"expected a discount above 0 and up to 1, got {discount}")
    match name:
        case "log_ratio":
            return LogRatio()
        case "relative":
            return Relative()
        case "terminal":
            return Terminal()
        case "shaped":
            return Shaped(discount)
        case _:
            raise InputError(f"expected scheme to be one of {list(SCHEMES)}, got {name!r}")
