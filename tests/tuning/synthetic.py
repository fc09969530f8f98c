"""Measurements computed from the point: as deterministic as real ones are not."""

import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from msgspec.structs import replace

from schedenv.measure import Result, Status, robust_estimate
from schedenv.space import Point, Space


def spread(point: Point, latency_s: float) -> tuple[float, ...]:
    """Ten samples around a latency, half a percent apart at most, the same ones every time."""
    rng = np.random.default_rng(zlib.crc32(str(point).encode()))
    return tuple(float(latency_s * (1 + 0.005 * draw)) for draw in rng.random(10))


def ok(point: Point, latency_s: float) -> Result:
    samples = spread(point, latency_s)
    return Result(
        point=point,
        status=Status.OK,
        samples_s=samples,
        estimate_s=robust_estimate(samples),
    )


@dataclass
class SteadyKernel:
    """A loaded kernel that always takes the same."""

    result: Result
    each_s: float

    def sample_s(self) -> float:
        return self.each_s


def failed(point: Point) -> Result:
    return Result(point=point, status=Status.BUILD_ERROR, reason="as scripted")


def bowl(point: Point) -> float:
    """Convex in the logarithms of all slots, with its optimum at 2 everywhere."""
    return 1e-6 * (1 + sum(math.log2(1 + abs(v)) ** 2 for v in point.values))


class ScriptedMeasurer:
    """Stands for the machine: results from a function, in the order asked, all remembered.

    Attributes:
        judge: The result of a point.
        measured: Points that were new to it.
        incumbents_s: What each call of `measure` was told.
    """

    def __init__(self, space: Space, judge: Callable[[Point], Result] | None = None) -> None:
        self.judge = judge or (lambda point: ok(point, bowl(point)))
        self.measured: list[Point] = []
        self.incumbents_s: list[float | None] = []
        self._space = space
        self._known: dict[str, Result] = {}

    def measure(
        self,
        points: Sequence[Point],
        incumbent_s: float | None = None,
        on_result: Callable[[Result], None] | None = None,
    ) -> list[Result]:
        self.incumbents_s.append(incumbent_s)
        return [self._measure(point, on_result) for point in points]

    def remember(self, results: Sequence[Result]) -> None:
        self._known.update((result.canonical, result) for result in results)

    def close(self) -> None:
        pass

    def _measure(self, point: Point, on_result: Callable[[Result], None] | None) -> Result:
        form = self._space.canonical(point)
        if form in self._known:
            return replace(self._known[form], point=point, repeated=True)
        program = None if form.startswith("refused") else form
        result = replace(self.judge(point), program=program)
        self.measured.append(point)
        self._known[form] = result
        if on_result is not None:
            on_result(result)
        return result
