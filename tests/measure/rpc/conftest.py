"""Real trackers, real servers, and a measurer on them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from schedenv.calibration import peaks
from schedenv.hardware import Hardware
from schedenv.measure import rpc
from schedenv.measure.rpc import RpcMeasurer
from schedenv.space import Space
from schedenv.tasks import Task

from ..real_fleet import RealFleet
from .points import Faults, Points


@pytest.fixture(scope="module")
def points(tiny_space: Space) -> Points:
    return Points(tiny_space)


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faults]:
    file = tmp_path_factory.mktemp("faults") / "faults.json"
    file.write_text("{}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FAULTS", str(file))
        patch.setenv("PYTHONPATH", str(Path(__file__).parent.parent))
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
