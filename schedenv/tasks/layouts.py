"""The geometry of the operators: buffer shapes and counts from the parameters, without TVM.

A layout function takes parameter values by name and returns a `Layout`. It raises `ValueError`
with the reason when the parameters contradict each other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

Shape: TypeAlias = tuple[int, ...]
Values: TypeAlias = Mapping[str, int]


@dataclass(frozen=True)
class Layout:
    """What an operator's parameters imply.

    Attributes:
        inputs: Shapes of the inputs, in calling order.
        output: Shape of the output.
        reduction_length: Elements in the longest reduction.
        scratch_elements: Elements of the intermediate buffers of an unscheduled program.
        flops: Floating-point operations where TVM's count does not serve; None to use TVM's.
    """

    inputs: tuple[Shape, ...]
    output: Shape
    reduction_length: int
    scratch_elements: int = 0
    flops: float | None = None


LayoutFunction: TypeAlias = Callable[[Values], Layout]


def gmm(v: Values) -> Layout:
    """Batched matrix product."""
    return Layout(
        inputs=((v["B"], v["N"], v["K"]), (v["B"], v["K"], v["M"])),
        output=(v["B"], v["N"], v["M"]),
        reduction_length=v["K"],
    )


def conv1d(v: Values) -> Layout:
    """Convolution over L."""
    return _convolution(v, ("L",))


def conv2d(v: Values) -> Layout:
    """Convolution over H and W."""
    return _convolution(v, ("H", "W"))


def conv3d(v: Values) -> Layout:
    """Convolution over D, H and W."""
    return _convolution(v, ("D", "H", "W"))


def conv_bn_relu(v: Values) -> Layout:
    """Convolution over H and W with three vectors a channel."""
    conv = _convolution({**v, "groups": 1}, ("H", "W"))
    vector = (v["CO"],)
    scratch = conv.scratch_elements + math.prod(conv.output)
    return Layout(
        (*conv.inputs, vector, vector, vector), conv.output, conv.reduction_length, scratch
    )


def depthwise(v: Values) -> Layout:
    """Depthwise convolution over H and W."""
    padded, out = _windows(v, ("H", "W"), v["dilation"])
    return Layout(
        inputs=((v["N"], v["H"], v["W"], v["C"]), (1, v["K"], v["K"], v["C"])),
        output=(v["N"], *out, v["C"]),
        reduction_length=v["K"] ** 2,
        scratch_elements=v["N"] * math.prod(padded) * v["C"],
    )


def transposed(v: Values) -> Layout:
    """Transposed convolution over H and W.

    TVM counts the products with the zeros that the stride inserts, `stride ** 2` times too many;
    the count here is that of the work: every input element times every element of the kernel.
    """
    if v["P"] >= v["K"]:
        raise ValueError(f"the padding P={v['P']} must be smaller than the kernel K={v['K']}")
    out = tuple((v[axis] - 1) * v["S"] - 2 * v["P"] + v["K"] for axis in ("H", "W"))
    if min(out) < 1:
        raise ValueError(
            f"the output would be {'x'.join(map(str, out))}: the padding P={v['P']} cuts all off"
        )
    border = 2 * -(-(v["K"] - 1 - v["P"]) // v["S"])
    padded = v["N"] * (v["H"] + border) * (v["W"] + border) * v["CI"]
    return Layout(
        inputs=((v["N"], v["H"], v["W"], v["CI"]), (v["K"], v["K"], v["CI"], v["CO"])),
        output=(v["N"], *out, v["CO"]),
        reduction_length=v["K"] ** 2 * v["CI"],
        # The reference's uncropped output is as large as the output plus its borders.
        scratch_elements=padded + v["N"] * (out[0] + 2 * v["P"]) * (out[1] + 2 * v["P"]) * v["CO"],
        flops=2.0 * v["N"] * v["H"] * v["W"] * v["CI"] * v["CO"] * v["K"] ** 2,
    )


def capsule(v: Values) -> Layout:
    """Capsule convolution over H and W."""
    padded, out = _windows(v, ("H", "W"), 1)
    size = v["capsule"]
    return Layout(
        inputs=(
            (v["N"], v["H"], v["W"], size, size, v["CI"]),
            (v["K"], v["K"], size, size, v["CI"], v["CO"]),
        ),
        output=(v["N"], *out, size, size, v["CO"]),
        reduction_length=v["K"] ** 2 * size * v["CI"],
        scratch_elements=v["N"] * math.prod(padded) * size**2 * v["CI"],
    )


def norm(v: Values) -> Layout:
    """Norm of matrices."""
    return Layout(((v["B"], v["M"], v["N"]),), (v["B"],), v["M"] * v["N"])


def softmax(v: Values) -> Layout:
    """Softmax of rows."""
    shape = (v["M"], v["N"])
    return Layout((shape,), shape, v["N"], scratch_elements=math.prod(shape))


def transposed_matmul(v: Values) -> Layout:
    """Batched matrix product of transposed operands."""
    operand = (v["B"], v["L"], v["H"], v["D"])
    return Layout(
        inputs=(operand, operand),
        output=(v["B"], v["H"], v["L"], v["L"]),
        reduction_length=v["D"],
        scratch_elements=2 * math.prod(operand),
    )


def _convolution(v: Values, axes: tuple[str, ...]) -> Layout:
    groups = v["groups"]
    for name in ("CI", "CO"):
        if v[name] % groups:
            raise ValueError(f"{name}={v[name]} is not divisible by groups={groups}")
    padded, out = _windows(v, axes, v["dilation"])
    per_group = v["CI"] // groups
    kernel = (v["K"],) * len(axes)
    return Layout(
        inputs=((v["N"], *(v[axis] for axis in axes), v["CI"]), (*kernel, per_group, v["CO"])),
        output=(v["N"], *out, v["CO"]),
        reduction_length=math.prod(kernel) * per_group,
        scratch_elements=v["N"] * math.prod(padded) * v["CI"],
    )


def _windows(v: Values, axes: tuple[str, ...], dilation: int) -> tuple[Shape, Shape]:
    """Extents of the padded input and of the output along the spatial axes."""
    padded = tuple(v[axis] + 2 * v["P"] for axis in axes)
    reach = (v["K"] - 1) * dilation + 1
    for axis, extent in zip(axes, padded, strict=True):
        if reach > extent:
            raise ValueError(
                f"the kernel K={v['K']} with dilation {dilation} spans {reach} elements, but "
                f"{axis}={v[axis]} with padding P={v['P']} has only {extent}"
            )
    return padded, tuple((extent - reach) // v["S"] + 1 for extent in padded)
