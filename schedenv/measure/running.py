"""Verify and time built candidates, one at a time, and let the best of them take turns.

The speed of a shared machine drifts by half within seconds, so a time alone says little about
which of two candidates is faster. Hence one good candidate, the yardstick, stays loaded and runs
again right before each other one; its slowdown against its own estimate gives the drift that the
other's samples are divided by. How its estimate is settled: `schedenv.measure.drift`.

The yardstick is not the fastest candidate. What is chosen for being fast was also lucky; measuring
by it would lend its luck to all that follow, the luckiest of which would be chosen next, until
estimates lie far below anything that the clock ever showed.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from schedenv.measure import messages
from schedenv.measure.building import crashed
from schedenv.measure.drift import Divisors, Scale
from schedenv.measure.job import Batch, Job
from schedenv.measure.pool import Ended, Limits, WorkerPool
from schedenv.measure.process import WorkerProcess
from schedenv.measure.result import Phases, Result, Status, robust_estimate
from schedenv.measure.timing import CALM, CLOSE_FACTOR, Look

OUTDATED = 1.3
"""A yardstick is replaced when the fastest candidate is so many times faster."""

_FIRST = 4
"""Candidates that are run before there is a yardstick."""

_TURNS = 3
_LEADERS_TURNS = 5
_MOST_TURNS = 9
_UNCLEAR_TURNS = 6
_CALM_TURNS = 2
_PATIENCE_S = 0.05
_AGREEMENT = 0.05
_CONFIRMED = 0.9
_DRIFT_LASTS_S = 0.25
_LONGEST_YARDSTICK_CALL_S = 0.02
_UNKNOWN_CALL_S = 1e-3
_SPIN_S = 2e-3
"""After so long the threads of a worker's pool sleep, having waited for work for a millisecond."""


@dataclass(frozen=True)
class Standard:
    """What a task's candidates are compared with, for another runner to go on with.

    Attributes:
        result: Of the yardstick.
        scale: What its times mean.
        best_s: Estimate of the fastest candidate so far.
    """

    result: Result
    scale: Scale
    best_s: float


class Runner:
    """Runs the jobs of batches and keeps one of the fast ones loaded, as the yardstick.

    Args:
        pool: The workers that built them.
        limits: Deadlines.
        floor_s: Seconds below which a measurement cannot be true.

    Attributes:
        yardstick: The job that the others are compared with; None before there is one.
        best_s: Estimate of the fastest job so far; None before there is one.
    """

    def __init__(self, pool: WorkerPool, limits: Limits, floor_s: float) -> None:
        self._pool, self._limits, self._floor_s = pool, limits, floor_s
        self._drift: tuple[Divisors, float] | None = None
        self._scale: Scale | None = None
        self._last: WorkerProcess | None = None
        self.yardstick: Job | None = None
        self.best_s: float | None = None

    def remember(
        self, yardstick: Job | None, best_s: float | None, scale: Scale | None = None
    ) -> None:
        """Compare what follows with this job, or with nothing yet.

        Args:
            yardstick: The job; None for nothing.
            best_s: Estimate of the fastest candidate so far; None if there is none.
            scale: What the yardstick's times mean to who compared with it before; None if its
                result is all that is known.
        """
        self.yardstick, self.best_s, self._drift = yardstick, best_s, None
        if yardstick is not None and scale is None:
            # What follows is compared with the results that this one was remembered from.
            scale = Scale(_estimate_s(yardstick), settled=True)
        self._scale = scale

    @property
    def standard(self) -> Standard | None:
        """What candidates are compared with; None before there is any."""
        yardstick, scale, best_s = self.yardstick, self._scale, self.best_s
        if yardstick is None or yardstick.result is None or scale is None or best_s is None:
            return None
        return Standard(yardstick.result, scale, best_s)

    def run_all(self, batch: Batch) -> None:
        """Verify and time every built job, then compare those close to the fastest."""
        waiting = [
            job for job in batch.jobs if job.result is None and job.held_by(self._pool.workers)
        ]
        while waiting:
            # The first few give a yardstick to time the others against.
            count = _FIRST if self.yardstick is None else len(waiting)
            self._run_some(waiting[:count], batch)
            waiting = waiting[count:]

    def _run_some(self, jobs: list[Job], batch: Batch) -> None:
        bar_s = batch.bar_s
        contenders: list[Job] = []
        for job in jobs:
            self._run(job, batch, bar_s)
            if _is_close(job.result, bar_s):
                contenders.append(job)
            self._pool.settle()
        batch.bar_s = self._compare(contenders, bar_s)
        for job in contenders:
            assert job.result is not None
            batch.finish(job, job.result)
        self._note_best(contenders)

    def _compare(self, contenders: Sequence[Job], bar_s: float | None) -> float | None:
        """Let contenders take turns, those that look fastest first, until no other comes close.

        The luckiest first look is far below what its turns then say, so it is no bar for others:
        one of them would be the fastest for having been looked at but once.

        Args:
            contenders: Jobs that one look found close to the bar.
            bar_s: Estimate of the fastest candidate before; None if there is none.

        Returns:
            That of the fastest one now.
        """
        rest = sorted(contenders, key=_estimate_s)
        while rest and _is_close(rest[0].result, bar_s):
            group = [job for job in rest if _is_close(job.result, _estimate_s(rest[0]))]
            rest = rest[len(group) :]
            self._take_turns(group)
            bar_s = min(bar_s or math.inf, *map(_estimate_s, group))
        return bar_s

    # -- one candidate --------------------------------------------------------------------------

    def _run(self, job: Job, batch: Batch, close_to_s: float | None) -> None:
        """Run a job; a result that is close to the fastest before it is not announced yet."""
        drift = self._drift_now()
        worker = job.worker
        if worker is None or not job.held_by(self._pool.workers):
            # Its worker died of the yardstick just now; it is built again.
            job.forget_build()
            return
        limit_s = self._limits.run_s(batch.bar_s)
        incumbent_s = None if batch.bar_s is None else batch.bar_s * (drift.likely if drift else 1)
        answer = self._ask(worker, messages.Run(job.id, incumbent_s), limit_s)
        if isinstance(answer, messages.Ran):
            result = self._judge(job, answer, drift)
            if _is_close(result, close_to_s):
                job.result = result
            else:
                batch.finish(job, result)
            if result.estimate_s is not None:
                batch.bar_s = min(result.estimate_s, batch.bar_s or math.inf)
        elif answer is Ended.OVERDUE:
            self._pool.replace(worker)
            reason = f"not verified and timed after {limit_s:.3g} s"
            spent = Phases(run_s=limit_s)
            batch.finish(job, job.result_so_far(Status.RUN_TIMEOUT, reason, spent))
            batch.lost(worker)
        else:
            crashed(job, worker, self._pool, batch)

    def _judge(self, job: Job, ran: messages.Ran, drift: Divisors | None) -> Result:
        """The result of a job after its first look; impossible times get a second one."""
        run_s = ran.run_s
        problem = self._impossible(ran.look)
        if ran.look is not None and problem is not None:
            again = self._look(job, _UNKNOWN_CALL_S)
            if again is not None:
                problem = self._impossible(again.look)
                run_s += again.run_s
                ran = msgspec.structs.replace(ran, look=again.look)
        if ran.look is not None:
            # A time that is not a number is told in words; the records cannot hold it.
            finite = tuple(filter(math.isfinite, ran.look.samples_s))
            look = msgspec.structs.replace(ran.look, samples_s=finite)
            job.looks.append((look, drift.of(look) if drift else None))
        unfit = ran.status is not Status.OK or problem is not None
        status = Status.NOISY if ran.status is Status.OK and problem else ran.status
        result = job.timed(job.result_so_far(status, ran.reason or problem))
        return msgspec.structs.replace(
            result,
            estimate_s=None if unfit else job.estimate_s,
            early_stopped=ran.look is not None and ran.look.early_stopped,
            max_error=ran.max_error,
            phases=msgspec.structs.replace(result.phases, verify_s=ran.verify_s, run_s=run_s),
        )

    def _impossible(self, look: Look | None) -> str | None:
        """Why a look cannot be true; None if it can."""
        if look is None:
            return None
        for sample_s in look.samples_s:
            if not math.isfinite(sample_s) or sample_s <= 0:
                return f"the clock returned {sample_s} s"
        if min(look.samples_s) < self._floor_s:
            return (
                f"timed at {min(look.samples_s) * 1e6:.3g} us, below the {self._floor_s * 1e6:.3g} "
                "us that this machine needs at the very least"
            )
        return None

    # -- the yardstick --------------------------------------------------------------------------

    def _drift_now(self) -> Divisors | None:
        """What to divide samples of this moment by; None if the yardstick cannot be asked."""
        yardstick = self.yardstick
        if yardstick is None or not yardstick.held_by(self._pool.workers):
            return None
        if self._scale is None or self._scale.estimate_s > _LONGEST_YARDSTICK_CALL_S:
            return None
        if self._drift is None or time.monotonic() > self._drift[1]:
            looked = self._look(yardstick, self._scale.estimate_s)
            if looked is None:
                # Whatever is wrong with it now, it must not cost another worker.
                self.yardstick = None
                return None
            before_s = self._scale.estimate_s
            drift = self._scale.follow(looked.look)
            if self.best_s is not None:
                self.best_s *= self._scale.estimate_s / before_s
            self._drift = (drift, time.monotonic() + _DRIFT_LASTS_S)
        return self._drift[0]

    def _take_turns(self, contenders: list[Job]) -> None:
        """Time contenders again, at several moments, each beside the yardstick.

        The first look chose them and so flatters them; their estimates come from the turns alone.
        Whoever had no calm one has some more. So has the leader, until they agree and some were
        calm: a burst of noise that hits the yardstick alone makes the job after it look twice as
        fast. A slow kernel is not compared that way.
        """
        if len(contenders) <= (self.yardstick is None):
            return
        for turn in range(_MOST_TURNS):
            leader = min(contenders, key=_estimate_s)
            leads = self._leads(leader) and not (turn >= _LEADERS_TURNS and _is_sure(leader))
            unclear = [
                job
                for job in contenders
                if turn < _TURNS
                or (turn < _UNCLEAR_TURNS and not job.calm)
                or (leads and job is leader)
            ]
            if not unclear:
                break
            for job in unclear:
                self._take_turn(job)

    def _leads(self, job: Job) -> bool:
        return _estimate_s(job) < min(self.best_s or math.inf, _LONGEST_YARDSTICK_CALL_S)

    def _take_turn(self, job: Job) -> None:
        result = job.result
        assert result is not None
        self._await_calm(job)
        self._drift = None
        drift = self._drift_now()
        if not job.held_by(self._pool.workers):
            # Its worker died of another candidate, of the yardstick, or just so.
            return
        looked = self._look(job, result.estimate_s or 0.0)
        if looked is not None:
            job.looks.append((looked.look, drift.of(looked.look) if drift else None))
            job.result = _with_looks(job, result, looked.run_s)

    def _await_calm(self, job: Job) -> None:
        """Wait for a moment that is not disturbed, but not for long."""
        assert job.worker is not None
        end_s = time.monotonic() + _PATIENCE_S
        while job.held_by(self._pool.workers):
            answer = self._ask(job.worker, messages.Probe(), self._limits.run_s(None))
            if not isinstance(answer, messages.Probed):
                self._pool.replace(job.worker)
                self._pool.settle()
            elif answer.slowdown is None or answer.slowdown < CALM or time.monotonic() > end_s:
                return

    def _note_best(self, contenders: list[Job]) -> None:
        """Note the fastest contender; make it the yardstick if that is missing or outdated."""
        held = [job for job in contenders if job.held_by(self._pool.workers)]
        if not held:
            return
        fastest = min(held, key=_estimate_s)
        self.best_s = min(_estimate_s(fastest), self.best_s or math.inf)
        yardstick, scale = self.yardstick, self._scale
        held_s = math.inf
        if yardstick is not None and scale is not None and yardstick.held_by(self._pool.workers):
            held_s = scale.estimate_s
        if yardstick is None or held_s > max(_LONGEST_YARDSTICK_CALL_S, _estimate_s(fastest)):
            # Nothing was divided by it, or it is gone: there is no scale to keep.
            self.yardstick, self._drift = fastest, None
            self._scale = Scale(_estimate_s(fastest), settled=not fastest.calm)
        elif scale is not None and _estimate_s(fastest) < held_s / OUTDATED:
            self._hand_over(yardstick, scale, fastest)

    def _hand_over(self, old: Job, scale: Scale, new: Job) -> None:
        """Replace the yardstick by one that is much faster, and not by luck.

        The two are timed beside each other, for the new one was chosen by its times so far.
        """
        turns: list[tuple[Look, Look]] = []
        while len(turns) < _MOST_TURNS:
            if len(turns) >= _LEADERS_TURNS and _agree([_ratio([turn]) for turn in turns]):
                break
            theirs = self._look(new, _estimate_s(new))
            ours = self._look(old, scale.estimate_s) if theirs is not None else None
            if theirs is None or ours is None:
                # Its worker, and what else that held, is gone.
                self.yardstick = None
                return
            turns.append((theirs.look, ours.look))
        ratio = _ratio([turn for turn in turns if all(look.calm for look in turn)] or turns)
        if ratio < _CONFIRMED:
            self.yardstick, self._drift, self._scale = new, None, scale.successor(ratio)

    def _look(self, job: Job, call_s: float) -> messages.Looked | None:
        """Time a loaded job once more; None if its worker failed, which is then replaced.

        A kernel that ran before is not expected to fail; if it does, what is known of it stands.
        """
        assert job.worker is not None
        # Even a kernel in a slow moment gets the time that the slowest admitted one would.
        request = messages.LookAgain(job.id, call_s)
        answer = self._ask(job.worker, request, self._limits.run_s(call_s))
        if isinstance(answer, messages.Looked):
            return answer
        self._pool.replace(job.worker)
        self._pool.settle()
        return None

    def _ask(
        self, worker: WorkerProcess, request: messages.Request, limit_s: float
    ) -> messages.Response | Ended:
        """Let a worker run something, once the threads of the one that ran before do not spin."""
        if self._last is not worker:
            time.sleep(_SPIN_S)
        self._last = worker
        worker.ask(request, limit_s)
        return self._pool.wait_for(worker)


def _with_looks(job: Job, result: Result, run_s: float) -> Result:
    """The result after another look that took `run_s`."""
    return msgspec.structs.replace(
        job.timed(result),
        estimate_s=job.estimate_s,
        phases=msgspec.structs.replace(result.phases, run_s=result.phases.run_s + run_s),
    )


def _ratio(turns: Sequence[tuple[Look, Look]]) -> float:
    """What the first of each pair took over what the second took."""
    first, second = (
        robust_estimate([sample_s for look in looks for sample_s in look.samples_s])
        for looks in zip(*turns, strict=True)
    )
    return first / second


def _is_sure(leader: Job) -> bool:
    """Whether its turns agree, and were not all disturbed by a neighbour."""
    return leader.calm and len(leader.judged) >= _CALM_TURNS and _agree(leader.estimates_s)


def _agree(turns: Sequence[float]) -> bool:
    """Whether most of several turns have brought about the same."""
    if not turns:
        return True
    logs = [math.log(turn) for turn in turns]
    middle = statistics.median(logs)
    return statistics.median(abs(log - middle) for log in logs) <= _AGREEMENT


def _estimate_s(job: Job) -> float:
    estimate_s = job.result.estimate_s if job.result is not None else None
    return math.inf if estimate_s is None else estimate_s


def _is_close(result: Result | None, bar_s: float | None) -> bool:
    """Whether a result is too close to the fastest one for one look to rank it."""
    return (
        result is not None
        and result.estimate_s is not None
        and (bar_s is None or result.estimate_s < CLOSE_FACTOR * bar_s)
    )
