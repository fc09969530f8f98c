"""Put the best schedules into a network, compile it, and write what others can use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from schedenv import hardware as hw
from schedenv import tvm_database, tvm_joins, tvm_relax
from schedenv.errors import InstallError
from schedenv.networks.slices import TunedKernel
from schedenv.space import Point
from schedenv.tasks.networks.network import Network

LIBRARY = "network.so"
EXAMPLE = "example.py"
DATABASE = "database"

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
    """

    library: Path
    joined: frozenset[str]


def build_tuned(
    network: Network, kernels: Mapping[str, TunedKernel], hardware: hw.Hardware, out: Path
) -> Built:
    """Compile the network with its kernels' best schedules.

    Writes the library, a MetaSchedule database of the schedules, and an example that runs the
    library with nothing but TVM.

    Raises:
        InstallError: There is no linker.
    """
    scheduled, records = {}, []
    for name, point in winners(kernels).items():
        kernel = kernels[name]
        schedule = kernel.space.apply(point)
        assert kernel.best is not None
        records.append((kernel.task.mod, schedule.trace, kernel.best.estimate_s or 0.0))
        for alias in network.entries[name].names:
            scheduled[alias] = schedule.mod
    target = hw.target(hardware)
    if records:
        folder = out / DATABASE
        for file in folder.glob("database_*.json"):
            file.unlink()
        folder.mkdir(exist_ok=True)
        tvm_database.write_database(str(folder), records, target)
    graph = network.graph()
    joined = tvm_joins.join_in_place(graph, scheduled)
    executable = tvm_relax.compile_network(tvm_relax.with_kernels(joined, scheduled), target)
    library = _export(executable, out / LIBRARY)
    inputs = ", ".join(
        f'tvm.runtime.tensor(numpy.zeros({port.shape}, "{port.dtype}"))'
        for port in network.description.inputs
    )
    (out / EXAMPLE).write_text(
        _EXAMPLE.format(cores=hardware.cores, library=library.resolve(), inputs=inputs)
    )
    return Built(library, tvm_joins.left_out(graph, joined))


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
