"""Rewrites of imported graphs, before their layout changes and their operators become kernels.

What front ends make stands in the way of fusion: clips, paddings and reshapes between an operator
and what could have been computed with it. Next to `schedenv.tvm_relax`, a module that touches
Relax.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tvm import IRModule

_UNARY = {
    "relax.exp", "relax.erf", "relax.tanh", "relax.sigmoid", "relax.sqrt", "relax.rsqrt",
    "relax.negative", "relax.abs", "relax.square", "relax.nn.relu", "relax.nn.gelu",
    "relax.nn.gelu_tanh", "relax.nn.silu",
}  # fmt: skip
_BINARY = {
    "relax.add", "relax.subtract", "relax.multiply", "relax.divide", "relax.maximum",
    "relax.minimum",
}  # fmt: skip
_NCHW_PADS = 8


def split_clips(mod: IRModule) -> IRModule:
    """`clip` as a maximum and a minimum, which can follow a convolution in any layout."""
    import numpy as np
    from tvm import relax
    from tvm.relax.dpl import is_op, rewrite_call, wildcard

    def split(call: Any, _: Any) -> Any:
        operand, *bounds = call.args
        values = [_constant(bound) for bound in bounds]
        if None in values:
            return call
        least, most = (relax.const(np.asarray(value, str(operand.ty.dtype))) for value in values)
        return relax.op.minimum(relax.op.maximum(operand, least), most)

    clip = is_op("relax.clip")(wildcard(), varg_default_wildcard=True)
    return _each_function(mod, lambda function: rewrite_call(clip, split, function))


def fold_pads(mod: IRModule) -> IRModule:
    """Zeros around an image become its convolution's own padding; a pad by nothing goes.

    Frameworks with another rule of padding than torch's are imitated by a pad before each
    convolution, which changes the layout, copies the image, and changes the layout back.
    """
    from tvm import relax
    from tvm.relax.dpl import is_op, rewrite_call, wildcard

    image, weight = wildcard(), wildcard()
    pad = is_op("relax.nn.pad")(image)

    def drop(call: Any, matched: Any) -> Any:
        return call if any(map(int, call.attrs.pad_width)) else matched[image]

    def fold(call: Any, matched: Any) -> Any:
        pads, attrs = _pads_of(matched[pad]), call.attrs
        if pads is None or str(attrs.data_layout) != "NCHW":
            return call
        own = [int(extent) for extent in attrs.padding]
        padding = [own[side] + pads[side] for side in range(4)]
        return relax.op.nn.conv2d(
            matched[image], matched[weight], strides=list(attrs.strides), padding=padding,
            dilation=list(attrs.dilation), groups=int(attrs.groups),
            data_layout=str(attrs.data_layout), kernel_layout=str(attrs.kernel_layout),
            out_layout=str(attrs.out_layout), out_dtype=attrs.out_dtype,
        )  # fmt: skip

    convolution = is_op("relax.nn.conv2d")(pad, weight)
    mod = _each_function(mod, lambda function: rewrite_call(convolution, fold, function))
    return _each_function(mod, lambda function: rewrite_call(pad, drop, function))


def _pads_of(pad: Any) -> list[int] | None:
    """Top, left, bottom, right of a pad of an image's rows and columns with zeros; or None."""
    attrs = pad.attrs
    widths = [int(width) for width in attrs.pad_width]
    zeros = str(attrs.pad_mode) == "constant" and float(attrs.pad_value) == 0
    if not zeros or len(widths) != _NCHW_PADS or any(widths[:4]) or min(widths) < 0:
        return None
    top, bottom, left, right = widths[4:]
    return [top, left, bottom, right]


def sink_reshapes(mod: IRModule) -> IRModule:
    """Elementwise operators come before the reshape of their operand, reshapes of reshapes are one.

    A linear layer of torch is a product of matrices, its result reshaped; with the reshape out of
    the way, what follows is fused with the product.
    """
    from tvm import IRModule, relax

    functions = {}
    for name, function in mod.functions_items():
        if isinstance(function, relax.Function):
            functions[name] = _sinker(mod).visit_expr(function)
        else:
            functions[name] = function
    return IRModule(functions, attrs=mod.attrs)


def _sinker(mod: IRModule) -> Any:
    from tvm import relax
    from tvm.relax.expr_functor import PyExprMutator, mutator

    @mutator
    class Sinker(PyExprMutator):  # type: ignore[misc]
        def visit_call_(self, call: Any) -> Any:
            call = self.builder_.normalize(self.visit_expr_post_order(call))
            name = getattr(call.op, "name", None)
            if name == "relax.broadcast_to":
                shape = static_shape(call)
                return call.args[0] if shape and shape == static_shape(call.args[0]) else call
            if name == "relax.reshape":
                return self._reshape(call)
            if name in _UNARY:
                return self._unary(call)
            if name in _BINARY:
                return self._binary(call)
            return call

        def _before(self, expression: Any) -> Any:
            """What a reshape of static shapes was made from; None for anything else."""
            if not isinstance(expression, relax.Var):
                return None
            value = self.lookup_binding(expression)
            if (
                not isinstance(value, relax.Call)
                or getattr(value.op, "name", "") != "relax.reshape"
            ):
                return None
            source = value.args[0]
            return source if static_shape(source) and static_shape(expression) else None

        def _reshape(self, call: Any) -> Any:
            source = self._before(call.args[0])
            if source is None:
                return call
            shape = static_shape(call)
            if shape is None:
                return call
            return source if static_shape(source) == shape else relax.op.reshape(source, shape)

        def _unary(self, call: Any) -> Any:
            source = self._before(call.args[0])
            if source is None:
                return call
            result = self.builder_.emit(relax.Call(call.op, [source], call.attrs))
            return relax.op.reshape(result, static_shape(call.args[0]))

        def _binary(self, call: Any) -> Any:
            shape = static_shape(call)
            for side, operand in enumerate(call.args):
                source, other = self._before(operand), call.args[1 - side]
                if source is None or static_shape(operand) != shape:
                    continue
                other = self._as(other, shape, static_shape(source))
                if other is None:
                    continue
                operands = [source, other] if side == 0 else [other, source]
                result = self.builder_.emit(relax.Call(call.op, operands, call.attrs))
                return relax.op.reshape(result, shape)
            return call

        def _as(self, other: Any, shape: Any, wanted: Any) -> Any:
            """The other operand for a result of the wanted shape; None if that is impossible."""
            other_shape = static_shape(other)
            if other_shape is None:
                return None
            if math.prod(other_shape) == 1 and len(other_shape) <= len(wanted):
                return other
            if other_shape != shape:
                return None
            source = self._before(other)
            source = other if source is None else source
            if static_shape(source) == wanted:
                return source
            return self.builder_.emit(relax.op.reshape(source, wanted))

    return Sinker(mod)


def static_shape(expression: Any) -> tuple[int, ...] | None:
    """The shape of a tensor; None if it is not static, or the expression no tensor."""
    from tvm.tirx import IntImm

    shape = getattr(expression.ty, "shape", None)
    if shape is None or not all(isinstance(extent, IntImm) for extent in shape):
        return None
    return tuple(int(extent) for extent in shape)


def _constant(expression: Any) -> float | None:
    """The value of a number in the program; None for any other expression."""
    while hasattr(expression, "value"):
        expression = expression.value
    return float(expression) if isinstance(expression, int | float) else None


def _each_function(mod: IRModule, change: Callable[[Any], Any]) -> IRModule:
    from tvm import IRModule, relax

    functions = {
        name: change(function) if isinstance(function, relax.Function) else function
        for name, function in mod.functions_items()
    }
    return IRModule(functions, attrs=mod.attrs)
