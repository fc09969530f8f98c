"""What steps pay, for many environments at once; names and meanings as of the single ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from schedenv.envs.vector_source import Doubles
from schedenv.errors import InputError


@dataclass(frozen=True)
class VectorScheme:
    """Pays for steps and for the ends of episodes; penalties come on top.

    Attributes:
        step: For steps, given seconds before and after (equal ones where the agent stayed) and
            those of the untuned program, all of shape (n,).
        end: Once more at the end, given the last point's seconds and the untuned program's.
    """

    step: Callable[[Doubles, Doubles, Doubles], Doubles]
    end: Callable[[Doubles, Doubles], Doubles]


def make_vector_scheme(name: str, discount: float) -> VectorScheme:
    """A scheme by name.

    Args:
        name: `log_ratio` (the log speed-up of the step), `relative` (before / after - 1, HARL),
            `terminal` (the log speed-up over the untuned program, at the end) or `shaped`
            (`terminal` with potential-based shaping, Ng, Harada and Russell, ICML 1999).
        discount: The learner's, for `shaped`; above 0 and up to 1.

    Raises:
        InputError: No such scheme, or no such discount.
    """
    if not 0.0 < discount <= 1.0:
        raise InputError(f"expected a discount above 0 and up to 1, got {discount}")

    def potential(seconds: Doubles, baseline_s: Doubles) -> Doubles:
        gain: Doubles = np.log(baseline_s / seconds)
        return gain

    known = {
        "log_ratio": VectorScheme(lambda b, a, _: potential(a, b), lambda a, _: np.zeros_like(a)),
        "relative": VectorScheme(lambda b, a, _: b / a - 1.0, lambda a, _: np.zeros_like(a)),
        "shaped": VectorScheme(
            lambda b, a, base: discount * potential(a, base) - potential(b, base),
            lambda a, base: (1.0 - discount) * potential(a, base),
        ),
        "terminal": VectorScheme(lambda _, a, __: np.zeros_like(a), potential),
    }
    if name not in known:
        raise InputError(f"expected scheme to be one of {list(known)}, got {name!r}")
    return known[name]
