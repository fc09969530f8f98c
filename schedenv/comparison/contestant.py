"""What takes part in a live race: an agent in the one tuning loop, or a tuner of its own."""

from __future__ import annotations

import time
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Protocol

from schedenv.errors import MachineError, UnknownNameError
from schedenv.hardware import Hardware
from schedenv.measure.local import LocalMeasurer
from schedenv.records import RecordStore
from schedenv.space import UNTUNED, Point, Space
from schedenv.tasks import Task
from schedenv.tuning import run_dir
from schedenv.tuning.agent import AgentFactory, TuningContext, agent_names, find_agent
from schedenv.tuning.budget import Budget
from schedenv.tuning.finalists import best_candidates
from schedenv.tuning.loop import Loop

ENTRY_POINT_GROUP = "schedenv.contestants"


@dataclass(frozen=True)
class Entry:
    """What one contestant did on one task with one seed.

    Attributes:
        curve: (seconds, trials, best seconds a call) at every improvement.
        trials: Candidates measured.
        elapsed_s: Everything it caused, its own thinking included.
        counts: Candidates by status.
        finalists: Its best few, fastest first, to be measured again with everyone's.
        fault: What it did wrong without ending early, in words, such as asking for nothing; None
            if it did nothing wrong.
    """

    curve: tuple[tuple[float, int, float], ...]
    trials: int
    elapsed_s: float
    counts: dict[str, int]
    finalists: tuple[Point, ...]
    fault: str | None = None


class Contestant(Protocol):
    """Something that can be raced.

    An agent is one through `AgentContestant`. A tuner that is not ask/tell, such as TVM's own, is
    an entry point of the group `schedenv.contestants`: a class or function without arguments that
    gives an object of this form.
    """

    @property
    def name(self) -> str:
        """What results call it."""
        ...

    def run(self, task: Task, hardware: Hardware, budget: Budget, seed: int, out: Path) -> Entry:
        """Tune a task until the budget ends.

        Args:
            task: What to tune.
            hardware: This machine.
            budget: How much it may spend. What is spent should be noted in it while the run goes
                on: the display reads `elapsed_s` and `used_trials` from another thread.
            seed: Of everything random.
            out: A folder of its own, which exists. A run that was killed finds there what it left.

        Raises:
            AgentError: The contestant broke its contract; the race goes on without this run. So
                does any other exception, but the message is then less helpful.
        """
        ...


class AgentContestant:
    """An agent in the tuning loop, measured on this machine; resumes from its record store.

    Args:
        factory: The agent, as `schedenv.tuning.agent.find_agent` found it.
    """

    def __init__(self, factory: AgentFactory) -> None:
        self._factory = factory
        self.name = factory.name

    def run(self, task: Task, hardware: Hardware, budget: Budget, seed: int, out: Path) -> Entry:
        """Tune a task; see `Contestant`.

        Raises:
            AgentError: The agent broke its contract.
            MachineError: The measurement backend failed.
            StoreError: A result cannot be stored.
        """
        space = Space(task.mod, hardware)
        with (
            RecordStore(out / run_dir.RECORDS, hardware.fingerprint) as store,
            LocalMeasurer(task, hardware, seed=seed) as measurer,
        ):
            untuned = measurer.measure([UNTUNED])[0]
            if untuned.estimate_s is None:
                raise MachineError(
                    f"the untuned program of {task.name} failed ({untuned.status.value}: "
                    f"{untuned.reason}); run: schedenv doctor"
                )
            context = TuningContext(task, hardware, untuned.estimate_s)
            # An agent may think when it is made, too.
            started_s = time.monotonic()
            agent = self._factory.make(space, seed, context)
            budget.used_s = time.monotonic() - started_s
            loop = Loop(task, space, agent, measurer, store, budget, hardware)
            progress = loop.run()
            return Entry(
                curve=tuple(progress.curve),
                trials=budget.used_trials,
                elapsed_s=budget.elapsed_s,
                counts={status.value: count for status, count in progress.counts.items()},
                finalists=tuple(best_candidates(loop.results)),
                fault=progress.fault,
            )


def contestant_names() -> list[str]:
    """Names of everything that is installed and can be raced."""
    others = {point.name for point in entry_points(group=ENTRY_POINT_GROUP)}
    return sorted({*agent_names(), *others})


def contestant(name: str) -> Contestant:
    """Find a contestant by name.

    Args:
        name: An installed contestant, or an agent in any form that
            `schedenv.tuning.agent.find_agent` takes.

    Raises:
        UnknownNameError: There is no such contestant.
        InputError: The file or checkpoint that it names cannot be used.
    """
    for point in entry_points(group=ENTRY_POINT_GROUP):
        if point.name == name:
            found: Contestant = point.load()()
            return found
    try:
        return AgentContestant(find_agent(name))
    except UnknownNameError:
        raise UnknownNameError("contestant", name, contestant_names()) from None
