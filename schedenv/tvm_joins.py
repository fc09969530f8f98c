"""Kernels store straight into a concatenation, where nothing else reads their own results.

Networks that branch come together in concatenations, which copy what was computed a moment ago.
Here a kernel's last block stores to the concatenated tensor instead, and the copy goes. Next to
`schedenv.tvm_relax`, a module that touches Relax.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from schedenv import tvm_adapter
from schedenv.tvm_relax import call_sequence, is_kernel_call, with_blocks
from schedenv.tvm_rewrites import static_shape

if TYPE_CHECKING:
    from tvm import IRModule

_FEWEST = 2

_SUFFIX = "_in_place"
_BLOCK = "store_into_whole"


def join_in_place(mod: IRModule, scheduled: Mapping[str, IRModule]) -> IRModule:
    """A network without those concatenations whose parts can be computed in place.

    Those are the ones all of whose parts are results of kernels, read by nothing else, that each
    kernel stores element by element at its end. Where one sums up its result in the place where it
    stores it, the concatenation stays.

    Args:
        mod: What `tvm_relax.fuse` returned: no kernel is scheduled.
        scheduled: Schedules of some kernels, as modules with `main`. Kernels that are not joined
            are left unscheduled; see `tvm_relax.with_kernels`.
    """
    from tvm import relax

    kernels = {name.name_hint: function for name, function in mod.functions_items()}
    kernels |= {name: kernel["main"] for name, kernel in scheduled.items()}
    builder = relax.BlockBuilder(mod)
    blocks = [_rewrite(block, mod, kernels, builder) for block in mod["main"].body.blocks]
    return with_blocks(builder, mod, blocks)


def left_out(before: IRModule, after: IRModule) -> frozenset[str]:
    """The kernels that a network calls before its concatenations are joined, and not after."""
    return frozenset(call_sequence(before)) - set(map(plain_name, call_sequence(after)))


def plain_name(name: str) -> str:
    """The name that a kernel has in the network before concatenations are joined."""
    return re.sub(rf"{_SUFFIX}\d*$", "", name)


def _rewrite(block: Any, mod: IRModule, kernels: Mapping[str, Any], builder: Any) -> Any:
    """A block of bindings without the concatenations that can go."""
    from tvm import relax

    if not isinstance(block, relax.DataflowBlock):
        return block
    readers = relax.analysis.udchain(block)
    calls = {
        binding.var: binding.value for binding in block.bindings if is_kernel_call(binding.value)
    }
    replaced: dict[Any, Sequence[Any]] = {}
    for whole, call in calls.items():
        parts = list(call.args[1])
        free = all(
            part in calls
            and isinstance(part, relax.DataflowVar)
            and len(readers[part]) == 1
            and part not in replaced
            for part in parts
        )
        axis = _concatenated_axis(mod[call.args[0]], parts, whole) if free else None
        if axis is not None and len(set(parts)) == len(parts):
            replaced |= _joined(whole, parts, axis, calls, kernels, builder)
    return relax.DataflowBlock(
        [new for old in block.bindings for new in replaced.get(old.var, [old])]
    )


def _joined(
    whole: Any,
    parts: Sequence[Any],
    axis: int,
    calls: Mapping[Any, Any],
    kernels: Mapping[str, Any],
    builder: Any,
) -> dict[Any, Sequence[Any]]:
    """What is bound in the place of each variable; empty if a kernel cannot store elsewhere."""
    from tvm import relax

    moved, offset = {}, 0
    for part in parts:
        kernel = kernels[calls[part].args[0].name_hint]
        moved[part] = _storing_into(kernel, _extents(whole), axis, offset)
        offset += _extents(part)[axis]
    if None in moved.values():
        return {}
    ordered = [var for var in calls if var in moved]
    bindings: dict[Any, Sequence[Any]] = {whole: []}
    so_far = None
    for part in ordered:
        arguments = list(calls[part].args[1])
        function = builder.add_func(moved[part], f"{calls[part].args[0].name_hint}{_SUFFIX}")
        if so_far is None:
            call = relax.call_tir(function, arguments, whole.ty)
        else:
            place = len(arguments)
            call = relax.call_tir_inplace(function, [*arguments, so_far], place, whole.ty)
        last = part is ordered[-1]
        so_far = whole if last else relax.DataflowVar(f"{part.name}{_SUFFIX}", whole.ty)
        bindings[part] = [relax.VarBinding(so_far, call)]
    return bindings


def _storing_into(kernel: Any, whole: Sequence[int], axis: int, offset: int) -> Any | None:
    """A kernel that stores its result at an offset in a larger tensor; None if it cannot."""
    from tvm import s_tir, tirx

    *operands, part = kernel.params
    extents = [tirx.IntImm("int64", extent) for extent in whole]
    joined = tirx.decl_buffer(extents, part.dtype, "whole")
    root = kernel.body.block
    block = s_tir.SBlock(
        root.iter_vars, root.reads, root.writes, root.name_hint,
        tirx.stmt_seq(root.body, _copy(part, joined, axis, offset)), root.init,
        [*root.alloc_buffers, part], root.match_buffers, root.annotations,
    )  # fmt: skip
    body = s_tir.SBlockRealize([], True, block)
    function = tirx.PrimFunc([*operands, joined], body, kernel.ret_type, kernel.attrs)
    schedule = s_tir.Schedule(tvm_adapter.module_from_prim_func(function))
    try:
        schedule.reverse_compute_inline(schedule.get_sblock(_BLOCK))
    except s_tir.ScheduleError:
        return None
    return schedule.mod["main"]


def _copy(part: Any, whole: Any, axis: int, offset: int) -> Any:
    """A loop nest that copies a tensor to an offset in a larger one."""
    from tvm import s_tir, tirx
    from tvm.ir import Range

    numbers = range(len(part.shape))
    loops = [tirx.Var(f"i{number}", "int64") for number in numbers]
    places = [tirx.Var(f"v{number}", "int64") for number in numbers]
    moved = [place + offset if number == axis else place for number, place in enumerate(places)]
    body: Any = s_tir.SBlockRealize(
        loops,
        True,
        s_tir.SBlock(
            [
                tirx.IterVar(Range(0, extent), place, tirx.IterVar.DataPar)
                for extent, place in zip(part.shape, places, strict=True)
            ],
            [tirx.BufferRegion(part, [Range.from_min_extent(place, 1) for place in places])],
            [tirx.BufferRegion(whole, [Range.from_min_extent(place, 1) for place in moved])],
            _BLOCK,
            tirx.BufferStore(whole, tirx.BufferLoad(part, places), moved),
        ),
    )
    for loop, extent in reversed(list(zip(loops, part.shape, strict=True))):
        body = tirx.For(loop, tirx.IntImm("int64", 0), extent, tirx.ForKind.SERIAL, body)
    return body


def _concatenated_axis(kernel: Any, parts: Sequence[Any], whole: Any) -> int | None:
    """Along which axis a kernel does nothing but concatenate its operands; None if it does more."""
    import tvm_ffi

    shape = static_shape(whole)
    shapes = [extents for part in parts if (extents := static_shape(part)) is not None]
    # What a kernel with several results returns has no shape.
    if shape is None or len(shapes) != len(parts) or len(parts) < _FEWEST:
        return None
    for axis, extent in enumerate(shape):
        if sum(extents[axis] for extents in shapes if len(extents) > axis) == extent:
            plain = _concatenation(parts, axis)
            if tvm_ffi.structural_equal(_bare(kernel), _bare(plain)):
                return axis
    return None


def _concatenation(parts: Sequence[Any], axis: int) -> Any:
    """What Relax makes of a concatenation."""
    from tvm import relax

    builder = relax.BlockBuilder()
    operands = [relax.Var(f"part{index}", part.ty) for index, part in enumerate(parts)]
    with builder.function("main", operands):
        builder.emit_func_output(builder.emit(relax.op.concat(operands, axis)))
    lowered = relax.transform.LegalizeOps()(builder.get())
    return next(
        function for _, function in lowered.functions_items() if tvm_adapter.is_prim_func(function)
    )


def _extents(tensor: Any) -> tuple[int, ...]:
    shape = static_shape(tensor)
    assert shape is not None
    return shape


def _bare(kernel: Any) -> Any:
    """A kernel without its name and other attributes."""
    for key in list(kernel.attrs.keys()):
        kernel = kernel.without_attr(key)
    return kernel
