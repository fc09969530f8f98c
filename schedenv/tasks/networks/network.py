"""A prepared network on disk: its graph, its kernels as tasks, what it was made from."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from schedenv import tvm_adapter, tvm_relax
from schedenv.errors import InputError, NetworkFileError, UnknownNameError
from schedenv.tasks.program_checks import check_buffers, check_dataflow, longest_reduction
from schedenv.tasks.task import Task, traffic_bytes

if TYPE_CHECKING:
    from tvm import IRModule

VERSION = 7
"""Of the files and of the passes that made them."""

DESCRIPTION = "network.json"
_GRAPH = "graph.json"
_ORIGINAL = "original.json"
_KERNELS = "kernels"


class Port(msgspec.Struct, frozen=True):
    """An input of a network.

    Attributes:
        name: Its name in the file.
        shape: Its extents.
        dtype: Its element type, numpy spelling.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str


class KernelEntry(msgspec.Struct, frozen=True):
    """A kernel of a network; equal programs are one entry.

    Attributes:
        name: The first of its names in the graph.
        names: All of them.
        calls: How often the network calls it: its weight.
        family: Its operators without numbers, such as `conv2d_add_relu`.
        tunable: Whether it can be a task; its buffers are floats of static shape, and it does more
            than reshape one.
        flops: Floating-point operations of one call; 0.0 if there are none, or not countable.
        bytes: Compulsory memory traffic of one call.
        weights: Which of its arguments are constants in every call.
        weight_bytes: Their size.
    """

    name: str
    names: tuple[str, ...]
    calls: int
    family: str
    tunable: bool
    flops: float
    bytes: int
    weights: tuple[int, ...]
    weight_bytes: int


class Description(msgspec.Struct, frozen=True):
    """What `network.json` holds.

    Attributes:
        version: `VERSION` of the schedenv that wrote it.
        source: The file that the network came from.
        channels_last: Whether convolutions were turned to NHWC.
        inputs: In calling order.
        kernels: In the order of their first call.
    """

    version: int
    source: str
    channels_last: bool
    inputs: tuple[Port, ...]
    kernels: tuple[KernelEntry, ...]


@dataclass(frozen=True)
class Network:
    """A prepared network.

    Attributes:
        folder: Where it lies.
        description: What it is.
    """

    folder: Path
    description: Description

    @classmethod
    def read(cls, folder: Path) -> Network:
        """Open a prepared network.

        Raises:
            NetworkFileError: There is none, or one of another version.
        """
        path = folder / DESCRIPTION
        try:
            description = msgspec.json.decode(path.read_bytes(), type=Description)
        except (OSError, msgspec.DecodeError) as error:
            raise NetworkFileError(
                f"{folder} holds no prepared network ({error}); name the .onnx file instead"
            ) from None
        if description.version != VERSION:
            raise NetworkFileError(
                f"{folder} was prepared by another version of schedenv (format "
                f"{description.version}, expected {VERSION}); name the .onnx file instead"
            )
        return cls(folder, description)

    @property
    def name(self) -> str:
        """The source file's name without its ending."""
        return Path(self.description.source).stem

    def graph(self) -> IRModule:
        """The prepared Relax module, its operators fused into kernels."""
        return tvm_adapter.module_from_json((self.folder / _GRAPH).read_text())

    def original(self) -> IRModule:
        """The Relax module as TVM's front end made it."""
        return tvm_adapter.module_from_json((self.folder / _ORIGINAL).read_text())

    @functools.cached_property
    def entries(self) -> dict[str, KernelEntry]:
        """The kernels that can be tasks, by name."""
        return {entry.name: entry for entry in self.description.kernels if entry.tunable}

    def task(self, kernel: str) -> Task:
        """The task of a kernel; the unscheduled program is its reference.

        Raises:
            UnknownNameError: There is no such kernel, or it cannot be tuned.
        """
        if kernel not in self.entries:
            raise UnknownNameError(f"kernel of {self.name}", kernel, self.entries)
        entry = self.entries[kernel]
        text = (self.folder / _KERNELS / f"{kernel}.json").read_text()
        mod = tvm_adapter.module_from_json(text)
        return Task(
            spec=f"network:{self.folder}/{kernel}",
            name=f"{self.name}/{kernel}",
            family=entry.family,
            mod=mod,
            arguments=tvm_adapter.arguments(mod),
            flops=entry.flops,
            bytes=entry.bytes,
            reduction_length=longest_reduction(mod),
            reference=None,
            weights=entry.weights,
            span_bytes=sum(one.calls * one.weight_bytes for one in self.description.kernels),
        )


def write(
    folder: Path, source: Path, original: IRModule, prepared: IRModule, *, channels_last: bool
) -> None:
    """Write a prepared network; the description last, as a sign of completion.

    Raises:
        NetworkFileError: An input has no static shape.
    """
    (folder / _KERNELS).mkdir(parents=True, exist_ok=True)
    inputs = []
    for name, shape, dtype in tvm_relax.parameters(original):
        if shape is None:
            raise NetworkFileError(f"the input {name!r} of {source} has no static shape")
        inputs.append(Port(name, shape, dtype))
    equal: dict[str, list[tvm_relax.Kernel]] = {}
    for kernel in tvm_relax.kernels(prepared):
        equal.setdefault(tvm_adapter.structural_hash(kernel.mod), []).append(kernel)
    for first, *_ in equal.values():
        text = tvm_adapter.module_to_json(first.mod)
        (folder / _KERNELS / f"{first.name}.json").write_text(text)
    (folder / _ORIGINAL).write_text(tvm_adapter.module_to_json(original))
    (folder / _GRAPH).write_text(tvm_adapter.module_to_json(prepared))
    description = Description(
        VERSION, str(source), channels_last, tuple(inputs), tuple(map(_entry, equal.values()))
    )
    (folder / DESCRIPTION).write_bytes(
        msgspec.json.format(msgspec.json.encode(description), indent=2)
    )


def _entry(equal: Sequence[tvm_relax.Kernel]) -> KernelEntry:
    kernel = equal[0]
    # What is a constant in one call may be computed before another one.
    weights = tuple(sorted(set.intersection(*(set(one.weights) for one in equal))))
    flops, size, weight_bytes, tunable = 0.0, 0, 0, not tvm_relax.is_reshape(kernel.mod)
    # TVM raises exceptions of many kinds on programs that are none of blocks and static buffers.
    try:
        check_buffers(kernel.name, kernel.mod)
        arguments = tvm_adapter.arguments(kernel.mod)
        check_dataflow(kernel.name, kernel.mod, arguments)
        size = traffic_bytes(arguments)
        weight_bytes = traffic_bytes([arguments[index] for index in weights])
        flops = tvm_adapter.count_flops(kernel.mod)
    except InputError:
        tunable = False
    except Exception:
        tunable = tunable and size > 0
    return KernelEntry(
        name=kernel.name,
        names=tuple(one.name for one in equal),
        calls=sum(one.calls for one in equal),
        family=family_of(kernel.name),
        tunable=tunable,
        flops=flops,
        bytes=size,
        weights=weights,
        weight_bytes=weight_bytes,
    )


def family_of(name: str) -> str:
    """The operators of a fused kernel without their numbers: `fused_conv2d3_add` is `conv2d_add`.

    The 2 of `conv2d` and of `max_pool2d` is part of the operator's name.
    """
    parts = name.removeprefix("fused_").split("_")
    return "_".join(re.sub(r"(?<=[a-z])\d+$", "", part) for part in parts)
