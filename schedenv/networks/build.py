"""Put the best schedules into a network, compile it, and write what others can use."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from schedenv import hardware as hw
from schedenv import tvm_database, tvm_joins, tvm_packing, tvm_relax
from schedenv.errors import InstallError
from schedenv.networks.slices import TunedKernel
from schedenv.networks.variants import Variant, fastest_in_network, nth_of_each, variants
from schedenv.tasks import Task
from schedenv.tasks.networks.network import Network

LIBRARY = "network.so"
EXAMPLE = "example.py"
DATABASE = "database"
_SCRATCH = "variants"

_EXAMPLE = """\
import os; os.environ["TVM_NUM_THREADS"] = "{cores}"  # TVM uses half of the cores by default
import numpy, tvm
from tvm import relax
network = relax.VirtualMachine(tvm.runtime.load_module("{library}"), tvm.cpu())["main"]
print(network({inputs}))
"""


class Linked(NamedTuple):
    """A compiled network.

    Attributes:
        library: Its file.
        joined: Kernels that it does without: concatenations whose parts are stored in place.
    """

    library: Path
    joined: frozenset[str]


@dataclass(frozen=True)
class Built:
    """A tuned network, compiled.

    Attributes:
        linked: The network.
        variants: What stands in it for each kernel that has a schedule.
        apart: What is fastest apart for each of them, with weights as they lie in the file.
        untried: Why not all that is fast apart was tried in the network; None if it was.
    """

    linked: Linked
    variants: Mapping[str, Variant]
    apart: Mapping[str, Variant]
    untried: str | None


def build_tuned(
    network: Network, kernels: Mapping[str, TunedKernel], hardware: hw.Hardware, out: Path
) -> Built:
    """Compile the network with those of its kernels' schedules that are fastest in it.

    Writes the library, a MetaSchedule database of the schedules that are fastest apart (it cannot
    express packed weights), and an example that runs the library with nothing but TVM.

    Raises:
        InstallError: There is no linker.
    """
    target = hw.target(hardware)
    found = {
        name: some
        for name, kernel in kernels.items()
        if (some := variants(kernel, network.entries[name].weights))
    }
    apart = nth_of_each(found, 0)
    if found:
        _write_database([(kernels[name].task, apart[name]) for name in apart], target, out)
    chosen, untried = apart, None
    linked = link(network, chosen, target, out / LIBRARY)
    most = max((len(some) for some in found.values()), default=1)
    if most > 1:
        with _scratch(out / _SCRATCH) as scratch:
            others = [
                link(network, nth_of_each(found, number), target, scratch / f"{number}.so")
                for number in range(1, most)
            ]
            libraries = [one.library for one in (linked, *others)]
            chosen, untried = fastest_in_network(network, found, libraries, hardware)
        if chosen != apart:
            linked = link(network, chosen, target, out / LIBRARY)
    inputs = ", ".join(
        f'tvm.runtime.tensor(numpy.zeros({port.shape}, "{port.dtype}"))'
        for port in network.description.inputs
    )
    (out / EXAMPLE).write_text(
        _EXAMPLE.format(cores=hardware.cores, library=linked.library.resolve(), inputs=inputs)
    )
    return Built(linked, chosen, apart, untried)


@contextlib.contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """An empty folder for a while; what a killed run has left there goes."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(exist_ok=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def link(network: Network, chosen: Mapping[str, Variant], target: Any, path: Path) -> Linked:
    """Compile the network with one variant of each kernel that has a schedule.

    Raises:
        InstallError: There is no linker.
    """
    aliases = {alias: name for name in chosen for alias in network.entries[name].names}
    functions = {alias: chosen[name].kernel for alias, name in aliases.items()}
    packs = {
        alias: packed
        for alias, name in aliases.items()
        if (packed := chosen[name].packed) is not None
    }
    graph = network.graph()
    if packs:
        graph, called = tvm_packing.with_packed(graph, packs)
        functions |= {called[alias]: one.kernel for alias, one in packs.items()}
    joined = tvm_joins.join_in_place(graph, functions)
    executable = tvm_relax.compile_network(tvm_relax.with_kernels(joined, functions), target)
    return Linked(_export(executable, path), tvm_joins.left_out(graph, joined))


def _write_database(schedules: Sequence[tuple[Task, Variant]], target: Any, out: Path) -> None:
    folder = out / DATABASE
    for file in folder.glob("database_*.json"):
        file.unlink()
    folder.mkdir(exist_ok=True)
    records = [
        (task.mod, variant.schedule.trace, variant.result.estimate_s or 0.0)
        for task, variant in schedules
    ]
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
