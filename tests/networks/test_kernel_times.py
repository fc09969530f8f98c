"""What kernels take in a compiled network, and whose weights are packed."""

from pathlib import Path

import pytest

from schedenv import hardware as hw
from schedenv.errors import MachineError
from schedenv.networks import build, kernel_times
from schedenv.networks.kernel_times import InNetwork, by_kernel, time_kernels
from schedenv.tasks.networks.network import Network, Port
from schedenv.tasks.networks.prepare import prepare

INPUTS = (Port("x", (1, 3, 16, 16), "float32"),)


@pytest.fixture(scope="module")
def network(small_network: Path) -> Network:
    return prepare(small_network)


@pytest.fixture(scope="module")
def library(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build.build_tuned(network, {}, hw.detect(), tmp_path_factory.mktemp("built")).library


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
    with pytest.raises(MachineError, match=r"missing\.so cannot be run \(exit code 1\)"):
        time_kernels([tmp_path / "missing.so"], INPUTS, hw.detect())


def test_a_network_that_takes_too_long(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_times, "TIMEOUT_S", 0.1)
    with pytest.raises(MachineError, match="were not timed within 0 s"):
        time_kernels([library], INPUTS, hw.detect())


@pytest.mark.parametrize(
    ("before_s", "after_s", "deviation", "packed", "unpacked"),
    [
        pytest.param((2.0, 2.0), (1.0, 3.0), 0.1, 1, None, id="one is faster"),
        pytest.param((2.0, 2.0), (2.0, 3.0), 0.1, 0, None, id="none is"),
        pytest.param(
            (2.0, 2.0), (1.0, 1.0), 2.0, 0, "packed weights change the outputs", id="wrong"
        ),
    ],
)
def test_weights_are_packed_where_the_network_gains(
    network: Network,
    library: Path,
    monkeypatch: pytest.MonkeyPatch,
    before_s: tuple[float, float],
    after_s: tuple[float, float],
    deviation: float,
    packed: int,
    unpacked: str | None,
) -> None:
    names = sorted(network.entries)[:2]
    measured = InNetwork(
        [dict(zip(names, times_s, strict=True)) for times_s in (before_s, after_s)],
        [0.0, deviation],
    )
    monkeypatch.setattr(build, "time_kernels", lambda *_: measured)
    chosen = build.choose_packed(network, names, hw.detect(), library, library)
    assert chosen == (frozenset(names[:packed]), unpacked)


def test_networks_that_cannot_be_compared_stay_as_they_are(
    network: Network, library: Path, tmp_path: Path
) -> None:
    missing = tmp_path / "missing.so"
    chosen, why = build.choose_packed(network, network.entries, hw.detect(), library, missing)
    assert chosen == frozenset()
    assert why is not None
    assert "cannot be run" in why
