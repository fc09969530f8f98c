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

from schedenv.envs.actions import STOP
from schedenv.envs.batch_actions import BatchActions
from schedenv.envs.batch_observations import BatchObservation
from schedenv.envs.layout import Layout
from schedenv.envs.observations import KnobObservation
from schedenv.errors import InputError
from schedenv.measure.result import Result
from schedenv.space import Point, SearchSpace
from schedenv.space.batching import batch_space
from schedenv.training.checkpoint import TrainedPolicy, load_policy
from schedenv.training.trainer import find_trainer
from schedenv.tuning.agent import Agent, Create, TuningContext

TRACKS = 4
_STARTS = 16
_FREE_STEPS = 64
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


class PolicyWalk:
    """Where a policy goes from several points of one task at once.

    Args:
        trained: The policy.
        space: The task's points.
        context: The task and the machine.

    Attributes:
        most_steps: Steps of an episode.

    Raises:
        InputError: The task does not fit into the layout that the policy was trained with.
    """

    def __init__(self, trained: TrainedPolicy, space: SearchSpace, context: TuningContext) -> None:
        layout = Layout.of(dict(trained.info.spaces.layout))
        layout.check(space, context.task.name)
        batch = batch_space(space)
        self.most_steps = trained.info.max_steps
        self._policy, self._space = trained.policy, space
        self._actions = BatchActions(batch, layout)
        self._knobs = BatchObservation(batch, layout)
        seen = KnobObservation(layout).build(
            context.task, space, context.hardware, space.default(), 1.0, (1.0, 1.0)
        )
        self._constant = {key: seen[key] for key in ("task", "hardware")}

    def step(
        self,
        points: Sequence[Point],
        steps: Sequence[int],
        speedups: Sequence[tuple[float, float]],
        rng: np.random.Generator,
    ) -> list[Point | None]:
        """The points after one action each; None where the policy stops.

        Args:
            points: Where it stands.
            steps: Steps taken in each episode.
            speedups: Of each point, and of the best of its episode; 0 for one that failed.
            rng: Draws from the policy's distribution.
        """
        rows = self._space.encode(points)
        knobs, knob_mask, sketch = self._knobs.build(rows)
        progress = np.empty((len(rows), 3), np.float32)
        progress[:, 0] = 1.0 - np.asarray(steps) / self.most_steps
        with np.errstate(divide="ignore"):
            progress[:, 1:] = np.log2(np.asarray(speedups)) / 10
        seen = {
            "knobs": knobs,
            "knob_mask": knob_mask,
            "sketch": sketch,
            "progress": np.clip(progress, -1.0, 1.0),
            **{key: np.repeat(value[None], len(rows), 0) for key, value in self._constant.items()},
        }
        actions = self._policy.act(seen, self._actions.mask(rows), rng)
        moved = self._space.decode(self._actions.apply(rows, actions)[0])
        return [
            None if action == STOP else point for action, point in zip(actions, moved, strict=True)
        ]

    def blind(self, points: Sequence[Point], rng: np.random.Generator) -> list[Point]:
        """Where it ends up from points when it is told no time at all."""
        ends = list(points)
        walking = list(range(len(ends)))
        for step in range(self.most_steps):
            here = [ends[index] for index in walking]
            there = self.step(here, [step] * len(here), [(1.0, 1.0)] * len(here), rng)
            for index, point in zip(walking, there, strict=True):
                ends[index] = ends[index] if point is None else point
            walking = [i for i, point in zip(walking, there, strict=True) if point is not None]
            if not walking:
                break
        return ends


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
        self._walk = PolicyWalk(trained, space, context)
        self._space, self._untuned_s = space, context.untuned_s
        self._rng = np.random.default_rng(seed)
        self._speedups: dict[Point, float] = {}
        self._starts: list[Point] = []
        self._tracks: list[_Track | None] = [None] * tracks
        self._asked_by: dict[Point, list[int]] = {}

    def ask(self, count: int) -> list[Point]:
        """One new point of every track, as long as tracks find any."""
        self._asked_by = {}
        waiting = list(range(min(count, len(self._tracks))))
        for _ in range(_FREE_STEPS):
            if not waiting:
                break
            waiting = self._advance(waiting)
        for number in waiting:
            self._tracks[number] = None
            self._asked_by.setdefault(self._space.sample(self._rng), []).append(number)
        return list(self._asked_by)

    def tell(self, results: Sequence[Result]) -> None:
        """Take the tracks to the points that were measured."""
        for result in results:
            known_s = result.estimate_s
            self._speedups[result.point] = 0.0 if known_s is None else self._untuned_s / known_s
            for number in self._asked_by.get(result.point, []):
                self._arrive(number, result.point)

    def state_dict(self) -> dict[str, Any]:
        """What is known, fastest first."""
        ranked = sorted(self._speedups.items(), key=lambda item: (-item[1], item[0]))
        return {"speedups": [[speedup, str(point)] for point, speedup in ranked[:16]]}

    def _advance(self, waiting: Sequence[int]) -> list[int]:
        """Take tracks one step further; those that have not come to an unknown point."""
        going = {number: track for number in waiting if (track := self._tracks[number])}
        places: dict[int, Point | None] = {}
        if going:
            stepped = self._walk.step(
                [track.point for track in going.values()],
                [track.steps for track in going.values()],
                [(self._speedups[track.point], track.best) for track in going.values()],
                self._rng,
            )
            places = dict(zip(going, stepped, strict=True))
        left = []
        for number in waiting:
            point = places[number] if number in going else self._start()
            if point is not None and point not in self._speedups:
                if point not in self._asked_by:
                    self._asked_by[point] = [number]
                    continue
                point = None  # another track has just asked for it
            if point is None:
                self._tracks[number] = None
            else:
                self._arrive(number, point)
            left.append(number)
        return left

    def _arrive(self, number: int, point: Point) -> None:
        track, speedup = self._tracks[number], self._speedups[point]
        if track is None:
            self._tracks[number] = _Track(point, speedup)
            return
        track.point, track.best = point, max(track.best, speedup)
        track.steps += 1
        if track.steps >= self._walk.most_steps:
            self._tracks[number] = None

    def _start(self) -> Point:
        """Where a new episode begins; several are worked out at once, which is cheaper."""
        if not self._starts:
            drawn = [self._space.sample(self._rng) for _ in range(_STARTS)]
            self._starts = self._walk.blind(drawn, self._rng)
        return self._starts.pop()
