"""The fleet's measurer, on a real tracker and real servers: good, bad and lost."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from schedenv.calibration import peaks
from schedenv.errors import DeviceError, DeviceLostError
from schedenv.hardware import Hardware
from schedenv.measure import Result, Status, rpc
from schedenv.measure.fleet_jobs import FleetLimits
from schedenv.measure.probe import describe
from schedenv.measure.rpc import RpcMeasurer
from schedenv.space import UNTUNED, Point, Space
from schedenv.tasks import Task
from schedenv.tuning.finalists import confirm

from .real_fleet import KEY, RealFleet, Service
from .support import is_running, wait_until

SLOW = "run is slow"


class Points:
    """Points whose programs no other test has seen: a measurer never measures one twice."""

    def __init__(self, space: Space) -> None:
        self._space, self._rng = space, np.random.default_rng(3)
        self._seen: set[str] = set()

    def take(self, count: int) -> list[Point]:
        points: list[Point] = []
        while len(points) < count:
            point = self._space.sample(self._rng)
            form = self._space.canonical(point)
            if form not in self._seen:
                self._seen.add(form)
                points.append(point)
        return points


class Faults:
    """What the workers compile instead of certain points."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def set(self, faults: dict[Point, str]) -> None:
        self.file.write_text(json.dumps({str(point): fault for point, fault in faults.items()}))


@pytest.fixture(scope="module")
def points(tiny_space: Space) -> Points:
    return Points(tiny_space)


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faults]:
    file = tmp_path_factory.mktemp("faults") / "faults.json"
    file.write_text("{}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FAULTS", str(file))
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))
        patch.setattr(rpc, "WORKER_MODULE", "faulty_device_worker")
        yield Faults(file)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, hardware: Hardware) -> Iterator[RealFleet]:
    """A tracker and two servers that no test harms for good."""
    peaks(hardware)  # once; the servers find it in the cache
    real = RealFleet(tmp_path_factory.mktemp("fleet"))
    try:
        real.start_servers(2)
        yield real
    finally:
        real.close()


@pytest.fixture
def own_fleet(tmp_path: Path) -> Iterator[RealFleet]:
    """A tracker that a test may kill, and no server yet."""
    real = RealFleet(tmp_path)
    try:
        yield real
    finally:
        real.close()


@pytest.fixture(scope="module")
def measurer(
    faults: Faults, fleet: RealFleet, tiny_task: Task, hardware: Hardware
) -> Iterator[RpcMeasurer]:
    """One measurer for all faults of candidates: surviving one must not spoil the next."""
    with RpcMeasurer(tiny_task, hardware, fleet.fleet, workers=2) as measurer:
        yield measurer


# -- candidates -------------------------------------------------------------------------------


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


# -- lost devices -----------------------------------------------------------------------------


def busy_then(fleet: RealFleet, busy: int, action: Callable[[], None]) -> threading.Thread:
    """Do something as soon as so many devices are busy."""

    def run() -> None:
        if wait_until(lambda: fleet.queue().busy >= busy, 120.0):
            action()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def all_slow(faults: Faults, asked: list[Point]) -> None:
    faults.set(dict.fromkeys(asked, SLOW))


@pytest.mark.slow
def test_a_server_that_is_killed_costs_no_candidate_anything(
    own_fleet: RealFleet, faults: Faults, tiny_task: Task, hardware: Hardware, points: Points
) -> None:
    first, _ = own_fleet.start_servers(2)
    asked = points.take(3)
    all_slow(faults, asked)
    with RpcMeasurer(tiny_task, hardware, own_fleet.fleet, workers=2) as measurer:
        thread = busy_then(own_fleet, 2, first.kill)
        results = measurer.measure(asked)
        thread.join()
    assert not is_running(first.process.pid)
    assert [result.status for result in results] == [Status.OK] * 3


@pytest.mark.slow
def test_a_frozen_server_is_given_up_and_its_job_runs_elsewhere(
    own_fleet: RealFleet, faults: Faults, tiny_task: Task, hardware: Hardware, points: Points
) -> None:
    first, _ = own_fleet.start_servers(2)
    asked = points.take(3)
    all_slow(faults, asked)
    limits = FleetLimits(run_first_s=6.0, run_floor_s=6.0, jit_s=4.0, grace_s=4.0)

    def freeze() -> None:
        os.killpg(first.process.pid, signal.SIGSTOP)

    with RpcMeasurer(tiny_task, hardware, own_fleet.fleet, workers=2, limits=limits) as measurer:
        thread = busy_then(own_fleet, 2, freeze)
        results = measurer.measure(asked)
        thread.join()
    assert [result.status for result in results] == [Status.OK] * 3


@pytest.mark.slow
def test_when_all_devices_are_gone_the_run_ends_with_what_it_has(
    own_fleet: RealFleet, faults: Faults, tiny_task: Task, hardware: Hardware, points: Points
) -> None:
    servers = own_fleet.start_servers(2)
    good, *rest = points.take(4)
    all_slow(faults, rest)
    told: list[Result] = []

    def kill_all() -> None:
        for server in servers:
            server.kill()

    limits = FleetLimits(none_s=3.0)
    with RpcMeasurer(tiny_task, hardware, own_fleet.fleet, workers=2, limits=limits) as measurer:
        measurer.measure([good], on_result=told.append)
        thread = busy_then(own_fleet, 2, kill_all)
        with pytest.raises(DeviceError) as raised:
            measurer.measure(rest, on_result=told.append)
        thread.join()
        assert [result.status for result in told] == [Status.OK]
        text = str(raised.value)
        assert text.startswith(
            f"no device of key '{KEY}' came free within 3 s at the tracker {own_fleet.address} "
            "(0 registered, 0 free, "
        )
        assert text.endswith(
            f"; add one with: schedenv fleet serve --tracker {own_fleet.address} --key {KEY}, or "
            f"look with: schedenv fleet status --tracker {own_fleet.address}"
        )
        # The same measurer goes on when there are devices again.
        own_fleet.start_servers(1)
        faults.set({})
        assert all(result.ok for result in measurer.measure(rest))


@pytest.mark.slow
def test_a_tracker_that_dies_and_comes_back_costs_nothing(
    own_fleet: RealFleet, faults: Faults, tiny_task: Task, hardware: Hardware, points: Points
) -> None:
    own_fleet.start_servers(2)
    asked = points.take(3)
    all_slow(faults, asked)

    def restart() -> None:
        own_fleet.tracker.kill()
        own_fleet.start_tracker()

    with RpcMeasurer(tiny_task, hardware, own_fleet.fleet, workers=2) as measurer:
        thread = busy_then(own_fleet, 2, restart)
        results = measurer.measure(asked)
        thread.join()
    assert [result.status for result in results] == [Status.OK] * 3


@pytest.mark.slow
def test_a_tracker_that_stays_dead_is_an_error_within_the_bounded_wait(
    own_fleet: RealFleet, faults: Faults, tiny_task: Task, hardware: Hardware, points: Points
) -> None:
    own_fleet.start_servers(1)
    asked = points.take(3)
    all_slow(faults, asked)
    limits = FleetLimits(none_s=3.0)
    with RpcMeasurer(tiny_task, hardware, own_fleet.fleet, workers=1, limits=limits) as measurer:
        thread = busy_then(own_fleet, 1, own_fleet.tracker.kill)
        with pytest.raises(DeviceError) as raised:
            measurer.measure(asked)
        thread.join()
    assert str(raised.value) == (
        f"to find devices of key '{KEY}', the tracker at {own_fleet.address} cannot be reached "
        "within 3 s (Connection refused); start one with: schedenv fleet tracker --host 127.0.0.1 "
        f"--port {own_fleet.address.port}, or look with: schedenv fleet status --tracker "
        f"{own_fleet.address}"
    )


@pytest.mark.slow
def test_a_device_that_is_something_else_is_refused(
    fleet: RealFleet, tiny_task: Task, hardware: Hardware, points: Points
) -> None:
    import dataclasses

    other = dataclasses.replace(hardware, l2_bytes=12345)
    with (
        RpcMeasurer(tiny_task, other, fleet.fleet, workers=1) as measurer,
        pytest.raises(DeviceError) as raised,
    ):
        measurer.measure(points.take(1))
    text = str(raised.value)
    assert text.startswith("the device at 127.0.0.1:")
    assert text.endswith(
        f" is {hardware.fingerprint}, but this run is for {other.fingerprint}; devices of one key "
        f"('{KEY}') must be alike: serve it under another key"
    )


def test_closing_ends_every_process_and_removes_the_scratch_folder(
    fleet: RealFleet, tiny_task: Task, hardware: Hardware
) -> None:
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    measurer = RpcMeasurer(tiny_task, hardware, fleet.fleet, workers=1)
    scratch = measurer._scratch
    after = {child.pid for child in psutil.Process().children(recursive=True)}
    (pid,) = after - before
    measurer.close()
    measurer.close()
    assert not is_running(pid)
    assert not scratch.exists()


def test_a_fleet_without_a_tracker_is_an_error_at_once_and_leaves_nothing(
    tiny_task: Task, hardware: Hardware, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import tempfile

    from schedenv.measure.tracker import Address, Fleet

    from .real_fleet import free_port

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    nowhere = Address("127.0.0.1", free_port())
    with pytest.raises(DeviceError, match=r"^the tracker at 127.0.0.1:\d+ cannot be reached"):
        RpcMeasurer(tiny_task, hardware, Fleet(nowhere, KEY))
    assert list(tmp_path.iterdir()) == []


# -- finalists --------------------------------------------------------------------------------


@pytest.mark.slow
def test_finalists_are_compared_on_another_device_if_theirs_is_lost(
    own_fleet: RealFleet, tiny_task: Task, hardware: Hardware, points: Points
) -> None:
    servers = own_fleet.start_servers(2)
    opened: list[RpcMeasurer] = []

    class Losing(RpcMeasurer):
        def sample_s(self, job: rpc.Job, number: int) -> float:
            if len(opened) == 1:
                port = str(job.device).rpartition(":")[2]
                for server in servers:
                    if f":{port} " in server.log.read_text():
                        server.kill()
            return super().sample_s(job, number)

    def open_one(seed: int) -> RpcMeasurer:
        opened.append(Losing(tiny_task, hardware, own_fleet.fleet, workers=1, seed=seed))
        return opened[-1]

    verdict = confirm(tiny_task, hardware, points.take(2), open_comparer=open_one)
    assert len(opened) == 2
    assert len(verdict.baseline.samples_s) >= 2
    assert sum(server.process.poll() is None for server in servers) == 1


@pytest.mark.slow
def test_a_finalist_that_crashes_does_not_keep_the_others_from_being_sampled(
    fleet: RealFleet, faults: Faults, tiny_task: Task, hardware: Hardware, points: Points
) -> None:
    bad, good = points.take(2)
    faults.set({bad: "run aborts"})
    with RpcMeasurer(tiny_task, hardware, fleet.fleet, workers=1) as measurer:
        untuned, crashed, last = measurer.load([UNTUNED, bad, good])
        assert crashed.result.status is Status.CRASH
        assert untuned.result.ok
        assert last.result.ok
        assert untuned.sample_s() > 0
        assert last.sample_s() > 0
    fleet.wait_for_queue(lambda queue: queue.free == 2)


@pytest.mark.slow
def test_losing_the_device_of_loaded_kernels_says_where_to_look(
    own_fleet: RealFleet, tiny_task: Task, hardware: Hardware
) -> None:
    (server,) = own_fleet.start_servers(1)
    with RpcMeasurer(tiny_task, hardware, own_fleet.fleet, workers=1) as measurer:
        (kernel,) = measurer.load([UNTUNED])
        server.kill()
        with pytest.raises(DeviceLostError) as raised:
            kernel.sample_s()
    text = str(raised.value)
    assert text.startswith("the device on which the finalists were compared is lost (127.0.0.1:")
    assert text.endswith(f"; look with: schedenv fleet status --tracker {own_fleet.address}")


# -- servers ----------------------------------------------------------------------------------


def test_a_device_says_what_it_is(fleet: RealFleet, hardware: Hardware) -> None:
    description = describe(fleet.fleet, none_s=60.0, busy_s=60.0)
    assert description is not None
    assert description.hardware.fingerprint == hardware.fingerprint
    assert description.peaks.fingerprint == hardware.fingerprint


@pytest.mark.slow
def test_a_plain_server_of_tvm_can_be_used_but_does_not_say_what_it_is(
    own_fleet: RealFleet, tiny_task: Task, hardware: Hardware, points: Points
) -> None:
    own_fleet.start_plain_server()
    assert describe(own_fleet.fleet, none_s=60.0, busy_s=60.0) is None
    with RpcMeasurer(tiny_task, hardware, own_fleet.fleet, workers=1) as measurer:
        (result,) = measurer.measure(points.take(1))
    assert result.ok
    assert result.slowdowns == ()


HOLD_A_DEVICE = """
import sys, time
from schedenv.measure.device import DeviceSession
from schedenv.measure.tracker import Address, Fleet, wait_for_device
fleet = Fleet(Address.parse(sys.argv[1]), sys.argv[2])
session = DeviceSession(wait_for_device(fleet, none_s=60, busy_s=60), 600)
print("held", flush=True)
time.sleep(600)
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_server_that_ends_takes_its_session_along(
    number: signal.Signals, own_fleet: RealFleet
) -> None:
    (server,) = own_fleet.start_servers(1)
    with subprocess.Popen(
        [sys.executable, "-c", HOLD_A_DEVICE, str(own_fleet.address), KEY],
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            tree = server.tree()
            assert len(tree) == 2
            os.kill(server.process.pid, number)
            assert wait_until(lambda: not any(is_running(pid) for pid in tree))
        finally:
            holder.kill()
    expected = 143 if number is signal.SIGTERM else -signal.SIGKILL
    assert server.process.wait() == expected


@pytest.mark.slow
def test_a_client_that_is_killed_frees_its_device(own_fleet: RealFleet) -> None:
    own_fleet.start_servers(1)
    with subprocess.Popen(
        [sys.executable, "-c", HOLD_A_DEVICE, str(own_fleet.address), KEY],
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            assert own_fleet.queue().free == 0
        finally:
            holder.kill()
    own_fleet.wait_for_queue(lambda queue: queue.free == 1)


def test_a_tracker_ends_at_sigterm(tmp_path: Path) -> None:
    fleet = RealFleet(tmp_path)
    try:
        tracker: Service = fleet.tracker
        tree = tracker.tree()
        tracker.process.terminate()
        assert wait_until(lambda: not any(is_running(pid) for pid in tree))
        assert tracker.process.wait() == 143
    finally:
        fleet.close()
