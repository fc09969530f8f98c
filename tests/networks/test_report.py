"""What is to be tuned next, and the vendor's times by kernel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from schedenv import hardware as hw
from schedenv.errors import MachineError
from schedenv.networks import vendor
from schedenv.networks.report import tune_next
from schedenv.networks.vendor import Call, Profile, by_kernel, by_operator, profile
from schedenv.tasks.networks.network import Port
from schedenv.tasks.networks.prepare import prepare

from ..small_networks import make_network

INPUTS = (Port("x", (1, 3, 16, 16), "float32"),)


def row(
    kernel: str, total_us: float | None, roofline_us: float, vendor_us: float | None = None
) -> dict[str, Any]:
    """A kernel that is called twice."""
    return {
        "kernel": kernel, "calls": 2, "total_us": total_us, "roofline_us": roofline_us,
        "vendor_us": vendor_us,
    }  # fmt: skip


def test_the_kernel_that_takes_longest_beyond_its_roofline_is_next() -> None:
    rows = [row("large", 1000.0, 490.0), row("slow", 500.0, 100.0), row("small", 20.0, 8.0)]
    assert tune_next(rows) == ["slow", "large"]


def test_a_vendor_below_the_roofline_says_what_can_be_reached() -> None:
    # A pool's operands lie in the caches, and the roofline knows of memory alone.
    assert tune_next([row("pool", 100.0, 60.0, 30.0), row("conv", 900.0, 440.0)]) == [
        "pool", "conv",
    ]  # fmt: skip


def test_a_kernel_of_which_nothing_is_known_comes_first() -> None:
    assert tune_next([row("unknown", None, 1.0), row("slow", 500.0, 100.0)]) == ["unknown", "slow"]


def test_three_at_most_and_none_where_nothing_is_to_be_gained() -> None:
    assert len(tune_next([row(f"slow{n}", 500.0, 100.0) for n in range(5)])) == 3
    assert tune_next([row("at the limit", 500.0, 250.0)]) == []


def test_onnxruntimes_convolutions_are_found_by_shape(small_network: Path) -> None:
    pytest.importorskip("onnxruntime")
    network = prepare(small_network)
    measured = profile(small_network, INPUTS, hw.detect())
    assert measured.runs == vendor.RUNS // 2
    kinds = by_operator(measured)
    assert sum(kinds.values()) > 0
    assert any(kind.endswith("Conv") for kind in kinds)
    found = by_kernel(small_network, network, measured)
    convolutions = {name for name, entry in network.entries.items() if "conv2d" in entry.family}
    # It does not fuse the sum that comes after a ReLU, so that one is not told from others.
    assert found.keys() == {name for name in convolutions if "relu_add" not in name}
    assert all(us > 0 for us in found.values())


def test_convolutions_of_one_dimension_are_not_told_apart(
    small_network: Path, tmp_path: Path
) -> None:
    onnx = pytest.importorskip("onnx")
    weights = {"w": np.zeros((4, 3, 3), np.float32)}
    node = onnx.helper.make_node("Conv", ["x", "w"], ["y"], name="c")
    path = tmp_path / "line.onnx"
    onnx.save(make_network([node], weights, [1, 3, 16]), str(path))
    call = Call("Conv", "c", 1.0, ((1, 3, 16), (4, 3, 3)), (1, 4, 14))
    assert by_kernel(path, prepare(small_network), Profile([call], 1)) == {}


def test_a_network_that_takes_too_long(
    small_network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(vendor, "TIMEOUT_S", 0.1)
    with pytest.raises(MachineError, match=r"the operators of .*\.onnx were not timed within 0 s"):
        profile(small_network, INPUTS, hw.detect())


def test_a_file_that_cannot_be_run(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    missing = tmp_path / "missing.onnx"
    with pytest.raises(MachineError, match=r"missing\.onnx cannot be timed \(exit code 1\)"):
        profile(missing, INPUTS, hw.detect())
