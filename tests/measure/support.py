"""What tests of measurers share: distinct points, and living processes."""

import time
from collections.abc import Callable

import numpy as np
import psutil

from schedenv.space import Point, Space


def points_of(space: Space, count: int, seed: int = 0) -> list[Point]:
    """Distinct points."""
    rng = np.random.default_rng(seed)
    found: dict[Point, None] = {}
    while len(found) < count:
        found[space.sample(rng)] = None
    return list(found)


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
