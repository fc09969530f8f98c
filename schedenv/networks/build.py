"""Put the best schedules into a network, compile it, and write what others can use."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schedenv import hardware as hw
from schedenv import tvm_database, tvm_joins, tvm_packing, tvm_relax
from schedenv.errors import InstallError, MachineError
from schedenv.networks.kernel_times import by_kernel, time_kernels
from schedenv.networks.slices import TunedKernel
from schedenv.space import Point
from schedenv.tasks.networks.network import Network
from schedenv.tvm_packing import Packed

if TYPE_CHECKING:
    from tvm import IRModule

LIBRARY = "network.so"
EXAMPLE = "example.py"
DATABASE = "database"
_PACKED_LIBRARY = "packed.so"

_EXAMPLE = """\
import os; os.environ["TVM_NUM_THREADS"] = "{cores}"  # TVM uses half of the cores by default
import numpy, tvm
from tvm import relax
network = relax.VirtualMachine(tvm.runtime.load_module("{library}"), tvm.cpu())["main"]
print(network({inputs}))
"""


def winners(kernels: Mapping[str, TunedKernel]) -> dict[str, Point]:
    """The best point of each kernel that has one faster than its unscheduled program."""
    return {
        name: kernel.best.point
        for name, kernel in kernels.items()
        if kernel.best is not None
        and kernel.best.estimate_s is not None
        and kernel.best.estimate_s < kernel.state.untuned_s
    }


@dataclass(frozen=True)
class Built:
    """A compiled network.

    Attributes:
        library: Its file.
        joined: Kernels that it does without: concatenations whose parts are stored in place.
        packed: Kernels whose weights lie as their schedules read them.
        unpacked: Why no weights are packed, where that could not be tried; else None.
    """

    library: Path
    joined: frozenset[str]
    packed: frozenset[str] = frozenset()
    unpacked: str | None = None


def build_tuned(
    network: Network, kernels: Mapping[str, TunedKernel], hardware: hw.Hardware, out: Path
) -> Built:
    """Compile the network with its kernels' best schedules.

    Weights are packed for those kernels that are faster with it in the network. Writes the library,
    a MetaSchedule database of the schedules (without packing, which it cannot express), and an
    example that runs the library with nothing but TVM.

    Raises:
        InstallError: There is no linker.
    """
    scheduled, packable, records = {}, {}, []
    for name, point in winners(kernels).items():
        kernel = kernels[name]
        schedule = kernel.space.apply(point)
        assert kernel.best is not None
        records.append((kernel.task.mod, schedule.trace, kernel.best.estimate_s or 0.0))
        scheduled[name] = schedule.mod
        packed = tvm_packing.pack(schedule.mod, network.entries[name].weights)
        if packed is not None:
            packable[name] = packed
    target = hw.target(hardware)
    if records:
        _write_database(records, target, out / DATABASE)
    built = _link(network, scheduled, {}, target, out / LIBRARY)
    if packable:
        every = _link(network, scheduled, packable, target, out / _PACKED_LIBRARY)
        names, unpacked = choose_packed(network, packable, hardware, built.library, every.library)
        every.library.unlink()
        if names:
            chosen = {name: packable[name] for name in names}
            built = _link(network, scheduled, chosen, target, out / LIBRARY)
        built = replace(built, unpacked=unpacked)
    inputs = ", ".join(
        f'tvm.runtime.tensor(numpy.zeros({port.shape}, "{port.dtype}"))'
        for port in network.description.inputs
    )
    (out / EXAMPLE).write_text(
        _EXAMPLE.format(cores=hardware.cores, library=built.library.resolve(), inputs=inputs)
    )
    return built


def choose_packed(
    network: Network, names: Collection[str], hardware: hw.Hardware, plain: Path, packed: Path
) -> tuple[frozenset[str], str | None]:
    """Those kernels that the network is faster with when their weights are packed.

    Args:
        network: Both libraries are of it.
        names: Kernels whose weights are packed in the second library.
        hardware: This machine.
        plain: The library in which none are.
        packed: The other one.

    Returns:
        The kernels; and why there are none, if the two cannot be compared.
    """
    try:
        measured = time_kernels([plain, packed], network.description.inputs, hardware)
    except MachineError as error:
        return frozenset(), str(error)
    if measured.deviations[1] > 1:
        return frozenset(), "packed weights change the outputs"
    before_s, after_s = (by_kernel(times_s, network) for times_s in measured.times_s)
    return frozenset(name for name in names if after_s[name] < before_s[name]), None


def _link(
    network: Network,
    scheduled: Mapping[str, IRModule],
    packed: Mapping[str, Packed],
    target: Any,
    path: Path,
) -> Built:
    aliases = {alias: name for name in scheduled for alias in network.entries[name].names}
    functions = {alias: scheduled[name] for alias, name in aliases.items()}
    graph = network.graph()
    if packed:
        packs = {alias: packed[name] for alias, name in aliases.items() if name in packed}
        graph, called = tvm_packing.with_packed(graph, packs)
        functions |= {called[alias]: one.kernel for alias, one in packs.items()}
    joined = tvm_joins.join_in_place(graph, functions)
    executable = tvm_relax.compile_network(tvm_relax.with_kernels(joined, functions), target)
    library = _export(executable, path)
    return Built(library, tvm_joins.left_out(graph, joined), frozenset(packed))


def _write_database(records: Sequence[tuple[Any, Any, float]], target: Any, folder: Path) -> None:
    for file in folder.glob("database_*.json"):
        file.unlink()
    folder.mkdir(exist_ok=True)
    tvm_database.write_database(str(folder), records, target)


def build_untuned(network: Network, hardware: hw.Hardware, path: Path) -> Path:
    """Compile the network as TVM does on its own: its pipeline, its layouts, no schedules."""
    executable = tvm_relax.compile_network(network.original(), hw.target(hardware), fused=False)
    return _export(executable, path)


def _export(executable: object, path: Path) -> Path:
    partial = path.with_name(f"partial-{path.name}")
    try:
        tvm_relax.export_network(executable, partial)
    except RuntimeError as error:
        raise InstallError(
            f"the network cannot be linked ({str(error).splitlines()[0]}); TVM needs a C++ "
            "compiler for that: install g++ or clang"
        ) from None
    return partial.rename(path)
