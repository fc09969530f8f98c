"""The fleet's measurer, on a real tracker and real servers: what candidates do."""

import pytest

from schedenv.hardware import Hardware
from schedenv.measure import Result, Status
from schedenv.measure.fleet_jobs import FleetLimits
from schedenv.measure.rpc import RpcMeasurer
from schedenv.space import UNTUNED, Point, Space
from schedenv.tasks import Task

from ..real_fleet import RealFleet
from .points import Faults, Points


def test_there_is_one_result_a_point_in_order_and_each_is_told_as_soon_as_it_is_known(
    measurer: RpcMeasurer, points: Points, tiny_space: Space, fleet: RealFleet
) -> None:
    asked = [UNTUNED, *points.take(4)]
    told: list[Result] = []
    results = measurer.measure(asked, on_result=told.append)
    assert [result.point for result in results] == asked
    assert [result.status for result in results] == [Status.OK] * 5
    assert sorted(told, key=lambda r: r.point) == sorted(results, key=lambda r: r.point)
    for result in results:
        assert result.estimate_s is not None
        assert min(result.samples_s) > 0
        assert result.slowdowns
        assert result.max_error is not None
        assert 0 <= result.max_error < 1
        assert min(result.phases.build_s, result.phases.verify_s, result.phases.run_s) > 0
    assert [result.program for result in results[1:]] == [
        tiny_space.canonical(point) for point in asked[1:]
    ]
    # Every device was given back.
    fleet.wait_for_queue(lambda queue: queue.free == 2)


def test_a_program_that_was_measured_is_not_measured_again(
    measurer: RpcMeasurer, points: Points
) -> None:
    (point,) = points.take(1)
    told: list[Result] = []
    both = measurer.measure([point, point], on_result=told.append)
    (third,) = measurer.measure([point], on_result=told.append)
    assert sorted(result.repeated for result in both) == [False, True]
    assert told == [result for result in both if not result.repeated]
    assert third.repeated
    assert {result.samples_s for result in (*both, third)} == {told[0].samples_s}


def test_no_points_give_no_results(measurer: RpcMeasurer) -> None:
    assert measurer.measure([]) == []


def test_an_illegal_point_is_a_constraint_and_harms_no_other(
    measurer: RpcMeasurer, points: Points
) -> None:
    good, other = points.take(2)
    wrong = Point(good.sketch, (7, *good.values[1:]))
    results = measurer.measure([good, wrong, other])
    assert [r.status for r in results] == [Status.OK, Status.CONSTRAINT, Status.OK]
    assert results[1].reason
    assert results[1].samples_s == ()


@pytest.mark.parametrize(
    ("fault", "status", "reason"),
    [
        ("one term short", Status.WRONG_RESULT, "the output deviates "),
        ("run raises", Status.RUN_ERROR, ""),
        ("run aborts", Status.CRASH, "its session died on 3 devices; last 127.0.0.1:"),
        pytest.param(
            "run exits",
            Status.CRASH,
            "its session died on 3 devices; last 127.0.0.1:",
            marks=pytest.mark.slow,
        ),
        pytest.param("build raises", Status.BUILD_ERROR, "no such luck", marks=pytest.mark.slow),
        pytest.param(
            "build exits", Status.CRASH, "worker exited with code 7", marks=pytest.mark.slow
        ),
    ],
)
def test_a_fault_becomes_a_status_and_every_other_candidate_is_measured(
    fault: str,
    status: Status,
    reason: str,
    measurer: RpcMeasurer,
    points: Points,
    faults: Faults,
    fleet: RealFleet,
) -> None:
    first, bad, last = points.take(3)
    faults.set({bad: fault})
    results = measurer.measure([first, bad, last])
    assert [result.status for result in results] == [Status.OK, status, Status.OK]
    assert results[1].reason is not None
    assert results[1].reason.startswith(reason)
    assert results[1].estimate_s is None
    # A server whose session died serves again.
    fleet.wait_for_queue(lambda queue: queue.free == 2)


@pytest.mark.slow
def test_a_kernel_that_hangs_is_ended_by_its_device(
    faults: Faults,
    fleet: RealFleet,
    tiny_task: Task,
    hardware: Hardware,
    points: Points,
) -> None:
    limits = FleetLimits(run_first_s=4.0, run_floor_s=4.0, jit_s=4.0)
    bad, good = points.take(2)
    faults.set({bad: "run hangs"})
    with RpcMeasurer(tiny_task, hardware, fleet.fleet, workers=2, limits=limits) as measurer:
        results = measurer.measure([bad, good])
    assert [result.status for result in results] == [Status.RUN_TIMEOUT, Status.OK]
    assert results[0].reason == "not verified and timed within a session of 8.01 s"
    fleet.wait_for_queue(lambda queue: queue.free == 2)
