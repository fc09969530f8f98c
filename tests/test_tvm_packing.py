"""Packed weights: which kernels have them, and that a network computes what it did."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from schedenv import hardware as hw
from schedenv import tvm_joins, tvm_packing, tvm_relax
from schedenv.space import Space
from schedenv.tvm_packing import Packed

torch = pytest.importorskip("torch")
nn = torch.nn


class Fire(nn.Module):
    """Two convolutions side by side, of 147 kB and 16 kB of weights, and a product of 256 kB."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Conv2d(64, 64, 3, padding=1)
        self.narrow = nn.Conv2d(64, 64, 1)
        self.last = nn.Linear(128, 512, bias=False)

    def forward(self, x: Any) -> Any:
        both = torch.cat([self.wide(x).relu(), self.narrow(x).relu()], 1)
        return self.last(both.mean((2, 3)))


@pytest.fixture(scope="module")
def network() -> tuple[Any, Any, Any]:
    """The module, an input, and its kernels, channels last."""
    torch.manual_seed(0)
    module, x = Fire().eval(), torch.randn(1, 64, 6, 6)
    program = torch.export.export(module, (x,)).run_decompositions()
    imported = tvm_relax.import_torch(program)
    return module, x, tvm_relax.fuse(tvm_relax.simplify(imported, channels_last=True))


def schedules(
    graph: Any, hardware: hw.Hardware, seed: int
) -> tuple[dict[str, Any], dict[str, Packed]]:
    """Random schedules of all kernels, and those that can be packed."""
    rng = np.random.default_rng(seed)
    scheduled, packed = {}, {}
    for kernel in tvm_relax.kernels(graph):
        space = Space(kernel.mod, hardware)
        for _ in range(40):
            mod = space.apply(space.sample(rng)).mod
            one = tvm_packing.pack(mod, kernel.weights)
            if one is not None or not kernel.weights:
                break
        scheduled[kernel.name] = mod
        if one is not None:
            packed[kernel.name] = one
    return scheduled, packed


@pytest.mark.parametrize("seed", range(3))
def test_a_network_with_packed_weights_computes_what_it_did(
    network: tuple[Any, Any, Any], hardware: hw.Hardware, seed: int
) -> None:
    import tvm
    from tvm import relax

    module, x, graph = network
    scheduled, packed = schedules(graph, hardware, seed)
    assert len(packed) == 2
    mod, called = tvm_packing.with_packed(graph, packed)
    functions = scheduled | {called[name]: one.kernel for name, one in packed.items()}
    mod = tvm_joins.join_in_place(mod, functions)
    relax.analysis.well_formed(mod)
    names = " ".join(tvm_relax.call_sequence(mod))
    assert names.count("_packed") == 2
    assert names.count("_packed_in_place") == 1
    executable = tvm_relax.compile_network(
        tvm_relax.with_kernels(mod, functions), hw.target(hardware)
    )
    main = relax.VirtualMachine(executable, tvm.cpu())["main"]
    actual = main(tvm.runtime.tensor(x.numpy())).numpy()
    with torch.inference_mode():
        np.testing.assert_allclose(actual, module(x).numpy(), rtol=1e-4, atol=1e-5)


def test_what_is_read_in_turn_lies_in_turn(
    network: tuple[Any, Any, Any], hardware: hw.Hardware
) -> None:
    from tvm import te
    from tvm.s_tir import Schedule

    left, right = te.placeholder((8, 512), name="left"), te.placeholder((512, 96), name="right")
    k = te.reduce_axis((0, 512), name="k")
    product = te.compute(
        (8, 96), lambda i, j: te.sum(left[i, k] * right[k, j], axis=k), name="product"
    )
    schedule = Schedule(te.create_prim_func([left, right, product]))
    block = schedule.get_sblock("product")
    i, j, k = schedule.get_loops(block)
    j_0, j_1, j_2 = schedule.split(j, [3, 2, 16])
    k_0, k_1 = schedule.split(k, [128, 4])
    schedule.reorder(j_0, k_0, j_1, k_1, i, j_2)
    schedule.vectorize(j_2)
    packed = tvm_packing.pack(schedule.mod, [1])
    assert packed is not None
    weights = np.arange(512 * 96).reshape(512, 96)
    in_turn = weights.reshape(128, 4, 3, 2, 16).transpose(2, 0, 3, 1, 4)
    np.testing.assert_array_equal(packed.pack(weights), in_turn)
    shape = packed.kernel["main"].params[1].shape
    assert tuple(int(extent) for extent in shape) == in_turn.shape


def test_few_weights_stay_as_they_are(network: tuple[Any, Any, Any], hardware: hw.Hardware) -> None:
    rng = np.random.default_rng(0)
    (narrow,) = (
        kernel
        for kernel in tvm_relax.kernels(network[2])
        if any(
            tuple(map(int, param.shape)) == (1, 1, 64, 64) for param in kernel.mod["main"].params
        )
    )
    space = Space(narrow.mod, hardware)
    for _ in range(10):
        assert tvm_packing.pack(space.apply(space.sample(rng)).mod, narrow.weights) is None


def test_kernels_without_weights_stay_as_they_are(network: tuple[Any, Any, Any]) -> None:
    for kernel in tvm_relax.kernels(network[2]):
        assert tvm_packing.pack(kernel.mod, ()) is None
