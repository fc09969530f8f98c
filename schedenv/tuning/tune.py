"""Tune one task from start to verdict: baseline, search, confirmation, files."""

from __future__ import annotations

import platform
import signal
import uuid
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec

from schedenv import hardware as hw
from schedenv.calibration import Peaks
from schedenv.errors import MachineError
from schedenv.measure.local import LocalMeasurer
from schedenv.measure.rpc import RpcMeasurer
from schedenv.measure.tracker import Fleet
from schedenv.records import RecordStore, Run, RunRecords
from schedenv.records.database import without_password
from schedenv.records.migrations import LEGACY_RUN
from schedenv.records.record import now
from schedenv.space import UNTUNED, Point, Space
from schedenv.tasks import Task
from schedenv.tuning import run_dir
from schedenv.tuning.agent import TuningContext, find_agent
from schedenv.tuning.budget import Budget
from schedenv.tuning.confirm import Verdict, confirm
from schedenv.tuning.finalists import Timing, best_candidates
from schedenv.tuning.loop import Loop, Progress

_INTERRUPTS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True)
class Request:
    """What to tune, and how.

    Attributes:
        task: The task.
        agent: Name of an installed agent.
        trials: Budget in candidates; None for no limit.
        seconds: Budget in seconds; None for no limit.
        seed: Of the agent and of the verification inputs.
        out: The run directory.
        resume: Continue the run in `out`.
        allow_foreign: Accept a store that holds records of other hardware.
        fleet: The devices to measure on; None for this machine.
        hardware: What they are; None for this machine.
        hardware_file: Where `hardware` was read from; None if the devices described themselves.
        store: Where results go, a path or a URL; None for a file in `out`.
    """

    task: Task
    agent: str
    trials: int | None
    seconds: float | None
    seed: int
    out: Path
    resume: bool = False
    allow_foreign: bool = False
    fleet: Fleet | None = None
    hardware: hw.Hardware | None = None
    hardware_file: Path | None = None
    store: str | None = None


class Watcher:
    """What happens while a run goes on, for a display; every method may be overridden."""

    def stage(self, name: str) -> None:
        """A stage begins: `prepare`, `baseline`, `search` or `confirm`."""

    def baseline(self, baseline_s: float) -> None:
        """The untuned program's estimate is known."""

    def progress(self, progress: Progress, budget: Budget) -> None:
        """Another candidate was measured."""


@dataclass(frozen=True)
class Outcome:
    """What a run found, and how it went.

    Attributes:
        verdict: The confirmed result; None if the run was interrupted.
        progress: The search.
        elapsed_s: Budget seconds spent.
        trials: Candidates measured.
        baseline_s: The search's estimate of the untuned program.
        interrupted_by: The signal that ended the search; None if the budget or the agent did.
    """

    verdict: Verdict | None
    progress: Progress
    elapsed_s: float
    trials: int
    baseline_s: float
    interrupted_by: int | None


def tune(request: Request, peaks: Peaks, watcher: Watcher | None = None) -> Outcome:
    """Tune a task and write the run directory.

    Ctrl-C and SIGTERM end the search; everything measured is kept, nothing is confirmed.

    Raises:
        InputError: The budget, the agent or the directory cannot be used.
        MachineError: The task does not fit, or the measurement backend failed.
        StoreError: Results cannot be stored.
    """
    watcher = watcher or Watcher()
    task, hardware = request.task, request.hardware or hw.detect()
    budget = Budget(request.trials, request.seconds)
    task.check_memory()
    space = Space(task.mod, hardware)
    factory = find_agent(request.agent)
    out = run_dir.open_run_dir(request.out, resume=request.resume)
    run = _describe_run(request, hardware, peaks, space)
    if request.resume:
        # Before runs had ids, a run directory's store held one run.
        run["run_id"] = run_dir.check_same_run(out, run).get("run_id", LEGACY_RUN)
    # Before the records: a directory that has some must be resumable.
    run_dir.write_json(out / run_dir.RUN, run)
    watcher.stage("prepare")
    with RecordStore(
        request.store or out / run_dir.RECORDS,
        hardware.fingerprint,
        # A store that several runs share may hold several machines' records, kept apart.
        allow_foreign=request.allow_foreign or request.store is not None,
    ) as store:
        records = RunRecords(store, _as_stored(run, request))
        with _open_measurer(request, hardware, peaks, request.seed) as measurer:
            watcher.stage("baseline")
            untuned = measurer.measure([UNTUNED])[0]
            if untuned.estimate_s is None:
                raise MachineError(
                    f"the untuned program of {task.name} failed ({untuned.status.value}: "
                    f"{untuned.reason}); nothing can be compared with it. Run: schedenv doctor"
                )
            untuned_s = untuned.estimate_s
            watcher.baseline(untuned_s)
            agent = factory.make(space, request.seed, TuningContext(task, hardware, untuned_s))
            loop = Loop(
                task, space, agent, measurer, records, budget, hardware,
                lambda progress: watcher.progress(progress, budget),
            )  # fmt: skip
            watcher.stage("search")
            interrupted_by = run_interruptibly(loop)
        elapsed_s = budget.elapsed_s
    run_dir.write_curve(out / run_dir.CURVE, loop.progress.curve)

    def outcome(verdict: Verdict | None) -> Outcome:
        return Outcome(
            verdict, loop.progress, elapsed_s, budget.used_trials, untuned_s, interrupted_by
        )

    if interrupted_by is not None:
        return outcome(None)
    watcher.stage("confirm")
    verdict = confirm(
        task,
        hardware,
        best_candidates(loop.results),
        request.seed,
        lambda seed: _open_measurer(request, hardware, peaks, seed, workers=1),
    )
    best = describe_best(task, space, hardware, peaks, verdict, outcome(verdict))
    run_dir.write_json(out / run_dir.BEST, best)
    return outcome(verdict)


def _open_measurer(
    request: Request, hardware: hw.Hardware, peaks: Peaks, seed: int, workers: int | None = None
) -> LocalMeasurer | RpcMeasurer:
    if request.fleet is None:
        return LocalMeasurer(request.task, hardware, workers=workers, seed=seed)
    return RpcMeasurer(
        request.task, hardware, request.fleet, peaks=peaks, workers=workers, seed=seed
    )


def run_interruptibly(loop: Loop) -> int | None:
    """Run the loop; the signal that interrupted it, if one did."""
    caught: list[int] = []

    def interrupt(number: int, _: object) -> None:
        caught.append(number)
        loop.interrupt()

    previous = {number: signal.signal(number, interrupt) for number in _INTERRUPTS}
    try:
        loop.run()
    except KeyboardInterrupt:
        return caught[0]
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    return None


def _describe_run(
    request: Request, hardware: hw.Hardware, peaks: Peaks, space: Space
) -> dict[str, Any]:
    return {
        "run_id": uuid.uuid4().hex,
        "store": without_password(request.store) if request.store else None,
        "task": request.task.spec,
        "task_hash": request.task.content_hash,
        "agent": request.agent,
        "trials": request.trials,
        "seconds": request.seconds,
        "seed": request.seed,
        "hardware": hardware.to_dict(),
        "fleet": f"{request.fleet.key} at {request.fleet.tracker}" if request.fleet else None,
        "peaks": msgspec.to_builtins(peaks),
        "space_points": space.size(),
        "versions": {
            name: version(name) for name in ("schedenv", "apache-tvm", "apache-tvm-ffi", "numpy")
        },
        "git_revision": run_dir.git_revision(),
    }


def _as_stored(run: dict[str, Any], request: Request) -> Run:
    """The run as the store keeps it."""
    return Run(
        id=str(run["run_id"]),
        task_hash=request.task.content_hash,
        task_name=request.task.name,
        agent=request.agent,
        seed=request.seed,
        host=platform.node() or None,
        details={key: run[key] for key in ("trials", "seconds", "hardware", "versions")},
        started_at=now(),
    )


def describe_best(
    task: Task,
    space: Space,
    hardware: hw.Hardware,
    peaks: Peaks,
    verdict: Verdict,
    outcome: Outcome,
) -> dict[str, Any]:
    """The content of `best.json`."""
    tuned = verdict.point != UNTUNED
    schedule = space.apply(verdict.point) if tuned else None
    low, ratio, high = verdict.ratios
    return {
        "task": task.spec,
        "name": task.name,
        "task_hash": task.content_hash,
        "hardware": hardware.fingerprint,
        "point": str(verdict.point) if tuned else None,
        "schedule": space.describe(verdict.point) if tuned else "untuned",
        "trace": [str(line) for line in schedule.trace.as_python()] if schedule else [],
        "tuned": _describe_timing(verdict.tuned, task, peaks),
        "baseline": _describe_timing(verdict.baseline, task, peaks),
        "speedup": {"estimate": ratio, "low": low, "high": high, "confidence": 0.95},
        "verified": {"max_error_of_tolerated": verdict.max_error},
        "estimator": "lower quartile of interleaved samples, geometric mean over processes",
        "trials": outcome.trials,
        "elapsed_s": outcome.elapsed_s,
        "counts": {status.value: count for status, count in outcome.progress.counts.items()},
        "repeats": outcome.progress.repeats,
        "machine_slowdown": outcome.progress.machine_range(),
    }


def _describe_timing(timing: Timing, task: Task, peaks: Peaks) -> dict[str, Any]:
    flops_per_s = task.flops / timing.latency_s
    return {
        "latency_us": timing.latency_s * 1e6,
        "low_us": timing.low_s * 1e6,
        "high_us": timing.high_s * 1e6,
        "gflops_per_s": flops_per_s / 1e9,
        "fraction_of_peak": flops_per_s / peaks.flops_per_s,
        "samples_us": [sample * 1e6 for sample in timing.samples_s],
    }


def best_point(out: Path) -> Point | None:
    """The winning point of a finished run; None if nothing beat the untuned program.

    Raises:
        OutputDirError: `out` holds no finished run.
    """
    text = run_dir.read_json(out / run_dir.BEST)["point"]
    return None if text is None else Point.parse(text)
