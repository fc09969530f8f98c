"""Training of the hierarchical agent on other tasks than the one to be tuned.

How much each kind of knob matters is learned once, from random points (`relevance.py`). Tracks walk
as in a search, but on what a recorded table or a cost model says of every point, and the policy
learns from each walk (HARL trains on predicted times too, but begins anew with every task). The
policy's inputs mean the same in every space, so its weights serve any task.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from schedenv.envs.observations import Observation
from schedenv.envs.vector import EditVectorEnv
from schedenv.envs.vector_source import Landscape
from schedenv.errors import InputError
from schedenv.space import Point, SearchSpace
from schedenv.space.batch import Bools, Indices
from schedenv.training import Policy as EnvironmentPolicy
from schedenv.training import Rollout, TrainedPolicy, Trainer
from schedenv.training.evaluation import SEED, scalars
from schedenv.training.sources import Sources
from schedenv.training.trainer import Setting
from schedenv.tuning.agent import Agent, TuningContext

from ..coordinates import ROLES, Floats
from .agent import HierarchicalAgent
from .config import HierarchicalConfig
from .encoding import Encoding
from .policy import Arrays, Policy, check_weights
from .relevance import SCALES, Relevance, check_scales
from .tracks import Tracks, Walk

EPISODES = 32
"""Tracks on each task when a policy is judged."""


class HierarchicalTrainer(Trainer):
    """Trains the policy over knob edits of `HierarchicalAgent`, and its model's scales.

    See `Trainer`.

    The setting `environments` is the number of tracks side by side, `track_steps` their length;
    the others are those of `HierarchicalConfig`.
    """

    defaults = {  # noqa: RUF012 - read only
        "environments": 32,
        "track_steps": 8,
        "actor_rate": 3e-3,
        "critic_rate": 1e-2,
        "gamma": 0.9,
        "clip": 0.2,
        "entropy": 0.01,
        "epochs": 3,
    }
    libraries = ("torch",)

    def __init__(self, envs: EditVectorEnv, seed: int, settings: Mapping[str, Setting]) -> None:
        self._config = config = _config(settings)
        self._seed, self._steps = seed, 0
        self._rng = np.random.default_rng(seed)
        self._policy = Policy(config, seed)
        self._landscapes = envs.landscapes
        self._scales: Floats | None = None
        self._places = [_Place(landscape, config) for landscape in self._landscapes]
        self._tracks = int(settings["environments"])

    @property
    def steps(self) -> int:
        """Steps of tracks learned from so far."""
        return self._steps

    def learn(self) -> Mapping[str, float]:
        """One walk on every task, each followed by what the policy learns from it."""
        if self._scales is None:
            self._scales = self._learn_scales()
        gains, rollouts = [], []
        for place in self._places:
            walk = place.walk(self._tracks, self._policy, self._rng)
            rollouts.append(place.rollout(walk))
            gains.append(float((walk.best[0] - walk.last).mean()))
            if walk.steps is not None:
                self._policy.learn(walk.steps)
                self._steps += len(walk.steps.actions)
        reached = scalars({"trained": rollouts})
        return {
            "train/log_gain": float(np.mean(gains)),
            **{
                f"env/{name}": reached[f"env/trained_{name}"]
                for name in ("geomean_speedup", "share_of_optimum")
                if f"env/trained_{name}" in reached
            },
        }

    def weights(self) -> Arrays:
        """Actor, critic, and how much each kind of knob matters."""
        scales = np.ones(len(ROLES)) if self._scales is None else self._scales
        return {**self._policy.weights(), SCALES: scales}

    def state(self) -> Arrays:
        """The moments of their optimisers."""
        return self._policy.moments()

    def restore(self, weights: Arrays, state: Arrays, steps: int) -> None:
        """Go on from a checkpoint; see `Trainer`.

        The random numbers to come are those of the seed and the steps, not those that an
        uninterrupted run would have drawn.
        """
        check_scales(weights)
        self._policy.load(weights, state)
        self._scales = np.array(weights[SCALES]) if steps else None
        self._steps = steps
        self._rng = np.random.default_rng([self._seed, steps])

    def _learn_scales(self) -> Floats:
        relevance = Relevance(np.random.default_rng(self._seed))
        for landscape in self._landscapes:
            relevance.add(landscape.space, landscape.seconds)
        return relevance.scales()

    @classmethod
    def make_policy(cls, weights: Arrays) -> TrackPolicy:
        """The weights, once they are known to fit."""
        return TrackPolicy(weights)

    @classmethod
    def make_evaluator(cls, sources: Sources, max_steps: int) -> TrackEvaluator:
        """Judges a policy by tracks from starts that are the same every time."""
        return TrackEvaluator(sources, max_steps)

    @classmethod
    def make_agent(
        cls, trained: TrainedPolicy, space: SearchSpace, seed: int, context: TuningContext
    ) -> Agent:
        """The hierarchical agent with a policy that has learned on other tasks."""
        del context
        assert isinstance(trained.policy, TrackPolicy)
        return HierarchicalAgent(space, seed, weights=trained.policy.weights)


class TrackPolicy:
    """What a checkpoint holds: a policy that scores moves of tracks, and scales for the model.

    Args:
        weights: As `HierarchicalTrainer.weights` gives them.

    Raises:
        ValueError: They are not a trainer's.
    """

    def __init__(self, weights: Arrays) -> None:
        check_weights(weights)
        check_scales(weights)
        self.weights = weights

    def act(
        self, observations: Observation, masks: Bools, rng: np.random.Generator | None = None
    ) -> Indices:
        """Nothing: it knows points and their neighbours, and no observations.

        Raises:
            InputError: Always.
        """
        del observations, masks, rng
        raise InputError(
            "a checkpoint of the agent hierarchical moves the tracks of its own search and takes "
            "no actions in an environment; tune with it, or train with --agent ppo"
        )


class TrackEvaluator:
    """Judges a policy by the tracks that it walks.

    Args:
        sources: What was learned, and what was held out.
        max_steps: Steps of a track.
        tracks: How many on every task.
    """

    def __init__(self, sources: Sources, max_steps: int, tracks: int = EPISODES) -> None:
        self._config = replace(_TRACKS, steps=max_steps)
        self._count = tracks
        self._groups = {"evaluated": self._places(sources.arguments())}
        if sources.held_out:
            self._groups["held_out"] = self._places(sources.arguments(held_out=True))

    def __call__(self, policy: EnvironmentPolicy) -> dict[str, float]:
        """Walk and summarise; see `schedenv.training.evaluation.scalars`."""
        assert isinstance(policy, TrackPolicy)
        moving = Policy(self._config, seed=0)
        moving.load(policy.weights)
        return scalars(
            {
                group: [
                    place.rollout(place.walk(self._count, moving, np.random.default_rng(SEED)))
                    for place in places
                ]
                for group, places in self._groups.items()
            }
        )

    def _places(self, arguments: Mapping[str, Any]) -> list[_Place]:
        landscapes = EditVectorEnv(1, **arguments).landscapes
        return [_Place(landscape, self._config) for landscape in landscapes]


_TRACKS = HierarchicalConfig(adaptive_stop=False)


class _Place:
    """One task to walk on."""

    def __init__(self, landscape: Landscape, config: HierarchicalConfig) -> None:
        self._space, self._facts = landscape.space, landscape.facts
        self._seconds: Callable[[Sequence[Point]], Floats] = landscape.seconds
        self._tracks = Tracks(landscape.space, Encoding(landscape.space), config)

    def walk(self, count: int, policy: Policy, rng: np.random.Generator) -> Walk:
        """So many tracks from random points."""
        starts = [self._space.sample(rng) for _ in range(count)]
        return self._tracks.walk(starts, self._score, policy, rng)

    def rollout(self, walk: Walk) -> Rollout:
        """A walk as if it were episodes."""
        facts, tried = self._facts, self._seconds(walk.visited)
        optimum = None if facts.optimum_s is None else facts.baseline_s / facts.optimum_s
        return Rollout(
            facts.title,
            facts.baseline_s / np.exp(walk.best),
            facts.baseline_s / np.exp(walk.last),
            np.full(walk.best.shape[1], len(walk.best) - 1),
            float(np.isinf(tried).mean()),
            optimum,
        )

    def _score(self, points: Sequence[Point]) -> Floats:
        """Log seconds; what fails is as slow as the untuned program."""
        seconds = self._seconds(points)
        scores: Floats = np.log(np.where(np.isinf(seconds), self._facts.baseline_s, seconds))
        return scores


def _config(settings: Mapping[str, Setting]) -> HierarchicalConfig:
    return replace(
        _TRACKS,
        steps=int(settings["track_steps"]),
        actor_rate=float(settings["actor_rate"]),
        critic_rate=float(settings["critic_rate"]),
        discount=float(settings["gamma"]),
        clip=float(settings["clip"]),
        entropy=float(settings["entropy"]),
        epochs=int(settings["epochs"]),
    )
