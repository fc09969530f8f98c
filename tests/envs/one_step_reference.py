"""`Edit-v0` on a recorded table, one environment, one step, one dictionary at a time.

Written from the contract with `SearchSpace`, `EditActions` and `KnobObservation`, to hold the
vector environment against.
"""

import math
from typing import Any

import numpy as np
from gymnasium.utils import seeding

from schedenv.envs import MAX_STEPS
from schedenv.envs.actions import STOP, EditActions
from schedenv.envs.layout import Layout
from schedenv.envs.observations import KnobObservation, Observation
from schedenv.measure.table import Row, Table
from schedenv.space import Point
from schedenv.tasks import resolve

ATTEMPTS = 20


class OneStepReference:
    """What `reset` and `step` of one environment return."""

    def __init__(self, table: Table, max_steps: int = MAX_STEPS) -> None:
        self.table = table
        self.space = table.space()
        self.task = resolve(table.info.task.spec)
        self.actions = EditActions(Layout())
        self.observe = KnobObservation(Layout())
        self.max_steps = max_steps

    def reset(self, seed: int | None = None) -> tuple[Observation, dict[str, Any]]:
        if seed is not None:
            self.rng, _ = seeding.np_random(seed)
        self.steps = self.trials = 0
        self.spent_s = 0.0
        for _ in range(ATTEMPTS):
            self.here = self.look_up(self.space.sample(self.rng))
            if self.here.estimate_s is not None:
                self.best_s = self.here.estimate_s
                return self.observation(), self.info()
        raise AssertionError("no start")

    def step(self, action: int) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        truncated = self.steps >= self.max_steps
        if action == STOP:
            return self.observation(), 0.0, True, False, self.info()
        move = self.actions.move(self.space, self.here.point, action)
        if move is None:
            info = self.info(illegal=True)
            return self.observation(), -0.1, False, truncated, info
        there = self.look_up(move.apply(self.here.point))
        reward = -1.0
        if there.estimate_s is not None:
            assert self.here.estimate_s is not None
            reward = math.log(self.here.estimate_s / there.estimate_s)
            self.here = there
            self.best_s = min(self.best_s, there.estimate_s)
        info = self.info(there.status.value, there.reason)
        return self.observation(), reward, False, truncated, info

    def mask(self) -> np.ndarray[Any, Any]:
        return self.actions.mask(self.space, self.here.point)

    def observation(self) -> Observation:
        return self.observe.build(
            self.task,
            self.space,
            self.table.info.hardware,
            self.here.point,
            max(0.0, 1.0 - self.steps / self.max_steps),
            (self.table.info.untuned_s / self.latency_s, self.table.info.untuned_s / self.best_s),
        )

    def look_up(self, point: Point) -> Row:
        row = self.table.by_point[point]
        self.trials += 1
        self.spent_s += row.phases.total_s
        return row

    def info(
        self, status: str = "ok", reason: str | None = None, *, illegal: bool = False
    ) -> dict[str, Any]:
        return {
            "task": self.table.info.task.name,
            "status": status,
            "reason": reason,
            "illegal": illegal,
            "point": str(self.here.point),
            "latency_us": self.latency_s * 1e6,
            "speedup": self.table.info.untuned_s / self.latency_s,
            "gflops_per_s": self.table.info.task.flops / self.latency_s / 1e9,
            "peak_fraction": None,
            "best_us": self.best_s * 1e6,
            "regret": self.best_s / self.table.optimum_s - 1.0,
            "optimum_fraction": self.table.optimum_s / self.best_s,
            "trials": self.trials,
            "seconds": self.spent_s,
        }

    @property
    def latency_s(self) -> float:
        assert self.here.estimate_s is not None
        return self.here.estimate_s
