"""A race: every contestant on every task with every seed, in an order that is fair, resumable."""

from __future__ import annotations

import random
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from schedenv.comparison.attempts import (
    RESULTS,
    Attempt,
    Facts,
    Key,
    keep_attempt,
    read_attempts,
    write_results,
)
from schedenv.comparison.processes import at_once
from schedenv.comparison.scores import Axis
from schedenv.comparison.summary import Summary, summarise, write_summary
from schedenv.errors import InputError, OutputDirError
from schedenv.tuning import run_dir
from schedenv.tuning.budget import Budget

COMMAND = "compare"
_BUDGET = ("tables", "trials", "seconds", "hardware")


class Arena(Protocol):
    """Where a race takes place: on recorded tables, or on this machine."""

    @property
    def agents(self) -> Sequence[str]:
        """Names of the contestants."""
        ...

    @property
    def tasks(self) -> Sequence[str]:
        """Titles of the tasks."""
        ...

    @property
    def independent(self) -> bool:
        """Whether attempts that go on at once have the results that they have one by one."""
        ...

    def describe(self) -> dict[str, Any]:
        """What has to be the same when a race is resumed, ready for JSON."""
        ...

    def attempt(self, task: str, agent: str, seed: int, budget: Budget) -> Attempt:
        """Let a contestant try; what is its own fault becomes the attempt's `failure`.

        Args:
            task: One of `tasks`.
            agent: One of `agents`.
            seed: Of everything random.
            budget: How much it may spend; its clock is read for the display.

        Raises:
            MachineError: The machine is at fault.
        """
        ...

    def finish(self, attempts: Sequence[Attempt], watcher: Watcher) -> None:
        """Do what is left when all attempts are made, such as the finals."""
        ...

    def judge(self, attempts: Sequence[Attempt]) -> tuple[list[Facts], list[Attempt]]:
        """What attempts are judged by, and the attempts as they are to be judged."""
        ...


@dataclass(frozen=True)
class Request:
    """What is to be raced.

    Attributes:
        arena: Where, with the contestants and the tasks.
        seeds: How many; 0 to seeds - 1 are used.
        trials: Budget of an attempt in candidates; None for no limit.
        seconds: Budget in seconds, simulated ones on tables; None for no limit.
        reference: Whom the others are compared with; None for the first contestant.
        out: The race's directory.
        resume: Go on with the race in `out`; contestants, tasks and seeds may be added.
        jobs: Attempts that go on at once, each in a process of its own; more than one only where
            attempts do not disturb each other.

    Raises:
        InputError: A number or the reference cannot be used.
    """

    arena: Arena
    seeds: int
    trials: int | None
    seconds: float | None
    reference: str | None
    out: Path
    resume: bool = False
    jobs: int = 1

    def __post_init__(self) -> None:
        self.budget()
        for name, number in (("--seeds", self.seeds), ("--jobs", self.jobs)):
            if number < 1:
                raise InputError(f"expected {name} of at least 1, got {number}")
        if self.jobs > 1 and not self.arena.independent:
            raise InputError(
                f"expected --jobs 1 for a race on this machine, got {self.jobs}: attempts that go "
                "on at once disturb each other's times. Recorded tables can be raced on by several"
            )
        for kind, names in (("agents", self.arena.agents), ("tasks", self.arena.tasks)):
            twice = sorted({name for name in names if list(names).count(name) > 1})
            if twice:
                raise InputError(
                    f"two of the {kind} are called {twice[0]!r}; name each once"
                    + (", or call one NAME=AGENT" if kind == "agents" else "")
                )
        if self.reference is not None and self.reference not in self.arena.agents:
            raise InputError(
                f"expected --reference to be one of {', '.join(self.arena.agents)}; "
                f"got {self.reference!r}"
            )

    def budget(self) -> Budget:
        """A fresh budget for one attempt."""
        return Budget(self.trials, self.seconds)

    @property
    def axis(self) -> Axis:
        """What the budget is counted in; trials, if it is both."""
        return Axis.SECONDS if self.trials is None else Axis.TRIALS

    @property
    def limit(self) -> float:
        """The budget, in units of `axis`."""
        limit = self.seconds if self.trials is None else self.trials
        assert limit is not None
        return float(limit)


class Watcher:
    """What happens while a race goes on, for a display; every method may be overridden."""

    def begin(self, total: int, done: int) -> None:
        """There are `total` attempts, of which `done` were made by an earlier run."""

    def attempt(self, task: str, agent: str, seed: int, budget: Budget) -> None:
        """An attempt begins; its budget may be read while it goes on."""

    def made(self, attempt: Attempt) -> None:
        """An attempt is over."""

    def finals(self, task: str, kernels: int) -> None:
        """The finalists of a task are timed together."""


def order_of(tasks: Sequence[str], agents: Sequence[str], seeds: int) -> list[Key]:
    """The order of attempts: (task, agent, seed).

    Seed after seed; within one the tasks are shuffled, and within a task the contestants, one
    right after the other. So a machine that gets slower over the hours, or warmer from one attempt
    to the next, favours nobody, and a race that was ended early has whole blocks.
    """
    order = []
    for seed in range(seeds):
        rng = random.Random(seed)
        for task in rng.sample(list(tasks), len(tasks)):
            order += [(task, name, seed) for name in rng.sample(list(agents), len(agents))]
    return order


def race(request: Request, watcher: Watcher | None = None) -> Summary:
    """Run what is left of a race, and write its directory.

    Every attempt is kept when it is over; one that was interrupted goes on from its own record
    store. SIGTERM ends the race as Ctrl-C does.

    Args:
        request: What to race.
        watcher: Told what happens.

    Raises:
        InputError: The directory cannot be used.
        MachineError: The machine, not a contestant, is at fault.
        KeyboardInterrupt: The race was interrupted; it can be resumed.
    """
    watcher = watcher or Watcher()
    arena, out = request.arena, run_dir.open_run_dir(request.out, resume=request.resume)
    run = _describe(request)
    if request.resume:
        _check_same(out, run)
    run_dir.write_json(out / run_dir.RUN, run)
    made = read_attempts(out)
    order = order_of(arena.tasks, arena.agents, request.seeds)
    with _terminable():
        watcher.begin(len(order), sum(key in made for key in order))
        left = [key for key in order if key not in made]
        for attempt in _attempts(request, left, watcher):
            made[attempt.key] = attempt
            keep_attempt(out, attempt)
            watcher.made(attempt)
        attempts = [made[key] for key in order]
        arena.finish(attempts, watcher)
    facts, judged = arena.judge(attempts)
    write_results(out / RESULTS, judged, facts)
    summary = summarise(request, facts, judged)
    write_summary(out, summary)
    return summary


def _attempts(request: Request, keys: Sequence[Key], watcher: Watcher) -> Iterator[Attempt]:
    """Make attempts, one by one or several at once."""
    if request.jobs > 1:
        yield from at_once(
            lambda key: request.arena.attempt(*key, request.budget()), keys, request.jobs
        )
        return
    for key in keys:
        budget = request.budget()
        watcher.attempt(*key, budget)
        yield request.arena.attempt(*key, budget)


def _describe(request: Request) -> dict[str, Any]:
    """The content of `run.json`."""
    return {
        "command": COMMAND,
        "agents": list(request.arena.agents),
        "tasks": list(request.arena.tasks),
        "seeds": request.seeds,
        "trials": request.trials,
        "seconds": request.seconds,
        "reference": request.reference or request.arena.agents[0],
        **request.arena.describe(),
        "git_revision": run_dir.git_revision(),
    }


def _check_same(out: Path, run: Mapping[str, Any]) -> None:
    """Refuse to mix two races; one with more contestants, tasks or seeds is the same.

    Raises:
        OutputDirError: They differ; the message has both values.
    """
    earlier = run_dir.read_json(out / run_dir.RUN)
    if earlier.get("command") != COMMAND:
        raise OutputDirError(
            f"--out {out} holds a run of something else than schedenv compare; choose another --out"
        )
    for name in _BUDGET:
        if earlier.get(name) != run.get(name):
            raise OutputDirError(
                f"--out {out} holds a race with {name} {earlier.get(name)!r}, not "
                f"{run.get(name)!r}; repeat the command that started it with --resume, or choose "
                "another --out"
            )


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM raises KeyboardInterrupt, so that workers are ended."""

    def interrupt(number: int, _: object) -> None:
        raise KeyboardInterrupt(number)

    if threading.current_thread() is not threading.main_thread():
        yield  # Python lets no other thread handle signals
        return
    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
