"""MetaSchedule in the race: TVM's own search in a process of its own, its best traces as points."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import subprocess
import sys
import threading
import warnings
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

import msgspec

from schedenv import hardware as hw
from schedenv import tvm_adapter
from schedenv.baselines import metaschedule_worker as worker
from schedenv.comparison.contestant import Entry
from schedenv.errors import AgentError
from schedenv.hardware import Hardware
from schedenv.measure.process import describe_end, kill_tree
from schedenv.records.import_worker import RECORDS, WORKLOADS
from schedenv.records.metaschedule_import import read_lines
from schedenv.space import Point
from schedenv.tasks import Task
from schedenv.tuning.budget import Budget
from schedenv.tuning.finalists import FINALISTS
from schedenv.tvm_tuning import Tuner

STOCK = Tuner(batch=64, warm_up=100, builders=None, rules=None, beside_pool=False)
"""Upstream's defaults."""

CANDIDATES = 2 * FINALISTS
"""Of the traces with the best times, how many are looked up in the space."""

OUTCOME = "outcome.json"
DATABASE = "database"
SHORTLIST = "shortlist"
LOG = "tuner.log"

_START_LIMIT_S = 300.0
_BUILD_LIMIT_S = 40.0
"""A little more than upstream's own deadline for one build or one run."""
_THINK_LIMIT_S = 240.0
_COMMIT_LIMIT_S = 60.0
# MetaSchedule stores 1e10 seconds for a candidate that failed.
_FAILED_S = 1e9


class NotInSpaceWarning(UserWarning):
    """Some of MetaSchedule's best traces are no points of the space; the message has claims."""


class Outcome(msgspec.Struct, frozen=True):
    """A finished run, as its folder keeps it.

    Attributes:
        request: What was asked; a run that asks for something else starts over.
        curve: As in `Entry`.
        trials: As in `Entry`.
        elapsed_s: As in `Entry`.
        counts: As in `Entry`.
        finalists: The points of the best traces, as text, fastest first.
        claimed_s: What MetaSchedule says that each finalist takes, seconds a call.
        outside: Of the best traces, those that are no points: what it claims for them, and why.
    """

    request: dict[str, Any]
    curve: tuple[tuple[float, int, float], ...]
    trials: int
    elapsed_s: float
    counts: dict[str, int]
    finalists: tuple[str, ...]
    claimed_s: tuple[float, ...]
    outside: tuple[tuple[float, str], ...]


class MetaSchedule:
    """TVM's EvolutionarySearch with its own cost model, builder and runner.

    Fair by construction: kernels run on the same threads and in the same place as this engine's,
    as many candidates are built at once, and rounds and warm-up are small enough for its model to
    get a say within a few hundred trials. Everything else is upstream's. Its clock starts when its
    processes run, as this engine's does; a candidate is charged to the moment at which it was
    timed, not to the end of its round.

    What it finds is neither verified nor free of the winner's curse; only finalists measured again
    with everyone's are comparable.

    Args:
        name: What results call it.
        tuner: Settings; None for the fair ones, `fair`.
    """

    def __init__(self, name: str = "metaschedule", tuner: Tuner | None = None) -> None:
        self.name = name
        self._tuner = tuner

    def run(self, task: Task, hardware: Hardware, budget: Budget, seed: int, out: Path) -> Entry:
        """Tune a task; see `schedenv.comparison.contestant.Contestant`.

        A finished run is not run again; one that was killed starts over, for a search that goes on
        from a database is another search.

        Raises:
            AgentError: TVM crashed, raised, or hung; its last words are in the message.
        """
        tuner = self._tuner or fair(hardware)
        described = _describe(task, hardware, budget, seed, tuner)
        outcome = read_outcome(out)
        if outcome is None or outcome.request != described:
            outcome = self._tune(task, hardware, budget, seed, out, tuner, described)
            text = msgspec.json.format(msgspec.json.encode(outcome))
            (out / f"{OUTCOME}.new").write_bytes(text)
            (out / f"{OUTCOME}.new").replace(out / OUTCOME)
        budget.used_trials, budget.used_s = outcome.trials, outcome.elapsed_s
        return Entry(
            outcome.curve,
            outcome.trials,
            outcome.elapsed_s,
            outcome.counts,
            tuple(Point.parse(point) for point in outcome.finalists),
            _check_outside(self.name, task, outcome),
        )

    def _tune(
        self,
        task: Task,
        hardware: Hardware,
        budget: Budget,
        seed: int,
        out: Path,
        tuner: Tuner,
        described: dict[str, Any],
    ) -> Outcome:
        for name in (DATABASE, SHORTLIST):
            shutil.rmtree(out / name, ignore_errors=True)
        directory = out / DATABASE
        directory.mkdir()
        request = worker.Request(
            tvm_adapter.module_to_json(task.mod),
            hardware,
            tuner,
            str(directory.absolute()),
            budget.trials,
            budget.seconds,
            seed,
        )
        with _Search(request, out, self.name) as search:
            tries, elapsed_s = search.follow(budget)
        curve: list[tuple[float, int, float]] = []
        for number, tried in enumerate(tries, start=1):
            if tried.status == "ok":
                seconds = sum(tried.seconds) / len(tried.seconds)
                if not curve or seconds < curve[-1][2]:
                    curve.append((tried.elapsed_s, number, seconds))
        finalists, outside = best_points(out, task, hardware)
        return Outcome(
            request=described,
            curve=tuple(curve),
            trials=len(tries),
            elapsed_s=elapsed_s,
            counts=dict(Counter(tried.status for tried in tries)),
            finalists=tuple(str(point) for point, _ in finalists),
            claimed_s=tuple(claimed_s for _, claimed_s in finalists),
            outside=tuple(outside),
        )


def stock() -> MetaSchedule:
    """MetaSchedule as `tune_tir` sets it up by itself."""
    return MetaSchedule("metaschedule-stock", STOCK)


class MetaScheduleDroplet(MetaSchedule):
    """MetaSchedule with its post-optimisation: Droplet Search from its best record, as shipped.

    A quarter of the budget, but no more than upstream's 100 trials, is Droplet's.
    """

    def __init__(self) -> None:
        super().__init__("metaschedule-droplet")

    def run(self, task: Task, hardware: Hardware, budget: Budget, seed: int, out: Path) -> Entry:
        """Tune a task; see `MetaSchedule.run`."""
        self._tuner = msgspec.structs.replace(fair(hardware), droplet=0.25)
        return super().run(task, hardware, budget, seed, out)


def fair(hardware: Hardware) -> Tuner:
    """MetaSchedule at its best for a few hundred trials on this machine; see `MetaSchedule`."""
    return Tuner(batch=32, warm_up=32, builders=hardware.cores, rules="llvm", beside_pool=True)


def read_outcome(out: Path) -> Outcome | None:
    """The outcome of a finished run; None if the folder holds none."""
    try:
        return msgspec.json.decode((out / OUTCOME).read_bytes(), type=Outcome)
    except (OSError, msgspec.MsgspecError):
        return None


def best_points(
    out: Path, task: Task, hardware: Hardware
) -> tuple[list[tuple[Point, float]], list[tuple[float, str]]]:
    """The best traces of a run's database as points of the task's space.

    Args:
        out: The run's folder; a folder `shortlist` with the best lines is left in it.
        task: What was tuned.
        hardware: What it was tuned for.

    Returns:
        At most `FINALISTS` points with the seconds a call that MetaSchedule claims, fastest first;
        and for every better trace that is no point, its claim and the reason.
    """
    lines = _shortlist(out)
    points: dict[str, tuple[Point, float]] = {}
    outside = []
    if lines:
        for line, (claimed_s, _) in zip(
            read_lines(out / SHORTLIST, task, hardware), lines, strict=True
        ):
            if len(points) == FINALISTS:
                break
            if line.point is None or line.canonical is None:
                outside.append((claimed_s, line.reason or line.kind))
            else:
                points.setdefault(line.canonical, (Point.parse(line.point), claimed_s))
    return list(points.values()), outside


def _shortlist(out: Path) -> list[tuple[float, str]]:
    """Write the best lines of the database, and of Droplet's log, as a database of their own."""
    timed: dict[str, float] = {}
    # Droplet's log is merged into the database at its end; of one that was stopped it is left.
    for path in (out / DATABASE / RECORDS, *(out / DATABASE).glob("opt_*.log")):
        for text in path.read_text().splitlines() if path.exists() else ():
            # The last line of a tuner that was killed may be half of one.
            with contextlib.suppress(ValueError, TypeError, IndexError):
                seconds = json.loads(text)[1][1]
                mean_s = sum(seconds) / len(seconds) if seconds else _FAILED_S
                if mean_s < _FAILED_S:
                    timed[text] = mean_s
    best = sorted((seconds, text) for text, seconds in timed.items())[:CANDIDATES]
    if best:
        (out / SHORTLIST).mkdir(exist_ok=True)
        shutil.copy(out / DATABASE / WORKLOADS, out / SHORTLIST / WORKLOADS)
        (out / SHORTLIST / RECORDS).write_text("".join(f"{text}\n" for _, text in best))
    return best


def _describe(
    task: Task, hardware: Hardware, budget: Budget, seed: int, tuner: Tuner
) -> dict[str, Any]:
    return {
        "task_hash": task.content_hash,
        "hardware": hardware.fingerprint,
        "trials": budget.trials,
        "seconds": budget.seconds,
        "seed": seed,
        "tuner": msgspec.to_builtins(tuner),
        "tvm": version("apache-tvm"),
    }


def _check_outside(name: str, task: Task, outcome: Outcome) -> str | None:
    """Say which of the best traces cannot be measured again; the fault, if that is all of them."""
    if not outcome.outside:
        return None
    claims = "; ".join(f"{claimed_s * 1e6:.4g} us: {why}" for claimed_s, why in outcome.outside)
    if not outcome.finalists:
        return f"none of its best traces is a point of the space ({claims})"
    warnings.warn(
        f"{name} on {task.name}: {len(outcome.outside)} of its best traces are no points of the "
        f"space and are not measured again ({claims}); {len(outcome.finalists)} others are",
        NotInSpaceWarning,
        stacklevel=3,
    )
    return None


class _Search:
    """The tuner's process, and everything that it leaves behind."""

    def __init__(self, request: worker.Request, out: Path, name: str) -> None:
        self._name, self._request = name, request
        self._log = out / LOG
        self._scratch = out / "scratch"
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._scratch.mkdir()
        request_file = self._scratch / "request.json"
        request_file.write_bytes(msgspec.json.encode(request))
        environment = {
            **os.environ,
            **hw.kernel_environment(request.hardware),
            # TVM leaves what it has built in the temporary directory.
            "TMPDIR": str(self._scratch.absolute()),
        }
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", worker.__name__, str(request_file)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        assert self._process.stdout is not None
        self._messages: queue.SimpleQueue[worker.Message | None] = queue.SimpleQueue()
        threading.Thread(target=self._listen, args=(self._process.stdout,), daemon=True).start()

    def __enter__(self) -> _Search:
        return self

    def __exit__(self, *_: object) -> None:
        kill_tree(self._process.pid)
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def follow(self, budget: Budget) -> tuple[list[worker.Tried], float]:
        """Listen until the search ends, by itself or with the budget.

        Returns:
            Every candidate that ended within the budget, and the seconds spent.

        Raises:
            AgentError: The search crashed, raised or hung.
        """
        if not isinstance(self._next(_START_LIMIT_S), worker.Started):
            raise self._failed("said something before it had started", 0)
        budget.start()
        tries: list[worker.Tried] = []
        for message in self._until(budget, tries):
            if isinstance(message, worker.Tried):
                if budget.seconds is None or message.elapsed_s <= budget.seconds:
                    tries.append(message)
                    budget.used_trials = len(tries)
            elif isinstance(message, worker.Done):
                return tries, message.elapsed_s
        return tries, budget.elapsed_s

    def _until(self, budget: Budget, tries: list[worker.Tried]) -> Iterator[worker.Message]:
        """Messages up to the last one that matters; silence and death are errors."""
        limit_s, running = _THINK_LIMIT_S, False
        while True:
            left_s = None if budget.seconds is None else budget.seconds - budget.elapsed_s
            if left_s is not None and not running:
                # What is being thought of or built now cannot count any more when the time is up.
                message = self._next(min(limit_s, max(0.0, left_s)), len(tries), left_s <= limit_s)
            else:
                message = self._next(limit_s, len(tries))
            if message is None:
                return
            yield message
            if isinstance(message, worker.Done):
                return
            match message:
                case worker.Building(count):
                    builds = -(-count // max(1, self._request.tuner.builders or 1))
                    limit_s = _THINK_LIMIT_S + _BUILD_LIMIT_S * builds
                case worker.Running():
                    limit_s, running = _THINK_LIMIT_S, True
                case worker.Committed():
                    limit_s, running = _THINK_LIMIT_S, False

    def _next(
        self, limit_s: float, trials: int = 0, may_end: bool = False
    ) -> worker.Message | None:
        """The next message; None if none came in time and that `may_end` the search.

        Raises:
            AgentError: The process is dead, or silent for too long.
        """
        try:
            message = self._messages.get(timeout=limit_s)
        except queue.Empty:
            if may_end:
                return None
            raise self._failed(f"said nothing for {limit_s:.0f} s", trials) from None
        if message is None:
            self._process.wait()
            raise self._failed(describe_end(self._process.returncode, self._log), trials)
        return message

    def _failed(self, how: str, trials: int) -> AgentError:
        return AgentError(f"{self._name} failed after {trials} trials: TVM's tuner {how}")

    def _listen(self, answers: IO[bytes]) -> None:
        with contextlib.suppress(OSError, ValueError):
            for line in answers:
                self._messages.put(worker.decode(line))
        self._messages.put(None)
