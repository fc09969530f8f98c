"""The onnx package's networks without weights, with random weights put in; and the same in torch.

Their weights are constants, so that every output is equal and verification proves nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper

FOLDER = Path(onnx.__file__).parent / "backend/test/data/light"


def with_random_weights(name: str, path: Path, seed: int = 0) -> Path:
    """Write `light_NAME.onnx` with weights of He's variance, batch norms near neutral."""
    model = onnx.load(str(FOLDER / f"light_{name}.onnx"))
    rng = np.random.default_rng(seed)
    given = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    positive = {
        node.input[index]
        for node in model.graph.node
        if node.op_type == "BatchNormalization"
        for index in (1, 4)
    }
    nodes, weights, shapes = [], [], set()
    for number, node in enumerate(model.graph.node):
        if node.op_type != "ConstantOfShape":
            node.name = f"node{number}"
            nodes.append(node)
            continue
        shapes.add(node.input[0])
        shape = tuple(int(extent) for extent in given[node.input[0]])
        if node.output[0] in positive:
            array = rng.uniform(0.8, 1.2, shape)
        elif len(shape) > 1:
            array = rng.normal(size=shape) * math.sqrt(2 / math.prod(shape[1:]))
        else:
            array = rng.normal(size=shape) * 0.1
        weights.append(numpy_helper.from_array(array.astype(np.float32), node.output[0]))
    kept = [i for i in model.graph.initializer if i.name not in shapes]
    inputs = [value for value in model.graph.input if value.name not in given]
    graph = helper.make_graph(nodes, name, inputs, model.graph.output, kept + weights)
    # From version 4 on, weights need not be inputs.
    onnx.save(helper.make_model(graph, opset_imports=model.opset_import, ir_version=8), str(path))
    return path


def _pads(node: dict[str, Any]) -> list[int]:
    top, left, bottom, right = node.get("pads", [0, 0, 0, 0])
    return [left, right, top, bottom]


def _conv(node: dict[str, Any], x: Any, *weights: Any) -> Any:
    padded = torch.nn.functional.pad(x, _pads(node))
    if padded.shape == x.shape or _symmetric(node):
        padding = node.get("pads", [0, 0])[:2]
        return torch.nn.functional.conv2d(
            x, *weights, stride=node.get("strides", 1), padding=padding, groups=node.get("group", 1)
        )
    return torch.nn.functional.conv2d(
        padded, *weights, stride=node.get("strides", 1), groups=node.get("group", 1)
    )


def _symmetric(node: dict[str, Any]) -> bool:
    pads = node.get("pads", [0, 0, 0, 0])
    return bool(pads[:2] == pads[2:])


def _max_pool(node: dict[str, Any], x: Any) -> Any:
    padded = torch.nn.functional.pad(x, _pads(node), value=-math.inf)
    return torch.nn.functional.max_pool2d(padded, node["kernel_shape"], node.get("strides"))


def _average_pool(node: dict[str, Any], x: Any) -> Any:
    """The mean of what lies inside the image, as ONNX has it where nothing else is said."""

    def mean(image: Any) -> Any:
        padded = torch.nn.functional.pad(image, _pads(node))
        return torch.nn.functional.avg_pool2d(padded, node["kernel_shape"], node.get("strides"))

    if node.get("count_include_pad", 0) or not any(_pads(node)):
        return mean(x)
    return mean(x) / mean(torch.ones_like(x[:1, :1]))


_OPERATORS: dict[str, Callable[..., Any]] = {
    "Add": lambda _, x, y: x + y,
    "Sum": lambda _, x, y: x + y,
    "Relu": lambda _, x: torch.relu(x),
    "Concat": lambda node, *parts: torch.cat(parts, node["axis"]),
    "Conv": _conv,
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "GlobalAveragePool": lambda _, x: x.mean((2, 3), keepdim=True),
    "BatchNormalization": lambda node, x, scale, bias, mean, variance: (
        torch.nn.functional.batch_norm(
            x, mean, variance, scale, bias, eps=node.get("epsilon", 1e-5)
        )
    ),
    "LRN": lambda node, x: torch.nn.functional.local_response_norm(
        x, node["size"], node.get("alpha", 1e-4), node.get("beta", 0.75), node.get("bias", 1.0)
    ),
    "Dropout": lambda _, x: x,
    "Flatten": lambda _, x: x.flatten(1),
    "Reshape": lambda _, x, shape: x.reshape([int(extent) for extent in shape]),
    # Before opset 13, over everything from the axis on.
    "Softmax": lambda _, x: torch.softmax(x.flatten(1), 1).reshape(x.shape),
    "Gemm": lambda _, x, weight, bias: torch.nn.functional.linear(x, weight, bias),
}


class _Torch(torch.nn.Module):
    """An ONNX graph, operator by operator."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self._constants: dict[str, Any] = {}
        for index, initializer in enumerate(model.graph.initializer):
            tensor = torch.from_numpy(numpy_helper.to_array(initializer).copy())
            if tensor.is_floating_point():
                self.register_buffer(f"weight{index}", tensor)
                self._constants[initializer.name] = f"weight{index}"
            else:
                self._constants[initializer.name] = tensor.tolist()
        self._nodes = [
            (
                node.op_type,
                {a.name: helper.get_attribute_value(a) for a in node.attribute},
                list(node.input),
                node.output[0],
            )
            for node in model.graph.node
        ]
        self._input = next(v.name for v in model.graph.input if v.name not in self._constants)
        self._output = model.graph.output[0].name

    def forward(self, x: Any) -> Any:
        values = {self._input: x}
        for name, constant in self._constants.items():
            values[name] = getattr(self, constant) if isinstance(constant, str) else constant
        for kind, attributes, inputs, output in self._nodes:
            values[output] = _OPERATORS[kind](attributes, *(values[name] for name in inputs))
        return values[self._output]


def as_torch(network: Path, path: Path) -> Path:
    """Write the same network as a torch program, with batch norms and ReLU left to torch."""
    model = onnx.load(str(network))
    module = _Torch(model).eval()
    value = next(v for v in model.graph.input if v.name == module._input)
    shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    torch.export.save(torch.export.export(module, (torch.zeros(shape),)), str(path))
    return path
