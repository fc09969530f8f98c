"""Measured data as cost models get it, with times that follow a rule which can be learned."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from schedenv.costmodel import TaskData, TrainingData
from schedenv.hardware import Hardware
from schedenv.measure import Result, Status
from schedenv.space import Point, SearchSpace, Space
from schedenv.space.knobs import TileKnob
from schedenv.tasks import resolve

TASKS = ("gmm:1x32x32x32", "gmm:1x64x48x32", "gmm:1x96x32x64", "c1d:1x32x16x16x3x1x1")

POINTS = 40


def latency_s(space: SearchSpace, point: Point) -> float:
    """A time that depends on knobs by role alone, so that it carries over between tasks.

    Short inner loops, no threads and no vectors cost, as on a machine; nothing else matters.
    """
    sketch = space.sketches[point.sketch]
    cost = 0.0
    for knob in sketch.knobs:
        values = point.values[knob.start : knob.start + knob.width]
        if isinstance(knob, TileKnob):
            cost += 0.3 * abs(math.log2(values[-1]) - 3) / (1 + knob.is_reduction)
        elif knob.name == "parallel":
            cost += 0.7 * (values[0] == 0)
        elif knob.name == "vectorize":
            cost += 0.9 * (values[0] == 0)
    return 1e-6 * math.exp(cost)


def result(space: SearchSpace, point: Point) -> Result:
    """The result of a point; some points fail."""
    if sum(point.values) % 17 == 0:
        return Result(point=point, status=Status.WRONG_RESULT, reason="as scripted")
    return Result(point=point, status=Status.OK, estimate_s=latency_s(space, point))


@pytest.fixture(scope="session")
def data(hardware: Hardware, space_of: Callable[[str], Space]) -> TrainingData:
    """Some points of each of four small tasks."""
    entries = []
    for spec in TASKS:
        space, rng = space_of(spec), np.random.default_rng(0)
        points = [space.sample(rng) for _ in range(POINTS)]
        entries.append(TaskData.of(resolve(spec), space, [result(space, p) for p in points]))
    return TrainingData.of(hardware, entries)
