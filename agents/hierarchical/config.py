"""Settings of the hierarchical agent; every level of it can be switched off."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class HierarchicalConfig:
    """Settings of the hierarchical agent.

    The names are HARL's where it has one (Zhang et al., ICPP 2022); its paper gives few of the
    values, and none of the network.

    Attributes:
        first: Random points measured before anything is predicted.
        batch: Points proposed at once after that. Few, so that each is chosen with what the others
            taught; the machine builds two at a time and idles more, the fewer there are.
        drafted: Share of the random points that are drawn to fit the registers
            (`schedenv.space.draft`); the others are uniform.
        sketch_bandit: Sketches are chosen by a sliding-window bandit; if not, uniformly.
        exploration: Weight of the bandit's term for rarely chosen sketches (HARL's c).
        window: Choices that the bandit remembers (HARL's tau).
        learn_policy: Moves are chosen by a policy that is trained; if not, uniformly.
        actor_rate: Learning rate of the policy.
        critic_rate: Learning rate of the critic.
        discount: Of rewards one step later.
        clip: PPO's limit on how far one update changes the odds of a move.
        entropy: Weight of the policy's entropy in its loss.
        epochs: Passes over a round's steps.
        tracks: Walks that go on at once in the predicted environment.
        elites: Share of the tracks that begin at the best measured points; the others begin at
            random ones.
        steps: Steps of a track at most.
        adaptive_stop: Tracks of little advantage end early.
        stop_every: Steps between two such decisions (HARL's lambda).
        stop_share: Share of the tracks that end at each (HARL's rho).
        fewest_tracks: A round ends when fewer are left (HARL's p-hat).
        model: Points are predicted by a model of what was measured; if not, points are proposed
            in the order in which tracks visited them, and no policy can learn.
        optimism: How many standard deviations a predicted time is believed to be too long.
        thrift: How much the cost of measuring a candidate counts, in log seconds of its kernel a
            log second of its own: at 0.1, one that costs ten times as much to build and time has to
            promise 1.26 times the speed. Candidates differ by factors of hundreds in it.
        score_neighbours: Candidates are all neighbours of the points that tracks visit, which had
            to be looked at anyway; if not, the visited points alone.
    """

    first: int = 4
    batch: int = 4
    drafted: float = 0.8
    sketch_bandit: bool = True
    exploration: float = 0.25
    window: int = 256
    learn_policy: bool = True
    actor_rate: float = 3e-3
    critic_rate: float = 1e-2
    discount: float = 0.9
    clip: float = 0.2
    entropy: float = 0.01
    epochs: int = 3
    tracks: int = 16
    elites: float = 0.5
    steps: int = 8
    adaptive_stop: bool = True
    stop_every: int = 4
    stop_share: float = 0.5
    fewest_tracks: int = 4
    model: bool = True
    optimism: float = 2.0
    thrift: float = 0.0
    score_neighbours: bool = True


PAPER = HierarchicalConfig(
    first=16, batch=16, drafted=0.0, actor_rate=3e-4, critic_rate=1e-3, elites=0.0, tracks=16,
    steps=40, stop_every=20, fewest_tracks=8, optimism=0.0, score_neighbours=False,
)  # fmt: skip
"""HARL's form: large batches, uniform random starts, the model's mean, visited points alone.

The number of tracks and the size of a batch are not given in the paper, and its model is one of
boosted trees on features of the lowered program; here it is the Gaussian process on knobs that the
other configuration has, so that the two differ in how they search.
"""

PRIOR = HierarchicalConfig(first=2)
"""Where something is expected before anything is measured: two points that it has not chosen."""
