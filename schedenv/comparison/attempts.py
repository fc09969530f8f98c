"""Attempts: what every contestant did on every task with every seed, and the file that keeps it."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from schedenv.tuning.lines import append_line, read_lines

ATTEMPTS = "attempts.jsonl"
FINALS = "finals.jsonl"
RESULTS = "results.csv"

COLUMNS = ("task", "agent", "seed", "event", "seconds", "trials", "latency_us", "regret", "failure")

Key = tuple[str, str, int]
"""Task, agent, seed."""


class Attempt(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one contestant did on one task with one seed.

    Attributes:
        task: The task's title.
        agent: The contestant's name.
        seed: Its seed.
        curve: (seconds, trials, best seconds a call) at every improvement.
        trials: Candidates measured.
        elapsed_s: Budget seconds spent; simulated ones on a recorded table.
        counts: Candidates by status.
        finalists: Text forms of its best few points, fastest first; empty on a recorded table.
        failure: How the contestant failed, naming it; None if it did not.
    """

    task: str
    agent: str
    seed: int
    curve: tuple[tuple[float, int, float], ...] = ()
    trials: int = 0
    elapsed_s: float = 0.0
    counts: dict[str, int] = {}
    finalists: tuple[str, ...] = ()
    failure: str | None = None

    @property
    def key(self) -> Key:
        """What identifies it in a race."""
        return self.task, self.agent, self.seed


class Confirmed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How fast one attempt's result is, timed again beside all others of its task.

    Attributes:
        agent: The contestant's name.
        seed: Its seed.
        point: Text form of the point; None if nothing of it worked or beat the untuned program.
        latency_s: Seconds a call.
        low_s: Lower end of the 95 % interval.
        high_s: Upper end.
    """

    agent: str
    seed: int
    point: str | None
    latency_s: float
    low_s: float
    high_s: float


class Finals(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The finalists of all attempts on a task, timed again together in fresh processes.

    Attributes:
        task: The task's title.
        untuned_s: The untuned program beside them, seconds a call.
        results: One an attempt.
        slowdown: Lower quartile of how much slower than undisturbed the machine was; None if nobody
            could tell. From `schedenv.measure.timing.CALM` on, a neighbour was there in three of
            four moments and more, and other kernels may be the fastest without it.
    """

    task: str
    untuned_s: float
    results: tuple[Confirmed, ...]
    slowdown: float | None = None


def read_attempts(folder: Path) -> dict[Key, Attempt]:
    """The attempts that a race's folder keeps.

    Raises:
        OutputDirError: The file is damaged.
    """
    lines = read_lines(folder / ATTEMPTS, Attempt, "run all attempts again")
    return {attempt.key: attempt for attempt in lines}


def keep_attempt(folder: Path, attempt: Attempt) -> None:
    """Keep an attempt; when this returns, it survives the death of the process."""
    append_line(folder / ATTEMPTS, attempt)


def read_finals(folder: Path) -> dict[str, Finals]:
    """The latest finals of every task.

    Raises:
        OutputDirError: The file is damaged.
    """
    lines = read_lines(folder / FINALS, Finals, "time all finalists again")
    return {finals.task: finals for finals in lines}


def keep_finals(folder: Path, finals: Finals) -> None:
    """Keep the finals of a task; when this returns, they survive the death of the process."""
    append_line(folder / FINALS, finals)


class Facts(msgspec.Struct, frozen=True):
    """What the attempts on a task are judged by.

    Attributes:
        title: What results call the task.
        untuned_s: The untuned program, seconds a call: what a user has without any search.
        best_s: The known optimum of a recorded table; otherwise the fastest kernel that anybody
            found in this race.
        slowdown: Of the machine in the finals, as `Finals.slowdown`; None on a recorded table.
    """

    title: str
    untuned_s: float
    best_s: float
    slowdown: float | None = None


def write_results(path: Path, attempts: Iterable[Attempt], facts: Sequence[Facts]) -> None:
    """Write the tidy table: a line an improvement, and one for the end of every attempt.

    Columns: `COLUMNS`. `event` is `improvement` or `end`; `regret` is how much slower than the
    task's `best_s`, as a fraction of it. An attempt without any improvement has the untuned
    program at its end.
    """
    known = {fact.title: fact for fact in facts}
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for attempt in attempts:
            fact = known.get(attempt.task)
            if fact is None:
                continue
            best_s = fact.untuned_s
            head = (attempt.task, attempt.agent, attempt.seed)
            for seconds, trials, found_s in attempt.curve:
                best_s = found_s
                step = _numbers(seconds, trials, best_s, fact)
                writer.writerow([*head, "improvement", *step, ""])
            end = _numbers(attempt.elapsed_s, attempt.trials, best_s, fact)
            writer.writerow([*head, "end", *end, attempt.failure or ""])


def _numbers(seconds: float, trials: int, best_s: float, fact: Facts) -> list[str]:
    regret = best_s / fact.best_s - 1.0
    return [f"{seconds:.3f}", str(trials), f"{best_s * 1e6:.4f}", f"{regret:.5f}"]
