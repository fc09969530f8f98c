"""What tests of measurers share: distinct points, those of equal code, and living processes."""

import time
from collections.abc import Callable, Iterator

import numpy as np
import psutil

from schedenv import hardware as hw
from schedenv import tvm_adapter, tvm_lowering
from schedenv.errors import ConstraintError
from schedenv.space import Point, Space


def points_of(space: Space, count: int, seed: int = 0) -> list[Point]:
    """Distinct points."""
    rng = np.random.default_rng(seed)
    found: dict[Point, None] = {}
    while len(found) < count:
        found[space.sample(rng)] = None
    return list(found)


def points_of_equal_code(space: Space) -> Iterator[tuple[Point, Point]]:
    """Pairs of neighbours with other programs that lower to the same code."""
    for point in points_of(space, 50):
        for other in space.neighbours(point):
            if space.canonical(point) != space.canonical(other) and (
                code_of(space, point) == code_of(space, other) is not None
            ):
                yield point, other


def code_of(space: Space, point: Point) -> str | None:
    """What a point lowers to; None if it cannot be applied."""
    try:
        mod = space.apply(point).mod
    except ConstraintError:
        return None
    return tvm_lowering.code_hash(tvm_adapter.lower(mod, hw.target(hw.detect())))


def family_of(pid: int) -> set[int]:
    """All living descendants of a process."""
    return {child.pid for child in psutil.Process(pid).children(recursive=True)}


def is_running(pid: int) -> bool:
    """Whether the process lives; one that is dead and not yet reaped does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until(condition: Callable[[], bool], limit_s: float = 60.0) -> bool:
    end_s = time.monotonic() + limit_s
    while time.monotonic() < end_s:
        if condition():
            return True
        time.sleep(0.05)
    return condition()
