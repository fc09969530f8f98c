"""From attempts to scores: best-so-far at any moment, and when a quality was reached."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import msgspec
import numpy as np

from schedenv.comparison.attempts import Attempt, Facts, Finals
from schedenv.comparison.statistics import Doubles


class Axis(StrEnum):
    """What a budget is counted in."""

    TRIALS = "trials"
    SECONDS = "seconds"


@dataclass(frozen=True)
class Reaching:
    """How soon a contestant had what the reference had in the end.

    Attributes:
        ratios: The reference's time over the contestant's, one array a task, of its seeds. Where
            the contestant never had it, its whole budget counts (at least what the reference
            needed): the ratio is then at most that.
        share: Part of the attempts that had it.
    """

    ratios: list[Doubles]
    share: float


@dataclass(frozen=True)
class Field:
    """Everything that a race's statistics are made from: attempts that can be compared.

    Of every task only the seeds are kept with which every contestant has finished, so that nobody
    is judged by other seeds than the others.

    Attributes:
        agents: Names, in the order given to the race.
        facts: Of every task with a seed that all have finished.
        attempts: By task, then agent: one a seed, in the order of the seeds.
    """

    agents: tuple[str, ...]
    facts: tuple[Facts, ...]
    attempts: Mapping[str, Mapping[str, tuple[Attempt, ...]]]

    @classmethod
    def of(
        cls, agents: Sequence[str], facts: Sequence[Facts], attempts: Sequence[Attempt]
    ) -> Field:
        """Sort attempts, and leave out what cannot be compared."""
        by_key = {attempt.key: attempt for attempt in attempts}
        kept: dict[str, dict[str, tuple[Attempt, ...]]] = {}
        for fact in facts:
            seeds = sorted({a.seed for a in attempts if a.task == fact.title})
            common = [s for s in seeds if all((fact.title, name, s) in by_key for name in agents)]
            if common:
                kept[fact.title] = {
                    name: tuple(by_key[fact.title, name, seed] for seed in common)
                    for name in agents
                }
        judged = tuple(fact for fact in facts if fact.title in kept)
        return cls(tuple(agents), judged, kept)

    def all_of(self, agent: str) -> list[Attempt]:
        """All attempts of a contestant."""
        return [attempt for task in self.attempts.values() for attempt in task[agent]]

    def scores(self, agent: str, axis: Axis, at: float) -> list[Doubles]:
        """Scores of a contestant within a budget, one array a task, of its seeds.

        A score is the best latency known on the task over the attempt's own best so far, which is
        the untuned program's before anything was found: 1 is perfect.

        Args:
            agent: Its name.
            axis: What the budget counts.
            at: The budget.
        """
        return [
            np.array([fact.best_s / latency_at(a, fact, axis, at) for a in self._of(fact, agent)])
            for fact in self.facts
        ]

    def reaching(self, agent: str, reference: str, axis: Axis) -> Reaching:
        """How many times sooner a contestant had what the reference had in the end.

        What that is, and when the reference had it, is taken from its attempt of the same seed.
        """
        ratios, reached = [], []
        for fact in self.facts:
            pairs = list(zip(self._of(fact, agent), self._of(fact, reference), strict=True))
            found = [_sooner(ours, theirs, fact, axis) for ours, theirs in pairs]
            ratios.append(np.array([ratio for ratio, _ in found]))
            reached += [done for _, done in found]
        return Reaching(ratios, float(np.mean(reached)))

    def latencies(self, fact: Facts, agent: str, axis: Axis, marks: Doubles) -> Doubles:
        """The best latency that attempts on a task knew at several moments, seconds a call.

        Args:
            fact: Of the task.
            agent: Whose attempts.
            axis: What moments are counted in.
            marks: The moments, shape (k,).

        Returns:
            Shape (seeds, k).
        """
        return np.array(
            [
                [latency_at(attempt, fact, axis, mark) for mark in marks]
                for attempt in self._of(fact, agent)
            ]
        )

    def spent(self, axis: Axis) -> float:
        """The median of what attempts spent, in units of `axis`."""
        amounts = [
            a.trials if axis is Axis.TRIALS else a.elapsed_s
            for agent in self.agents
            for a in self.all_of(agent)
        ]
        return float(np.median(amounts)) if amounts else 0.0

    def _of(self, fact: Facts, agent: str) -> tuple[Attempt, ...]:
        return self.attempts[fact.title][agent]


def latency_at(attempt: Attempt, fact: Facts, axis: Axis, at: float) -> float:
    """The best that an attempt knew within a budget, seconds a call; the untuned program at first.

    Args:
        attempt: The attempt.
        fact: Of its task.
        axis: What the budget counts.
        at: The budget.
    """
    known = bisect_right([_place(step, axis) for step in attempt.curve], at)
    return min(fact.untuned_s, attempt.curve[known - 1][2]) if known else fact.untuned_s


def moment_of(attempt: Attempt, fact: Facts, axis: Axis, target_s: float) -> float:
    """When an attempt had a latency of at most `target_s`; infinite if never."""
    if fact.untuned_s <= target_s:
        return 0.0
    for step in attempt.curve:
        if step[2] <= target_s:
            return _place(step, axis)
    return float("inf")


def put_to_scale(attempts: Sequence[Attempt], finals: Mapping[str, Finals]) -> list[Attempt]:
    """Curves multiplied so that each ends at the latency that the finals confirmed.

    Latencies of a search are estimates of one contestant's own measurements, at the speed that the
    machine had just then, and its best is the luckiest of many. The factor takes all of that out
    of what is compared; the shape of the curve stays. Attempts on tasks without finals are left
    out.
    """
    confirmed = {
        (task, result.agent, result.seed): result
        for task, of_task in finals.items()
        for result in of_task.results
    }
    scaled = []
    for attempt in attempts:
        result = confirmed.get(attempt.key)
        if result is None:
            continue
        curve: tuple[tuple[float, int, float], ...] = ()
        if attempt.curve and result.point is not None:
            factor = result.latency_s / attempt.curve[-1][2]
            curve = tuple((s, trials, best_s * factor) for s, trials, best_s in attempt.curve)
        scaled.append(msgspec.structs.replace(attempt, curve=curve))
    return scaled


def _place(step: tuple[float, int, float], axis: Axis) -> float:
    return step[1] if axis is Axis.TRIALS else step[0]


def _sooner(ours: Attempt, theirs: Attempt, fact: Facts, axis: Axis) -> tuple[float, bool]:
    target_s = latency_at(theirs, fact, axis, np.inf)
    given = moment_of(theirs, fact, axis, target_s)
    needed = moment_of(ours, fact, axis, target_s)
    if given == 0:  # the reference had no more than the untuned program, which everybody has
        return 1.0, True
    if needed < np.inf:
        return given / needed, True
    spent = ours.trials if axis is Axis.TRIALS else ours.elapsed_s
    return given / max(spent, given), False
