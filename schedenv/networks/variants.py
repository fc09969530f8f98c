"""Which of a kernel's fastest schedules goes into its network, and whether its weights are packed.

Timed apart, a kernel finds its operands where its last call left them, and its code where chance
put it. So a few variants of each kernel are linked into networks, one of each into each network;
the networks run in turn, and each kernel is taken from the one in which it is fastest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schedenv import hardware as hw
from schedenv import tvm_packing
from schedenv.errors import MachineError
from schedenv.measure.result import Result
from schedenv.networks.kernel_times import by_kernel, time_kernels
from schedenv.networks.slices import TunedKernel
from schedenv.tasks.networks.network import Network
from schedenv.tvm_packing import Packed

if TYPE_CHECKING:
    from tvm import IRModule

MOST_VARIANTS = 4
"""Of one kernel at most; each costs a compilation of the network."""


@dataclass(frozen=True)
class Variant:
    """A kernel as it may stand in its network.

    Attributes:
        result: How fast it is apart, and its point.
        schedule: TVM's schedule of it.
        packed: The same with its weights packed; None if they lie as in the file.
    """

    result: Result
    schedule: Any
    packed: Packed | None

    @property
    def kernel(self) -> IRModule:
        """Its program."""
        return self.schedule.mod if self.packed is None else self.packed.kernel


def variants(kernel: TunedKernel, weights: Sequence[int]) -> list[Variant]:
    """What may stand in the network for a kernel.

    Args:
        kernel: After the search.
        weights: Which of its arguments are constants of the network.

    Returns:
        First what is fastest apart, with its weights as they lie in the file; then the same with
        packed weights, where they can be; then those that came next, packed where they can be.
        Empty if nothing is faster than the unscheduled program.
    """
    found: list[Variant] = []
    for result in kernel.leaders:
        if result.estimate_s is None or result.estimate_s >= kernel.state.untuned_s:
            continue
        schedule = kernel.space.apply(result.point)
        packed = tvm_packing.pack(schedule.mod, weights)
        if not found or packed is None:
            found.append(Variant(result, schedule, None))
        if packed is not None:
            found.append(Variant(result, schedule, packed))
        if len(found) >= MOST_VARIANTS:
            break
    return found[:MOST_VARIANTS]


def nth_of_each(variants: Mapping[str, Sequence[Variant]], number: int) -> dict[str, Variant]:
    """One variant of each kernel; the last of those that have fewer."""
    return {name: some[min(number, len(some) - 1)] for name, some in variants.items()}


def fastest_in_network(
    network: Network,
    variants: Mapping[str, Sequence[Variant]],
    libraries: Sequence[Path],
    hardware: hw.Hardware,
) -> tuple[dict[str, Variant], str | None]:
    """Each kernel's variant that takes the least time in the network.

    Args:
        network: That was tuned.
        variants: Of its kernels.
        libraries: The network with the n-th variant of each (`nth_of_each`).
        hardware: This machine.

    Returns:
        The variants; and why some were not tried, if some were not. A library whose outputs are not
        those of the first is none to choose from.
    """
    apart = nth_of_each(variants, 0)
    try:
        measured = time_kernels(libraries, network.description.inputs, hardware)
    except MachineError as error:
        return apart, str(error)
    times_s = [by_kernel(spent_s, network) for spent_s in measured.times_s]
    right = [number for number, far in enumerate(measured.deviations) if far <= 1]
    chosen = {}
    for name, some in variants.items():
        tried_s = [
            (times_s[number][name], number)
            for number in right
            if number < len(some) and name in times_s[number]
        ]
        chosen[name] = some[min(tried_s)[1] if tried_s else 0]
    wrong = len(libraries) - len(right)
    reason = f"{wrong} of {len(libraries)} networks of fast kernels have other outputs"
    return chosen, reason if wrong else None
