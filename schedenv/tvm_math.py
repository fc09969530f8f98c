"""Fast vector math: exp, tanh, erf, and the operators made of them, as polynomials.

For these TVM calls the C library, one element at a time: a softmax then spends most of its time in
`expf`. TOPI's `fast_exp`, `fast_tanh` and `fast_erf` are a few multiplications and additions, which
LLVM vectorises. They are put in where operators become loops, so every kernel has them in its
program: searched, exported to a database and compiled by plain TVM, it is the same.

Next to `schedenv.tvm_relax`, a module that touches TVM internals that have moved before.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

TOLERATED = 1e-6
"""Deviation of a fast function from the exact one: relative for exp, absolute for the others, which
lie between -1 and 1. Beyond +-88, where float32 ends, exp stays what it is at +-88; NaN is not
passed on. Only float32 is replaced."""

_QUARTERS = 16
"""Powers up to 4 whose exponent is a multiple of a quarter are products and square roots."""

Legalize = Callable[[Any, Any], Any]


def fast_operators() -> Mapping[str, Legalize]:
    """How `relax.transform.LegalizeOps` lowers each operator that has a fast form."""
    from tvm import topi

    return {
        "relax.exp": _unary(topi.fast_exp, "exp"),
        "relax.tanh": _unary(topi.fast_tanh, "tanh"),
        "relax.erf": _unary(topi.fast_erf, "erf"),
        "relax.sigmoid": _unary(_sigmoid, "sigmoid"),
        "relax.nn.silu": _unary(lambda x: topi.multiply(x, _sigmoid(x)), "silu"),
        "relax.nn.gelu": _unary(_gelu, "gelu"),
        "relax.nn.gelu_tanh": _unary(_gelu_tanh, "gelu_tanh"),
        "relax.nn.softmax": _softmax,
        "relax.power": _power,
    }


def _unary(function: Callable[[Any], Any], name: str) -> Legalize:
    def legalize(builder: Any, call: Any) -> Any:
        (operand,) = call.args
        if str(operand.ty.dtype) != "float32":
            return _stock(builder, call)
        # The prefix keeps the function's name apart from the C library's, as TVM's own does.
        return builder.call_te(function, operand, primfunc_name_hint=f"tir_{name}")

    return legalize


def _stock(builder: Any, call: Any) -> Any:
    """TVM's own lowering of a call."""
    return call.op.get_attr("FLegalize")(builder, call)


def _sigmoid(x: Any) -> Any:
    from tvm import te, topi

    exp = topi.fast_exp(topi.negative(x))
    return te.compute(x.shape, lambda *index: 1.0 / (1.0 + exp(*index)), name="T_fast_sigmoid")


def _gelu(x: Any) -> Any:
    from tvm import te, topi

    erf = topi.fast_erf(topi.multiply(x, math.sqrt(0.5)))
    return te.compute(
        x.shape, lambda *index: x(*index) * (0.5 + 0.5 * erf(*index)), name="T_fast_gelu"
    )


def _gelu_tanh(x: Any) -> Any:
    from tvm import te, topi

    inner = te.compute(
        x.shape,
        lambda *index: (
            math.sqrt(2 / math.pi) * x(*index) * (1.0 + 0.044715 * x(*index) * x(*index))
        ),
        name="T_gelu_inner",
    )
    tanh = topi.fast_tanh(inner)
    return te.compute(
        x.shape, lambda *index: x(*index) * (0.5 + 0.5 * tanh(*index)), name="T_fast_gelu_tanh"
    )


def _softmax(builder: Any, call: Any) -> Any:
    from tvm import topi

    if str(call.args[0].ty.dtype) != "float32":
        return _stock(builder, call)
    return builder.call_te(
        topi.nn.fast_softmax, call.args[0], call.attrs.axis, primfunc_name_hint="softmax"
    )


def _power(builder: Any, call: Any) -> Any:
    """`x ** 0.75`, as local response normalisation has it, is a square root and another of it."""
    from tvm import te

    base, exponent = call.args
    quarters = _quarters(exponent, base.ty.ndim)
    if quarters is None or str(base.ty.dtype) != "float32":
        return _stock(builder, call)

    def power(x: Any) -> Any:
        return te.compute(x.shape, lambda *index: _product(x(*index), quarters), name="T_power")

    return builder.call_te(power, base, primfunc_name_hint="power")


def _quarters(exponent: Any, rank: int) -> int | None:
    """A constant exponent in quarters; None for one that is no constant, or another number.

    One of a higher rank than the base would give the result more axes.
    """
    from tvm import runtime

    value = getattr(exponent, "value", None)
    if not isinstance(value, runtime.Tensor):
        return None
    array = value.numpy()
    if array.size != 1 or array.ndim > rank:
        return None
    quarters = float(array.reshape(())) * 4
    whole = quarters.is_integer() and 0 < quarters <= _QUARTERS
    return int(quarters) if whole else None


def _product(x: Any, quarters: int) -> Any:
    from tvm import tirx

    root = tirx.sqrt(x)
    factors = [x] * (quarters // 4)
    factors += [root] if quarters & 2 else []
    factors += [tirx.sqrt(root)] if quarters & 1 else []
    product = factors[0]
    for factor in factors[1:]:
        product = product * factor
    return product
