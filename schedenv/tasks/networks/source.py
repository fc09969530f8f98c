"""ONNX files as they come: read with suspicion, and made ready for TVM's front end."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from schedenv.errors import (
    MissingExtraError,
    MissingShapesError,
    NetworkFileError,
    UnsupportedOperatorsError,
)

MOST_OPERATORS = 10_000
"""TVM's passes take longer than in proportion: more than five minutes for 30,000 operators."""

_IDENTITIES = {"Dropout", "Identity"}


def load_onnx(path: Path, shapes: Mapping[str, Sequence[int]], limit_bytes: int) -> Any:
    """Read an ONNX model and check it, its weights included.

    Args:
        path: The file.
        shapes: Extents of inputs, by name; for inputs that the file leaves open.
        limit_bytes: Most bytes that all weights together may have.

    Returns:
        An `onnx.ModelProto` whose dropouts and identities are taken out: they compute nothing, and
        TVM's layout conversion fails at a dropout's second output.

    Raises:
        NetworkFileError: It is no ONNX file, is damaged, or reads files outside its folder.
        UnsupportedOperatorsError: TVM cannot convert some of its operators.
        MissingShapesError: An input's extents are not known.
        MissingExtraError: The package onnx is not installed.
    """
    try:
        import onnx
    except ImportError:
        raise MissingExtraError("onnx", "vendor", "reading networks") from None
    try:
        model = onnx.load(str(path), load_external_data=False)
    except FileNotFoundError:
        raise NetworkFileError(f"there is no file {str(path)!r}; check the path") from None
    except MemoryError:
        raise
    # protobuf raises its own kinds of exceptions, which differ between its implementations.
    except Exception as error:
        raise NetworkFileError(
            f"{path} cannot be read as ONNX ({type(error).__name__}); it is truncated or no ONNX "
            "file: export it again, and compare its size with the original's"
        ) from None
    if not model.graph.node:
        raise NetworkFileError(f"{path} is no ONNX network: its graph has no operators")
    check_operator_count(path, sum(1 for _ in _nodes(model)))
    _check_external_data(model, path)
    _check_size(model, path, limit_bytes)
    _check_operators(model, path)
    try:
        onnx.external_data_helper.load_external_data_for_model(model, str(path.parent))
        onnx.checker.check_model(model)
    except MemoryError:
        raise
    except Exception as error:
        reason = str(error).strip().splitlines()
        raise NetworkFileError(
            f"{path} is not valid ONNX: {reason[0] if reason else type(error).__name__}; "
            "export it again"
        ) from None
    check_shapes(path, open_inputs(model), shapes)
    return without_identities(model)


def open_inputs(model: Any) -> dict[str, list[int | str]]:
    """The inputs that are not weights, with their extents; a text is an open extent."""
    weights = {initializer.name for initializer in model.graph.initializer}
    return {
        value.name: [
            dim.dim_value if dim.dim_value > 0 else dim.dim_param or "?"
            for dim in value.type.tensor_type.shape.dim
        ]
        for value in model.graph.input
        if value.name not in weights
    }


def without_identities(model: Any) -> Any:
    """Take out operators that pass their first input on; the model is changed in place."""
    renamed: dict[str, str] = {}
    results = {value.name for value in model.graph.output}
    kept = []
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = renamed.get(name, name)
        if node.op_type in _IDENTITIES and not results & set(node.output):
            renamed[node.output[0]] = node.input[0]
        else:
            copy = type(node)()
            copy.CopyFrom(node)
            kept.append(copy)
    del model.graph.node[:]
    model.graph.node.extend(kept)
    return model


def external_files(model: Any, path: Path) -> list[Path]:
    """The files that a model's weights lie in, besides its own."""
    return [
        path.parent / entry.value
        for tensor in _tensors(model)
        for entry in tensor.external_data
        if entry.key == "location"
    ]


def check_operator_count(path: Path, count: int) -> None:
    """Refuse a graph that TVM would chew on for longer than anybody waits.

    Raises:
        NetworkFileError: There are too many operators.
    """
    if count > MOST_OPERATORS:
        raise NetworkFileError(
            f"{path} has {count} operators, and TVM imports at most {MOST_OPERATORS} in reasonable "
            "time; export a part of the network, or a shallower one"
        )


def check_weights(path: Path, total_bytes: int, limit_bytes: int) -> None:
    """Refuse weights that would not fit.

    Raises:
        NetworkFileError: They are too large.
    """
    if total_bytes > limit_bytes:
        raise NetworkFileError(
            f"{path} has weights of {total_bytes / 1e9:.3g} GB; at most {limit_bytes / 1e9:.3g} GB "
            "fit this machine's memory"
        )


def _graphs(model: Any) -> Iterator[Any]:
    """The graph, and those inside its operators (branches and loops)."""
    stack = [model.graph]
    while stack:
        graph = stack.pop()
        yield graph
        for node in graph.node:
            for attribute in node.attribute:
                stack.extend(attribute.graphs)
                if attribute.HasField("g"):
                    stack.append(attribute.g)


def _nodes(model: Any) -> Iterator[Any]:
    for graph in _graphs(model):
        yield from graph.node


def _tensors(model: Any) -> Iterator[Any]:
    """All constants: weights, and those that operators carry."""
    for graph in _graphs(model):
        yield from graph.initializer
        for node in graph.node:
            for attribute in node.attribute:
                yield from attribute.tensors
                if attribute.HasField("t"):
                    yield attribute.t


def _check_external_data(model: Any, path: Path) -> None:
    folder = path.resolve().parent
    for file in external_files(model, path):
        if not file.resolve().is_relative_to(folder):
            raise NetworkFileError(
                f"{path} keeps weights in {str(file)!r}, outside its own folder; that is refused: "
                "save the network with its weights beside it"
            )
        if not file.is_file():
            raise NetworkFileError(
                f"{path} keeps weights in {str(file)!r}, which does not exist; copy that file "
                "along with the network"
            )


def _check_size(model: Any, path: Path, limit_bytes: int) -> None:
    import onnx

    total = 0
    for tensor in _tensors(model):
        if any(extent < 0 for extent in tensor.dims):
            raise NetworkFileError(
                f"{path} has a weight {tensor.name!r} of shape {list(tensor.dims)}; "
                "expected no negative extents: the file is damaged"
            )
        try:
            item_bytes = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        except (KeyError, ValueError, TypeError):
            item_bytes = 1
        total += math.prod(tensor.dims) * item_bytes
    check_weights(path, total, limit_bytes)


def _check_operators(model: Any, path: Path) -> None:
    from schedenv import tvm_relax

    unsupported = tvm_relax.unsupported_operators([node.op_type for node in _nodes(model)])
    if unsupported:
        raise UnsupportedOperatorsError(
            f"{path} uses operators that TVM cannot convert: {', '.join(unsupported)}; export the "
            "network with other operators"
        )


def check_shapes(
    path: Path, inputs: Mapping[str, Sequence[int | str]], shapes: Mapping[str, Sequence[int]]
) -> None:
    """See that every extent of every input has a number.

    Args:
        path: The network, for messages.
        inputs: Its inputs' extents; a text is an open one.
        shapes: The extents that were given, by input.

    Raises:
        MissingShapesError: Some have none, or a shape is of no input, or of another rank.
    """
    unknown = sorted(set(shapes) - set(inputs))
    if unknown:
        raise MissingShapesError(
            f"{path} has no input {', '.join(map(repr, unknown))}; its inputs are "
            f"{', '.join(map(repr, inputs))}"
        )
    missing = {
        name: extents
        for name, extents in inputs.items()
        if name not in shapes and any(isinstance(extent, str) for extent in extents)
    }
    if missing:
        listed = "; ".join(
            f"{name!r} is {'x'.join(map(str, extents))}" for name, extents in missing.items()
        )
        name, extents = next(iter(missing.items()))
        example = "x".join(str(extent) if isinstance(extent, int) else "1" for extent in extents)
        raise MissingShapesError(
            f"{path} leaves extents of its inputs open ({listed}); give them numbers, for example "
            f"--shape {name}={example}"
        )
    for name, given in shapes.items():
        if len(given) != len(inputs[name]):
            raise MissingShapesError(
                f"the input {name!r} of {path} has {len(inputs[name])} extents, and "
                f"{'x'.join(map(str, given))} has {len(given)}"
            )
