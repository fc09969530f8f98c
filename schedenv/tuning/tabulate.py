"""From several looks at every candidate to one table: estimates, intervals, the optimum.

The machine's speed drifts, so a look is compared with the other looks of its pass only: the passes
are scaled to each other, and to the candidates that were timed against each other at the end, by
rivals from the middle of the field, which were not chosen for being fast.
"""

from __future__ import annotations

import math
import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from schedenv.measure.result import Phases, Result, Status, robust_estimate
from schedenv.measure.table import Optimum, Row
from schedenv.space import Point
from schedenv.tuning.finalists import Timing

Looks = Mapping[Point, Sequence[Result]]
"""For each point that was measured, its results, one a pass."""

_SAMPLES_KEPT = 12
_REASON_LENGTH = 200
_FEWEST_ANCHORS = 5


@dataclass(frozen=True)
class Estimate:
    """What is known of one candidate's time.

    Attributes:
        latency_s: The estimate, seconds a call.
        low_s: Lower end of its interval.
        high_s: Upper end of its interval.
        looks_s: The estimates it was made from, in the order taken.
        samples_s: A dozen samples around it.
    """

    latency_s: float
    low_s: float
    high_s: float
    looks_s: tuple[float, ...]
    samples_s: tuple[float, ...]

    def times(self, factor: float) -> Estimate:
        """The same with every time multiplied."""
        return Estimate(
            self.latency_s * factor,
            self.low_s * factor,
            self.high_s * factor,
            tuple(look_s * factor for look_s in self.looks_s),
            tuple(sample_s * factor for sample_s in self.samples_s),
        )


def pass_scales(looks: Looks, passes: int) -> list[float]:
    """What the estimates of each pass must be divided by to be comparable.

    Within a pass the measurer compares every candidate with its incumbent, so all its estimates
    are off by the same factor if the incumbent was first timed in a slow moment. Passes are
    compared by the candidates that were timed in all of them: their median.
    """
    common = [
        [math.log(result.estimate_s) for result in results if result.estimate_s is not None]
        for results in looks.values()
        if all(result.ok and not result.repeated for result in results)
    ]
    logs = np.array([row for row in common if len(row) == passes])
    if not len(logs):
        return [1.0] * passes
    relative = logs - logs.mean(axis=1, keepdims=True)
    return [float(scale) for scale in np.exp(np.median(relative, axis=0))]


def estimates_of(looks: Looks, scales: Sequence[float]) -> dict[Point, Estimate]:
    """The estimates of all candidates that are ok: the median look, scaled."""
    found = {}
    for point, results in looks.items():
        timed = [
            (result.estimate_s / scale, result, scale)
            for result, scale in zip(results, scales, strict=True)
            if result.estimate_s is not None
        ]
        if status_of(results) is not Status.OK or not timed:
            continue
        looks_s = tuple(estimate_s for estimate_s, _, _ in timed)
        latency_s, result, scale = sorted(timed, key=lambda look: look[0])[(len(timed) - 1) // 2]
        samples_s = _thinned([sample_s / scale for sample_s in result.corrected_s])
        found[point] = Estimate(latency_s, min(looks_s), max(looks_s), looks_s, samples_s)
    return found


def status_of(results: Sequence[Result]) -> Status:
    """How a candidate ends in most of its looks; among equals, not OK."""
    counts = Counter(result.status for result in results)
    return max(counts, key=lambda status: (counts[status], status is not Status.OK))


def settle_final_turn(
    compared: Sequence[tuple[Result, Sequence[float]]],
    estimates: Mapping[Point, Estimate],
    anchors: Iterable[Point],
) -> tuple[dict[Point, list[float]], float]:
    """Samples of kernels that were timed in turn, comparable with the estimates known before.

    What slows a whole round down is divided out, then the anchors' estimates give the scale.

    Args:
        compared: For each kernel its result and its samples, one a round.
        estimates: What is known of them.
        anchors: Kernels that were not chosen for being fast; if they are few, all are asked.

    Returns:
        Samples by point, divided by the scale, points that failed or missed rounds left out; and
        the scale: how many seconds of the clock a second of the estimates is.
    """
    rounds = max((len(samples) for _, samples in compared), default=0)
    full = {
        result.point: np.asarray(samples)
        for result, samples in compared
        if rounds and len(samples) == rounds
    }
    if not full:
        return {}, 1.0
    matrix = np.array(list(full.values()))
    typical = np.quantile(matrix, 0.25, axis=1, keepdims=True)
    steady = matrix / np.median(matrix / typical, axis=0, keepdims=True)
    settled = dict(zip(full, steady, strict=True))
    chosen = [point for point in anchors if point in settled]
    if len(chosen) < _FEWEST_ANCHORS:
        chosen = list(settled)
    scale = statistics.median(
        robust_estimate(settled[point]) / estimates[point].latency_s for point in chosen
    )
    return {p: [float(s) for s in samples / scale] for p, samples in settled.items()}, scale


def with_final_turns(
    estimates: Mapping[Point, Estimate], turns: Sequence[Mapping[Point, Sequence[float]]]
) -> dict[Point, Estimate]:
    """The estimates of the finalists replaced by what the final turns say; the others kept."""
    improved = dict(estimates)
    for point in dict.fromkeys(point for turn in turns for point in turn):
        taken = [turn[point] for turn in turns if point in turn]
        each_s = tuple(robust_estimate(samples) for samples in taken)
        pooled = Timing.of([sample for samples in taken for sample in samples])
        improved[point] = Estimate(
            pooled.latency_s,
            min(pooled.low_s, pooled.latency_s, *each_s),
            max(pooled.high_s, pooled.latency_s, *each_s),
            (*estimates[point].looks_s, *each_s),
            _thinned(pooled.samples_s),
        )
    return improved


def make_rows(
    points: Sequence[Point],
    representative: Callable[[Point], Point],
    looks: Looks,
    estimates: Mapping[Point, Estimate],
    finalists: Iterable[Point],
) -> list[Row]:
    """One row a point; points of one program, or of equal code, get the same numbers.

    Args:
        points: All points, in the order of the rows.
        representative: The point of the same program that was measured.
        looks: Results of the points that were measured.
        estimates: Of those that are ok.
        finalists: Those that were timed against each other.
    """
    leader = _leaders(looks, estimates)
    final = set(finalists)
    rows = []
    for point in points:
        measured = representative(point)
        own, shared = looks[measured], leader[measured]
        results = looks[shared]
        status = status_of(results)
        estimate = estimates.get(shared) if status is Status.OK else None
        reasons = [r.reason for r in results if r.status is status and r.reason]
        errors = [r.max_error for r in results if r.max_error is not None]
        rows.append(
            Row(
                point=point,
                status=status,
                reason=None if status is Status.OK else plain_reason([*reasons, status.value][0]),
                program=next((r.program for r in own if r.program is not None), None),
                code=next((r.code for r in own if r.code is not None), None),
                samples_s=estimate.samples_s if estimate else (),
                estimate_s=estimate.latency_s if estimate else None,
                low_s=estimate.low_s if estimate else None,
                high_s=estimate.high_s if estimate else None,
                looks_s=estimate.looks_s if estimate else (),
                max_error=max(errors, default=None),
                phases=_typical_phases(results),
                finalist=shared in final,
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


def _leaders(looks: Looks, estimates: Mapping[Point, Estimate]) -> dict[Point, Point]:
    """For each measured point the one whose numbers it shares: the first of equal code."""
    by_code: dict[str, list[Point]] = defaultdict(list)
    for point, results in looks.items():
        if results[0].code is not None:
            by_code[results[0].code].append(point)
    leaders = {point: point for point in looks}
    for twins in by_code.values():
        # One that was measured in most of the passes, rather than answered from its twin.
        fresh = max(
            twins,
            key=lambda p: (len(estimates[p].looks_s) if p in estimates else 0, _fresh(looks[p])),
        )
        leaders.update(dict.fromkeys(twins, fresh))
    return leaders


def _fresh(results: Sequence[Result]) -> int:
    return sum(not result.repeated for result in results)


def _typical_phases(results: Sequence[Result]) -> Phases:
    """What measuring the candidate took: the median of its looks, phase by phase."""
    fresh = [result for result in results if not result.repeated] or list(results)
    table = [msgspec.structs.astuple(result.phases) for result in fresh]
    return Phases(*(statistics.median(column) for column in zip(*table, strict=True)))


def _thinned(samples_s: Sequence[float]) -> tuple[float, ...]:
    """A dozen of the samples, evenly spread over their ranks: small files, the same quartile."""
    if len(samples_s) <= _SAMPLES_KEPT:
        return tuple(samples_s)
    quantiles = np.linspace(0, 1, _SAMPLES_KEPT)
    return tuple(float(s) for s in np.quantile(np.asarray(samples_s), quantiles))
