"""How much memory a task needs, checked before anything is built or allocated."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import psutil

from schedenv.errors import MemoryLimitError
from schedenv.tvm_adapter import Argument

_REFERENCE_ITEM_BYTES = 8  # references compute in float64
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def argument_bytes(argument: Argument) -> int:
    """Size of one buffer in bytes."""
    return math.prod(argument.shape) * np.dtype(argument.dtype).itemsize


def needed_bytes(arguments: Iterable[Argument], scratch_elements: int | None = None) -> int:
    """Memory, in bytes, for verifying and timing a task once.

    With `b` the bytes of an element in the program's dtype, each element counts

    - of an input: `2 b` (two sets of inputs) `+ 8` (the reference's float64 copy);
    - of an output: `2 b` (the program's output, the copy compared) `+ 16` (the float64 reference
      and its accumulator);
    - of scratch: `b + 8` (the program's intermediate stage, the reference's).

    Args:
        arguments: The buffers of the program.
        scratch_elements: Elements of the intermediate buffers, such as the padded input; None
            assumes as many as the inputs have.

    Raises:
        TypeError: A dtype that numpy does not know.
    """
    input_elements = total = 0
    widest_item_bytes = 0
    for argument in arguments:
        elements = math.prod(argument.shape)
        item_bytes = np.dtype(argument.dtype).itemsize
        references = 2 if argument.is_output else 1
        total += elements * (2 * item_bytes + references * _REFERENCE_ITEM_BYTES)
        input_elements += 0 if argument.is_output else elements
        widest_item_bytes = max(widest_item_bytes, item_bytes)
    scratch = input_elements if scratch_elements is None else scratch_elements
    return total + scratch * (widest_item_bytes + _REFERENCE_ITEM_BYTES)


def check_memory(
    what: str,
    arguments: Iterable[Argument],
    *,
    scratch_elements: int | None = None,
    available_bytes: int | None = None,
) -> None:
    """Refuse a task that does not fit in memory.

    Args:
        what: The task as the user wrote it, for the message.
        arguments: The buffers of the program.
        scratch_elements: As in `needed_bytes`.
        available_bytes: Memory that may be used; None asks the operating system.

    Raises:
        MemoryLimitError: The task needs more than is available.
    """
    needed = needed_bytes(arguments, scratch_elements)
    available = (
        int(psutil.virtual_memory().available) if available_bytes is None else available_bytes
    )
    if needed > available:
        raise MemoryLimitError(
            f"{what} needs {human_bytes(needed)} of memory (two sets of inputs, outputs, their "
            f"float64 reference and working copies), but {human_bytes(available)} are available; "
            f"choose a smaller shape or free memory"
        )


def human_bytes(size_bytes: int) -> str:
    """A size for people, such as `3.5 GiB`, in binary units."""
    exponent = 0
    while exponent < len(_UNITS) - 1 and size_bytes >= 1024 ** (exponent + 1):
        exponent += 1
    if exponent == 0:
        return f"{size_bytes} B"
    # Integers divide exactly first: an absurd shape must not overflow a float.
    tenths = size_bytes * 10 // 1024**exponent
    return f"{tenths // 10}.{tenths % 10} {_UNITS[exponent]}"
