"""A trained policy as an agent: it walks through the space as it learned to, and asks for points.

Several tracks go side by side, as in the environment that the policy was trained in, but every
step to a point that is not known yet is a measurement. Before the first, and at the start of every
new episode, nothing is known that could guide it: the policy then walks with the features of its
progress at zero, and the point where that walk ends is measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from schedenv.envs.actions import STOP, EditActions
from schedenv.envs.layout import Layout
from schedenv.envs.observations import KnobObservation
from schedenv.errors import InputError
from schedenv.measure.result import Result
from schedenv.space import Point, SearchSpace
from schedenv.training.checkpoint import TrainedPolicy, load_policy
from schedenv.training.trainer import find_trainer
from schedenv.tuning.agent import Agent, Create, TuningContext

TRACKS = 4
_FREE_STEPS = 256
"""Steps between known points, which cost nothing, before an agent gives up finding a new one."""


def checkpoint_agent(folder: Path) -> Create:
    """The agent of a checkpoint: what its trainer makes of it.

    Raises:
        CheckpointError: The checkpoint cannot be used.
    """
    return trained_agent(load_policy(folder))


def trained_agent(trained: TrainedPolicy) -> Create:
    """The agent of a policy that is at hand.

    Raises:
        UnknownNameError: Its trainer is not installed.
    """
    trainer = find_trainer(trained.info.agent)

    def create(space: SearchSpace, seed: int, context: TuningContext | None) -> Agent:
        if context is None:
            raise InputError(
                "an agent from a checkpoint needs the task and the hardware; pass context="
                "TuningContext(task, hardware, untuned_s)"
            )
        return trainer.make_agent(trained, space, seed, context)

    return create


@dataclass
class _Track:
    """One episode that is going on.

    Attributes:
        point: Where it stands.
        best: The best speed-up in the episode.
        steps: Steps taken.
    """

    point: Point
    best: float
    steps: int = 0


class PolicyAgent:
    """Walks with a policy and measures where it goes.

    Args:
        trained: The policy.
        space: The task's points.
        seed: Of the starts and of the draws from the policy's distribution.
        context: The task, the machine, and the untuned program's latency.
        tracks: Episodes side by side.

    Raises:
        InputError: The task does not fit into the layout that the policy was trained with.
    """

    def __init__(
        self,
        trained: TrainedPolicy,
        space: SearchSpace,
        seed: int,
        context: TuningContext,
        tracks: int = TRACKS,
    ) -> None:
        layout = Layout.of(dict(trained.info.spaces.layout))
        layout.check(space, context.task.name)
        self._policy, self._most_steps = trained.policy, trained.info.max_steps
        self._space, self._context = space, context
        self._actions, self._observation = EditActions(layout), KnobObservation(layout)
        self._rng = np.random.default_rng(seed)
        self._speedups: dict[Point, float] = {}
        self._tracks: list[_Track | None] = [None] * tracks
        self._asked_by: dict[Point, list[int]] = {}

    def ask(self, count: int) -> list[Point]:
        """One new point of every track, as long as tracks find any."""
        self._asked_by = {}
        for number in range(min(count, len(self._tracks))):
            point = self._next(number)
            self._asked_by.setdefault(point, []).append(number)
        return list(self._asked_by)

    def tell(self, results: Sequence[Result]) -> None:
        """Take the tracks to the points that were measured."""
        for result in results:
            known_s = result.estimate_s
            speedup = self._context.untuned_s / known_s if known_s is not None else 0.0
            self._speedups[result.point] = speedup
            for number in self._asked_by.get(result.point, []):
                self._arrive(number, result.point)

    def state_dict(self) -> dict[str, Any]:
        """What is known, fastest first."""
        ranked = sorted(self._speedups.items(), key=lambda item: (-item[1], item[0]))
        return {"speedups": [[speedup, str(point)] for point, speedup in ranked[:16]]}

    def _next(self, number: int) -> Point:
        """The next point that a track wants to know; one known already if it finds no other."""
        for _ in range(_FREE_STEPS):
            track = self._tracks[number]
            point = self._start() if track is None else self._step(track)
            if point is None:
                self._tracks[number] = None
                continue
            if point not in self._speedups and point not in self._asked_by:
                return point
            if point in self._speedups:
                self._arrive(number, point)
            else:  # another track has just asked for it
                self._tracks[number] = None
        return self._space.sample(self._rng)

    def _arrive(self, number: int, point: Point) -> None:
        track = self._tracks[number]
        speedup = self._speedups[point]
        if track is None:
            self._tracks[number] = _Track(point, speedup)
        else:
            track.point, track.best = point, max(track.best, speedup)
            track.steps += 1

    def _step(self, track: _Track) -> Point | None:
        """Where the policy goes next; None at the episode's end."""
        if track.steps >= self._most_steps:
            return None
        speedups = (self._speedups[track.point], track.best)
        return self._act(track.point, 1.0 - track.steps / self._most_steps, speedups)

    def _start(self) -> Point:
        """Where the policy ends up from a random point when it does not know how fast it is."""
        point = self._space.sample(self._rng)
        for step in range(self._most_steps):
            there = self._act(point, 1.0 - step / self._most_steps, (1.0, 1.0))
            if there is None:
                break
            point = there
        return point

    def _act(self, point: Point, steps_left: float, speedups: tuple[float, float]) -> Point | None:
        """The point that the policy's action leads to; None if it stops."""
        context = self._context
        seen = self._observation.build(
            context.task, self._space, context.hardware, point, steps_left, speedups
        )
        mask = self._actions.mask(self._space, point)
        lines = {key: value[None] for key, value in seen.items()}
        action = int(self._policy.act(lines, mask[None], self._rng)[0])
        move = None if action == STOP else self._actions.move(self._space, point, action)
        return None if move is None else move.apply(point)
