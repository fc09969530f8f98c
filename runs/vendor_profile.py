"""What ONNX Runtime spends on each operator of a network, by its own profile.

Convolutions and matrix products are told apart by their shapes. What it fuses is not what TVM
fuses: a matrix product's time may leave out the bias or the activation that ours includes.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime

from schedenv import hardware as hw
from schedenv.networks.compare import random_inputs
from schedenv.tasks.networks.network import Network, Port

RUNS = 60
FUSED = {"BatchNormalization", "Clip", "Relu", "Add", "Sum"}

Shape = tuple[int, ...]


class Call(NamedTuple):
    """One run of an operator.

    Attributes:
        operator: Its kind.
        name: Of its node.
        us: Microseconds.
        inputs: Shapes.
        output: Shape of the first output.
    """

    operator: str
    name: str
    us: float
    inputs: tuple[Shape, ...]
    output: Shape


def profile(file: Path, ports: Sequence[Port], seed: int, folder: Path) -> list[Call]:
    """Every operator's calls in the second half of `RUNS` runs."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = hw.detect().cores
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    arrays = random_inputs(ports, seed)
    for _ in range(RUNS):
        session.run(None, dict(zip([port.name for port in ports], arrays, strict=True)))
    written = Path(session.end_profiling())
    events = [
        event
        for event in json.loads(written.read_text())
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")
    ]
    written.unlink()
    return [_call(event) for event in events[len(events) // 2 :]]


def _call(event: dict[str, Any]) -> Call:
    arguments = event["args"]
    inputs, outputs = (
        [tuple(shape) for typed in arguments[key] for shape in typed.values()]
        for key in ("input_type_shape", "output_type_shape")
    )
    name = event["name"].removesuffix("_kernel_time")
    output = outputs[0] if outputs else ()
    return Call(arguments["op_name"], name, float(event["dur"]), tuple(inputs), output)


def by_operator(calls: Sequence[Call]) -> dict[str, float]:
    """Microseconds of one run of the network by kind of operator, the largest first."""
    spent: dict[str, float] = defaultdict(float)
    for call in calls:
        spent[call.operator] += call.us / (RUNS / 2)
    return dict(sorted(spent.items(), key=lambda item: -item[1]))


def by_kernel(file: Path, network: Network, calls: Sequence[Call]) -> dict[str, float]:
    """Microseconds of one call of what our kernels compute, where it can be told."""
    return _matrix_products(network, calls) | _convolutions(file, network, calls)


class _Convolution(NamedTuple):
    """What tells convolutions apart; those of a network that agree in it have one time, the mean.

    Attributes:
        window: Height and width of the weights, and channels that one output channel reads.
        extents: Height and width of the input, then of the output, and the output's channels.
        residual: Whether a tensor of the output's size is added to it.
    """

    window: Shape
    extents: Shape
    residual: bool


def _convolutions(file: Path, network: Network, calls: Sequence[Call]) -> dict[str, float]:
    graph = onnx.load(str(file)).graph
    weights = _weights_by_name(graph)
    by_node: dict[tuple[_Convolution, str], list[float]] = defaultdict(list)
    for call in calls:
        name = call.name.removesuffix("_nchwc")
        if call.operator.endswith("Conv") and name in weights:
            by_node[_theirs(call, weights[name]), name].append(call.us)
    spent: dict[_Convolution, list[float]] = defaultdict(list)
    for (convolution, _), times_us in by_node.items():
        spent[convolution].append(float(np.median(times_us)))
    found = {}
    for name, entry in network.entries.items():
        if "conv2d" in entry.family:
            convolution = _ours([argument.shape for argument in network.task(name).arguments])
            if convolution in spent:
                found[name] = float(np.mean(spent[convolution]))
    return found


def _weights_by_name(graph: onnx.GraphProto) -> dict[str, Shape]:
    """The weights' shapes of convolutions, by all names that ONNX Runtime may give a fused one."""
    dims = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    users = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            users[name].append(node)
    found = {}
    for node in graph.node:
        if node.op_type != "Conv" or node.input[1] not in dims:
            continue
        # It names a fused node by the last tensor of what it fused.
        names, end = [node.name, node.output[0]], node
        while len(after := users[end.output[0]]) == 1 and after[0].op_type in FUSED:
            end = after[0]
            names += [end.name, end.output[0]]
        for name in names:
            found.setdefault(name, dims[node.input[1]])
    return found


def _theirs(call: Call, weights: Shape) -> _Convolution:
    # Channels of the profile's own shapes are rounded up to its blocks.
    channels, read, height, width = weights
    extents = (*call.inputs[0][2:], *call.output[2:], channels)
    return _Convolution((height, width, read), extents, call.output in call.inputs[3:])


def _ours(shapes: Sequence[Shape]) -> _Convolution | None:
    data, weights, *others, output = shapes
    if len(data) != 4 or len(output) != 4:
        return None
    return _Convolution(weights[:3], (*data[1:3], *output[1:]), output in others)


def _matrix_products(network: Network, calls: Sequence[Call]) -> dict[str, float]:
    """The matrix products'; those of one shape have one time, the mean."""
    spent: dict[tuple[Shape, int], list[float]] = defaultdict(list)
    for call in calls:
        if call.operator.endswith(("MatMul", "Gemm")):
            spent[_key(call.output, call.inputs[0])].append(call.us)
    found = {}
    for name, entry in network.entries.items():
        arguments = network.task(name).arguments
        key = _key(arguments[-1].shape, arguments[0].shape)
        if "matmul" in entry.family and key in spent:
            found[name] = float(np.mean(spent[key]))
    return found


def _key(output: Shape, left: Shape) -> tuple[Shape, int]:
    """A product's output without unit extents, and how many elements its left operand has."""
    return tuple(extent for extent in output if extent > 1), math.prod(left)
