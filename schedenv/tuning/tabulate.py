"""From kernels timed against each other to one table: estimates, intervals, the optimum.

The speed of a shared machine drifts severalfold within seconds, so a time alone says little. All
kernels are therefore timed in groups, in turn, and every group holds the same few references: what
slows a whole round down is divided out, and the references say how the groups compare.
"""

from __future__ import annotations

import re
import statistics
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from schedenv.errors import MachineError
from schedenv.measure.result import Phases, Result, Status, robust_estimate
from schedenv.measure.table import Optimum, Row
from schedenv.space import Point
from schedenv.tuning.finalists import Timing
from schedenv.tuning.groups import Group

_SAMPLES_KEPT = 12
_REASON_LENGTH = 200


@dataclass(frozen=True)
class Estimate:
    """What is known of one candidate's time.

    Attributes:
        latency_s: The estimate, seconds a call.
        low_s: Lower end of its interval.
        high_s: Upper end of its interval.
        looks_s: One estimate a group that it was in, in the order taken.
        samples_s: A dozen samples around it.
    """

    latency_s: float
    low_s: float
    high_s: float
    looks_s: tuple[float, ...]
    samples_s: tuple[float, ...]


def estimates_of(
    groups: Sequence[Group], references: Collection[Point], final_from: int
) -> dict[Point, Estimate]:
    """Estimates of all kernels that were timed, at the speed of a good quarter of the groups.

    Args:
        groups: What was timed.
        references: Points that are in every group.
        final_from: The first turn of the finalists; whoever was in one is judged by those alone,
            because being lucky in the earlier ones is how one gets there.

    Raises:
        MachineError: A group has no reference in common with the first.
    """
    settled = [_settle(group) for group in groups]
    scales = [_scale(samples, settled[0], references) for samples in settled]
    clock = float(np.quantile(scales, 0.25)) if scales else 1.0
    looks: dict[Point, list[tuple[int, tuple[float, ...]]]] = defaultdict(list)
    for group, samples, scale in zip(groups, settled, scales, strict=True):
        for point, taken in samples.items():
            looks[point].append((group.turn, tuple(float(s) for s in taken / scale * clock)))
    return {point: _estimate(taken, final_from) for point, taken in looks.items()}


def _settle(group: Group) -> dict[Point, npt.NDArray[np.float64]]:
    """Samples by point, with the slowness that all kernels of a round share divided out."""
    samples = {Point.parse(text): np.asarray(taken) for text, taken in group.samples_s.items()}
    if not samples:
        return {}
    rounds = max(len(taken) for taken in samples.values())
    full = [point for point, taken in samples.items() if len(taken) == rounds]
    matrix = np.array([samples[point] for point in full])
    typical = np.quantile(matrix, 0.25, axis=1, keepdims=True)
    steady = matrix / np.median(matrix / typical, axis=0, keepdims=True)
    # The quartile over the rounds is kept, so that groups still differ as the machine did.
    steady *= typical / np.quantile(steady, 0.25, axis=1, keepdims=True)
    return {**samples, **dict(zip(full, steady, strict=True))}


def _scale(
    samples: Mapping[Point, npt.NDArray[np.float64]],
    first: Mapping[Point, npt.NDArray[np.float64]],
    references: Collection[Point],
) -> float:
    """How much slower the references ran in a group than in the first one: their median."""
    ratios = [
        robust_estimate(list(samples[point])) / robust_estimate(list(first[point]))
        for point in references
        if point in samples and point in first
    ]
    if not ratios:
        raise MachineError(
            "no reference kernel could be timed in one of the groups, though all had worked "
            "before; run again on a quieter machine: schedenv doctor --noise"
        )
    return statistics.median(ratios)


def _estimate(looks: Sequence[tuple[int, tuple[float, ...]]], final_from: int) -> Estimate:
    """The median look, or all samples of the final turns together."""
    each_s = [robust_estimate(samples) for _, samples in looks]
    final = [samples for turn, samples in looks if turn >= final_from]
    if final:
        pooled = Timing.of([sample for samples in final for sample in samples])
        final_s = [robust_estimate(samples) for samples in final]
        latency_s = statistics.median(final_s)
        low_s, high_s = min(pooled.low_s, *final_s), max(pooled.high_s, *final_s)
        samples_s = pooled.samples_s
    else:
        latency_s = statistics.median(each_s)
        low_s, high_s = min(each_s), max(each_s)
        samples_s = min(looks, key=lambda look: abs(robust_estimate(look[1]) - latency_s))[1]
    return Estimate(latency_s, low_s, high_s, tuple(each_s), _thinned(samples_s))


Looks = Mapping[Point, Sequence[Result]]
"""For each point that was measured, its results, the last one decisive."""


def make_rows(
    points: Sequence[Point],
    representative: Callable[[Point], Point],
    looks: Looks,
    estimates: Mapping[Point, Estimate],
    finalists: Collection[Point],
) -> list[Row]:
    """One row a point; points of one program, or of equal code, get the same numbers.

    Args:
        points: All points, in the order of the rows.
        representative: The point of the same program that was measured.
        looks: Results of the points that were measured.
        estimates: Of those that are ok.
        finalists: Those that were timed against each other.
    """
    leader = leaders(looks)
    rows = []
    for point in points:
        measured = representative(point)
        own, shared = looks[measured], leader[measured]
        results = looks[shared]
        status, reason = results[-1].status, results[-1].reason
        estimate = estimates.get(shared) if status is Status.OK else None
        if status is Status.OK and estimate is None:
            status, reason = Status.RUN_ERROR, "worked once, but not when it was timed again"
        errors = [r.max_error for r in results if r.max_error is not None]
        rows.append(
            Row(
                point=point,
                status=status,
                reason=None if status is Status.OK else plain_reason(reason or status.value),
                program=next((r.program for r in own if r.program is not None), None),
                code=next((r.code for r in own if r.code is not None), None),
                samples_s=estimate.samples_s if estimate else (),
                estimate_s=estimate.latency_s if estimate else None,
                low_s=estimate.low_s if estimate else None,
                high_s=estimate.high_s if estimate else None,
                looks_s=estimate.looks_s if estimate else (),
                max_error=max(errors, default=None),
                phases=_typical_phases(results),
                finalist=shared in finalists,
            )
        )
    return rows


def find_optimum(rows: Sequence[Row]) -> Optimum | None:
    """The fastest row and those that may be as fast; None if no row is ok."""
    timed = sorted(
        (row for row in rows if row.estimate_s is not None),
        key=lambda row: (row.estimate_s or 0.0, row.point),
    )
    if not timed:
        return None
    best = timed[0]
    ties = [row for row in timed if (row.low_s or 0.0) <= (best.high_s or 0.0)]
    return Optimum(
        str(best.point),
        best.estimate_s or 0.0,
        best.finalist,
        tuple(str(row.point) for row in ties),
    )


def plain_reason(reason: str) -> str:
    """A reason's first line, without folders of the machine and without control characters."""
    line = next((line for line in reason.splitlines() if line.strip()), "")
    line = re.sub(r"(?:/[\w.+-]+)+/(?=[\w.+-])", "", line)
    return "".join(letter if letter.isprintable() else " " for letter in line)[:_REASON_LENGTH]


def leaders(looks: Looks) -> dict[Point, Point]:
    """For each measured point the one whose numbers it shares: one of equal code that was built."""
    by_code: dict[str, Point] = {}
    fresh_first = sorted(looks, key=lambda point: (looks[point][0].repeated, point))
    return {
        point: by_code.setdefault(looks[point][-1].code or f"none but {point}", point)
        for point in fresh_first
    }


def _typical_phases(results: Sequence[Result]) -> Phases:
    """What measuring the candidate took: the first time that it was built."""
    return next((result.phases for result in results if not result.repeated), results[0].phases)


def _thinned(samples_s: Sequence[float]) -> tuple[float, ...]:
    """A dozen of the samples, evenly spread over their ranks: small files, the same quartile."""
    if len(samples_s) <= _SAMPLES_KEPT:
        return tuple(samples_s)
    quantiles = np.linspace(0, 1, _SAMPLES_KEPT)
    return tuple(float(s) for s in np.quantile(np.asarray(samples_s), quantiles))
