"""Verify and time built candidates, one at a time, and let the best of them take turns.

A sample is what the clock showed. What a shared machine adds to it is not divided out, by whatever:
other kernels are slowed down by other factors, and of many candidates the one that is divided by
too much would lead (`runs/drift.md`). Instead the moments are told apart: the reference kernel says
which are calm, whoever comes close to the fastest waits for one, and where there are calm looks at
a candidate they alone count.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence

import msgspec

from schedenv.measure import messages
from schedenv.measure.building import crashed
from schedenv.measure.job import Batch, Job
from schedenv.measure.pool import Ended, Limits, WorkerPool
from schedenv.measure.process import WorkerProcess
from schedenv.measure.result import Phases, Result, Status
from schedenv.measure.timing import CALM, CLOSE_FACTOR, Look

_TURNS = 3
_LEADERS_TURNS = 5
_MOST_TURNS = 9
_UNCLEAR_TURNS = 6
_CALM_TURNS = 2
_PATIENCE_S = 0.05
_AGREEMENT = 0.05
_LONGEST_LED_CALL_S = 0.02
_UNKNOWN_CALL_S = 1e-3
_SPIN_S = 2e-3
"""After so long the threads of a worker's pool sleep, having waited for work for a millisecond."""


class Runner:
    """Runs the jobs of batches.

    Args:
        pool: The workers that built them.
        limits: Deadlines.
        floor_s: Seconds below which a measurement cannot be true.

    Attributes:
        best_s: Estimate of the fastest job so far; None before there is one.
    """

    def __init__(self, pool: WorkerPool, limits: Limits, floor_s: float) -> None:
        self._pool, self._limits, self._floor_s = pool, limits, floor_s
        self._last: WorkerProcess | None = None
        self.best_s: float | None = None

    def run_all(self, batch: Batch) -> None:
        """Verify and time every built job, then compare those close to the fastest."""
        bar_s = batch.bar_s
        contenders: list[Job] = []
        for job in batch.jobs:
            if job.result is not None or job.built is None:
                continue
            if not job.held_by(self._pool.workers):
                # Its worker died of another one's second look just now; it is built again.
                job.forget_build()
                continue
            self._run(job, batch, bar_s)
            if _is_close(job.result, bar_s):
                contenders.append(job)
            self._pool.settle()
        batch.bar_s = self._compare(contenders, bar_s)
        for job in contenders:
            assert job.result is not None
            batch.finish(job, job.result)
            self.best_s = min(_estimate_s(job), self.best_s or math.inf)

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
        worker = job.worker
        assert worker is not None
        limit_s = self._limits.run_s(batch.bar_s)
        answer = self._ask(worker, messages.Run(job.id, batch.bar_s), limit_s)
        if isinstance(answer, messages.Ran):
            result = self._judge(job, answer)
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

    def _judge(self, job: Job, ran: messages.Ran) -> Result:
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
            job.looks.append(msgspec.structs.replace(ran.look, samples_s=finite))
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

    # -- turns ----------------------------------------------------------------------------------

    def _take_turns(self, contenders: list[Job]) -> None:
        """Time contenders again, at several moments.

        The first look chose them and so flatters them; their estimates come from the turns alone.
        Whoever had no calm one has some more. So has the leader, until they agree and some were
        calm. A slow kernel does not get those.
        """
        if len(contenders) <= (self.best_s is None):
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
        return _estimate_s(job) < min(self.best_s or math.inf, _LONGEST_LED_CALL_S)

    def _take_turn(self, job: Job) -> None:
        result = job.result
        assert result is not None
        self._await_calm(job)
        if not job.held_by(self._pool.workers):
            # Its worker died of another candidate, or just so.
            return
        looked = self._look(job, result.estimate_s or 0.0)
        if looked is not None:
            job.looks.append(looked.look)
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
