"""A scripted reward source: latencies are a function of the point, failures are injected."""

import zlib
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
import pytest

from schedenv.envs import rewards
from schedenv.envs.edit import EditEnv
from schedenv.hardware import Hardware
from schedenv.measure import Result, Status
from schedenv.space import Point
from schedenv.tasks import Task

SMALL = "gmm:1x16x16x16"


class Script:
    """What the source was asked, and what it is to answer."""

    def __init__(self) -> None:
        self.asked: list[Point] = []
        self.closed = 0
        self.fails: Callable[[Point], bool] = lambda _: False

    @staticmethod
    def latency_s(point: Point) -> float:
        """Between 1 and 2 microseconds, the same for a point always."""
        return 1e-6 * (1.0 + zlib.crc32(str(point).encode()) / 2**32)


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    """Register the reward source `scripted`; the script steers it."""
    script = Script()

    class ScriptedReward:
        def __init__(self, task: Task, hardware: Hardware) -> None:
            pass

        def baseline_s(self) -> float:
            return 4e-6

        def evaluate(self, point: Point, best_s: float | None) -> Result:
            script.asked.append(point)
            if script.fails(point):
                return Result(point=point, status=Status.BUILD_ERROR, reason="scripted")
            return Result(point=point, status=Status.OK, estimate_s=script.latency_s(point))

        def close(self) -> None:
            script.closed += 1

    monkeypatch.setitem(rewards.SOURCES, "scripted", ScriptedReward)
    return script


@pytest.fixture
def scripted_env(script: Script) -> Iterator[EditEnv]:
    """A small environment with scripted rewards."""
    env = EditEnv(SMALL, reward="scripted")
    yield env
    env.close()


@pytest.fixture(scope="module")
def measured_env() -> Iterator[gymnasium.Env[Any, Any]]:
    """A small registered environment on this machine."""
    env = gymnasium.make("schedenv/Edit-v0", task=SMALL, reward="measured", render_mode="ansi")
    yield env
    env.close()
