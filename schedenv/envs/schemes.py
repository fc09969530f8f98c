"""What a step of `Edit-v0` pays, given the latencies before and after it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from schedenv.envs.rewards import step_reward
from schedenv.errors import InputError


class Scheme(Protocol):
    """Pays for steps and for the end of an episode; penalties come on top."""

    def step(self, before_s: float, after_s: float, baseline_s: float) -> float:
        """For a step from one latency to another; equal ones where the agent stayed."""
        ...

    def end(self, last_s: float, baseline_s: float) -> float:
        """Once more, for the episode's last point, at STOP or when the steps run out."""
        ...


@dataclass(frozen=True)
class LogRatio:
    """The log speed-up of each step; the return is the log speed-up over the start."""

    def step(self, before_s: float, after_s: float, baseline_s: float) -> float:
        """ln(before / after)."""
        del baseline_s
        return step_reward(before_s, after_s)

    def end(self, last_s: float, baseline_s: float) -> float:
        """Nothing."""
        del last_s, baseline_s
        return 0.0


@dataclass(frozen=True)
class Relative:
    """The relative change of performance of each step, HARL's reward (Zhang et al., ICPP 2022).

    It is not a difference of potentials: going up and down again pays. Kept for comparisons.
    """

    def step(self, before_s: float, after_s: float, baseline_s: float) -> float:
        """What before / after exceeds 1 by: the change of 1 / latency in parts of what it was."""
        del baseline_s
        return before_s / after_s - 1.0

    def end(self, last_s: float, baseline_s: float) -> float:
        """Nothing."""
        del last_s, baseline_s
        return 0.0


@dataclass(frozen=True)
class Terminal:
    """Nothing until the end, then the log speed-up of the last point over the untuned program."""

    def step(self, before_s: float, after_s: float, baseline_s: float) -> float:
        """Nothing."""
        del before_s, after_s, baseline_s
        return 0.0

    def end(self, last_s: float, baseline_s: float) -> float:
        """ln(baseline / last)."""
        return math.log(baseline_s / last_s)


@dataclass(frozen=True)
class Shaped:
    """`Terminal` with potential-based shaping, which does not change the best policy.

    The potential is ln(baseline / latency), 0 after the end (Ng, Harada and Russell, ICML 1999).

    Attributes:
        discount: The learner's; another one loses the guarantee.
    """

    discount: float = 0.99

    def step(self, before_s: float, after_s: float, baseline_s: float) -> float:
        """The discounted potential after the step less the one before."""
        return self.discount * math.log(baseline_s / after_s) - math.log(baseline_s / before_s)

    def end(self, last_s: float, baseline_s: float) -> float:
        """The terminal reward, less the potential that the last step has paid."""
        return (1.0 - self.discount) * math.log(baseline_s / last_s)


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
