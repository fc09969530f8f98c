"""A network's budget, slice by slice: choose a task, let its agent go on for a while, note it."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from schedenv import hardware as hw
from schedenv.calibration import Peaks
from schedenv.errors import MachineError, OutputDirError
from schedenv.measure.local import LocalMeasurer
from schedenv.measure.result import Result
from schedenv.measure.shared import Bench
from schedenv.networks.scheduler import Scheduler, TaskState
from schedenv.space import UNTUNED, Point, Space
from schedenv.space.carry import carried, distance
from schedenv.tasks import Task
from schedenv.tasks.networks.network import Network
from schedenv.tuning.agent import Agent, make_agent
from schedenv.tuning.budget import Budget
from schedenv.tuning.contracts import ResultStore
from schedenv.tuning.loop import Loop
from schedenv.tuning.tune import run_interruptibly

SLICE_TRIALS = 8
"""New candidates that a task gets at a time, one batch of its agent: few, since every task has to
get some before the scheduler can choose."""

_NEGLIGIBLE = 0.005
"""A task that takes, untuned, less than this share of all those that have had a slice is left as it
is, until the others have become so fast that it takes more.

Never its share of the roofline: a small convolution without a schedule can take a thousand times
its own, and as long as all the tuned kernels together.
"""

_HOPELESS = 3
"""Slices without any valid candidate after which a task is given up."""

_HINTS = 4
"""Tasks whose best points are carried to one that begins, and measured before its agent's."""


class Slice(msgspec.Struct, frozen=True):
    """One slice of the budget, as `slices.jsonl` keeps it.

    Attributes:
        task: The kernel's name.
        untuned_s: Seconds a call of the unscheduled kernel, timed with the first slice.
        trials: Candidates measured in it.
        seconds: What it took, everything included.
        best_s: Best seconds a call after it; None if nothing valid is known.
        finished: Whether the agent had nothing more to ask.
        hints: Points of similar tasks that the first slice began with, as text.
        negligible: Whether the task was left as it is, for now, because it takes so little.
    """

    task: str
    untuned_s: float
    trials: int
    seconds: float
    best_s: float | None
    finished: bool = False
    hints: tuple[str, ...] = ()
    negligible: bool = False


class SliceBudget(Budget):
    """A budget that never cuts a batch: the agent goes on in the next slice."""

    def clip(self, batch: int) -> int:
        """The whole batch."""
        return batch


@dataclass
class TunedKernel:
    """A kernel while its network is tuned.

    Attributes:
        task: What is tuned.
        space: Its points.
        agent: Who proposes.
        state: What the scheduler knows of it.
        trials: Candidates measured.
        best: The fastest verified result; None before there is one.
        hints: What the agent is told first; None before it is asked.
        agent_knows: Whether it was told them.
        negligible: Whether it was left as it is because it takes so little.
        finalists: The fastest ones, the best first, with times that were taken in turn after the
            search; empty before, and for kernels that matter little.
    """

    task: Task
    space: Space
    agent: Agent
    state: TaskState
    trials: int = 0
    best: Result | None = None
    hints: tuple[Point, ...] | None = None
    agent_knows: bool = False
    negligible: bool = False
    finalists: tuple[Result, ...] = ()

    @property
    def leaders(self) -> tuple[Result, ...]:
        """The fastest results, as well as they are known, the best first."""
        return self.finalists or (() if self.best is None else (self.best,))


@dataclass
class Search:
    """Spends a budget on the tasks of a network.

    Attributes:
        network: The network.
        kernels: Its tasks, by kernel name.
        history: The slices so far, those of earlier processes included.
        elapsed_s: Seconds that they took.
        curve: (seconds, trials, the network's seconds as the sum of its kernels') after each.
        interrupted_by: The signal that ended the search, if one did.
    """

    network: Network
    hardware: hw.Hardware
    store: ResultStore
    scheduler: Scheduler
    agent: str
    seed: int
    log: Path
    kernels: dict[str, TunedKernel] = field(default_factory=dict)
    history: list[Slice] = field(default_factory=list)
    curve: list[tuple[float, int, float]] = field(default_factory=list)
    interrupted_by: int | None = None

    @property
    def elapsed_s(self) -> float:
        """Seconds spent on slices so far."""
        return sum(part.seconds for part in self.history)

    @property
    def network_s(self) -> float:
        """What the tuned kernels take together; infinite until each has had a slice."""
        return sum(kernel.state.calls * kernel.state.now_s for kernel in self.kernels.values())

    @property
    def known_s(self) -> float:
        """What the kernels that have had a slice take together."""
        states = [kernel.state for kernel in self.kernels.values()]
        return sum(state.calls * state.now_s for state in states if state.best_s)

    def open(self, bench: Bench, peaks: Peaks) -> None:
        """Make the tasks' spaces and agents, and take over what an earlier process has found.

        Kernels that cannot be verified stay as they are.
        """
        for name, entry in self.network.entries.items():
            task = self.network.task(name)
            if task.content_hash in bench.failures:
                continue
            state = TaskState(entry.calls, entry.flops, entry.family, roofline(task, peaks))
            space = Space(task.mod, self.hardware)
            agent = make_agent(self.agent, space, self.seed)
            self.kernels[name] = TunedKernel(task, space, agent, state)
        for part in read_log(self.log):
            self._note(part)
        for kernel in self.kernels.values():
            results = [record.result for record in self.store.records(kernel.task.content_hash)]
            kernel.best = fastest(results)
            kernel.trials = len(results)

    def run(self, bench: Bench, seconds: float, on_slice: Callable[[Slice], None]) -> None:
        """Spend the budget; a second call with a larger one goes on.

        Raises:
            AgentError: An agent broke its contract.
            MachineError: The measurement backend failed.
            StoreError: A result cannot be stored.
        """
        names = list(self.kernels)
        while self.elapsed_s < seconds and self.interrupted_by is None:
            self._reconsider()
            states = [self.kernels[name].state for name in names]
            chosen = self.scheduler(states, [names.index(part.task) for part in self.history])
            if chosen is None:
                return
            part = self._slice(names[chosen], bench, seconds)
            if self.interrupted_by is None:
                append_log(self.log, part)
                self._note(part)
                on_slice(part)

    def _reconsider(self) -> None:
        """Open the tasks that took too little to be tuned, if the others are now so fast."""
        for kernel in self.kernels.values():
            if kernel.negligible:
                state = kernel.state
                state.finished = self._is_negligible(state.calls * state.untuned_s)

    def _is_negligible(self, spent_s: float) -> bool:
        return spent_s < _NEGLIGIBLE * self.known_s

    def _slice(self, name: str, bench: Bench, seconds: float) -> Slice:
        kernel = self.kernels[name]
        start_s = time.monotonic()
        budget = SliceBudget(seconds=seconds, used_s=self.elapsed_s)
        untuned_s = kernel.state.untuned_s
        with LocalMeasurer(kernel.task, self.hardware, bench=bench) as measurer:
            if not kernel.state.best_s:
                untuned_s = _time_untuned(kernel.task, measurer)
                if self._is_negligible(kernel.state.calls * untuned_s):
                    elapsed_s = time.monotonic() - start_s
                    return Slice(name, untuned_s, 0, elapsed_s, None, negligible=True)
            begins = kernel.hints is None
            if kernel.hints is None:
                kernel.hints = self._hints(name)
            loop = Loop(
                kernel.task, kernel.space, kernel.agent, measurer, self.store, budget,
                self.hardware, batch=SLICE_TRIALS,
                hints=() if kernel.agent_knows else kernel.hints,
            )  # fmt: skip
            kernel.agent_knows = True
            before = budget.used_trials
            budget.trials = before + SLICE_TRIALS
            self.interrupted_by = run_interruptibly(loop)
        kernel.best = loop.progress.best
        kernel.trials = budget.used_trials
        trials = budget.used_trials - before
        return Slice(
            name,
            untuned_s,
            trials,
            time.monotonic() - start_s,
            None if kernel.best is None else kernel.best.estimate_s,
            finished=trials < SLICE_TRIALS and budget.elapsed_s < seconds,
            hints=tuple(map(str, kernel.hints)) if begins else (),
        )

    def _hints(self, name: str) -> tuple[Point, ...]:
        """The best points of the tasks that are most like one, carried to its space."""
        kernel = self.kernels[name]
        near: list[tuple[float, str, Point]] = []
        for other_name, other in self.kernels.items():
            if other_name == name or other.best is None or not other.state.best_s:
                continue
            sketch = other.space.sketches[other.best.point.sketch]
            point = carried(other.best.point, sketch, kernel.space)
            if point is not None:
                near.append(
                    (distance(sketch, kernel.space.sketches[point.sketch]), other_name, point)
                )
        return tuple(dict.fromkeys(point for _, _, point in sorted(near)[:_HINTS]))

    def _note(self, part: Slice) -> None:
        kernel = self.kernels[part.task]
        kernel.negligible = part.negligible
        if kernel.hints is None and not part.negligible:
            kernel.hints = tuple(map(Point.parse, part.hints))
        state = kernel.state
        state.untuned_s = part.untuned_s
        best_s = state.now_s if part.best_s is None else min(part.best_s, state.now_s)
        state.best_s.append(best_s)
        # What finds nothing valid would look slow, and so promising, for ever.
        hopeless = part.best_s is None and len(state.best_s) >= _HOPELESS
        state.finished = state.finished or part.finished or hopeless
        self.history.append(part)
        trials = sum(past.trials for past in self.history)
        if math.isfinite(self.network_s):
            self.curve.append((self.elapsed_s, trials, self.network_s))


def _time_untuned(task: Task, measurer: LocalMeasurer) -> float:
    result = measurer.measure([UNTUNED])[0]
    if result.estimate_s is None:
        raise MachineError(
            f"the untuned program of {task.name} failed ({result.status.value}: "
            f"{result.reason}); nothing can be compared with it. Run: schedenv doctor"
        )
    return result.estimate_s


def roofline(task: Task, peaks: Peaks) -> float:
    """Seconds that a kernel needs at the machine's measured peaks, whichever limits it."""
    return max(task.flops / peaks.flops_per_s, task.bytes / peaks.copy_bytes_per_s)


def fastest(results: Sequence[Result]) -> Result | None:
    """The fastest verified result; None if there is none."""
    timed = [result for result in results if result.estimate_s is not None]
    return min(timed, key=lambda result: result.estimate_s or 0.0, default=None)


def append_log(path: Path, entry: Slice) -> None:
    """Note an entry; when this returns, it survives the death of the process.

    Raises:
        OutputDirError: The file cannot be written.
    """
    try:
        with path.open("ab") as file:
            file.write(msgspec.json.encode(entry) + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise OutputDirError(
            f"{path} cannot be written ({error.strerror}); make room and repeat the command with "
            "--resume"
        ) from None


def read_log(path: Path) -> list[Slice]:
    """The slices noted; a last line that was cut short is dropped from the file.

    Raises:
        OutputDirError: The file is damaged.
    """
    if not path.exists():
        return []
    lines = path.read_bytes().splitlines(keepends=True)
    if lines and not lines[-1].endswith(b"\n"):
        lines.pop()
        path.write_bytes(b"".join(lines))
    try:
        return [msgspec.json.decode(line, type=Slice) for line in lines]
    except msgspec.DecodeError as error:
        raise OutputDirError(
            f"{path} is damaged ({error}); delete it to start the count of the budget again: the "
            "records are kept"
        ) from None
