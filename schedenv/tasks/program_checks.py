"""What a user's module must satisfy to be a task, and what can be read off it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from schedenv import tvm_adapter
from schedenv.errors import ProgramFileError
from schedenv.tasks.operators import DTYPES, MAX_ELEMENTS

if TYPE_CHECKING:
    from tvm import IRModule

    from schedenv.tvm_adapter import Argument

_NO_OUTPUT = "the program has no output: none of its parameters is written; list the result last"


def check_tensors(spec: str, tensors: Sequence[Any]) -> None:
    """Refuse a list of TE tensors that lacks an input, or any output.

    Args:
        spec: The TASK string, for the message.
        tensors: What the user's function returned: inputs, then outputs.

    Raises:
        ProgramFileError: Only placeholders, or a result that needs a placeholder not listed.
    """
    from tvm import te

    if all(isinstance(tensor.op, te.PlaceholderOp) for tensor in tensors):
        raise ProgramFileError(f"{spec}: {_NO_OUTPUT}")
    pending, seen = list(tensors), set(tensors)
    while pending:
        for source in pending.pop().op.input_tensors:
            if source in seen:
                continue
            if isinstance(source.op, te.PlaceholderOp):
                raise ProgramFileError(
                    f"{spec}: the result needs the placeholder {str(source.op.name)!r}, which is "
                    f"not in the list; return every input, then every output"
                )
            seen.add(source)
            pending.append(source)


def check_buffers(spec: str, mod: IRModule) -> None:
    """Refuse parameters that are not static buffers of a supported dtype.

    Args:
        spec: The TASK string, for the message.
        mod: A module with one function, `main`.

    Raises:
        ProgramFileError: A scalar, a symbolic extent, another dtype, or a buffer that is empty or
            too large for TVM's int32 offsets.
    """
    for param in tvm_adapter.parameters(mod):
        if param.shape is None:
            raise ProgramFileError(
                f"{spec}: the parameter {param.name!r} is not a buffer; only buffers are "
                f"supported: make it a constant or a buffer of shape (1,)"
            )
        dynamic = [extent for extent in param.shape if isinstance(extent, str)]
        if dynamic:
            raise ProgramFileError(
                f"{spec}: the shape of {param.name!r} depends on {', '.join(dynamic)}; "
                f"dynamic shapes are not supported: give every extent as a number"
            )
        elements = math.prod(int(extent) for extent in param.shape)
        if not 1 <= elements <= MAX_ELEMENTS:
            raise ProgramFileError(
                f"{spec}: the buffer {param.name!r} has {elements} elements; "
                f"expected 1 to {MAX_ELEMENTS}"
            )
        if param.dtype not in DTYPES:
            raise ProgramFileError(
                f"{spec}: the buffer {param.name!r} has the unsupported dtype "
                f"{param.dtype!r}; expected {' or '.join(DTYPES)}"
            )


def check_dataflow(spec: str, mod: IRModule, arguments: Sequence[Argument]) -> None:
    """Refuse a program without an output, or one that works in place.

    Args:
        spec: The TASK string, for the message.
        mod: A module with one function, `main`.
        arguments: Its buffers.

    Raises:
        ProgramFileError: No parameter is written, or one is read before it is written.
    """
    if not any(argument.is_output for argument in arguments):
        raise ProgramFileError(f"{spec}: {_NO_OUTPUT}")
    outputs = [
        param
        for param, argument in zip(mod["main"].params, arguments, strict=True)
        if argument.is_output
    ]
    written: list[Any] = []
    for block in tvm_adapter.blocks(mod):
        for region in block.reads:
            for param in outputs:
                if region.source.same_as(param) and not _contains(written, param):
                    raise ProgramFileError(
                        f"{spec}: the buffer {str(param.name)!r} is read before it is written; "
                        f"programs that work in place are not supported: write to another buffer"
                    )
        written.extend(region.source for region in block.writes)


def longest_reduction(mod: IRModule) -> int:
    """Elements in the longest reduction of any block of `main`; 1 if there is none."""
    return max(
        (
            math.prod(
                int(axis.dom.extent) for axis in block.iter_vars if tvm_adapter.is_reduction(axis)
            )
            for block in tvm_adapter.blocks(mod)
        ),
        default=1,
    )


def _contains(sources: Sequence[Any], param: Any) -> bool:
    return any(source.same_as(param) for source in sources)
