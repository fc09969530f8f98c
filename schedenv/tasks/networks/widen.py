"""Convolutions whose channels fill no whole vectors get more of them, which are cut off again.

Every tile of MetaSchedule's spaces is perfect: of 1000 channels, tiles of 8 or 40, never of 16. A
schedule of 1024 channels is many times faster than the 2.4 % more work that they cost.
"""

from __future__ import annotations

from typing import Any

import numpy as np

_MOST_WASTE = 0.1
_ELEMENTWISE = {"Relu", "LeakyRelu", "Clip", "Sigmoid", "Tanh"}


def widened(channels: int, lanes: int) -> int:
    """How many channels to compute, at least `channels`: four vectors at a time if that is cheap.

    At most 10 % more; a convolution for which that is not enough stays as it is.

    Args:
        channels: Output channels.
        lanes: Elements of a vector register.
    """
    if channels % lanes == 0:
        return channels
    for multiple in (4 * lanes, 2 * lanes, lanes):
        wide = -(-channels // multiple) * multiple
        if wide <= channels * (1 + _MOST_WASTE):
            return wide
    return channels


def widen_convolutions(model: Any, lanes: int) -> Any:
    """Pad the output channels of convolutions with zero weights, and cut the result; in place.

    The cut goes behind the elementwise operators that follow, so that they stay fused with the
    convolution. Grouped convolutions, weights that are no constants or used twice stay as they are.

    Args:
        model: An `onnx.ModelProto`.
        lanes: Elements of a vector register, of the convolutions' dtype.
    """
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    uses: dict[str, list[Any]] = {}
    for node in model.graph.node:
        for name in node.input:
            uses.setdefault(name, []).append(node)
    results = {value.name for value in model.graph.output}
    cuts: dict[str, Any] = {}
    for node in model.graph.node:
        constants = list(node.input[1:])
        if node.op_type != "Conv" or not _is_widenable(node, constants, weights, uses):
            continue
        channels = weights[constants[0]].dims[0]
        wide = widened(channels, lanes)
        if wide == channels:
            continue
        for name in constants:
            _pad(weights[name], wide)
        end = node
        while (
            end.output[0] not in results
            and len(followers := uses.get(end.output[0], [])) == 1
            and followers[0].op_type in _ELEMENTWISE
        ):
            end = followers[0]
        cut = _cut(model, end, channels)
        cuts[end.output[0]] = cut
    nodes = []
    for node in model.graph.node:
        copy = type(node)()
        copy.CopyFrom(node)
        nodes.append(copy)
        if node.output and node.output[0] in cuts:
            nodes.append(cuts[node.output[0]])
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def _is_widenable(
    node: Any, constants: list[str], weights: dict[str, Any], uses: dict[str, list[Any]]
) -> bool:
    groups = next((a.i for a in node.attribute if a.name == "group"), 1)
    return groups == 1 and all(
        name in weights and len(uses[name]) == 1 and weights[name].data_type == 1
        for name in constants
    )


def _pad(tensor: Any, wide: int) -> None:
    from onnx import numpy_helper

    array = numpy_helper.to_array(tensor)
    padding = [(0, wide - array.shape[0]), *[(0, 0)] * (array.ndim - 1)]
    tensor.CopyFrom(numpy_helper.from_array(np.pad(array, padding), tensor.name))


def _cut(model: Any, end: Any, channels: int) -> Any:
    """A slice that gives `end`'s output its name back; `end` then writes a wide one."""
    from onnx import helper, numpy_helper

    name = end.output[0]
    end.output[0] = f"{name}_widened"
    inputs = [end.output[0]]
    # As inputs, which TVM's front end expects whatever the version of the operators.
    for key, value in (("starts", 0), ("ends", channels), ("axes", 1)):
        inputs.append(f"{name}_{key}")
        array = np.asarray([value], dtype=np.int64)
        model.graph.initializer.append(numpy_helper.from_array(array, inputs[-1]))
    return helper.make_node("Slice", inputs, [name])
