"""The local measurer: what it returns for good candidates, and that it survives all others."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from schedenv.errors import MachineError
from schedenv.hardware import Hardware
from schedenv.measure import Result, Status
from schedenv.measure.local import Limits, LocalMeasurer
from schedenv.measure.shared import Bench
from schedenv.space import UNTUNED, Point, Space
from schedenv.tasks import Task

from .support import family_of, is_running, points_of, points_of_equal_code

# -- good candidates --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def measurer(tiny_task: Task, hardware: Hardware) -> Iterator[LocalMeasurer]:
    with LocalMeasurer(tiny_task, hardware, workers=2) as measurer:
        yield measurer


def test_there_is_one_result_a_point_in_order_and_each_is_told_as_soon_as_it_is_known(
    measurer: LocalMeasurer, tiny_space: Space
) -> None:
    points = points_of(tiny_space, 7)
    told: list[Result] = []
    results = measurer.measure(points, on_result=told.append)
    assert [result.point for result in results] == points
    assert [result.status for result in results] == [Status.OK] * 7
    assert sorted(told, key=lambda r: r.point) == sorted(results, key=lambda r: r.point)


def test_a_good_result_holds_its_samples_its_program_and_where_the_time_went(
    measurer: LocalMeasurer, tiny_space: Space
) -> None:
    (point,) = points_of(tiny_space, 1, seed=1)
    (result,) = measurer.measure([point])
    assert result.ok
    assert result.reason is None
    assert len(result.slowdowns) == 1
    assert result.drifts == ()
    assert result.code is not None
    assert len(result.samples_s) >= 1
    assert result.max_error is not None
    assert 0 <= result.max_error < 1
    assert result.program == tiny_space.canonical(point)
    phases = result.phases
    assert min(phases.apply_s, phases.build_s, phases.verify_s, phases.run_s) > 0


def test_the_same_point_twice_in_a_batch_gives_two_results_of_one_measurement(
    measurer: LocalMeasurer, tiny_space: Space
) -> None:
    (point,) = points_of(tiny_space, 1, seed=2)
    told: list[Result] = []
    first, second = measurer.measure([point, point], on_result=told.append)
    assert (first.point, second.point) == (point, point)
    assert {first.repeated, second.repeated} == {False, True}
    assert second.samples_s == first.samples_s
    assert told == [second if first.repeated else first]


def test_what_was_measured_before_is_answered_and_not_measured_again(
    measurer: LocalMeasurer, tiny_space: Space
) -> None:
    points = points_of(tiny_space, 2, seed=3)
    earlier = measurer.measure(points)
    told: list[Result] = []
    again = measurer.measure(points, on_result=told.append)
    assert told == []
    assert [r.samples_s for r in again] == [r.samples_s for r in earlier]
    assert all(result.repeated for result in again)


def test_results_of_an_earlier_run_are_not_measured_again(
    tiny_task: Task, hardware: Hardware, tiny_space: Space, measurer: LocalMeasurer
) -> None:
    points = points_of(tiny_space, 3, seed=4)
    earlier = measurer.measure(points[:2])
    with LocalMeasurer(tiny_task, hardware, workers=1) as later:
        later.remember(earlier)
        first, second, third = later.measure(points)
    assert (first.repeated, second.repeated, third.repeated) == (True, True, False)
    assert first.samples_s == earlier[0].samples_s


def test_measurers_on_a_bench_measure_one_after_the_other(
    tiny_task: Task, hardware: Hardware, tiny_space: Space
) -> None:
    points = points_of(tiny_space, 6, seed=4)
    with Bench([tiny_task], hardware) as bench:
        with LocalMeasurer(tiny_task, hardware, bench=bench) as first:
            earlier = first.measure(points[:3])
        with LocalMeasurer(tiny_task, hardware, bench=bench) as second:
            second.remember(earlier)
            assert all(result.ok for result in second.measure(points))
        with LocalMeasurer(tiny_task, hardware, bench=bench) as finals:
            assert all(loaded.result.ok for loaded in finals.load(points[:2]))


def test_what_was_fastest_in_an_earlier_run_is_what_candidates_have_to_beat(
    tiny_task: Task, hardware: Hardware, tiny_space: Space, measurer: LocalMeasurer
) -> None:
    points = points_of(tiny_space, 3, seed=4)
    earlier = [
        msgspec.structs.replace(result, estimate_s=estimate_s)
        for result, estimate_s in zip(measurer.measure(points), (1.1e-3, 1e-3, 2e-3), strict=True)
    ]
    with LocalMeasurer(tiny_task, hardware, workers=1) as later:
        later.remember(earlier)
        assert later._runner.best_s == 1e-3


@pytest.mark.slow
def test_points_of_equal_code_are_measured_once(
    tiny_task: Task, hardware: Hardware, tiny_space: Space
) -> None:
    """How far TVM may unroll is part of the program, but changes no code where loops are longer."""
    twins = next(iter(points_of_equal_code(tiny_space)))
    with LocalMeasurer(tiny_task, hardware, workers=2) as measurer:
        first, second = measurer.measure(twins)
    assert first.ok
    assert first.program != second.program
    assert first.code == second.code
    assert {first.repeated, second.repeated} == {False, True}
    assert second.estimate_s == first.estimate_s


def test_no_points_give_no_results(measurer: LocalMeasurer) -> None:
    assert measurer.measure([]) == []


def test_the_untuned_program_can_be_measured(measurer: LocalMeasurer, tiny_task: Task) -> None:
    (result,) = measurer.measure([UNTUNED])
    assert result.ok
    assert result.point == UNTUNED
    assert result.program == tiny_task.content_hash


def test_an_illegal_point_is_a_constraint_and_harms_no_other(
    measurer: LocalMeasurer, tiny_space: Space
) -> None:
    good, other = points_of(tiny_space, 2)
    wrong = Point(good.sketch, (7, *good.values[1:]))
    results = measurer.measure([good, wrong, other])
    assert [r.status for r in results] == [Status.OK, Status.CONSTRAINT, Status.OK]
    assert results[1].reason
    assert results[1].estimate_s is None
    assert results[1].samples_s == ()


def test_a_candidate_hopeless_against_the_incumbent_is_timed_roughly(
    measurer: LocalMeasurer, tiny_space: Space
) -> None:
    (result,) = measurer.measure(points_of(tiny_space, 1, seed=5), incumbent_s=1e-9)
    assert result.ok
    assert result.early_stopped
    assert result.estimate_s is not None


@pytest.mark.slow
def test_loaded_kernels_give_samples_until_others_are_loaded(
    tiny_task: Task, hardware: Hardware, tiny_space: Space
) -> None:
    with LocalMeasurer(tiny_task, hardware, workers=1) as measurer:
        kernels = measurer.load([UNTUNED, *points_of(tiny_space, 2)])
        assert all(kernel.result.ok for kernel in kernels)
        assert min(kernel.sample_s() for kernel in kernels for _ in range(2)) > 0
        slowdown = measurer.slowdown()
        assert slowdown is not None
        assert slowdown > 0.5


@pytest.mark.slow
def test_workers_are_replaced_after_their_share_of_builds_and_nothing_is_lost(
    tiny_task: Task, hardware: Hardware, tiny_space: Space
) -> None:
    limits = Limits(builds_per_worker=2)
    before = family_of(os.getpid())
    with LocalMeasurer(tiny_task, hardware, workers=1, limits=limits) as measurer:
        seen = set()
        for seed in range(3):
            points = points_of(tiny_space, 2, seed)
            assert all(result.ok for result in measurer.measure(points))
            seen |= family_of(os.getpid()) - before
    # Three workers, and the process that they were forked from.
    assert len(seen) == 4


def test_the_reference_of_a_task_that_cannot_be_computed_is_an_error_and_leaves_nothing(
    tiny_task: Task,
    hardware: Hardware,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    import dataclasses

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    broken = dataclasses.replace(tiny_task, spec="gmm:bad")
    with pytest.raises(MachineError, match=r"^the reference of gmm:1x32x32x32 cannot be computed"):
        LocalMeasurer(broken, hardware)
    assert [path for path in tmp_path.iterdir() if path.suffix != ".lock"] == []


def test_closing_ends_every_process_and_removes_the_scratch_folder(
    tiny_task: Task, hardware: Hardware
) -> None:
    before = family_of(os.getpid())
    measurer = LocalMeasurer(tiny_task, hardware, workers=2)
    scratch = measurer._scratch
    pids = family_of(os.getpid()) - before
    assert len(pids) == 3
    assert scratch.exists()
    measurer.close()
    measurer.close()
    assert not any(is_running(pid) for pid in pids)
    assert not scratch.exists()
