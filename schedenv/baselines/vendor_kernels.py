"""The operators as ONNX Runtime and torch compute them, each in the layout that suits it.

Data and weights are converted beforehand, and weights of convolutions are constants that a library
may pack as it likes: more than a kernel that gets its weights at every call can do, so these lines
are, if anything, too good. A batch norm behind a convolution is folded into its weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from schedenv.tasks.families import OPERATORS

Array = npt.NDArray[Any]

LIBRARIES = ("onnxruntime", "torch")
CONVOLUTIONS = frozenset({"c1d", "c2d", "c3d", "grp", "dil", "dep", "cbr", "t2d"})
FAMILIES = CONVOLUTIONS | {"gmm", "tbg", "sfm", "nrm"}
"""Families that a library has a kernel for; capsules are nobody's."""


@dataclass(frozen=True)
class VendorKernel:
    """One operator, ready to run.

    Attributes:
        run: Compute once.
        output: What it computed last, in the task's layout.
    """

    run: Callable[[], object]
    output: Callable[[], Array]


@dataclass(frozen=True)
class Convolution:
    """A convolution in the libraries' layout.

    Attributes:
        data: (N, CI, *spatial).
        weight: (CO, CI / groups, *kernel), or (CI, CO, *kernel) for a transposed one.
        bias: (CO,); None for none.
        stride: Step between windows, on every axis.
        padding: Zeros on each side of every axis.
        dilation: Step between the elements of a window.
        groups: Channel groups.
        transposed: Whether it is a transposed one.
        relu: Whether negative outputs become zero.
    """

    data: Array
    weight: Array
    bias: Array | None
    stride: int
    padding: int
    dilation: int
    groups: int
    transposed: bool
    relu: bool


def make_kernel(
    library: str, family: str, shape: str, inputs: Sequence[Array], threads: int
) -> VendorKernel:
    """A library's kernel for an operator.

    Args:
        library: One of `LIBRARIES`.
        family: One of `FAMILIES`.
        shape: The operator's shape string.
        inputs: The task's inputs, float32.
        threads: How many the kernel may use.
    """
    if family in CONVOLUTIONS:
        operator = OPERATORS[family]
        values = operator.parse(shape)
        keywords = {keyword: values[name] for keyword, name in operator.reference_keywords}
        convolution = as_convolution(family, keywords, inputs)
        if library == "torch":
            return _torch_convolution(convolution, threads)
        return _onnx_convolution(convolution, threads)
    return (_torch_other if library == "torch" else _onnx_other)(family, inputs, threads)


def as_convolution(
    family: str, keywords: Mapping[str, int], inputs: Sequence[Array]
) -> Convolution:
    """The convolution that a family's inputs and parameters stand for."""
    data, weight, *vectors = inputs
    spatial = data.ndim - 2
    bias, groups = None, keywords.get("groups", 1)
    if family == "dep":
        # (1, *kernel, C): one input channel a group.
        weight, groups = np.moveaxis(weight, 0, -2), data.shape[-1]
    if family == "cbr":
        bias, offset, scale = vectors
        weight, bias = weight * scale, bias * scale + offset
    order = (spatial, spatial + 1) if family == "t2d" else (spatial + 1, spatial)
    return Convolution(
        data=np.ascontiguousarray(np.moveaxis(data, -1, 1)),
        weight=np.ascontiguousarray(weight.transpose(*order, *range(spatial))),
        bias=bias,
        stride=keywords["stride"],
        padding=keywords["padding"],
        dilation=keywords.get("dilation", 1),
        groups=groups,
        transposed=family == "t2d",
        relu=family == "cbr",
    )


# -- ONNX Runtime -----------------------------------------------------------------------------


def _onnx_convolution(given: Convolution, threads: int) -> VendorKernel:
    from onnx import helper

    spatial = given.data.ndim - 2
    constants = {"w": given.weight}
    if given.bias is not None:
        constants["b"] = given.bias
    nodes = [
        helper.make_node(
            "ConvTranspose" if given.transposed else "Conv",
            ["x", *constants],
            ["c" if given.relu else "y"],
            strides=[given.stride] * spatial,
            pads=[given.padding] * (2 * spatial),
            dilations=[given.dilation] * spatial,
            group=given.groups,
        )
    ]
    if given.relu:
        nodes.append(helper.make_node("Relu", ["c"], ["y"]))
    kernel = _onnx_kernel(nodes, {"x": given.data}, constants, threads)
    return VendorKernel(kernel.run, lambda: np.moveaxis(kernel.output(), 1, -1))


def _onnx_other(family: str, inputs: Sequence[Array], threads: int) -> VendorKernel:
    from onnx import helper

    feeds = dict(zip(("x", "z"), inputs, strict=False))
    constants: dict[str, Array] = {}
    if family == "gmm":
        nodes = [helper.make_node("MatMul", ["x", "z"], ["y"])]
    elif family == "tbg":
        nodes = [
            helper.make_node("Transpose", ["x"], ["xt"], perm=[0, 2, 1, 3]),
            helper.make_node("Transpose", ["z"], ["zt"], perm=[0, 2, 3, 1]),
            helper.make_node("MatMul", ["xt", "zt"], ["y"]),
        ]
    elif family == "sfm":
        nodes = [helper.make_node("Softmax", ["x"], ["y"], axis=1)]
    else:
        nodes = [helper.make_node("ReduceL2", ["x"], ["y"], axes=[1, 2], keepdims=0)]
    return _onnx_kernel(nodes, feeds, constants, threads)


def _onnx_kernel(
    nodes: Sequence[Any], feeds: Mapping[str, Array], constants: Mapping[str, Array], threads: int
) -> VendorKernel:
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    def value(name: str, shape: Sequence[int] | None) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    graph = helper.make_graph(
        list(nodes),
        "operator",
        [value(name, array.shape) for name, array in feeds.items()],
        [value("y", None)],
        [numpy_helper.from_array(array.astype(np.float32), n) for n, array in constants.items()],
    )
    # Opset 17 is the last in which the axes of a reduction are an attribute.
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    binding = session.io_binding()
    for name, array in feeds.items():
        binding.bind_cpu_input(name, np.ascontiguousarray(array))
    binding.bind_output("y")
    return VendorKernel(
        lambda: session.run_with_iobinding(binding),
        lambda: np.asarray(binding.copy_outputs_to_cpu()[0]),
    )


# -- torch ------------------------------------------------------------------------------------


def _torch_convolution(given: Convolution, threads: int) -> VendorKernel:
    import torch

    functional = torch.nn.functional
    spatial = given.data.ndim - 2
    data, weight = torch.from_numpy(given.data), torch.from_numpy(given.weight)
    if spatial in {2, 3}:
        layout = torch.channels_last if spatial == 2 else torch.channels_last_3d
        data, weight = data.to(memory_format=layout), weight.to(memory_format=layout)
    bias = None if given.bias is None else torch.from_numpy(given.bias)
    kind = "conv_transpose" if given.transposed else "conv"
    function = getattr(functional, f"{kind}{spatial}d")

    def compute() -> Any:
        output = function(
            data,
            weight,
            bias,
            stride=given.stride,
            padding=given.padding,
            dilation=given.dilation,
            groups=given.groups,
        )
        return functional.relu_(output) if given.relu else output

    kernel = _torch_kernel(compute, threads)
    return VendorKernel(kernel.run, lambda: np.moveaxis(kernel.output(), 1, -1))


def _torch_other(family: str, inputs: Sequence[Array], threads: int) -> VendorKernel:
    import torch

    first, *others = (torch.from_numpy(array) for array in inputs)
    computations: dict[str, Callable[[], Any]] = {
        "gmm": lambda: torch.bmm(first, others[0]),
        "tbg": lambda: torch.matmul(first.permute(0, 2, 1, 3), others[0].permute(0, 2, 3, 1)),
        "sfm": lambda: torch.softmax(first, dim=1),
        "nrm": lambda: torch.linalg.vector_norm(first, dim=(1, 2)),
    }
    return _torch_kernel(computations[family], threads)


def _torch_kernel(compute: Callable[[], Any], threads: int) -> VendorKernel:
    import torch

    torch.set_num_threads(threads)
    computed: list[Any] = [None]

    def run() -> None:
        with torch.inference_mode():
            computed[0] = compute()

    def output() -> Array:
        found: Array = computed[0].numpy()
        return found

    return VendorKernel(run, output)
