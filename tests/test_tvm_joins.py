"""Kernels that store into a concatenation: which ones do, and that the outputs stay the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from schedenv import hardware as hw
from schedenv import tvm_joins, tvm_relax
from schedenv.space import Space
from schedenv.tasks.networks.network import family_of

torch = pytest.importorskip("torch")
nn = torch.nn


class Fire(nn.Module):
    """Two convolutions of one image, what `join` makes of their results, and a pool."""

    def __init__(self, join: Callable[..., Any], *, bias: bool = True) -> None:
        super().__init__()
        self.narrow = nn.Conv2d(16, 8, 1, bias=bias)
        self.wide = nn.Conv2d(16, 24, 3, padding=1, bias=bias)
        self.join = join

    def forward(self, x: Any) -> Any:
        return torch.max_pool2d(self.join(self.wide(x), self.narrow(x), x), 2)


def prepared(module: Any, x: Any) -> Any:
    """The module as kernels, channels last."""
    torch.manual_seed(0)
    program = torch.export.export(module.eval(), (x,)).run_decompositions()
    imported = tvm_relax.import_torch(program)
    return tvm_relax.fuse(tvm_relax.simplify(imported, channels_last=True))


def joined(module: Any, schedule: Callable[[Any], dict[str, Any]] = lambda _: {}) -> list[str]:
    """The kernels' operators where concatenations are in place; outputs are compared."""
    import tvm
    from tvm import relax

    x = torch.randn(1, 16, 12, 12)
    graph = prepared(module, x)
    scheduled = schedule(graph)
    mod = tvm_joins.join_in_place(graph, scheduled)
    relax.analysis.well_formed(mod)
    found = [family_of(name) for name in tvm_relax.call_sequence(mod)]
    copies = {name for name in tvm_relax.call_sequence(graph) if family_of(name) == "concatenate"}
    assert tvm_joins.left_out(graph, mod) == (copies if in_place(found) else set())
    executable = tvm_relax.compile_network(
        tvm_relax.with_kernels(mod, scheduled), hw.target(hw.detect())
    )
    main = relax.VirtualMachine(executable, tvm.cpu())["main"]
    for _ in range(2):
        actual = main(tvm.runtime.tensor(x.numpy())).numpy()
        with torch.inference_mode():
            np.testing.assert_allclose(actual, module(x).numpy(), rtol=1e-4, atol=1e-5)
    return found


def in_place(found: list[str]) -> int:
    return sum(family.endswith("_in_place") for family in found)


def concatenated(*parts: Any) -> Any:
    return torch.cat(parts, 1)


def plain(wide: Any, narrow: Any, _: Any) -> Any:
    return concatenated(wide, narrow.relu())


def test_parts_are_stored_where_they_belong_and_the_concatenation_goes() -> None:
    found = joined(Fire(plain))
    assert in_place(found) == 2
    assert not any("concatenate" in family for family in found)


def test_a_part_may_be_computed_before_the_one_that_stands_before_it() -> None:
    found = joined(Fire(lambda wide, narrow, _: concatenated(narrow, wide)))
    assert in_place(found) == 2


@pytest.mark.parametrize(
    "join",
    [
        pytest.param(lambda wide, narrow, x: concatenated(wide, narrow) + narrow.mean(), id="read"),
        pytest.param(lambda wide, narrow, x: concatenated(wide, wide), id="twice"),
        pytest.param(lambda wide, narrow, x: concatenated(wide, x), id="input"),
        pytest.param(lambda wide, narrow, x: concatenated(wide, narrow) * 2, id="more"),
    ],
)
def test_other_concatenations_stay(join: Callable[..., Any]) -> None:
    assert in_place(joined(Fire(join))) == 0


def test_a_kernel_that_sums_up_its_result_in_place_is_left_as_it_is() -> None:
    sums = Fire(lambda wide, narrow, _: concatenated(wide, narrow), bias=False)
    assert in_place(joined(sums)) == 0


@pytest.mark.parametrize("seed", range(4))
def test_kernels_store_elsewhere_however_they_are_scheduled(
    seed: int, hardware: hw.Hardware
) -> None:
    rng = np.random.default_rng(seed)

    def schedule(graph: Any) -> dict[str, Any]:
        made = {}
        for kernel in tvm_relax.kernels(graph):
            if "conv2d" in kernel.name:
                space = Space(kernel.mod, hardware)
                made[kernel.name] = space.apply(space.sample(rng)).mod
        return made

    assert in_place(joined(Fire(plain), schedule)) == 2
