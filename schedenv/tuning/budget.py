"""How much a tuning run may spend, and how much it has spent."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from schedenv.errors import InputError


@dataclass
class Budget:
    """Trials and seconds; whichever ends first ends the run.

    Seconds are everything that the agent causes: its own thinking, applying, building, verifying
    and running. Starting the workers and timing the baseline come before.

    Attributes:
        trials: Candidates that may be measured; None for no limit.
        seconds: Seconds that may pass; None for no limit.
        used_trials: Candidates measured, earlier runs of a resumed one included.
        used_s: Seconds spent before this process took over.
        clock: Where the time comes from; a simulated search puts its own in, and then all seconds
            are simulated ones.

    Raises:
        InputError: No limit is given, or one that is not positive.
    """

    trials: int | None = None
    seconds: float | None = None
    used_trials: int = 0
    used_s: float = 0.0
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)
    _started_s: float | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.trials is None and self.seconds is None:
            raise InputError("a budget needs --trials, --seconds, or both; neither was given")
        if self.trials is not None and self.trials < 1:
            raise InputError(f"expected --trials of at least 1, got {self.trials}")
        # `not >` also refuses NaN.
        if self.seconds is not None and not self.seconds > 0:
            raise InputError(f"expected --seconds above 0, got {self.seconds:g}")

    def start(self) -> None:
        """Start the clock."""
        self._started_s = self.clock()

    @property
    def elapsed_s(self) -> float:
        """Seconds spent so far, earlier runs of a resumed one included."""
        running_s = 0.0 if self._started_s is None else self.clock() - self._started_s
        return self.used_s + running_s

    @property
    def exhausted(self) -> bool:
        """Whether nothing may be measured any more."""
        return (self.trials is not None and self.used_trials >= self.trials) or (
            self.seconds is not None and self.elapsed_s >= self.seconds
        )

    def clip(self, batch: int) -> int:
        """How many of `batch` candidates the trials still allow."""
        return batch if self.trials is None else min(batch, self.trials - self.used_trials)

    @property
    def remaining_s(self) -> float | None:
        """Estimated seconds until the budget ends; None if nothing can be said yet."""
        estimates = []
        if self.seconds is not None:
            estimates.append(self.seconds - self.elapsed_s)
        if self.trials is not None and self.used_trials:
            per_trial_s = self.elapsed_s / self.used_trials
            estimates.append((self.trials - self.used_trials) * per_trial_s)
        return max(0.0, min(estimates)) if estimates else None
