"""Trackers and devices that die, freeze, come back, or are not what they should be."""

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from schedenv.errors import DeviceError
from schedenv.hardware import Hardware
from schedenv.measure import Result, Status
from schedenv.measure.fleet_jobs import FleetLimits
from schedenv.measure.rpc import RpcMeasurer
from schedenv.space import Point
from schedenv.tasks import Task

from ..real_fleet import KEY, RealFleet
from ..support import is_running, wait_until
from .points import Faults, Points

SLOW = "run is slow"


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

    from ..real_fleet import free_port

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    nowhere = Address("127.0.0.1", free_port())
    with pytest.raises(DeviceError, match=r"^the tracker at 127.0.0.1:\d+ cannot be reached"):
        RpcMeasurer(tiny_task, hardware, Fleet(nowhere, KEY))
    assert list(tmp_path.iterdir()) == []
