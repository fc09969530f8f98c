"""Which schedule of a kernel, and which layout of its weights, goes into the network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from schedenv import hardware as hw
from schedenv import tvm_packing
from schedenv.errors import MachineError
from schedenv.measure.result import Result, Status
from schedenv.networks import variants as module
from schedenv.networks.kernel_times import InNetwork
from schedenv.networks.scheduler import TaskState
from schedenv.networks.slices import TunedKernel
from schedenv.networks.variants import MOST_VARIANTS, fastest_in_network, nth_of_each, variants
from schedenv.space import Space
from schedenv.tasks.networks.network import Network
from schedenv.tasks.networks.prepare import prepare
from schedenv.tuning.agent import make_agent

LIBRARIES = [Path("first.so"), Path("second.so"), Path("third.so")]


@pytest.fixture(scope="module")
def network(small_network: Path) -> Network:
    return prepare(small_network)


@pytest.fixture(scope="module")
def convolution(network: Network) -> TunedKernel:
    """With six finalists, the last of which is slower than the unscheduled program."""
    name = next(name for name in network.entries if network.entries[name].weights)
    task = network.task(name)
    space = Space(task.mod, hw.detect())
    rng = np.random.default_rng(0)
    points = list(dict.fromkeys(space.sample(rng) for _ in range(6)))
    assert len(points) == 6
    finalists = tuple(
        Result(point=point, status=Status.OK, estimate_s=float(number))
        for number, point in enumerate(points, 1)
    )
    state = TaskState(1, task.flops, "conv2d", 1e-6, untuned_s=6.0, best_s=[1.0])
    agent = make_agent("random", space, 0)
    return TunedKernel(task, space, agent, state, best=finalists[-1], finalists=finalists)


def ranks(kernel: TunedKernel, weights: list[int]) -> list[tuple[float | None, bool]]:
    """The times apart of a kernel's variants, and whether they are packed."""
    found = variants(kernel, weights)
    return [(variant.result.estimate_s, variant.packed is not None) for variant in found]


def test_without_weights_to_pack_the_fastest_schedules_are_tried(convolution: TunedKernel) -> None:
    assert ranks(convolution, []) == [(1.0, False), (2.0, False), (3.0, False), (4.0, False)]


def test_the_fastest_is_tried_both_ways_and_others_packed(
    convolution: TunedKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tvm_packing, "pack", lambda mod, weights: object())
    assert ranks(convolution, [1]) == [(1.0, False), (1.0, True), (2.0, True), (3.0, True)]


def test_what_is_slower_than_unscheduled_is_no_variant(convolution: TunedKernel) -> None:
    slow = TunedKernel(
        convolution.task, convolution.space, convolution.agent, convolution.state,
        finalists=convolution.finalists[-2:],
    )  # fmt: skip
    assert ranks(slow, []) == [(5.0, False)]


def test_a_kernel_without_finalists_has_its_best(convolution: TunedKernel) -> None:
    state = TaskState(1, 1.0, "conv2d", 1e-6, untuned_s=7.0, best_s=[6.0])
    small = TunedKernel(
        convolution.task, convolution.space, convolution.agent, state, best=convolution.best
    )
    assert ranks(small, []) == [(6.0, False)]
    small.best = None
    assert ranks(small, []) == []


def test_a_network_gets_the_last_variant_of_kernels_that_have_fewer() -> None:
    found: Any = {"a": ["a0", "a1", "a2"], "b": ["b0"]}
    assert [nth_of_each(found, number) for number in range(3)] == [
        {"a": "a0", "b": "b0"}, {"a": "a1", "b": "b0"}, {"a": "a2", "b": "b0"},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("first_s", "deviations", "expected", "untried"),
    [
        pytest.param((3.0, 2.0, 1.0), (0.0, 0.1, 0.1), "third", None, id="the fastest"),
        pytest.param((1.0, 1.0, 1.0), (0.0, 0.1, 0.1), "first", None, id="equal"),
        pytest.param(
            (3.0, 2.0, 1.0), (0.0, 0.1, 2.0), "second",
            "1 of 3 networks of fast kernels have other outputs", id="the fastest is wrong",
        ),
    ],
)  # fmt: skip
def test_each_kernel_is_taken_from_where_it_is_fastest(
    network: Network,
    monkeypatch: pytest.MonkeyPatch,
    first_s: tuple[float, ...],
    deviations: tuple[float, ...],
    expected: str,
    untried: str | None,
) -> None:
    many, one, joined = sorted(network.entries)[:3]
    # Of the second kernel there is one variant: that it is faster in the last network is noise.
    times_s = [{many: time_s, one: 1.0 / (n + 1)} for n, time_s in enumerate(first_s)]
    measured = InNetwork(times_s, list(deviations))
    monkeypatch.setattr(module, "time_kernels", lambda *_: measured)
    found: Any = {many: ["first", "second", "third"], one: ["only"], joined: ["left", "out"]}
    assert fastest_in_network(network, found, LIBRARIES, hw.detect()) == (
        {many: expected, one: "only", joined: "left"}, untried,
    )  # fmt: skip


def test_networks_that_cannot_be_compared_have_what_is_fastest_apart(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> InNetwork:
        raise MachineError("they hang")

    monkeypatch.setattr(module, "time_kernels", fail)
    name = next(iter(network.entries))
    found: Any = {name: ["first", "second"]}
    assert fastest_in_network(network, found, LIBRARIES, hw.detect()) == (
        {name: "first"}, "they hang",
    )  # fmt: skip


def test_no_more_variants_than_said(convolution: TunedKernel) -> None:
    assert len(variants(convolution, [])) == MOST_VARIANTS
