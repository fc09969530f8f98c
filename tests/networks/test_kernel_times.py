"""What kernels take in a compiled network."""

from pathlib import Path

import pytest

from schedenv import hardware as hw
from schedenv.errors import MachineError
from schedenv.networks import build, kernel_times
from schedenv.networks.kernel_times import by_kernel, time_kernels
from schedenv.tasks.networks.network import Network, Port
from schedenv.tasks.networks.prepare import prepare

INPUTS = (Port("x", (1, 3, 16, 16), "float32"),)


@pytest.fixture(scope="module")
def network(small_network: Path) -> Network:
    return prepare(small_network)


@pytest.fixture(scope="module")
def library(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built")
    return build.build_tuned(network, {}, hw.detect(), folder).linked.library


def test_every_kernel_of_every_network_has_a_time(network: Network, library: Path) -> None:
    measured = time_kernels([library, library], INPUTS, hw.detect())
    assert measured.deviations == [0.0, 0.0]
    for times_s in measured.times_s:
        found = by_kernel(times_s, network)
        assert found.keys() >= network.entries.keys()
        assert all(0 < spent_s < 1 for spent_s in found.values())


def test_names_of_compiled_kernels(network: Network) -> None:
    name = next(iter(network.entries))
    called = {f"{name}_packed": 1.0, f"{name}_packed1_in_place2": 2.0, f"{name}_in_place": 4.0}
    assert by_kernel({**called, name: 8.0, "vm.builtin.alloc_tensor": 16.0}, network) == {
        name: 15.0
    }


def test_a_library_that_cannot_be_run(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match=r"missing\.so cannot be timed \(exit code 1\)"):
        time_kernels([tmp_path / "missing.so"], INPUTS, hw.detect())


def test_a_network_that_takes_too_long(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_times, "TIMEOUT_S", 0.1)
    with pytest.raises(MachineError, match="were not timed within 0 s"):
        time_kernels([library], INPUTS, hw.detect())
