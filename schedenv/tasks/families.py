"""The table of operator families: names, parameters, suite shapes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType

from schedenv.tasks import layouts, references
from schedenv.tasks.operators import Operator, Parameter


def _parameters(required: str, **optional: int) -> tuple[Parameter, ...]:
    """Parameters from their names; only the padding may be 0."""
    return (
        *(Parameter(name, minimum=0 if name == "P" else 1) for name in required.split()),
        *(Parameter(name, default=default) for name, default in optional.items()),
    )


_WINDOW = (("stride", "S"), ("padding", "P"))
_DILATED = (*_WINDOW, ("dilation", "dilation"))
_GROUPED = (*_DILATED, ("groups", "groups"))

_RESNET_SHAPES = (
    "1x224x224x3x64x7x2x3",
    "1x56x56x64x64x1x1x0",
    "1x14x14x256x256x3x1x1",
    "1x7x7x512x512x3x1x1",
)


def _convolution(
    name: str,
    title: str,
    axes: str,
    te_name: str,
    layout: Callable[[layouts.Values], layouts.Layout],
    suite: tuple[str, ...],
    default: str,
    dilation: int = 1,
    groups: int = 1,
) -> Operator:
    return Operator(
        name=name,
        title=title,
        parameters=_parameters(f"N {axes} CI CO K S P", dilation=dilation, groups=groups),
        te_name=te_name,
        layout=layout,
        reference=references.convolution,
        reference_keywords=_GROUPED,
        suite=suite,
        default=default,
    )


_FAMILIES = (
    Operator(
        name="gmm",
        title="batched matrix product",
        parameters=_parameters("B N M K"),
        te_name="batch_matmul_nkkm",
        layout=layouts.gmm,
        reference=references.matmul,
        suite=("1x128x128x128", "1x512x32x512", "1x512x512x512", "1x1024x1024x1024"),
        default="1x128x128x128",
    ),
    _convolution(
        name="c1d",
        title="1-d convolution",
        axes="L",
        te_name="conv1d_nlc",
        layout=layouts.conv1d,
        suite=(
            "1x256x64x128x3x2x1",
            "1x128x128x256x1x2x0",
            "1x64x256x256x5x1x2",
            "1x32x512x512x3x1x1",
        ),
        default="1x256x64x128x3x2x1",
    ),
    _convolution(
        name="c2d",
        title="2-d convolution",
        axes="H W",
        te_name="conv2d_nhwc",
        layout=layouts.conv2d,
        suite=_RESNET_SHAPES,
        default=_RESNET_SHAPES[1],
    ),
    _convolution(
        name="c3d",
        title="3-d convolution",
        axes="D H W",
        te_name="conv3d_ndhwc",
        layout=layouts.conv3d,
        suite=(
            "1x16x224x224x3x64x7x2x3",
            "1x16x56x56x64x64x1x1x0",
            "1x16x14x14x256x256x3x1x1",
            "1x16x7x7x512x512x3x1x1",
        ),
        # The suite's smallest takes several milliseconds.
        default="1x8x14x14x32x32x3x1x1",
    ),
    _convolution(
        name="grp",
        title="grouped 2-d convolution",
        axes="H W",
        te_name="conv2d_nhwc",
        layout=layouts.conv2d,
        suite=("1x56x56x64x128x3x2x1", *_RESNET_SHAPES[1:]),
        default=_RESNET_SHAPES[1],
        groups=4,
    ),
    _convolution(
        name="dil",
        title="dilated 2-d convolution",
        axes="H W",
        te_name="conv2d_nhwc",
        layout=layouts.conv2d,
        suite=_RESNET_SHAPES,
        default=_RESNET_SHAPES[1],
        dilation=2,
    ),
    Operator(
        name="dep",
        title="depthwise 2-d convolution",
        parameters=_parameters("N H W C K S P", dilation=1),
        te_name="depthwise_conv2d_nhwc",
        layout=layouts.depthwise,
        reference=references.depthwise_convolution,
        reference_keywords=_DILATED,
        suite=(
            "1x112x112x32x3x1x1",
            "1x112x112x64x3x2x1",
            "1x14x14x512x3x2x1",
            "1x7x7x1024x3x1x1",
        ),
        default="1x14x14x512x3x2x1",
    ),
    Operator(
        name="t2d",
        title="transposed 2-d convolution",
        parameters=_parameters("N H W CI CO K S P"),
        te_name="conv2d_transpose_nhwc",
        layout=layouts.transposed,
        reference=references.transposed_convolution,
        reference_keywords=_WINDOW,
        suite=(
            "1x4x4x512x256x4x2x1",
            "1x8x8x256x128x4x2x1",
            "1x16x16x128x64x4x2x1",
            "1x32x32x64x3x4x2x1",
        ),
        default="1x32x32x64x3x4x2x1",
    ),
    Operator(
        name="cap",
        title="capsule 2-d convolution",
        parameters=_parameters("N H W CI CO K S P", capsule=4),
        te_name="conv2d_capsule_nhwijc",
        layout=layouts.capsule,
        reference=references.capsule_convolution,
        reference_keywords=_WINDOW,
        suite=(
            "1x16x16x32x32x3x2x1",
            "1x8x8x32x32x3x1x1",
            "1x16x16x8x16x3x2x1",
            "1x8x8x16x16x3x1x1",
        ),
        default="1x16x16x8x16x3x2x1",
    ),
    Operator(
        name="nrm",
        title="norm of matrices",
        parameters=_parameters("B M N"),
        te_name="norm_bmn",
        layout=layouts.norm,
        reference=references.norm,
        suite=("1x256x256", "1x512x512", "1x1024x1024", "1x4096x1024"),
        default="1x512x512",
        has_dtype=False,
    ),
    Operator(
        name="sfm",
        title="softmax of rows",
        parameters=_parameters("M N"),
        te_name="softmax_mn",
        layout=layouts.softmax,
        reference=references.softmax,
        suite=("256x256", "512x512", "1024x1024", "2048x2048"),
        default="256x256",
        has_dtype=False,
    ),
    Operator(
        name="cbr",
        title="2-d convolution, batch norm, ReLU",
        parameters=_parameters("N H W CI CO K S P", dilation=1),
        te_name="conv2d_nhwc_bn_relu",
        layout=layouts.conv_bn_relu,
        reference=references.convolution_bn_relu,
        reference_keywords=_DILATED,
        suite=(
            "1x224x224x3x64x7x2x3",
            "1x56x56x64x128x3x2x1",
            "1x28x28x128x256x1x2x0",
            "1x7x7x512x512x3x1x1",
        ),
        default="1x28x28x128x256x1x2x0",
    ),
    Operator(
        name="tbg",
        title="transposition, batched matrix product",
        parameters=_parameters("B L H D"),
        te_name="transpose_batch_matmul",
        layout=layouts.transposed_matmul,
        reference=references.transposed_matmul,
        suite=("1x128x12x64", "1x128x16x64", "1x64x12x128", "1x128x12x128"),
        default="1x64x12x128",
    ),
)

OPERATORS = MappingProxyType({operator.name: operator for operator in _FAMILIES})
"""Every operator family by name, in the order of the suite table."""


@dataclass(frozen=True)
class OperatorRow:
    """One line of the table of operators.

    Attributes:
        name: The family's name.
        title: What it is, in a few words.
        parameters: The pattern of its shape strings, optional numbers in brackets.
        default_shape: The shape that the bare name stands for.
        suite_shapes: Number of shapes in the Ansor-lineage suite.
    """

    name: str
    title: str
    parameters: str
    default_shape: str
    suite_shapes: int


def list_operators() -> list[OperatorRow]:
    """The operators as rows for a table; needs no TVM."""
    return [
        OperatorRow(o.name, o.title, o.signature, o.default, len(o.suite))
        for o in OPERATORS.values()
    ]
