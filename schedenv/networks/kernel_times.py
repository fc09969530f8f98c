"""How long each kernel takes in its network: with the caches and the memory that it finds there.

Timed apart, a kernel finds its operands where the last call left them. In the network, another
kernel wrote them a moment ago, or nobody has read them since the last run. Networks that are to be
compared run in turn in one process, `python -m schedenv.networks.kernel_times REQUEST`, and in
several: in each of them the one that was loaded first may be faster, whatever its kernels. Each
time includes one or two microseconds of the instrument's.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from schedenv import hardware as hw
from schedenv import tvm_joins, tvm_packing
from schedenv.measure.placement import Placement
from schedenv.measure.result import robust_estimate
from schedenv.measure.verify import Array, deviation
from schedenv.networks.child import ask
from schedenv.networks.compare import TOLERATED, random_inputs
from schedenv.networks.server import as_arrays
from schedenv.tasks.networks.network import Network, Port

_MODULE = "schedenv.networks.kernel_times"

PROCESSES = 4
SECONDS = 0.75
"""For one network in one process."""
TIMEOUT_S = 300.0
"""For one process."""

_LONG_S = 30.0
"""Processes that took so long, together, are enough."""

_BURST = 4
_BURST_S = 0.5
"""A burst of runs is shorter where a run takes long."""

Times = dict[str, float]
"""Seconds by the name of what is called, all of its calls together."""


@dataclass(frozen=True)
class InNetwork:
    """What was measured.

    Attributes:
        times_s: Of each network.
        deviations: How far each one's outputs are from the first one's, in units of the tolerated
            deviation.
    """

    times_s: list[Times]
    deviations: list[float]


def time_kernels(
    libraries: Sequence[Path], inputs: Sequence[Port], hardware: hw.Hardware, seed: int = 0
) -> InNetwork:
    """Time the kernels of compiled networks that take the same inputs.

    Raises:
        MachineError: They cannot be run, or take longer than `TIMEOUT_S`.
    """
    taken: list[list[Times]] = [[] for _ in libraries]
    deviations = [0.0 for _ in libraries]
    numbers = list(range(len(libraries)))
    with tempfile.TemporaryDirectory(prefix="schedenv-kernels-") as scratch:
        file = Path(scratch) / "inputs.npz"
        np.savez(file, *random_inputs(inputs, seed))
        start_s = time.monotonic()
        for turn in range(PROCESSES):
            if time.monotonic() > start_s + _LONG_S:
                break
            first = turn % len(numbers)
            order = numbers[first:] + numbers[:first]
            paths = [str(libraries[number]) for number in order]
            request = {
                "libraries": paths,
                "first": order.index(0),
                "inputs": str(file),
            }
            what = f"the kernels of {', '.join(paths)}"
            answer = ask(_MODULE, request, hardware, TIMEOUT_S, what)
            for number, times_s, far in zip(
                order, answer["times_s"], answer["deviations"], strict=True
            ):
                taken[number].append(times_s)
                deviations[number] = max(deviations[number], far)
    return InNetwork([_medians(of_one) for of_one in taken], deviations)


def _medians(taken: Sequence[Times]) -> Times:
    return {name: float(np.median([times_s[name] for times_s in taken])) for name in taken[0]}


def by_kernel(times_s: Times, network: Network) -> Times:
    """Times by the names of a network's kernels, however these are called after compilation."""
    kernel_of = {alias: entry.name for entry in network.entries.values() for alias in entry.names}
    found: Times = defaultdict(float)
    for name, spent_s in times_s.items():
        called = tvm_packing.plain_name(tvm_joins.plain_name(name))
        if called in kernel_of:
            found[kernel_of[called]] += spent_s
    return dict(found)


class _Watched:
    """A network whose calls are timed."""

    def __init__(self, path: Path, inputs: Sequence[Array]) -> None:
        import tvm

        from schedenv import tvm_relax

        machine = tvm_relax.load_network(path)
        self._main: Callable[..., object] = machine["main"]
        self._tensors = [tvm.runtime.tensor(array) for array in inputs]
        self._calls: list[tuple[str, int]] = []
        self._start_ns = 0
        self.outputs = as_arrays(self._main(*self._tensors))
        machine.set_instrument(self._watch)

    def _watch(self, _: object, name: str, before: bool, *__: object) -> None:
        if before:
            self._start_ns = time.perf_counter_ns()
        else:
            self._calls.append((name, time.perf_counter_ns() - self._start_ns))

    def run(self) -> Times:
        """Time one run."""
        self._calls.clear()
        self._main(*self._tensors)
        spent_s: Times = defaultdict(float)
        for name, spent_ns in self._calls:
            spent_s[name] += spent_ns * 1e-9
        return spent_s


def _burst(network: _Watched) -> list[Times]:
    start_s = time.monotonic()
    # In the first run the caches are the other network's.
    taken = [network.run()]
    while len(taken) <= _BURST and time.monotonic() < start_s + _BURST_S:
        taken.append(network.run())
    return taken[1:] or taken


def main() -> None:
    """Time, and print."""
    request = json.loads(sys.argv[1])
    arrays = np.load(request["inputs"])
    inputs = [arrays[key] for key in arrays.files]
    networks = [_Watched(Path(path), inputs) for path in request["libraries"]]
    Placement().beside_pool()
    runs: list[list[Times]] = [[] for _ in networks]
    end_s = time.monotonic() + SECONDS * len(networks)
    while not runs[-1] or time.monotonic() < end_s:
        for network, taken in zip(networks, runs, strict=True):
            taken.extend(_burst(network))
    answer = {
        "times_s": [
            {name: robust_estimate([run[name] for run in taken]) for name in taken[0]}
            for taken in runs
        ],
        "deviations": [
            deviation(network.outputs, networks[request["first"]].outputs, TOLERATED)
            for network in networks
        ],
    }
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
    os._exit(0)
