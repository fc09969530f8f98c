"""What trackers and servers say of themselves, and what they leave behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from schedenv.hardware import Hardware
from schedenv.measure.probe import describe
from schedenv.measure.rpc import RpcMeasurer
from schedenv.tasks import Task

from ..real_fleet import KEY, RealFleet, Service
from ..support import is_running, wait_until
from .points import Points


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
    with RpcMeasurer(tiny_task, hardware, own_fleet.fleet, workers=1) as measurer:
        measurer.load(points.take(1))
        assert measurer.slowdown() is None
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
