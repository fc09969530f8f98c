"""The book-keeping of a fleet's batch: looks, twins, deadlines; no fleet needed."""

import pytest

from schedenv.measure import messages
from schedenv.measure.fleet_jobs import Batch, FleetLimits, Job
from schedenv.measure.known import KnownResults
from schedenv.measure.result import Phases, Result, Status
from schedenv.measure.timing import Look
from schedenv.space import Point

LIMITS = FleetLimits()


def new_batch(
    count: int, incumbent_s: float | None = None, floor_s: float = 0.0
) -> tuple[Batch, list[Result]]:
    told: list[Result] = []
    jobs = [Job(number, Point(0, (number,))) for number in range(count)]
    return Batch(jobs, incumbent_s, told.append, KnownResults(), floor_s), told


def built(job: Job, program: str) -> messages.Built:
    return messages.Built(job.id, Status.OK, None, program, Phases(apply_s=1.0, build_s=2.0))


def ran(job: Job, *samples_s: float, slowdown: float | None = 1.5) -> messages.Ran:
    look = Look(samples_s, slowdown)
    return messages.Ran(job.id, Status.OK, None, look, 0.5, verify_s=3.0, run_s=4.0)


def test_a_candidate_far_from_the_incumbent_is_run_once() -> None:
    batch, told = new_batch(1, incumbent_s=1.0)
    (job,) = batch.jobs
    batch.built(job, built(job, "p"))
    batch.ran(batch.to_run.popleft(), ran(job, 2.0, 2.0))
    assert not batch.to_run
    assert told == [job.result]
    assert told[0].estimate_s == 2.0
    assert told[0].phases == Phases(apply_s=1.0, build_s=2.0, verify_s=3.0, run_s=4.0)


def test_a_candidate_close_to_the_incumbent_is_run_three_times_and_the_median_counts() -> None:
    batch, told = new_batch(1, incumbent_s=1.0)
    (job,) = batch.jobs
    batch.built(job, built(job, "p"))
    for sample_s in (0.2, 0.9, 1.1):
        assert told == []
        batch.ran(batch.to_run.popleft(), ran(job, sample_s))
    assert not batch.to_run
    assert told[0].estimate_s == 0.9
    assert told[0].samples_s == (0.2, 0.9, 1.1)
    assert told[0].slowdowns == (1.5, 1.5, 1.5)
    assert told[0].phases.run_s == 12.0
    assert batch.incumbent_s == 0.9


def test_beside_calm_looks_disturbed_ones_do_not_count() -> None:
    batch, told = new_batch(1, incumbent_s=1.0)
    (job,) = batch.jobs
    batch.built(job, built(job, "p"))
    for sample_s, slowdown in ((0.2, 1.5), (0.9, 1.0), (1.1, 1.1)):
        batch.ran(batch.to_run.popleft(), ran(job, sample_s, slowdown=slowdown))
    assert told[0].estimate_s == pytest.approx(1.0)
    assert told[0].counted == (False, True, True)
    assert told[0].corrected_s == (0.9, 1.1)


def test_an_impossible_time_is_dismissed_once_and_then_noise() -> None:
    batch, told = new_batch(1, floor_s=1e-6)
    (job,) = batch.jobs
    batch.built(job, built(job, "p"))
    batch.ran(batch.to_run.popleft(), ran(job, 2e-6, 9e-7))
    assert told == []
    batch.ran(batch.to_run.popleft(), ran(job, 5e-7, 2e-6))
    assert (told[0].status, told[0].reason) == (
        Status.NOISY,
        "timed at 0.5 us, below the 1 us that the device needs at the very least",
    )
    assert told[0].estimate_s is None


def test_a_broken_clock_is_noise_only_if_it_stays_broken() -> None:
    batch, told = new_batch(1)
    (job,) = batch.jobs
    batch.built(job, built(job, "p"))
    broken = messages.Ran(job.id, Status.NOISY, "the clock returned nan s")
    batch.ran(batch.to_run.popleft(), broken)
    batch.ran(batch.to_run.popleft(), ran(job, 1.0))
    assert told[0].estimate_s == 1.0


def test_a_device_that_times_no_reference_leaves_no_slowdown() -> None:
    batch, told = new_batch(1)
    (job,) = batch.jobs
    batch.built(job, built(job, "p"))
    batch.ran(batch.to_run.popleft(), ran(job, 1.0, slowdown=None))
    assert told[0].slowdowns == ()


def test_equal_programs_are_run_once_and_share_whatever_comes_out() -> None:
    batch, told = new_batch(3)
    for job in batch.jobs:
        batch.built(job, built(job, "same"))
    assert len(batch.to_run) == 1
    first, *twins = batch.jobs
    batch.finish(first, Status.CRASH, "it did")
    assert told == [first.result]
    for twin in twins:
        assert twin.result is not None
        assert twin.result.repeated
        assert twin.result.point == twin.point
        assert (twin.result.status, twin.result.reason) == (Status.CRASH, "it did")


def test_a_build_that_fails_is_finished_and_never_run() -> None:
    batch, told = new_batch(1)
    (job,) = batch.jobs
    batch.built(job, messages.Built(0, Status.BUILD_ERROR, "why", "p", Phases()))
    assert not batch.to_run
    assert [(result.status, result.reason) for result in told] == [(Status.BUILD_ERROR, "why")]


def test_a_device_is_held_as_long_as_the_run_the_compilation_and_the_transfer_may_take() -> None:
    nothing = LIMITS.session_s(1e-3, 0)
    assert nothing == LIMITS.run_s(1e-3) + LIMITS.jit_s
    # 40 MB of arguments over the slowest link, three times.
    assert LIMITS.session_s(1e-3, 40_000_000) == pytest.approx(nothing + 30.0)


def test_a_worker_that_waits_for_a_device_gives_up_before_its_parent_does() -> None:
    assert LIMITS.acquire_s > max(LIMITS.none_s, LIMITS.busy_s)
