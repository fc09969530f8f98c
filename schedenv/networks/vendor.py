"""What ONNX Runtime spends on each operator of a network, by its own profile.

It runs in a process of its own, `python -m schedenv.networks.vendor REQUEST`. Convolutions and
matrix products are told apart by their shapes. What it fuses is not what TVM fuses: a matrix
product's time may leave out the bias or the activation that ours includes; and profiling costs it
time, so that in networks of a few milliseconds its operators add up to more than the network takes.
"""

from __future__ import annotations

import json
import math
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from schedenv import hardware as hw
from schedenv.networks.child import ask
from schedenv.networks.compare import random_inputs
from schedenv.tasks.networks.network import Network, Port

if TYPE_CHECKING:
    import onnx

RUNS = 60
"""Of the network; the first half is not counted."""

LONG_S = 15.0
"""Runs that took so long, together, are enough, if there are four."""

TIMEOUT_S = 300.0

_MODULE = "schedenv.networks.vendor"
_FEWEST_RUNS = 4
_FUSED = {"BatchNormalization", "Clip", "Relu", "Add", "Sum"}

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


@dataclass(frozen=True)
class Profile:
    """What was measured.

    Attributes:
        calls: Of all operators, in all runs that count.
        runs: How many count.
    """

    calls: list[Call]
    runs: int


def profile(file: Path, ports: Sequence[Port], hardware: hw.Hardware, seed: int = 0) -> Profile:
    """Run an ONNX file and time every operator.

    Args:
        file: The network.
        ports: Its inputs.
        hardware: Whose cores it runs on.
        seed: Of the inputs.

    Raises:
        MachineError: It cannot be run, or takes longer than `TIMEOUT_S`.
    """
    with tempfile.TemporaryDirectory(prefix="schedenv-profile-") as scratch:
        inputs = Path(scratch) / "inputs.npz"
        np.savez(inputs, *random_inputs(ports, seed))
        request = {
            "file": str(file),
            "inputs": str(inputs),
            "names": [port.name for port in ports],
            "threads": hardware.cores,
            "prefix": str(Path(scratch) / "profile"),
        }
        answer = ask(_MODULE, request, hardware, TIMEOUT_S, f"the operators of {file}")
        events = [
            event
            for event in json.loads(Path(answer["written"]).read_text())
            if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")
        ]
    runs = answer["runs"]
    # Each run has the same events.
    uncounted = len(events) // runs * (runs // 2)
    return Profile([_call(event) for event in events[uncounted:]], runs - runs // 2)


def _call(event: dict[str, Any]) -> Call:
    arguments = event["args"]
    inputs, outputs = (
        [tuple(shape) for typed in arguments[key] for shape in typed.values()]
        for key in ("input_type_shape", "output_type_shape")
    )
    name = event["name"].removesuffix("_kernel_time")
    output = outputs[0] if outputs else ()
    return Call(arguments["op_name"], name, float(event["dur"]), tuple(inputs), output)


def by_operator(profile: Profile) -> dict[str, float]:
    """Microseconds of one run of the network by kind of operator, the largest first."""
    spent: dict[str, float] = defaultdict(float)
    for call in profile.calls:
        spent[call.operator] += call.us / profile.runs
    return dict(sorted(spent.items(), key=lambda item: -item[1]))


def by_kernel(file: Path, network: Network, profile: Profile) -> dict[str, float]:
    """Microseconds of one call of what our kernels compute, where it can be told."""
    calls = profile.calls
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
    import onnx

    graph = onnx.load(str(file), load_external_data=False).graph
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
            ours = _ours([argument.shape for argument in network.task(name).arguments])
            if ours is not None and ours in spent:
                found[name] = float(np.mean(spent[ours]))
    return found


def _weights_by_name(graph: onnx.GraphProto) -> dict[str, Shape]:
    """The weights' shapes of convolutions, by all names that ONNX Runtime may give a fused one."""
    dims = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    users = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            users[name].append(node)
    found: dict[str, Shape] = {}
    for node in graph.node:
        # Convolutions of one or three dimensions are not told apart.
        if node.op_type != "Conv" or len(dims.get(node.input[1], ())) != 4:
            continue
        # It names a fused node by the last tensor of what it fused.
        names, end = [node.name, node.output[0]], node
        while len(after := users[end.output[0]]) == 1 and after[0].op_type in _FUSED:
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


def main() -> None:
    """Run, and print where the profile is."""
    import onnxruntime

    request = json.loads(sys.argv[1])
    arrays = np.load(request["inputs"])
    inputs = dict(zip(request["names"], (arrays[key] for key in arrays.files), strict=True))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = request["threads"]
    options.log_severity_level = 3
    options.enable_profiling = True
    options.profile_file_prefix = request["prefix"]
    session = onnxruntime.InferenceSession(
        request["file"], options, providers=["CPUExecutionProvider"]
    )
    runs, end_s = 0, time.monotonic() + LONG_S
    while runs < _FEWEST_RUNS or (runs < RUNS and time.monotonic() < end_s):
        session.run(None, inputs)
        runs += 1
    print(json.dumps({"written": session.end_profiling(), "runs": runs}), flush=True)


if __name__ == "__main__":
    main()
    os._exit(0)
