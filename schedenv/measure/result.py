"""What a measurement returns: one `Result` a point, always, with a status and a reason."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import msgspec
import numpy as np

from schedenv.space.point import Point


class Status(StrEnum):
    """How the measurement of a candidate ended. Failure is data, never a sentinel time."""

    OK = "ok"
    CONSTRAINT = "constraint"
    BUILD_ERROR = "build_error"
    BUILD_TIMEOUT = "build_timeout"
    RUN_ERROR = "run_error"
    RUN_TIMEOUT = "run_timeout"
    CRASH = "crash"
    WRONG_RESULT = "wrong_result"
    NOISY = "noisy"
    CANCELLED = "cancelled"


class Phases(msgspec.Struct, frozen=True):
    """Seconds that one candidate spent in each phase; 0 for a phase that it did not reach."""

    apply_s: float = 0.0
    build_s: float = 0.0
    jit_s: float = 0.0
    verify_s: float = 0.0
    run_s: float = 0.0

    @property
    def total_s(self) -> float:
        """The sum of all phases."""
        return self.apply_s + self.build_s + self.jit_s + self.verify_s + self.run_s

    def __add__(self, other: Phases) -> Phases:
        """Both together, phase by phase."""
        pairs = zip(msgspec.structs.astuple(self), msgspec.structs.astuple(other), strict=True)
        return Phases(*(mine + theirs for mine, theirs in pairs))


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of measuring one point.

    Attributes:
        point: What was measured.
        status: How it ended.
        reason: Why, in words; None when `status` is OK.
        samples_s: Every timed sample, seconds a call, as the clock gave it, in the order taken.
        drifts: For each sample, what it is divided by. Empty but in records of earlier versions,
            which divided by the slowdown of another candidate (`runs/drift.md` says why no more).
        slowdowns: How much slower than undisturbed the reference kernel was just before and after
            the samples were taken, one for each sequence of samples; shows how busy the machine
            was.
        counted: For each sample, whether the estimate comes from it: the look that a candidate was
            chosen by does not count beside later ones, nor disturbed ones beside calm ones. Empty
            if all do.
        estimate_s: `robust_estimate` of the samples that count; of a candidate close to the
            fastest one, the median over several turns. None unless `status` is OK.
        early_stopped: Whether timing stopped early because the candidate was clearly slower than
            the fastest one; the estimate is then rough.
        max_error: Largest deviation from the reference in units of what is tolerated; None if
            the candidate was not verified.
        program: Structural hash of the scheduled program; None if it could not be applied.
        code: Hash of what the program lowers to; None if it could not be lowered.
        phases: Where the time went.
        repeated: Whether this is the known result of an equal program or of equal code, not a
            new measurement.
    """

    point: Point
    status: Status
    reason: str | None = None
    samples_s: tuple[float, ...] = ()
    drifts: tuple[float, ...] = ()
    slowdowns: tuple[float, ...] = ()
    counted: tuple[bool, ...] = ()
    estimate_s: float | None = None
    early_stopped: bool = False
    max_error: float | None = None
    program: str | None = None
    code: str | None = None
    phases: Phases = Phases()
    repeated: bool = False

    @property
    def ok(self) -> bool:
        """Whether the candidate was verified and timed."""
        return self.status is Status.OK

    @property
    def canonical(self) -> str:
        """Canonical form of the point, as `schedenv.space.Space.canonical` gives it."""
        return self.program or f"refused {self.point}"

    @property
    def corrected_s(self) -> tuple[float, ...]:
        """The samples that count, divided by `drifts` if there are any."""
        drifts = self.drifts or (1.0,) * len(self.samples_s)
        counted = self.counted or (True,) * len(self.samples_s)
        taken = zip(self.samples_s, drifts, counted, strict=True)
        return tuple(sample_s / drift for sample_s, drift, counts in taken if counts)


def robust_estimate(samples_s: Sequence[float]) -> float:
    """The lower quartile of the samples, in seconds.

    Noise on a shared machine only ever adds time, in bursts that often hit more than half of the
    samples; the median is then a sample of the noise. The minimum would reward luck with the
    number of samples.
    """
    return float(np.quantile(np.asarray(samples_s), 0.25))
