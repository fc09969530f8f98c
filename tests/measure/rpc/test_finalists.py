"""Finalists compared on one device of a fleet."""

import pytest

from schedenv.errors import DeviceLostError
from schedenv.hardware import Hardware
from schedenv.measure import Status, rpc
from schedenv.measure.rpc import RpcMeasurer
from schedenv.space import UNTUNED
from schedenv.tasks import Task
from schedenv.tuning.confirm import confirm

from ..real_fleet import RealFleet
from .points import Faults, Points


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
        assert (measurer.slowdown() or 0.0) > 0.5
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
        with pytest.raises(DeviceLostError):
            measurer.slowdown()
    text = str(raised.value)
    assert text.startswith("the device on which the finalists were compared is lost (127.0.0.1:")
    assert text.endswith(f"; look with: schedenv fleet status --tracker {own_fleet.address}")
