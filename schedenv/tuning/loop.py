"""The one tuning loop, the same for every agent, so that comparisons are fair by construction."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import numpy as np

from schedenv.errors import AgentError, SchedenvError
from schedenv.hardware import Hardware
from schedenv.measure import Measurer, Result, Status
from schedenv.space import Point, SearchSpace
from schedenv.tuning.agent import Agent
from schedenv.tuning.budget import Budget
from schedenv.tuning.contracts import ResultStore, TunedTask

BATCH = 16
"""Points asked for at once: enough to keep the builders busy, few enough to learn from soon."""

_FRUITLESS_ASKS = 50
"""Asks in a row that bring nothing unmeasured before the agent counts as having finished."""

_FEWEST_SLOWDOWNS = 10


@dataclass
class Progress:
    """What a tuning run has found so far.

    Attributes:
        best: The fastest verified result; None if there is none.
        counts: Measured candidates by status.
        repeats: Points asked for whose program had been measured before.
        curve: (seconds, trials, best seconds a call) at every improvement.
        slowdowns: How much slower than undisturbed the reference kernel was, with each candidate.
        fault: What the agent did wrong without breaking the loop, in words: it asked for nothing
            at all, or for less than one batch of different points and then for those alone. None
            if it did neither.
    """

    best: Result | None = None
    counts: Counter[Status] = field(default_factory=Counter)
    repeats: int = 0
    curve: list[tuple[float, int, float]] = field(default_factory=list)
    slowdowns: list[float] = field(default_factory=list)
    fault: str | None = None

    def add(self, result: Result, elapsed_s: float, trials: int) -> None:
        """Count one measured result."""
        self.counts[result.status] += 1
        self.slowdowns += result.slowdowns
        best_s = self.best.estimate_s if self.best is not None else None
        if result.estimate_s is not None and (best_s is None or result.estimate_s < best_s):
            self.best = result
            self.curve.append((elapsed_s, trials, result.estimate_s))

    def machine_range(self) -> tuple[float, float] | None:
        """The reference kernel's slowdowns, 10th and 90th percentile; None below ten of them."""
        if len(self.slowdowns) < _FEWEST_SLOWDOWNS:
            return None
        low, high = np.quantile(self.slowdowns, [0.1, 0.9])
        return float(low), float(high)


class Loop:
    """Asks an agent, measures, stores, tells, until the budget ends.

    Results that the store already holds are answered from it without being measured, and their
    trials and seconds count as spent. So a killed run resumes by simply running again: the agent
    asks for the same points, is told the same results, and goes on where it stopped.

    Args:
        task: What is tuned.
        space: Its points.
        agent: Who proposes.
        measurer: Who measures.
        store: Where results go, and where earlier ones come from.
        budget: When to stop.
        hardware: For the conditions stored with each result.
        on_progress: Called after every result.
        batch: Points asked for at once.
        hints: Legal points to be measured, and told to the agent, before it is asked for any.
    """

    def __init__(
        self,
        task: TunedTask,
        space: SearchSpace,
        agent: Agent,
        measurer: Measurer,
        store: ResultStore,
        budget: Budget,
        hardware: Hardware,
        on_progress: Callable[[Progress], None] | None = None,
        batch: int = BATCH,
        hints: Sequence[Point] = (),
    ) -> None:
        self._batch, self._hints = batch, hints
        self._task, self._space, self._agent = task, space, agent
        self._measurer, self._store, self._budget = measurer, store, budget
        self._on_progress = on_progress or (lambda _: None)
        self._conditions = {
            "threads": hardware.cores,
            "tvm": version("apache-tvm"),
            "schedenv": version("schedenv"),
        }
        self.progress = Progress()
        self._keeping = self._interrupted = False
        self._known: dict[str, Result] = {}
        self._answers: dict[Point, Result] = {}
        self._unreplayed: set[str] = set()
        for record in store.records(task.content_hash):
            self._known[record.canonical] = record.result
            self._answers[record.result.point] = record.result
            self._unreplayed.add(record.canonical)
            budget.used_trials += 1
            budget.used_s = max(budget.used_s, record.elapsed_s)
            self.progress.add(record.result, record.elapsed_s, budget.used_trials)
        measurer.remember(self.results)

    @property
    def results(self) -> list[Result]:
        """Every distinct program's result, in the order measured."""
        return list(self._known.values())

    def run(self) -> Progress:
        """Tune until the budget ends or the agent has nothing more to ask.

        Raises:
            AgentError: The agent raised, or asked for an illegal point.
            MachineError: The measurement backend failed.
            StoreError: A result cannot be stored.
        """
        self._budget.start()
        if self._hints and not self._budget.exhausted:
            self._serve(self._hints)
        fruitless = 0
        while not self._budget.exhausted and fruitless < _FRUITLESS_ASKS:
            # Never asked for fewer when the trials run short: a run that goes on with more of them
            # must ask as this one did.
            points = self._ask(self._batch)
            if not points:
                if not self._answers:
                    self.progress.fault = "it asked for nothing at all"
                break
            news = self._serve(points)
            fruitless = 0 if news else fruitless + 1
        # After a batch of different points it may have converged, and has then finished: there are
        # spaces in which those are a handful of programs.
        few = len(self._answers) < min(BATCH, self._space.size())
        if fruitless >= _FRUITLESS_ASKS and few:
            self.progress.fault = (
                f"{_FRUITLESS_ASKS} times in a row it asked only for what was measured already, "
                f"after {self._budget.used_trials} trials"
            )
        return self.progress

    def _ask(self, count: int) -> list[Point]:
        name = type(self._agent).__name__
        try:
            points = self._agent.ask(count)
        except SchedenvError:
            raise
        except Exception as error:
            raise AgentError(f"the agent {name} raised {type(error).__name__}: {error}") from error
        if len(points) > count:
            raise AgentError(
                f"the agent {name} was asked for at most {count} points and gave {len(points)}"
            )
        for point in points:
            reason = self._space.explain_illegal(point)
            if reason is not None:
                raise AgentError(f"the agent {name} asked for the illegal point {point}: {reason}")
        return points

    def _tell(self, answers: Sequence[Result]) -> None:
        try:
            self._agent.tell(answers)
        except SchedenvError:
            raise
        except Exception as error:
            raise AgentError(
                f"the agent {type(self._agent).__name__} raised {type(error).__name__} when told "
                f"results: {error}"
            ) from error

    def _serve(self, points: Sequence[Point]) -> bool:
        """Answer the agent's points, as far as the trials go; whether any was news to it."""
        fresh = [point for point in dict.fromkeys(points) if point not in self._answers]
        new: set[str] = set()
        while fresh and (allowed := self._budget.clip(len(fresh))) > 0:
            best = self.progress.best
            measured = self._measurer.measure(
                fresh[:allowed], best.estimate_s if best is not None else None, self._keep
            )
            new |= {result.canonical for result in measured if not result.repeated}
            self._answers.update((result.point, result) for result in measured)
            fresh = fresh[allowed:]
        answers = []
        for point in points:
            result = self._answers.get(point)
            if result is None:
                break
            form = result.canonical
            # Equal code of another program is answered with that program's result.
            news = form in new or form in self._unreplayed
            new.discard(form)
            self._unreplayed.discard(form)
            self.progress.repeats += not news
            answers.append(_as_answer(result, point, repeated=not news))
        self._tell(answers)
        return any(not answer.repeated for answer in answers)

    def interrupt(self) -> None:
        """End the search from a signal handler, by KeyboardInterrupt.

        While a result is being stored and counted, the exception waits until that is done.
        """
        if self._keeping:
            self._interrupted = True
        else:
            raise KeyboardInterrupt

    def _keep(self, result: Result) -> None:
        """Store one result at once, so that no interruption can lose it."""
        if result.canonical in self._known:
            return
        self._keeping = True
        try:
            self._store_and_count(result)
        finally:
            self._keeping = False
        if self._interrupted:
            raise KeyboardInterrupt
        self._on_progress(self.progress)

    def _store_and_count(self, result: Result) -> None:
        form = result.canonical
        elapsed_s = self._budget.elapsed_s
        conditions: dict[str, Any] = {**self._conditions, "load_1min": os.getloadavg()[0]}
        self._store.append(
            self._task.content_hash, self._task.name, form, result, elapsed_s, conditions
        )
        self._known[form] = result
        self._budget.used_trials += 1
        self.progress.add(result, elapsed_s, self._budget.used_trials)


def _as_answer(result: Result, point: Point, *, repeated: bool) -> Result:
    import msgspec

    return msgspec.structs.replace(result, point=point, repeated=repeated)
