"""What a race says: one structure that the screen, the Markdown and the report are made from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from schedenv.comparison.attempts import Attempt, Facts
from schedenv.comparison.scores import Axis, Field
from schedenv.comparison.statistics import (
    Interval,
    geometric_mean,
    interquartile_mean,
    mean,
    probability_of_improvement,
)
from schedenv.errors import OutputDirError
from schedenv.measure.result import Status

if TYPE_CHECKING:
    from schedenv.comparison.race import Request

SUMMARY = "summary.json"

_SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)


class Checkpoint(msgspec.Struct, frozen=True):
    """How good a contestant was within a part of the budget.

    Attributes:
        at: The part, in units of the summary's axis.
        quality: Interquartile mean of the scores (best known latency over the best so far).
        mean_regret: How much slower than the best known, as a fraction of it; mean.
        improvement: Probability that it is better than the reference; None for the reference.
    """

    at: float
    quality: Interval
    mean_regret: Interval
    improvement: Interval | None


class Standing(msgspec.Struct, frozen=True):
    """How a contestant did.

    Attributes:
        agent: Its name.
        failed: Attempts that failed.
        attempts: All its attempts.
        failure_rate: Candidates that failed, as a share of those measured.
        checkpoints: By part of the budget, ascending.
        sooner: How many times sooner it had what the reference had in the end, geometric mean; an
            attempt that never had it counts with its whole budget.
        reached: Share of its attempts that had it.
        by_task: Interquartile mean of the scores at the end, by task.
    """

    agent: str
    failed: int
    attempts: int
    failure_rate: float
    checkpoints: tuple[Checkpoint, ...]
    sooner: Interval
    reached: float
    by_task: dict[str, Interval]


class Summary(msgspec.Struct, frozen=True):
    """What a race says.

    Attributes:
        tables: Whether it was on recorded tables.
        axis: What the budget counts.
        budget: How much of it.
        seeds: Fewest seeds of a task that all contestants have finished.
        reference: Whom the others are compared with.
        facts: What tasks are judged by.
        standings: One a contestant, in the order given.
        failures: What failed attempts said, with how often.
    """

    tables: bool
    axis: Axis
    budget: float
    seeds: int
    reference: str
    facts: tuple[Facts, ...]
    standings: tuple[Standing, ...]
    failures: dict[str, int]


def checkpoints_of(axis: Axis, budget: float) -> list[float]:
    """Where contestants are compared: 1, 8, 16, 32, ... trials, or parts of the seconds.

    At one trial stands what a contestant proposes before it has seen any result.
    """
    if axis is Axis.SECONDS:
        return [budget * share for share in _SHARES]
    marks = [1.0, *(8.0 * 2**doubling for doubling in range(32))]
    return [mark for mark in marks if mark < budget] + [budget]


def summarise(request: Request, facts: Sequence[Facts], attempts: Sequence[Attempt]) -> Summary:
    """Work out what a race says.

    Args:
        request: What was raced.
        facts: What tasks are judged by.
        attempts: As they are to be judged.
    """
    agents = request.arena.agents
    field = Field.of(agents, facts, attempts)
    reference = request.reference or agents[0]
    seeds = [len(of_task[agents[0]]) for of_task in field.attempts.values()]
    return Summary(
        tables=bool(request.arena.describe()["tables"]),
        axis=request.axis,
        budget=request.limit,
        seeds=min(seeds, default=0),
        reference=reference,
        facts=field.facts,
        standings=tuple(_standing(field, name, reference, request) for name in agents),
        failures=dict(Counter(a.failure for a in attempts if a.failure is not None)),
    )


def _standing(field: Field, agent: str, reference: str, request: Request) -> Standing:
    attempts = field.all_of(agent)
    counts: Counter[str] = sum((Counter(a.counts) for a in attempts), Counter())
    reaching = field.reaching(agent, reference, request.axis)
    final = field.scores(agent, request.axis, np.inf)
    return Standing(
        agent=agent,
        failed=sum(attempt.failure is not None for attempt in attempts),
        attempts=len(attempts),
        failure_rate=1.0 - counts[Status.OK.value] / max(1, counts.total()),
        checkpoints=tuple(
            _checkpoint(field, agent, reference, request.axis, at)
            for at in checkpoints_of(request.axis, request.limit)
        ),
        sooner=geometric_mean(reaching.ratios),
        reached=reaching.share,
        by_task={
            fact.title: interquartile_mean([scores])
            for fact, scores in zip(field.facts, final, strict=True)
        },
    )


def _checkpoint(field: Field, agent: str, reference: str, axis: Axis, at: float) -> Checkpoint:
    ours, theirs = field.scores(agent, axis, at), field.scores(reference, axis, at)
    return Checkpoint(
        at,
        interquartile_mean(ours),
        mean([1.0 / of_task - 1.0 for of_task in ours]),
        None if agent == reference else probability_of_improvement(ours, theirs),
    )


def write_summary(folder: Path, summary: Summary) -> None:
    """Write `summary.json`."""
    text = msgspec.json.format(msgspec.json.encode(summary), indent=2)
    (folder / SUMMARY).write_bytes(text + b"\n")


def read_summary(folder: Path) -> Summary:
    """Read what `write_summary` wrote.

    Raises:
        OutputDirError: There is none, or it is damaged.
    """
    path = folder / SUMMARY
    try:
        return msgspec.json.decode(path.read_bytes(), type=Summary)
    except FileNotFoundError:
        raise OutputDirError(
            f"{path} does not exist; expected the --out directory of a finished schedenv compare"
        ) from None
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise OutputDirError(f"{path} cannot be read: {error}") from None
