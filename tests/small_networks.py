"""Small networks, written by hand."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
helper, numpy_helper = onnx.helper, onnx.numpy_helper


def make_network(
    nodes: list[Any],
    weights: dict[str, np.ndarray],
    shape: list[int | str],
    *,
    opset: int = 13,
) -> Any:
    """A model with one input, `x`, and one output, `y`."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "network",
        [value("x", onnx.TensorProto.FLOAT, shape)],
        [value("y", onnx.TensorProto.FLOAT, [f"y{axis}" for axis in range(len(shape))])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def chain(length: int) -> Any:
    """ReLUs in a row."""
    names = ["x", *(f"t{number}" for number in range(length - 1)), "y"]
    nodes = [helper.make_node("Relu", [a], [b]) for a, b in itertools.pairwise(names)]
    return make_network(nodes, {}, [4])


def convolutional(shape: list[int | str]) -> Any:
    """Two equal convolutions with batch norm and ReLU, a dropout, a residual sum, a mean."""
    rng = np.random.default_rng(0)

    def weight(*extents: int) -> np.ndarray:
        return rng.normal(size=extents).astype(np.float32) * 0.2

    channels = 32
    norm = {f"n{i}": np.abs(weight(channels)) + 0.5 for i in range(4)}
    weights = {"w0": weight(channels, 3, 3, 3), "w1": weight(channels, channels, 3, 3)}
    weights |= {"w2": weight(channels, channels, 3, 3), **norm}
    pads = {"pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["a"], **pads),
        helper.make_node("BatchNormalization", ["a", *norm], ["b"]),
        helper.make_node("Relu", ["b"], ["c"]),
        helper.make_node("Conv", ["c", "w1"], ["d"], **pads),
        helper.make_node("Relu", ["d"], ["e"]),
        helper.make_node("Dropout", ["e"], ["f"]),
        helper.make_node("Conv", ["f", "w2"], ["g"], **pads),
        helper.make_node("Relu", ["g"], ["h"]),
        helper.make_node("Add", ["c", "h"], ["i"]),
        helper.make_node("GlobalAveragePool", ["i"], ["y"]),
    ]
    return make_network(nodes, weights, shape)
