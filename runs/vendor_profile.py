"""What ONNX Runtime spends on each operator of a network, by its own profile.

Convolutions are told apart by their names, matrix products by their shapes. What it fuses is not
what TVM fuses: a matrix product's time may leave out the bias or the activation that ours includes.
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
from schedenv import tvm_relax
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


def _convolutions(file: Path, network: Network, calls: Sequence[Call]) -> dict[str, float]:
    """The convolution kernels'; empty where the two graphs' convolutions differ."""
    kernel_of = {name: entry.name for entry in network.entries.values() for name in entry.names}
    sequence = tvm_relax.call_sequence(network.graph())
    ours = [kernel_of[name] for name in sequence if "conv2d" in name]
    graph = onnx.load(str(file)).graph
    if not ours or not _same_convolutions(graph, network, ours):
        return {}
    spent: dict[str, list[float]] = defaultdict(list)
    for call in calls:
        if call.operator.endswith("Conv"):
            spent[call.name.removesuffix("_nchwc")].append(call.us)
    users = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            users[name].append(node)
    found: dict[str, float] = {}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    for kernel, node in zip(ours, convolutions, strict=True):
        # It names a fused node by the last tensor of what it fused.
        names, end = [node.name, node.output[0]], node
        while len(after := users[end.output[0]]) == 1 and after[0].op_type in FUSED:
            end = after[0]
            names += [end.name, end.output[0]]
        times = next((spent[name] for name in names if name in spent), None)
        if times is not None:
            found[kernel] = float(np.median(times))
    return found


def _same_convolutions(graph: onnx.GraphProto, network: Network, calls: Sequence[str]) -> bool:
    """Whether the kernels called are the file's convolutions, in its order, by their weights."""
    dims = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    theirs = [dims.get(node.input[1]) for node in graph.node if node.op_type == "Conv"]
    ours = [network.task(name).arguments[1].shape for name in calls]
    return len(theirs) == len(ours) and all(
        weight is not None and shape[:3] == (weight[2], weight[3], weight[1])
        for shape, weight in zip(ours, theirs, strict=True)
    )


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
