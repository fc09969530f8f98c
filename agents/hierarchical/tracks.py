"""Tracks: walks through the space on predicted times, many at once, that end early if hopeless."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from schedenv.space import Point, SearchSpace

from .config import HierarchicalConfig
from .encoding import Encoding
from .policy import Policy, Steps

Floats = npt.NDArray[np.float64]

Score = Callable[[Sequence[Point]], Floats]
"""Log seconds of points, lower is better, shape (n,)."""

_REMEMBERED = 20_000


@dataclass(frozen=True)
class Walk:
    """What a round of tracks brought.

    Attributes:
        visited: The points that tracks went through, in that order, none twice.
        seen: These and all their neighbours.
        steps: For the policy to learn from; None without a score, or if no start has a move.
        ended_early: Tracks that were stopped before the round was over.
        best: The best score on each track until each step, its start included, shape (steps + 1,
            starts); constant once a track has ended. Zeros without a score.
        last: The score where each track ended, shape (starts,).
    """

    visited: list[Point]
    seen: list[Point]
    steps: Steps | None
    ended_early: int
    best: Floats
    last: Floats


@dataclass(frozen=True)
class Choices:
    """The moves of some points.

    Attributes:
        neighbours: Where they lead.
        states: Features of the points, shape (n, features).
        changes: What each move changes in them, shape (n, most, features).
        counts: Moves of each point, shape (n,).
    """

    neighbours: Sequence[Sequence[Point]]
    states: Floats
    changes: Floats
    counts: npt.NDArray[np.intp]


class Tracks:
    """Walks from points to their neighbours.

    Args:
        space: The points and their moves.
        encoding: Of the points.
        config: How many steps, and when to stop.
    """

    def __init__(self, space: SearchSpace, encoding: Encoding, config: HierarchicalConfig) -> None:
        self._space, self._encoding, self._config = space, encoding, config
        self._neighbours: dict[Point, list[Point]] = {}

    def walk(
        self,
        starts: Sequence[Point],
        score: Score | None,
        policy: Policy | None,
        rng: np.random.Generator,
    ) -> Walk:
        """Walk from every start.

        Args:
            starts: Where the tracks begin.
            score: Of the points, whose improvement is the reward; None for no rewards.
            policy: Chooses the moves and judges the tracks; None for moves at random.
            rng: Of the choices.
        """
        config = self._config
        who = np.flatnonzero([bool(self._moves_of(start)) for start in starts])
        points = [starts[number] for number in who.tolist()]
        advantages = np.zeros(len(points))
        last = np.zeros(len(starts)) if score is None else score(starts)
        best = [last.copy()]
        visited, seen = dict.fromkeys(starts), dict.fromkeys(starts)
        taken: list[_Step] = []
        ended_early = 0
        for number in range(1, config.steps + 1):
            if not points:
                break
            step = self._step(points, last[who], score, policy, rng)
            taken.append(step)
            advantages += step.advantages
            last[who] = step.scores
            best.append(np.minimum(best[-1], last))
            for neighbours in step.options:
                seen.update(dict.fromkeys(neighbours))
            visited.update(dict.fromkeys(step.chosen))
            points = step.chosen
            if config.adaptive_stop and number % config.stop_every == 0:
                count = len(points) - round(config.stop_share * len(points))
                if count < config.fewest_tracks:
                    ended_early += len(points)
                    break
                left = np.sort(np.argsort(-advantages, kind="stable")[:count])
                ended_early += len(points) - count
                points, advantages = [points[index] for index in left], advantages[left]
                who = who[left]
        steps = _together(taken) if score is not None and taken else None
        return Walk(list(visited), list(seen), steps, ended_early, np.stack(best), last)

    def log_odds(self, choices: Choices, policy: Policy | None) -> Floats:
        """Log probabilities of the moves, shape (n, most); minus infinity beyond.

        Args:
            choices: What the moves are.
            policy: Who chooses; None for moves at random.
        """
        if policy is not None:
            return policy.log_odds(choices.states, choices.changes, choices.counts)
        filled = np.arange(choices.changes.shape[1])[None] < choices.counts[:, None]
        return np.where(filled, -np.log(choices.counts)[:, None], -np.inf)

    def _step(
        self,
        points: list[Point],
        scores: Floats,
        score: Score | None,
        policy: Policy | None,
        rng: np.random.Generator,
    ) -> _Step:
        """Every track one move further."""
        options = [self._moves_of(point) for point in points]
        counts = np.array([len(neighbours) for neighbours in options])
        states = self._shared(points)
        changes = np.zeros((len(points), counts.max(), states.shape[1]))
        flat = self._shared([point for neighbours in options for point in neighbours])
        filled = np.arange(counts.max())[None] < counts[:, None]
        changes[filled] = flat - np.repeat(states, counts, axis=0)
        log_odds = self.log_odds(Choices(options, states, changes, counts), policy)
        # Gumbel's trick: the largest of noisy log probabilities is a draw from them.
        noisy = np.where(filled, log_odds + rng.gumbel(size=log_odds.shape), -np.inf)
        actions = noisy.argmax(axis=1)
        chosen = [options[index][action] for index, action in enumerate(actions)]
        reached = scores if score is None else score(chosen)
        rewards = scores - reached
        values = np.zeros(len(points))
        targets = rewards
        if policy is not None:
            values = policy.values(states)
            targets = rewards + self._config.discount * policy.values(self._shared(chosen))
        picked = log_odds[np.arange(len(points)), actions]
        return _Step(
            options, chosen, reached, states, changes, counts, actions, picked, targets,
            targets - values,
        )  # fmt: skip

    def _moves_of(self, point: Point) -> list[Point]:
        """The neighbours of a point, remembered: looking for them is what walking costs."""
        if point not in self._neighbours:
            if len(self._neighbours) >= _REMEMBERED:
                self._neighbours.clear()
            self._neighbours[point] = self._space.neighbours(point)
        return self._neighbours[point]

    def _shared(self, points: Sequence[Point]) -> Floats:
        return self._encoding.of(points)


@dataclass(frozen=True)
class _Step:
    options: list[list[Point]]
    chosen: list[Point]
    scores: Floats
    states: Floats
    changes: Floats
    counts: npt.NDArray[np.intp]
    actions: npt.NDArray[np.intp]
    log_odds: Floats
    targets: Floats
    advantages: Floats


def _together(steps: Sequence[_Step]) -> Steps:
    widest = max(step.changes.shape[1] for step in steps)
    padded = [
        np.pad(step.changes, ((0, 0), (0, widest - step.changes.shape[1]), (0, 0)))
        for step in steps
    ]
    return Steps(
        np.concatenate([step.states for step in steps]),
        np.concatenate(padded),
        np.concatenate([step.counts for step in steps]),
        np.concatenate([step.actions for step in steps]),
        np.concatenate([step.log_odds for step in steps]),
        np.concatenate([step.targets for step in steps]),
        np.concatenate([step.advantages for step in steps]),
    )
