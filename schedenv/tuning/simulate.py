"""Searches on recorded tables: exact, offline, and the same every time."""

from __future__ import annotations

import dataclasses
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from schedenv.measure.recorded import RecordedMeasurer
from schedenv.measure.result import Result
from schedenv.measure.table import Table
from schedenv.records import Record
from schedenv.tuning.agent import AgentFactory, TuningContext, find_agent
from schedenv.tuning.budget import Budget
from schedenv.tuning.loop import Loop


class Improvement(NamedTuple):
    """One step of a simulated search's curve.

    Attributes:
        seconds: Simulated seconds when the result was known.
        trials: Candidates measured by then, this one included.
        best_s: The best estimate by then, seconds a call.
        regret: How much slower that is than the optimum, as a fraction of the optimum.
    """

    seconds: float
    trials: int
    best_s: float
    regret: float


@dataclass(frozen=True)
class Simulation:
    """What a simulated search found.

    Attributes:
        agent: Name of the agent.
        seed: Its seed.
        optimum_s: The table's known optimum, seconds a call.
        curve: Every improvement, in order; empty if nothing worked.
        trials: Candidates measured.
        elapsed_s: Simulated seconds spent.
        counts: Candidates measured, by status.
        fault: What the agent did wrong, see `schedenv.tuning.loop.Progress`; None if nothing.
    """

    agent: str
    seed: int
    optimum_s: float
    curve: tuple[Improvement, ...]
    trials: int
    elapsed_s: float
    counts: dict[str, int]
    fault: str | None = None

    def fraction_at(self, seconds: float) -> float:
        """The optimum over the best found within `seconds`: 1 is perfect, 0 is nothing yet."""
        known = bisect_right([step.seconds for step in self.curve], seconds)
        return self.optimum_s / self.curve[known - 1].best_s if known else 0.0


class _NothingKept:
    """A store for searches that need none: they start from nothing and can be run again."""

    def records(self, task_hash: str | None = None) -> list[Record]:
        del task_hash
        return []

    def append(
        self,
        task_hash: str,
        task_name: str,
        canonical: str,
        result: Result,
        elapsed_s: float,
        conditions: Mapping[str, Any],
    ) -> None:
        pass


def simulate(table: Table, agent: str | AgentFactory, budget: Budget, seed: int) -> Simulation:
    """Run an agent on a recorded table, in the same loop that tunes on real hardware.

    Seconds, in the budget and in the curve, are simulated: every trial is charged what it cost
    when it was recorded (see `RecordedMeasurer`). The agent's own thinking is not charged, because
    it would be different every time; so an agent that thinks long looks better here than it is.

    Args:
        table: The table; its sub-space is what the agent searches.
        agent: Its name, or the agent as `find_agent` found it.
        budget: How much it may spend; left as it is.
        seed: Of the agent.

    Raises:
        UnknownNameError: No agent has that name.
        AgentError: The agent broke its contract.
    """
    factory = find_agent(agent) if isinstance(agent, str) else agent
    info, measurer = table.info, RecordedMeasurer(table)
    own_budget = dataclasses.replace(budget, clock=measurer.clock)
    space = table.space()
    loop = Loop(
        info.task,
        space,
        factory.make(space, seed, TuningContext(info.task, info.hardware, info.untuned_s)),
        measurer,
        _NothingKept(),
        own_budget,
        info.hardware,
    )
    progress = loop.run()
    curve = tuple(
        Improvement(seconds, trials, best_s, best_s / table.optimum_s - 1.0)
        for seconds, trials, best_s in progress.curve
    )
    return Simulation(
        factory.name,
        seed,
        table.optimum_s,
        curve,
        own_budget.used_trials,
        own_budget.elapsed_s,
        {status.value: count for status, count in progress.counts.items()},
        progress.fault,
    )
