"""Weights in the order in which a kernel's schedule reads them.

A schedule works on a tile of channels at a time: it reads a few numbers of a row of its weights and
goes on in the next row, mostly in another page. While weights come from a cache that costs nothing;
from memory, the jumps cost more than the numbers. Here the axes of the weights are split as the
schedule's loops split them and put in the order of these loops, so that what is read in turn lies
in turn. Weights are constants: they are packed once, when the network is compiled. Ansor packs
weights by a schedule, too ("layout rewrite", OSDI 2020), and so does TVM's `RewriteLayout`.
Next to `schedenv.tvm_relax`, a module that touches Relax.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from schedenv import tvm_adapter
from schedenv.tvm_relax import is_kernel_call, with_blocks

if TYPE_CHECKING:
    from tvm import IRModule

LEAST_BYTES = 1 << 16
"""Smaller weights stay in a core's own caches."""

_SUFFIX = "_packed"


class _Digit(NamedTuple):
    """A part of an axis, as one loop runs through it.

    Attributes:
        axis: Of the weights.
        size: Of the loop.
        stride: Steps on the axis from one turn of the loop to the next.
    """

    axis: int
    size: int
    stride: int


@dataclass(frozen=True)
class Packed:
    """A schedule that reads packed weights.

    Attributes:
        kernel: The scheduled program, as `main`.
        argument: Which of its arguments is packed.
        shape: The weights' axes, split.
        order: Of those axes when packed.
    """

    kernel: IRModule
    argument: int
    shape: tuple[int, ...]
    order: tuple[int, ...]

    def pack(self, weights: Any) -> Any:
        """A numpy array of weights, packed."""
        return np.ascontiguousarray(weights.reshape(self.shape).transpose(self.order))


def pack(kernel: IRModule, weights: Sequence[int]) -> Packed | None:
    """A scheduled kernel that reads the largest of its weights packed.

    Args:
        kernel: With one function, `main`.
        weights: Which of its arguments are constants of the network.

    Returns:
        None where packing changes nothing: the weights are few, lie in order anyway, or are not
        read by one block, tile by tile.
    """
    from tvm import s_tir

    function = kernel["main"]
    argument = max(weights, key=lambda index: _bytes(function.params[index]), default=None)
    if argument is None or _bytes(function.params[argument]) < LEAST_BYTES:
        return None
    buffer = function.params[argument]
    readers = [
        (nest, index)
        for nest in _nests(function.body.block.body, ())
        for index, region in enumerate(nest.block.reads)
        if region.source.same_as(buffer)
    ]
    if len(readers) != 1:
        return None
    ((nest, index),) = readers
    digits = _digits(nest, index, [int(extent) for extent in buffer.shape])
    # In the order in which the weights lie: axis by axis, the larger steps first.
    split = sorted(digits, key=lambda digit: (digit.axis, -digit.stride))
    order = tuple(split.index(digit) for digit in digits)
    if order == tuple(range(len(split))):
        return None
    schedule = s_tir.Schedule(kernel)
    schedule.transform_layout(
        schedule.get_sblock(str(nest.block.name_hint)),
        ("read", index),
        lambda *axes: [axes[axis] // stride % size for axis, size, stride in digits],
    )
    return Packed(schedule.mod, argument, tuple(digit.size for digit in split), order)


class _Nest(NamedTuple):
    """A block and the loops around it.

    Attributes:
        block: The block.
        values: What its axes are bound to.
        loops: From the outermost to the innermost.
    """

    block: Any
    values: Sequence[Any]
    loops: tuple[Any, ...]


def _nests(statement: Any, loops: tuple[Any, ...]) -> Iterator[_Nest]:
    """The blocks of a scheduled program that hold no other block."""
    from tvm import s_tir, tirx

    if isinstance(statement, tirx.SeqStmt):
        for part in statement.seq:
            yield from _nests(part, loops)
    elif isinstance(statement, tirx.For):
        yield from _nests(statement.body, (*loops, statement))
    elif isinstance(statement, s_tir.SBlockRealize):
        yield _Nest(statement.block, statement.iter_values, loops)


def _digits(nest: _Nest, index: int, shape: Sequence[int]) -> list[_Digit]:
    """The parts of the weights' axes in the order in which a block runs through them.

    What changes outside of the reduction comes first. Empty if loops do not split the axes evenly.
    """
    values = {
        axis.var: value for axis, value in zip(nest.block.iter_vars, nest.values, strict=True)
    }
    inner = _inside_reduction(nest)
    strides = [
        _strides(values[extent.min], inner) if extent.min in values else ()
        for extent in nest.block.reads[index].region
    ]
    steps = [
        _Digit(axis, int(loop.extent), along[number])
        for number, loop in enumerate(inner)
        for axis, along in enumerate(strides)
        if along and along[number] and int(loop.extent) > 1
    ]
    outer = []
    for axis, extent in enumerate(shape):
        covered = 1
        for digit in reversed([digit for digit in steps if digit.axis == axis]):
            if digit.stride != covered:
                return []
            covered *= digit.size
        if extent % covered:
            return []
        if extent > covered:
            outer.append(_Digit(axis, extent // covered, covered))
    return outer + steps


def _inside_reduction(nest: _Nest) -> tuple[Any, ...]:
    """The loops from the first that belongs to a reduction axis inwards."""
    sums = [
        _strides(value, nest.loops)
        for axis, value in zip(nest.block.iter_vars, nest.values, strict=True)
        if tvm_adapter.is_reduction(axis)
    ]
    first = min(
        (number for strides in sums for number, stride in enumerate(strides) if stride),
        default=len(nest.loops),
    )
    return nest.loops[first:]


def _strides(value: Any, loops: Sequence[Any]) -> tuple[int, ...]:
    """By how much a turn of each loop changes a value; empty if it is not linear in them."""
    from tvm import sym

    equation = sym.detect_linear_equation(value, [loop.loop_var for loop in loops])
    return tuple(int(factor) for factor in equation[:-1])


def with_packed(mod: IRModule, packed: Mapping[str, Packed]) -> tuple[IRModule, dict[str, str]]:
    """A network that calls packed kernels, with its constants packed.

    Args:
        mod: What `tvm_relax.fuse` returned.
        packed: By the names of the kernels in whose place they are called.

    Returns:
        The network, and by what names it calls the packed kernels.
    """
    from tvm import relax

    builder = relax.BlockBuilder(mod)
    functions = {
        name: builder.add_func(one.kernel["main"].without_attr("global_symbol"), f"{name}{_SUFFIX}")
        for name, one in packed.items()
    }
    blocks = [_rewrite(block, packed, functions) for block in mod["main"].body.blocks]
    names = {name: str(function.name_hint) for name, function in functions.items()}
    return with_blocks(builder, mod, blocks), names


def plain_name(name: str) -> str:
    """The name that a kernel has in the network before weights are packed."""
    return re.sub(rf"{_SUFFIX}\d*$", "", name)


def _rewrite(block: Any, packed: Mapping[str, Packed], functions: Mapping[str, Any]) -> Any:
    from tvm import relax

    def rewrite(binding: Any) -> Any:
        call = binding.value
        name = str(call.args[0].name_hint) if is_kernel_call(call) else ""
        if name not in packed:
            return binding
        operands = list(call.args[1])
        one = packed[name]
        operands[one.argument] = relax.const(one.pack(operands[one.argument].value.numpy()))
        return relax.VarBinding(
            binding.var, relax.call_tir(functions[name], operands, binding.var.ty)
        )

    bindings = [rewrite(binding) for binding in block.bindings]
    kind = relax.DataflowBlock if isinstance(block, relax.DataflowBlock) else relax.BindingBlock
    return kind(bindings)


def _bytes(buffer: Any) -> int:
    return int(buffer.dtype.itemsize) * math.prod(int(extent) for extent in buffer.shape)
