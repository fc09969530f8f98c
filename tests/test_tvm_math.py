"""Polynomials for exp, tanh, erf and what is made of them: within their tolerance, and in use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import special

from schedenv import hardware as hw
from schedenv import tvm_adapter, tvm_math, tvm_relax

tvm_adapter.check_install()

import tvm  # noqa: E402
from tvm import relax  # noqa: E402

op = relax.op
GELU_TANH = np.sqrt(2 / np.pi)


def fused(operator: Callable[[Any], Any], shape: tuple[int, ...], dtype: str = "float32") -> Any:
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType(shape, dtype))
    with builder.function("main", [x]):
        with builder.dataflow():
            result = builder.emit_output(operator(x))
        builder.emit_func_output(result)
    return tvm_relax.fuse(builder.get())


def evaluate(operator: Callable[[Any], Any], x: np.ndarray) -> np.ndarray:
    mod = fused(operator, x.shape, str(x.dtype))
    executable = tvm_relax.compile_network(mod, hw.target(hw.detect()))
    machine = relax.VirtualMachine(executable, tvm.cpu())
    return np.asarray(machine["main"](tvm.runtime.tensor(x)).numpy(), np.float64)


def grid(low: float, high: float) -> np.ndarray:
    return np.linspace(low, high, 40_001, dtype=np.float32)


@pytest.mark.parametrize(
    ("operator", "exact"),
    [
        (op.tanh, np.tanh),
        (op.erf, special.erf),
        (op.sigmoid, special.expit),
        (op.nn.silu, lambda x: x * special.expit(x)),
        (op.nn.gelu, lambda x: x * (1 + special.erf(x * np.sqrt(0.5))) / 2),
        (
            op.nn.gelu_tanh,
            lambda x: x * (1 + np.tanh(GELU_TANH * (x + 0.044715 * x**3))) / 2,
        ),
    ],
    ids=["tanh", "erf", "sigmoid", "silu", "gelu", "gelu_tanh"],
)
def test_functions_are_within_the_tolerance(
    operator: Callable[[Any], Any], exact: Callable[[np.ndarray], np.ndarray]
) -> None:
    for x in (grid(-10, 10), grid(-100, 100)):
        wide = x.astype(np.float64)
        error = np.abs(evaluate(operator, x) - exact(wide)) / np.maximum(1, np.abs(wide))
        assert error.max() <= tvm_math.TOLERATED


def test_exp_is_within_the_tolerance_and_saturates() -> None:
    x = grid(-87, 88)
    exact = np.exp(x.astype(np.float64))
    assert (np.abs(evaluate(op.exp, x) - exact) / exact).max() <= tvm_math.TOLERATED
    low, high = evaluate(op.exp, np.asarray([-1000, 1000], np.float32))
    assert 0 <= low <= np.exp(-87.0)
    assert high >= np.exp(88.0)


def test_softmax_is_within_the_tolerance() -> None:
    x = np.random.default_rng(0).normal(size=(64, 197)).astype(np.float32) * 10
    # A masked entry, as attention has them.
    x[:, 0] = np.finfo(np.float32).min
    error = np.abs(evaluate(op.nn.softmax, x) - special.softmax(x.astype(np.float64), axis=-1))
    assert error.max() <= tvm_math.TOLERATED


@pytest.mark.parametrize("exponent", [0.25, 0.5, 0.75, 1.0, 2.0, 3.0, 3.75])
def test_powers_of_quarters_are_products_and_roots(exponent: float) -> None:
    x = grid(0, 50)
    exact = x.astype(np.float64) ** exponent
    power = evaluate(lambda v: op.power(v, relax.const(exponent)), x)
    assert (np.abs(power - exact) / np.maximum(exact, 1e-30)).max() <= tvm_math.TOLERATED


@pytest.mark.parametrize(
    "operator",
    [
        op.exp, op.tanh, op.erf, op.sigmoid, op.nn.gelu, op.nn.gelu_tanh, op.nn.silu,
        op.nn.softmax, lambda v: op.power(v, relax.const(0.75)),
    ],
)  # fmt: skip
def test_no_kernel_calls_the_c_library(operator: Callable[[Any], Any]) -> None:
    (kernel,) = tvm_relax.kernels(fused(operator, (4, 8)))
    text = kernel.mod.script()
    assert not [name for name in ("exp", "tanh", "erf", "sigmoid", "pow") if f"T.{name}(" in text]


@pytest.mark.parametrize(
    "operator", [op.exp, op.nn.softmax, lambda v: op.power(v, relax.const(0.75, "float64"))]
)
def test_other_types_stay_as_they_are(operator: Callable[[Any], Any]) -> None:
    (kernel,) = tvm_relax.kernels(fused(operator, (4, 8), "float64"))
    text = kernel.mod.script()
    assert "T.exp(" in text or "T.pow(" in text
