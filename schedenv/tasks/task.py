"""A task: one tensor program, what it costs, and how to know that its result is right."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from schedenv import tvm_adapter
from schedenv.tasks.memory import argument_bytes, check_memory
from schedenv.tvm_adapter import Argument

if TYPE_CHECKING:
    from tvm import IRModule

Array: TypeAlias = NDArray[np.float64]
Reference: TypeAlias = Callable[[Sequence[Array]], list[Array]]


@dataclass(frozen=True, eq=False)
class Task:
    """One tensor program to schedule. Tasks are equal when their programs are.

    Attributes:
        spec: The TASK string that resolves to it, such as `gmm:1x512x512x512`.
        name: Name for people: the spec, or the suite member asked for, such as `ansor/gmm-2`.
        family: The operator's name; `program` for a user's own program.
        mod: The module, unscheduled, with one function, `main`.
        arguments: The buffers of `main`, in calling order.
        flops: Floating-point operations of one run; 0.0 if TVM cannot count those of a program.
        bytes: Compulsory memory traffic: every input read once, every output written once.
        reduction_length: Elements summed (or compared) into one, in the longest reduction; at
            least 1. The verification tolerance depends on it.
        reference: Maps the inputs, float64 and in calling order, to the outputs, float64 and in
            calling order; None means that the unscheduled program is the reference.
        weights: Which arguments are constants of a network: when it comes to them again, the
            caches hold others.
        span_bytes: Size of all constants of the network; 0 for a task of its own.
    """

    spec: str
    name: str
    family: str
    mod: IRModule
    arguments: tuple[Argument, ...]
    flops: float
    bytes: int
    reduction_length: int
    reference: Reference | None
    weights: tuple[int, ...] = ()
    span_bytes: int = 0

    @functools.cached_property
    def content_hash(self) -> str:
        """Hash of the program's structure: 16 hexadecimal digits, equal in every process."""
        return tvm_adapter.structural_hash(self.mod)

    @property
    def intensity(self) -> float:
        """Arithmetic intensity, in floating-point operations a byte."""
        return self.flops / self.bytes

    @property
    def inputs(self) -> tuple[Argument, ...]:
        """The buffers that the program only reads, in calling order."""
        return tuple(argument for argument in self.arguments if not argument.is_output)

    @property
    def outputs(self) -> tuple[Argument, ...]:
        """The buffers that the program writes, in calling order."""
        return tuple(argument for argument in self.arguments if argument.is_output)

    def check_memory(self, available_bytes: int | None = None) -> None:
        """Refuse the task if verifying and timing it does not fit in memory.

        Args:
            available_bytes: Memory that may be used; None asks the operating system.

        Raises:
            MemoryLimitError: It does not fit; the message says what is needed and available.
        """
        check_memory(self.name, self.arguments, available_bytes=available_bytes)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Task):
            return NotImplemented
        return self.content_hash == other.content_hash

    def __hash__(self) -> int:
        return hash(self.content_hash)


def traffic_bytes(arguments: Sequence[Argument]) -> int:
    """Size of all buffers together, in bytes: the compulsory memory traffic of one run."""
    return sum(argument_bytes(argument) for argument in arguments)
