"""A landscape whose optimum is known, to search in."""

import math
import zlib

import numpy as np

from schedenv.measure import Result, Status, robust_estimate
from schedenv.space import Point, Space
from schedenv.tuning import Agent

TRIALS = 240


def goal(space: Space) -> Point:
    """The optimum of `distance`: a point somewhere in the middle of the space."""
    return space.sample(np.random.default_rng(99))


def distance(point: Point, goal: Point) -> float:
    """Squared distance in the logarithms of the slots; another sketch is a little further."""
    steps = sum(
        (math.log2(a + 1) - math.log2(b + 1)) ** 2
        for a, b in zip(point.values, goal.values, strict=True)
    )
    return steps + 4.0 * (point.sketch != goal.sketch)


def judged(point: Point, latency_s: float, noise: float = 0.005) -> Result:
    rng = np.random.default_rng(zlib.crc32(str(point).encode()))
    samples = tuple(float(s) for s in latency_s * (1 + noise * rng.random(10)))
    return Result(
        point=point,
        status=Status.OK,
        samples_s=samples,
        estimate_s=robust_estimate(samples),
    )


def best_distance(agent: Agent, space: Space) -> float:
    """How near to the optimum the agent comes in `TRIALS` trials."""
    target, best, trials = goal(space), math.inf, 0
    while trials < TRIALS:
        points = agent.ask(min(8, TRIALS - trials))
        assert points
        trials += len(points)
        distances = [distance(point, target) for point in points]
        best = min(best, *distances)
        agent.tell([judged(p, 1e-6 * (1 + d)) for p, d in zip(points, distances, strict=True)])
    return best


def assert_search_alike(one: Agent, other: Agent, count: int = 8) -> None:
    """Two agents ask for the same points as long as they are told the same."""
    for _ in range(3):
        points = one.ask(count)
        assert points == other.ask(count)
        for agent in (one, other):
            agent.tell([judged(point, 1e-6 * (1 + n)) for n, point in enumerate(points)])
